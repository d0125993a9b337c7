"""From JDL files to jobs in the queue: all of them, or, if one can't be used, none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pilot.jdl import parse_jdl
from pilot.plain_files import read_plain
from pilot.queue import QueueStore
from transport.errors import UserError
from transport.messages import JobDescription, Record

JDL_BYTES_MAX = 2 * 1024 * 1024
"""More than the parser takes, so that it is the one to complain."""


class ParsedJdl(Record, frozen=True, kw_only=True):
    """A JDL file as given, its text, and what it means."""

    path: str
    text: str
    description: JobDescription


def parse_files(files: Sequence[Path], catalogue: Mapping[str, str]) -> list[ParsedJdl]:
    """Parse all files; raises `UserError` with a line for each that can't be used."""
    parsed, mistakes = [], []
    for file in files:
        try:
            parsed.append(_parse(file, catalogue))
        except UserError as error:
            mistakes.append(str(error))
    if mistakes:
        raise UserError("\npilot: ".join(mistakes))
    return parsed


def submit_all(store: QueueStore, parsed: Sequence[ParsedJdl], now: float) -> list[int]:
    """Put the jobs into the queue, in order; return their numbers."""
    return [store.submit(jdl.description, jdl.path, jdl.text, now) for jdl in parsed]


def _parse(file: Path, catalogue: Mapping[str, str]) -> ParsedJdl:
    try:
        text = read_plain(file.resolve(), bytes_max=JDL_BYTES_MAX).decode()
    except OSError as error:
        raise UserError(f"The JDL {file} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"The JDL {file} is not UTF-8 text: {error.reason}.") from error
    description = parse_jdl(
        text,
        source=str(file),
        directory=file.absolute().parent,
        catalogue={prefix: Path(directory) for prefix, directory in catalogue.items()},
    )
    return ParsedJdl(path=str(file), text=text, description=description)
