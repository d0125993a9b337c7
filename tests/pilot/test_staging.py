"""Moving files in and out of a work directory that a hostile payload has written."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import socket
import stat
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO
from xml.etree import ElementTree as ET

import pytest

from actors.ports import SavedOutputs, StagedFile, Stager
from pilot import staging
from pilot.staging import LocalStager, write_input_data_list
from transport.errors import OperatorError, UserError
from transport.messages import InputFile, OutputSpec

ROOT = Path(__file__).parents[2]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Give a work directory, with a neighbour that is none of the job's."""
    (tmp_path / "secret").write_text("none of yours")
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Give an output directory."""
    directory = tmp_path / "out"
    directory.mkdir()
    return directory


def archive(*patterns: str, name: str = "all.zip", required: bool = True) -> OutputSpec:
    """Ask for an archive of what matches."""
    return OutputSpec(patterns=patterns, archive=name, is_required=required)


def single(*patterns: str, required: bool = True) -> OutputSpec:
    """Ask for each file that matches."""
    return OutputSpec(patterns=patterns, is_required=required)


async def save(work: Path, out: Path, *outputs: OutputSpec) -> SavedOutputs:
    """Stage out."""
    return await LocalStager().stage_out(outputs, str(work), str(out))


async def stage(work: Path, *inputs: InputFile) -> list[StagedFile]:
    """Stage in."""
    return await LocalStager().stage_in(inputs, str(work))


def members(path: Path) -> dict[str, bytes]:
    """Return what a sound archive holds, in its order."""
    with zipfile.ZipFile(path) as opened:
        assert opened.testzip() is None
        return {name: opened.read(name) for name in opened.namelist()}


def tree(directory: Path) -> set[str]:
    """Return the files under a directory."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


# --- stage-in --------------------------------------------------------------------------------


async def test_it_is_a_stager_and_prepares_a_private_tmp(work: Path) -> None:
    """The job's tmp is for it alone, however it was before."""
    stager: Stager = LocalStager()
    await stager.prepare(str(work))
    (work / "tmp").chmod(0o755)
    await stager.prepare(str(work))

    assert stat.S_IMODE((work / "tmp").stat().st_mode) == 0o700


async def test_a_planted_tmp_is_the_operators_to_see(work: Path, tmp_path: Path) -> None:
    """Nothing is made, nor chmod-ed, through a link."""
    (work / "tmp").symlink_to(tmp_path)

    with pytest.raises(OperatorError, match="tmp can't be made"):
        await LocalStager().prepare(str(work))


async def test_inputs_arrive_with_checksums_and_their_executable_bit(
    work: Path, tmp_path: Path
) -> None:
    """What is told of a staged file is true of it; nodownload ones don't come."""
    data = os.urandom(3_000_000)
    (tmp_path / "tool").write_bytes(data)
    (tmp_path / "tool").chmod(0o755)
    (tmp_path / "plain").write_text("")
    staged = await stage(
        work,
        InputFile(name="bin/tool", source=str(tmp_path / "tool")),
        InputFile(name="plain", source=str(tmp_path / "plain")),
        InputFile(name="far", source="/nowhere", is_staged=False),
    )

    assert tree(work) == {"bin/tool", "plain"}
    assert (work / "bin/tool").read_bytes() == data
    assert os.access(work / "bin/tool", os.X_OK)
    assert not (work / "plain").stat().st_mode & 0o111
    assert staged[0].name == "bin/tool"
    assert staged[0].bytes == len(data)
    assert staged[0].sha256 == hashlib.sha256(data).hexdigest()
    assert staged[0].adler32 == f"{zlib.adler32(data):08x}"
    assert staged[1].adler32 == "00000001"


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "nul"])
async def test_an_input_that_cannot_be_read_is_named_with_its_source(
    work: Path, tmp_path: Path, kind: str
) -> None:
    """The user learns which one and from where, without a hang."""
    source = tmp_path / kind
    match kind:
        case "directory":
            source.mkdir()
        case "fifo":
            os.mkfifo(source)
        case "nul":
            source = Path("/a\0b")
        case _:
            pass

    with pytest.raises(UserError, match="Input 'data' can't be read from ") as caught:
        await stage(work, InputFile(name="data", source=str(source)))
    assert str(source) in str(caught.value)
    assert tree(work) == set()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", ".", "a\0b"])
async def test_an_input_stays_in_the_work_directory(work: Path, name: str) -> None:
    """A name that leads out is the user's error, before anything is copied."""
    with pytest.raises(UserError, match="inside its directory"):
        await stage(work, InputFile(name=name, source="/etc/hostname"))


