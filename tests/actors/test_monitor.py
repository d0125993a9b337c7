"""The Monitor: what it does with a job's processes that come, go and change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from actors.messages import LimitExceeded, ProcessBound, ProcessGone, UsageSampled, Watch
from actors.monitor import Monitor, MonitorOptions, folded
from actors.ports import HostProcess
from actors.runtime import ActorSystem, Address
from actors.supervision import ChildSpec
from tests.actors.fakes import Mailbox, ManualClock, identity, settle, until
from transport.errors import OperatorError
from transport.messages import (
    KillCode,
    Limits,
    Message,
    ProcessAnnounced,
    ProcessIdentity,
    ProcessRole,
    Usage,
)

T = TypeVar("T")
M = TypeVar("M", bound=Message)

WRAPPER, PAYLOAD = ProcessRole.WRAPPER, ProcessRole.PAYLOAD
WORK = "/scratch/work"


class Answers:
    """One method's answers: given when the test says so, or by a rule at once."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.waiting: list[asyncio.Future[object]] = []
        self.rule: Callable[[], object] | None = None

    async def answer(self, call: object) -> object:
        self.calls.append(call)
        if self.rule is not None:
            return self.rule()
        self.waiting.append(asyncio.get_running_loop().create_future())
        return await self.waiting[-1]

    def give(self, answer: object) -> None:
        """Answer the oldest call; an exception is raised there."""
        future = self.waiting.pop(0)
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)


class RecordingTable:
    """A process table that keeps what it was asked, and answers as it is told to."""

    def __init__(self) -> None:
        self.locating, self.sampling, self.measuring = Answers(), Answers(), Answers()
        self.measuring.rule = lambda: 0

    async def locate(self, launcher_pid: int, process: ProcessIdentity) -> HostProcess | None:
        found = await self.locating.answer((launcher_pid, process.pid))
        assert found is None or isinstance(found, HostProcess)
        return found

    async def sample(self, roots: Sequence[HostProcess], *, precise: bool) -> Usage | None:
        usage = await self.sampling.answer((tuple(root.pid for root in roots), precise))
        assert usage is None or isinstance(usage, Usage)
        return usage

    async def disk_bytes(self, directory: str) -> int:
        used = await self.measuring.answer(directory)
        assert isinstance(used, int)
        return used

    def signal(self, process: HostProcess, number: int) -> bool:
        raise AssertionError("a monitor signals nobody")

    async def sweep(self, mark: str, launcher_pid: int, *, deadline_s: float) -> int:
        raise AssertionError("a monitor sweeps nothing")


class Bench:
    """One monitor with what it is given, its ticks in the test's hand where wanted."""

    def __init__(self, *, interval_s: float, tries: int = 5, memory: int = 1000) -> None:
        self.owner, self.clock, self.table = Mailbox(), ManualClock(), RecordingTable()
        self.options = MonitorOptions(
            interval_s=interval_s, disk_interval_s=2.0, budget=0.02, locate_tries=tries
        )
        self.limits = Limits(ttl_s=60, memory_bytes=memory, disk_bytes=500)
        self.address: Address

    def make(self) -> Monitor:
        return Monitor(
            owner=self.owner,
            launcher_pid=500,
            work_directory=WORK,
            limits=self.limits,
            table=self.table,
            clock=self.clock,
            options=self.options,
        )

    def watch(self, role: ProcessRole = WRAPPER, pid: int = 13) -> None:
        """Let a process announce itself."""
        announced = ProcessAnnounced(role=role, process=identity(pid), at=0.0)
        self.address.tell(Watch(announced=announced))

    async def bound(self, role: ProcessRole = WRAPPER, pid: int = 13, host: int = 27562) -> None:
        """Let a process announce itself, and be found."""
        self.watch(role, pid)
        await until(lambda: bool(self.table.locating.waiting))
        self.table.locating.give(host_process(host))
        await until(lambda: any(m.host == host_process(host) for m in self.told(ProcessBound)))

    async def sampled(self, usage: Usage | None) -> None:
        """Answer the sample under way, and wait until it is folded in."""
        await until(lambda: bool(self.table.sampling.waiting))
        self.table.sampling.give(usage)
        await settle()

    def told(self, kind: type[M]) -> list[M]:
        """Return what the owner was told, of one kind."""
        return [message for message in self.owner.messages if isinstance(message, kind)]

    @property
    def samples(self) -> list[object]:
        """Which roots were sampled, and whether precisely."""
        return self.table.sampling.calls


