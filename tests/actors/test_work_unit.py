"""The work unit where no wiring reaches: wrappers that die, lie, linger or flood."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from actors.messages import (
    CredentialIssued,
    CredentialRefused,
    ForgetJob,
    IssueCredential,
    LimitExceeded,
    StopWork,
)
from actors.ports import HostProcess, StatusReport, TraceReport, WrapperExit
from actors.runtime import ActorCrashed, ActorSystem, Address
from actors.supervision import ChildSpec
from actors.work_unit import KILLS_MAX, UnitPorts, WorkOptions, WorkUnit
from tests.actors.fakes import settle
from tests.fakes.hands import FakeWrapperLauncher, HandWrapper
from tests.fakes.world import (
    FakeClock,
    FakeProcessTable,
    FakeTaskQueue,
    LogLines,
    Recorder,
    identity,
    make_match,
    make_saved,
)
from transport.errors import OperatorError, UserError
from transport.messages import (
    CredentialKind,
    DeliverCredential,
    Failure,
    JobFinished,
    JobStatus,
    JobStatusChanged,
    KillCode,
    KillReason,
    LogWritten,
    Outcome,
    ProcessAnnounced,
    ProcessRole,
    RequestCredential,
    StartJob,
    StopJob,
    TraceWritten,
)

S = JobStatus
SOON_S = 0.02
"""For a wait that the test wants to see the end of; all others are long."""


class Bench:
    """A unit on its own: everything around it is a fake, the wrapper is in the test's hand."""

    def __init__(self) -> None:
        self.queue = FakeTaskQueue()
        self.launcher = FakeWrapperLauncher()
        self.table = FakeProcessTable()
        self.clock = FakeClock()
        self.vault = Recorder()
        self.log = LogLines()
        self.address: Address

    @asynccontextmanager
    async def running(self, *, ttl_s: int = 3600, **options: Any) -> AsyncIterator[None]:
        """Run a unit; leaving waits for its own end."""
        values = {"leave_s": 3600.0, "saving_s": 3600.0, "stop_grace_s": 0.0} | options
        ports = UnitPorts(
            queue=self.queue,
            launcher=self.launcher,
            table=self.table,
            clock=self.clock,
            vault=self.vault,
            log=self.log.job,
        )
        match = make_match(ttl_s=ttl_s)
        async with ActorSystem(on_crash=self.log.crash) as system:
            spec = ChildSpec(
                name="unit", make=lambda: WorkUnit(match, ports, WorkOptions(**values))
            )
            self.address = system.spawn(spec)
            yield
            async with asyncio.timeout(60):
                await self.address.wait_ended()

    async def working(self) -> HandWrapper:
        """Wait until the wrapper has its order, and return it."""
        wrapper = await self.launcher.wrapper()
        await wrapper.until_heard(StartJob)
        return wrapper

    def stop(self, code: KillCode = KillCode.CENTRAL_KILL, why: str = "enough") -> None:
        """Stop the unit, as its agent does."""
        self.address.tell(StopWork(reason=reason_of(code, why)))

    async def reached(self, wrapper: HandWrapper, *statuses: JobStatus) -> None:
        """Let the wrapper report statuses, and wait until the queue has them."""
        wrapper.say(*(changed(status) for status in statuses))
        await self.queue.until_status(statuses[-1])


def reason_of(code: KillCode, why: str = "enough") -> KillReason:
    """Make a reason."""
    return KillReason(code=code, by="alice", at=0.0, why=why)


def changed(status: JobStatus) -> JobStatusChanged:
    """Make a wrapper's report of a status."""
    return JobStatusChanged(status=status, at=1.0)


def finished(**outcome: Any) -> JobFinished:
    """Make a wrapper's last word."""
    return JobFinished(outcome=Outcome(**({"exit_code": 0} | outcome)), at=2.0)


def announced(role: ProcessRole, pid: int) -> ProcessAnnounced:
    """Make an announcement."""
    return ProcessAnnounced(role=role, process=identity(pid), at=0.0)


async def said_all(wrapper: HandWrapper) -> None:
    """Wait until the agent has confirmed what the wrapper said, then leave."""
    await wrapper.near.wait_settled()
    wrapper.leave()


@pytest.fixture
def bench() -> Bench:
    """Give a unit's surroundings."""
    return Bench()


# --- the ordinary way ------------------------------------------------------------------------


