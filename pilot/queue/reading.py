"""Reading the queue: rows for a table, counts, and everything about one job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlalchemy import Connection, RowMapping, Table, func, select

from pilot.queue.records import Change, HistoryLine, JobDetail, JobRow, ProcessLine, TraceLine
from pilot.queue.rows import is_integer
from pilot.queue.schema import history, jobs, processes, traces
from transport.messages import JobStatus, ProcessRole, Usage

_IDS_AT_ONCE = 500  # a statement takes only so many values

_ROW = [
    jobs.c.jdl_path.label("jdl") if name == "jdl" else jobs.c[name]
    for name in JobRow.__struct_fields__
]
_DETAIL = [
    *_ROW,
    jobs.c.description,
    jobs.c.jdl_text,
    jobs.c.image,
    jobs.c.kill,
    jobs.c.kill_request,
    jobs.c.usage,
    jobs.c.outputs,
]


def read_rows(connection: Connection, ids: Sequence[int] | None) -> list[JobRow]:
    """Return the jobs of these ids that there are (all for None), by id."""
    query = select(*_ROW).order_by(jobs.c.id)
    if ids is None:
        return [JobRow(**row) for row in connection.execute(query).mappings()]
    return [
        JobRow(**row)
        for some in _pieces(sorted({number for number in ids if is_integer(number)}))
        for row in connection.execute(query.where(jobs.c.id.in_(some))).mappings()
    ]


def read_detail(connection: Connection, job_id: int) -> JobDetail | None:
    """Return everything about a job, or None when there is no such job."""
    if not is_integer(job_id):
        return None
    query = select(*_DETAIL).where(jobs.c.id == job_id)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        return None
    return JobDetail(
        **{**row, "usage": row["usage"] or Usage(), "outputs": row["outputs"] or ()},
        history=tuple(HistoryLine(**line) for line in _lines(connection, history, job_id)),
        traces=tuple(TraceLine(**line) for line in _lines(connection, traces, job_id)),
        processes=tuple(
            ProcessLine(**{**line, "role": ProcessRole(line["role"])})
            for line in _lines(connection, processes, job_id)
        ),
    )


def read_changes(connection: Connection, after: int) -> list[Change]:
    """Return the history of all jobs from behind a change on, oldest first, some at a time."""
    query = select(history).where(history.c.id > after).order_by(history.c.id)
    rows = connection.execute(query.limit(_IDS_AT_ONCE)).mappings()
    return [_change(row) for row in rows]


def read_counts(connection: Connection) -> dict[JobStatus, int]:
    """Return how many jobs have each status that any has."""
    query = select(jobs.c.status, func.count()).group_by(jobs.c.status).order_by(jobs.c.status)
    return {row[0]: row[1] for row in connection.execute(query)}


def newest_change(connection: Connection) -> int:
    """Return the number of the newest change, 0 before there is any."""
    return connection.execute(select(func.max(history.c.id))).scalar() or 0


def _change(row: RowMapping) -> Change:
    line = HistoryLine(
        status=row["status"], at=row["at"], attempt=row["attempt"], reason=row["reason"]
    )
    return Change(number=row["id"], job_id=row["job_id"], line=line)


def _lines(connection: Connection, table: Table, job_id: int) -> Sequence[RowMapping]:
    columns = [column for column in table.c if column.name not in {"id", "job_id"}]
    query = select(*columns).where(table.c.job_id == job_id).order_by(table.c.id)
    return connection.execute(query).mappings().all()


def _pieces(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), _IDS_AT_ONCE):
        yield ids[start : start + _IDS_AT_ONCE]
