"""One attempt's reports: in order, numbered, none lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.outbox import PAUSE_FIRST_S, PAUSE_MAX_S, ROOM, Outbox
from actors.ports import (
    Answer,
    AnyReport,
    FinalReport,
    HostProcess,
    ProcessReport,
    StatusReport,
    TraceReport,
    UsageReport,
)
from tests.actors.fakes import identity
from transport.messages import (
    JobStatus,
    KillCode,
    KillReason,
    Outcome,
    ProcessRole,
    SavedFile,
    Usage,
)


def outbox(*traces: str) -> Outbox:
    """Return an outbox with some traces in it."""
    made = Outbox(42, 3)
    for text in traces:
        made.trace(text, 1.0)
    return made


def sent(box: Outbox, answer: Answer = Answer.ACCEPTED) -> list[AnyReport]:
    """Send and answer everything that is in there."""
    reports = []
    while (report := box.next_report()) is not None:
        reports.append(report)
        assert box.answered(answer) is report
    return reports


def put_final(box: Outbox) -> None:
    """Put in a final report of little interest."""
    box.final(
        JobStatus.DONE,
        9.0,
        reason="",
        outcome=Outcome(exit_code=0),
        kill=None,
        usage=Usage(),
        outputs=(),
    )


def test_reports_leave_in_order_and_numbered() -> None:
    """Of each kind, with the attempt on it, from 1 without a gap."""
    box = outbox()
    box.status(JobStatus.STARTED, 1.0, container="apptainer")
    box.trace("hello", 2.0)
    box.process(ProcessRole.WRAPPER, identity(13), HostProcess(pid=27562, start_ticks=1), 3.0)
    box.process(ProcessRole.PAYLOAD, identity(14), None, 4.0)
    box.usage(Usage(cpu_s=5.0), 5.0)
    put_final(box)

    reports = sent(box)

    assert [type(report) for report in reports] == [
        StatusReport,
        TraceReport,
        ProcessReport,
        ProcessReport,
        UsageReport,
        FinalReport,
    ]
    assert [report.sequence for report in reports] == [1, 2, 3, 4, 5, 6]
    assert {(report.job_id, report.attempt) for report in reports} == {(42, 3)}
    assert [report.at for report in reports] == [1.0, 2.0, 3.0, 4.0, 5.0, 9.0]
    assert box.is_empty


def test_a_status_says_where_it_runs_and_why() -> None:
    """The container comes with STARTED, the reason with what is given back."""
    box = outbox()
    box.status(JobStatus.STARTED, 1.0, container="apptainer")
    box.status(JobStatus.WAITING, 2.0, reason="the pilot was stopped")

    started, waiting = sent(box)

    assert isinstance(started, StatusReport)
    assert (started.status, started.container) == (JobStatus.STARTED, "apptainer")
    assert isinstance(waiting, StatusReport)
    assert (waiting.reason, waiting.container) == ("the pilot was stopped", None)


def test_a_process_is_reported_on_both_sides() -> None:
    """Its own PID, the host's where it was found, and its start."""
    box = outbox()
    box.process(ProcessRole.WRAPPER, identity(13), HostProcess(pid=27562, start_ticks=1), 1.0)
    box.process(ProcessRole.PAYLOAD, identity(14), None, 1.0)

    found, missing = sent(box)

    assert isinstance(found, ProcessReport)
    assert (found.pid, found.host_pid, found.start_ticks) == (13, 27562, 113)
    assert isinstance(missing, ProcessReport)
    assert (missing.role, missing.host_pid) == (ProcessRole.PAYLOAD, None)


def test_the_final_report_tells_everything_about_the_end() -> None:
    """One report, so that no half of it can be missing."""
    kill = KillReason(code=KillCode.MEMORY, by="agent", at=8.0, why="too much")
    file = SavedFile(name="a", bytes=1, sha256="s", adler32="a", location="/a")
    box = outbox()
    box.final(
        JobStatus.ERROR_E,
        9.0,
        reason="too much",
        outcome=Outcome(exit_code=137),
        kill=kill,
        usage=Usage(cpu_s=2.0),
        outputs=(file,),
    )

    (report,) = sent(box)

    assert isinstance(report, FinalReport)
    assert (report.status, report.exit_code, report.reason) == (JobStatus.ERROR_E, 137, "too much")
    assert (report.kill, report.usage, report.outputs) == (kill, Usage(cpu_s=2.0), (file,))


def test_one_report_is_under_way_at_a_time() -> None:
    """The second waits for the answer to the first."""
    box = outbox("a", "b")

    assert box.next_report() is not None
    assert box.next_report() is None
    box.answered(Answer.ACCEPTED)
    assert box.next_report() is not None


def test_a_report_that_failed_goes_again_the_same() -> None:
    """The queue knows a repetition by its sequence."""
    box = outbox("a", "b")
    first = box.next_report()

    box.failed()

    assert box.next_report() == first
    assert not box.is_empty


