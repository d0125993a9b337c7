"""What Podman and Docker have in common: how binds are said, and what OCI runtimes complain of.

Binds are options of comma-separated fields; a comma or a quote in a path can't be said in a way
that both understand. ``--volume`` is not used: it makes a missing source, an empty directory,
and splits at colons.
"""

from __future__ import annotations

from pilot.containers.runtime import Bind, Cause, Reason, RuntimeKind, bind_path

BIND_ENTRY = """\
case $inside in
      *[,\\"]*) echo "$entry: left out for its name" >&2 ;;
      *) set -- --mount "type=bind,source=$entry,destination=$inside,readonly" "$@" ;;
    esac"""
"""Shell that shows an entry of the image: for `pilot.containers.own_root`."""


def bind_option(bind: Bind, kind: RuntimeKind) -> str:
    """Return the option of Podman or Docker for a bind.

    Raises `OperatorError` for a path with a character that means something there.
    """
    source, destination = (
        bind_path(path, kind, forbidden=',"') for path in (bind.source, bind.destination)
    )
    option = f"--mount=type=bind,source={source},destination={destination}"
    return f"{option},readonly" if bind.read_only else option


CAUSES = (
    Cause(
        pattern=r"mounting \"proc\"|mount `?proc'?|mount proc to",
        reason=Reason.NO_PID_NAMESPACE,
        meaning="the node doesn't let a container mount /proc",
    ),
    Cause(
        pattern=r"mkdir \S+: (read-only file system|permission denied)"
        r"|creat\w+ .*[Rr]ead-only file system",
        reason=Reason.NO_MOUNT_POINT,
        meaning="the image lacks a directory that is to be mounted on, and it can't be made",
    ),
    Cause(
        pattern=r"[Ee]xec format error",
        reason=Reason.ARCHITECTURE,
        meaning="the image is for another architecture",
    ),
    Cause(
        pattern=r"[Nn]o space left",
        reason=Reason.NO_SPACE,
        meaning="there is no room left where the runtime works",
    ),
    Cause(
        pattern=r"cgroup",
        reason=Reason.NO_ACCESS,
        meaning="the node's cgroups are not to the OCI runtime's liking",
    ),
)
"""What crun and runc say, wherever it is quoted."""
