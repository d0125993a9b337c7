"""The looks at the node itself: each group in a process of its own, with a deadline."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from pilot.bounded_process import Finished, run_bounded
from pilot.probe.facts import HostFacts
from transport.messages import Record

LOOK_PROGRAM = Path(__file__).with_name("look.py")
GROUPS = (
    ("system", "kernel", "cgroup", "surroundings"),
    ("user",),
    ("temp",),
    ("cvmfs",),
    ("gpu",),
)
"""What may hang alone is alone: a directory service, a network file system, a device."""
_VARIABLES = ("PATH", "TMPDIR", "APPTAINER_CONTAINER", "SINGULARITY_CONTAINER")
_ABOUT = {
    "system": "processors and operating system",
    "kernel": "what the kernel allows",
    "cgroup": "cgroups",
    "surroundings": "what the pilot runs in",
    "user": "the user's name",
    "temp": "the directory for temporary files",
    "cvmfs": "CVMFS",
    "gpu": "graphics processors",
}


class _Line(Record, frozen=True, kw_only=True):
    look: str
    facts: dict[str, object]
    problem: str = ""


class HostLook(Record, frozen=True, kw_only=True):
    """What was found, and a sentence for what wasn't."""

    host: HostFacts
    missing: tuple[str, ...]


async def look_at_host(
    host: Mapping[str, str], *, cvmfs: str = "/cvmfs", timeout_s: float
) -> HostLook:
    """Look at the node from outside any container, waiting ``timeout_s`` at most.

    ``host`` is the pilot's own environment.
    """
    environment = {name: host[name] for name in _VARIABLES if name in host}
    command = (sys.executable, "-I", "-S", str(LOOK_PROGRAM))
    finished = await asyncio.gather(
        *(
            run_bounded(
                (*command, ",".join(group), cvmfs), environment=environment, timeout_s=timeout_s
            )
            for group in GROUPS
        )
    )
    return merge(dict(zip(GROUPS, finished, strict=True)))


def merge(answers: Mapping[Sequence[str], Finished]) -> HostLook:
    """Put the answers of all groups together; one that is broken or half there is no harm."""
    facts: dict[str, object] = {}
    missing: list[str] = []
    for group, finished in answers.items():
        lines = {line.look: line for line in _lines(finished.stdout)}
        for look in group:
            if look not in lines:
                missing.append(f"{_ABOUT[look]}: {_why(finished)}")
            elif lines[look].problem:
                missing.append(f"{_ABOUT[look]}: {lines[look].problem}")
            else:
                facts |= lines[look].facts
        if "cvmfs" in group and "cvmfs" not in lines and finished.is_timed_out:
            facts["cvmfs_hung"] = True
    try:
        host = msgspec.convert(facts, HostFacts)
    except msgspec.ValidationError as error:
        return HostLook(host=HostFacts(), missing=(*missing, f"the node itself: {error}"))
    return HostLook(host=host, missing=tuple(missing))


def _lines(stdout: bytes) -> list[_Line]:
    found = []
    for line in stdout.splitlines():
        try:
            found.append(msgspec.json.decode(line, type=_Line))
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
    return found


def _why(finished: Finished) -> str:
    if finished.is_timed_out:
        return f"no answer in {finished.seconds:.0f} s"
    said = finished.stderr.decode(errors="replace").strip().splitlines()
    return f"the look failed ({said[-1][:200] if said else f'exit code {finished.exit_code}'})"
