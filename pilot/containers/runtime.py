"""What a container runtime is to the pilot, and the few questions that each kind answers.

A kind of runtime is a `Dialect`: one file with the names of its programs, the ways in which it
may be used (rungs), and the command line and environment of one launch; and a row in the table
of `pilot.containers.dialects`. Everything else - looking for it, trying it, choosing it,
running a job in it - is the same for all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from transport.errors import OperatorError, UserError
from transport.messages import Record

HOST_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "XDG_RUNTIME_DIR")
"""What a runtime itself needs. Not handed on: APPTAINER_* and SINGULARITY_* of the pilot's own
surroundings, which would change the launch, and whatever else is only the pilot's business."""
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
"""Where a node's programs are, whatever the pilot's own PATH is."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class RuntimeKind(StrEnum):
    """Which program it is; the value is its name."""

    APPTAINER = "apptainer"
    SINGULARITY = "singularity"
    BUBBLEWRAP = "bubblewrap"
    PODMAN = "podman"
    DOCKER = "docker"
    CHARLIECLOUD = "charliecloud"


class ImageForm(StrEnum):
    """What an image is, on this node's disk."""

    DIRECTORY = "directory"
    SIF = "sif"
    SQUASHFS = "squashfs"


class Reason(StrEnum):
    """Why a step of the ladder was not taken: one code for each kind of cause."""

    NO_ANSWER = "no-answer"
    FLOODED = "flooded"
    NONSENSE = "nonsense"
    SILENT = "silent"
    WRONG_ANSWER = "wrong-answer"
    NO_PID_NAMESPACE = "no-pid-namespace"
    NO_USER_NAMESPACE = "no-user-namespace"
    NO_LANDLOCK = "no-landlock"
    NOT_CONFINED = "not-confined"
    NO_MOUNT_POINT = "no-mount-point"
    NOT_MOUNTED = "not-mounted"
    NOT_WRITABLE = "not-writable"
    BINDS_FORBIDDEN = "binds-forbidden"
    IMAGE_UNMOUNTABLE = "image-unmountable"
    IMAGE_FORMAT = "image-format"
    IMAGE_FORBIDDEN = "image-forbidden"
    IMAGE_FORM = "image-form"
    ARCHITECTURE = "architecture"
    NO_SPACE = "no-space"
    UNKNOWN_USER = "unknown-user"
    NO_ACCESS = "no-access"
    MISSING_FILE = "missing-file"
    BROKE_LATER = "broke-later"
    NO_DAEMON = "no-daemon"
    NOT_EXPRESSIBLE = "not-expressible"
    UNKNOWN = "unknown"


class NotExpressible(OperatorError):
    """Raised when a launch can't be said to a runtime: it would read it as something else."""


class Runtime(Record, frozen=True, kw_only=True):
    """A container runtime on this node; that it is there doesn't mean that it works."""

    path: str
    kind: RuntimeKind
    version: str = ""
    """As it says itself, or empty when it said nothing."""
    arguments: tuple[str, ...] = ()
    """Its own, before any command: ``-c FILE`` for another apptainer.conf."""


class Bind(Record, frozen=True, kw_only=True):
    """A directory or file of the host that is seen in the container."""

    source: str
    destination: str
    read_only: bool = False


class Layers(Record, frozen=True, kw_only=True):
    """What a runtime can do about a mount point that the image doesn't have."""

    makes_mount_points: bool = False
    """Anywhere: through an overlay, an underlay, or a writable copy."""
    may_make_mount_points: bool = False
    """The site decides whether it does: it is tried, and what needs it has an alternative."""
    has_own_tmp: bool = True
    """It mounts a /tmp of the session's own, and makes mount points in there."""
    makes_tmp: bool = False
    """Its own /tmp needs none in the image."""


class Rung(Record, frozen=True, kw_only=True):
    """One way to use a runtime; a ladder of them is climbed down until one works."""

    own_pid_namespace: bool = True
    use_userns: bool = False
    """Ask for a user namespace. Root needs it on a node that lacks a capability; for an
    ordinary user an installation without setuid takes one unasked."""

    def __str__(self) -> str:
        pid = "with" if self.own_pid_namespace else "without"
        return f"{pid} a PID namespace" + (", in a user namespace" if self.use_userns else "")


