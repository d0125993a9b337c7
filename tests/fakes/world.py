"""Recording fakes of an agent's ports: queue, processes, authority, clock and logs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from actors.lifecycle import may_follow
from actors.ports import (
    Answer,
    AnyReport,
    Certificate,
    Command,
    FinalReport,
    Heartbeat,
    HostProcess,
    JobIdentity,
    Match,
    ProcessReport,
    Slot,
    StatusReport,
    Token,
    TraceReport,
)
from tests.fakes.watched import Gate, Watched
from transport.errors import OperatorError, UserError
from transport.messages import (
    JobDescription,
    JobStatus,
    Message,
    ProcessIdentity,
    SavedFile,
    Usage,
)
from transport.secret import Secret

GB = 10**9


class FakeClock:
    """The event loop's time, and a wall clock that is as far from it as in real life."""

    def now(self) -> float:
        """Return UTC seconds."""
        return 1_700_000_000.0 + self.monotonic()

    def monotonic(self) -> float:
        """Return the loop's time."""
        return asyncio.get_running_loop().time()


class FakeTaskQueue(Watched):
    """A task queue in memory: gives out what was submitted, and answers as the real one does."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: deque[Match] = deque()
        self.slots: list[Slot] = []
        """What was offered, one for each request."""
        self.calls: list[tuple[AnyReport, Answer]] = []
        """Every report that came, also a second time, with the answer that it got."""
        self.reports: list[AnyReport] = []
        """What was accepted."""
        self.beats: list[Heartbeat] = []
        self.commands: list[Command] = []
        """To be given out with the next heartbeat."""
        self.commands_given = 0
        self.is_away = False
        self.error: Exception | None = None
        """Raised by every call: an adapter's bug."""
        self.loses_first_answers = False
        """Each report is taken, and its answer lost on the way back: so it comes again."""
        self.stale: set[int] = set()
        """Jobs that were given to somebody else."""
        self.refused: set[JobStatus] = set()
        self.match_gate = Gate()
        self.report_gate = Gate()
        self.beat_gate = Gate()
        self._taken: dict[tuple[int, int], int] = {}
        self._status: dict[tuple[int, int], JobStatus] = {}
        self._jobs = 0

    def submit(self, description: JobDescription, *, job_id: int = 0, attempt: int = 1) -> int:
        """Put a job in line; return its id."""
        self._jobs += 1
        match = Match(
            job_id=job_id or self._jobs, attempt=attempt, description=description, lease_s=60.0
        )
        self.waiting.append(match)
        self.note()
        return match.job_id

    def order(self, command: Command) -> None:
        """Give this out with the next heartbeat."""
        self.commands.append(command)

    # --- the port ------------------------------------------------------------------------

    async def match(self, slot: Slot) -> Match | None:
        """Give the next job, whether or not it fits: an agent must look for itself."""
        self.slots.append(slot)
        self.note()
        await self.match_gate.passed()
        self._answer_if_there()
        match = self.waiting.popleft() if self.waiting else None
        if match is not None:
            self._status[match.job_id, match.attempt] = JobStatus.ASSIGNED
        self.note()
        return match

    async def report(self, report: AnyReport) -> Answer:
        """Take a report once, in order, and only where the status graph has such a step."""
        await self.report_gate.passed()
        self._answer_if_there()
        answer = self._judge(report)
        self.calls.append((report, answer))
        if answer is Answer.ACCEPTED:
            self.reports.append(report)
        self.note()
        if self.loses_first_answers and answer is Answer.ACCEPTED:
            raise OperatorError("the answer was lost on its way")
        return answer

    async def heartbeat(self, beat: Heartbeat) -> tuple[Command, ...]:
        """Record it, and give out what was ordered."""
        await self.beat_gate.passed()
        self._answer_if_there()
        self.beats.append(beat)
        given, self.commands = tuple(self.commands), []
        self.commands_given += len(given)
        self.note()
        return given

    def _answer_if_there(self) -> None:
        if self.error is not None:
            raise self.error
        if self.is_away:
            raise OperatorError("the queue is away")

    def _judge(self, report: AnyReport) -> Answer:
        key = report.job_id, report.attempt
        if report.job_id in self.stale:
            return Answer.STALE
        taken = self._taken.get(key, 0)
        if report.sequence <= taken:
            return Answer.DUPLICATE
        assert report.sequence == taken + 1, f"{report} leaves a gap after {taken}"
        self._taken[key] = report.sequence
        if isinstance(report, StatusReport | FinalReport):
            before = self._status.get(key, JobStatus.ASSIGNED)
            if report.status in self.refused or not may_follow(before, report.status):
                return Answer.REFUSED
            self._status[key] = report.status
        return Answer.ACCEPTED

    # --- what came -----------------------------------------------------------------------

    def finals(self, job_id: int = 1) -> list[FinalReport]:
        """Return a job's final reports: one, if all is well."""
        return [r for r in self.reports if isinstance(r, FinalReport) and r.job_id == job_id]

    def statuses(self, job_id: int = 1) -> list[JobStatus]:
        """Return the statuses that a job went through, the final one last."""
        return [
            report.status
            for report in self.reports
            if isinstance(report, StatusReport | FinalReport) and report.job_id == job_id
        ]

    def processes(self) -> list[ProcessReport]:
        """Return the reports of processes, of all jobs."""
        return [report for report in self.reports if isinstance(report, ProcessReport)]

    def traces(self, job_id: int = 1) -> str:
        """Return a job's trace, a line for each report."""
        lines = [r.text for r in self.reports if isinstance(r, TraceReport) and r.job_id == job_id]
        return "\n".join(lines)

    async def until_status(self, status: JobStatus, job_id: int = 1) -> None:
        """Wait until a job has reached a status."""
        await self.until(lambda: status in self.statuses(job_id))

    async def until_final(self, job_id: int = 1) -> FinalReport:
        """Wait for a job's final report."""
        await self.until(lambda: self.finals(job_id))
        return self.finals(job_id)[0]

    async def until_trace(self, text: str, job_id: int = 1) -> None:
        """Wait until a job's trace says so."""
        await self.until(lambda: text in self.traces(job_id))


