"""Archives: what their members say of themselves, and which are worth deflating."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path
from typing import BinaryIO

import pytest

from pilot.staging import stage_out
from tests.pilot.staging.files import archive, members, save


async def test_an_archive_of_the_same_files_is_the_same(work: Path, out: Path) -> None:
    """Neither the directory's order nor the order of patterns matters; names come once."""
    for name in "badc":
        (work / name).write_text(name)
    first = await save(work, out, archive("b", "*", "a*"))
    second = await save(work, out, archive("*"))

    assert list(members(out / "all.zip")) == ["a", "b", "c", "d"]
    assert first.files[0].sha256 == second.files[0].sha256


@pytest.mark.parametrize("mtime", [-(2**40), 0, 1, 2**33, 2**40])
async def test_a_time_that_zip_cannot_tell_is_survived(work: Path, out: Path, mtime: int) -> None:
    """Before 1980 and after 2107 are the nearest that can be told."""
    (work / "old").write_text("old")
    try:
        os.utime(work / "old", (mtime, mtime))
    except OSError:
        pytest.skip("this file system can't tell it either")
    saved = await save(work, out, archive("old"))

    assert members(out / "all.zip") == {"old": b"old"}
    assert saved.notes == ()


async def test_an_archive_keeps_the_name_and_the_modes(work: Path, out: Path) -> None:
    """A name without .zip stays as written."""
    (work / "run.sh").write_text("")
    (work / "run.sh").chmod(0o755)
    await save(work, out, archive("run.sh", name="jalien_defarchNOSPEC.12"))

    with zipfile.ZipFile(out / "jalien_defarchNOSPEC.12") as opened:
        assert stat.S_IMODE(opened.infolist()[0].external_attr >> 16) == 0o755


def methods(path: Path) -> dict[str, int]:
    """Return how each member of an archive is compressed."""
    with zipfile.ZipFile(path) as opened:
        return {info.filename: info.compress_type for info in opened.infolist()}


async def test_only_what_shrinks_is_deflated(work: Path, out: Path) -> None:
    """Deflating what is compressed already would take all the time for saving, for nothing."""
    noise, text = os.urandom(3_000_000), b"an event\n" * 400_000
    for name, data in {
        "noise": noise,
        "text": text,
        "half": text + 9 * noise,
        "header": text[:30_000] + 9 * noise,
        "none": b"",
    }.items():
        (work / name).write_bytes(data)
    saved = await save(work, out, archive("*"))

    assert methods(out / "all.zip") == {
        "noise": zipfile.ZIP_STORED,
        "text": zipfile.ZIP_DEFLATED,
        "half": zipfile.ZIP_DEFLATED,
        "header": zipfile.ZIP_STORED,
        "none": zipfile.ZIP_STORED,
    }
    assert members(out / "all.zip")["half"] == text + 9 * noise
    assert members(out / "all.zip")["noise"] == noise
    assert saved.notes == ()


async def test_a_member_that_grows_past_what_its_header_can_say_is_cut(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room for its size is reserved by what it had when it was opened."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    (work / "log").write_bytes(b"x" * 100)
    state = stage_out._state

    def grow(file: BinaryIO) -> tuple[int, int]:
        (work / "log").write_bytes(b"x" * 5000)
        return state(file)

    monkeypatch.setattr(stage_out, "_state", grow)
    saved = await save(work, out, archive("log"))

    assert members(out / "all.zip") == {"log": b"x" * 100}
    assert saved.notes == ("Output 'log' changed while it was being saved.",)
