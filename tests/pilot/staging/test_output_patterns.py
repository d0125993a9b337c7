"""What patterns find, and how much of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.staging import stage_out
from pilot.staging.bounds import NOTES_MAX
from tests.pilot.staging.files import archive, members, save, single, tree


async def test_patterns_are_a_shells(work: Path, out: Path) -> None:
    """No crossing of slashes, no hidden files, nothing of tmp, unless it is asked for."""
    for name in (
        "a.root",
        ".hidden",
        "tmp/scratch",
        "sub/a.root",
        "sub/.b",
        "x[1].root",
        "x1.root",
    ):
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text(name)
    await save(work, out, archive("*", "*/*", name="plain"))
    await save(work, out, archive(".h*", "tmp/*", "sub/.b", "./a.root", name="asked"))
    await save(work, out, archive("x[1].root", name="literal"))

    assert list(members(out / "plain")) == ["a.root", "sub/a.root", "x1.root", "x[1].root"]
    assert list(members(out / "asked")) == [".hidden", "a.root", "sub/.b", "tmp/scratch"]
    assert list(members(out / "literal")) == ["x[1].root"]


@pytest.mark.parametrize("pattern", ["../x", "/etc/passwd", "a/../../secret", "", "../*", "a\0"])
async def test_a_pattern_that_leads_out_finds_nothing(work: Path, out: Path, pattern: str) -> None:
    """It is noted and missing, and costs no other output."""
    (work / "good").write_text("good")
    saved = await save(work, out, single(pattern), archive("good"))

    assert tree(out) == {"all.zip"}
    assert saved.missing == (pattern,)
    assert "not inside the work directory" in saved.notes[0]


async def test_a_huge_number_of_files_is_bounded_and_so_are_the_notes(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is said; a thousand complaints become a few."""
    monkeypatch.setattr(stage_out, "FILES_PER_PATTERN_MAX", 400)
    for number in range(500):
        (work / f"good{number}").write_text("")
        (work / f"link{number}").symlink_to("/etc/passwd")
    saved = await save(work, out, archive("good*", "link*"))

    assert len(members(out / "all.zip")) == 400
    assert "'good*' matches more than 400 files" in saved.notes[0]
    assert len(saved.notes) == NOTES_MAX + 1
    assert saved.notes[-1] == "... and 202 more notes like these."
