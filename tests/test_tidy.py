"""House rules that no other tool knows, checked over every file of the repository.

Each rule collects what breaks it as ``file:line: what``, so that a failure is a list of places
to go to. A rule with exceptions names each of them, and the reason beside it.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("transport", "actors", "pilot")
SKIPPED = {".git", ".venv", ".hypothesis", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
SKIPPED |= {"__pycache__", "build", "dist", ".pilot", ".state", "image"}

LINES_MAX = 500
LONG_FILES = {
    "actors/job_wrapper.py": (600, "one actor: a stage's handlers are read beside each other"),
    "actors/work_unit.py": (700, "one actor, with every reason for which a job ends in one place"),
    "transport/session.py": (640, "one machine with its theory; its state is nobody else's"),
}
"""Files over the bound: how long they may be, and why they aren't two. May only shrink."""


# --- reading the repository ------------------------------------------------------------------


@cache
def files() -> tuple[Path, ...]:
    """Return every file that is ours, whatever made the working copy."""
    found = []
    for directory, names, file_names in os.walk(ROOT):
        names[:] = [name for name in names if name not in SKIPPED and ".egg-info" not in name]
        found += [Path(directory, name) for name in file_names if not name.endswith(".pyc")]
    return tuple(sorted(path for path in found if not path.is_symlink()))


@cache
def sources(*tops: str) -> tuple[Path, ...]:
    """Return the Python files below these top-level directories."""
    return tuple(p for p in files() if p.suffix == ".py" and p.relative_to(ROOT).parts[0] in tops)


@cache
def tree(path: Path) -> ast.Module:
    """Return a file's syntax."""
    return ast.parse(path.read_text(), filename=str(path))


def name_of(path: Path) -> str:
    """Return a file's path in the repository."""
    return path.relative_to(ROOT).as_posix()


def at(path: Path, node: ast.AST, what: str) -> str:
    """Name a place that breaks a rule."""
    return f"{name_of(path)}:{getattr(node, 'lineno', 0)}: {what}"


def imported(path: Path) -> Iterator[tuple[ast.stmt, str]]:
    """Yield every module that a file imports, anywhere in it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, at(path, node, "a relative import")
            yield node, node.module or ""


def dotted(node: ast.expr) -> str:
    """Return ``a.b.c`` of an expression, or nothing where it is none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def told(places: list[str]) -> str:
    """Return all places, one a line: pytest's own list would be cut short."""
    return "\n".join(["", *places])


def uses(path: Path, wanted: Callable[[str], bool]) -> list[str]:
    """Return where a file uses a dotted name, or imports one from its module."""
    found = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute | ast.Name) and wanted(dotted(node)):
            found.append(at(path, node, dotted(node)))
        elif isinstance(node, ast.ImportFrom):
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found += [at(path, node, name) for name in names if wanted(name)]
    return found


# --- imports ---------------------------------------------------------------------------------

FLOORS = {
    "transport": {"transport", "msgspec"},
    "actors": {"actors", "transport", "msgspec"},
    "pilot": {
        "pilot",
        "actors",
        "transport",
        "cryptography",
        "httpx",
        "matplotlib",
        "msgspec",
        "rich",
        "sqlalchemy",
        "structlog",
        "typer",
    },
}
"""What each floor may import beside the standard library."""


def test_imports_run_downwards() -> None:
    """The world knows behaviour, behaviour knows words and wires, and never the other way."""
    broken = [
        at(path, node, f"{floor} imports {module}")
        for floor, allowed in FLOORS.items()
        for path in sources(floor)
        for node, module in imported(path)
        if (top := module.partition(".")[0]) not in allowed and top not in sys.stdlib_module_names
    ]

    assert not broken, told(broken)


def test_no_package_imports_tests_or_examples() -> None:
    """What is installed doesn't lean on what isn't; examples lean on the public names only."""
    broken = [
        at(path, node, module)
        for path in sources(*PACKAGES, "examples")
        for node, module in imported(path)
        if module.partition(".")[0] in ("tests", "examples")
    ]

    assert not broken, told(broken)


