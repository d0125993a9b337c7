"""A relocatable Python: what a wrapper needs to run inside an image that has nothing.

No image is asked for Python, or even for a libc. A bundle is a directory with a copy of the
interpreter, the part of its standard library that a wrapper may need, our own packages, the
few third-party modules that they import there, every shared library of all these, and the
dynamic loader. Bound into a container at any place, it is started through that loader:

    ROOT/so/ld-linux-x86-64.so.2 --library-path ROOT/so ROOT/bin/python3.11 -I -S BOOT

    ROOT/bin    the interpreter            ROOT/app    our packages, with their sources
    ROOT/so     libraries and loader       ROOT/site   third-party modules, as bytecode
    ROOT/lib    the standard library, as bytecode only: half the size, half the files

A bundle's name is the hash of what goes into it, so a changed input is another bundle. One
that is there under its name is whole: it is built under another name and renamed. Its
bytecode is never held against a source's time, so it stays valid on a read-only mount and
after a copy that loses the times.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pilot.bundle.relocation import (
    copy_binary,
    copy_bytecode,
    copy_file,
    prove_python,
    requested_loader,
    strip_debugging,
    wanted_extensions,
    wanted_stdlib,
)
from transport.errors import OperatorError
from transport.messages import Record

_LAYOUT = 1  # in the hash: counted up when this file lays a bundle out otherwise
_OUR_PACKAGES = ("transport", "actors", "pilot")
_SITE_MODULES = ("msgspec", "cryptography", "_cffi_backend")
_LOADERS = ("ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1")
_LOCK_POLL_S = 0.1


class Bundle(Record, frozen=True, kw_only=True):
    """A whole bundle on this node; the paths are the host's."""

    root: Path
    python: Path
    loader: Path
    library_path: Path
    boot: Path

    def command(self, root_inside: str) -> tuple[str, ...]:
        """Return the start of a command line, for a bundle that is seen at ``root_inside``.

        Raises `OperatorError` where the loader can't be told that place.
        """
        if set(root_inside) & set(":;$"):
            raise OperatorError(
                f"The bundle can't run from {root_inside}: the dynamic loader takes ':', ';' and "
                "'$' for its own. Choose another directory for the pilot."
            )
        loader, libraries, python, boot = (
            f"{root_inside}/{path.relative_to(self.root)}"
            for path in (self.loader, self.library_path, self.python, self.boot)
        )
        return (loader, "--library-path", libraries, python, "-I", "-S", boot)


class _Inputs(Record, frozen=True, kw_only=True):
    executable: Path
    loader: Path
    stdlib: Path
    ours: tuple[Path, ...]
    site: tuple[Path, ...]


def build_bundle(directory: Path, *, lock_wait_s: float = 60.0) -> Bundle:
    """Return the bundle of this very interpreter and code, built in ``directory`` if need be.

    Finding one that is there takes milliseconds, building it seconds; while another process
    builds, this waits up to ``lock_wait_s``. It blocks: call it in a worker thread.

    Raises `OperatorError` when this Python can't be bundled, or there is no room for it.
    """
    try:
        inputs = _find_inputs(
            Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
        )
        bundle = _lay_out(directory / f"bundle-{_hash(inputs)}", inputs)
        if not bundle.root.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
            with _locked(directory / "bundle.lock", lock_wait_s):
                if not bundle.root.is_dir():
                    _build(bundle.root, inputs)
    except OSError as error:
        raise OperatorError(_explain(error, directory)) from error
    return bundle


# --- what goes into it -----------------------------------------------------------------------


def _find_inputs(executable: Path) -> _Inputs:
    loader = requested_loader(executable)
    if loader is None or loader.name not in _LOADERS:
        raise OperatorError(
            f"No bundle can be made of {executable}: it asks for "
            f"{loader or 'no dynamic loader (a static program)'}, and only glibc's loader is "
            f"supported ({' or '.join(_LOADERS)}). Run the pilot with a Python linked to glibc."
        )
    return _Inputs(
        executable=executable,
        loader=loader,
        stdlib=Path(os.__file__).resolve().parent,
        ours=tuple(_locate(name) for name in _OUR_PACKAGES),
        site=tuple(_locate(name) for name in _SITE_MODULES),
    )


