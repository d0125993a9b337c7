"""Taking an agent's reports: each has its effect once, and only from who holds the job.

A report is known by (job, attempt, sequence). The agent sends an attempt's reports in order,
again until one is answered, and may leave out what it had to drop; so the highest sequence
taken is all that needs to be remembered. In this order:

1. not the job's present attempt: STALE;
2. the very report that ended this attempt, once more: DUPLICATE, for its answer was lost;
3. the attempt isn't held any more (final, expired, given back): STALE;
4. a sequence not above the highest: DUPLICATE;
5. taken: it renews the lease, and brings a ZOMBIE back to where it was; then it has its
   effect, or is REFUSED where the life cycle has no such step. A refusal, too, is taken.

An agent reports a final status with everything about the end at once (`FinalReport`), never
with a `StatusReport`; ZOMBIE is the queue's word alone. Giving a job back that somebody wants
killed makes it KILLED.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from actors.lifecycle import FINAL, may_follow
from actors.ports import (
    Answer,
    AnyReport,
    FinalReport,
    ImageUsed,
    ProcessReport,
    StatusReport,
    TraceReport,
    UsageReport,
)
from pilot.queue.rows import (
    Job,
    Transaction,
    change,
    enter,
    hear,
    load,
    storable,
    storable_time,
    write_process,
    write_trace,
)
from transport.messages import JobStatus, KillReason, SavedFile


def take(tx: Transaction, report: AnyReport) -> Answer:
    """Take one report and say what became of it."""
    job = load(tx, report.job_id)
    if job is None or job.attempt != report.attempt:
        return Answer.STALE
    if report.sequence == job.closing_sequence:
        return Answer.DUPLICATE
    if not job.is_held:
        return Answer.STALE
    if report.sequence <= job.last_sequence:
        return Answer.DUPLICATE
    job = hear(tx, job)
    change(tx, job, last_sequence=report.sequence)
    return _apply(tx, job, report, storable_time(report.at, tx.now))


def kill_unheld(tx: Transaction, job: Job, kill: KillReason) -> Job:
    """End a job that no agent holds, or none that is heard."""
    reason = f"killed by {kill.by}: {kill.why}"
    return enter(tx, job, JobStatus.KILLED, at=tx.now, reason=reason, kill=kill)


def _apply(tx: Transaction, job: Job, report: AnyReport, at: float) -> Answer:
    match report:
        case StatusReport():
            return _apply_status(tx, job, report, at)
        case FinalReport():
            return _apply_final(tx, job, report, at)
        case TraceReport():
            write_trace(tx, job, at=at, text=report.text)
        case UsageReport():
            change(tx, job, usage=report.usage)
        case ProcessReport():
            write_process(
                tx,
                job,
                at=at,
                role=report.role,
                pid=report.pid,
                host_pid=report.host_pid,
                start_ticks=report.start_ticks,
            )
        case _:
            assert_never(report)
    return Answer.ACCEPTED


def _apply_status(tx: Transaction, job: Job, report: StatusReport, at: float) -> Answer:
    if report.status is job.status:
        return Answer.ACCEPTED
    if report.status in FINAL or report.status is JobStatus.ZOMBIE:
        return _refuse(tx, job, report, "which isn't told with a status report")
    if not may_follow(job.status, report.status):
        return _refuse(tx, job, report, "which the life cycle doesn't allow")
    if report.status is JobStatus.WAITING:
        _give_back(tx, job, report, at)
    elif report.status is JobStatus.STARTED:
        container = report.container and storable(report.container)
        image = report.image and _storable_image(report.image)
        enter(tx, job, report.status, at=at, reason=report.reason, container=container, image=image)
    else:
        enter(tx, job, report.status, at=at, reason=report.reason)
    return Answer.ACCEPTED


def _give_back(tx: Transaction, job: Job, report: StatusReport, at: float) -> None:
    kill = job.kill_request
    job = enter(
        tx,
        job,
        JobStatus.WAITING,
        at=at,
        reason=report.reason,
        closing_sequence=report.sequence,
        node=None,
    )
    if kill is not None:
        kill_unheld(tx, job, kill)


def _apply_final(tx: Transaction, job: Job, report: FinalReport, at: float) -> Answer:
    if report.status not in FINAL:
        return _refuse(tx, job, report, "which isn't a final status")
    if not may_follow(job.status, report.status):
        return _refuse(tx, job, report, "which the life cycle doesn't allow")
    enter(
        tx,
        job,
        report.status,
        at=at,
        reason=report.reason,
        closing_sequence=report.sequence,
        exit_code=report.exit_code,
        kill=report.kill and _storable_kill(report.kill),
        usage=report.usage,
        outputs=tuple(_storable_file(file) for file in report.outputs),
    )
    return Answer.ACCEPTED


def _refuse(tx: Transaction, job: Job, report: StatusReport | FinalReport, why: str) -> Answer:
    text = f"refused: report {report.sequence} says {report.status} after {job.status}, {why}"
    write_trace(tx, job, at=tx.now, text=text)
    return Answer.REFUSED


def _storable_image(image: ImageUsed) -> ImageUsed:
    return ImageUsed(reference=storable(image.reference), digest=storable(image.digest))


def _storable_kill(kill: KillReason) -> KillReason:
    return msgspec.structs.replace(kill, by=storable(kill.by), why=storable(kill.why))


def _storable_file(file: SavedFile) -> SavedFile:
    return msgspec.structs.replace(file, name=storable(file.name), location=storable(file.location))