async def test_a_job_goes_its_way_to_done(bench: Bench) -> None:
    """Statuses are relayed, and the outputs are named as they are on the host."""
    async with bench.running():
        wrapper = await bench.working()
        wrapper.say(changed(S.STARTED), changed(S.RUNNING), changed(S.SAVING))
        wrapper.say(finished(outputs=(make_saved("result"),)))
        await said_all(wrapper)

    final = bench.queue.finals()[0]
    assert bench.queue.statuses() == [S.STARTED, S.RUNNING, S.SAVING, S.DONE]
    assert [file.location for file in final.outputs] == ["/host/output/result"]


async def test_the_node_is_clean_when_the_final_status_is_reported(bench: Bench) -> None:
    """Swept, cleaned, and the vault told to forget; nothing to rescue after a last word."""
    async with bench.running():
        wrapper = await bench.working()
        bench.table.sweep_gate.shut()
        wrapper.say(finished())
        await said_all(wrapper)
        await bench.table.sweep_gate.until_reached()
        assert bench.queue.finals() == []
        bench.table.sweep_gate.open()

    assert bench.table.swept == [("mark-1", 77)]
    assert len(bench.launcher.cleaned) == 1
    assert bench.launcher.rescues == []
    assert len(bench.vault.of(ForgetJob)) == 1


async def test_the_container_is_told_with_each_status(bench: Bench) -> None:
    """And why it was launched so is in the trace."""
    bench.launcher.container = "apptainer"
    async with bench.running():
        wrapper = await bench.working()
        await bench.reached(wrapper, S.STARTED)
        wrapper.say(finished())
        await said_all(wrapper)

    first = next(report for report in bench.queue.reports if isinstance(report, StatusReport))
    assert first.container == "apptainer"
    assert "launched by hand" in bench.queue.traces()


async def test_survivors_of_a_job_are_traced(bench: Bench) -> None:
    """The sweep's find is for the owner to know."""
    bench.table.survivors = 3
    async with bench.running():
        wrapper = await bench.working()
        wrapper.say(finished())
        await said_all(wrapper)

    assert "killed 3 processes left by the job" in bench.queue.traces()


# --- a wrapper that dies ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statuses", "final"),
    [
        ((), S.ERROR_A),
        ((S.STARTED,), S.ERROR_E),
        ((S.STARTED, S.RUNNING), S.ERROR_E),
        ((S.STARTED, S.RUNNING, S.SAVING), S.ERROR_SV),
        ((S.STARTED, S.SAVING), S.ERROR_SV),
    ],
)
async def test_a_wrapper_that_dies_leaves_the_status_of_its_stage(
    bench: Bench, statuses: tuple[JobStatus, ...], final: JobStatus
) -> None:
    """As JAliEn decides it; what it left behind is rescued."""
    bench.launcher.rescued = (make_saved("log_archive.zip"),)
    async with bench.running():
        wrapper = await bench.working()
        wrapper.say(*(changed(status) for status in statuses))
        await wrapper.near.wait_settled()
        wrapper.die(WrapperExit(signal=9))

    assert bench.queue.statuses() == [*statuses, final]
    assert [file.name for file in bench.queue.finals()[0].outputs] == ["log_archive.zip"]
    assert "killed by signal 9" in bench.queue.finals()[0].reason + bench.queue.traces()


async def test_a_wrapper_that_dies_in_its_greeting_is_error_a(bench: Bench) -> None:
    """It never said Hello; its exit and its stderr are the reason."""
    bench.launcher.gate.shut()
    async with bench.running():
        await bench.launcher.gate.until_reached()
        bench.launcher.gate.open()
        wrapper = await bench.launcher.wrapper()
        wrapper.die(WrapperExit(exit_code=255, diagnosis="said: no such image"))

    assert bench.queue.statuses() == [S.ERROR_A]
    assert "said: no such image" in bench.queue.finals()[0].reason + bench.queue.traces()


async def test_a_container_that_breaks_in_its_greeting_gives_the_job_back(bench: Bench) -> None:
    """It was seen working and there is another way: the next launch takes that."""
    bench.launcher.is_mute = True
    async with bench.running():
        wrapper = await bench.launcher.wrapper()
        wrapper.has_another_way = True
        wrapper.die(WrapperExit(exit_code=255, diagnosis="said: no such image"))

    assert bench.queue.statuses() == [S.WAITING]
    assert wrapper.failed_starts == ["the wrapper exited with code 255; said: no such image"]


