"""Does a container runtime truly work here? The very launch line, tried on a self-check.

A runtime that answers ``--version`` may still fail, and one that exits with 0 may have done
something else than it was asked: no PID namespace, a bind silently skipped, a file of the
image printing on what is to be the link. So the wrapper's own self-check is run through the
launch line that jobs will get, in the image that they will get. It prints one line of JSON,
which is held against what was asked. Exit codes are not looked at, as they lie in both
directions; what the runtime wrote to stderr becomes a sentence by a table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pilot.bounded_process import Finished, run_bounded
from pilot.container import ContainerLaunch, launch_command, launch_environment
from transport.messages import Record

_QUOTED_MAX = 200
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_HARMLESS = re.compile(
    r"^INFO|^WARNING: (Skipping mount|passwd file doesn't exist|group file doesn't exist)"
)

CAUSES: tuple[tuple[str, str], ...] = (
    ("not allowed by configuration", "the site's configuration forbids user namespaces"),
    (
        r"user.?name.?spaces? .*(disabled|not (allowed|enabled|supported))|max_user_namespaces"
        r"|[Ff]ailed to create user.?name.?space",
        "this node has no user namespaces for ordinary users",
    ),
    (r"Requesting capability set", "root lacks a capability here and needs a user namespace"),
    (r"unknown userid", "this user has no entry in the node's passwd database"),
    (r"mount(ing)? .*proc.*(not permitted|denied)", "the node doesn't let a container mount /proc"),
    (r"/dev/fuse|squashfuse|fuse: ", "the image can't be mounted: FUSE isn't usable here"),
    (r"loop device", "the image can't be mounted: no loop device is to be had"),
    (r"image format not recognized", "the image is in no format that the runtime knows"),
    (r"configuration disallows users from running", "the site forbids this kind of image"),
    (r"[Ee]xec format error", "the image is for another architecture"),
    (r"[Nn]o space left", "there is no room left where the runtime works"),
    (
        r"destination \S+ doesn't exist in container",
        "the image lacks a directory that is bound, and neither overlay nor underlay can make it",
    ),
    # What is only warned of, and what may be the consequence of anything, come last.
    (r"user bind control disabled", "the site's configuration forbids binds"),
    (r"Not virtualizing pid namespace", "the site's configuration forbids PID namespaces"),
    (r"not readable by|[Pp]ermission denied", "a file that it needs may not be read"),
    (r"not found|[Nn]o such file", "a file that it needs is not there"),
)
"""What is found in a line of stderr, and what that means; the first that fits is the cause."""


class SelfCheck(Record, frozen=True, kw_only=True):
    """The line that the wrapper's self-check prints: what it found itself to be."""

    nonce: str
    pid: int
    pid_namespace: int | None
    user_namespace: int | None
    uid: int
    work_is_writable: bool
    python: str


class Verification(Record, frozen=True, kw_only=True):
    """Whether a launch works; if not, the reason is a short sentence without a full stop."""

    works: bool
    reason: str = ""
    seconds: float = 0.0


async def verify(
    launch: ContainerLaunch,
    check_command: Sequence[str],
    *,
    nonce: str,
    host: Mapping[str, str],
    timeout_s: float,
) -> Verification:
    """Run the launch line with the self-check: ``check_command`` and the nonce after it.

    Waits for ``timeout_s`` and some seconds for the killing at most, with bounded output.
    ``host`` is the pilot's own environment. Raises what `launch_command` raises.
    """
    finished = await run_bounded(
        [*launch_command(launch), *check_command, nonce],
        environment=launch_environment(launch, host),
        timeout_s=timeout_s,
    )
    reason = judge(launch, nonce, finished, own_pid_namespace())
    return Verification(works=not reason, reason=reason, seconds=finished.seconds)


def own_pid_namespace() -> int:
    """Return the inode of this process's own PID namespace."""
    return Path("/proc/self/ns/pid").stat().st_ino


def judge(launch: ContainerLaunch, nonce: str, finished: Finished, host_namespace: int) -> str:
    """Say what is wrong with the answer to a self-check; empty where nothing is."""
    if finished.is_flooded:
        return f"it wrote more than {max(len(finished.stdout), len(finished.stderr))} bytes"
    cause = classify_stderr(finished.stderr)
    if finished.is_timed_out:
        return f"no answer in {finished.seconds:.0f} s" + (f": {cause}" if cause else "")
    if not finished.stdout.strip():
        return cause or f"it said nothing and exited with {finished.exit_code}"
    try:
        check = msgspec.json.decode(finished.stdout, type=SelfCheck)
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = finished.stdout[:_QUOTED_MAX].decode(errors="replace").strip()
        return f"its stdout holds more or other than the wrapper's answer: {text!r}"
    return _compare(launch, nonce, check, host_namespace, cause)


def _compare(
    launch: ContainerLaunch, nonce: str, check: SelfCheck, host_namespace: int, cause: str
) -> str:
    if check.nonce != nonce:
        return "it gave the answer to another check"
    if not check.work_is_writable:
        return f"{launch.working_directory} can't be written inside"
    if launch.own_pid_namespace and check.pid_namespace in {None, host_namespace}:
        return "it gave no PID namespace of its own" + (f": {cause}" if cause else "")
    return ""


def classify_stderr(stderr: bytes) -> str:
    """Make a short sentence of what a runtime wrote to stderr; empty where it wrote nothing.

    The line that it was made of is quoted; where no cause is known, the last line is.
    """
    text = _ANSI.sub("", stderr.decode(errors="replace"))
    lines = [line for line in map(str.strip, text.splitlines()) if not _HARMLESS.search(line)]
    for pattern, meaning in CAUSES:
        for line in lines:
            if re.search(pattern, line):
                return f"{meaning} ({_shortened(line)})"
    return _shortened(next(filter(None, reversed(lines)), ""))


def _shortened(line: str) -> str:
    return line if len(line) <= _QUOTED_MAX else f"{line[:_QUOTED_MAX]}..."
