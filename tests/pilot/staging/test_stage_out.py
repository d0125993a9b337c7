"""Stage-out: what is saved, missing and noted."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import zlib
from pathlib import Path
from typing import BinaryIO

import pytest

from actors.outputs import OUTPUTS_MAX
from pilot.staging import stage_out, trusted_files
from pilot.staging.bounds import SINGLE_FILES_MAX
from tests.pilot.staging.files import archive, members, save, single, tree
from transport.errors import OperatorError
from transport.messages import OutputSpec


async def test_outputs_are_archived_or_copied_and_described(work: Path, out: Path) -> None:
    """Sizes and checksums are of what was written; what is archived isn't saved alone too."""
    (work / "sub").mkdir()
    for name in ("stdout", "stderr", "b.root", "a.root", "sub/c.root"):
        (work / name).write_text(name * 1000)
    saved = await save(work, out, single("*.root"), archive("std*", "b.root"), single("sub/*"))

    assert tree(out) == {"all.zip", "a.root", "sub/c.root"}
    assert list(members(out / "all.zip")) == ["b.root", "stderr", "stdout"]
    assert [file.name for file in saved.files] == ["all.zip", "a.root", "sub/c.root"]
    assert saved.missing == saved.notes == ()
    for file in saved.files:
        data = (out / file.name).read_bytes()
        assert file.location == f"{out}/{file.name}"
        assert file.bytes == len(data)
        assert file.sha256 == hashlib.sha256(data).hexdigest()
        assert file.adler32 == f"{zlib.adler32(data):08x}"


async def test_what_is_missing_is_told_only_of_what_was_asked(work: Path, out: Path) -> None:
    """Not stdout and its kind, nor what the user didn't name; an empty archive is left out."""
    saved = await save(
        work,
        out,
        archive("*.root", "stdout", "std*"),
        single("resources", "hist.root", "hist.root", "stderr"),
        single("core", required=False),
    )

    assert saved.files == ()
    assert saved.missing == ("*.root", "hist.root")
    assert saved.notes == ("Archive 'all.zip' would be empty and is left out.",)
    assert tree(out) == set()


async def test_an_archive_name_that_leads_out_costs_no_other_output(work: Path, out: Path) -> None:
    """The files that were to be in it are missing."""
    (work / "good").write_text("good")
    (work / "lost").write_text("lost")
    saved = await save(work, out, archive("lost", name="../up.zip"), single("good"))

    assert tree(out) == {"good"}
    assert not (out.parent / "up.zip").exists()
    assert saved.missing == ("lost",)
    assert "'../up.zip' can't be called so" in saved.notes[0]


