"""Which outputs to save, by how the job ended, and how many can be told of: pure choices."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from transport.messages import FileStaged, JobDescription, OutputSpec, SavedFile

UNNAMED_ARCHIVE = "jalien_defarchNOSPEC"
"""What AliEn calls the archive of a job that named no output; the job's id is appended."""

OUTPUTS_MAX = 5000
"""Files that one job may save: the list of them travels in one frame."""
OUTPUTS_TEXT_MAX = 400_000
"""Letters of their names and locations together, of up to four bytes each."""

_LOGS = OutputSpec(archive="log_archive.zip", patterns=("std*",), copies=1, is_required=False)


def outputs_to_save(
    description: JobDescription, *, job_id: int, has_failed: bool
) -> tuple[OutputSpec, ...]:
    """Return what is to be saved; stdout and stderr are always part of it.

    A failed or stopped job keeps its error outputs only: its results are not to be mistaken
    for good ones, its logs are there to look at.
    """
    chosen = description.error_outputs if has_failed else description.outputs
    named = tuple(_with_id(spec, job_id) for spec in chosen)
    return named if _covers_logs(named) else _with_logs(named)


def listable(files: Sequence[SavedFile]) -> tuple[SavedFile, ...]:
    """Return as many of the saved files as the list in `JobFinished` may name."""
    length = 0
    for count, file in enumerate(files):
        length += len(file.name) + len(file.location)
        if count >= OUTPUTS_MAX or length > OUTPUTS_TEXT_MAX:
            return tuple(files[:count])
    return tuple(files)


def staged_out(file: SavedFile) -> FileStaged:
    """Return what the agent is told of a saved file."""
    return FileStaged(
        direction="out",
        name=file.name,
        bytes=file.bytes,
        sha256=file.sha256,
        adler32=file.adler32,
        location=file.location,
    )


def _with_id(spec: OutputSpec, job_id: int) -> OutputSpec:
    if spec.archive != UNNAMED_ARCHIVE:
        return spec
    return msgspec.structs.replace(spec, archive=f"{UNNAMED_ARCHIVE}.{job_id}")


def _with_logs(specs: tuple[OutputSpec, ...]) -> tuple[OutputSpec, ...]:
    """Add the logs; where the user has an archive of that name already, into it."""
    for at, spec in enumerate(specs):
        if spec.archive == _LOGS.archive:
            patterns = (*spec.patterns, *_LOGS.patterns)
            joined = msgspec.structs.replace(spec, patterns=patterns)
            return (*specs[:at], joined, *specs[at + 1 :])
    return (*specs, _LOGS)


def _covers_logs(specs: tuple[OutputSpec, ...]) -> bool:
    patterns = {pattern for spec in specs for pattern in spec.patterns}
    return {"stdout", "stderr"} <= patterns or "std*" in patterns or "*" in patterns
