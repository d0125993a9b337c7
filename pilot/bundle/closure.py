"""Which modules a program can import, read from its sources instead of by running it.

From the modules to start with, every import statement is followed, wherever it stands: at the
top, in a function, in a branch. What is under ``if TYPE_CHECKING`` or only run in a main program
isn't followed. Three things no import statement tells, so they are told here by name: modules that
compiled code imports, codecs, which are found by their names, and where to stop. The standard
library has many a function that no wrapper calls, and that would bring in a debugger, a web
server or a test framework: `NOT_FOLLOWED`. What our own code imports is always taken, and so is
what a module needs to be imported itself.
"""

from __future__ import annotations

import ast
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

WRAPPER_ROOTS = (
    "pilot.wrapper_boot",
    "pilot.wrapper_process",
    # What the interpreter itself imports before it runs a script, and to print a traceback.
    *("abc", "codecs", "io", "os", "traceback", "zipimport"),
    *(f"encodings.{codec}" for codec in ("ascii", "cp437", "idna", "latin_1", "utf_8")),
    # What msgspec's and the standard library's compiled parts import.
    *("_strptime", "copy", "dataclasses", "datetime", "decimal", "enum", "inspect", "numbers"),
    *("string", "typing", "uuid", "weakref"),
    "_cffi_backend",
)
WHOLE_PACKAGES = ("asyncio", "cryptography")
"""Taken with all below them, as compiled code or a name at run time chooses among it."""
NOT_FOLLOWED = frozenset(
    {
        "_pydecimal", "_ssl", "argparse", "asyncio.__main__", "asyncio.windows_events",
        "asyncio.windows_utils", "bdb", "cmd", "code", "codeop",
        "concurrent.futures.process", "curses", "distutils", "doctest", "ftplib", "gettext",
        "html.parser", "http", "importlib.metadata", "importlib.resources", "lib2to3",
        "msgspec.toml", "msgspec.yaml", "multiprocessing", "netrc", "optparse", "pdb",
        "platform", "plistlib", "pydoc", "pydoc_data", "readline", "rlcompleter", "runpy", "site",
        "ssl", "statistics", "sysconfig", "test", "tkinter", "typing_extensions",
        "unittest", "urllib.request", "webbrowser", "xml", "xmlrpc",
    }
)  # fmt: skip
"""Each with what is below it."""


def reachable(
    roots: Sequence[str],
    *,
    stdlib: Sequence[Path],
    homes: Mapping[str, Path],
    ours: Collection[str],
    whole: Collection[str] = (),
    not_followed: Collection[str] = (),
) -> dict[str, Path]:
    """Return every module with a file that ``roots`` can import, by name.

    What isn't in ``stdlib`` is in ``homes``, which tells the directory that each other package
    or module is in; ``ours`` are those whose imports are always followed. A name that isn't
    there is none: it is for another system, or optional.
    """
    find = _finder([str(place) for place in stdlib], homes)
    found: dict[str, Path] = {}
    waiting = deque(roots)
    seen = set(roots)
    while waiting:
        name = waiting.popleft()
        spec = find(name)
        if spec is None or spec.origin is None:  # Built in, for another system, or optional.
            continue
        file = found[name] = Path(spec.origin)
        is_ours = name.partition(".")[0] in ours
        for wanted, is_needed in _wanted_by(name, spec, file, whole):
            if wanted in seen:
                continue
            if is_ours or is_needed or not _is_below(wanted, not_followed):
                seen.add(wanted)
                waiting.append(wanted)
    return found


def imported_names(text: bytes, package: str) -> Iterator[tuple[str, bool]]:
    """Yield the absolute name of all that a source may import, things in modules among it.

    With each goes whether importing the source may fail without it: it stands in no function,
    and nowhere where a failure is caught.
    """
    for node, is_needed in _statements(ast.parse(text), is_needed=True):
        if isinstance(node, ast.Import):
            yield from ((alias.name, is_needed) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            yield base, is_needed
            yield from ((f"{base}.{alias.name}", is_needed) for alias in node.names)


def _wanted_by(
    name: str, spec: ModuleSpec, file: Path, whole: Collection[str]
) -> Iterator[tuple[str, bool]]:
    yield from ((parent, True) for parent in _parents(name))
    if file.suffix != ".py":
        return
    package = name if spec.submodule_search_locations else name.rpartition(".")[0]
    for imported, is_needed in imported_names(file.read_bytes(), package):
        yield imported, is_needed
        yield from ((parent, is_needed) for parent in _parents(imported))
    if spec.submodule_search_locations and _is_below(name, whole):
        yield from ((f"{name}.{below}", False) for below in _modules_in(file.parent))


def _parents(name: str) -> Iterator[str]:
    while name := name.rpartition(".")[0]:
        yield name


def _modules_in(directory: Path) -> Iterator[str]:
    for entry in directory.iterdir():
        name = entry.name.partition(".")[0]
        is_module = entry.suffix in {".py", ".so"} or (entry / "__init__.py").is_file()
        if is_module and name != "__init__":
            yield name


def _is_below(name: str, packages: Collection[str]) -> bool:
    return name in packages or any(parent in packages for parent in _parents(name))


def _statements(node: ast.AST, *, is_needed: bool) -> Iterator[tuple[ast.AST, bool]]:
    is_needed = is_needed and isinstance(node, ast.Module | ast.ClassDef | ast.If | ast.With)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _is_never_so(child.test):
            yield from _statements(ast.Module(child.orelse, []), is_needed=is_needed)
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield child, is_needed
            yield from _statements(child, is_needed=is_needed)


def _is_never_so(test: ast.expr) -> bool:
    text = ast.unparse(test)
    return text.rpartition(".")[2] == "TYPE_CHECKING" or text == "__name__ == '__main__'"


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def _finder(stdlib: list[str], homes: Mapping[str, Path]) -> Callable[[str], ModuleSpec | None]:
    @cache
    def find(name: str) -> ModuleSpec | None:
        parent = name.rpartition(".")[0]
        if name in sys.builtin_module_names:
            return None
        if not parent:
            path = [str(homes[name])] if name in homes else stdlib
        elif (above := find(parent)) is None or above.submodule_search_locations is None:
            return None
        else:
            path = list(above.submodule_search_locations)
        spec = PathFinder.find_spec(name, path)
        # A directory without __init__.py is none of the packages that are meant here.
        return None if spec is None or spec.origin is None else spec

    return find
