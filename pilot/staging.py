"""Moving a job's files in and out of its work directory, over local paths.

This runs in the wrapper: what is heavy (zipfile) is imported when it is needed, and blocking
work is done in a thread that looks between two chunks whether anybody still waits for it.

What must stay true:

* The payload is not trusted, and may still be running. What it left is opened one component
  at a time, never through a symbolic link; a link is resolved first, and used only when it
  ends within the work directory. What isn't a regular file is never waited for.
* A file takes its final name only when it is whole. Checksums are of the bytes as written.
* What can't be *read* costs that one file, and a note to the job's owner; what can't be
  *written* ends the staging, as the operator's error.
* An output named ``stdout``, ``stderr``, ``std*`` or ``resources`` is never missed.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, ParamSpec, TypeVar

from actors.ports import SavedOutputs, StagedFile
from transport.errors import OperatorError, UserError
from transport.messages import InputFile, JobDescription, OutputSpec, SavedFile

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

P = ParamSpec("P")
T = TypeVar("T")

FILES_PER_PATTERN_MAX = 100_000
NOTES_MAX = 200
_CHUNK_BYTES = 1 << 20
_STOP_S = 5.0
_PART = ".staging.part"
_NEVER_MISSED = frozenset({"stdout", "stderr", "std*", "resources"})
_ZIP_TIMES = (315_532_800, 4_354_819_198)
"""The first and the last second that a zip archive can tell: in 1980 and in 2107."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalStager:
    """Copies inputs from, and saves outputs to, directories that this process can see.

    A cancelled call stops at the next chunk and leaves no half-written file.
    """

    async def prepare(self, work_directory: str) -> None:
        """Make the job's tmp directory, for it alone."""
        await _in_thread(partial(_prepare, work_directory))

    async def stage_in(self, inputs: Sequence[InputFile], work_directory: str) -> list[StagedFile]:
        """Copy the inputs that are to be staged, keeping which are executable.

        Raises `UserError` naming the input that can't be had or named so, and `OperatorError`
        when the work directory can't take it.
        """
        return await _in_thread(partial(_stage_in, tuple(inputs), work_directory))

    async def write_input_list(self, description: JobDescription, work_directory: str) -> None:
        """Write the list of input data in the format asked for; nothing where there is none."""
        if description.input_data:
            write_input_data_list(
                work_directory,
                description.input_data_list,
                description.input_data_list_format,
                description.input_data,
            )

    async def stage_out(
        self, outputs: Sequence[OutputSpec], work_directory: str, output_directory: str
    ) -> SavedOutputs:
        """Save the outputs; raises `OperatorError` when the output directory can't take one.

        A pattern is a shell's: ``*`` doesn't cross a ``/`` nor match a leading dot, and finds
        nothing in tmp unless the pattern says so.
        """
        run = partial(_StageOut, work_directory, output_directory)
        return await _in_thread(lambda stop: run(stop).save(tuple(outputs)))


def write_input_data_list(
    directory: str,
    name: str,
    format: str,  # noqa: A002 - the JDL's own word
    files: Sequence[InputFile],
) -> str:
    """Write the list of a job's input data (InputDataList) and return its path.

    ``format`` is InputDataListFormat: ``xml-single`` (an AliEn collection), ``txt-list``
    (``alien://`` and the catalogue name, a line each) or ``json``. A file that isn't in the
    catalogue is listed by its path. Blocks for the time of a small write.
    """
    if format not in _LIST_FORMATS:
        known = ", ".join(_LIST_FORMATS)
        raise UserError(f"InputDataListFormat {format!r} isn't known; write one of {known}.")
    name = _inside(name, "InputDataList")
    text = _LIST_FORMATS[format]([_listed(file, directory) for file in files])
    with _destination(f"InputDataList {name!r}"), _new_file(directory, name) as sink:
        sink.write(text.encode())
    return f"{directory}/{name}"


# --- stage-in --------------------------------------------------------------------------------


def _prepare(work_directory: str, _stop: threading.Event) -> None:
    try:
        directory = _open_directory(work_directory, ("tmp",), create=True)
        try:
            os.fchmod(directory, 0o700)
        finally:
            os.close(directory)
    except OSError as error:
        raise OperatorError(
            f"The job's tmp can't be made in {work_directory}: {error.strerror}."
        ) from error