class FakeProcessTable(Watched):
    """Finds every process that announces itself, and measures what the test says."""

    def __init__(self) -> None:
        super().__init__()
        self.located: list[ProcessIdentity] = []
        self.is_hiding = False
        self.usage: Usage | None = Usage(processes=1, source="pss")
        self.disk = 0
        self.signals: list[tuple[HostProcess, int]] = []
        self.swept: list[tuple[str, int]] = []
        self.survivors = 0
        self.sweep_error: Exception | None = None
        self.sweep_gate = Gate()

    async def locate(self, launcher_pid: int, process: ProcessIdentity) -> HostProcess | None:
        """Find it at a PID of its own on the host."""
        self.located.append(process)
        self.note()
        if self.is_hiding:
            return None
        return HostProcess(pid=process.pid + 1000, start_ticks=process.start_ticks)

    async def sample(self, roots: Sequence[HostProcess], *, precise: bool) -> Usage | None:
        """Return what the test says."""
        return self.usage

    async def disk_bytes(self, directory: str) -> int:
        """Return what the test says."""
        return self.disk

    def signal(self, process: HostProcess, number: int) -> bool:
        """Record it; the process does what it likes."""
        self.signals.append((process, number))
        self.note()
        return True

    async def sweep(self, mark: str, launcher_pid: int, *, deadline_s: float) -> int:
        """Record it, and find as many as the test says."""
        self.swept.append((mark, launcher_pid))
        self.note()
        await self.sweep_gate.passed()
        if self.sweep_error is not None:
            raise self.sweep_error
        return self.survivors


class FakeAuthority(Watched):
    """Issues numbered certificates, the first for ``lifetimes_s[0]`` seconds, and so on."""

    def __init__(self, clock: FakeClock, *lifetimes_s: float, refusal: str = "") -> None:
        super().__init__()
        self._clock = clock
        self._lifetimes_s = lifetimes_s or (86400.0,)
        self._refusal = refusal
        self.issued: list[tuple[JobIdentity, str]] = []

    async def issue(self, identity: JobIdentity, signing_request: str) -> Certificate:
        """Sign, or refuse."""
        if self._refusal:
            raise UserError(self._refusal)
        self.issued.append((identity, signing_request))
        self.note()
        number = len(self.issued)
        lifetime_s = self._lifetimes_s[min(number, len(self._lifetimes_s)) - 1]
        return Certificate(
            chain=f"certificate {number}\n", expires_at=self._clock.now() + lifetime_s
        )

    async def token(self, identity: JobIdentity) -> Token:
        """Hand out a token."""
        return Token(text=Secret("token"), expires_at=self._clock.now() + 86400.0)


class Recorder(Watched):
    """A recipient that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Message] = []

    def tell(self, message: Message) -> bool:
        """Keep it."""
        self.told.append(message)
        self.note()
        return True

    def of(self, kind: type[Message]) -> list[Any]:
        """Return what came of one kind."""
        return [message for message in self.told if type(message) is kind]

    async def until_told(self, kind: type[Message]) -> Any:
        """Wait for a message of one kind, and return the first."""
        await self.until(lambda: self.of(kind))
        return self.of(kind)[0]


class LogLines(Watched):
    """A log that keeps its lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def agent(self, level: str, text: str) -> None:
        """Take the agent's, or a wrapper's own."""
        self.lines.append(f"{level}: {text}")
        self.note()

    def job(self, level: str, text: str, at: float | None) -> None:
        """Take a job's."""
        self.agent(level, text)

    def crash(self, path: str, error: Exception) -> None:
        """Take a crash."""
        self.agent("crash", f"{path}: {error!r}")

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self.lines)

    async def until_said(self, text: str, count: int = 1) -> None:
        """Wait until the log says so."""
        await self.until(lambda: self.text.count(text) >= count)


def identity(pid: int) -> ProcessIdentity:
    """Make a process's identity."""
    return ProcessIdentity(pid=pid, pid_namespace=1, start_ticks=pid * 10, boot_id="boot")


def make_description(**asked: Any) -> JobDescription:
    """Make a small job."""
    values: dict[str, Any] = {
        "executable": "run",
        "memory_bytes": GB,
        "disk_bytes": GB,
        "ttl_s": 3600,
        "user": "alice",
    }
    return JobDescription(**(values | asked))


def make_match(**asked: Any) -> Match:
    """Make a match of a small job."""
    return Match(job_id=1, attempt=1, description=make_description(**asked), lease_s=60.0)


def make_saved(name: str) -> SavedFile:
    """Make an output that is safe."""
    return SavedFile(name=name, bytes=1, sha256="00", adler32="00", location=f"/output/{name}")
