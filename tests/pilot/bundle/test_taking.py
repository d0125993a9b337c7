from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.bundle import TakenBundle, build_bundle, take_bundle
from tests.pilot.sandbox import public_directory, script

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def published() -> Iterator[Path]:
    """Give a directory with this code's bundle, as `pilot bundle` makes it."""
    with public_directory() as directory:
        build_bundle(directory)
        yield directory


def take(state: Path, published: Path | None, path: str = os.defpath) -> TakenBundle:
    """Take a bundle as an agent does."""
    return asyncio.run(take_bundle(state, published, {"PATH": path}, look_s=1.0))


def test_a_published_bundle_is_used_as_it_is(tmp_path: Path, published: Path) -> None:
    """Nothing is built, and nothing is written where it is or in the agent's own state."""
    before = published.stat().st_mtime_ns

    taken = take(tmp_path, published)

    assert taken.bundle == build_bundle(published)
    assert taken.note.endswith("published")
    assert published.stat().st_mtime_ns == before
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_published_is_built(tmp_path: Path) -> None:
    """In the agent's own state; the note says why."""
    (tmp_path / "published").mkdir()

    taken = take(tmp_path / "state", tmp_path / "published")

    assert taken.bundle.root.parent == tmp_path / "state"
    assert "isn't there" in taken.note
    assert list((tmp_path / "published").iterdir()) == []


def test_where_anybody_may_write_nothing_is_taken_from(tmp_path: Path, published: Path) -> None:
    """Another user could have put a program there."""
    open_place = tmp_path / "open"
    open_place.mkdir()
    (open_place / build_bundle(published).root.name).symlink_to(build_bundle(published).root)
    open_place.chmod(0o777)

    taken = take(tmp_path / "state", open_place)

    assert taken.bundle.root.parent == tmp_path / "state"
    assert "anybody may write" in taken.note


def test_a_dead_file_system_costs_its_deadline(tmp_path: Path, published: Path) -> None:
    """Who looks at it never answers; the agent goes on with a bundle of its own."""
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "stat", "exec sleep 60")

    taken = take(tmp_path / "state", published, f"{tmp_path}/bin:{os.defpath}")

    assert taken.bundle.root.parent == tmp_path / "state"
    assert "no answer in 1 s" in taken.note


def test_old_bundles_that_nobody_uses_go(tmp_path: Path) -> None:
    """One that an agent holds stays, whatever else is removed."""
    used, unused = tmp_path / "bundle-used", tmp_path / "bundle-unused"
    for root in (used, unused):
        (root / "so").mkdir(parents=True)
        (root / "so" / "libc.so.6").write_text("")
        (root / "so").chmod(0o555)
        root.chmod(0o555)
    descriptor = os.open(used, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)

    taken = take(tmp_path, None)

    os.close(descriptor)
    assert {path.name for path in tmp_path.iterdir()} == {
        "bundle-used",
        "bundle.lock",
        taken.bundle.root.name,
    }


def test_a_bundle_that_is_taken_is_held(tmp_path: Path) -> None:
    """Nobody else gets the lock that one needs to remove it."""
    root = take(tmp_path, None).bundle.root

    descriptor = os.open(root, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