def _stage_in(
    inputs: Sequence[InputFile], work_directory: str, stop: threading.Event
) -> list[StagedFile]:
    sources: dict[str, InputFile] = {}
    for file in inputs:
        name = _inside(file.name, "Input")
        if file.is_staged and sources.setdefault(name, file).source != file.source:
            raise UserError(
                f"Two inputs are called {name!r}: {sources[name].source} and {file.source}; "
                "only one can have the name."
            )
    return [_copy_in(file, name, work_directory, stop) for name, file in sources.items()]


def _copy_in(file: InputFile, name: str, directory: str, stop: threading.Event) -> StagedFile:
    try:
        with _open_source(file.source) as source, _destination(f"Input {name!r}"):
            is_executable = os.fstat(source.fileno()).st_mode & 0o111
            with _new_file(directory, name, mode=0o755 if is_executable else 0o644) as sink:
                for chunk in _chunks(source, None, stop):
                    sink.write(chunk)
    except _Unreadable as why:
        raise UserError(f"Input {name!r} can't be read from {file.source}: {why}.") from why
    return StagedFile(name=name, bytes=sink.bytes, sha256=sink.sha256, adler32=sink.adler32)


def _open_source(path: str) -> BinaryIO:
    try:
        return _regular(os.open(path, _READ))
    except OSError as error:
        raise _Unreadable(error.strerror) from error
    except ValueError as error:
        raise _Unreadable("that is not a path") from error


# --- the list of input data ------------------------------------------------------------------


def _listed(file: InputFile, directory: str) -> dict[str, str]:
    path = f"{directory}/{file.name}" if file.is_staged else file.source
    lfn = file.catalogue_name or path
    if any(ord(letter) < 32 for letter in lfn + file.name):
        raise UserError(f"Input data {lfn!r} has a control character in its name; rename it.")
    turl = f"alien://{lfn}" if file.catalogue_name else lfn
    return {"name": PurePosixPath(lfn).name, "lfn": lfn, "turl": turl, "type": "f"}


def _xml_list(files: Sequence[dict[str, str]]) -> str:
    """One <file> a line, its name first: AliEn's own reader takes it line by line."""
    from html import escape

    lines = ['<?xml version="1.0"?>', "<alien>", '  <collection name="jobinputdata">']
    for number, file in enumerate(files, 1):
        attributes = " ".join(f'{key}="{escape(value)}"' for key, value in file.items())
        lines += [f'    <event name="{number}">', f"      <file {attributes} />", "    </event>"]
    return "\n".join([*lines, "  </collection>", "</alien>", ""])


def _txt_list(files: Sequence[dict[str, str]]) -> str:
    return "".join(f"{file['turl']}\n" for file in files)


def _json_list(files: Sequence[dict[str, str]]) -> str:
    import json

    return json.dumps({"name": "jobinputdata", "files": list(files)}, indent=1) + "\n"


_LIST_FORMATS = {"xml-single": _xml_list, "txt-list": _txt_list, "json": _json_list}


# --- stage-out -------------------------------------------------------------------------------


