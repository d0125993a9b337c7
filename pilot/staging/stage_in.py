"""Stage-in: the job's tmp directory, and copies of its inputs beside it.

An input that can't be had, or can't have its name, is the user's to mend; a work directory
that can't take one is the operator's. What is
at the destination may be planted: see `trusted_files`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import BinaryIO

from actors.ports import StagedFile
from pilot.staging.trusted_files import (
    READ,
    Unreadable,
    chunks,
    destination,
    inside,
    new_file,
    open_directory,
    regular_file,
)
from transport.errors import OperatorError, UserError
from transport.messages import InputFile


def prepare(work_directory: str) -> None:
    """Make the job's tmp directory, for it alone."""
    try:
        directory = open_directory(work_directory, ("tmp",), create=True)
        try:
            os.fchmod(directory, 0o700)
        finally:
            os.close(directory)
    except OSError as error:
        raise OperatorError(
            f"The job's tmp can't be made in {work_directory}: {error.strerror}."
        ) from error


def stage_in(
    inputs: Sequence[InputFile], work_directory: str, stop: threading.Event
) -> list[StagedFile]:
    """Copy the inputs that are to be staged; nothing is copied when two have one name."""
    sources: dict[str, InputFile] = {}
    for file in inputs:
        name = inside(file.name, "Input")
        if file.is_staged and sources.setdefault(name, file).source != file.source:
            raise UserError(
                f"Two inputs are called {name!r}: {sources[name].source} and {file.source}; "
                "only one can have the name."
            )
    return [_copy_in(file, name, work_directory, stop) for name, file in sources.items()]


def _copy_in(file: InputFile, name: str, directory: str, stop: threading.Event) -> StagedFile:
    try:
        with _open_source(file.source) as source, destination(f"Input {name!r}"):
            is_executable = os.fstat(source.fileno()).st_mode & 0o111
            with new_file(directory, name, mode=0o755 if is_executable else 0o644) as sink:
                for chunk in chunks(source, None, stop):
                    sink.write(chunk)
    except Unreadable as why:
        raise UserError(f"Input {name!r} can't be read from {file.source}: {why}.") from why
    return StagedFile(name=name, bytes=sink.bytes, sha256=sink.sha256, adler32=sink.adler32)


def _open_source(path: str) -> BinaryIO:
    try:
        return regular_file(os.open(path, READ))
    except OSError as error:
        raise Unreadable(error.strerror) from error
    except ValueError as error:
        raise Unreadable("that is not a path") from error