async def test_a_wrapper_that_was_greeted_has_started(bench: Bench) -> None:
    """What becomes of it then is no matter of how it was launched."""
    async with bench.running():
        wrapper = await bench.working()
        wrapper.has_another_way = True
        wrapper.die(WrapperExit(signal=9))

    assert bench.queue.statuses() == [S.ERROR_A]
    assert wrapper.failed_starts == []


async def test_a_lost_link_ends_the_wrapper(bench: Bench) -> None:
    """Without its link nobody can collect the job: it is killed, not left to itself."""
    async with bench.running():
        wrapper = await bench.working()
        await bench.reached(wrapper, S.STARTED, S.RUNNING)
        wrapper.near.close("enough of this")
        await wrapper.until_signalled(9)

    final = bench.queue.finals()[0]
    assert final.status is S.ERROR_E
    assert final.reason == "the link to the wrapper was lost: goodbye: enough of this"


async def test_an_end_of_the_stream_is_told_by_how_the_wrapper_died(bench: Bench) -> None:
    """The broken pipe is only how it looked from here."""
    async with bench.running():
        wrapper = await bench.working()
        await bench.reached(wrapper, S.STARTED, S.RUNNING)
        wrapper.hang_up()
        await bench.queue.until_trace("the launched process was killed by signal 9")

    assert bench.queue.finals()[0].reason == "the wrapper was killed by signal 9"


async def test_the_end_of_a_launcher_around_a_living_wrapper_stops_the_job(bench: Bench) -> None:
    """A container's runtime may die; the wrapper is asked to save what there is."""
    async with bench.running():
        wrapper = await bench.working()
        await bench.reached(wrapper, S.STARTED, S.RUNNING)
        wrapper.end_launcher(WrapperExit(signal=6))
        stop = await wrapper.until_heard(StopJob)
        wrapper.say(
            changed(S.SAVING),
            finished(exit_code=None, signal=15, failure=Failure.PAYLOAD, kill=stop.reason),
        )
        await said_all(wrapper)

    final = bench.queue.finals()[0]
    assert bench.queue.statuses() == [S.STARTED, S.RUNNING, S.SAVING, S.ERROR_E]
    assert final.reason == "the process around the wrapper ended: it was killed by signal 6"
    assert bench.launcher.rescues == []


async def test_a_wrapper_that_outlives_its_launcher_too_long_is_let_go(bench: Bench) -> None:
    """It can't be signalled any more: the link is closed, and the sweep takes it."""
    async with bench.running(leave_s=SOON_S):
        wrapper = await bench.working()
        await bench.reached(wrapper, S.STARTED, S.RUNNING)
        wrapper.end_launcher(WrapperExit(exit_code=1))
        await wrapper.until_closed()

    assert bench.queue.statuses()[-1] is S.ERROR_E
    assert bench.table.swept == [("mark-1", 77)]


async def test_a_last_word_counts_whatever_becomes_of_the_wrapper(bench: Bench) -> None:
    """JobFinished was handled: that it crashed on its way out changes nothing."""
    async with bench.running():
        wrapper = await bench.working()
        wrapper.say(changed(S.STARTED), changed(S.RUNNING), changed(S.SAVING), finished())
        await wrapper.near.wait_settled()
        wrapper.die(WrapperExit(exit_code=70))

    assert bench.queue.statuses()[-1] is S.DONE


# --- launching -------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OperatorError("no room"), UserError("no such image")])
async def test_a_launch_that_fails_is_error_a(bench: Bench, error: Exception) -> None:
    """The reason is the launcher's; what it left is cleaned all the same."""
    bench.launcher.error = error
    async with bench.running():
        pass

    final = bench.queue.finals()[0]
    assert final.status is S.ERROR_A
    assert final.reason == f"the wrapper could not be launched: {error}"
    assert len(bench.launcher.cleaned) == 1


async def test_a_launch_that_never_ends_is_given_up(bench: Bench) -> None:
    """Launching has a bound like every wait."""
    bench.launcher.gate.shut()
    async with bench.running(launch_s=SOON_S):
        pass

    final = bench.queue.finals()[0]
    assert final.status is S.ERROR_A
    assert (
        final.reason == f"the wrapper could not be launched: the launch took more than {SOON_S} s"
    )


