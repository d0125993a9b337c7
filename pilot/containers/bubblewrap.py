"""Bubblewrap: how a launch is said to ``bwrap``.

The rules, each seen with the real program (tests/pilot/containers/test_real_runtimes.py):

- The root is a memory file system with the image's entries bound into it
  (`pilot.containers.own_root`), made read-only when it is complete. With ``--ro-bind IMAGE /``
  no mount point could be made: "Can't mkdir ...: Read-only file system".
- The process environment is handed on as it is. So it holds what the wrapper is to have and
  nothing of the pilot's; with ``--setenv`` the values would be in argv.
- /tmp is the attempt's own directory on the node's disk; mount points are made in there.
- No ``--die-with-parent``: the wrapper is to save what it can when the agent is gone. It ends
  when its link does, and what is left is swept by its marker.
- An ordinary user gets a user namespace unasked, with its own uid inside. Root asks for one
  first: a wrapper that gets out of it is root of nothing.
- ``no_new_privs`` is always set, and ``--cap-drop ALL`` takes the capabilities of a root.
"""

from __future__ import annotations

from collections.abc import Mapping

from pilot.containers import own_root
from pilot.containers.mounts import TMP_BASE
from pilot.containers.runtime import (
    SYSTEM_PATH,
    Bind,
    Cause,
    ContainerLaunch,
    ImageForm,
    Layers,
    Reason,
    Rung,
    Runtime,
    RuntimeKind,
    bind_path,
    handed_on_by_name,
)
from transport.messages import Record

_OPTIONS = "--unshare-ipc --unshare-uts --cap-drop ALL --proc /proc --dev /dev"
_OF_THE_NODE = ("/sys", "/etc/hosts", "/etc/resolv.conf")
"""The network is the node's, and so is the way to find things there."""


class BubblewrapDialect(Record, frozen=True, kw_only=True):
    """The program ``bwrap``, of 0.4 (2019) and later."""

    kind: RuntimeKind = RuntimeKind.BUBBLEWRAP
    programs: tuple[str, ...] = ("bwrap",)
    image_forms: frozenset[ImageForm] = frozenset({ImageForm.DIRECTORY})
    layers: Layers = Layers(makes_tmp=True)
    """Mount points can't be made below the image's own directories; in /tmp they always can."""

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What it writes to stderr."""
        return CAUSES

    def configuration(self, runtime: Runtime) -> tuple[str, ...]:
        """Return nothing: it has no such file."""
        return ()

    def rungs(self, runtime: Runtime, *, is_root: bool) -> tuple[Rung, ...]:
        """Root tries a user namespace first, others get one unasked."""
        return tuple(
            Rung(own_pid_namespace=own_pid_namespace, use_userns=use_userns)
            for use_userns in ((True, False) if is_root else (False,))
            for own_pid_namespace in (True, False)
        )

    def command(self, launch: ContainerLaunch) -> tuple[str, ...]:
        """Return the command line; see `pilot.containers.runtime.Dialect`."""
        options = _OPTIONS.split()
        options += ["--unshare-pid"] if launch.rung.own_pid_namespace else []
        options += ["--unshare-user"] if launch.rung.use_userns else []
        for path in _OF_THE_NODE:
            options += ["--ro-bind-try", path, path]
        scratch = launch.scratch_directory
        options += ["--bind", scratch, TMP_BASE] if scratch else ["--tmpfs", TMP_BASE]
        for bind in launch.binds:
            options += _bind_options(bind)
        program = own_root.quoted(launch.runtime.path, *launch.runtime.arguments)
        return own_root.command_in_own_root(
            launch.image,
            bind='set -- --ro-bind "$entry" "$inside" "$@"',
            link='set -- --symlink "$target" "$inside" "$@"',
            start=f'exec {program} --tmpfs / "$@"',
            options=(*options, "--remount-ro", "/", "--chdir", launch.working_directory),
        )

    def environment(self, launch: ContainerLaunch, host: Mapping[str, str]) -> dict[str, str]:
        """Return the environment: the wrapper's, and a PATH."""
        handed_on_by_name(launch.environment, self.kind)
        return {"PATH": SYSTEM_PATH, **launch.environment}


def _bind_options(bind: Bind) -> tuple[str, ...]:
    paths = [
        bind_path(path, RuntimeKind.BUBBLEWRAP, forbidden="")
        for path in (bind.source, bind.destination)
    ]
    return ("--ro-bind" if bind.read_only else "--bind", *paths)


CAUSES = (
    *own_root.CAUSES,
    *(
        Cause(pattern=pattern, reason=reason, meaning=meaning)
        for pattern, reason, meaning in (
            (
                r"[Nn]o permissions to create|Creating new namespace failed|setting up uid map"
                r"|kernel does not support (new|user) namespaces",
                Reason.NO_USER_NAMESPACE,
                "this node has no user namespaces for this user",
            ),
            (
                r"Can't mount proc",
                Reason.NO_PID_NAMESPACE,
                "the node doesn't let a container mount /proc",
            ),
            (
                r"Can't (mkdir|create file|make symlink)",
                Reason.NO_MOUNT_POINT,
                "the image lacks something that is bound, and it can't be made in there",
            ),
            (
                r"Can't find source path",
                Reason.MISSING_FILE,
                "something that is to be bound is not on the node",
            ),
            (
                r"[Ee]xec format error",
                Reason.ARCHITECTURE,
                "the image is for another architecture",
            ),
        )
    ),
)
"""What is found in a line of stderr, and what that means; the first that fits is the cause."""

BUBBLEWRAP = BubblewrapDialect()
