"""The JobAgent: matching, slots, commands, draining, and units that are lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from actors.job_agent import AgentOptions, AgentPorts, JobAgent
from actors.messages import Drain, ForgetJob, StopAll
from actors.ports import DrainNode, HeldJob, KillJob, LoseJob
from actors.runtime import ActorCrashed, ActorSystem, Address
from actors.slots import Resources
from actors.supervision import ChildSpec
from actors.work_unit import WorkOptions
from tests.fakes.hands import FakeWrapperLauncher, HandWrapper
from tests.fakes.world import (
    GB,
    FakeClock,
    FakeProcessTable,
    FakeTaskQueue,
    LogLines,
    Recorder,
    make_description,
)
from transport.errors import OperatorError
from transport.messages import JobFinished, JobStatus, JobStatusChanged, Outcome, StartJob, StopJob

S = JobStatus
SOON_S = 0.02


class Bench:
    """An agent with real work units, over fakes and wrappers in the test's hand."""

    def __init__(self) -> None:
        self.queue = FakeTaskQueue()
        self.launcher = FakeWrapperLauncher()
        self.table = FakeProcessTable()
        self.vault = Recorder()
        self.log = LogLines()
        self.address: Address

    @asynccontextmanager
    async def running(self, *, cores: int = 1, **options: Any) -> AsyncIterator[None]:
        """Run an agent; leaving waits for its own end."""
        values = {"heartbeat_s": SOON_S, "poll_s": SOON_S} | options
        ports = AgentPorts(
            queue=self.queue,
            launcher=self.launcher,
            table=self.table,
            clock=FakeClock(),
            vault=self.vault,
            log=self.log.agent,
            job_log=lambda job_id, attempt: self.log.job,
        )
        agent_options = AgentOptions(
            node="node",
            resources=Resources(cpu_cores=cores, memory_bytes=8 * GB, disk_bytes=8 * GB),
            work=WorkOptions(leave_s=3600.0),
            **values,
        )
        async with ActorSystem(on_crash=self.log.crash) as system:
            spec = ChildSpec(name="agent", make=lambda: JobAgent(ports, agent_options))
            self.address = system.spawn(spec)
            yield
            async with asyncio.timeout(60):
                await self.address.wait_ended()

    def drain(self) -> None:
        """Let the agent end when its jobs have."""
        self.address.tell(Drain(why="the test is over"))

    async def working(self, number: int = 0) -> HandWrapper:
        """Wait until a wrapper has its order, and return it."""
        wrapper = await self.launcher.wrapper(number)
        await wrapper.until_heard(StartJob)
        return wrapper

    async def beaten(self) -> None:
        """Wait for one more heartbeat."""
        count = len(self.queue.beats)
        await self.queue.until(lambda: len(self.queue.beats) > count)


async def finish(wrapper: HandWrapper) -> None:
    """Let a wrapper's job succeed."""
    for status in (S.STARTED, S.RUNNING, S.SAVING):
        wrapper.say(JobStatusChanged(status=status, at=0.0))
    wrapper.say(JobFinished(outcome=Outcome(exit_code=0), at=0.0))
    await wrapper.near.wait_settled()
    wrapper.leave()


@pytest.fixture
def bench() -> Bench:
    """Give an agent's surroundings."""
    return Bench()


# --- matching and slots ----------------------------------------------------------------------


async def test_what_is_offered_is_what_is_free(bench: Bench) -> None:
    """Each job takes its part, and gives it back at its end."""
    bench.queue.submit(make_description())
    async with bench.running(cores=2):
        wrapper = await bench.working()
        await bench.queue.until(lambda: bench.queue.slots[-1].cpu_cores == 1)
        await finish(wrapper)
        await bench.queue.until(lambda: bench.queue.slots[-1].cpu_cores == 2)
        bench.drain()

    first, last = bench.queue.slots[0], bench.queue.slots[-1]
    assert (first.cpu_cores, first.memory_bytes, first.is_whole_node) == (2, 8 * GB, True)
    assert (last.cpu_cores, last.memory_bytes, last.is_whole_node) == (2, 8 * GB, True)
    assert {slot.memory_bytes for slot in bench.queue.slots} == {8 * GB, 7 * GB}


