"""The launch of a wrapper in a container, as a pure plan: its command line and environment.

Only Apptainer and its older self, Singularity, are planned here. The rules, each seen with the
real program under every mix of site settings (tests/pilot/test_container.py repeats them):

- What is bound goes below /tmp. With ``--contain`` /tmp is a mount of the session's own, so
  Apptainer can make the destinations there even where a site has switched off both overlay
  and underlay; anywhere else the image would need to have the directory.
- ``--no-home``: the home directory is a bind like any other, and fails in an image that has no
  such directory.
- ``--workdir`` puts /tmp and /var/tmp on the node's disk. Without it they are a memory file
  system of ``sessiondir max size`` (64 MB, formerly 16), which a payload soon fills.
- ``-C`` is ``--contain --ipc --cleanenv --pid``; where a PID namespace can't be had, the same
  without ``--pid``. It may be refused by the site's configuration with a mere warning, so
  only a check from inside tells (`pilot.container_check`).
- ``--no-privs`` takes every capability from a wrapper of root; others have none anyway.
- Variables for the wrapper are handed over in the environment, not in argv where everybody
  reads them. Apptainer evaluates their values in a shell, so a value that has something to
  evaluate is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from transport.errors import OperatorError, UserError
from transport.messages import Record

WORK_INSIDE = "/tmp/job"  # noqa: S108 - inside the container, in a /tmp that is the job's own
BUNDLE_INSIDE = "/tmp/pilot"  # noqa: S108 - as above

_HOST_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "XDG_RUNTIME_DIR")
"""What a runtime itself needs. Not handed on: APPTAINER_* and SINGULARITY_* of the pilot's own
surroundings, which would change the launch, and whatever else is only the pilot's business."""
_PATH_DEFAULT = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_EVALUATED = re.compile(r'[\x00-\x1f\x7f$`\\"]')
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class RuntimeKind(StrEnum):
    """Which program it is; the value is its name."""

    APPTAINER = "apptainer"
    SINGULARITY = "singularity"


class Runtime(Record, frozen=True, kw_only=True):
    """A container runtime on this node; that it is there doesn't mean that it works."""

    path: str
    kind: RuntimeKind
    version: str = ""
    """As it says itself, or empty when it said nothing."""


class Bind(Record, frozen=True, kw_only=True):
    """A directory or file of the host that is seen in the container."""

    source: str
    destination: str
    read_only: bool = False


class ContainerLaunch(Record, frozen=True, kw_only=True):
    """Everything about one launch: what is bound where, and what is asked of the runtime."""

    runtime: Runtime
    image: str
    binds: tuple[Bind, ...]
    working_directory: str = WORK_INSIDE
    scratch_directory: str = ""
    """On the host, of this attempt alone: for the container's /tmp and the runtime's own files.
    Empty: /tmp is a small memory file system."""
    own_pid_namespace: bool = True
    use_userns: bool = False
    """Ask for a user namespace. Root needs it on a node that lacks a capability; for an
    ordinary user an installation without setuid takes one unasked."""
    environment: Mapping[str, str] = {}
    """For the wrapper, beside what the runtime sets itself."""


def launch_command(launch: ContainerLaunch) -> tuple[str, ...]:
    """Return the command line, to which the wrapper's own is appended.

    Raises `UserError` for an image and `OperatorError` for a bind that can't be expressed.
    """
    contained = ("-C",) if launch.own_pid_namespace else ("--contain", "--ipc", "--cleanenv")
    options = ["--userns"] if launch.use_userns else []
    if launch.scratch_directory:
        options += ["--workdir", launch.scratch_directory]
    for bind in launch.binds:
        options += ["-B", _bind_argument(bind, launch.runtime)]
    return (
        launch.runtime.path,
        "exec",
        *contained,
        "--no-home",
        "--no-privs",
        *options,
        "--pwd",
        launch.working_directory,
        checked_image(launch.image),
    )


def launch_environment(launch: ContainerLaunch, host: Mapping[str, str]) -> dict[str, str]:
    """Return the environment to start the command line in, given the pilot's own.

    Raises `OperatorError` for a variable that the runtime would change on its way.
    """
    prefix = launch.runtime.kind.upper()
    chosen = {name: host[name] for name in _HOST_VARIABLES if name in host}
    environment = {"PATH": _PATH_DEFAULT} | chosen
    if launch.scratch_directory:
        environment[f"{prefix}_TMPDIR"] = launch.scratch_directory
        environment[f"{prefix}_CACHEDIR"] = launch.scratch_directory
    for name, value in launch.environment.items():
        if not _VARIABLE.fullmatch(name) or _EVALUATED.search(value):
            raise OperatorError(
                f"The variable {name!r} can't be handed into a container: the runtime would "
                "evaluate its value. Names are letters, digits and '_'; values may hold no "
                "quotes, '$', '`', backslashes or control characters."
            )
        environment[f"{prefix}ENV_{name}"] = value
    return environment


def checked_image(image: str) -> str:
    """Return ``image`` if it is a path that a runtime takes for one; raise `UserError` if not."""
    if not image.startswith("/") or "://" in image or _CONTROL.search(image):
        raise UserError(
            f"The container image {image!r} is not an absolute path on the node. Name a "
            "directory or a .sif file; nothing is pulled from registries."
        )
    return image


def _bind_argument(bind: Bind, runtime: Runtime) -> str:
    source, destination = (_bind_path(path, runtime) for path in (bind.source, bind.destination))
    return f"{source}:{destination}:ro" if bind.read_only else f"{source}:{destination}"


def _bind_path(path: str, runtime: Runtime) -> str:
    """Escape what separates binds; Singularity has no escapes, and none has one for a backslash."""
    is_special = {":", ","} & set(path)
    if (
        not path.startswith("/")
        or "\\" in path
        or _CONTROL.search(path)
        or (is_special and runtime.kind is not RuntimeKind.APPTAINER)
    ):
        raise OperatorError(
            f"{path!r} can't be bound into a container by {runtime.kind}: a path must be absolute "
            "and free of backslashes and control characters"
            f"{', colons and commas' if is_special else ''}. Choose another directory."
        )
    return re.sub("([:,])", r"\\\1", path)
