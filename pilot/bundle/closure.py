"""Which modules a program can import, read from its sources instead of by running it.

From the modules to start with, every import statement is followed, wherever it stands: at the
top, in a function, in a branch. What is under ``if TYPE_CHECKING`` is never run and isn't
followed. Three things no import statement tells, so they are told here by name: modules that
compiled code imports, codecs, which are found by their names, and where to stop. The standard
library has many a function that no wrapper calls, and that would bring in a debugger, a web
server or a test framework: `NOT_FOLLOWED`. That holds for the imports of others only: what our
own code imports is always taken.
"""

from __future__ import annotations

import ast
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
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
    *("_strptime", "copy", "dataclasses", "datetime", "decimal", "enum", "typing", "uuid"),
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
        "platform", "pydoc", "pydoc_data", "readline", "rlcompleter", "runpy", "site",
        "ssl", "statistics", "sysconfig", "test", "tkinter", "typing_extensions",
        "unittest", "urllib.request", "webbrowser", "xml", "xmlrpc",
    }
)  # fmt: skip
"""Each with what is below it."""


def reachable(
    roots: Sequence[str],
    path: Sequence[Path],
    *,
    ours: Collection[str],
    whole: Collection[str] = (),
    not_followed: Collection[str] = (),
) -> dict[str, Path]:
    """Return every module with a file that ``roots`` can import, by name.

    ``path`` is searched as sys.path would be; ``ours`` are the packages whose imports are
    always followed. A name that isn't there is none: it is for another system, or optional.
    """
    find = _finder([str(place) for place in path])
    found: dict[str, Path] = {}
    waiting = deque(roots)
    seen = set(roots)
    while waiting:
        name = waiting.popleft()
        spec = find(name)
        if spec is None or spec.origin is None:
            continue
        file = found[name] = Path(spec.origin)
        is_ours = name.partition(".")[0] in ours
        for wanted in _wanted_by(name, spec, file, whole):
            if wanted not in seen and (is_ours or not _is_below(wanted, not_followed)):
                seen.add(wanted)
                waiting.append(wanted)
    return found


def imported_names(text: bytes, package: str) -> Iterator[str]:
    """Yield the absolute name of all that a source may import, things in modules among it."""
    for node in _statements(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _wanted_by(name: str, spec: ModuleSpec, file: Path, whole: Collection[str]) -> Iterator[str]:
    yield from _parents(name)
    if file.suffix != ".py":
        return
    package = name if spec.submodule_search_locations else name.rpartition(".")[0]
    for imported in imported_names(file.read_bytes(), package):
        yield imported
        yield from _parents(imported)
    if spec.submodule_search_locations and _is_below(name, whole):
        yield from (f"{name}.{below}" for below in _modules_in(file.parent))


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


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and _is_type_checking(child.test):
            yield from _statements(ast.Module(child.orelse, []))
        elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield child
            yield from _statements(child)


def _is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test).rpartition(".")[2] == "TYPE_CHECKING"


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


def _finder(path: list[str]) -> Callable[[str], ModuleSpec | None]:
    @cache
    def find(name: str) -> ModuleSpec | None:
        if name in sys.builtin_module_names:
            return None
        parent = name.rpartition(".")[0]
        if not parent:
            return PathFinder.find_spec(name, path)
        above = find(parent)
        if above is None or above.submodule_search_locations is None:
            return None
        return PathFinder.find_spec(name, list(above.submodule_search_locations))

    return find