def test_inits_hold_reexports_and_nothing_else() -> None:
    """A package's ``__init__`` is a docstring, imports and ``__all__``."""
    broken = [
        at(path, node, ast.unparse(node).partition("\n")[0])
        for path in sources(*PACKAGES)
        if path.name == "__init__.py"
        for node in tree(path).body[1:]
        if not isinstance(node, ast.Import | ast.ImportFrom)
        and ast.unparse(node).partition(" ")[0] != "__all__"
    ]

    assert not broken, told(broken)


def test_nothing_is_imported_by_star() -> None:
    """Every name's origin can be read where it is used."""
    broken = [
        at(path, node, "import *")
        for path in sources(*PACKAGES, "tests", "examples")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
    ]

    assert not broken, told(broken)


# --- what has one home -----------------------------------------------------------------------

RANDOM_HOMES = {
    "pilot/launching/launcher.py": "an attempt's mark and a link's epoch",
    "pilot/node.py": "makes the nonces that container checks are given",
    "pilot/staging/trusted_files.py": "temporary names that nobody can guess",
}
SLEEPING_HOMES = {
    "pilot/bounded_process.py": "a worker thread follows a program",
    "pilot/bundle/build.py": "a worker thread waits for another process's lock",
    "pilot/images/helper.py": "a helper process waits for a registry",
    "pilot/images/locks.py": "a helper process waits for another's lock",
    "pilot/queue/database.py": "the queue's own thread waits for another writer",
}


def test_wall_time_comes_from_the_clock() -> None:
    """A simulation has its own time; so nothing but the clock asks the machine's."""
    banned = {"time.time", "time.time_ns", "datetime.now", "datetime.datetime.now"}
    banned |= {"datetime.utcnow", "datetime.today", "date.today"}
    broken = [
        place
        for path in sources(*PACKAGES)
        if name_of(path) != "pilot/clock.py"
        for place in uses(path, banned.__contains__)
    ]

    assert not broken, told(broken)


def test_randomness_has_named_homes() -> None:
    """Who needs a random value is given it, but for those who make them."""
    modules = {"random", "secrets", "uuid"}
    broken = [
        at(path, node, module)
        for path in sources(*PACKAGES)
        if name_of(path) not in RANDOM_HOMES
        for node, module in imported(path)
        if module in modules
    ] + [place for path in sources(*PACKAGES) for place in uses(path, "os.urandom".__eq__)]

    assert not broken, told(broken)


def test_nothing_prints() -> None:
    """The command line writes to sys.stdout; everything else logs, traces or replies."""
    broken = [
        at(path, node, "print")
        for path in sources(*PACKAGES)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and dotted(node.func) == "print"
    ]

    assert not broken, told(broken)


def test_every_task_has_a_scope() -> None:
    """A task is an actor's, or a task group's; nobody makes one that belongs to none."""
    broken = [
        at(path, node, ast.unparse(node.func))
        for path in sources(*PACKAGES)
        if name_of(path) != "actors/runtime.py"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute | ast.Name)
        and ast.unparse(node.func).rpartition(".")[2] in ("create_task", "ensure_future")
        and ast.unparse(node.func).rpartition(".")[0] not in task_groups(path)
    ]

    assert not broken, told(broken)


def task_groups(path: Path) -> set[str]:
    """Return the names that a file gives its task groups (``async with TaskGroup() as name``)."""
    return {
        dotted(item.optional_vars)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.AsyncWith)
        for item in node.items
        if item.optional_vars is not None and "TaskGroup" in ast.unparse(item.context_expr)
    }


def test_blocking_sleeps_are_in_worker_threads() -> None:
    """The event loop waits for events; only a thread of our own may sleep."""
    broken = [
        place
        for path in sources(*PACKAGES)
        if name_of(path) not in SLEEPING_HOMES
        for place in uses(path, "time.sleep".__eq__)
    ]

    assert not broken, told(broken)


def test_every_named_home_is_still_one() -> None:
    """An exception that nobody needs any more is taken off its list."""
    idle = [
        name
        for name, is_needed in (
            *((name, makes_secrets) for name in RANDOM_HOMES),
            *((name, sleeps) for name in SLEEPING_HOMES),
            *((name, is_long) for name in LONG_FILES),
        )
        if not (ROOT / name).is_file() or not is_needed(ROOT / name)
    ]

    assert not idle, told(idle)


