"""Leases: who is alive keeps its jobs, who is silent loses them, and commands on the way.

An agent's word renews the lease. When a lease runs out the job is a ZOMBIE, and its agent may
still come back; after that patience the attempt is EXPIRED and the job WAITING again, while
its policy allows. A sweep never takes a job both steps at once: when the queue itself was
away, every agent that still lives has the whole of the second half to say so.

A wish to kill is told with each heartbeat until the job is final, since a command may be
lost. It never outlives the attempt: whatever ends the attempt without a final status ends
the job as KILLED.
"""

from __future__ import annotations

from sqlalchemy import delete, insert, select

from actors.lifecycle import FINAL, LEASED
from actors.ports import Command, DrainNode, Heartbeat, HeldJob, KillJob, LoseJob
from pilot.queue.matching import drain_reason
from pilot.queue.records import KillAnswer
from pilot.queue.reporting import kill_unheld
from pilot.queue.rows import Job, Transaction, change, enter, hear, load, storable
from pilot.queue.schema import draining_nodes, jobs
from transport.errors import UserError
from transport.messages import JobStatus, KillCode, KillReason

SWEEP_MAX = 1000
"""Most jobs that one sweep moves; the next takes the rest."""


def heartbeat(tx: Transaction, beat: Heartbeat) -> tuple[Command, ...]:
    """Renew the node's leases and say what it has to do."""
    answers = (_answer(tx, beat.node, held) for held in beat.jobs)
    commands = tuple(command for command in answers if command is not None)
    why = drain_reason(tx, beat.node)
    return commands if why is None else (*commands, DrainNode(why=why))


def sweep(tx: Transaction) -> int:
    """Move every job whose status has run out; return how many there were."""
    overdue = tx.connection.scalars(
        select(jobs.c.id)
        .where(jobs.c.deadline < tx.now)
        .order_by(jobs.c.deadline)
        .limit(SWEEP_MAX)
        .with_for_update(skip_locked=True)
    ).all()
    for job_id in overdue:
        job = load(tx, job_id)
        assert job is not None, f"job {job_id} was found and is gone"
        _run_out(tx, job)
    return len(overdue)


def ask_kill(tx: Transaction, job_id: int, by: str, why: str) -> KillAnswer:
    """Kill a job that no agent holds, or have its agent told."""
    job = load(tx, job_id)
    if job is None:
        raise UserError(f"there is no job {job_id} in this queue; `pilot jobs` lists them")
    if job.status in FINAL:
        return KillAnswer.ALREADY_FINAL
    if job.kill_request is None:
        request = KillReason(
            code=KillCode.CENTRAL_KILL, by=storable(by), at=tx.now, why=storable(why)
        )
        change(tx, job, kill_request=request)
    else:
        request = job.kill_request
    if job.status in LEASED:
        return KillAnswer.RECORDED
    kill_unheld(tx, job, request)
    return KillAnswer.KILLED


def mark_draining(tx: Transaction, node: str, why: str) -> None:
    """Have a node take no more jobs; it is told with each heartbeat."""
    unmark_draining(tx, node)
    values = {"node": storable(node), "why": storable(why), "at": tx.now}
    tx.connection.execute(insert(draining_nodes).values(values))


def unmark_draining(tx: Transaction, node: str) -> None:
    """Let a node take jobs again."""
    tx.connection.execute(delete(draining_nodes).where(draining_nodes.c.node == storable(node)))


def _answer(tx: Transaction, node: str, held: HeldJob) -> Command | None:
    job = load(tx, held.job_id)
    if job is None or not job.is_held or (job.attempt, job.node) != (held.attempt, node):
        return LoseJob(job_id=held.job_id, attempt=held.attempt)
    hear(tx, job)
    if (kill := job.kill_request) is None:
        return None
    return KillJob(job_id=job.id, attempt=job.attempt, by=kill.by, why=kill.why)


def _run_out(tx: Transaction, job: Job) -> None:
    if job.status is JobStatus.WAITING:
        reason = f"no node matched it in {tx.policy.waiting_max_s:g} s"
        enter(tx, job, JobStatus.ERROR_EW, at=tx.now, reason=reason)
    elif job.status is JobStatus.ZOMBIE:
        _expire(tx, job)
    else:
        reason = f"nothing was heard from {job.node} for {tx.policy.lease_s:g} s"
        job = enter(tx, job, JobStatus.ZOMBIE, at=tx.now, reason=reason)
        if job.kill_request is not None:
            kill_unheld(tx, job, job.kill_request)


def _expire(tx: Transaction, job: Job) -> None:
    expiries = job.expiries + 1
    reason = f"{job.node} did not come back; {expiries} of {tx.policy.attempts_max} attempts lost"
    job = enter(tx, job, JobStatus.EXPIRED, at=tx.now, reason=reason, expiries=expiries)
    if expiries < tx.policy.attempts_max:
        reason = f"to be tried again after attempt {job.attempt} was lost"
        enter(tx, job, JobStatus.WAITING, at=tx.now, reason=reason, node=None)