@asynccontextmanager
async def monitoring(
    *, interval_s: float = 0.001, tries: int = 5, memory: int = 1000
) -> AsyncIterator[Bench]:
    """Run a monitor; it mustn't crash, whatever the table does."""
    bench = Bench(interval_s=interval_s, tries=tries, memory=memory)
    crashes: list[Exception] = []
    async with (
        asyncio.timeout(10),
        ActorSystem(lambda _, error: crashes.append(error)) as system,
    ):
        bench.address = system.spawn(ChildSpec(name="monitor", make=bench.make))
        yield bench
    assert crashes == []


def host_process(pid: int = 27562) -> HostProcess:
    """Return a process as the host sees it."""
    return HostProcess(pid=pid, start_ticks=pid)


def used(memory: int = 100, rss: int = 100, cpu_s: float = 1.0, source: str = "pss") -> Usage:
    """Return a sample."""
    return Usage(
        cpu_s=cpu_s, memory_bytes=memory, rss_bytes=rss, processes=2, threads=3, source=source
    )


QUIET = 1000.0
"""An interval in which no tick comes within a test."""


# --- binding ---------------------------------------------------------------------------------


async def test_a_process_that_announces_itself_is_found_and_reported() -> None:
    """Below the launcher, by what it announced; and it is sampled at once."""
    async with monitoring(interval_s=QUIET) as bench:
        await bench.bound()
        await until(lambda: bool(bench.samples))

        assert bench.table.locating.calls == [(500, 13)]
        assert bench.told(ProcessBound) == [
            ProcessBound(role=WRAPPER, process=identity(13), host=host_process())
        ]
        assert bench.samples == [((27562,), True)]


async def test_a_process_that_is_not_there_yet_is_looked_for_at_the_next_tick() -> None:
    """Not there is an ordinary answer; nobody is told before it is settled."""
    async with monitoring() as bench:
        bench.watch()
        for _ in range(3):
            await until(lambda: bool(bench.table.locating.waiting))
            bench.table.locating.give(None)
        assert bench.told(ProcessBound) == []
        await until(lambda: bool(bench.table.locating.waiting))
        bench.table.locating.give(host_process())
        await bench.owner.wait_for(ProcessBound)

        assert bench.told(ProcessBound)[0].host == host_process()


async def test_a_process_that_is_never_there_is_given_up_and_said() -> None:
    """After its tries; the ticking goes on without it."""
    async with monitoring(tries=3) as bench:
        bench.table.locating.rule = lambda: None
        bench.watch()
        await bench.owner.wait_for(ProcessBound)
        await bench.owner.wait_for(UsageSampled)

        assert bench.told(ProcessBound)[0].host is None
        assert len(bench.table.locating.calls) == 3


async def test_two_that_are_not_there_yet_leave_each_other_their_tries() -> None:
    """One's answer isn't the other's next try: each waits for its tick."""
    async with monitoring(interval_s=QUIET) as bench:
        bench.table.locating.rule = lambda: None
        bench.watch(WRAPPER, 13)
        bench.watch(PAYLOAD, 14)
        await settle(100)

        assert len(bench.table.locating.calls) <= 3
        assert bench.told(ProcessBound) == []


async def test_a_process_that_is_replaced_while_it_is_looked_for_is_looked_for_anew() -> None:
    """The answer about the one before is stale; the new one doesn't wait for a tick."""
    async with monitoring(interval_s=QUIET) as bench:
        bench.watch(pid=13)
        await until(lambda: bool(bench.table.locating.waiting))
        bench.watch(pid=14)
        await settle()
        bench.table.locating.give(host_process(1))
        await until(lambda: bool(bench.table.locating.waiting))
        bench.table.locating.give(host_process(2))
        await bench.owner.wait_for(ProcessBound)

        assert bench.table.locating.calls == [(500, 13), (500, 14)]
        assert [bound.host for bound in bench.told(ProcessBound)] == [host_process(2)]


async def test_the_same_announcement_again_starts_no_search() -> None:
    """A repetition after a re-attach, say."""
    async with monitoring(interval_s=QUIET) as bench:
        await bench.bound()
        bench.watch()
        await settle()

        assert len(bench.table.locating.calls) == 1


async def test_a_process_that_announces_itself_anew_is_bound_anew() -> None:
    """In a container its PID is another one: what is sampled is the new one."""
    async with monitoring() as bench:
        await bench.bound(pid=13, host=1)
        await bench.sampled(used())
        await bench.bound(pid=14, host=2)
        bench.table.sampling.rule = used
        for waiting in list(bench.table.sampling.waiting):
            waiting.set_result(used())
        await until(lambda: bench.samples[-1] in (((2,), False), ((2,), True)))


