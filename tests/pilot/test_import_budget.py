"""What every job pays: the modules that a wrapper has imported when it says Hello.

A number of modules is free of the noise that a time has; the time is printed by
``python -m tests.benchmarks.wrapper_start``.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest

from pilot.bundle import build_bundle
from pilot.launching import bare_command
from tests.pilot.wrapper_probe import floor_command, modules_at_hello, modules_of_floor

pytestmark = pytest.mark.real

OURS = {"transport", "actors", "pilot"}
OURS_MAX = 36
BESIDE_MAX = 18
"""Of the standard library, beyond what asyncio and msgspec import themselves."""

BANNED = {
    "_cffi_backend",
    "anyio",
    "argparse",
    "cryptography",
    "email",
    "http",
    "httpx",
    "json",
    "multiprocessing",
    "pilot.bundle",
    "pilot.cli",
    "pilot.jdl",
    "pilot.queue",
    "pilot.settings",
    "psutil",
    "rich",
    "shutil",
    "site",
    "sqlalchemy",
    "sqlite3",
    "structlog",
    "tempfile",
    "typer",
    "urllib.request",
    "xml",
    "yaml",
    "zipfile",
}


@cache
def at_hello() -> frozenset[str]:
    """Return the modules of a bare wrapper of this interpreter."""
    return frozenset(modules_at_hello(bare_command(sys.executable)))


def is_ours(module: str) -> bool:
    """Tell whether a module is of one of our packages."""
    return module.partition(".")[0] in OURS


def test_a_wrapper_imports_little_beside_asyncio_and_msgspec() -> None:
    """What is new here is to be imported when it is needed, by the jobs that need it."""
    floor = modules_of_floor(floor_command(sys.executable))

    beside = sorted(module for module in at_hello() - floor if not is_ours(module))
    assert len(beside) <= BESIDE_MAX, beside


def test_a_wrapper_imports_few_of_our_own_modules() -> None:
    """The agent's actors and adapters aren't among them."""
    ours = sorted(filter(is_ours, at_hello()))

    assert len(ours) <= OURS_MAX, ours


def test_nothing_heavy_is_imported_before_hello() -> None:
    """Neither by name nor in a package of that name."""
    heavy = sorted(
        module
        for module in at_hello()
        if any(module == banned or module.startswith(f"{banned}.") for banned in BANNED)
    )

    assert heavy == []


def test_a_bundled_wrapper_imports_no_more_than_a_bare_one(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """In a container it has the same code, and no way to anything else."""
    bundle = build_bundle(Path(tmp_path_factory.mktemp("bundle")))
    bundled = modules_at_hello((*bundle.command(str(bundle.root)), "run"))

    assert sorted(bundled - at_hello()) == []
