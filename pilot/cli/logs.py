"""Finds what a job wrote: in its work directory while it runs, in its outputs afterwards."""

from __future__ import annotations

import zipfile
from pathlib import Path

from pilot.job_files import JobFiles
from pilot.plain_files import read_plain
from pilot.queue import JobDetail
from transport.errors import UserError

_NAMES = ("stdout", "stderr", "wrapper")
BYTES_MAX = 16 * 1024 * 1024


def job_logs(state: Path, job: JobDetail, which: str) -> dict[str, bytes]:
    """Return the logs asked for by name, those that there are; the last 16 MiB of each.

    Raises `UserError` for a name that isn't known, and where there is nothing yet.
    """
    if which not in (*_NAMES, "all"):
        raise UserError(f"There is no log {which!r}; write {', '.join(_NAMES)} or all.")
    wanted = _NAMES if which == "all" else (which,)
    found = {name: text for name in wanted if (text := _find(state, job, name)) is not None}
    if not found:
        raise UserError(f"Job {job.id} ({job.status}) has no logs yet.")
    return found


def _find(state: Path, job: JobDetail, name: str) -> bytes | None:
    files = JobFiles.of(state, job.id, job.attempt)
    if name == "wrapper":
        return _tail(files.log)
    live = _tail(files.work / name)
    return live if live is not None else _saved(job, name)


def _tail(path: Path) -> bytes | None:
    """Read a plain file's end; a link or a pipe that a payload left there is not followed."""
    try:
        return read_plain(path, bytes_max=BYTES_MAX)
    except OSError:
        return None


def _saved(job: JobDetail, name: str) -> bytes | None:
    for output in job.outputs:
        if output.name == name:
            return _tail(Path(output.location))
        try:
            with zipfile.ZipFile(output.location) as archive, archive.open(name) as member:
                return member.read(BYTES_MAX)
        except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile):
            continue
    return None