class ContainerLaunch(Record, frozen=True, kw_only=True):
    """Everything about one launch: what is bound where, and what is asked of the runtime."""

    runtime: Runtime
    image: str
    """Path on the node."""
    image_form: ImageForm = ImageForm.DIRECTORY
    binds: tuple[Bind, ...]
    working_directory: str
    """Inside."""
    scratch_directory: str = ""
    """On the host, of this attempt alone: for the container's /tmp and the runtime's own files.
    Empty: /tmp is a small memory file system."""
    rung: Rung = Rung()
    environment: Mapping[str, str] = {}
    """For the wrapper, beside what the runtime sets itself."""


class Cause(Record, frozen=True, kw_only=True):
    """What a line of a runtime's stderr means."""

    pattern: str
    reason: Reason
    meaning: str
    """For a person: what is missing, without a full stop."""


class Dialect(Protocol):
    """One kind of runtime."""

    @property
    def kind(self) -> RuntimeKind:
        """Its name."""
        ...

    @property
    def programs(self) -> tuple[str, ...]:
        """What it may be called in PATH, and absolute paths where it may be (CVMFS)."""
        ...

    @property
    def image_forms(self) -> frozenset[ImageForm]:
        """The forms of an image that it can run."""
        ...

    @property
    def layers(self) -> Layers:
        """What it can do about missing mount points, as far as that is known beforehand."""
        ...

    @property
    def causes(self) -> tuple[Cause, ...]:
        """What it says when something is wrong; the first that fits a line counts."""
        ...

    def configuration(self, runtime: Runtime) -> tuple[str, ...]:
        """Return the files that say how a site has set it up."""
        ...

    def rungs(self, runtime: Runtime, *, is_root: bool) -> tuple[Rung, ...]:
        """Return the ways to use it, the best first."""
        ...

    def command(self, launch: ContainerLaunch) -> tuple[str, ...]:
        """Return the command line, to which the wrapper's own is appended.

        Raises `UserError` for an image and `NotExpressible` for a bind that can't be expressed.
        """
        ...

    def environment(self, launch: ContainerLaunch, host: Mapping[str, str]) -> dict[str, str]:
        """Return the environment to start the command line in, given the pilot's own.

        Raises `NotExpressible` for a variable that the runtime would change on its way.
        """
        ...


def host_environment(host: Mapping[str, str]) -> dict[str, str]:
    """Return what a runtime may see of the pilot's own environment."""
    chosen = {name: host[name] for name in HOST_VARIABLES if name in host}
    return {"PATH": SYSTEM_PATH} | chosen


def checked_image(image: str) -> str:
    """Return ``image`` if it is a path that a runtime takes for one; raise `UserError` if not."""
    if not image.startswith("/") or "://" in image or _CONTROL.search(image):
        raise UserError(f"The container image {image!r} is not an absolute path on the node.")
    return image


def bind_path(path: str, kind: RuntimeKind, *, forbidden: str) -> str:
    """Return a bind's path; raise `OperatorError` for one that the runtime would misread.

    ``forbidden`` are the characters that separate binds on its command line and that it has no
    escape for.
    """
    if not path.startswith("/") or _CONTROL.search(path) or set(forbidden) & set(path):
        named = " ".join(sorted(set(forbidden)))
        raise NotExpressible(
            f"{path!r} can't be bound into a container by {kind}: a path must be absolute and "
            f"free of control characters{f' and of {named}' if named else ''}. "
            "Choose another directory."
        )
    return path


def handed_on_by_name(environment: Mapping[str, str], kind: RuntimeKind) -> tuple[str, ...]:
    """Return the names of variables that a runtime hands on out of its own environment.

    Raises `OperatorError` for one that can't be, or that it needs for itself.
    """
    for name in environment:
        if not _VARIABLE.fullmatch(name) or name in HOST_VARIABLES:
            raise NotExpressible(
                f"The variable {name!r} can't be handed into a container by {kind}: names are "
                f"letters, digits and '_', and {', '.join(HOST_VARIABLES)} are the runtime's own."
            )
    return tuple(environment)
