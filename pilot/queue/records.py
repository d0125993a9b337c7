"""What the queue is told and what it tells: its policy, its answers, its rows."""

from __future__ import annotations

from enum import StrEnum

from actors.ports import ImageUsed
from transport.messages import (
    JobDescription,
    JobStatus,
    KillReason,
    ProcessRole,
    Record,
    SavedFile,
    Usage,
)


class QueuePolicy(Record, frozen=True, kw_only=True):
    """How patient the queue is."""

    lease_s: float = 60.0
    """How long a matched job stays its agent's without a word from it; then it is a ZOMBIE."""
    zombie_s: float = 60.0
    """How long a ZOMBIE's agent may still come back; then the attempt is EXPIRED."""
    attempts_max: int = 3
    """How many attempts may expire. What a pilot gives back doesn't count."""
    waiting_max_s: float = 7 * 86400.0
    """How long a job may wait for a match; then it is ERROR_EW."""


class KillAnswer(StrEnum):
    """What became of a request to kill a job."""

    KILLED = "killed"
    """No agent had it: it is KILLED now."""
    RECORDED = "recorded"
    """Its agent is told with its next heartbeats, until the job is final."""
    ALREADY_FINAL = "already-final"
    """It had ended before; nothing changed."""


class JobRow(Record, frozen=True, kw_only=True):
    """A job as a table shows it."""

    id: int
    jdl: str
    """Path of its JDL, as it was given."""
    name: str
    user: str
    status: JobStatus
    attempt: int
    """0 until it is first matched."""
    node: str | None
    """Where the present or the last attempt is; None while it waits."""
    exit_code: int | None
    reason: str
    """Why it has its status."""
    container: str | None
    submitted_at: float


class HistoryLine(Record, frozen=True, kw_only=True):
    """A status that a job reached; ``at`` is of the clock of who brought it there."""

    status: JobStatus
    at: float
    attempt: int
    reason: str


class Change(Record, frozen=True, kw_only=True):
    """A step of some job's history; numbers rise in the order in which the queue was told."""

    number: int
    job_id: int
    line: HistoryLine


class TraceLine(Record, frozen=True, kw_only=True):
    """A line of a job's trace."""

    at: float
    text: str
    attempt: int


class ProcessLine(Record, frozen=True, kw_only=True):
    """A process that a job announced; the newest of a role counts."""

    role: ProcessRole
    pid: int
    host_pid: int | None
    start_ticks: int
    at: float
    attempt: int


class JobDetail(JobRow, frozen=True, kw_only=True):
    """Everything that the queue knows of a job; lists are oldest first."""

    description: JobDescription
    jdl_text: str
    image: ImageUsed | None
    kill: KillReason | None
    """Who ended it, when somebody did."""
    kill_request: KillReason | None
    """Who asked for its end, whether or not that came to pass."""
    usage: Usage
    outputs: tuple[SavedFile, ...]
    history: tuple[HistoryLine, ...]
    traces: tuple[TraceLine, ...]
    processes: tuple[ProcessLine, ...]