@pytest.mark.parametrize("answer", [Answer.ACCEPTED, Answer.DUPLICATE, Answer.REFUSED])
def test_an_answer_takes_one_report_out(answer: Answer) -> None:
    """Taken, taken before or impossible: the next one's turn has come."""
    box = outbox("a", "b")

    assert len(sent(box, answer)) == 2
    assert not box.is_stale


def test_stale_clears_the_outbox_for_good() -> None:
    """Once the attempt isn't ours, nothing that it says matters to anybody."""
    box = outbox("a", "b", "c")
    box.next_report()

    box.answered(Answer.STALE)

    assert box.is_stale
    assert box.is_empty
    put_final(box)
    box.trace("d", 1.0)
    assert box.next_report() is None


def test_pauses_grow_and_are_bounded() -> None:
    """However long the queue is away, it is asked once a minute, and no arithmetic overflows."""
    box = outbox("a")
    pauses = []
    for _ in range(2000):
        box.next_report()
        pauses.append(box.failed())

    assert pauses[:4] == [PAUSE_FIRST_S, 1.0, 2.0, 4.0]
    assert pauses == sorted(pauses)
    assert pauses[-1] == PAUSE_MAX_S


def test_an_answer_forgets_the_failures() -> None:
    """The next trouble starts from a short pause."""
    box = outbox("a", "b")
    for _ in range(5):
        box.next_report()
        box.failed()
    box.next_report()
    box.answered(Answer.ACCEPTED)
    box.next_report()

    assert box.failed() == PAUSE_FIRST_S


def test_beyond_its_room_only_traces_and_usage_are_left_out() -> None:
    """Statuses, processes and the end are never lost; what is left out is counted."""
    box = outbox(*["line"] * ROOM)
    box.trace("one too many", 1.0)
    box.usage(Usage(), 1.0)
    box.status(JobStatus.RUNNING, 1.0)
    box.process(ProcessRole.PAYLOAD, identity(), None, 1.0)
    put_final(box)

    reports = sent(box)

    assert box.dropped == 2
    assert [type(r) for r in reports[ROOM:]] == [StatusReport, ProcessReport, FinalReport]
    assert [report.sequence for report in reports] == list(range(1, ROOM + 4))


@given(st.lists(st.sampled_from(["fail", "answer"]), max_size=40))
def test_every_pause_is_within_its_bounds(steps: list[str]) -> None:
    """Whatever the queue does, the next try is neither at once nor in an hour."""
    box = outbox(*["line"] * 40)
    for step in steps:
        box.next_report()
        if step == "fail":
            assert PAUSE_FIRST_S <= box.failed() <= PAUSE_MAX_S
        else:
            box.answered(Answer.ACCEPTED)


class OutboxMachine(RuleBasedStateMachine):
    """A queue that fails, answers and repeats: what it keeps is what was put in, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.box = Outbox(1, 1)
        self.put: list[str] = []
        self.kept: dict[int, str] = {}
        self.under_way: TraceReport | None = None

    @precondition(lambda self: not self.box.is_stale)
    @rule()
    def trace(self) -> None:
        self.put.append(f"line {len(self.put)}")
        self.box.trace(self.put[-1], 0.0)

    @precondition(lambda self: self.under_way is None)
    @rule()
    def send(self) -> None:
        report = self.box.next_report()
        assert (report is None) is self.box.is_empty
        assert report is None or isinstance(report, TraceReport)
        self.under_way = report

    @precondition(lambda self: self.under_way)
    @rule(was_taken=st.booleans())
    def fail(self, was_taken: bool) -> None:
        """The queue may have taken it although its answer was lost."""
        assert self.under_way is not None
        if was_taken:
            self.kept.setdefault(self.under_way.sequence, self.under_way.text)
        self.box.failed()
        self.under_way = None

    @precondition(lambda self: self.under_way)
    @rule()
    def answer(self) -> None:
        assert self.under_way is not None
        is_known = self.under_way.sequence in self.kept
        self.kept.setdefault(self.under_way.sequence, self.under_way.text)
        self.box.answered(Answer.DUPLICATE if is_known else Answer.ACCEPTED)
        self.under_way = None

    @precondition(lambda self: self.under_way and len(self.put) > 6)
    @rule()
    def fence(self) -> None:
        self.box.answered(Answer.STALE)
        self.under_way = None

    @invariant()
    def what_is_kept_is_a_beginning_of_what_was_put(self) -> None:
        assert list(self.kept) == list(range(1, len(self.kept) + 1))
        assert list(self.kept.values()) == self.put[: len(self.kept)]

    def teardown(self) -> None:
        """Once the queue is back, all of it arrives."""
        if self.under_way is not None:
            self.fail(False)
        for report in sent(self.box):
            assert isinstance(report, TraceReport)
            self.kept.setdefault(report.sequence, report.text)
        assert self.box.is_stale or list(self.kept.values()) == self.put


TestOutboxAgainstItsQueue = OutboxMachine.TestCase
TestOutboxAgainstItsQueue.settings = settings(max_examples=60, deadline=None)
