"""Agents that die, repeat themselves and fall behind, against one queue.

Rules of four kinds: *safety* (a final status is one, nothing moves backwards, an attempt is
handed out once), *liveness after healing* (a big node that takes everything leaves every job
final), *quiescence* (what was taken before has no effect), *stale silence* (an attempt that
isn't the present one has none either).
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.lifecycle import FINAL, LEASED, RANKS, TRANSITIONS, may_follow
from actors.ports import (
    Answer,
    AnyReport,
    FinalReport,
    Heartbeat,
    HeldJob,
    KillJob,
    LoseJob,
    StatusReport,
    TraceReport,
)
from pilot.queue import HistoryLine, JobDetail, JobRow, KillAnswer, QueuePolicy, QueueStore
from tests.pilot.queue.factories import S, make_slot, submit
from transport.messages import JobStatus

POLICY = QueuePolicy(lease_s=10.0, zombie_s=10.0, attempts_max=2, waiting_max_s=100.0)
JOBS_MAX = 3
NODES = ("a", "b")
ENDS = {
    S.ASSIGNED: (S.ERROR_A, S.KILLED),
    S.STARTED: (S.ERROR_IB, S.KILLED),
    S.RUNNING: (S.ERROR_E, S.KILLED),
    S.SAVING: (S.DONE, S.DONE_WARN, S.ERROR_SV, S.KILLED),
}
NEXT = {S.ASSIGNED: S.STARTED, S.STARTED: S.RUNNING, S.RUNNING: S.SAVING}


class Run:
    """What an agent knows of an attempt: where it is, and what it has still to tell."""

    def __init__(self, job_id: int, attempt: int, node: str) -> None:
        self.job_id = job_id
        self.attempt = attempt
        self.node = node
        self.status = S.ASSIGNED
        self.outbox: list[AnyReport] = []
        self.sent: list[AnyReport] = []
        self.sequence = 0

    @property
    def is_over(self) -> bool:
        """True when the agent has nothing more to do for it."""
        return self.status not in LEASED

    def number(self) -> int:
        """Return the next report's number."""
        self.sequence += 1
        return self.sequence

    def say(self, status: JobStatus, at: float) -> AnyReport:
        """Make the report of a status."""
        if status not in FINAL:
            return StatusReport(
                job_id=self.job_id,
                attempt=self.attempt,
                sequence=self.number(),
                at=at,
                status=status,
            )
        return FinalReport(
            job_id=self.job_id,
            attempt=self.attempt,
            sequence=self.number(),
            at=at,
            status=status,
            exit_code=0,
            reason="",
        )

    def trace(self, at: float) -> AnyReport:
        """Make the report of a trace line."""
        return TraceReport(
            job_id=self.job_id, attempt=self.attempt, sequence=self.number(), at=at, text="a line"
        )

    def go_to(self, status: JobStatus, at: float) -> None:
        """Reach a status and have it reported."""
        self.status = status
        self.outbox.append(self.say(status, at))


def check_story(story: tuple[HistoryLine, ...]) -> None:
    """Hold a job's history against the life cycle."""
    before_zombie: JobStatus | None = None
    level = 0
    for last, line in pairwise(story):
        is_return = last.status is S.ZOMBIE and line.status is before_zombie
        assert is_return or may_follow(last.status, line.status)
        assert line.attempt == last.attempt + (line.status is S.ASSIGNED and not is_return)
        if line.status is S.ZOMBIE:
            before_zombie = last.status
        if line.status is S.WAITING:
            level = 0
        elif line.status is not S.ZOMBIE:
            assert RANKS[line.status].level >= level
            level = RANKS[line.status].level
    assert all(line.status not in FINAL - {S.EXPIRED} for line in story[:-1])
    assert sum(line.status is S.EXPIRED for line in story) <= POLICY.attempts_max