# --- stopping, at each stage -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "final"), [(KillCode.CENTRAL_KILL, S.KILLED), (KillCode.OPERATOR, S.WAITING)]
)
async def test_a_stop_while_launching_kills_what_comes(
    bench: Bench, code: KillCode, final: JobStatus
) -> None:
    """The wrapper is killed before it could begin."""
    bench.launcher.gate.shut()
    async with bench.running():
        await bench.launcher.gate.until_reached()
        bench.stop(code)
        await bench.log.until_said("stopping: enough")
        bench.launcher.gate.open()
        wrapper = await bench.launcher.wrapper()
        await wrapper.until_signalled(9)

    assert bench.queue.statuses() == [final]
    assert wrapper.heard(StartJob) == []


async def test_a_stop_in_the_greeting_wins_over_a_late_hello(bench: Bench) -> None:
    """The job isn't started any more, though the wrapper got as far as its greeting."""
    bench.launcher.dies_of = frozenset()
    async with bench.running():
        wrapper = await bench.launcher.wrapper()
        bench.stop()
        await wrapper.until_signalled(9)
        await wrapper.until_open()
        wrapper.die(WrapperExit(signal=9))

    assert bench.queue.statuses() == [S.KILLED]
    assert wrapper.heard(StartJob) == []


@pytest.mark.parametrize(
    "statuses", [(), (S.STARTED,), (S.STARTED, S.RUNNING)], ids=["new", "preparing", "running"]
)
async def test_a_stop_is_passed_on_and_its_reason_comes_back(
    bench: Bench, statuses: tuple[JobStatus, ...]
) -> None:
    """One reason, from agent to wrapper to queue."""
    async with bench.running():
        wrapper = await bench.working()
        wrapper.say(*(changed(status) for status in statuses))
        await wrapper.near.wait_settled()
        bench.stop(why="my own reason")
        stop = await wrapper.until_heard(StopJob)
        wrapper.say(finished(failure=Failure.PAYLOAD, kill=stop.reason))
        await said_all(wrapper)

    final = bench.queue.finals()[0]
    assert (final.status, final.reason) == (S.KILLED, "my own reason")
    assert final.kill == stop.reason


async def test_the_first_reason_is_kept(bench: Bench) -> None:
    """A limit that is found while the job is being stopped is not why it ended."""
    async with bench.running():
        wrapper = await bench.working()
        bench.stop(why="first")
        stop = await wrapper.until_heard(StopJob)
        bench.address.tell(LimitExceeded(code=KillCode.MEMORY, why="second"))
        wrapper.say(finished(failure=Failure.PAYLOAD, kill=stop.reason))
        await said_all(wrapper)

    assert bench.queue.finals()[0].reason == "first"
    assert len(wrapper.heard(StopJob)) == 1


async def test_a_job_that_finished_before_it_was_asked_to_stop_is_done(bench: Bench) -> None:
    """Its outcome knows of no kill, and neither does its final report."""
    async with bench.running():
        wrapper = await bench.working()
        await bench.reached(wrapper, S.STARTED, S.RUNNING, S.SAVING)
        bench.stop(KillCode.OPERATOR)
        await wrapper.until_heard(StopJob)
        wrapper.say(finished())
        await said_all(wrapper)

    final = bench.queue.finals()[0]
    assert (final.status, final.kill, final.reason) == (S.DONE, None, "")


async def test_a_wrapper_that_does_not_stop_is_asked_by_signal_and_then_killed(
    bench: Bench,
) -> None:
    """The ladder: StopJob, TERM, KILL."""
    async with bench.running(leave_s=SOON_S):
        wrapper = await bench.working()
        await bench.reached(wrapper, S.STARTED, S.RUNNING)
        bench.stop()

    assert len(wrapper.heard(StopJob)) == 1
    assert wrapper.signals == [15, 9]
    assert bench.queue.finals()[0].status is S.KILLED


async def test_the_wrapper_inside_a_container_is_signalled_itself(bench: Bench) -> None:
    """A runtime loses signals: TERM goes to the process that announced itself."""
    async with bench.running(leave_s=SOON_S):
        wrapper = await bench.working()
        wrapper.say(announced(ProcessRole.WRAPPER, 10), changed(S.STARTED))
        await bench.queue.until(bench.queue.processes)
        bench.stop()

    inside = HostProcess(pid=1010, start_ticks=100)
    assert bench.table.signals == [(inside, 15), (inside, 9)]
    assert wrapper.signals == [9]