def _locate(name: str) -> Path:
    """Return a package's directory, or a module's file, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise OperatorError(f"No bundle can be made: {sys.executable} has no module {name}.")
    return Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)


def _hash(inputs: _Inputs) -> str:
    """Hash our own sources by what is in them, all else by size and time."""
    digest = hashlib.sha256(f"{_LAYOUT} {sys.version}".encode())
    for package in inputs.ours:
        for source in _sources(package):
            content = hashlib.sha256(source.read_bytes()).hexdigest()
            digest.update(f"{package.name}/{source.relative_to(package)} {content}\0".encode())
    installed = [inputs.executable, inputs.loader, inputs.stdlib / "os.py"]
    for path in installed + [file for place in inputs.site for file in _module_files(place)]:
        status = path.stat()
        digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def _sources(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*.py") if "__pycache__" not in path.parts)


def _module_files(place: Path) -> list[Path]:
    return [place] if place.is_file() else [*_sources(place), *sorted(place.rglob("*.so"))]


# --- building --------------------------------------------------------------------------------


@contextmanager
def _locked(path: Path, wait_s: float) -> Iterator[None]:
    deadline = time.monotonic() + wait_s
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise OperatorError(
                        f"Another process has been building a bundle for more than {wait_s:g} s: "
                        f"it holds {path}. Find it with fuser, or name another directory."
                    ) from None
            time.sleep(_LOCK_POLL_S)
        yield


def _build(root: Path, inputs: _Inputs) -> None:
    for left_over in root.parent.glob("bundle-*.building-*"):  # of a builder that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    building = Path(tempfile.mkdtemp(prefix=f"{root.name}.building-", dir=root.parent))
    try:
        bundle = _lay_out(building, inputs)
        _fill(bundle, inputs)
        prove_python(bundle.command(str(building))[:-1], "import asyncio, ctypes, hashlib, zipfile")
        for path in (building, *building.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o444 | path.stat().st_mode & 0o111)
        building.rename(root)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _lay_out(root: Path, inputs: _Inputs) -> Bundle:
    return Bundle(
        root=root,
        python=root / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}",
        loader=root / "so" / inputs.loader.name,
        library_path=root / "so",
        boot=root / "app" / "pilot" / "wrapper_boot.py",
    )


def _fill(bundle: Bundle, inputs: _Inputs) -> None:
    stdlib = bundle.root / sys.platlibdir / bundle.python.name
    _copy_interpreter(bundle, inputs, stdlib / "lib-dynload")
    for source in wanted_stdlib(inputs.stdlib):
        copy_bytecode(source, (stdlib / source.relative_to(inputs.stdlib)).with_suffix(".pyc"))
    for place in inputs.site:
        _copy_module(place, bundle, inputs)
    for package in inputs.ours:
        for source in _sources(package):
            target = bundle.root / "app" / package.name / source.relative_to(package)
            copy_file(source, target)
            copy_bytecode(source, Path(importlib.util.cache_from_source(target, optimization="")))


def _copy_interpreter(bundle: Bundle, inputs: _Inputs, extensions: Path) -> None:
    _copy_needed(inputs.executable, bundle.python, bundle, inputs)
    for source in wanted_extensions(inputs.stdlib / "lib-dynload"):
        # One whose library isn't here doesn't work on the host either, and isn't missed.
        target = extensions / source.name
        copy_binary(source, target, loader=inputs.loader, libraries=bundle.library_path)
    libpython = bundle.library_path.glob("libpython*")
    strip_debugging([bundle.python, *libpython, *extensions.glob("*.so")])
    copy_file(inputs.loader, bundle.loader, 0o755)


def _copy_module(place: Path, bundle: Bundle, inputs: _Inputs) -> None:
    for file in _module_files(place):
        target = bundle.root / "site" / file.relative_to(place.parent)
        if file.suffix == ".so":
            _copy_needed(file, target, bundle, inputs)
        else:
            copy_bytecode(file, target.with_suffix(".pyc"))


def _copy_needed(source: Path, target: Path, bundle: Bundle, inputs: _Inputs) -> None:
    missing = copy_binary(source, target, loader=inputs.loader, libraries=bundle.library_path)
    if missing:
        raise OperatorError(
            f"No bundle can be made: {source} needs {', '.join(missing)}, which this node lacks."
        )


def _explain(error: OSError, directory: Path) -> str:
    place = error.filename or directory
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"There is no room for a bundle in {directory}: it takes some 50 MB."
    return f"No bundle can be made in {directory}: {place}: {error.strerror or error}."