async def test_a_link_planted_at_the_destination_is_replaced(work: Path, tmp_path: Path) -> None:
    """The file behind a link is never written, be it at the name or at the temporary one."""
    (tmp_path / "source").write_text("new")
    for name in ("data", staging._PART):
        (work / name).symlink_to(tmp_path / "secret")
    await stage(work, InputFile(name="data", source=str(tmp_path / "source")))

    assert (tmp_path / "secret").read_text() == "none of yours"
    assert not (work / "data").is_symlink()
    assert tree(work) == {"data"}


@pytest.mark.parametrize("name", ["link/data", "tmp", "file/data", "x" * 300])
async def test_a_destination_that_cannot_be_is_the_users_error(
    work: Path, tmp_path: Path, name: str
) -> None:
    """A linked directory isn't followed, and a directory's name is taken."""
    (work / "link").symlink_to(tmp_path)
    (work / "tmp").mkdir()
    (work / "file").write_text("")

    with pytest.raises(UserError, match="can't be written"):
        await stage(work, InputFile(name=name, source=str(tmp_path / "secret")))
    assert not (tmp_path / "data").exists()


async def test_two_inputs_of_one_name_are_refused(work: Path, tmp_path: Path) -> None:
    """Neither silently hides the other; the same one twice is harmless."""
    same = InputFile(name="data", source=str(tmp_path / "secret"))
    assert len(await stage(work, same, same)) == 1

    with pytest.raises(UserError, match="Two inputs are called 'data'"):
        await stage(work, same, InputFile(name="data", source="/other"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
async def test_a_full_disk_is_the_operators_error(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names the file and says what the disk said; nothing half written stays."""

    def fill(self: staging._Sink, data: bytes) -> int:
        with Path("/dev/full").open("wb", buffering=0) as full:
            return full.write(data)

    monkeypatch.setattr(staging._Sink, "write", fill)

    with pytest.raises(OperatorError, match="Input 'data' can't be written: No space left"):
        await stage(work, InputFile(name="data", source=str(tmp_path / "secret")))
    assert tree(work) == set()


async def test_a_cancelled_copy_stops_at_the_next_chunk(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped job doesn't copy on, and leaves no half-written file."""
    begun, loop = asyncio.Event(), asyncio.get_running_loop()
    write = staging._Sink.write

    def write_and_tell(self: staging._Sink, data: bytes) -> int:
        loop.call_soon_threadsafe(begun.set)
        return write(self, data)

    monkeypatch.setattr(staging._Sink, "write", write_and_tell)
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(1 << 43)
    task = asyncio.ensure_future(stage(work, InputFile(name="huge", source=str(tmp_path / "huge"))))
    await asyncio.wait_for(begun.wait(), 20)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert tree(work) == set()


# --- the list of input data ------------------------------------------------------------------

LISTED = (
    InputFile(name="a.root", source="/x/a.root", catalogue_name='/alice/a&"b"<c>.root'),
    InputFile(name="b.root", source="/x/b.root", is_staged=False),
    InputFile(name="c.root", source="/x/c.root"),
)


def test_the_xml_list_is_an_alien_collection(work: Path) -> None:
    """It parses, says what went in, and has each file on a line that starts as AliEn's do."""
    path = write_input_data_list(str(work), "wn.xml", "xml-single", LISTED)
    text = Path(path).read_text()
    files = ET.fromstring(text).findall("collection/event/file")

    assert path == f"{work}/wn.xml"
    assert text.count('      <file name="') == 3
    assert [file.get("lfn") for file in files] == [
        '/alice/a&"b"<c>.root',
        "/x/b.root",
        f"{work}/c.root",
    ]
    assert files[0].get("turl") == 'alien:///alice/a&"b"<c>.root'
    assert files[1].get("turl") == "/x/b.root"


def test_the_text_list_has_a_line_for_each(work: Path) -> None:
    """Catalogue names are written as JAliEn does, the others as paths."""
    path = write_input_data_list(str(work), "wn.txt", "txt-list", LISTED)

    assert Path(path).read_text().splitlines() == [
        'alien:///alice/a&"b"<c>.root',
        "/x/b.root",
        f"{work}/c.root",
    ]


def test_the_json_list_parses(work: Path) -> None:
    """The same facts for whoever prefers JSON; an empty list is a list."""
    path = write_input_data_list(str(work), "wn.json", "json", LISTED)
    assert json.loads(Path(path).read_text())["files"][1]["lfn"] == "/x/b.root"

    path = write_input_data_list(str(work), "wn.json", "json", ())
    assert json.loads(Path(path).read_text())["files"] == []


def test_a_list_that_cannot_be_written_is_the_users_error(work: Path) -> None:
    """An unknown format, a name that leads out and a line break are each said."""
    broken = InputFile(name="a", source="/x", catalogue_name="/alice/a\n/alice/b")

    with pytest.raises(UserError, match="'xml-multi' isn't known; write one of xml-single"):
        write_input_data_list(str(work), "wn.xml", "xml-multi", LISTED)
    with pytest.raises(UserError, match=r"InputDataList '\.\./wn\.xml'"):
        write_input_data_list(str(work), "../wn.xml", "xml-single", LISTED)
    with pytest.raises(UserError, match="control character"):
        write_input_data_list(str(work), "wn.txt", "txt-list", (broken,))


# --- stage-out -------------------------------------------------------------------------------


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


async def test_an_archive_name_that_leads_out_costs_no_other_output(work: Path, out: Path) -> None:
    """The files that were to be in it are missing."""
    (work / "good").write_text("good")
    (work / "lost").write_text("lost")
    saved = await save(work, out, archive("lost", name="../up.zip"), single("good"))

    assert tree(out) == {"good"}
    assert not (out.parent / "up.zip").exists()
    assert saved.missing == ("lost",)
    assert "'../up.zip' can't be called so" in saved.notes[0]


async def test_links_that_leave_the_work_directory_are_not_followed(
    work: Path, out: Path, tmp_path: Path
) -> None:
    """Neither a file's nor a directory's, alone or in an archive; one within is followed."""
    (work / "passwd").symlink_to("/etc/passwd")
    (work / "dir").symlink_to(tmp_path)
    (work / "loop").symlink_to("loop")
    (work / "real").write_text("real")
    (work / "alias").symlink_to(work / "real")
    saved = await save(
        work, out, archive("*", "dir/secret"), single("passwd", "dir/secret", "loop")
    )

    assert members(out / "all.zip") == {"alias": b"real", "real": b"real"}
    assert tree(out) == {"all.zip"}
    assert saved.missing == ("dir/secret", "passwd", "loop")
    assert any("'passwd'" in note and "leaves the work" in note for note in saved.notes)


async def test_what_is_no_file_is_skipped_and_never_waited_for(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FIFOs, sockets, devices and directories cost a note each."""
    os.mkfifo(work / "fifo")
    (work / "directory").mkdir()
    (work / "good").write_text("good")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(work)  # a socket's path is short
        server.bind("socket")
    saved = await asyncio.wait_for(save(work, out, archive("*"), single("fifo", "directory")), 20)

    assert members(out / "all.zip") == {"good": b"good"}
    assert saved.missing == ("fifo", "directory")
    assert sum("'fifo' is not saved: it is not a regular file" in note for note in saved.notes) == 2
    assert any("'directory' is not saved: it is a directory" in note for note in saved.notes)


@pytest.mark.parametrize("spec", [archive("data"), single("data")])
@pytest.mark.parametrize("replacement", ["link", "fifo"])
async def test_a_file_replaced_before_it_is_opened_is_not_saved(
    work: Path,
    out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spec: OutputSpec,
    replacement: str,
) -> None:
    """The race between looking and opening can't be won by the payload."""
    (work / "data").write_text("data")
    look = staging._check_regular

    def look_and_lose(status: os.stat_result) -> None:
        look(status)
        (work / "data").unlink(missing_ok=True)
        if replacement == "link":
            (work / "data").symlink_to(tmp_path / "secret")
        else:
            os.mkfifo(work / "data")

    monkeypatch.setattr(staging, "_check_regular", look_and_lose)
    saved = await asyncio.wait_for(save(work, out, spec), 20)

    assert saved.files == ()
    assert saved.missing == ("data",)
    assert "'data' is not saved" in saved.notes[0]


async def test_a_directory_replaced_by_a_link_before_it_is_opened_is_not_entered(
    work: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way to a file is as safe as the file."""
    (work / "sub").mkdir()
    (work / "sub" / "secret").write_text("mine")
    open_directory = staging._open_directory

    def replace_and_open(root: str, parts: tuple[str, ...], *, create: bool = False) -> int:
        if parts == ("sub",):
            (work / "sub").rename(work / "moved")
            (work / "sub").symlink_to(tmp_path)
        return open_directory(root, parts, create=create)

    monkeypatch.setattr(staging, "_open_directory", replace_and_open)
    saved = await save(work, out, single("sub/secret"))

    assert saved.files == ()
    assert saved.missing == ("sub/secret",)


async def test_a_file_that_vanishes_costs_only_itself(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive holds what was still there."""
    (work / "a").write_text("a")
    (work / "b").write_text("b")
    open_inside = staging._open_inside

    def vanish(root: str, path: str) -> BinaryIO:
        (work / "a").unlink(missing_ok=True)
        return open_inside(root, path)

    monkeypatch.setattr(staging, "_open_inside", vanish)
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
    open_inside = staging._open_inside

    def open_and_change(root: str, path: str) -> BinaryIO:
        opened = open_inside(root, path)
        state = staging._state(opened)
        monkeypatch.setattr(staging, "_state", lambda _: state_then(state))
        return opened

    def state_then(state: tuple[int, int]) -> tuple[int, int]:
        (work / "log").write_bytes(change)
        monkeypatch.undo()
        return state

    monkeypatch.setattr(staging, "_open_inside", open_and_change)
    saved = await save(work, out, archive("log"))

    assert members(out / "all.zip") == {"log": change[:10]}
    assert saved.notes == ("Output 'log' changed while it was being saved.",)


async def test_a_read_error_cuts_one_file_short(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could be read of it is kept, with a note; the archive is whole."""
    (work / "a").write_text("aaaaaa")
    (work / "b").write_text("b")
    open_inside = staging._open_inside

    class Failing(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell():
                raise OSError(5, "Input/output error")
            return super().read(3)

    def open_failing(root: str, path: str) -> BinaryIO:
        return Failing(f"{root}/a") if path == "a" else open_inside(root, path)

    monkeypatch.setattr(staging, "_open_inside", open_failing)
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


async def test_a_huge_number_of_files_is_bounded_and_so_are_the_notes(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is said; a thousand complaints become a few."""
    monkeypatch.setattr(staging, "FILES_PER_PATTERN_MAX", 400)
    for number in range(500):
        (work / f"good{number}").write_text("")
        (work / f"link{number}").symlink_to("/etc/passwd")
    saved = await save(work, out, archive("good*", "link*"))

    assert len(members(out / "all.zip")) == 400
    assert "'good*' matches more than 400 files" in saved.notes[0]
    assert len(saved.notes) == staging.NOTES_MAX + 1
    assert saved.notes[-1] == "... and 202 more notes like these."


async def test_names_that_collide_are_noted(work: Path, out: Path) -> None:
    """An archive isn't overwritten by a file that the payload gave its name."""
    (work / "all.zip").write_text("mine")
    (work / "data").write_text("data")
    saved = await save(work, out, single("*.zip"), archive("data"), archive("data"))

    assert members(out / "all.zip") == {"data": b"data"}
    assert [file.name for file in saved.files] == ["all.zip"]
    assert saved.missing == ("*.zip",)
    assert len(saved.notes) == 2


async def test_links_planted_in_the_output_directory_are_not_followed(
    work: Path, out: Path, tmp_path: Path
) -> None:
    """What can't be written safely costs itself, not the others."""
    (work / "sub").mkdir()
    (work / "sub" / "a").write_text("a")
    (work / "b").write_text("b")
    (out / "sub").symlink_to(tmp_path)
    (out / "b").symlink_to(tmp_path / "secret")
    saved = await save(work, out, single("sub/a", "b"))

    assert not (tmp_path / "a").exists()
    assert (tmp_path / "secret").read_text() == "none of yours"
    assert [file.name for file in saved.files] == ["b"]
    assert saved.missing == ("sub/a",)


async def test_an_output_directory_that_is_not_there_is_the_operators_error(
    work: Path, tmp_path: Path
) -> None:
    """The sentence names the output and the place."""
    (work / "data").write_text("data")

    with pytest.raises(OperatorError, match=r"Output 'data' to .*/none can't be written: No such"):
        await save(work, tmp_path / "none", single("data"))


async def test_a_full_output_disk_leaves_nothing_half_written(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even an archive whose end can't be written is the operator's error, not a crash."""
    (work / "data").write_text("data")

    def fill(_self: staging._Sink, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(staging._Sink, "write", fill)

    with pytest.raises(OperatorError, match=r"'all.zip' to .*: No space left"):
        await save(work, out, archive("data"))
    assert tree(out) == set()


async def test_a_cancelled_stage_out_stops(work: Path, out: Path) -> None:
    """A sparse file of terabytes doesn't hold a stopped job, nor is half of it kept."""
    with (work / "huge").open("wb") as huge:
        huge.truncate(1 << 43)
    started = time.monotonic()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(save(work, out, archive("huge")), 0.2)
    assert time.monotonic() - started < 5
    assert tree(out) == set()


@pytest.mark.parametrize("module", ["pilot.staging", "pilot.keys"])
def test_importing_it_is_cheap(module: str) -> None:
    """The wrapper pays for neither cryptography nor zipfile until they are needed."""
    code = (
        f"import sys; sys.path[:0] = {[str(ROOT), *sys.path]!r}; import {module};"
        "print([name for name in ('cryptography', 'zipfile', 'json', 'xml', 'tempfile')"
        " if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert run.stdout.strip() == "[]"
