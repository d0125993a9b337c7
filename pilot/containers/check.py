"""Does a container runtime truly work here? The very launch line, tried on a self-check.

A runtime that answers ``--version`` may still fail, and one that exits with 0 may have done
something else than it was asked: no PID namespace, a bind silently skipped, a file of the
image printing on what is to be the link. So the wrapper's own self-check is run through the
launch line that jobs will get, in the image that they will get. It prints one line of JSON,
which is held against what was asked: the namespaces, and each directory that was to be bound,
with a nonce in it. Exit codes are not looked at, as they lie in both directions; what the
runtime wrote to stderr becomes a code and a sentence by a table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pilot.bounded_process import Finished, run_bounded
from pilot.containers.dialects import dialect_of
from pilot.containers.runtime import Cause, ContainerLaunch, Reason, RuntimeKind
from transport.messages import Record

_QUOTED_MAX = 200
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_HARMLESS = re.compile(
    r"^INFO|^WARNING: (Skipping mount|passwd file doesn't exist|group file doesn't exist)"
)

COMMON_CAUSES = (
    Cause(
        pattern=r"not readable by|[Pp]ermission denied",
        reason=Reason.NO_ACCESS,
        meaning="a file that it needs may not be read",
    ),
    Cause(
        pattern=r"not found|[Nn]o such file",
        reason=Reason.MISSING_FILE,
        meaning="a file that it needs is not there",
    ),
)
"""What any program says; they may be the consequence of anything, and come last."""


class SeenDirectory(Record, frozen=True, kw_only=True):
    """A directory that was to be bound, as the self-check saw it."""

    path: str
    nonce: str
    """What it read from the file that was put there for it; empty where there is none."""
    is_writable: bool


class SelfCheck(Record, frozen=True, kw_only=True):
    """The line that the wrapper's self-check prints: what it found itself to be."""

    nonce: str
    pid: int
    namespaces: dict[str, int]
    """Kind (pid, mnt, user, ...) to inode."""
    uid: int
    uid_map: str
    cgroup: str
    mounts: int
    no_new_privileges: bool
    python: str
    directories: tuple[SeenDirectory, ...]


class Asked(Record, frozen=True, kw_only=True):
    """What a self-check's answer is held against."""

    nonce: str
    writable: tuple[str, ...]
    """Directories, inside, that hold the nonce and can be written."""
    read_only: tuple[str, ...] = ()
    own_pid_namespace: bool = True
    host_pid_namespace: int = 0
    host_namespaces: Mapping[str, int] = {}
    """Others that must be its own: kind to the host's inode."""
    uid: int | None = None
    """None: whoever it is inside."""

    @property
    def directories(self) -> tuple[str, ...]:
        """All of them, in the order in which the self-check is given them."""
        return (*self.writable, *self.read_only)


class Verification(Record, frozen=True, kw_only=True):
    """Whether a launch works; if not, why: a code, and a short sentence without a full stop."""

    works: bool
    reason: Reason | None = None
    detail: str = ""
    seconds: float = 0.0
    found: SelfCheck | None = None


async def verify(
    launch: ContainerLaunch,
    check_command: Sequence[str],
    asked: Asked,
    *,
    host: Mapping[str, str],
    timeout_s: float,
) -> Verification:
    """Run the launch line with the self-check: ``check_command``, the nonce, the directories.

    Waits for ``timeout_s`` and some seconds for the killing at most, with bounded output.
    ``host`` is the pilot's own environment. Raises what `Dialect.command` raises.
    """
    dialect = dialect_of(launch.runtime.kind)
    finished = await run_bounded(
        [*dialect.command(launch), *check_command, asked.nonce, *asked.directories],
        environment=dialect.environment(launch, host),
        timeout_s=timeout_s,
    )
    return judge(asked, finished, (*dialect.causes, *COMMON_CAUSES))


def own_pid_namespace() -> int:
    """Return the inode of this process's own PID namespace."""
    return own_namespace("pid")


def own_namespace(kind: str) -> int:
    """Return the inode of this process's own namespace of a kind (pid, mnt, user, ...)."""
    return Path(f"/proc/self/ns/{kind}").stat().st_ino