async def test_processes_that_are_gone_are_said_and_not_sampled_any_more() -> None:
    """Which is nobody's fault, and no error."""
    async with monitoring() as bench:
        await bench.bound()
        await bench.sampled(None)
        await bench.owner.wait_for(ProcessGone)
        ticks = len(bench.table.measuring.calls)
        bench.clock.at += 10.0
        await until(lambda: len(bench.table.measuring.calls) > ticks)

        assert bench.told(ProcessGone) == [ProcessGone(role=WRAPPER)]
        assert len(bench.samples) == 1
        assert len(bench.table.locating.calls) == 1


async def test_a_process_that_was_bound_during_a_sample_is_not_gone_with_the_others() -> None:
    """The sample didn't look at it, so its answer says nothing about it."""
    async with monitoring() as bench:
        await bench.bound(pid=13, host=1)
        await until(lambda: bool(bench.table.sampling.waiting))
        await bench.bound(pid=14, host=2)
        await bench.sampled(None)
        await until(lambda: len(bench.samples) == 2)

        assert bench.told(ProcessGone) == []
        assert bench.samples[1] == ((2,), True)


# --- sampling --------------------------------------------------------------------------------


async def test_samples_do_not_overlap() -> None:
    """However long one takes: the next is taken at the tick after its answer."""
    async with monitoring() as bench:
        await bench.bound()
        await until(lambda: bool(bench.table.sampling.waiting))
        ticks = bench.table.measuring.calls
        for _ in range(3):
            count = len(ticks)
            bench.clock.at += 10.0
            await until(lambda count=count: len(ticks) > count)  # type: ignore[misc]
        assert len(bench.samples) == 1
        await bench.sampled(used())
        await until(lambda: len(bench.samples) == 2)


async def test_precise_samples_keep_to_their_budget() -> None:
    """After one that took a second, the next waits for fifty; between them are cheap ones."""
    async with monitoring() as bench:
        await bench.bound()
        await until(lambda: bool(bench.table.sampling.waiting))
        bench.clock.at += 1.0
        await bench.sampled(used())
        bench.clock.at += 49.9
        await bench.sampled(used())
        assert bench.samples[:2] == [((27562,), True), ((27562,), False)]
        # The third may have been begun before the clock moved on.
        bench.clock.at += 0.2
        await bench.sampled(used())
        await bench.sampled(used())

        assert ((27562,), True) in bench.samples[2:]


async def test_a_job_that_looks_as_if_it_were_over_is_measured_precisely_at_once() -> None:
    """RSS counts shared pages many times: only the dear figure condemns."""
    async with monitoring(interval_s=0.001, memory=1000) as bench:
        await bench.bound()
        await until(lambda: bool(bench.table.sampling.waiting))
        bench.clock.at += 1.0
        await bench.sampled(used())
        await until(lambda: len(bench.samples) == 2)
        assert bench.samples[1] == ((27562,), False)
        await bench.sampled(used(memory=5000, rss=5000, source="rss"))
        assert bench.told(LimitExceeded) == []
        assert bench.samples[2] == ((27562,), True)
        await bench.sampled(used(memory=1300, rss=5000))

        assert [found.code for found in bench.told(LimitExceeded)] == [KillCode.MEMORY]


async def test_a_limit_is_said_once() -> None:
    """However many samples are over it."""
    async with monitoring() as bench:
        bench.table.sampling.rule = lambda: used(memory=5000)
        await bench.bound()
        await bench.owner.wait_for(UsageSampled, 4)

        assert len(bench.told(LimitExceeded)) == 1
        assert "asked for" in bench.told(LimitExceeded)[0].why


async def test_nothing_is_sampled_before_anything_is_bound() -> None:
    """Ticks find nobody to measure, and that is all."""
    async with monitoring() as bench:
        await bench.owner.wait_for(UsageSampled)

        assert bench.samples == []
        assert bench.told(UsageSampled)[0].usage == Usage()


# --- the disk --------------------------------------------------------------------------------


async def test_the_disk_has_a_clock_of_its_own() -> None:
    """It is measured at the first tick, and then at its own interval."""
    async with monitoring() as bench:
        bench.table.measuring.rule = lambda: 400
        await bench.owner.wait_for(UsageSampled)
        await asyncio.sleep(0.004)
        assert bench.table.measuring.calls == [WORK]
        bench.clock.at += 2.0
        await bench.owner.wait_for(UsageSampled, 2)

        assert bench.table.measuring.calls == [WORK, WORK]
        assert bench.told(UsageSampled)[0].usage.disk_bytes == 400


async def test_measuring_the_disk_keeps_to_the_budget_too() -> None:
    """A tree that took a second to walk is left alone for fifty."""
    async with monitoring() as bench:
        bench.table.measuring.rule = None
        await until(lambda: bool(bench.table.measuring.waiting))
        bench.clock.at += 1.0
        bench.table.measuring.give(10)
        await bench.owner.wait_for(UsageSampled)
        bench.clock.at += 49.0
        await asyncio.sleep(0.004)
        assert len(bench.table.measuring.calls) == 1
        bench.clock.at += 1.0
        await until(lambda: len(bench.table.measuring.calls) == 2)


async def test_a_peak_of_the_disk_is_kept() -> None:
    """What is deleted before the end was still used."""
    async with monitoring() as bench:
        sizes = iter([300, 501, 20])
        bench.table.measuring.rule = lambda: next(sizes)
        for count in (1, 2, 3):
            await bench.owner.wait_for(UsageSampled, count)
            bench.clock.at += 2.0
        usage = bench.told(UsageSampled)[2].usage

        assert (usage.disk_bytes, usage.disk_peak_bytes) == (20, 501)
        assert [found.code for found in bench.told(LimitExceeded)] == [KillCode.DISK]


# --- a table that fails ----------------------------------------------------------------------


def failing() -> object:
    """Answer as a table that can't."""
    raise OperatorError("/proc is not mounted")


async def test_a_search_that_fails_is_made_again() -> None:
    """At the next tick; it doesn't count as an answer."""
    async with monitoring(tries=1) as bench:
        bench.table.locating.rule = failing
        bench.watch()
        await until(lambda: len(bench.table.locating.calls) >= 3)
        bench.table.locating.rule = host_process
        await bench.owner.wait_for(ProcessBound)

        assert bench.told(ProcessBound)[0].host == host_process()


async def test_a_sample_that_fails_is_taken_again() -> None:
    """At the next tick."""
    async with monitoring() as bench:
        bench.table.sampling.rule = failing
        await bench.bound()
        await until(lambda: len(bench.samples) >= 3)
        bench.table.sampling.rule = used
        await until(lambda: any(m.usage.cpu_s == 1.0 for m in bench.told(UsageSampled)))


async def test_a_disk_that_cannot_be_measured_is_measured_later() -> None:
    """After its interval, and the sampling goes on meanwhile."""
    async with monitoring() as bench:
        bench.table.sampling.rule = used
        bench.table.measuring.rule = failing
        await bench.bound()
        await until(lambda: len(bench.samples) >= 3)
        assert len(bench.table.measuring.calls) == 1
        bench.table.measuring.rule = lambda: 42
        bench.clock.at += 2.0
        await until(lambda: any(m.usage.disk_bytes == 42 for m in bench.told(UsageSampled)))


async def test_one_failure_does_not_release_the_others() -> None:
    """A disk that can't be measured doesn't start a second sample beside the first."""
    async with monitoring() as bench:
        bench.table.measuring.rule = failing
        await bench.bound()
        bench.watch(PAYLOAD, 14)
        await until(lambda: bool(bench.table.locating.waiting))
        bench.clock.at += 10.0
        await until(lambda: len(bench.table.measuring.calls) >= 2)

        assert len(bench.samples) == 1
        assert bench.table.locating.calls.count((500, 14)) == 1


# --- folding ---------------------------------------------------------------------------------


def test_cpu_never_falls_and_peaks_stay() -> None:
    """A process that ended takes its CPU time with it, but the job has used it."""
    total = folded(Usage(), used(memory=100, cpu_s=9.0), is_precise=True)
    total = folded(total, used(memory=50, cpu_s=3.0), is_precise=True)

    assert (total.cpu_s, total.memory_bytes, total.memory_peak_bytes) == (9.0, 50, 100)
    assert total.samples == 2


def test_a_cheap_sample_leaves_memory_and_its_source_alone() -> None:
    """The rest of it is now."""
    total = folded(Usage(), used(memory=100, source="pss"), is_precise=True)
    total = folded(total, used(memory=900, rss=900, source="rss"), is_precise=False)

    assert (total.memory_bytes, total.memory_peak_bytes, total.source) == (100, 100, "pss")
    assert (total.rss_bytes, total.processes, total.threads) == (900, 2, 3)


def test_folding_keeps_what_a_sample_does_not_measure() -> None:
    """Disk has its own clock."""
    before = Usage(disk_bytes=7, disk_peak_bytes=8)
    total = folded(before, used(), is_precise=True)

    assert (total.disk_bytes, total.disk_peak_bytes) == (7, 8)


@pytest.mark.parametrize("is_precise", [True, False])
def test_peaks_are_never_below_what_is(is_precise: bool) -> None:
    """Whichever the sample."""
    total = folded(Usage(), used(memory=10), is_precise=is_precise)

    assert total.memory_peak_bytes >= total.memory_bytes
