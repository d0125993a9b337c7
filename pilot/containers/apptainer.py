"""Apptainer, and its older self, Singularity: how a launch is said to them.

The rules, each seen with the real program under every mix of site settings
(tests/pilot/containers/test_apptainer.py repeats them):

- What is bound goes below /tmp where that can be. With ``--contain`` /tmp is a mount of the
  session's own, so Apptainer can make the destinations there even where a site has switched off
  both overlay and underlay; `pilot.containers.mounts` has the rules, and what else can be done.
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
- ``-B SOURCE:DESTINATION`` can't tell every path: a backslash saves ``:`` and ``,`` in the source
  only (since Singularity 3.8.1), and older versions read a quote as CSV's. ``--mount`` is CSV
  that can quote all of them. Some versions do the one kind before the other, and parents must
  come first, so a launch uses one kind: ``--mount`` for all where one path needs it.

What older versions lack, from their own documents and sources:

- Singularity 2.x has no ``--no-privs`` (new in 3.0.0: CHANGELOG, "Action Command Group"), and
  ``--no-home`` in 2.6 but not in 2.4 (their manual pages, 2.6.1-2 and 2.4.2-4 in Ubuntu). All
  else that is used here it has; ``--userns`` was ``-u`` only at first (libexec/cli/
  action_argparser.sh).
- ``--mount`` came with SingularityCE 3.9 (sylabs/singularity-userdocs #34); Apptainer has always
  had it. ``-c FILE`` came with 3.6.0, for root or an installation without setuid.
- Before 3.5.0 a bind that couldn't be made was skipped, 3.1 without a word (singularity #3797,
  #4712); 2.x warns "Skipping user bind, non existent bind point". Only the check notices.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from pilot.containers.runtime import (
    Bind,
    Cause,
    ContainerLaunch,
    ImageForm,
    Layers,
    NotExpressible,
    Reason,
    Rung,
    Runtime,
    RuntimeKind,
    bind_path,
    checked_image,
    host_environment,
)
from transport.messages import Record

CVMFS_PROGRAMS = (
    "/cvmfs/alice.cern.ch/containers/bin/apptainer/current/bin/apptainer",
    "/cvmfs/oasis.opensciencegrid.org/mis/apptainer/current/bin/apptainer",
)
_EVALUATED = re.compile(r'[\x00-\x1f\x7f$`\\"]')
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VERSION = re.compile(r"(?<![\d.])(\d+)\.(\d+)(?:\.(\d+))?")
_UNSAID = re.compile(r'[:,\\"]')
"""What ``-B`` would take for its own, in this or that version."""


class ApptainerDialect(Record, frozen=True, kw_only=True):
    """Both programs: what differs are their names and how they escape."""

    kind: RuntimeKind
    programs: tuple[str, ...]
    image_forms: frozenset[ImageForm] = frozenset(ImageForm)
    layers: Layers = Layers(may_make_mount_points=True)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What they write to stderr, 3.x and 1.x alike."""
        return CAUSES

    def configuration(self, runtime: Runtime) -> tuple[str, ...]:
        """Return its configuration file: the one it is told, or where it may be.

        It is below the prefix that the program was built for, /etc for /usr; an installation in
        CVMFS has a script in bin, and the program and its etc in a directory a machine type
        (apptainer/apptainer, tools/install-unprivileged.sh).
        """
        for option, value in zip(runtime.arguments, runtime.arguments[1:], strict=False):
            if option in ("-c", "--config"):
                return (value,)
        name = f"etc/{self.kind}/{self.kind}.conf"
        prefix = runtime.path.rpartition("/bin/")[0]
        places = (prefix.removesuffix("/usr"), prefix, f"{prefix}/{os.uname().machine}")
        return tuple(dict.fromkeys(f"{place}/{name}" for place in places))

    def rungs(self, runtime: Runtime, *, is_root: bool) -> tuple[Rung, ...]:
        """Root tries a user namespace first, others what the installation does unasked."""
        return tuple(
            Rung(own_pid_namespace=own_pid_namespace, use_userns=use_userns)
            for use_userns in ((True, False) if is_root else (False, True))
            for own_pid_namespace in (True, False)
        )

    def command(self, launch: ContainerLaunch) -> tuple[str, ...]:
        """Return the command line; see `pilot.containers.runtime.Dialect`."""
        version = version_of(launch.runtime)
        own_pid = launch.rung.own_pid_namespace
        options = ["-C"] if own_pid else ["--contain", "--ipc", "--cleanenv"]
        options += ["--no-home"] if version >= (2, 6, 0) or self._is_apptainer else []
        options += ["--no-privs"] if version >= (3, 0, 0) or self._is_apptainer else []
        if launch.rung.use_userns:
            options += ["-u"] if version < (3, 0, 0) and not self._is_apptainer else ["--userns"]
        if launch.scratch_directory:
            options += ["--workdir", launch.scratch_directory]
        return (
            launch.runtime.path,
            *launch.runtime.arguments,
            "exec",
            *options,
            *self._binds(launch.binds, can_mount=self._is_apptainer or version >= (3, 9, 0)),
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
                raise NotExpressible(
                    f"The variable {name!r} can't be handed into a container: the runtime would "
                    "evaluate its value. Names are letters, digits and '_'; values may hold no "
                    "quotes, '$', '`', backslashes or control characters."
                )
            environment[f"{prefix}ENV_{name}"] = value
        return environment

    @property
    def _is_apptainer(self) -> bool:
        return self.kind is RuntimeKind.APPTAINER

    def _binds(self, binds: Sequence[Bind], *, can_mount: bool) -> list[str]:
        forbidden = "" if can_mount else ':,\\"'
        for bind in binds:
            bind_path(bind.source, self.kind, forbidden=forbidden)
            bind_path(bind.destination, self.kind, forbidden=forbidden)
        needs_mount = any(_UNSAID.search(bind.source + bind.destination) for bind in binds)
        return [part for bind in binds for part in (_mount(bind) if needs_mount else _bind(bind))]


def version_of(runtime: Runtime) -> tuple[int, int, int]:
    """Return a version as numbers, whatever stands around it.

    Where none is told: 3.0.0 of Singularity, which all that is still met will understand.
    """
    found = _VERSION.search(runtime.version)
    if found is None:
        return (3, 0, 0) if runtime.kind is RuntimeKind.SINGULARITY else (1, 0, 0)
    major, minor, patch = found.groups(default="0")
    return int(major), int(minor), int(patch)


def _bind(bind: Bind) -> tuple[str, str]:
    return "-B", f"{bind.source}:{bind.destination}" + (":ro" if bind.read_only else "")


def _mount(bind: Bind) -> tuple[str, str]:
    fields = ["type=bind", f"source={bind.source}", f"destination={bind.destination}"]
    fields += ["ro"] if bind.read_only else []
    quoted = ['"' + field.replace('"', '""') + '"' for field in fields]
    return "--mount", ",".join(quoted)


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
            r"|[Ff]ailed to create user.?name.?space|invoking the NEWUSER namespace",
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
            r"image format not recognized|[Uu]nknown image format/type",
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
            r"destination .+ doesn't exist in container|[Nn]on existent bind point",
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