def judge(asked: Asked, finished: Finished, causes: Sequence[Cause]) -> Verification:
    """Hold the answer to a self-check against what was asked."""
    found: SelfCheck | None = None
    wrong: tuple[Reason, str] | None
    cause, said = find_cause(finished.stderr, causes)
    if finished.is_flooded:
        count = max(len(finished.stdout), len(finished.stderr))
        wrong = (Reason.FLOODED, f"it wrote more than {count} bytes")
    elif finished.is_timed_out:
        detail = f"no answer in {finished.seconds:.0f} s" + (f": {said}" if said else "")
        wrong = (Reason.NO_ANSWER, detail)
    elif not finished.stdout.strip():
        silence = f"it said nothing and exited with {finished.exit_code}"
        wrong = (cause or Reason.SILENT, said or silence)
    else:
        try:
            found = msgspec.json.decode(finished.stdout, type=SelfCheck)
            wrong = _compare(asked, found, said)
        except (msgspec.DecodeError, UnicodeDecodeError):
            text = finished.stdout[:_QUOTED_MAX].decode(errors="replace").strip()
            detail = f"its stdout holds more or other than the wrapper's answer: {text!r}"
            wrong = (Reason.NONSENSE, detail)
    if wrong is None:
        return Verification(works=True, seconds=finished.seconds, found=found)
    reason, detail = wrong
    return Verification(
        works=False, reason=reason, detail=detail, seconds=finished.seconds, found=found
    )


def _compare(asked: Asked, check: SelfCheck, said: str) -> tuple[Reason, str] | None:
    because = f": {said}" if said else ""
    if check.nonce != asked.nonce:
        return Reason.WRONG_ANSWER, "it gave the answer to another check"
    if asked.uid is not None and check.uid != asked.uid:
        return Reason.WRONG_ANSWER, f"inside, it runs as uid {check.uid} and not as {asked.uid}"
    seen = {directory.path: directory for directory in check.directories}
    if set(seen) != set(asked.directories):
        return Reason.WRONG_ANSWER, "it told of other directories than it was asked for"
    for path in asked.writable:
        if seen[path].nonce != asked.nonce:
            return Reason.NOT_MOUNTED, f"{path} inside is not what was bound there{because}"
        if not seen[path].is_writable:
            return Reason.NOT_WRITABLE, f"{path} can't be written inside{because}"
    for path in asked.read_only:
        if seen[path].is_writable:
            return Reason.NOT_MOUNTED, f"{path} was to be read-only inside, and can be written"
    if not check.namespaces:
        return Reason.NOT_MOUNTED, "/proc inside is not the kernel's"
    namespace = check.namespaces.get("pid")
    if asked.own_pid_namespace and namespace in {None, asked.host_pid_namespace}:
        return Reason.NO_PID_NAMESPACE, f"it gave no PID namespace of its own{because}"
    for kind, inode in asked.host_namespaces.items():
        if check.namespaces.get(kind) in {None, inode}:
            return Reason.NOT_CONFINED, f"it gave no {kind} namespace of its own{because}"
    return None


def classify_stderr(stderr: bytes, kind: RuntimeKind | None = None) -> str:
    """Make a short sentence of what a runtime wrote to stderr; empty where it wrote nothing."""
    own = dialect_of(kind).causes if kind is not None else ()
    return find_cause(stderr, (*own, *COMMON_CAUSES))[1]


def find_cause(stderr: bytes, causes: Sequence[Cause]) -> tuple[Reason | None, str]:
    """Return what a runtime's stderr means: a code, and a sentence that quotes the line.

    Where no cause is known the sentence is the last line; both are empty where it wrote nothing.
    """
    text = _ANSI.sub("", stderr.decode(errors="replace"))
    lines = [line for line in map(str.strip, text.splitlines()) if not _HARMLESS.search(line)]
    for cause in causes:
        for line in lines:
            if re.search(cause.pattern, line):
                return cause.reason, f"{cause.meaning} ({_shortened(line)})"
    last = next(filter(None, reversed(lines)), "")
    return (Reason.UNKNOWN if last else None), _shortened(last)


def _shortened(line: str) -> str:
    return line if len(line) <= _QUOTED_MAX else f"{line[:_QUOTED_MAX]}..."