async def test_an_agent_whose_time_is_up_drains(bench: Bench) -> None:
    """It sees its job through, takes no other, and ends by itself."""
    bench.queue.submit(make_description())
    async with bench.running(time_left_s=SOON_S):
        wrapper = await bench.working()
        await bench.log.until_said("draining: the node's time is up")
        bench.queue.submit(make_description())
        await finish(wrapper)

    assert bench.queue.statuses()[-1] is S.DONE
    assert len(bench.queue.finals()) == 1


async def test_a_full_node_asks_for_nothing(bench: Bench) -> None:
    """Until a job ends."""
    bench.queue.submit(make_description())
    async with bench.running():
        wrapper = await bench.working()
        await bench.beaten()
        assert len(bench.queue.slots) == 1
        await finish(wrapper)
        await bench.queue.until(lambda: len(bench.queue.slots) > 1)
        bench.drain()

    assert bench.queue.statuses()[-1] is S.DONE


async def test_a_match_that_does_not_fit_is_not_run(bench: Bench) -> None:
    """Nothing is over-committed, whatever the queue hands out; its lease runs out."""
    bench.queue.submit(make_description(memory_bytes=9 * GB))
    async with bench.running():
        await bench.log.until_said("job 1 was matched, but does not fit what is free here")
        bench.queue.submit(make_description())
        await finish(await bench.working())
        bench.drain()

    assert [order.job_id for order in bench.launcher.orders] == [2]
    assert all(held.job_id != 1 for beat in bench.queue.beats for held in beat.jobs)


async def test_a_second_attempt_beside_the_first_is_not_run(bench: Bench) -> None:
    """One job holds one slot: the earlier attempt has to be gone first."""
    bench.queue.submit(make_description())
    async with bench.running(cores=2):
        wrapper = await bench.working()
        bench.queue.submit(make_description(), job_id=1, attempt=2)
        await bench.log.until_said("job 1 was matched, but")
        await finish(wrapper)
        bench.drain()

    assert [order.attempt for order in bench.launcher.orders] == [1]


async def test_a_queue_that_is_away_is_asked_again(bench: Bench) -> None:
    """For matches and with heartbeats; jobs aren't given up for it."""
    bench.queue.is_away = True
    async with bench.running():
        await bench.log.until_said("warning: match: the queue is away", 2)
        await bench.log.until_said("warning: heartbeat: the queue is away", 2)
        bench.queue.is_away = False
        bench.queue.submit(make_description())
        await finish(await bench.working())
        bench.drain()

    assert bench.queue.statuses()[-1] is S.DONE


async def test_a_queue_that_never_answers_is_asked_again(bench: Bench) -> None:
    """Every call has a bound: neither the slots nor the heart wait for ever."""
    bench.queue.match_gate.shut()
    bench.queue.beat_gate.shut()
    async with bench.running(queue_s=SOON_S):
        await bench.log.until_said("warning: match: the answer took more than", 2)
        await bench.log.until_said("warning: heartbeat: the answer took more than", 2)
        bench.drain()


async def test_a_bug_in_the_queue_is_the_end_of_the_agent(bench: Bench) -> None:
    """What isn't the queue's own refusal is our mistake, and is seen."""
    bench.queue.error = ZeroDivisionError("a bug")
    with pytest.raises(ActorCrashed, match="a bug"):
        async with bench.running():
            pass


# --- the heartbeat and its commands ----------------------------------------------------------