async def test_a_file_that_vanishes_costs_only_itself(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive holds what was still there."""
    (work / "a").write_text("a")
    (work / "b").write_text("b")
    open_inside = trusted_files.open_inside

    def vanish(root: str, path: str) -> BinaryIO:
        (work / "a").unlink(missing_ok=True)
        return open_inside(root, path)

    monkeypatch.setattr(stage_out, "open_inside", vanish)
    saved = await save(work, out, archive("*"))

    assert members(out / "all.zip") == {"b": b"b"}
    assert "'a' is not saved: No such file" in saved.notes[0]


@pytest.mark.parametrize("change", [b"longer and longer", b""])
async def test_a_file_that_changes_while_it_is_read_is_survived(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch, change: bytes
) -> None:
    """As many bytes as it had when it was opened, or fewer, and a note."""
    (work / "log").write_bytes(b"0123456789")
    (work / "log").touch()
    os.utime(work / "log", (1e9, 1e9))
    open_inside = trusted_files.open_inside

    def open_and_change(root: str, path: str) -> BinaryIO:
        opened = open_inside(root, path)
        state = stage_out._state(opened)
        monkeypatch.setattr(stage_out, "_state", lambda _: state_then(state))
        return opened

    def state_then(state: tuple[int, int]) -> tuple[int, int]:
        (work / "log").write_bytes(change)
        monkeypatch.undo()
        return state

    monkeypatch.setattr(stage_out, "open_inside", open_and_change)
    saved = await save(work, out, archive("log"))

    assert members(out / "all.zip") == {"log": change[:10]}
    assert saved.notes == ("Output 'log' changed while it was being saved.",)


async def test_a_read_error_cuts_one_file_short(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could be read of it is kept, with a note; the archive is whole."""
    (work / "a").write_text("aaaaaa")
    (work / "b").write_text("b")
    open_inside = trusted_files.open_inside

    class Failing(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise OSError(5, "Input/output error")
            return super().read(3)

    def open_failing(root: str, path: str) -> BinaryIO:
        return Failing(f"{root}/a") if path == "a" else open_inside(root, path)

    monkeypatch.setattr(stage_out, "open_inside", open_failing)
    saved = await save(work, out, archive("*"))

    assert members(out / "all.zip") == {"a": b"aaa", "b": b"b"}
    assert "'a' is cut short at 3 bytes: Input/output error" in saved.notes[0]


async def test_a_name_that_is_not_text_is_noted(work: Path, out: Path) -> None:
    """Neither zip nor a message can say it."""
    (work / os.fsdecode(b"bad\xff")).write_text("bad")
    (work / "good").write_text("good")
    saved = await save(work, out, archive("*"))

    assert members(out / "all.zip") == {"good": b"good"}
    assert "not UTF-8" in saved.notes[0]
    saved.notes[0].encode()


async def test_names_that_collide_are_noted(work: Path, out: Path) -> None:
    """An archive isn't overwritten by a file that the payload gave its name."""
    (work / "all.zip").write_text("mine")
    (work / "data").write_text("data")
    saved = await save(work, out, single("*.zip"), archive("data"), archive("data"))

    assert members(out / "all.zip") == {"data": b"data"}
    assert [file.name for file in saved.files] == ["all.zip"]
    assert saved.missing == ("*.zip",)
    assert len(saved.notes) == 2


async def test_an_output_directory_that_is_not_there_is_the_operators_error(
    work: Path, tmp_path: Path
) -> None:
    """The sentence names the output and the place."""
    (work / "data").write_text("data")

    with pytest.raises(OperatorError, match=r"Output 'data' to .*/none can't be written: No such"):
        await save(work, tmp_path / "none", single("data"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
@pytest.mark.parametrize("spec", [archive("data", name="saved"), single("saved")])
async def test_a_full_output_disk_leaves_nothing_half_written(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch, spec: OutputSpec
) -> None:
    """Even an archive whose end can't be written is the operator's error, not a crash."""
    for name in ("data", "saved"):
        (work / name).write_text("data")

    with io.FileIO("/dev/full", "r+") as full:
        sink = trusted_files.Sink(full)
        monkeypatch.setattr(trusted_files, "Sink", lambda _file: sink)
        with pytest.raises(OperatorError, match=r"'saved' to .*: No space left"):
            await save(work, out, spec)
    assert tree(out) == set()


async def test_an_archive_that_cannot_be_read_again_is_the_operators_error(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its checksums it isn't given its name."""
    (work / "data").write_text("data")

    def fail(_self: trusted_files.Sink, _data: bytes) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(trusted_files.Sink, "_count", fail)

    with pytest.raises(OperatorError, match=r"'all.zip' to .*: Input/output error"):
        await save(work, out, archive("data"))
    assert tree(out) == set()


@pytest.mark.parametrize("spec", [archive("huge", "good"), single("huge", "good")])
async def test_a_file_of_holes_is_not_copied(work: Path, out: Path, spec: OutputSpec) -> None:
    """A terabyte that takes no room here would take it there; it is missing, and noted."""
    (work / "good").write_text("good")
    for name, size in {"huge": 1 << 40, "large": 2 << 30}.items():
        with (work / name).open("wb") as file:
            file.truncate(size)
    saved = await save(work, out, spec, single("large"))

    assert saved.missing == ("huge", "large")
    assert f"'huge' is not saved: it is nearly all holes, {1 << 40} bytes with" in saved.notes[0]
    assert "'large' is not saved: it is nearly all holes" in saved.notes[1]
    assert sum(file.bytes for file in saved.files) < 1000
    assert len(saved.files) == 1


async def test_a_small_file_of_holes_is_saved(work: Path, out: Path) -> None:
    """What costs little may be as its writer likes it."""
    with (work / "data").open("wb") as file:
        file.truncate(10_000_000)
    saved = await save(work, out, single("data"))

    assert (out / "data").read_bytes() == bytes(10_000_000)
    assert saved.notes == ()


async def test_the_bytes_that_a_job_saves_are_bounded(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What still fits is saved, whatever came before it; archives count as their members."""
    monkeypatch.setattr(stage_out, "SAVED_BYTES_MAX", 1000)
    for name, size in {"a": 600, "b": 600, "c": 300, "d": 100, "e": 1}.items():
        (work / name).write_bytes(b"x" * size)
    saved = await save(work, out, archive("a", "b"), single("c", "d", "e"))

    assert members(out / "all.zip") == {"a": b"x" * 600}
    assert tree(out) == {"all.zip", "c", "d"}
    assert saved.missing == ("b", "e")
    assert saved.notes == (
        "Output 'b' is not saved: it has 600 bytes, and 400 are left of the 1000 that a job may "
        "save.",
        "Output 'e' is not saved: it has 1 bytes, and 0 are left of the 1000 that a job may save.",
    )


async def test_the_files_saved_on_their_own_are_bounded(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others aren't even opened; what is in an archive doesn't count."""
    monkeypatch.setattr(stage_out, "SINGLE_FILES_MAX", 3)
    for name in ("a/1", "a/2", "b/1", "b/2", "b/3", "c"):
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text("")
    saved = await save(work, out, archive("b/1", "c"), single("a/*"), single("*/*", "c"))

    assert tree(out) == {"all.zip", "a/1", "a/2", "b/2"}
    assert {file.name for file in saved.files} == tree(out)
    assert saved.missing == ("*/*",)
    assert saved.notes == (
        "1 of 4 outputs are not saved: a job may save 3 that are in no archive. "
        "Put them into an archive.",
    )


def test_as_many_files_are_saved_on_their_own_as_can_be_told_of() -> None:
    """No more is worth the time for saving."""
    assert SINGLE_FILES_MAX == OUTPUTS_MAX


async def test_every_output_directory_is_synced_once(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the files in it; so are those above it, which may be as new."""
    for name in ("a", "b", "deep/sub/a", "deep/sub/b"):
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(name)
    synced = []

    def fsync(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", fsync)
    await save(work, out, single("*", "deep/sub/*"))

    assert len(synced) == 7
    assert set(synced[4:]) == {out, out / "deep", out / "deep" / "sub"}


def test_saving_empty_files_stops_when_nobody_waits(work: Path, out: Path) -> None:
    """Though they have no chunks to stop between."""
    stop = threading.Event()
    for name in ("a", "b"):
        (work / name).write_text("")
    saving = stage_out.StageOut(str(work), str(out), stop)
    stop.set()

    with pytest.raises(trusted_files.Stopped):
        saving.save([single("a", "b")])
    assert tree(out) == set()
