"""Apptainer, and its older self, Singularity: how a launch is said to them.

The rules, each seen with the real program under every mix of site settings
(tests/pilot/containers/test_apptainer.py repeats them):

- What is bound goes below /tmp. With ``--contain`` /tmp is a mount of the session's own, so
  Apptainer can make the destinations there even where a site has switched off both overlay
  and underlay; anywhere else the image would need to have the directory.
- ``--no-home``: the home directory is a bind like any other, and fails in an image that has no
  such directory.
- ``--workdir`` puts /tmp and /var/tmp on the node's disk. Without it they are a memory file
  system of ``sessiondir max size`` (64 MB, formerly 16), which a payload soon fills.
- ``-C`` is ``--contain --ipc --cleanenv --pid``; where a PID namespace can't be had, the same
  without ``--pid``. It may be refused by the site's configuration with a mere warning, so
  only a check from inside tells (`pilot.containers.check`).
- ``--no-privs`` takes every capability from a wrapper of root; others have none anyway.
- Variables for the wrapper are handed over in the environment, not in argv where everybody
  reads them. Apptainer evaluates their values in a shell, so a value that has something to
  evaluate is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pilot.containers.runtime import (
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
    checked_image,
    host_environment,
)
from transport.errors import OperatorError
from transport.messages import Record

CVMFS_PROGRAMS = (
    "/cvmfs/alice.cern.ch/containers/bin/apptainer/current/bin/apptainer",
    "/cvmfs/oasis.opensciencegrid.org/mis/apptainer/current/bin/apptainer",
)
_EVALUATED = re.compile(r'[\x00-\x1f\x7f$`\\"]')
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ApptainerDialect(Record, frozen=True, kw_only=True):
    """Both programs: what differs are their names and how they escape."""

    kind: RuntimeKind
    programs: tuple[str, ...]
    image_forms: frozenset[ImageForm] = frozenset(ImageForm)
    layers: Layers = Layers()

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What they write to stderr, 3.x and 1.x alike."""
        return CAUSES

    def configuration(self, runtime: Runtime) -> tuple[str, ...]:
        """Return its configuration file: the one it is told, or the one it was built for."""
        if "-c" in runtime.arguments:
            return (runtime.arguments[runtime.arguments.index("-c") + 1],)
        name = f"etc/{self.kind}/{self.kind}.conf"
        prefix = runtime.path.rpartition("/bin/")[0]
        return tuple(dict.fromkeys((f"{prefix.removesuffix('/usr')}/{name}", f"{prefix}/{name}")))

    def rungs(self, runtime: Runtime, *, is_root: bool) -> tuple[Rung, ...]:
        """Root tries a user namespace first, others what the installation does unasked."""
        return tuple(
            Rung(own_pid_namespace=own_pid_namespace, use_userns=use_userns)
            for use_userns in ((True, False) if is_root else (False, True))
            for own_pid_namespace in (True, False)
        )

    def command(self, launch: ContainerLaunch) -> tuple[str, ...]:
        """Return the command line; see `pilot.containers.runtime.Dialect`."""
        own_pid = launch.rung.own_pid_namespace
        contained = ("-C",) if own_pid else ("--contain", "--ipc", "--cleanenv")
        options = ["--userns"] if launch.rung.use_userns else []
        if launch.scratch_directory:
            options += ["--workdir", launch.scratch_directory]
        for bind in launch.binds:
            options += ["-B", self._bind_argument(bind)]
        return (
            launch.runtime.path,
            *launch.runtime.arguments,
            "exec",
            *contained,
            "--no-home",
            "--no-privs",
            *options,
            "--pwd",
            launch.working_directory,
            checked_image(launch.image),
        )

    def environment(self, launch: ContainerLaunch, host: Mapping[str, str]) -> dict[str, str]:
        """Return the environment; see `pilot.containers.runtime.Dialect`."""
        prefix = self.kind.upper()
        environment = host_environment(host)
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

    def _bind_argument(self, bind: Bind) -> str:
        source, destination = (self._bind_path(path) for path in (bind.source, bind.destination))
        return f"{source}:{destination}:ro" if bind.read_only else f"{source}:{destination}"

    def _bind_path(self, path: str) -> str:
        """Escape separators; Singularity has no escapes, and neither has one for a backslash."""
        forbidden = "\\" if self.kind is RuntimeKind.APPTAINER else "\\:,"
        return re.sub("([:,])", r"\\\1", bind_path(path, self.kind, forbidden=forbidden))


CAUSES = tuple(
    Cause(pattern=pattern, reason=reason, meaning=meaning)
    for pattern, reason, meaning in (
        (
            "not allowed by configuration",
            Reason.NO_USER_NAMESPACE,
            "the site's configuration forbids user namespaces",
        ),
        (
            r"user.?name.?spaces? .*(disabled|not (allowed|enabled|supported))|max_user_namespaces"
            r"|[Ff]ailed to create user.?name.?space",
            Reason.NO_USER_NAMESPACE,
            "this node has no user namespaces for ordinary users",
        ),
        (
            r"Requesting capability set",
            Reason.NO_ACCESS,
            "root lacks a capability here and needs a user namespace",
        ),
        (
            r"unknown userid",
            Reason.UNKNOWN_USER,
            "this user has no entry in the node's passwd database",
        ),
        (
            r"mount(ing)? .*proc.*(not permitted|denied)",
            Reason.NO_PID_NAMESPACE,
            "the node doesn't let a container mount /proc",
        ),
        (
            r"/dev/fuse|squashfuse|fuse: ",
            Reason.IMAGE_UNMOUNTABLE,
            "the image can't be mounted: FUSE isn't usable here",
        ),
        (
            r"loop device",
            Reason.IMAGE_UNMOUNTABLE,
            "the image can't be mounted: no loop device is to be had",
        ),
        (
            r"image format not recognized",
            Reason.IMAGE_FORMAT,
            "the image is in no format that the runtime knows",
        ),
        (
            r"configuration disallows users from running",
            Reason.IMAGE_FORBIDDEN,
            "the site forbids this kind of image",
        ),
        (
            r"[Ee]xec format error",
            Reason.ARCHITECTURE,
            "the image is for another architecture",
        ),
        (
            r"[Nn]o space left",
            Reason.NO_SPACE,
            "there is no room left where the runtime works",
        ),
        (
            r"destination \S+ doesn't exist in container",
            Reason.NO_MOUNT_POINT,
            "the image lacks a directory that is bound, and neither overlay nor underlay can "
            "make it",
        ),
        # What is only warned of, and what may be the consequence of anything, come last.
        (
            r"user bind control disabled",
            Reason.BINDS_FORBIDDEN,
            "the site's configuration forbids binds",
        ),
        (
            r"Not virtualizing pid namespace",
            Reason.NO_PID_NAMESPACE,
            "the site's configuration forbids PID namespaces",
        ),
    )
)
"""What is found in a line of stderr, and what that means; the first that fits is the cause."""

APPTAINER = ApptainerDialect(kind=RuntimeKind.APPTAINER, programs=("apptainer", *CVMFS_PROGRAMS))
SINGULARITY = ApptainerDialect(kind=RuntimeKind.SINGULARITY, programs=("singularity",))
