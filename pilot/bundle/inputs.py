"""What a bundle is made of on this node, and the name that follows from it.

The name is a hash of contents: of this release's sources, of the third-party modules, of the
interpreter, its loader and the libraries that they are linked with. The standard library is
known by the interpreter's version, which has the time of its build. No path, owner or time is
in it, so two nodes with the same software name the same bundle, and one of them, or CVMFS, can
have made it for both.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from pathlib import Path

from pilot.bundle.elf import requested_loader
from pilot.bundle.relocation import linked_libraries
from transport.errors import OperatorError
from transport.messages import Record

OUR_PACKAGES = ("transport", "actors", "pilot")
_SITE_MODULES = ("msgspec", "cryptography", "_cffi_backend")
_LOADERS = ("ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1")
_LINKED = ("_bz2", "_ctypes", "_hashlib", "_lzma", "_uuid", "zlib")
"""The standard library's modules that are linked with libraries beside the libc."""


class Inputs(Record, frozen=True, kw_only=True):
    """Where on this node everything is."""

    executable: Path
    loader: Path
    stdlib: Path
    ours: tuple[Path, ...]
    site: tuple[Path, ...]

    @property
    def extensions(self) -> Path:
        """Where the standard library keeps its compiled modules."""
        return self.stdlib / "lib-dynload"

    @property
    def homes(self) -> dict[str, Path]:
        """The directory that each of our packages and of the third-party modules is in."""
        return {place.name.partition(".")[0]: place.parent for place in (*self.ours, *self.site)}


def find_inputs() -> Inputs:
    """Return the inputs of a bundle of this very interpreter and code.

    Raises `OperatorError` when this Python can't be bundled.
    """
    executable = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    loader = requested_loader(executable)
    if loader is None or loader.name not in _LOADERS:
        raise OperatorError(
            f"No bundle can be made of {executable}: it asks for "
            f"{loader or 'no dynamic loader (a static program)'}, and only glibc's loader is "
            f"supported ({' or '.join(_LOADERS)}). Run the pilot with a Python linked to glibc."
        )
    return Inputs(
        executable=executable,
        loader=loader,
        stdlib=Path(os.__file__).resolve().parent,
        ours=tuple(_locate(name) for name in OUR_PACKAGES),
        site=tuple(_locate(name) for name in _SITE_MODULES),
    )


def name_of(inputs: Inputs) -> str:
    """Return the name of the bundle that these inputs make; takes some tens of milliseconds."""
    digest = hashlib.sha256(sys.version.encode())
    for place in (*inputs.ours, *inputs.site):
        for file in _module_files(place):
            _add(digest, str(file.relative_to(place.parent)), file)
    linked = [path for name in _LINKED for path in inputs.extensions.glob(f"{name}.*")]
    libraries = linked_libraries(inputs.loader, inputs.executable, linked)
    for file in (inputs.executable, inputs.loader, *libraries):
        _add(digest, file.name, file)
    return f"bundle-{digest.hexdigest()[:16]}"


def _add(digest: hashlib._Hash, name: str, file: Path) -> None:
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    digest.update(f"{name} {content}\0".encode())


def _locate(name: str) -> Path:
    """Return a package's directory, or a module's file, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise OperatorError(f"No bundle can be made: {sys.executable} has no module {name}.")
    return Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)


def _module_files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    return sorted(path for path in place.rglob("*") if path.suffix in {".py", ".so"})
