"""A relocatable Python: what a wrapper needs to run inside an image that has nothing.

No image is asked for Python, or even for a libc. A bundle is a directory with a copy of the
interpreter, of every module that a wrapper can import, of every shared library of all these,
and of the dynamic loader. Bound into a container at any place, it is started through that
loader:

    ROOT/so/ld-linux-x86-64.so.2 --library-path ROOT/so ROOT/bin/python3.11 -I -S BOOT

    ROOT/bin    the interpreter            ROOT/app    our modules, with their sources
    ROOT/so     libraries and loader       ROOT/site   third-party modules, as bytecode
    ROOT/lib    the standard library, as bytecode only: half the size, half the files

A bundle's name is the hash of what goes into it (`pilot.bundle.inputs`), so a changed input is
another bundle. One that is there under its name is whole: it is built under another name, tried,
written to the disk, and then renamed. After that nobody writes in it: its directories are 0555
and its bytecode is never held against a source's time, so it stays valid on a read-only mount,
and after a copy that loses the times. No path of this node matters in it, and no link leaves it:
it can be published as it is.

What the image says about dynamic linking isn't heard: neither its cache of libraries nor its
list of what to preload, and variables that would do the same are emptied (`WRAPPER_VARIABLES`).
"""

from __future__ import annotations

import errno
import fcntl
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pilot.bundle.closure import NOT_FOLLOWED, WHOLE_PACKAGES, WRAPPER_ROOTS, reachable
from pilot.bundle.inputs import OUR_PACKAGES, Inputs, find_inputs, name_of
from pilot.bundle.relocation import (
    copy_binary,
    copy_bytecode,
    copy_file,
    copy_loader,
    prove_python,
)
from pilot.plain_files import remove_tree
from transport.errors import OperatorError
from transport.messages import Record

WRAPPER_VARIABLES = {"LD_AUDIT": "", "LD_PRELOAD": ""}
"""For the environment of whatever starts a bundle: an image's own values would be heeded."""
_LOCK_NAME = "bundle.lock"
_LOCK_POLL_S = 0.1
_PROOF = "import asyncio, ctypes, hashlib, json, zipfile"


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
        # UTF-8 whatever locale the image has: its encoding may be none of the bundle's.
        options = ("-I", "-S", "-X", "utf8")
        return (loader, "--inhibit-cache", "--library-path", libraries, python, *options, boot)


def build_bundle(directory: Path, *, lock_wait_s: float = 60.0) -> Bundle:
    """Return the bundle of this very interpreter and code, built in ``directory`` if need be.

    Finding one that is there takes some tens of milliseconds, building it seconds; while
    another process builds, this waits up to ``lock_wait_s``. It blocks: call it in a thread.

    Raises `OperatorError` when this Python can't be bundled, or there is no room for it.
    """
    try:
        inputs = find_inputs()
        bundle = bundle_at(directory / name_of(inputs), inputs)
        if not bundle.root.is_dir():
            directory.mkdir(parents=True, exist_ok=True)
            with locked(directory, lock_wait_s):
                if not bundle.root.is_dir():
                    _build(bundle.root, inputs)
    except OSError as error:
        raise OperatorError(_explain(error, directory)) from error
    return bundle


def bundle_at(root: Path, inputs: Inputs) -> Bundle:
    """Return where everything is in a bundle at that place, which may not be there yet."""
    return Bundle(
        root=root,
        python=root / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}",
        loader=root / "so" / inputs.loader.name,
        library_path=root / "so",
        boot=root / "app" / "pilot" / "wrapper_boot.py",
    )


@contextmanager
def locked(directory: Path, wait_s: float) -> Iterator[None]:
    """Hold the lock under which bundles come to be and are removed in a directory."""
    path = directory / _LOCK_NAME
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


def _build(root: Path, inputs: Inputs) -> None:
    for left_over in root.parent.glob("bundle-*.building-*"):  # of a builder that was killed
        with suppress(OperatorError):
            remove_tree(left_over)
    building = Path(tempfile.mkdtemp(prefix=f"{root.name}.building-", dir=root.parent))
    try:
        bundle = bundle_at(building, inputs)
        _fill(bundle, inputs)
        prove_python(bundle.command(str(building))[:-1], _PROOF)
        _seal(building)
        building.rename(root)
        _sync(root.parent)
    finally:
        remove_tree(building)


def _seal(building: Path) -> None:
    """Make it read-only, and sure to be on the disk before it gets its name."""
    for path in (*building.rglob("*"), building):
        path.chmod(0o555 if path.is_dir() else 0o444 | path.stat().st_mode & 0o111)
        _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- filling it ------------------------------------------------------------------------------


def _fill(bundle: Bundle, inputs: Inputs) -> None:
    _copy_needed(inputs.executable, bundle.python, bundle, inputs)
    copy_loader(inputs.loader, bundle.loader)
    modules = reachable(
        WRAPPER_ROOTS,
        stdlib=(inputs.stdlib, inputs.extensions),
        homes=inputs.homes,
        ours=OUR_PACKAGES,
        whole=WHOLE_PACKAGES,
        not_followed=NOT_FOLLOWED,
    )
    for name, file in modules.items():
        _copy_module(name, file, bundle, inputs)


def _copy_module(name: str, file: Path, bundle: Bundle, inputs: Inputs) -> None:
    stdlib = bundle.root / sys.platlibdir / bundle.python.name
    package = name.partition(".")[0]
    if package in OUR_PACKAGES:
        _copy_ours(file, _target(name, file, bundle.root / "app"))
    elif file.parent == inputs.extensions:
        # One whose library isn't here doesn't work on the host either, and isn't missed.
        target = stdlib / file.parent.name / file.name
        copy_binary(file, target, loader=inputs.loader, libraries=bundle.library_path)
    else:
        target = _target(name, file, bundle.root / "site" if package in inputs.homes else stdlib)
        if file.suffix == ".py":
            copy_bytecode(file, target.with_suffix(".pyc"))
        else:
            _copy_needed(file, target, bundle, inputs)


def _copy_ours(source: Path, target: Path) -> None:
    copy_file(source, target)
    copy_bytecode(source, Path(importlib.util.cache_from_source(target, optimization="")))


def _target(name: str, file: Path, top: Path) -> Path:
    """Return where a module's file goes: below ``top`` as it was below its own."""
    names = name.split(".")
    return top.joinpath(*(names if file.stem == "__init__" else names[:-1]), file.name)


def _copy_needed(source: Path, target: Path, bundle: Bundle, inputs: Inputs) -> None:
    missing = copy_binary(source, target, loader=inputs.loader, libraries=bundle.library_path)
    if missing:
        raise OperatorError(
            f"No bundle can be made: {source} needs {', '.join(missing)}, which this node lacks."
        )


def _explain(error: OSError, directory: Path) -> str:
    place = error.filename or directory
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"There is no room for a bundle in {directory}: it takes some 40 MB."
    return f"No bundle can be made in {directory}: {place}: {error.strerror or error}."
