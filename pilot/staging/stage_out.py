"""Stage-out: archives first, then what is in none of them.

An output named ``stdout``, ``stderr``, ``std*`` or ``resources`` is never missed. One that
can't be read costs only itself, and a note.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, ParamSpec

from actors.ports import SavedOutputs
from pilot.staging.archive import open_member
from pilot.staging.bounds import (
    FILES_PER_PATTERN_MAX,
    NOTES_MAX,
    SAVED_BYTES_MAX,
    SINGLE_FILES_MAX,
)
from pilot.staging.output_patterns import expand
from pilot.staging.trusted_files import (
    Sink,
    Unreadable,
    check_wanted,
    chunks,
    destination,
    inside,
    new_file,
    open_directory,
    open_inside,
    parts_inside,
    real_place,
    sync_directory,
)
from transport.errors import UserError
from transport.messages import OutputSpec, SavedFile

if TYPE_CHECKING:
    from zipfile import ZipFile

P = ParamSpec("P")

_NEVER_MISSED = frozenset({"stdout", "stderr", "std*", "resources"})
_SPARSE_BYTES_MIN = 1 << 30
_SPARSE_RATIO_MAX = 50
"""A file of so many bytes may be so many times what it has on the disk; a copy has no holes."""


class StageOut:
    """One stage-out: archives first, then what is in none of them."""

    def __init__(self, work_directory: str, output_directory: str, stop: threading.Event) -> None:
        self._root = real_place(work_directory)
        self._output = output_directory
        self._stop = stop
        self._files: dict[str, SavedFile] = {}
        self._saved: set[str] = set()
        """Paths that are safe, on their own or in an archive."""
        self._directories: set[PurePosixPath] = set()
        """Those with a new name in them, relative to the output directory."""
        self._bytes_left = SAVED_BYTES_MAX
        self._notes: list[str] = []

    def save(self, outputs: Sequence[OutputSpec]) -> SavedOutputs:
        """Save all that can be saved, and tell what is missing; it blocks."""
        with suppress(OSError):  # nothing will be found in one that can't be opened
            os.close(open_directory(self._root, ()))
        found = [
            (spec, {pattern: self._match(pattern) for pattern in spec.patterns}) for spec in outputs
        ]
        for spec, matches in found:
            if spec.archive:
                self._attempt(self._save_archive, spec.archive, _all(matches))
        singles = [path for spec, matches in found if not spec.archive for path in _all(matches)]
        left_out = self._save_singles(singles)
        self._sync_directories()
        missing = [
            pattern
            for spec, matches in found
            if spec.is_required
            for pattern, paths in matches.items()
            if pattern not in _NEVER_MISSED
            and (self._saved.isdisjoint(paths) or not left_out.isdisjoint(paths))
        ]
        return SavedOutputs(
            files=tuple(self._files.values()),
            missing=tuple(dict.fromkeys(missing)),
            notes=self._bounded_notes(),
        )

    def _match(self, pattern: str) -> list[str]:
        parts = parts_inside(pattern)
        if not parts:
            self._notes.append(f"Output {pattern!r} is not inside the work directory.")
            return []
        paths = list(islice(expand(self._root, parts, self._stop), FILES_PER_PATTERN_MAX + 1))
        if len(paths) > FILES_PER_PATTERN_MAX:
            self._notes.append(
                f"Output {pattern!r} matches more than {FILES_PER_PATTERN_MAX} files; "
                "the others are not saved."
            )
        return paths[:FILES_PER_PATTERN_MAX]

    def _attempt(self, save: Callable[P, None], *arguments: P.args, **named: P.kwargs) -> None:
        """Note what is the user's error and go on: the other outputs are still wanted."""
        try:
            save(*arguments, **named)
        except UserError as error:
            self._notes.append(str(error))

    def _save_singles(self, paths: Sequence[str]) -> set[str]:
        """Save what is in no archive, and return what is too many."""
        wanted = list(dict.fromkeys(path for path in paths if path not in self._saved))
        if len(wanted) > SINGLE_FILES_MAX:
            self._notes.append(
                f"{len(wanted) - SINGLE_FILES_MAX} of {len(wanted)} outputs are not saved: a job "
                f"may save {SINGLE_FILES_MAX} that are in no archive. Put them into an archive."
            )
        for path in wanted[:SINGLE_FILES_MAX]:
            self._attempt(self._save_file, path)
        return set(wanted[SINGLE_FILES_MAX:])

    def _save_file(self, path: str) -> None:
        if path in self._files:
            raise UserError(f"Output {path!r} is not saved: an archive has its name.")
        opened = self._open(path)
        if opened is None:
            return
        source, status = opened
        with source, self._new_output(path) as sink:
            self._copy(path, source, status.st_size, sink.write)
        self._saved.add(path)

    def _save_archive(self, name: str, paths: Sequence[str]) -> None:
        from zipfile import ZipFile

        name = inside(name, "Archive")
        if name in self._files:
            raise UserError(f"Archive {name!r} is asked for twice; the first one is kept.")
        with self._new_output(name) as sink:
            with ZipFile(sink.file, "w", allowZip64=True) as archive:
                members = [path for path in paths if self._add(archive, path)]
            sink.is_wanted = bool(members)
            if sink.is_wanted:
                sink.sum_anew(self._stop)
        self._saved.update(members)
        if not members:
            self._notes.append(f"Archive {name!r} would be empty and is left out.")

    def _add(self, archive: ZipFile, path: str) -> bool:
        opened = self._open(path)
        if opened is None:
            return False
        source, status = opened
        with source, open_member(archive, path, source, status) as member:
            self._copy(path, source, status.st_size, member.write)
        return True

    def _open(self, path: str) -> tuple[BinaryIO, os.stat_result] | None:
        """Open an output, or note why it isn't saved."""
        check_wanted(self._stop)
        try:
            path.encode()
            source = open_inside(self._root, path)
        except Unreadable as why:
            refusal = str(why)
        except OSError as error:
            refusal = error.strerror or str(error)
        except UnicodeEncodeError:
            refusal = "its name is not UTF-8"
        else:
            status = os.fstat(source.fileno())
            refusal = self._too_much(status)
            if not refusal:
                return source, status
            source.close()
        self._notes.append(f"Output {path!r} is not saved: {refusal}.")
        return None

    def _too_much(self, status: os.stat_result) -> str:
        """Say why a file is too much to copy: holes cost who made them nothing, a copy all."""
        size, held = status.st_size, status.st_blocks * 512
        if size >= _SPARSE_BYTES_MIN and size > _SPARSE_RATIO_MAX * held:
            return f"it is nearly all holes, {size} bytes with {held} on the disk"
        if size > self._bytes_left:
            return (
                f"it has {size} bytes, and {self._bytes_left} are left of the {SAVED_BYTES_MAX} "
                "that a job may save"
            )
        return ""

    def _copy(
        self, path: str, source: BinaryIO, size: int, write: Callable[[bytes], object]
    ) -> None:
        """Copy what the file held when it was opened: one that grows for ever has an end."""
        copied, (_, changed_ns) = 0, _state(source)
        try:
            for chunk in chunks(source, size, self._stop):
                write(chunk)
                copied += len(chunk)
        except Unreadable as why:
            self._notes.append(f"Output {path!r} is cut short at {copied} bytes: {why}.")
        self._bytes_left -= copied
        if (copied, changed_ns) != _state(source):
            self._notes.append(f"Output {path!r} changed while it was being saved.")

    @contextmanager
    def _new_output(self, name: str) -> Iterator[Sink]:
        what = f"Output {name!r} to {self._output}"
        with destination(what), new_file(self._output, name, is_durable=True) as sink:
            yield sink
        if sink.is_wanted:
            self._directories.update(PurePosixPath(name).parents)
            self._files[name] = SavedFile(
                name=name,
                bytes=sink.bytes,
                sha256=sink.sha256,
                adler32=sink.adler32,
                location=f"{self._output}/{name}",
            )

    def _sync_directories(self) -> None:
        """Once for all the names in each: with thousands of files, that is most of the time."""
        for directory in sorted(self._directories, reverse=True):
            check_wanted(self._stop)
            self._attempt(self._sync_directory, directory)

    def _sync_directory(self, directory: PurePosixPath) -> None:
        with destination(f"Directory {str(directory)!r} of {self._output}"):
            sync_directory(self._output, directory.parts)

    def _bounded_notes(self) -> tuple[str, ...]:
        kept = self._notes[:NOTES_MAX]
        if len(self._notes) > NOTES_MAX:
            kept.append(f"... and {len(self._notes) - NOTES_MAX} more notes like these.")
        return tuple(kept)


def _all(matches: dict[str, list[str]]) -> list[str]:
    """Return every path once, in an order that doesn't depend on the file system."""
    return sorted({path for paths in matches.values() for path in paths})


def _state(file: BinaryIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns
