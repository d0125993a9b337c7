"""Which job goes to which slot: highest priority, then highest price, then oldest.

Matching compares columns inside the database, `why_not` says the same in words for one job;
a test holds the two against each other.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, select

from actors.ports import Match, Slot
from pilot.queue.rows import Transaction, enter, load
from pilot.queue.schema import draining_nodes, is_waiting, jobs
from transport.messages import JobStatus, Record


class Ask(Record, frozen=True, kw_only=True):
    """What a waiting job needs of a slot."""

    id: int
    cpu_cores: int
    memory_bytes: int
    disk_bytes: int
    ttl_s: int


def claim(tx: Transaction, slot: Slot) -> Match | None:
    """Hand the best waiting job that fits ``slot`` to its node; None when there is none."""
    if drain_reason(tx, slot.node) is not None:
        return None
    job_id = tx.connection.scalar(
        select(jobs.c.id)
        .where(is_waiting, *_fits(slot))
        .order_by(jobs.c.priority.desc(), jobs.c.price.desc(), jobs.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return None if job_id is None else _assign(tx, job_id, slot.node)


def drain_reason(tx: Transaction, node: str) -> str | None:
    """Return why a node is to take no more jobs, or None when it may."""
    return tx.connection.scalar(select(draining_nodes.c.why).where(draining_nodes.c.node == node))


def read_asks(connection: Connection) -> list[Ask]:
    """Return what each waiting job asks for, oldest first."""
    columns = [jobs.c[name] for name in Ask.__struct_fields__]
    rows = connection.execute(select(*columns).where(is_waiting).order_by(jobs.c.id))
    return [Ask(**row._mapping) for row in rows]


def why_not(ask: Ask, slot: Slot) -> str:
    """Say why a job doesn't fit a slot, in a sentence that follows its name; empty if it does."""
    misfits = [
        (f"{ask.cpu_cores} cores", f"{slot.cpu_cores}", ask.cpu_cores > slot.cpu_cores),
        ("the whole node", "a part to give", ask.cpu_cores == 0 and not slot.is_whole_node),
        _size("memory", ask.memory_bytes, slot.memory_bytes),
        _size("disk", ask.disk_bytes, slot.disk_bytes),
        (f"{ask.ttl_s} s", f"{slot.time_left_s:.0f} s left", ask.ttl_s > slot.time_left_s),
    ]
    wanted = " and ".join(asked for asked, _, is_misfit in misfits if is_misfit)
    offered = " and ".join(had for _, had, is_misfit in misfits if is_misfit)
    return f"asks for {wanted}; this node has {offered}" if wanted else ""


def _fits(slot: Slot) -> tuple[ColumnElement[bool], ...]:
    return (
        jobs.c.cpu_cores.between(0 if slot.is_whole_node else 1, slot.cpu_cores),
        jobs.c.memory_bytes <= slot.memory_bytes,
        jobs.c.disk_bytes <= slot.disk_bytes,
        jobs.c.ttl_s <= slot.time_left_s,
    )


def _assign(tx: Transaction, job_id: int, node: str) -> Match:
    job = load(tx, job_id)
    assert job is not None, f"job {job_id} was found and is gone"
    job = enter(
        tx,
        job,
        JobStatus.ASSIGNED,
        at=tx.now,
        reason=f"matched by {node}",
        attempt=job.attempt + 1,
        node=node,
        last_sequence=0,
        closing_sequence=None,
        trace_count=0,
        container=None,
        image=None,
        usage=None,
    )
    description = tx.connection.execute(
        select(jobs.c.description).where(jobs.c.id == job_id)
    ).scalar_one()
    return Match(
        job_id=job_id,
        attempt=job.attempt,
        description=description,
        lease_s=tx.policy.lease_s,
    )


def _size(what: str, asked_bytes: int, had_bytes: int) -> tuple[str, str, bool]:
    asked, had = f"{asked_bytes / 1e9:g} GB of {what}", f"{had_bytes / 1e9:g} GB"
    return asked, had, asked_bytes > had_bytes