class _StageOut:
    """One stage-out: archives first, then what is in none of them."""

    def __init__(self, work_directory: str, output_directory: str, stop: threading.Event) -> None:
        self._root = os.path.realpath(work_directory)
        self._output = output_directory
        self._stop = stop
        self._files: dict[str, SavedFile] = {}
        self._saved: set[str] = set()
        """Paths that are safe, on their own or in an archive."""
        self._notes: list[str] = []

    def save(self, outputs: Sequence[OutputSpec]) -> SavedOutputs:
        found = [
            (spec, {pattern: self._match(pattern) for pattern in spec.patterns}) for spec in outputs
        ]
        for spec, matches in found:
            if spec.archive:
                self._attempt(self._save_archive, spec.archive, _all(matches))
        for spec, matches in found:
            if not spec.archive:
                for path in _all(matches):
                    self._attempt(self._save_file, path)
        missing = [
            pattern
            for spec, matches in found
            if spec.is_required
            for pattern, paths in matches.items()
            if pattern not in _NEVER_MISSED and self._saved.isdisjoint(paths)
        ]
        return SavedOutputs(
            files=tuple(self._files.values()),
            missing=tuple(dict.fromkeys(missing)),
            notes=self._bounded_notes(),
        )

    def _match(self, pattern: str) -> list[str]:
        parts = _parts_inside(pattern)
        if not parts:
            self._notes.append(f"Output {pattern!r} is not inside the work directory.")
            return []
        paths = list(islice(_expand(self._root, parts, self._stop), FILES_PER_PATTERN_MAX + 1))
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

    def _save_file(self, path: str) -> None:
        if path in self._saved:
            return
        if path in self._files:
            raise UserError(f"Output {path!r} is not saved: an archive has its name.")
        source = self._open(path)
        if source is None:
            return
        with source, self._new_output(path) as sink:
            self._copy(path, source, sink.write)
        self._saved.add(path)

    def _save_archive(self, name: str, paths: Sequence[str]) -> None:
        from zipfile import ZipFile

        name = _inside(name, "Archive")
        if name in self._files:
            raise UserError(f"Archive {name!r} is asked for twice; the first one is kept.")
        with self._new_output(name) as sink:
            with ZipFile(sink, "w", allowZip64=True) as archive:
                members = [path for path in paths if self._add(archive, path)]
            sink.is_wanted = bool(members)
        self._saved.update(members)
        if not members:
            self._notes.append(f"Archive {name!r} would be empty and is left out.")

    def _add(self, archive: ZipFile, path: str) -> bool:
        source = self._open(path)
        if source is None:
            return False
        with source, archive.open(_zip_info(path, os.fstat(source.fileno())), "w") as member:
            self._copy(path, source, member.write)
        return True

    def _open(self, path: str) -> BinaryIO | None:
        """Open an output, or note why it can't be."""
        try:
            path.encode()
            return _open_inside(self._root, path)
        except _Unreadable as why:
            self._notes.append(f"Output {path!r} is not saved: {why}.")
        except OSError as error:
            self._notes.append(f"Output {path!r} is not saved: {error.strerror}.")
        except UnicodeEncodeError:
            self._notes.append(f"Output {path!r} is not saved: its name is not UTF-8.")
        return None

    def _copy(self, path: str, source: BinaryIO, write: Callable[[bytes], object]) -> None:
        """Copy what the file held when it was opened: one that grows for ever has an end."""
        copied, size, changed_ns = 0, *_state(source)
        try:
            for chunk in _chunks(source, size, self._stop):
                write(chunk)
                copied += len(chunk)
        except _Unreadable as why:
            self._notes.append(f"Output {path!r} is cut short at {copied} bytes: {why}.")
        if (copied, changed_ns) != _state(source):
            self._notes.append(f"Output {path!r} changed while it was being saved.")

    @contextmanager
    def _new_output(self, name: str) -> Iterator[_Sink]:
        what = f"Output {name!r} to {self._output}"
        with _destination(what), _new_file(self._output, name, is_durable=True) as sink:
            yield sink
        if sink.is_wanted:
            self._files[name] = SavedFile(
                name=name,
                bytes=sink.bytes,
                sha256=sink.sha256,
                adler32=sink.adler32,
                location=f"{self._output}/{name}",
            )

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


def _zip_info(path: str, status: os.stat_result) -> ZipInfo:
    from zipfile import ZIP_DEFLATED, ZipInfo

    first, last = _ZIP_TIMES
    changed = time.gmtime(min(max(status.st_mtime, first), last))
    info = ZipInfo(path, date_time=changed[:6])
    info.compress_type = ZIP_DEFLATED
    info.external_attr = (stat.S_IFREG | stat.S_IMODE(status.st_mode)) << 16
    info.file_size = status.st_size  # zipfile chooses zip64 by it
    return info


def _expand(
    root: str, parts: Sequence[str], stop: threading.Event, below: str = ""
) -> Iterator[str]:
    """Yield the paths that match, relative to ``root``, in the directory's own order."""
    first, *rest = parts
    for name, is_named in _names(f"{root}/{below}", first, is_root=not below, stop=stop):
        is_directory = Path(f"{root}/{below}{name}").is_dir()
        if rest and is_directory:
            yield from _expand(root, rest, stop, f"{below}{name}/")
        elif not rest and (is_named or not is_directory):
            yield below + name


def _names(
    directory: str, pattern: str, *, is_root: bool, stop: threading.Event
) -> Iterator[tuple[str, bool]]:
    """Yield each name that matches, and whether the pattern is that very name."""
    if os.path.lexists(f"{directory}/{pattern}"):
        yield pattern, True
        return
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            _check(stop)
            is_hidden = entry.name.startswith(".") and not pattern.startswith(".")
            is_excluded = is_hidden or (is_root and entry.name == "tmp")
            if not is_excluded and fnmatchcase(entry.name, pattern):
                yield entry.name, False


# --- files that can be trusted ---------------------------------------------------------------


class _Unreadable(Exception):
    """Raised when a file can't be read; the text goes into a sentence that names the file."""


class _Stopped(Exception):
    """Raised in the thread when nobody waits for its work any more."""