async def test_a_heartbeat_names_what_is_held(bench: Bench) -> None:
    """One for all jobs; and none is named that has ended."""
    bench.queue.submit(make_description())
    bench.queue.submit(make_description())
    async with bench.running(cores=2):
        first, second = await bench.working(0), await bench.working(1)
        await bench.beaten()
        await bench.beaten()
        held = bench.queue.beats[-1].jobs
        await finish(first)
        await finish(second)
        await bench.queue.until(lambda: bench.queue.beats[-1].jobs == ())
        bench.drain()

    assert held == (HeldJob(job_id=1, attempt=1), HeldJob(job_id=2, attempt=1))


async def test_a_command_stops_its_own_job_only(bench: Bench) -> None:
    """The other one goes on."""
    bench.queue.submit(make_description())
    bench.queue.submit(make_description())
    async with bench.running(cores=2):
        first, second = await bench.working(0), await bench.working(1)
        bench.queue.order(KillJob(job_id=3, attempt=1, by="x", why="no such job"))
        bench.queue.order(LoseJob(job_id=2, attempt=9))
        bench.queue.order(KillJob(job_id=1, attempt=1, by="alice", why="enough"))
        stop = await first.until_heard(StopJob)
        first.say(JobFinished(outcome=Outcome(kill=stop.reason), at=0.0))
        await first.near.wait_settled()
        first.leave()
        await finish(second)
        bench.drain()

    assert bench.queue.statuses(1)[-1] is S.KILLED
    assert bench.queue.statuses(2)[-1] is S.DONE
    assert second.heard(StopJob) == []


async def test_the_queue_can_drain_a_node(bench: Bench) -> None:
    """However often it says so."""
    bench.queue.submit(make_description())
    async with bench.running():
        wrapper = await bench.working()
        bench.queue.order(DrainNode(why="maintenance"))
        bench.queue.order(DrainNode(why="again"))
        await bench.log.until_said("draining: maintenance")
        bench.queue.submit(make_description())
        await finish(wrapper)

    assert bench.log.text.count("draining") == 1
    assert len(bench.launcher.orders) == 1


# --- draining and stopping, with a match under way -------------------------------------------


async def test_an_idle_agent_ends_when_it_is_drained(bench: Bench) -> None:
    """There is nothing to wait for."""
    async with bench.running(poll_s=3600.0):
        await bench.queue.until(lambda: bench.queue.slots)
        bench.drain()


async def test_a_job_that_was_under_way_when_draining_is_seen_through(bench: Bench) -> None:
    """It is ours: the queue has handed it out."""
    bench.queue.match_gate.shut()
    bench.queue.submit(make_description())
    async with bench.running():
        await bench.queue.match_gate.until_reached()
        bench.drain()
        await bench.log.until_said("draining")
        bench.queue.match_gate.open()
        await finish(await bench.working())

    assert bench.queue.statuses() == [S.STARTED, S.RUNNING, S.SAVING, S.DONE]


@pytest.mark.parametrize("is_away", [False, True], ids=["none", "away"])
async def test_a_match_that_brings_nothing_lets_a_draining_agent_end(
    bench: Bench, *, is_away: bool
) -> None:
    """Draining came while the queue was being asked: its answer is the last."""
    bench.queue.match_gate.shut()
    async with bench.running():
        await bench.queue.match_gate.until_reached()
        bench.drain()
        await bench.log.until_said("draining")
        bench.queue.is_away = is_away
        bench.queue.match_gate.open()

    assert len(bench.queue.slots) == 1


async def test_a_match_that_does_not_fit_lets_a_draining_agent_end(bench: Bench) -> None:
    """It isn't run, and nothing more is asked for."""
    bench.queue.match_gate.shut()
    bench.queue.submit(make_description(memory_bytes=9 * GB))
    async with bench.running():
        await bench.queue.match_gate.until_reached()
        bench.drain()
        await bench.log.until_said("draining")
        bench.queue.match_gate.open()

    assert bench.launcher.orders == []


