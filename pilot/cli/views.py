"""What a person, or a program, is shown of jobs. The JSON is a contract: see docs/cli.md."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from actors.lifecycle import FINAL
from actors.ports import ImageUsed
from pilot.printable import printable
from pilot.queue import HistoryLine, JobDetail, JobRow
from transport.messages import JobStatus

_GOOD = frozenset({JobStatus.DONE, JobStatus.DONE_WARN})
_NOT_LAUNCHED = frozenset(
    {JobStatus.WAITING, JobStatus.ASSIGNED, JobStatus.ERROR_A, JobStatus.ERROR_EW}
)
_MILLISECOND_DIGITS = 3


def row_json(row: JobRow) -> dict[str, object]:
    """Return what `run --json` and `jobs --json` print of a job."""
    return {
        "id": row.id,
        "jdl": row.jdl,
        "name": row.name,
        "status": row.status.value,
        "attempt": row.attempt,
        "exit_code": row.exit_code,
        "reason": row.reason,
        "container": row.container,
    }


def detail_json(job: JobDetail) -> dict[str, object]:
    """Return what `show --json` prints: a job's row, and its story."""
    usage = job.usage
    return {
        **row_json(job),
        "image": None
        if job.image is None
        else {"reference": job.image.reference, "digest": job.image.digest or None},
        "user": job.user,
        "node": job.node,
        "submitted_at": job.submitted_at,
        "history": [
            {
                "status": line.status.value,
                "at": line.at,
                "attempt": line.attempt,
                "reason": line.reason,
            }
            for line in job.history
        ],
        "traces": [
            {"at": line.at, "text": line.text, "attempt": line.attempt} for line in job.traces
        ],
        "processes": [
            {
                "role": line.role.value,
                "pid": line.pid,
                "host_pid": line.host_pid,
                "at": line.at,
                "attempt": line.attempt,
            }
            for line in job.processes
        ],
        "usage": {
            "wall_s": usage.wall_s,
            "cpu_s": usage.cpu_s,
            "memory_peak_bytes": usage.memory_peak_bytes,
            "disk_peak_bytes": usage.disk_peak_bytes,
            "processes": usage.processes,
            "threads": usage.threads,
            "samples": usage.samples,
            "source": usage.source or None,
        },
        "outputs": [
            {
                "name": file.name,
                "bytes": file.bytes,
                "sha256": file.sha256,
                "adler32": file.adler32,
                "location": file.location,
            }
            for file in job.outputs
        ],
        "kill": None
        if job.kill is None
        else {
            "code": int(job.kill.code),
            "by": job.kill.by,
            "at": job.kill.at,
            "why": job.kill.why,
        },
    }


def as_json(value: object) -> str:
    """Return one line of JSON, in ASCII: no terminal, log or locale can break it."""
    return json.dumps(value)


def job_table(rows: Iterable[JobRow]) -> Table:
    """Return the table of jobs for a terminal."""
    table = Table(box=None, pad_edge=False)
    for title, justify in (("id", "right"), ("name", "left"), ("status", "left")):
        table.add_column(title, justify=justify, no_wrap=True)  # type: ignore[arg-type] # a plain str
    table.add_column("try", justify="right", no_wrap=True)
    table.add_column("exit", justify="right", no_wrap=True)
    table.add_column("in", no_wrap=True)
    # Its text, not the column, is cut: rich would shrink all columns that don't wrap alike.
    table.add_column("reason")
    for row in rows:
        table.add_row(
            str(row.id),
            Text(printable(row.name)),
            status_text(row.status),
            str(row.attempt),
            "" if row.exit_code is None else str(row.exit_code),
            row.container or ("bare" if row.status not in _NOT_LAUNCHED else ""),
            Text(printable(row.reason), no_wrap=True, overflow="ellipsis"),
        )
    return table


def plain_line(row: JobRow) -> str:
    """Return a job as one line of text, for where no terminal is."""
    return _line(row, row.status, row.reason)


def change_line(row: JobRow, change: HistoryLine) -> str:
    """Return a step of a job as one line of text."""
    at = time.strftime("%H:%M:%S", time.localtime(change.at))
    return f"{at}  {_line(row, change.status, change.reason)}"


def _line(row: JobRow, status: JobStatus, reason: str) -> str:
    parts = [f"job {row.id}", printable(row.name), status.value]
    if status in FINAL and row.exit_code is not None:
        parts.append(f"exit {row.exit_code}")
    line = "  ".join(parts)
    return f"{line}  ({printable(reason)})" if reason else line


def status_text(status: JobStatus) -> Text:
    """Return a status, coloured by what it means."""
    if status in _GOOD:
        style = "green"
    elif status in FINAL:
        style = "red"
    else:
        style = "yellow" if status is not JobStatus.WAITING else ""
    return Text(status.value, style=style)


def told(job: JobDetail) -> list[str]:
    """Return everything about a job, as lines for a person."""
    head = [
        f"job {job.id}  {job.name}  {job.status}",
        f"  jdl        {job.jdl}",
        f"  attempt    {job.attempt} on {job.node or '-'}",
        f"  container  {job.container or ('bare' if _was_launched(job) else '-')}",
        *([] if job.image is None else [f"  image      {_image_text(job.image)}"]),
        f"  exit code  {'-' if job.exit_code is None else job.exit_code}",
    ]
    if job.reason:
        head.append(f"  reason     {printable(job.reason)}")
    if job.kill is not None:
        head.append(
            f"  killed by  {job.kill.by} at {clock(job.kill.at)}: {printable(job.kill.why)}"
        )
    return [
        *head,
        *_part("history", [_history_line(job, number) for number in range(len(job.history))]),
        *_part("processes", [_process_line(job, number) for number in range(len(job.processes))]),
        *_part("usage", _usage_lines(job)),
        *_part(
            "outputs",
            [f"{f.name}  {f.bytes:,} B  adler32 {f.adler32}  {f.location}" for f in job.outputs],
        ),
        *_part("traces", [f"{clock(line.at)}  {printable(line.text)}" for line in job.traces]),
    ]


def _image_text(image: ImageUsed) -> str:
    return printable(f"{image.reference}  {image.digest}".rstrip())


def _was_launched(job: JobDetail) -> bool:
    steps = (line.status for line in job.history if line.attempt == job.attempt)
    return JobStatus.STARTED in steps


def _part(title: str, lines: Sequence[str]) -> list[str]:
    return [f"  {title}", *(f"    {line}" for line in lines)] if lines else []


def _history_line(job: JobDetail, number: int) -> str:
    line = job.history[number]
    reason = f"  ({printable(line.reason)})" if line.reason else ""
    return f"{clock(line.at)}  {line.attempt}  {line.status}{reason}"


def _process_line(job: JobDetail, number: int) -> str:
    line = job.processes[number]
    host = "not found" if line.host_pid is None else str(line.host_pid)
    return f"{clock(line.at)}  {line.role:<10}  pid {line.pid}  on the host {host}"


def _usage_lines(job: JobDetail) -> list[str]:
    usage = job.usage
    if not usage.samples and not usage.wall_s:
        return []
    return [
        f"wall {usage.wall_s:.1f} s  cpu {usage.cpu_s:.1f} s  samples {usage.samples}",
        f"memory peak {usage.memory_peak_bytes / 1e6:,.1f} MB ({usage.source or 'not measured'})  "
        f"disk peak {usage.disk_peak_bytes / 1e6:,.1f} MB",
    ]


def clock(at: float) -> str:
    """Return a time for a person: local, with milliseconds."""
    whole = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    return f"{whole}.{int(at % 1 * 10**_MILLISECOND_DIGITS):03d}"