class _Sink:
    """Where a new file's bytes go, counted and summed on the way; enough of one for ZipFile."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sha256 = hashlib.sha256()
        self._adler32 = zlib.adler32(b"")
        self.bytes = 0
        self.is_wanted = True

    def write(self, data: bytes) -> int:
        self._file.write(data)
        self._sha256.update(data)
        self._adler32 = zlib.adler32(data, self._adler32)
        self.bytes += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        """Leave closing to `_new_file`."""

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def adler32(self) -> str:
        return f"{self._adler32:08x}"


async def _in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run blocking work in a thread; when cancelled, tell it so and give it time to clean up."""
    stop = threading.Event()
    future = asyncio.get_running_loop().run_in_executor(None, work, stop)
    try:
        await asyncio.wait({future})
    except asyncio.CancelledError:
        stop.set()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({future}, timeout=_STOP_S)
        raise
    return future.result()


def _check(stop: threading.Event) -> None:
    if stop.is_set():
        raise _Stopped


def _parts_inside(name: str) -> tuple[str, ...]:
    """Split a relative name; nothing is left of one that would leave its directory."""
    parts = PurePosixPath(name).parts
    is_inside = ".." not in parts and not name.startswith("/") and "\0" not in name
    return parts if is_inside else ()


def _inside(name: str, what: str) -> str:
    parts = _parts_inside(name)
    if not parts:
        raise UserError(f"{what} {name!r} can't be called so: give it a name inside its directory.")
    return "/".join(parts)


def _open_directory(root: str, parts: Sequence[str], *, create: bool = False) -> int:
    """Open a directory below ``root``, following no symbolic link below it."""
    held = os.open(root, _DIRECTORY)
    for part in parts:
        above = held
        try:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=above)
            held = os.open(part, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        finally:
            os.close(above)
    return held


def _open_inside(root: str, path: str) -> BinaryIO:
    """Open a regular file that ends within ``root``, itself a real path."""
    real = Path(os.path.realpath(f"{root}/{path}"))
    if not real.is_relative_to(root):
        raise _Unreadable("it is a symbolic link that leaves the work directory")
    directory = _open_directory(root, real.parent.relative_to(root).parts)
    try:
        _check_regular(os.stat(real.name, dir_fd=directory, follow_symlinks=False))
        return _regular(os.open(real.name, _READ | os.O_NOFOLLOW, dir_fd=directory))
    finally:
        os.close(directory)


def _regular(descriptor: int) -> BinaryIO:
    """Return the open file if it is a regular one; else close it."""
    try:
        _check_regular(os.fstat(descriptor))
    except _Unreadable:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb", buffering=0)


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise _Unreadable("it is a directory; name the files in it")
    if not stat.S_ISREG(status.st_mode):
        raise _Unreadable("it is not a regular file")


def _chunks(source: BinaryIO, limit: int | None, stop: threading.Event) -> Iterator[bytes]:
    """Read up to ``limit`` bytes, or to the end."""
    left = limit
    while left is None or left > 0:
        _check(stop)
        try:
            chunk = source.read(_CHUNK_BYTES if left is None else min(left, _CHUNK_BYTES))
        except OSError as error:
            raise _Unreadable(error.strerror) from error
        if not chunk:
            return
        left = None if left is None else left - len(chunk)
        yield chunk


@contextmanager
def _new_file(
    root: str, name: str, *, mode: int = 0o644, is_durable: bool = False
) -> Iterator[_Sink]:
    """Give a file below ``root`` its final name when the block ends well, and no file else."""
    *parents, last = PurePosixPath(name).parts
    directory = _open_directory(root, parents, create=True)
    try:
        with suppress(FileNotFoundError):
            os.unlink(_PART, dir_fd=directory)
        with os.fdopen(os.open(_PART, _CREATE, mode, dir_fd=directory), "wb") as file:
            try:
                sink = _Sink(file)
                yield sink
                file.flush()
                if is_durable:
                    os.fsync(file.fileno())
                if sink.is_wanted:
                    os.rename(_PART, last, src_dir_fd=directory, dst_dir_fd=directory)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(_PART, dir_fd=directory)
        if is_durable:
            os.fsync(directory)
    finally:
        os.close(directory)


_NAME_ERRORS = frozenset(
    {errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST, errno.EILSEQ}
)


@contextmanager
def _destination(what: str) -> Iterator[None]:
    """Say who must act when a file can't be written: its name is the user's, the disk isn't."""
    try:
        yield
    except OSError as error:
        sentence = f"{what} can't be written: {error.strerror}."
        if error.errno in _NAME_ERRORS:
            raise UserError(f"{sentence} Give it a name that is free.") from error
        raise OperatorError(f"{sentence} Look at the space and the rights there.") from error
