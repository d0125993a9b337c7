from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from pilot.survey.sources import Found, Trouble, found_in
from tests.pilot.survey.factories import line, write

ONE, TWO = line(node="one"), line(node="two")


def names(*paths: Path | str) -> list[str]:
    """Return the file names in which reports were found, in order."""
    return [Path(f.file).name for f in found_in(map(str, paths)) if isinstance(f, Found)]


def troubles(*paths: Path | str) -> list[Trouble]:
    """Return what couldn't be read."""
    return [found for found in found_in(map(str, paths)) if isinstance(found, Trouble)]


def test_a_directory_is_read_to_its_depths(tmp_path: Path) -> None:
    """Files of the known endings, compressed or not, by name."""
    (tmp_path / "b" / "c").mkdir(parents=True)
    write(tmp_path / "z.json", ONE)
    write(tmp_path / "a.JSONL", ONE + TWO)
    write(tmp_path / "notes.txt", ONE)
    write(tmp_path / "b" / "x.ndjson.gz", gzip.compress(ONE))
    write(tmp_path / "b" / "c" / "y.json.gz", gzip.compress(TWO))

    assert names(tmp_path) == ["a.JSONL", "a.JSONL", "z.json", "x.ndjson.gz", "y.json.gz"]
    assert troubles(tmp_path) == []


def test_a_file_that_is_named_may_have_any_ending(tmp_path: Path) -> None:
    """What is compressed is known by its first bytes."""
    write(tmp_path / "plain", ONE)
    write(tmp_path / "packed", gzip.compress(ONE) + gzip.compress(TWO))

    assert names(tmp_path / "plain", tmp_path / "packed") == ["plain", "packed", "packed"]


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    """And a directory that is linked to is read, once."""
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "up").symlink_to(tmp_path / "inside")
    (inside / "there").symlink_to(outside)
    (inside / "there-again").symlink_to(outside)
    (outside / "back").symlink_to(inside)
    write(outside / "r.json", ONE)

    assert names(inside) == ["r.json"]
    assert troubles(inside) == []


def test_what_cannot_be_read_is_told_and_passed(tmp_path: Path) -> None:
    """Missing, dangling, empty, a pipe in a directory, broken compression."""
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "b.json").symlink_to(tmp_path / "nowhere")
    write(tmp_path / "c.json", b"")
    write(tmp_path / "d.json.gz", gzip.compress(ONE * 100)[:-20])
    write(tmp_path / "e.json.gz", b"\x1f\x8b" + b"garbage" * 10)
    damaged = bytearray(gzip.compress(os.urandom(50_000)))
    damaged[1000:1100] = b"\xff" * 100
    write(tmp_path / "f.json.gz", bytes(damaged))
    write(tmp_path / "g.json", ONE)

    told = {Path(t.file).name: t.reason for t in troubles(tmp_path, tmp_path / "absent")}

    assert names(tmp_path)[-1] == "g.json"
    assert told["a.json"] == "it isn't a regular file"
    assert told["b.json"] == told["absent"] == "it can't be read: No such file or directory"
    assert told["c.json"] == "it is empty"
    assert "unpacked" in told["d.json.gz"]
    assert {"e.json.gz", "f.json.gz"} <= set(told)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(tmp_path: Path) -> None:
    """A file, and a whole directory."""
    closed = tmp_path / "closed"
    closed.mkdir()
    write(tmp_path / "a.json", ONE)
    (tmp_path / "a.json").chmod(0)
    closed.chmod(0)
    try:
        told = {Path(t.file).name: t.reason for t in troubles(tmp_path)}
    finally:
        closed.chmod(0o700)

    assert told == dict.fromkeys(("a.json", "closed"), "it can't be read: Permission denied")


def test_a_report_that_is_too_long_is_told_with_its_line(tmp_path: Path) -> None:
    """The next one is read; a compressed bomb is one such line."""
    bomb = gzip.compress(ONE + b" " * (50 << 20) + b"\n" + TWO)
    path = write(tmp_path / "bomb.json.gz", bomb)

    assert names(path) == ["bomb.json.gz"] * 2
    assert [(t.line, "longer" in t.reason) for t in troubles(path)] == [(2, True)]


def test_lines_are_told(tmp_path: Path) -> None:
    """So that a broken one can be found."""
    path = write(tmp_path / "r.json", ONE + b"\n" + TWO)

    assert [(f.file, f.line) for f in found_in([path])] == [(path, 1), (path, 3)]
