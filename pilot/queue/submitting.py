"""A job's first line: checked against what a column holds, then stored."""

from __future__ import annotations

import math

import msgspec
from sqlalchemy import insert

from pilot.queue.rows import Transaction, is_integer, load, storable, write_history
from pilot.queue.schema import jobs
from transport.errors import UserError
from transport.messages import JobDescription, JobStatus

_SIZES = ("cpu_cores", "memory_bytes", "disk_bytes", "ttl_s")
_JDL_BYTES_MAX = 1 << 22


def insert_job(tx: Transaction, description: JobDescription, jdl_path: str, jdl_text: str) -> int:
    """Store a new WAITING job and return its id.

    Raises `UserError` when the description asks for what no queue can hold.
    """
    _check(description, jdl_path)
    job_id = tx.connection.scalar(
        insert(jobs)
        .values(
            name=storable(description.name),
            user=storable(description.user),
            jdl_path=storable(jdl_path),
            jdl_text=storable(jdl_text, _JDL_BYTES_MAX),
            description=description,
            submitted_at=tx.now,
            priority=description.priority,
            price=description.price,
            status=JobStatus.WAITING,
            deadline=tx.now + tx.policy.waiting_max_s,
            reason="submitted",
            **{name: getattr(description, name) for name in _SIZES},
        )
        .returning(jobs.c.id)
    )
    assert job_id is not None, "an insert returned no id"
    job = load(tx, job_id)
    assert job is not None, f"job {job_id} was stored and is gone"
    write_history(tx, job, at=tx.now, reason="submitted")
    return job.id


def _check(description: JobDescription, jdl_path: str) -> None:
    for name in _SIZES:
        number = getattr(description, name)
        if number < 0 or not is_integer(number):
            raise UserError(f"{jdl_path!a}: {name} is {number}; it must be from 0 to 2^63 - 1")
    if not is_integer(description.priority):
        raise UserError(f"{jdl_path!a}: priority is {description.priority}; it is too large")
    if not math.isfinite(description.price):
        raise UserError(f"{jdl_path!a}: price is {description.price}; it must be a number")
    try:
        msgspec.json.encode(description)
    except (ValueError, OverflowError, TypeError) as error:
        raise UserError(f"{jdl_path!a}: the job can't be stored: {error}") from error