async def test_a_wrapper_that_cannot_be_killed_is_given_up(bench: Bench) -> None:
    """After a bounded number of KILLs; the job still gets its status, and the sweep its try."""
    bench.launcher.dies_of = frozenset()
    async with bench.running(leave_s=SOON_S):
        wrapper = await bench.working()
        await bench.reached(wrapper, S.STARTED, S.RUNNING)
        bench.stop()
        await bench.queue.until_final()

    assert wrapper.signals[0] == 15
    assert KILLS_MAX <= wrapper.signals.count(9) <= KILLS_MAX + 1
    assert bench.queue.finals()[0].status is S.KILLED
    assert bench.table.swept[0] == ("mark-1", 77)


async def test_a_wrapper_that_goes_after_it_was_given_up_changes_nothing(bench: Bench) -> None:
    """The job is cleaned and reported once, though its process ends at last."""
    bench.launcher.dies_of = frozenset()
    async with bench.running(leave_s=SOON_S):
        wrapper = await bench.working()
        await bench.reached(wrapper, S.STARTED, S.RUNNING)
        bench.queue.report_gate.shut()
        bench.stop()
        await bench.log.until_said("status KILLED")
        wrapper.die(WrapperExit(signal=9))
        await settle()
        bench.queue.report_gate.open()

    assert len(bench.launcher.cleaned) == 1
    assert len(bench.queue.finals()) == 1


async def test_saving_has_a_bound(bench: Bench) -> None:
    """ERROR_SV, with the bound in the reason, and what was there is rescued."""
    async with bench.running(saving_s=SOON_S, leave_s=SOON_S):
        wrapper = await bench.working()
        await bench.reached(wrapper, S.STARTED, S.RUNNING, S.SAVING)
        await wrapper.until_signalled(9)

    final = bench.queue.finals()[0]
    assert (final.status, final.reason) == (S.ERROR_SV, f"saving took more than {SOON_S} s")
    assert len(bench.launcher.rescues) == 1


async def test_a_wrapper_that_stays_after_its_last_word_is_killed(bench: Bench) -> None:
    """Its outcome counts; only its process is in the way."""
    async with bench.running(leave_s=SOON_S):
        wrapper = await bench.working()
        wrapper.say(changed(S.STARTED), changed(S.RUNNING), changed(S.SAVING), finished())
        await wrapper.until_signalled(9)

    assert bench.queue.statuses()[-1] is S.DONE


# --- being fenced ----------------------------------------------------------------------------


async def test_a_fenced_job_is_stopped_without_grace_and_without_a_word(bench: Bench) -> None:
    """Nothing is reported from then on, whatever the wrapper still says."""
    async with bench.running():
        wrapper = await bench.working()
        await bench.reached(wrapper, S.STARTED, S.RUNNING)
        heard = len(bench.queue.calls)
        bench.stop(KillCode.FENCED)
        stop = await wrapper.until_heard(StopJob)
        assert stop.grace_s == 0.0
        wrapper.say(changed(S.SAVING), TraceWritten(text="still here", at=0.0))
        wrapper.say(finished(failure=Failure.PAYLOAD, kill=stop.reason))
        await said_all(wrapper)

    assert len(bench.queue.calls) == heard
    assert len(bench.launcher.cleaned) == 1


async def test_being_fenced_overrules_an_earlier_reason(bench: Bench) -> None:
    """Nobody listens any more, so there is nobody to tell of the kill."""
    async with bench.running():
        wrapper = await bench.working()
        await bench.reached(wrapper, S.STARTED, S.RUNNING)
        bench.stop()
        await wrapper.until_heard(StopJob)
        bench.stop(KillCode.FENCED)
        stop = await wrapper.until_heard(StopJob, 2)
        wrapper.say(finished(failure=Failure.PAYLOAD, kill=stop.reason))
        await said_all(wrapper)

    assert bench.queue.finals() == []


async def test_a_job_can_be_fenced_by_its_final_report(bench: Bench) -> None:
    """The answer to the last report is STALE: that is the end, too."""
    async with bench.running():
        wrapper = await bench.working()
        await bench.reached(wrapper, S.STARTED, S.RUNNING)
        bench.queue.stale.add(1)
        wrapper.say(changed(S.SAVING), finished())
        await said_all(wrapper)

    assert bench.queue.finals() == []


