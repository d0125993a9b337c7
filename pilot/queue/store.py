"""The embedded queue: every operation one transaction, and the time passed in.

For a program of its own (`pilot submit`, `pilot jobs`, `pilot kill`) this is the interface;
an agent takes `pilot.queue.SqliteTaskQueue`, which runs it in a thread. Several processes may
hold the same file open. All methods raise `transport.errors.OperatorError` when the file can't
be read or written just now.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from actors.ports import Answer, AnyReport, Command, Heartbeat, Match, Slot
from pilot.queue import leasing, matching, reading, reporting
from pilot.queue.database import Database, open_memory, open_sqlite
from pilot.queue.records import Change, JobDetail, JobRow, KillAnswer, QueuePolicy
from pilot.queue.rows import Transaction
from pilot.queue.submitting import insert_job
from transport.errors import UserError
from transport.messages import JobDescription, JobStatus

DEFAULT_POLICY = QueuePolicy()


class QueueStore:
    """A queue in a database. Close it, or use it in a ``with`` statement."""

    def __init__(self, database: Database, policy: QueuePolicy = DEFAULT_POLICY) -> None:
        self.policy = policy
        self._database = database

    @classmethod
    def open(cls, path: Path, policy: QueuePolicy = DEFAULT_POLICY) -> Self:
        """Open the queue in a file, made when there is none.

        Raises `transport.errors.OperatorError` when the file can't be had or is no queue.
        """
        return cls(open_sqlite(path), policy)

    @classmethod
    def in_memory(cls, policy: QueuePolicy = DEFAULT_POLICY) -> Self:
        """Make a queue that ends with this object: for simulations and tests."""
        return cls(open_memory(), policy)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- for whoever has jobs ---

    def submit(self, description: JobDescription, jdl_path: str, jdl_text: str, now: float) -> int:
        """Take a job, WAITING from now on, and return its id.

        Raises `transport.errors.UserError` when it asks for what can't be stored.
        """
        with self._transaction(now) as tx:
            return insert_job(tx, description, jdl_path, jdl_text)

    def request_kill(self, job_id: int, by: str, why: str, now: float) -> KillAnswer:
        """Kill a job: at once when no agent has it, else its agent is told.

        Raises `transport.errors.UserError` when there is no such job.
        """
        with self._transaction(now) as tx:
            return leasing.ask_kill(tx, job_id, by, why)

    # --- for agents ---

    def match(self, slot: Slot, now: float) -> Match | None:
        """Sweep, then hand the best waiting job that fits ``slot`` to its node."""
        with self._transaction(now) as tx:
            leasing.sweep(tx)
            return matching.claim(tx, slot)

    def report(self, report: AnyReport, now: float) -> Answer:
        """Take one report; the rules are in `pilot.queue.reporting`."""
        with self._transaction(now) as tx:
            return reporting.take(tx, report)

    def heartbeat(self, beat: Heartbeat, now: float) -> tuple[Command, ...]:
        """Renew the node's leases, sweep the others', and return what the node has to do."""
        with self._transaction(now) as tx:
            commands = leasing.heartbeat(tx, beat)
            leasing.sweep(tx)
            return commands

    # --- for the operator ---

    def expire(self, now: float) -> int:
        """Move the jobs whose time is up (some 1,000 at most) and return how many."""
        with self._transaction(now) as tx:
            return leasing.sweep(tx)

    def request_drain(self, node: str, why: str, now: float) -> None:
        """Have a node take no more jobs, until `end_drain`."""
        with self._transaction(now) as tx:
            leasing.mark_draining(tx, node, why)

    def end_drain(self, node: str, now: float) -> None:
        """Let a node take jobs again; an agent that drained already doesn't come back."""
        with self._transaction(now) as tx:
            leasing.unmark_draining(tx, node)

    # --- to look at ---

    def jobs(self, ids: Sequence[int] | None = None) -> list[JobRow]:
        """Return all jobs, or those of ``ids`` that there are, by id."""
        with self._database.read() as connection:
            return reading.read_rows(connection, ids)

    def job(self, job_id: int) -> JobDetail:
        """Return everything about a job.

        Raises `transport.errors.UserError` when there is no such job.
        """
        with self._database.read() as connection:
            detail = reading.read_detail(connection, job_id)
        if detail is None:
            raise UserError(f"there is no job {job_id} in the queue {self._database.path}")
        return detail

    def newest_change(self) -> int:
        """Return the number of the newest change of any job, 0 before there is any."""
        with self._database.read() as connection:
            return reading.newest_change(connection)

    def changes(self, after: int) -> list[Change]:
        """Return what befell any job behind the change of that number, oldest first.

        At most some hundred at a time: ask again, from the last one on, until there are none.
        """
        with self._database.read() as connection:
            return reading.read_changes(connection, after)

    def counts(self) -> dict[JobStatus, int]:
        """Return how many jobs have each status that any has."""
        with self._database.read() as connection:
            return reading.read_counts(connection)

    def unmatchable(self, slot: Slot, ids: Sequence[int] | None = None) -> dict[int, str]:
        """Return the waiting jobs that don't fit ``slot``, each with the reason.

        Given a node's total slot: those that it could never take. ``ids`` narrows it down.
        """
        with self._database.read() as connection:
            asks = matching.read_asks(connection)
        wanted = None if ids is None else set(ids)
        reasons = {
            ask.id: matching.why_not(ask, slot)
            for ask in asks
            if wanted is None or ask.id in wanted
        }
        return {job_id: reason for job_id, reason in reasons.items() if reason}

    @contextmanager
    def _transaction(self, now: float) -> Iterator[Transaction]:
        with self._database.write() as connection:
            yield Transaction(connection, self.policy, now)
