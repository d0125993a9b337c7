"""What was verified is remembered, for as long as it is true."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.containers.check import Verification
from pilot.containers.memory import (
    FAILURE_KEPT_S,
    REMEMBERED_MAX,
    SUCCESS_KEPT_S,
    Memory,
    key_of,
)
from pilot.containers.runtime import Reason

WORKS = Verification(works=True, seconds=0.1)
FAILS = Verification(works=False, reason=Reason.NO_ANSWER, detail="no answer in 30 s")
NOW = 1_700_000_000.0


def test_a_success_is_kept_long_and_a_failure_for_minutes() -> None:
    """A busy node may fail once."""
    memory = Memory()
    memory.put("works", WORKS, NOW)
    memory.put("fails", FAILS, NOW)

    assert memory.get("fails", NOW + FAILURE_KEPT_S - 1) == FAILS
    assert memory.get("fails", NOW + FAILURE_KEPT_S) is None
    assert memory.get("works", NOW + SUCCESS_KEPT_S - 1) == WORKS
    assert memory.get("works", NOW + SUCCESS_KEPT_S) is None


def test_what_comes_from_the_future_does_not_count() -> None:
    """The clock was set back: nobody knows how old it is."""
    memory = Memory()
    memory.put("works", WORKS, NOW)

    assert memory.get("works", NOW - 1) is None


def test_the_next_pilot_reads_what_was_written(tmp_path: Path) -> None:
    """Whole or not at all, and nothing beside it."""
    file = tmp_path / "verified.json"
    Memory(file).put("works", WORKS, NOW)

    assert Memory(file).get("works", NOW) == WORKS
    assert [path.name for path in tmp_path.iterdir()] == ["verified.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}', b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_makes_no_sense_is_as_good_as_none(tmp_path: Path, content: bytes) -> None:
    """It is a cache: the next try makes it anew."""
    file = tmp_path / "verified.json"
    file.write_bytes(content)
    memory = Memory(file)
    memory.put("works", WORKS, NOW)

    assert Memory(file).get("works", NOW) == WORKS


def test_a_file_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    """What was verified counts for this pilot all the same."""
    memory = Memory(tmp_path / "gone" / "verified.json")
    memory.put("works", WORKS, NOW)

    assert memory.get("works", NOW) == WORKS


def test_memory_has_a_bound() -> None:
    """The oldest is forgotten, however many images pass by."""
    memory = Memory()
    for number in range(REMEMBERED_MAX + 1):
        memory.put(str(number), WORKS, NOW)

    assert memory.get("0", NOW) is None
    assert memory.get("1", NOW) == WORKS


def test_a_key_depends_on_every_fact_and_on_nothing_else() -> None:
    """Their order is none."""
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of({"a": 1, "b": 2}) != key_of({"a": 1, "b": 3})