class QueueMachine(RuleBasedStateMachine):
    """The queue, its agents, and what is known of the truth."""

    def __init__(self) -> None:
        super().__init__()
        self.store = QueueStore.in_memory(POLICY)
        self.now = 0.0
        self.jobs: dict[int, JobDetail] = {}
        self.runs: list[Run] = []
        self.killed: set[int] = set()

    # --- what users and agents do ---

    @precondition(lambda self: len(self.jobs) < JOBS_MAX)
    @rule(cores=st.sampled_from([1, 2, 0, 8]), priority=st.integers(0, 1))
    def submit(self, cores: int, priority: int) -> None:
        """Submit a job, as a user."""
        submit(self.store, now=self.now, cpu_cores=cores, priority=priority)

    @precondition(lambda self: self.jobs and not self.killed)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        """Ask for a job's end, as a user."""
        job = data.draw(st.sampled_from(list(self.jobs.values())))
        answer = self.store.request_kill(job.id, "anna", "x", self.now)

        assert (answer is KillAnswer.ALREADY_FINAL) == (job.status in FINAL)
        self.killed.add(job.id)

    @precondition(lambda self: any(job.status not in FINAL for job in self.jobs.values()))
    @rule(node=st.sampled_from(NODES))
    def match(self, node: str) -> None:
        """Ask for work, as an agent."""
        self.claim(node, cpu_cores=2)

    @precondition(lambda self: self.at_work())
    @rule(
        data=st.data(),
        way=st.sampled_from(["next", "next", "trace", "back", "end"]),
        fate=st.sampled_from(["answered", "answer lost", "not sent"]),
    )
    def step(self, data: st.DataObject, way: str, fate: str) -> None:
        """Let an attempt go on; its agent puts that into its outbox, and may send from there."""
        run = data.draw(st.sampled_from(self.at_work()))
        if way == "trace":
            run.outbox.append(run.trace(self.now))
        elif way == "back":
            run.go_to(S.WAITING, self.now)
        elif way == "end" or run.status is S.SAVING:
            run.go_to(data.draw(st.sampled_from(ENDS[run.status])), self.now)
        else:
            run.go_to(NEXT[run.status], self.now)
        if fate != "not sent":
            self.send(run, is_answer_lost=fate == "answer lost")

    @precondition(lambda self: self.with_word())
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        """Send what is unconfirmed, the oldest first."""
        run = data.draw(st.sampled_from(self.with_word()))
        while run.outbox:
            self.send(run, is_answer_lost=False)

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def beat(self, data: st.DataObject) -> None:
        """Send a heartbeat with some of a node's attempts: it keeps those that are its own."""
        first = data.draw(st.sampled_from(self.runs))
        others = [run for run in self.runs if run.node == first.node and run is not first]
        told = [first, *(run for run in others if data.draw(st.booleans()))]
        present = [run for run in told if self.is_present(run)]
        held = tuple(HeldJob(job_id=run.job_id, attempt=run.attempt) for run in told)
        commands = self.store.heartbeat(Heartbeat(node=first.node, jobs=held), self.now)

        lost = {(c.job_id, c.attempt) for c in commands if isinstance(c, LoseJob)}
        killed = {c.job_id for c in commands if isinstance(c, KillJob)}
        assert lost == {(run.job_id, run.attempt) for run in told if run not in present}
        assert killed == {run.job_id for run in present} & self.killed
        assert all(self.store.job(run.job_id).status in LEASED for run in present)

    # --- what should have no effect ---

    @precondition(lambda self: self.spoken())
    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """Quiescence: any report that was sent before, at any later time."""
        run = data.draw(st.sampled_from(self.spoken()))
        report = data.draw(st.sampled_from(run.sent))

        answer = self.store.report(report, self.now)
        assert answer is Answer.STALE or (
            answer is Answer.DUPLICATE and (self.is_present(run) or report == run.sent[-1])
        )
        assert self.store.job(run.job_id) == self.jobs[run.job_id]

    @precondition(lambda self: self.stale())
    @rule(data=st.data(), way=st.sampled_from([S.STARTED, S.SAVING, S.WAITING, S.KILLED, None]))
    def speak_stale(self, data: st.DataObject, way: JobStatus | None) -> None:
        """Stale silence: say something new from an attempt that isn't the job's."""
        run = data.draw(st.sampled_from(self.stale()))
        ghost = Run(run.job_id, run.attempt, run.node)
        ghost.sequence = 1000
        report = ghost.trace(self.now) if way is None else ghost.say(way, self.now)

        assert self.store.report(report, self.now) is Answer.STALE
        assert self.store.job(run.job_id) == self.jobs[run.job_id]

    @precondition(lambda self: self.told_all())
    @rule(data=st.data())
    def speak_nonsense(self, data: st.DataObject) -> None:
        """Report a status that may not follow: refused, and the job stays where it was."""
        run = data.draw(st.sampled_from(self.told_all()))
        possible = TRANSITIONS[run.status] | {run.status}
        status = data.draw(st.sampled_from([s for s in JobStatus if s not in possible]))
        report = run.say(status, self.now)
        run.sent.append(report)

        assert self.store.report(report, self.now) is Answer.REFUSED
        assert self.store.job(run.job_id).status is run.status

    # --- what happens by itself ---

    @rule(seconds=st.sampled_from([6.0, 11.0]))
    def wait(self, seconds: float) -> None:
        """Let time go by, and sweep."""
        self.now += seconds
        self.store.expire(self.now)

    @precondition(lambda self: self.at_work())
    @rule()
    def fall_silent(self) -> None:
        """Hear nothing of anybody until every lease and every patience is over."""
        for _ in range(2):
            self.wait(11.0)

    # --- what must hold ---

    @invariant()
    def stories_are_legal(self) -> None:
        """Safety: each job's history is a walk through the life cycle, and ends end it."""
        for row in self.store.jobs():
            before = self.jobs.get(row.id)
            if before is None or before.status not in FINAL:
                self.jobs[row.id] = self.store.job(row.id)
            self.check_job(self.jobs[row.id], row)

    def check_job(self, job: JobDetail, row: JobRow) -> None:
        assert (row.status, row.attempt, row.reason) == (job.status, job.attempt, job.reason)
        assert job.history[-1].status is job.status
        check_story(job.history)

    def teardown(self) -> None:
        """Liveness: once faults end, every job reaches its end, and soon."""
        try:
            self.heal()
            assert all(row.status in FINAL for row in self.store.jobs())
            self.stories_are_legal()
            assert all(self.store.job(job.id) == job for job in self.jobs.values())
        finally:
            self.store.close()

    def heal(self) -> None:
        for run in self.runs[::2]:  # the others are never heard of again
            while run.outbox:
                self.send(run, is_answer_lost=False)
            self.finish(run)
        for _ in range(2 * POLICY.attempts_max):
            self.wait(11.0)
        while (matched := self.claim("big", cpu_cores=64)) is not None:
            self.finish(matched)

    # --- steps of the rules ---

    def claim(self, node: str, *, cpu_cores: int) -> Run | None:
        match = self.store.match(make_slot(node, cpu_cores=cpu_cores), self.now)
        if match is None:
            return None
        others = [run for run in self.runs if run.job_id == match.job_id]
        assert all(run.attempt < match.attempt for run in others), "an attempt was given twice"
        assert match.job_id not in self.killed, "a job was started that somebody wants killed"
        self.runs.append(Run(match.job_id, match.attempt, node))
        return self.runs[-1]

    def send(self, run: Run, *, is_answer_lost: bool) -> None:
        report, before = run.outbox[0], self.store.job(run.job_id)
        is_first, is_present = report not in run.sent, _is_held(before, run)
        answer = self.store.report(report, self.now)

        after = self.store.job(run.job_id)
        if is_first and is_present:
            assert answer is Answer.ACCEPTED
            assert after.status is not S.ZOMBIE
        else:
            assert answer is Answer.STALE or (answer is Answer.DUPLICATE and not is_first)
            assert after == before
        run.sent.append(report)
        if answer is Answer.STALE:
            run.status, run.outbox = S.KILLED, []
        elif not is_answer_lost:
            run.outbox.pop(0)

    def finish(self, run: Run) -> None:
        if run.is_over:
            return
        while run.status in NEXT:
            run.go_to(NEXT[run.status], self.now)
        run.go_to(S.DONE, self.now)
        while run.outbox:
            self.send(run, is_answer_lost=False)

    def is_present(self, run: Run) -> bool:
        """Tell, from what the queue showed last, whether it holds this attempt for its agent."""
        return _is_held(self.jobs[run.job_id], run)

    # --- whom a rule may choose from ---

    def at_work(self) -> list[Run]:
        return [run for run in self.runs if not run.is_over]

    def with_word(self) -> list[Run]:
        return [run for run in self.runs if run.outbox]

    def spoken(self) -> list[Run]:
        return [run for run in self.runs if run.sent]

    def stale(self) -> list[Run]:
        return [run for run in self.runs if not self.is_present(run)]

    def told_all(self) -> list[Run]:
        return [run for run in self.at_work() if not run.outbox and self.is_present(run)]


def _is_held(row: JobRow, run: Run) -> bool:
    return row.attempt == run.attempt and (row.status in LEASED or row.status is S.ZOMBIE)


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