async def test_a_job_can_be_fenced_while_the_queue_is_away(bench: Bench) -> None:
    """Its last report needn't be answered any more: the unit ends."""
    async with bench.running():
        wrapper = await bench.working()
        await bench.reached(wrapper, S.STARTED, S.RUNNING)
        bench.queue.is_away = True
        wrapper.say(changed(S.SAVING), finished())
        await said_all(wrapper)
        await bench.log.until_said("status DONE")
        bench.stop(KillCode.FENCED)

    assert bench.queue.finals() == []


async def test_a_refused_report_is_logged_and_the_job_goes_on(bench: Bench) -> None:
    """It isn't sent again: the queue has decided."""
    bench.queue.refused.add(S.RUNNING)
    async with bench.running():
        wrapper = await bench.working()
        wrapper.say(changed(S.STARTED), changed(S.RUNNING), changed(S.SAVING), finished())
        await said_all(wrapper)

    assert bench.queue.statuses() == [S.STARTED, S.SAVING, S.DONE]
    assert "error: the queue refused StatusReport" in bench.log.text


async def test_a_queue_that_never_answers_is_asked_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A report has a bound; what comes of the first try doesn't matter."""
    monkeypatch.setattr("actors.outbox.PAUSE_FIRST_S", SOON_S)
    bench.queue.report_gate.shut()
    async with bench.running(queue_s=SOON_S):
        wrapper = await bench.working()
        wrapper.say(finished())
        await said_all(wrapper)
        await bench.log.until_said("warning: queue: the answer took more than")
        bench.queue.report_gate.open()

    assert bench.queue.statuses()[-1] is S.DONE


async def test_a_bug_in_the_queue_crashes_the_unit_and_takes_the_wrapper_along(
    bench: Bench,
) -> None:
    """What isn't the queue's own refusal is our mistake: seen, not retried for ever."""
    bench.queue.error = ZeroDivisionError("a bug")
    with pytest.raises(ActorCrashed, match="a bug"):  # noqa: PT012 - the unit ends by itself
        async with bench.running():
            wrapper = await bench.launcher.wrapper()
            await wrapper.until_signalled(9)

    assert "crash: unit: ZeroDivisionError" in bench.log.text


# --- a wrapper that lies ---------------------------------------------------------------------


@pytest.mark.parametrize("status", [S.DONE, S.KILLED, S.WAITING, S.ASSIGNED, S.ZOMBIE])
async def test_a_status_that_is_not_the_wrappers_to_say_is_ignored(
    bench: Bench, status: JobStatus
) -> None:
    """And traced, since somebody should look at that wrapper."""
    async with bench.running():
        wrapper = await bench.working()
        wrapper.say(changed(S.STARTED), changed(status), changed(S.RUNNING), finished())
        await said_all(wrapper)

    assert bench.queue.statuses() == [S.STARTED, S.RUNNING, S.SAVING, S.DONE]
    assert f"the wrapper reported {status}" in bench.queue.traces()


@pytest.mark.parametrize(
    "statuses", [(S.RUNNING,), (S.SAVING,), (S.STARTED, S.SAVING, S.RUNNING)], ids=str
)
async def test_a_status_out_of_order_is_ignored(
    bench: Bench, statuses: tuple[JobStatus, ...]
) -> None:
    """Backwards or too far forwards: the unit lives on, and its own path is legal."""
    async with bench.running():
        wrapper = await bench.working()
        wrapper.say(*(changed(status) for status in statuses))
        wrapper.say(finished())
        await said_all(wrapper)

    assert bench.queue.statuses() == [S.STARTED, S.SAVING, S.DONE]
    assert f"the wrapper reported {statuses[-1]}" in bench.queue.traces()


async def test_a_repeated_status_is_reported_once(bench: Bench) -> None:
    """Saying it again changes nothing, nor does it start the TTL anew."""
    async with bench.running():
        wrapper = await bench.working()
        wrapper.say(changed(S.STARTED), changed(S.RUNNING), changed(S.RUNNING), finished())
        await said_all(wrapper)

    assert bench.queue.statuses() == [S.STARTED, S.RUNNING, S.SAVING, S.DONE]


