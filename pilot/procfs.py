"""What /proc says of processes: small readers, no state, nothing but the standard library.

A process that isn't there, or may not be looked at, is an ordinary answer (None, or left
out), since between any two reads it may have ended. Used by the wrapper and by the agent.
See proc(5) for the formats.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
MARK_VARIABLE = "PILOT_MARK"
"""The environment variable that marks an attempt's processes."""

AGENT_VARIABLE = "PILOT_AGENT"
"""Set in the agent's own environment, so that its own helpers are known from orphans."""


class ProcessStat(NamedTuple):
    """One line of /proc/PID/stat, as far as it matters here."""

    pid: int
    state: str
    parent: int
    session: int
    cpu_ticks: int
    """Own and waited-for children's, user and system."""
    threads: int
    start_ticks: int
    rss_bytes: int


def read_stat(pid: int | str) -> ProcessStat | None:
    """Read one process; None if it isn't there."""
    text = _read(f"/proc/{pid}/stat")
    if text is None:
        return None
    # The name may hold spaces and parentheses: the fields begin after the last one.
    number, _, rest = text.partition(b" (")
    fields = rest[rest.rindex(b")") + 2 :].split()
    return ProcessStat(
        pid=int(number),
        state=fields[0].decode(),
        parent=int(fields[1]),
        session=int(fields[3]),
        cpu_ticks=sum(int(field) for field in fields[11:15]),
        threads=int(fields[17]),
        start_ticks=int(fields[19]),
        rss_bytes=int(fields[21]) * PAGE_BYTES,
    )


def all_processes() -> Iterator[ProcessStat]:
    """Yield every process that can be seen."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := read_stat(name)) is not None:
            yield stat


def descendants(roots: Iterable[int], processes: Iterable[ProcessStat]) -> list[ProcessStat]:
    """Return the roots and everything under them, each once."""
    children: dict[int, list[ProcessStat]] = {}
    found = {}
    wanted = set(roots)
    for stat in processes:
        children.setdefault(stat.parent, []).append(stat)
        if stat.pid in wanted:
            found[stat.pid] = stat
    queue = list(found.values())
    for stat in queue:
        for child in children.get(stat.pid, ()):
            if child.pid not in found:
                found[child.pid] = child
                queue.append(child)
    return queue


def pid_namespace(pid: int | str) -> int | None:
    """Return the inode of a process's PID namespace, if it may be read."""
    return namespace(pid, "pid")


def namespace(pid: int | str, kind: str) -> int | None:
    """Return the inode of one of a process's namespaces."""
    try:
        return os.stat(f"/proc/{pid}/ns/{kind}").st_ino
    except OSError:
        return None


def innermost_pid(pid: int | str) -> int | None:
    """Return the PID that a process has in its own namespace: the last of its NSpid line."""
    value = status_field(pid, b"NSpid")
    return None if not value else int(value.split()[-1])


def status_field(pid: int | str, name: bytes) -> str | None:
    """Return one field of /proc/PID/status."""
    for line in (_read(f"/proc/{pid}/status") or b"").splitlines():
        key, _, value = line.partition(b":")
        if key == name:
            return value.decode().strip()
    return None


def pss_bytes(pid: int) -> int | None:
    """Return a process's proportional set size; None where the kernel doesn't tell."""
    for line in (_read(f"/proc/{pid}/smaps_rollup") or b"").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    return None


def environment_of(pid: int) -> bytes:
    """Return the environment that a process was started with, or nothing."""
    return _read(f"/proc/{pid}/environ") or b""


def mark_of(pid: int) -> bytes:
    """Return the value of the attempt's marker that a process was started with, or nothing.

    A container runtime carries it under a prefix (APPTAINERENV_PILOT_MARK).
    """
    name = MARK_VARIABLE.encode()
    for entry in environment_of(pid).split(b"\0"):
        key, _, value = entry.partition(b"=")
        if key.endswith(name):
            return value
    return b""


def boot_id() -> str:
    """Return what tells one boot of the machine from another."""
    return (_read("/proc/sys/kernel/random/boot_id") or b"").decode().strip()


def uptime_s() -> float:
    """Return seconds since boot, the clock of start ticks."""
    return float((_read("/proc/uptime") or b"0").split()[0])


def signal_exactly(pid: int, start_ticks: int, number: int) -> bool:
    """Signal this process and no later one of its PID; False when it is gone.

    Held by pidfd between the look and the signal; where the kernel has none (before 5.3) the
    look comes right before.
    """
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except OSError:
        descriptor = -1
    try:
        stat = read_stat(pid)
        if stat is None or stat.start_ticks != start_ticks or stat.state == "Z":
            return False
        if descriptor >= 0:
            signal.pidfd_send_signal(descriptor, number)
        else:
            os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    else:
        return True
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _read(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None
