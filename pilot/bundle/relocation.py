"""Taking an installed Python apart: its library, its loader, its shared objects, its bytecode.

The parts of `pilot.bundle` that know formats and names: which modules a wrapper never needs,
ELF as far as the name of the dynamic loader, what that loader prints when it is asked to list
libraries, and the header of a bytecode file.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import shutil
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from transport.errors import OperatorError

_TIMEOUT_S = 30.0
_PT_INTERP = 3
_UNCHECKED_HASH = (1).to_bytes(4, "little")  # PEP 552: hash-based, never held against a source
_DLOPENED = ("libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
"""Loaded by the libc when threads end and names are looked up: no file lists them."""
_NOT_FOR_WRAPPERS = {
    "__pycache__", "curses", "dbm", "dist-packages", "distutils", "ensurepip", "idlelib",
    "lib-dynload", "lib2to3", "msilib", "pydoc_data", "site-packages", "sqlite3", "test", "tests",
    "tkinter", "turtle.py", "turtledemo", "unittest", "venv", "wsgiref", "xmlrpc",
}  # fmt: skip
_EXTENSIONS_NOT_FOR_WRAPPERS = (
    "_codecs_", "_crypt.", "_ctypes_test", "_curses", "_dbm", "_gdbm", "_lsprof", "_sqlite3",
    "_ssl", "_test", "_tkinter", "_xx", "audioop", "nis", "ossaudiodev", "readline", "spwd", "xx",
)  # fmt: skip
"""_hashlib isn't among them: with it and its libcrypto sha256 is five times as fast."""


def wanted_stdlib(directory: Path) -> Iterator[Path]:
    """Yield the sources of the standard library that a wrapper may need."""
    for path in directory.iterdir():
        if path.name in _NOT_FOR_WRAPPERS or path.name.startswith("config-"):
            continue
        if path.is_dir():
            yield from wanted_stdlib(path)
        elif path.suffix == ".py":
            yield path


def wanted_extensions(directory: Path) -> list[Path]:
    """Return the standard library's extension modules that a wrapper may need."""
    files = sorted(directory.glob("*.so"))
    return [file for file in files if not file.name.startswith(_EXTENSIONS_NOT_FOR_WRAPPERS)]


def requested_loader(elf: Path) -> Path | None:
    """Return the dynamic loader that a 64-bit ELF file names; None where it names none."""
    with elf.open("rb") as file:
        header = file.read(64)
        if header[:6] != b"\x7fELF\x02\x01":
            return None
        (table,) = struct.unpack_from("<Q", header, 32)
        entry_bytes, entries = struct.unpack_from("<HH", header, 54)
        for index in range(entries):
            file.seek(table + index * entry_bytes)
            kind, _, offset, _, _, size = struct.unpack("<IIQQQQ", file.read(40))
            if kind == _PT_INTERP:
                file.seek(offset)
                return Path(os.fsdecode(file.read(size).rstrip(b"\0")))
    return None


def copy_binary(source: Path, target: Path, *, loader: Path, libraries: Path) -> tuple[str, ...]:
    """Copy a program or an extension module, and into ``libraries`` every library it needs.

    Returns the names of the libraries that aren't there; nothing was copied then. Raises
    `OperatorError` when the loader doesn't answer.
    """
    found, missing = _parse_listing(_list_libraries(loader, source))
    if not missing:
        copy_file(source, target, 0o755)
        for name, library in found.items():
            _copy_library(name, library, libraries)
    return missing


def _copy_library(name: str, library: Path, libraries: Path) -> None:
    if (libraries / name).exists():
        return
    copy_file(library, libraries / name)
    if name == "libc.so.6":
        for dlopened in filter(Path.exists, map(library.with_name, _DLOPENED)):
            copy_file(dlopened, libraries / dlopened.name)


def _list_libraries(loader: Path, binary: Path) -> str:
    # What ldd does, on a node that may have no ldd.
    listing = _run([loader, "--list", binary])
    if listing.returncode < 0:
        raise OperatorError(
            f"No bundle can be made: {loader} --list {binary} died of signal {-listing.returncode}."
        )
    return listing.stdout


def _parse_listing(text: str) -> tuple[dict[str, Path], tuple[str, ...]]:
    found, missing = {}, []
    for line in text.splitlines():
        name, _, target = line.strip().partition(" => ")
        if target.startswith("/"):
            found[Path(name).name] = Path(target.rpartition(" (")[0])
        elif target == "not found":
            missing.append(name)
    return found, tuple(missing)


def strip_debugging(files: Iterable[Path]) -> None:
    """Make copied binaries smaller, where the node has ``strip``; they work without, too."""
    program = shutil.which("strip")
    for file in files if program else ():
        stripped = file.with_name(f"{file.name}.stripped")
        if _run([str(program), "--strip-debug", "-o", stripped, file]).returncode == 0:
            stripped.replace(file)
        stripped.unlink(missing_ok=True)


def prove_python(command: Sequence[str], code: str) -> None:
    """Run some code with a copied Python; raise `OperatorError` where it doesn't run."""
    ran = _run([*command, "-c", code])
    if ran.returncode != 0:
        said = ran.stderr.strip().rpartition("\n")[2] or f"exit code {ran.returncode}"
        raise OperatorError(f"The bundle's Python doesn't run on this node: {said}.")


def _run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise OperatorError(f"No bundle can be made: {command[0]} doesn't run: {error}.") from error


def copy_file(source: Path, target: Path, mode: int = 0o644) -> None:
    """Copy what is in a file, whatever links to it; make the directory for it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def copy_bytecode(source: Path, target: Path) -> None:
    """Write the bytecode of a source file, valid whatever time the source has later.

    The installed bytecode is taken where it belongs to this very source, by the rule by which
    Python itself would take it; else the source is compiled.
    """
    text = source.read_bytes()
    code = _installed_bytecode(source) or _compile(text, source)
    header = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH + importlib.util.source_hash(text)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(header + code)


def _installed_bytecode(source: Path) -> bytes | None:
    status = source.stat()
    wanted = importlib.util.MAGIC_NUMBER + struct.pack(
        "<III", 0, int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF
    )
    try:
        cached = Path(importlib.util.cache_from_source(source, optimization="")).read_bytes()
    except OSError:
        return None
    return cached[16:] if cached[:16] == wanted else None


def _compile(text: bytes, source: Path) -> bytes:
    return marshal.dumps(compile(text, source, "exec", dont_inherit=True, optimize=0))