async def test_only_the_first_last_word_counts(bench: Bench) -> None:
    """What comes after it is not believed, whatever it says."""
    async with bench.running():
        wrapper = await bench.working()
        wrapper.say(changed(S.STARTED), changed(S.RUNNING), changed(S.SAVING))
        wrapper.say(finished(exit_code=3, failure=Failure.PAYLOAD, reason="first"))
        wrapper.say(changed(S.RUNNING), finished())
        await said_all(wrapper)

    assert bench.queue.statuses() == [S.STARTED, S.RUNNING, S.SAVING, S.ERROR_E]
    assert bench.queue.finals()[0].reason == "first"


async def test_a_last_word_in_the_mailbox_of_a_unit_that_gave_up_changes_nothing(
    bench: Bench,
) -> None:
    """The final status is decided once, though the wrapper comes back from the dead."""
    bench.launcher.dies_of = frozenset()
    bench.table.sweep_gate.shut()
    async with bench.running(leave_s=SOON_S):
        wrapper = await bench.working()
        await bench.reached(wrapper, S.STARTED, S.RUNNING)
        bench.stop()
        await bench.table.sweep_gate.until_reached()
        wrapper.say(finished())
        bench.table.sweep_gate.open()

    assert len(bench.queue.finals()) == 1
    assert len(bench.launcher.cleaned) == 1


async def test_a_flood_of_traces_is_bounded(bench: Bench) -> None:
    """Their number and their length; the statuses still come, and the rest is counted."""
    bench.queue.report_gate.shut()
    async with bench.running():
        wrapper = await bench.working()
        wrapper.say(changed(S.STARTED))
        for number in range(100):
            for _ in range(30):
                wrapper.say(TraceWritten(text=f"{number}" + "x" * 10_000, at=0.0))
            await wrapper.near.wait_settled()
        wrapper.say(changed(S.RUNNING), changed(S.SAVING), finished())
        await said_all(wrapper)
        bench.queue.report_gate.open()

    traces = [report for report in bench.queue.reports if isinstance(report, TraceReport)]
    assert len(traces) <= 2000
    assert max(len(report.text) for report in traces) <= 4096
    assert bench.queue.statuses() == [S.STARTED, S.RUNNING, S.SAVING, S.DONE]
    assert "lines of the trace were left out" in traces[-1].text


async def test_a_flood_of_announcements_is_bounded(bench: Bench) -> None:
    """A process may be another one now and then, but not for ever."""
    async with bench.running():
        wrapper = await bench.working()
        for pid in range(10, 1010):
            wrapper.say(announced(ProcessRole.PAYLOAD, pid))
            await wrapper.near.wait_settled()
        wrapper.say(finished())
        await said_all(wrapper)

    assert len(bench.queue.processes()) <= 100
    assert bench.queue.statuses()[-1] is S.DONE


async def test_a_process_that_nobody_found_in_time_is_told(bench: Bench) -> None:
    """It was announced: it ran, even if it was gone before anyone looked."""
    bench.table.is_hiding = True
    async with bench.running():
        wrapper = await bench.working()
        wrapper.say(announced(ProcessRole.PAYLOAD, 17), finished())
        await said_all(wrapper)

    told = bench.queue.processes()
    assert [(report.role, report.pid, report.host_pid) for report in told] == [
        (ProcessRole.PAYLOAD, 17, None)
    ]


async def test_frames_that_are_no_messages_are_traced(bench: Bench) -> None:
    """The link lives on; somebody should know."""
    async with bench.running():
        wrapper = await bench.working()
        wrapper.link.data_received(b"\0\0\0\1\xc0")
        await bench.queue.until_trace("a frame of the wrapper was refused")
        wrapper.say(finished())
        await said_all(wrapper)

    assert bench.queue.statuses()[-1] is S.DONE


async def test_a_wrappers_log_is_in_the_agents(bench: Bench) -> None:
    """With its own level and time."""
    async with bench.running():
        wrapper = await bench.working()
        wrapper.say(LogWritten(level="error", logger="w", text="from inside", at=1.0))
        wrapper.say(finished())
        await said_all(wrapper)

    assert "error: from inside" in bench.log.text


# --- credentials -----------------------------------------------------------------------------


