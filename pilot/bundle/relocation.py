"""Taking an installed Python apart: its shared objects with their libraries, and its bytecode.

The parts of `pilot.bundle` that know formats: what the dynamic loader prints when it is asked
to list libraries, and the header of a bytecode file.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pilot.bundle.elf import loaded_part
from transport.errors import OperatorError

_TIMEOUT_S = 30.0
_UNCHECKED_HASH = (1).to_bytes(4, "little")  # PEP 552: hash-based, never held against a source
_DLOPENED = ("libgcc_s.so.1", "libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")
"""Loaded by the libc when threads end and names are looked up: no file lists them."""

_PRELOAD_LIST = b"/etc/ld.so.preload\0"
_NO_PRELOAD_LIST = b"/dev/null/preloads\0"


def copy_binary(source: Path, target: Path, *, loader: Path, libraries: Path) -> tuple[str, ...]:
    """Copy a program or an extension module, and into ``libraries`` every library it needs.

    Returns the names of the libraries that aren't there; nothing was copied then. Raises
    `OperatorError` when the loader doesn't answer.
    """
    found, missing = _parse_listing(_list_libraries(loader, source))
    if not missing:
        copy_loaded(source, target, 0o755)
        for name, library in found.items():
            _copy_library(name, library, libraries)
    return missing


def _copy_library(name: str, library: Path, libraries: Path) -> None:
    if (libraries / name).exists():
        return
    copy_loaded(library, libraries / name)
    if name == "libc.so.6":
        for dlopened in filter(Path.exists, map(library.with_name, _DLOPENED)):
            copy_loaded(dlopened, libraries / dlopened.name)


def linked_libraries(loader: Path, program: Path, extensions: Sequence[Path]) -> list[Path]:
    """Return the libraries of a program and of extension modules in one directory.

    One that can't be loaded here is left out: it is missed when it is copied.
    """
    # Names relative to the directory, as the list is separated by spaces and colons.
    preloaded = ":".join(f"./{file.name}" for file in extensions)
    directory = extensions[0].parent if extensions else Path("/")
    listing = _run([loader, "--list", program], cwd=directory, LD_PRELOAD=preloaded)
    found, _ = _parse_listing(listing.stdout)
    return sorted(path for path in found.values() if path.is_absolute())


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


def prove_python(command: Sequence[str], code: str) -> None:
    """Run some code with a copied Python; raise `OperatorError` where it doesn't run."""
    ran = _run([*command, "-c", code])
    if ran.returncode != 0:
        said = ran.stderr.strip().rpartition("\n")[2] or f"exit code {ran.returncode}"
        raise OperatorError(f"The bundle's Python doesn't run on this node: {said}.")


def _run(
    command: Sequence[str | Path], cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "LD_PRELOAD": "", **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise OperatorError(f"No bundle can be made: {command[0]} doesn't run: {error}.") from error


def copy_loaded(source: Path, target: Path, mode: int = 0o644) -> None:
    """Copy what is loaded of a program or a library, and leave what a debugger wants."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(loaded_part(source.read_bytes()))
    target.chmod(mode)


def copy_loader(source: Path, target: Path) -> None:
    """Copy the dynamic loader, and let it read no list of an image's own to preload.

    The path of that list is replaced by one as long that nobody can make.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(source.read_bytes().replace(_PRELOAD_LIST, _NO_PRELOAD_LIST))
    target.chmod(0o755)


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
