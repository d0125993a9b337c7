"""Starts and ends the payload, inside the wrapper.

The payload has a session of its own, its stdio in files of the work directory, an environment
built from nothing, and no descriptor of ours. The wrapper is a subreaper: whatever the
payload starts, however it detaches itself, stays among the wrapper's descendants, and that is
how `sweep` finds it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from actors.ports import ProcessEnd
from pilot import children, procfs
from pilot.confinement.plan import Held
from transport.errors import UserError
from transport.messages import ConfinementReported, ProcessIdentity

SWEEPS_MAX = 500
EMPTY_LOOKS = 3
MOUNTS_MAX = 200
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


class LocalCommand:
    """A started payload or validation."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        self.identity = identity_of(child.pid)

    async def wait(self) -> ProcessEnd:
        """Wait for its end."""
        code = await children.wait_child(self._child)
        return ProcessEnd(signal=-code) if code < 0 else ProcessEnd(exit_code=code)

    def signal(self, number: int) -> None:
        """Signal everything that descends from this wrapper: the command and all it started."""
        signal_descendants(number)


class LocalRunner:
    """Starts commands as children of this process."""

    def __init__(self, held: Held | None = None) -> None:
        """``held`` is what this process was confined to when it was launched bare, if it was."""
        self._held = held
        children.become_subreaper()

    def own_identity(self) -> ProcessIdentity:
        """Return this process's identity."""
        return identity_of(os.getpid())

    def confinement(self) -> ConfinementReported:
        """Return what the kernel says this process is confined to."""
        mounts = procfs_lines("/proc/self/mountinfo")
        namespaces = {kind: procfs.namespace("self", kind) for kind in _NAMESPACES}
        return ConfinementReported(
            namespaces={kind: inode for kind, inode in namespaces.items() if inode is not None},
            uid_map=" ".join(" ".join(procfs_lines("/proc/self/uid_map")).split()),
            mounts=tuple(line.split()[4] for line in mounts[:MOUNTS_MAX]),
            cgroup=(procfs_lines("/proc/self/cgroup") or [""])[-1],
            no_new_privileges=procfs.status_field("self", b"NoNewPrivs") == "1",
            own_namespaces=None if self._held is None else self._held.namespaces,
            landlock=0 if self._held is None else self._held.landlock,
            payload_landlock=0 if self._held is None else self._held.landlock,
        )

    async def start(
        self, arguments: Sequence[str], *, directory: str, environment: Mapping[str, str]
    ) -> LocalCommand:
        """Start a command in its own session; it dies with this wrapper.

        It is started from this thread on purpose: it is killed when the thread that forked it
        ends. Raises `UserError` when it can't be started.
        """
        try:
            child = _spawn(arguments, directory, environment, self._held)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise UserError(f"{arguments[0]} can't be started: {why}") from error
        return LocalCommand(child)

    async def sweep(self) -> int:
        """Kill what the commands left behind, and what that starts meanwhile."""
        killed: set[tuple[int, int]] = set()
        empty_looks = 0
        for _ in range(SWEEPS_MAX):
            left = signal_descendants(9)
            _kill_namespace()
            killed.update(left)
            # What forks and ends in turns may hide from one look; not from several in a row.
            empty_looks = 0 if left else empty_looks + 1
            if empty_looks >= EMPTY_LOOKS:
                break
            if left:
                await asyncio.sleep(0)
                reap_orphans()
        return len(killed)


def _spawn(
    arguments: Sequence[str], directory: str, environment: Mapping[str, str], held: Held | None
) -> subprocess.Popen[bytes]:
    _make_executable(arguments[0], directory)
    with (
        _open_log(directory, "stdout") as stdout,
        _open_log(directory, "stderr") as stderr,
        _before_exec(held, directory) as before_exec,
    ):
        return subprocess.Popen(
            list(arguments),
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
            preexec_fn=before_exec,
        )


@contextmanager
def _before_exec(held: Held | None, directory: str) -> Iterator[Callable[[], None]]:
    """Give what a child does between fork and exec: all that can be done before is done before."""
    die = partial(children.die_with_parent, os.getpid())
    if held is None or not held.landlock:
        yield die
        return
    from pilot.confinement.domains import payload_domain
    from pilot.confinement.landlock import restrict_self

    with payload_domain(held.landlock, held.devices, directory) as domain:

        def die_and_restrict() -> None:
            die()
            restrict_self(domain.descriptor)

        yield die_and_restrict


def identity_of(pid: int) -> ProcessIdentity:
    """Return a process's identity as it can be announced; a process just gone has zeros."""
    stat = procfs.read_stat(pid)
    return ProcessIdentity(
        pid=pid,
        pid_namespace=procfs.pid_namespace(pid) or procfs.pid_namespace("self") or 0,
        start_ticks=0 if stat is None else stat.start_ticks,
        boot_id=procfs.boot_id(),
    )


def signal_descendants(number: int) -> list[tuple[int, int]]:
    """Signal every living descendant of this process; return those that were there."""
    me = os.getpid()
    tree = procfs.descendants([me], procfs.all_processes())
    living = [process for process in tree if process.pid != me and process.state != "Z"]
    for process in living:
        procfs.signal_exactly(process.pid, process.start_ticks, number)
    return [(process.pid, process.start_ticks) for process in living]


def _kill_namespace() -> None:
    """Kill all that is in the PID namespace whose first process this is: no fork is too quick."""
    if os.getpid() == 1:
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)


def reap_orphans() -> None:
    """Collect zombies that came to this process as their subreaper.

    Popen's own children are left to it: it knows how to find out that one was collected.
    """
    me = os.getpid()
    for process in list(procfs.all_processes()):
        if process.parent == me and process.state == "Z":
            try:
                os.waitpid(process.pid, os.WNOHANG)
            except ChildProcessError:
                continue


def procfs_lines(path: str) -> list[str]:
    """Return a file's lines, or none."""
    try:
        return Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return []


def _make_executable(program: str, directory: str) -> None:
    """Let a file of the work directory run, however it was stored."""
    if program.startswith("./"):
        path = Path(directory, program)
        path.chmod(path.stat().st_mode | 0o100)


def _open_log(directory: str, name: str) -> _Log:
    return _Log(os.path.join(directory, name))


class _Log:
    """A log file open for appending; never through a link that was planted there."""

    def __init__(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        self._descriptor = os.open(path, flags | os.O_CLOEXEC, 0o644)
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            os.close(self._descriptor)
            raise OSError(22, "its log is no regular file", path)

    def __enter__(self) -> int:
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
