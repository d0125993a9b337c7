"""A job's row inside a transaction: loaded in one place, changed in one place.

`enter` is the only function that changes a status. It holds the life cycle's table against
each step, sets the deadline of the new status and writes the history line, so that none of
the three can be forgotten.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from sqlalchemy import Connection, func, insert, select, update

from actors.lifecycle import FINAL, LEASED, may_follow
from pilot.queue.records import QueuePolicy
from pilot.queue.schema import history, jobs, processes, traces
from transport.messages import JobStatus, KillReason, ProcessRole, Record

TEXT_BYTES_MAX = 4096
"""Longest line of a trace, or reason."""
TRACES_MAX = 1000
"""Most trace lines of an attempt; one more then says that the rest is left out."""
PROCESSES_MAX = 100
"""Most processes kept of an attempt; a wrapper announces three, each a few times."""

_LEFT_OUT = f"this attempt has written {TRACES_MAX} lines; further ones are left out"
_INTEGER_MAX = 2**63 - 1


class Transaction(NamedTuple):
    """What every step inside a transaction needs."""

    connection: Connection
    policy: QueuePolicy
    now: float


class Job(Record, frozen=True, kw_only=True):
    """The part of a row that decisions are made from."""

    id: int
    status: JobStatus
    status_before: JobStatus | None
    attempt: int
    expiries: int
    node: str | None
    last_sequence: int
    closing_sequence: int | None
    trace_count: int
    kill_request: KillReason | None

    @property
    def is_held(self) -> bool:
        """True while the present attempt is some agent's, even one that fell silent."""
        return self.status in LEASED or self.status is JobStatus.ZOMBIE


_COLUMNS = [jobs.c[name] for name in Job.__struct_fields__]


def load(tx: Transaction, job_id: int) -> Job | None:
    """Load a job and lock its row, or return None when there is none."""
    if not is_integer(job_id):
        return None
    row = tx.connection.execute(
        select(*_COLUMNS).where(jobs.c.id == job_id).with_for_update()
    ).one_or_none()
    return None if row is None else Job(**row._mapping)


def enter(
    tx: Transaction, job: Job, status: JobStatus, *, reason: str, at: float, **columns: object
) -> Job:
    """Move a job to ``status`` and return it as it is then; ``columns`` change with it.

    The caller has checked that the life cycle lets it: an impossible step is a bug of ours.
    """
    is_return = job.status is JobStatus.ZOMBIE and status is job.status_before
    assert is_return or may_follow(job.status, status), f"job {job.id}: {job.status} -> {status}"
    reason = storable(reason)
    columns["status_before"] = job.status if status is JobStatus.ZOMBIE else None
    changed = tx.connection.execute(
        update(jobs)
        .where(jobs.c.id == job.id)
        .values(status=status, reason=reason, deadline=_deadline(tx, status), **columns)
        .returning(*_COLUMNS)
    ).one()
    job = Job(**changed._mapping)
    write_history(tx, job, at=at, reason=reason)
    return job


def write_history(tx: Transaction, job: Job, *, at: float, reason: str) -> None:
    """Write the line that says that the job has the status it has."""
    tx.connection.execute(
        insert(history).values(
            job_id=job.id, attempt=job.attempt, status=job.status, at=at, reason=reason
        )
    )


def hear(tx: Transaction, job: Job) -> Job:
    """Renew the lease of a job whose agent was heard; a ZOMBIE comes back to where it was."""
    if job.status is JobStatus.ZOMBIE:
        assert job.status_before is not None, f"job {job.id} is a ZOMBIE without a past"
        return enter(tx, job, job.status_before, at=tx.now, reason=f"{job.node} was heard again")
    change(tx, job, deadline=_deadline(tx, job.status))
    return job


def change(tx: Transaction, job: Job, **columns: object) -> None:
    """Change columns that aren't the status."""
    tx.connection.execute(update(jobs).where(jobs.c.id == job.id).values(**columns))


def write_trace(tx: Transaction, job: Job, *, at: float, text: str) -> None:
    """Write a line of the job's trace, within its bounds."""
    if job.trace_count > TRACES_MAX:
        return
    text = storable(text) if job.trace_count < TRACES_MAX else _LEFT_OUT
    tx.connection.execute(
        insert(traces).values(job_id=job.id, attempt=job.attempt, at=at, text=text)
    )
    change(tx, job, trace_count=job.trace_count + 1)


def write_process(
    tx: Transaction,
    job: Job,
    *,
    at: float,
    role: ProcessRole,
    pid: int,
    host_pid: int | None,
    start_ticks: int,
) -> None:
    """Note a process of the present attempt, within its bound."""
    known = tx.connection.scalar(
        select(func.count())
        .select_from(processes)
        .where(processes.c.job_id == job.id, processes.c.attempt == job.attempt)
    )
    if known is None or known >= PROCESSES_MAX:
        return
    tx.connection.execute(
        insert(processes).values(
            job_id=job.id,
            attempt=job.attempt,
            role=role.value,
            pid=pid,
            host_pid=host_pid,
            start_ticks=start_ticks,
            at=at,
        )
    )


def storable(text: str, bytes_max: int = TEXT_BYTES_MAX) -> str:
    """Return ``text`` as every database takes it: UTF-8, without NUL, cut to a length."""
    data = text.replace("\0", "\\x00").encode("utf-8", "backslashreplace")
    return data[:bytes_max].decode("utf-8", "ignore")


def storable_time(at: float, now: float) -> float:
    """Return a peer's time, or ``now`` where it is none (NaN, infinite)."""
    return at if math.isfinite(at) else now


def is_integer(number: int) -> bool:
    """Tell whether a column can hold this number."""
    return -_INTEGER_MAX <= number <= _INTEGER_MAX


def _deadline(tx: Transaction, status: JobStatus) -> float | None:
    if status is JobStatus.WAITING:
        return tx.now + tx.policy.waiting_max_s
    if status is JobStatus.ZOMBIE:
        return tx.now + tx.policy.zombie_s
    if status in FINAL:
        return None
    assert status in LEASED, f"the queue doesn't know how long {status} lasts"
    return tx.now + tx.policy.lease_s