async def test_a_job_that_was_under_way_when_stopping_is_given_back(bench: Bench) -> None:
    """It mustn't run to its end on a node that was told to stop."""
    bench.queue.match_gate.shut()
    bench.queue.submit(make_description())
    async with bench.running():
        await bench.queue.match_gate.until_reached()
        bench.address.tell(StopAll(by="operator", why="going down"))
        await bench.log.until_said("draining")
        bench.queue.match_gate.open()

    assert bench.queue.statuses() == [S.WAITING]
    assert bench.launcher.wrappers[0].heard(StartJob) == []


async def test_a_stop_after_a_drain_stops_what_still_runs(bench: Bench) -> None:
    """Ctrl-C twice."""
    bench.queue.submit(make_description())
    async with bench.running():
        wrapper = await bench.working()
        bench.drain()
        bench.address.tell(StopAll(by="operator", why="at once"))
        stop = await wrapper.until_heard(StopJob)
        wrapper.say(JobFinished(outcome=Outcome(kill=stop.reason), at=0.0))
        await wrapper.near.wait_settled()
        wrapper.leave()

    assert bench.queue.statuses() == [S.WAITING]


# --- a unit that is lost ---------------------------------------------------------------------


async def test_a_crashed_unit_is_swept_and_its_slot_comes_back(bench: Bench) -> None:
    """Its processes and files go, its lease runs out; the node goes on."""
    bench.queue.submit(make_description())
    async with bench.running():
        wrapper = await bench.working()
        bench.table.sweep_gate.shut()
        wrapper.break_wait(ZeroDivisionError("a bug"))
        await bench.table.sweep_gate.until_reached()
        assert len(bench.queue.slots) == 1
        bench.table.sweep_gate.open()
        bench.queue.submit(make_description())
        await finish(await bench.working(1))
        bench.drain()

    assert bench.table.swept[0] == ("mark-1", 77)
    assert [order.job_id for order in bench.launcher.cleaned] == [1, 2]
    assert wrapper.link.is_closed
    assert bench.queue.finals(1) == []
    assert bench.queue.statuses(2)[-1] is S.DONE
    assert [told.identity.job_id for told in bench.vault.of(ForgetJob)] == [1, 2]


@pytest.mark.parametrize("error", [OperatorError("busy"), PermissionError("not yours")])
async def test_a_sweep_that_fails_gives_the_slot_back(bench: Bench, error: Exception) -> None:
    """There is nobody left to sweep better; the operator's log says so."""
    bench.queue.submit(make_description())
    bench.table.sweep_error = error
    async with bench.running():
        wrapper = await bench.working()
        wrapper.break_wait(ZeroDivisionError("a bug"))
        await bench.log.until_said(f"error: sweeping failed: {error}")
        await bench.queue.until(lambda: len(bench.queue.slots) > 1)
        bench.drain()

    assert bench.queue.finals() == []
    assert len(bench.launcher.cleaned) == 1


async def test_files_that_cannot_be_removed_do_not_keep_the_slot(bench: Bench) -> None:
    """Of a unit that crashed, too: the operator's log says what is left."""
    bench.queue.submit(make_description())
    bench.launcher.clean_error = OperatorError("busy")
    async with bench.running():
        wrapper = await bench.working()
        wrapper.break_wait(ZeroDivisionError("a bug"))
        await bench.queue.until(lambda: len(bench.queue.slots) > 1)
        bench.drain()

    assert "warning: job 1, whose work unit was lost: removing files failed: busy" in bench.log.text


async def test_a_launch_that_breaks_is_the_end_of_its_job_only(bench: Bench) -> None:
    """Whatever it raised: there are no processes to look for."""
    bench.launcher.error = AssertionError("an adapter's bug")
    bench.queue.submit(make_description())
    async with bench.running():
        await bench.queue.until_final()
        bench.drain()

    assert bench.queue.statuses() == [S.ERROR_A]
    assert bench.table.swept == []
