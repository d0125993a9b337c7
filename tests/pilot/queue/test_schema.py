from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from pilot.queue.database import open_memory
from pilot.queue.schema import is_waiting, jobs, metadata


def test_postgresql_can_follow() -> None:
    """The same tables and row locks are spelled for PostgreSQL without change."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    tables = [str(CreateTable(t).compile(dialect=dialect)) for t in metadata.sorted_tables]
    indexes = [str(CreateIndex(i).compile(dialect=dialect)) for i in jobs.indexes]
    claim = select(jobs.c.id).with_for_update(skip_locked=True).compile(dialect=dialect)

    assert any("id BIGSERIAL" in table for table in tables)
    assert any("WHERE status = 'WAITING'" in index for index in indexes)
    assert "FOR UPDATE SKIP LOCKED" in str(claim)


def test_matching_and_sweeping_go_by_index() -> None:
    """No scan of the table, no sorting, however long the queue."""
    database = open_memory()
    order = (jobs.c.priority.desc(), jobs.c.price.desc(), jobs.c.id)
    best = select(jobs.c.id).where(is_waiting, jobs.c.ttl_s <= 5).order_by(*order).limit(1)
    overdue = select(jobs.c.id).where(jobs.c.deadline < 5.0).order_by(jobs.c.deadline)
    with database.read() as connection:
        plans = [
            str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}").all())
            for text in (
                query.compile(connection, compile_kwargs={"literal_binds": True})
                for query in (best, overdue)
            )
        ]
    database.close()

    assert "jobs_waiting" in plans[0]
    assert "jobs_deadline" in plans[1]
    assert "TEMP B-TREE" not in "".join(plans)
