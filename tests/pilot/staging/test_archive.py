"""Archives: what their members say of themselves, and which are worth deflating."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from pilot.staging import stage_out, trusted_files
from tests.pilot.staging.files import archive, members, save, tree


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


async def test_root_files_are_stored_however_much_they_would_shrink(work: Path, out: Path) -> None:
    """ROOT reads them in place; what only sounds like one is deflated."""
    (work / "sub").mkdir()
    for name in ("a.root", "sub/b.root", "c.root.txt", "root"):
        (work / name).write_bytes(b"an event\n" * 10_000)
    await save(work, out, archive("*", "sub/*"))

    assert methods(out / "all.zip") == {
        "a.root": zipfile.ZIP_STORED,
        "c.root.txt": zipfile.ZIP_DEFLATED,
        "root": zipfile.ZIP_DEFLATED,
        "sub/b.root": zipfile.ZIP_STORED,
    }


def check_readable_by_root(path: Path) -> None:
    """Check that nothing of a small archive is told in data descriptors, in either header."""
    with zipfile.ZipFile(path) as opened:
        infos = opened.infolist()
    data = path.read_bytes()
    for info in infos:
        flags, method, crc, packed, size = struct.unpack_from(
            "<6xHH4xLLL", data, info.header_offset
        )
        assert info.flag_bits == flags == 0
        assert (method, crc) == (info.compress_type, info.CRC)
        assert (packed, size) == (info.compress_size, info.file_size)


async def test_members_have_no_data_descriptors(work: Path, out: Path) -> None:
    """TZIPFile rejects an archive that has one, be the member deflated, stored or empty."""
    for name, data in {"text": b"x" * 5000, "noise": os.urandom(5000), "none": b""}.items():
        (work / name).write_bytes(data)
    await save(work, out, archive("*"))

    assert set(methods(out / "all.zip").values()) == {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
    check_readable_by_root(out / "all.zip")


def grow(path: Path) -> None:
    """Write on, at the end."""
    with path.open("ab") as file:
        file.write(b"more" * 1000)


def vanish(path: Path) -> None:
    """Be cut to nothing, and then go."""
    os.truncate(path, 0)
    path.unlink()


def fail(_path: Path) -> None:
    """Be on a disk that breaks."""
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("name", ["log", "log.root"])
@pytest.mark.parametrize(
    ("happen", "kept", "note"),
    [
        (grow, 4000, "changed while it was being saved"),
        (Path.unlink, 4000, ""),
        (vanish, 1000, "changed while it was being saved"),
        (fail, 1000, "cut short at 1000 bytes: Input/output error"),
    ],
)
async def test_what_happens_to_a_member_while_it_is_read_costs_no_other(
    work: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    happen: Callable[[Path], None],
    kept: int,
    note: str,
) -> None:
    """Its header tells what was read of it, and those before and after it are whole."""
    for other in ("a", name, "z"):
        (work / other).write_bytes(b"data" * 1000)
    open_inside = trusted_files.open_inside

    class Happening(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() == 1000:
                happen(work / name)
            return super().read(1000)

    def open_happening(root: str, path: str) -> BinaryIO:
        return Happening(f"{root}/{path}") if path == name else open_inside(root, path)

    monkeypatch.setattr(stage_out, "open_inside", open_happening)
    saved = await save(work, out, archive("*"))

    assert members(out / "all.zip") == {
        "a": b"data" * 1000,
        name: b"data" * (kept // 4),
        "z": b"data" * 1000,
    }
    check_readable_by_root(out / "all.zip")
    assert note in "".join(saved.notes)
    assert len(saved.notes) <= 2


async def test_an_archives_checksums_are_of_the_file_on_the_disk(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are taken once zipfile has gone back to every header, over as many chunks as it has."""
    monkeypatch.setattr(trusted_files, "_CHUNK_BYTES", 100)
    for name, data in {"text": b"x" * 5000, "noise": os.urandom(5000), "none": b""}.items():
        (work / name).write_bytes(data)
    (file,) = (await save(work, out, archive("*"))).files
    data = (out / "all.zip").read_bytes()

    assert file.bytes == len(data)
    assert file.sha256 == hashlib.sha256(data).hexdigest()
    assert file.adler32 == f"{zlib.adler32(data):08x}"


def test_summing_an_archive_stops_when_nobody_waits(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the first chunks of a large one are worth the time; it gets no name."""
    monkeypatch.setattr(trusted_files, "_CHUNK_BYTES", 100)
    (work / "data").write_bytes(os.urandom(5000))
    stop, counted = threading.Event(), []

    def count_and_stop(_self: trusted_files.Sink, data: bytes) -> None:
        counted.append(len(data))
        stop.set()

    monkeypatch.setattr(trusted_files.Sink, "_count", count_and_stop)

    with pytest.raises(trusted_files.Stopped):
        stage_out.StageOut(str(work), str(out), stop).save([archive("data")])
    assert counted == [100]
    assert tree(out) == set()


async def test_a_member_that_needs_zip64_keeps_its_room_in_the_header(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going back to its header doesn't overwrite its data, nor what follows it."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    for name, data in {"a": b"x" * 5000, "b.root": b"y" * 5000, "c": b"z"}.items():
        (work / name).write_bytes(data)
    await save(work, out, archive("*"))

    assert members(out / "all.zip") == {"a": b"x" * 5000, "b.root": b"y" * 5000, "c": b"z"}
    with zipfile.ZipFile(out / "all.zip") as opened:
        assert [info.flag_bits for info in opened.infolist()] == [0, 0, 0]


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
