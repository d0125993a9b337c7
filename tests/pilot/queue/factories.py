"""Tiny factories: descriptions, slots, and an agent's side of one attempt."""

from __future__ import annotations

from typing import Any

from actors.ports import (
    Answer,
    AnyReport,
    FinalReport,
    Heartbeat,
    HeldJob,
    Match,
    ProcessReport,
    Slot,
    StatusReport,
    TraceReport,
    UsageReport,
)
from pilot.queue import QueuePolicy, QueueStore
from transport.messages import JobDescription, JobStatus, ProcessRole, Usage

S = JobStatus
GB = 10**9

POLICY = QueuePolicy(lease_s=60.0, zombie_s=60.0, attempts_max=3, waiting_max_s=1000.0)


def make_description(**asked: Any) -> JobDescription:
    """Make a small job."""
    values: dict[str, Any] = {
        "executable": "run.sh",
        "cpu_cores": 1,
        "memory_bytes": GB,
        "disk_bytes": GB,
        "ttl_s": 100,
    }
    return JobDescription(**(values | asked))


def make_slot(
    node: str = "node-1",
    *,
    cpu_cores: int = 2,
    memory_bytes: int = 4 * GB,
    disk_bytes: int = 10 * GB,
    time_left_s: float = 1000.0,
    is_whole_node: bool = True,
) -> Slot:
    """Make a slot that takes a small job."""
    return Slot(
        node=node,
        cpu_cores=cpu_cores,
        memory_bytes=memory_bytes,
        disk_bytes=disk_bytes,
        time_left_s=time_left_s,
        is_whole_node=is_whole_node,
    )


def submit(store: QueueStore, *, now: float = 0.0, **asked: Any) -> int:
    """Submit a small job."""
    return store.submit(make_description(**asked), "job.jdl", 'Executable = "run.sh";', now)


def beat_of(*holders: Holder, node: str = "node-1") -> Heartbeat:
    """Make a heartbeat of a node that holds these attempts."""
    return Heartbeat(node=node, jobs=tuple(holder.held for holder in holders))


class Holder:
    """An agent's side of one attempt: numbers its reports and sends them."""

    def __init__(self, store: QueueStore, match: Match) -> None:
        self.job_id = match.job_id
        self.attempt = match.attempt
        self.sequence = 0
        self.last: AnyReport | None = None
        self._store = store

    @classmethod
    def of(cls, store: QueueStore, now: float = 0.0, slot: Slot | None = None) -> Holder:
        """Match whatever comes first; there must be something."""
        match = store.match(slot or make_slot(), now)
        assert match is not None
        return cls(store, match)

    @property
    def held(self) -> HeldJob:
        """As a heartbeat names it."""
        return HeldJob(job_id=self.job_id, attempt=self.attempt)

    def send(self, report: AnyReport, now: float) -> Answer:
        """Send a report and remember it."""
        self.last = report
        return self._store.report(report, now)

    def resend(self, now: float) -> Answer:
        """Send the last report once more."""
        assert self.last is not None
        return self._store.report(self.last, now)

    def status(
        self, status: JobStatus, now: float = 0.0, *, reason: str = "", container: str | None = None
    ) -> Answer:
        """Report a status."""
        report = StatusReport(
            job_id=self.job_id,
            attempt=self.attempt,
            sequence=self._next(),
            at=now,
            status=status,
            reason=reason,
            container=container,
        )
        return self.send(report, now)

    def walk(self, *statuses: JobStatus, now: float = 0.0) -> None:
        """Report statuses that must be accepted."""
        for status in statuses:
            assert self.status(status, now) is Answer.ACCEPTED

    def trace(self, text: str, now: float = 0.0) -> Answer:
        """Report a trace line."""
        return self.send(
            TraceReport(
                job_id=self.job_id, attempt=self.attempt, sequence=self._next(), at=now, text=text
            ),
            now,
        )

    def process(self, role: ProcessRole, pid: int, host_pid: int | None, now: float) -> Answer:
        """Report a process."""
        report = ProcessReport(
            job_id=self.job_id,
            attempt=self.attempt,
            sequence=self._next(),
            at=now,
            role=role,
            pid=pid,
            host_pid=host_pid,
            start_ticks=7,
        )
        return self.send(report, now)

    def usage(self, usage: Usage, now: float = 0.0) -> Answer:
        """Report usage."""
        return self.send(
            UsageReport(
                job_id=self.job_id, attempt=self.attempt, sequence=self._next(), at=now, usage=usage
            ),
            now,
        )

    def final(
        self, status: JobStatus, now: float = 0.0, *, exit_code: int | None = 0, reason: str = ""
    ) -> Answer:
        """Report the end."""
        report = FinalReport(
            job_id=self.job_id,
            attempt=self.attempt,
            sequence=self._next(),
            at=now,
            status=status,
            exit_code=exit_code,
            reason=reason,
        )
        return self.send(report, now)

    def _next(self) -> int:
        self.sequence += 1
        return self.sequence
