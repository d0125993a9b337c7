from __future__ import annotations

from pathlib import Path

import pytest

from pilot.bundle.closure import imported_names, reachable


def write(directory: Path, **files: str) -> Path:
    """Write modules; two underscores stand for a slash, and for a package at the end."""
    for name, text in files.items():
        path = directory / f"{name.replace('__', '/')}.py"
        path = path.parent / "__init__.py" if name.endswith("__") else path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def found(place: Path, *roots: str, **options: tuple[str, ...]) -> set[str]:
    """Return the names of what can be reached in one directory."""
    return set(reachable(roots, stdlib=(place,), homes={}, **{"ours": (), **options}))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import a.b", {("a.b", True)}),
        ("from . import x", {("p.q", True), ("p.q.x", True)}),
        ("from ..r import x", {("p.r", True), ("p.r.x", True)}),
        ("def f():\n import a", {("a", False)}),
        ("try:\n import a\nexcept ImportError:\n import b", {("a", False), ("b", False)}),
        ("if flag:\n import a", {("a", True)}),
        ("if TYPE_CHECKING:\n import a\nelse:\n import b", {("b", True)}),
        ("if __name__ == '__main__':\n import a", set()),
        ("class C:\n def f(self):\n  with x:\n   import a", {("a", False)}),
    ],
)
def test_every_import_statement_is_seen(text: str, names: set[tuple[str, bool]]) -> None:
    """Wherever it stands; and whether a module can be imported without it."""
    assert set(imported_names(text.encode(), "p.q")) == names


def test_what_is_imported_brings_its_package(tmp_path: Path) -> None:
    """A module can't be imported without the packages that it is in."""
    place = write(tmp_path, a="import p.q.r", p__="", p__q__="", p__q__r="")

    assert found(place, "a") == {"a", "p", "p.q", "p.q.r"}


def test_a_directory_of_modules_is_no_package(tmp_path: Path) -> None:
    """What has no __init__.py is left alone, and nothing below it is looked for."""
    place = write(tmp_path, a="import p.q.r", p__q__r="")

    assert found(place, "a") == {"a"}


def test_a_limit_holds_where_a_module_can_do_without(tmp_path: Path) -> None:
    """In a function of somebody else's; neither at the top nor in our own code."""
    place = write(
        tmp_path,
        lazy="def f():\n import pdb",
        needing="import pdb",
        ours="def f():\n import pdb",
        pdb="",
    )

    assert found(place, "lazy", not_followed=("pdb",)) == {"lazy"}
    assert found(place, "needing", not_followed=("pdb",)) == {"needing", "pdb"}
    assert found(place, "ours", ours=("ours",), not_followed=("pdb",)) == {"ours", "pdb"}


def test_a_whole_package_comes_with_all_below_it(tmp_path: Path) -> None:
    """Some are imported by compiled code, by names that no source tells."""
    place = write(tmp_path, p__="", p__x="", p__q__="", p__q__y="")

    assert found(place, "p", whole=("p",)) == {"p", "p.x", "p.q", "p.q.y"}


def test_a_package_is_looked_for_in_its_home_alone(tmp_path: Path) -> None:
    """What else is installed beside it is none of ours."""
    stdlib = write(tmp_path / "std", os="")
    site = write(tmp_path / "site", wanted="import os, unwanted", unwanted="")

    reached = reachable(["wanted"], stdlib=(stdlib,), homes={"wanted": site}, ours=())

    assert reached == {"wanted": site / "wanted.py", "os": stdlib / "os.py"}
