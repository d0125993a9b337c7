"""The queue's tables, in SQLAlchemy Core: portable between SQLite and PostgreSQL.

One row of ``jobs`` holds a job's present state; ``history``, ``traces`` and ``processes`` only
ever grow. What a job asks for stands twice: whole, in ``description``, and once more in the
columns that matching compares and the index of waiting jobs holds.

``deadline`` is when the present status runs out by itself: the lease of a job that an agent
holds, the patience with a ZOMBIE, the longest wait of a WAITING one; NULL when final. One
index over it finds everything that a sweep has to do.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    literal,
)
from sqlalchemy.types import TypeDecorator

from actors.ports import ImageUsed
from transport.messages import JobDescription, JobStatus, KillReason, SavedFile, Usage

SCHEMA_VERSION = 2
"""Raised with every change of these tables; a file of a newer version is refused."""


class StatusText(TypeDecorator[JobStatus]):
    """A job status, stored by its name."""

    impl = String(16)
    cache_ok = True

    def process_bind_param(self, value: JobStatus | None, dialect: Dialect) -> str | None:
        """Return the name."""
        return None if value is None else value.value

    def process_result_value(self, value: str | None, dialect: Dialect) -> JobStatus | None:
        """Return the status of that name."""
        return None if value is None else JobStatus(value)


class Encoded(TypeDecorator[object]):
    """A record (or a tuple of them) as JSON text."""

    impl = Text
    cache_ok = True

    def __init__(self, record: object) -> None:
        super().__init__()
        self.record = record

    def process_bind_param(self, value: object, dialect: Dialect) -> str | None:
        """Return the JSON text."""
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> object:
        """Return the record again."""
        return None if value is None else msgspec.json.decode(value, type=self.record)


_Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts only INTEGER keys by itself

metadata = MetaData()

queue_schema = Table("queue_schema", metadata, Column("version", Integer, primary_key=True))

jobs = Table(
    "jobs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("jdl_path", Text, nullable=False),
    Column("jdl_text", Text, nullable=False),
    Column("description", Encoded(JobDescription), nullable=False),
    Column("submitted_at", Double, nullable=False),
    # what matching compares
    Column("priority", BigInteger, nullable=False),
    Column("price", Double, nullable=False),
    Column("cpu_cores", BigInteger, nullable=False),
    Column("memory_bytes", BigInteger, nullable=False),
    Column("disk_bytes", BigInteger, nullable=False),
    Column("ttl_s", BigInteger, nullable=False),
    # where it is in its life
    Column("status", StatusText, nullable=False),
    Column("status_before", StatusText),  # of a ZOMBIE: where its agent left it
    Column("deadline", Double),
    Column("attempt", Integer, nullable=False, default=0),
    Column("expiries", Integer, nullable=False, default=0),
    Column("node", Text),
    # of the present attempt
    Column("last_sequence", BigInteger, nullable=False, default=0),
    Column("closing_sequence", BigInteger),  # of the report that ended the attempt
    Column("trace_count", Integer, nullable=False, default=0),
    Column("container", Text),
    Column("image", Encoded(ImageUsed)),
    Column("kill_request", Encoded(KillReason)),
    # how it ended, or how far it is
    Column("exit_code", BigInteger),
    Column("reason", Text, nullable=False, default=""),
    Column("kill", Encoded(KillReason)),
    Column("usage", Encoded(Usage)),
    Column("outputs", Encoded(tuple[SavedFile, ...])),
)

is_waiting = jobs.c.status == literal(JobStatus.WAITING, StatusText(), literal_execute=True)
"""Literal, not bound: only so does a planner see that the index of waiting jobs serves it."""

has_deadline = jobs.c.deadline.is_not(None)

Index(
    "jobs_waiting",
    jobs.c.priority.desc(),
    jobs.c.price.desc(),
    jobs.c.id,
    jobs.c.cpu_cores,
    jobs.c.memory_bytes,
    jobs.c.disk_bytes,
    jobs.c.ttl_s,
    sqlite_where=is_waiting,
    postgresql_where=is_waiting,
)
Index("jobs_deadline", jobs.c.deadline, sqlite_where=has_deadline, postgresql_where=has_deadline)

history = Table(
    "history",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("job_id", _Id, ForeignKey("jobs.id"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("status", StatusText, nullable=False),
    Column("at", Double, nullable=False),
    Column("reason", Text, nullable=False),
)

traces = Table(
    "traces",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("job_id", _Id, ForeignKey("jobs.id"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("at", Double, nullable=False),
    Column("text", Text, nullable=False),
)

processes = Table(
    "processes",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("job_id", _Id, ForeignKey("jobs.id"), nullable=False, index=True),
    Column("attempt", Integer, nullable=False),
    Column("role", String(16), nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("host_pid", BigInteger),
    Column("start_ticks", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
)

draining_nodes = Table(
    "draining_nodes",
    metadata,
    Column("node", Text, primary_key=True),
    Column("why", Text, nullable=False),
    Column("at", Double, nullable=False),
)