async def test_credentials_are_asked_for_and_handed_on(bench: Bench) -> None:
    """The request names this attempt, whatever the wrapper wrote into it."""
    async with bench.running():
        wrapper = await bench.working()
        kind = CredentialKind.CERTIFICATE
        wrapper.say(RequestCredential(kind=kind, signing_request="please"))
        request = await bench.vault.until_told(IssueCredential)
        bench.address.tell(CredentialIssued(kind=kind, certificate_chain="signed", expires_at=9.0))
        delivered = await wrapper.until_heard(DeliverCredential)
        bench.address.tell(CredentialRefused(kind=kind, why="no more"))
        refused = await wrapper.until_heard(DeliverCredential, 2)
        wrapper.say(finished())
        await said_all(wrapper)

    assert (request.identity.job_id, request.identity.user) == (1, "alice")
    assert (delivered.certificate_chain, refused.refusal) == ("signed", "no more")


async def test_a_credential_for_a_wrapper_that_is_gone_goes_nowhere(bench: Bench) -> None:
    """A renewal may come at any time."""
    bench.table.sweep_gate.shut()
    async with bench.running():
        wrapper = await bench.working()
        wrapper.die()
        await bench.table.sweep_gate.until_reached()
        kind = CredentialKind.CERTIFICATE
        bench.address.tell(CredentialIssued(kind=kind, expires_at=9.0))
        bench.address.tell(CredentialRefused(kind=kind, why="no more"))
        bench.table.sweep_gate.open()

    assert len(bench.queue.finals()) == 1


# --- cleaning --------------------------------------------------------------------------------


async def test_what_cannot_be_rescued_is_cleaned_all_the_same(bench: Bench) -> None:
    """The disk is needed by others; the trace says what was lost."""
    bench.launcher.rescue_error = OperatorError("disk full")
    async with bench.running():
        wrapper = await bench.working()
        wrapper.die()

    assert len(bench.launcher.cleaned) == 1
    assert "disk full" in bench.queue.traces()


async def test_a_rescue_has_a_bound(bench: Bench) -> None:
    """That of saving."""
    bench.launcher.rescue_gate.shut()
    async with bench.running(saving_s=SOON_S):
        wrapper = await bench.working()
        wrapper.die()

    assert len(bench.launcher.cleaned) == 1
    assert bench.queue.statuses() == [S.ERROR_A]


@pytest.mark.parametrize("error", [OperatorError("busy"), PermissionError("not yours")])
async def test_a_sweep_that_fails_does_not_keep_the_status_back(
    bench: Bench, error: Exception
) -> None:
    """The trace says so; the rest of the cleaning is done."""
    bench.table.sweep_error = error
    async with bench.running():
        wrapper = await bench.working()
        wrapper.say(changed(S.STARTED), changed(S.RUNNING), changed(S.SAVING), finished())
        await said_all(wrapper)

    assert bench.queue.statuses()[-1] is S.DONE
    assert str(error) in bench.queue.traces()
    assert len(bench.launcher.cleaned) == 1


async def test_a_sweep_that_never_ends_is_given_up(bench: Bench) -> None:
    """Cleaning has a bound like every wait."""
    bench.table.sweep_gate.shut()
    async with bench.running(leave_s=SOON_S):
        wrapper = await bench.working()
        wrapper.die()
        await bench.queue.until_final()

    assert len(bench.launcher.cleaned) == 1


# --- the unit's own end ----------------------------------------------------------------------


async def test_a_stopped_unit_takes_its_wrapper_along(bench: Bench) -> None:
    """Whoever ends the system ends the job's processes, and nobody reports a status."""
    ended = asyncio.Event()
    with pytest.raises(asyncio.CancelledError):  # noqa: PT012 - the system is cancelled
        async with bench.running():
            wrapper = await bench.working()
            ended.set()
            raise asyncio.CancelledError

    assert ended.is_set()
    assert 9 in wrapper.signals
    assert wrapper.link.is_closed
    assert bench.queue.finals() == []


async def test_a_unit_that_ends_while_launching_lets_go_of_what_comes(bench: Bench) -> None:
    """Nobody is left to hold a wrapper that is launched a moment later."""
    bench.launcher.gate.shut()
    with pytest.raises(asyncio.CancelledError):  # noqa: PT012 - the system is cancelled
        async with bench.running():
            await bench.launcher.gate.until_reached()
            bench.launcher.gate.open()
            raise asyncio.CancelledError

    assert all(9 in wrapper.signals for wrapper in bench.launcher.wrappers)