def makes_secrets(path: Path) -> bool:
    """Tell whether a file has its own source of random values."""
    return any(module == "secrets" for _, module in imported(path))


def sleeps(path: Path) -> bool:
    """Tell whether a file blocks its thread."""
    return bool(uses(path, "time.sleep".__eq__))


def is_long(path: Path) -> bool:
    """Tell whether a file is over the bound for files."""
    return len(path.read_text().splitlines()) > LINES_MAX


# --- functions -------------------------------------------------------------------------------


def test_no_exception_is_caught_unnamed() -> None:
    """A bare ``except`` catches cancellation and our own mistakes."""
    broken = [
        at(path, node, "except:")
        for path in sources(*PACKAGES, "tests", "examples")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]

    assert not broken, told(broken)


def test_async_functions_may_wait() -> None:
    """Async if and only if it may wait; a port's method is async for its other implementation."""
    ports = port_methods()
    broken = [
        at(path, node, f"async def {node.name} never waits")
        for path in sources(*PACKAGES)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.AsyncFunctionDef)
        and node.name not in ports
        and not any(isinstance(inner, WAITING) for inner in own_nodes(node))
    ]

    assert not broken, told(broken)


WAITING = (ast.Await, ast.AsyncFor, ast.AsyncWith)


def port_methods() -> set[str]:
    """Return the async methods of every Protocol, and those that the language itself asks for."""
    found = {"__aenter__", "__aexit__"}
    for path in sources(*PACKAGES):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef) and "Protocol" in map(dotted, node.bases):
                found |= {m.name for m in node.body if isinstance(m, ast.AsyncFunctionDef)}
    return found


def own_nodes(function: ast.AsyncFunctionDef) -> Iterator[ast.AST]:
    """Yield a function's syntax without that of the functions within it."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting.extend(ast.iter_child_nodes(node))


def test_files_are_short() -> None:
    """One concept a file; those over the bound are named, with a bound of their own."""
    broken = [
        f"{name}: {lines} lines; the bound is {bound}"
        for path in sources(*PACKAGES, "examples")
        for name in [name_of(path)]
        for lines in [len(path.read_text().splitlines())]
        for bound in [LONG_FILES.get(name, (LINES_MAX, ""))[0]]
        if lines > bound
    ]

    assert not broken, told(broken)


# --- the repository --------------------------------------------------------------------------

REGISTRIES = re.compile(
    r"\b(pypi|pythonhosted|anaconda|npmjs|crates|rubygems|quay|ghcr|docker)\.(org|io|com)\b"
    r"|\b(deb|ftp)\.debian\.org\b|\bindex-url\s*="
)
LOCKS = re.compile(r"(^|[.-])lock(\.\w+)?$|^Pipfile|^pylock|^requirements.*\.txt$")
TEXTS = {".py", ".md", ".toml", ".cfg", ".ini", ".txt", ".yml", ".yaml", ".jdl", ".sh", ""}


def test_no_file_names_a_package_registry() -> None:
    """Where packages come from is the machine's own setting, everywhere."""
    broken = [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in files()
        if path.suffix in TEXTS
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if REGISTRIES.search(line)
    ]

    assert not broken, told(broken)


def test_there_are_no_lock_files() -> None:
    """pyproject.toml says what is needed; what that becomes is decided where it is installed."""
    broken = [name_of(path) for path in files() if LOCKS.search(path.name)]

    assert not broken, told(broken)


def test_links_between_documents_lead_somewhere() -> None:
    """A document is moved together with what points to it."""
    broken = [
        f"{name_of(path)}: {target}"
        for path in files()
        if path.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())
        if "://" not in target and not (path.parent / target).exists()
    ]

    assert not broken, told(broken)


def test_every_decision_says_what_was_rejected() -> None:
    """An ADR without its rejected ideas gets them proposed again."""
    decisions = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = [path.name[:3] for path in decisions]
    broken = [path.name for path in decisions if "\n## Rejected\n" not in path.read_text()]

    assert not broken, told(broken)
    assert numbers == [f"{number:03}" for number in range(1, len(decisions) + 1)]
