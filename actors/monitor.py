"""The Monitor: follows one job's processes, samples what they use, says what is too much.

It survives everything that a process can do: not being there yet, not being there any more,
being another one than before. Each is an ordinary answer of the process table, not an error;
the crash that the 2019 talk describes cannot happen by type.

Sampling has a budget. Memory as PSS is dear (it walks page tables under the process's lock),
so after a precise sample that took t seconds the next waits for 50 t at least; only a job that
looks as if it were over its limit is measured precisely at once, since RSS counts shared
pages many times.
"""

from __future__ import annotations

from functools import partial

import msgspec

from actors.binding import Bindings
from actors.effects import Effects, Recipient, Run, Schedule, Tell, WorkFailed
from actors.limits import LimitWatch
from actors.messages import LimitExceeded, ProcessBound, ProcessGone, UsageSampled, Watch
from actors.ports import Clock, HostProcess, ProcessTable
from actors.runtime import Actor, handles
from transport.messages import (
    Limits,
    Message,
    ProcessIdentity,
    ProcessRole,
    Usage,
)


class MonitorOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How often to look."""

    interval_s: float = 1.0
    disk_interval_s: float = 2.0
    budget: float = 0.02
    """Share of the time that may go into precise samples and into measuring the disk."""
    locate_tries: int = 5


class _Tick(Message, frozen=True, kw_only=True):
    """Monitor to itself: look again."""


class _Located(Message, frozen=True, kw_only=True):
    role: ProcessRole
    process: ProcessIdentity
    host: HostProcess | None


class _Sampled(Message, frozen=True, kw_only=True):
    roots: tuple[HostProcess, ...]
    usage: Usage | None
    cost_s: float
    is_precise: bool


class _DiskMeasured(Message, frozen=True, kw_only=True):
    bytes: int
    cost_s: float


class Monitor(Actor):
    """Watches one job; told what to watch, and tells its work unit what it sees."""

    def __init__(
        self,
        *,
        owner: Recipient,
        launcher_pid: int,
        work_directory: str,
        limits: Limits,
        table: ProcessTable,
        clock: Clock,
        options: MonitorOptions,
    ) -> None:
        self._owner = owner
        self._launcher_pid = launcher_pid
        self._work_directory = work_directory
        self._table = table
        self._clock = clock
        self._options = options
        self._limits = LimitWatch(limits)
        self._bindings = Bindings(options.locate_tries)
        self._usage = Usage()
        self._precise_at = 0.0
        self._disk_at = 0.0
        self._is_sampling = False
        self._locating: set[ProcessRole] = set()

    def started(self) -> Effects:
        """Begin to tick."""
        yield Schedule("tick", self._options.interval_s, _Tick())

    # --- binding -------------------------------------------------------------------------

    @handles(Watch)
    def watch(self, message: Watch) -> Effects:
        """Bind to what announced itself, and again whenever it does."""
        announced = message.announced
        if self._bindings.announce(announced.role, announced.process):
            yield from self._locate()

    def _locate(self) -> Effects:
        for role, process in self._bindings.wanted():
            if role not in self._locating:
                self._locating.add(role)
                yield Run(f"locate {role}", partial(self._find, role, process))

    async def _find(self, role: ProcessRole, process: ProcessIdentity) -> _Located:
        host = await self._table.locate(self._launcher_pid, process)
        return _Located(role=role, process=process, host=host)

    @handles(_Located)
    def located(self, message: _Located) -> Effects:
        """Take the answer; an announcement that was replaced meanwhile is looked for anew."""
        self._locating.discard(message.role)
        if self._bindings.found(message.role, message.process, message.host):
            yield Tell(
                self._owner,
                ProcessBound(role=message.role, process=message.process, host=message.host),
            )
            if message.host is not None:
                yield from self._sample()
        elif dict(self._bindings.wanted()).get(message.role, message.process) != message.process:
            yield from self._locate()

    # --- sampling ------------------------------------------------------------------------

    @handles(_Tick)
    def tick(self, _: _Tick) -> Effects:
        """Look for what is still wanted, and measure what is there."""
        yield Schedule("tick", self._options.interval_s, _Tick())
        yield from self._locate()
        yield from self._sample()
        if self._clock.monotonic() >= self._disk_at:
            self._disk_at = float("inf")
            yield Run("disk", self._measure_disk)

    def _sample(self, *, must_be_precise: bool = False) -> Effects:
        roots = self._bindings.bound()
        if roots and not self._is_sampling:
            self._is_sampling = True
            is_precise = must_be_precise or self._clock.monotonic() >= self._precise_at
            yield Run("sample", partial(self._measure, roots, is_precise))

    async def _measure(self, roots: tuple[HostProcess, ...], is_precise: bool) -> _Sampled:
        before = self._clock.monotonic()
        usage = await self._table.sample(roots, precise=is_precise)
        cost_s = self._clock.monotonic() - before
        return _Sampled(roots=roots, usage=usage, cost_s=cost_s, is_precise=is_precise)

    async def _measure_disk(self) -> _DiskMeasured:
        before = self._clock.monotonic()
        used = await self._table.disk_bytes(self._work_directory)
        return _DiskMeasured(bytes=used, cost_s=self._clock.monotonic() - before)

    @handles(_Sampled)
    def sampled(self, message: _Sampled) -> Effects:
        """Fold a sample in; none means that the processes are gone, which is nobody's fault."""
        self._is_sampling = False
        usage = message.usage
        if usage is None:
            for role in self._bindings.lost_all(message.roots):
                yield Tell(self._owner, ProcessGone(role=role))
            return
        if message.is_precise:
            pause_s = message.cost_s / self._options.budget
            self._precise_at = self._clock.monotonic() + pause_s
        self._usage = folded(self._usage, usage, is_precise=message.is_precise)
        yield from self._judge()
        if not message.is_precise and self._limits.needs_precise(usage):
            yield from self._sample(must_be_precise=True)

    @handles(_DiskMeasured)
    def disk_measured(self, message: _DiskMeasured) -> Effects:
        """Fold the disk in; it has its own, slower clock."""
        pause_s = max(self._options.disk_interval_s, message.cost_s / self._options.budget)
        self._disk_at = self._clock.monotonic() + pause_s
        self._usage = msgspec.structs.replace(
            self._usage,
            disk_bytes=message.bytes,
            disk_peak_bytes=max(self._usage.disk_peak_bytes, message.bytes),
        )
        yield from self._judge()

    def _judge(self) -> Effects:
        yield Tell(self._owner, UsageSampled(usage=self._usage))
        for exceeded in self._limits.check(self._usage):
            yield Tell(self._owner, LimitExceeded(code=exceeded.code, why=exceeded.why))

    @handles(WorkFailed)
    def work_failed(self, message: WorkFailed) -> Effects:
        """Go on: what couldn't be measured now is measured at the next tick."""
        self._is_sampling = self._is_sampling and message.name != "sample"
        if message.name == "disk":
            self._disk_at = self._clock.monotonic() + self._options.disk_interval_s
        self._locating = {role for role in self._locating if message.name != f"locate {role}"}
        return ()


def folded(total: Usage, sample: Usage, *, is_precise: bool) -> Usage:
    """Return the totals with one more sample: CPU never falls, peaks rise, the rest is now.

    Memory counts only from precise samples: RSS would count shared pages many times.
    """
    # A precise sample that could only read RSS says less than what PSS said before.
    counts = is_precise and not (total.source == "pss" and sample.source != "pss")
    memory = sample.memory_bytes if counts else total.memory_bytes
    return msgspec.structs.replace(
        total,
        cpu_s=max(total.cpu_s, sample.cpu_s),
        memory_bytes=memory,
        memory_peak_bytes=max(total.memory_peak_bytes, memory),
        rss_bytes=sample.rss_bytes,
        processes=sample.processes,
        threads=sample.threads,
        samples=total.samples + 1,
        source=sample.source if counts else total.source,
    )
