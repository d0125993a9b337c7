"""What a hostile payload may leave, and in whose place."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.staging import LocalStager, trusted_files
from tests.pilot.staging.files import archive, members, save, single, stage, tree
from transport.errors import OperatorError
from transport.messages import InputFile, OutputSpec

NOBODY = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory of one whom modes do bind, and run as that one."""
    with tempfile.TemporaryDirectory() as directory:
        if os.geteuid() != 0:
            yield Path(directory)
            return
        os.chown(directory, NOBODY, -1)
        os.seteuid(NOBODY)
        try:
            yield Path(directory)
        finally:
            os.seteuid(0)


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
    look = trusted_files._check_regular

    def look_and_lose(status: os.stat_result) -> None:
        look(status)
        (work / "data").unlink(missing_ok=True)
        if replacement == "link":
            (work / "data").symlink_to(tmp_path / "secret")
        else:
            os.mkfifo(work / "data")

    monkeypatch.setattr(trusted_files, "_check_regular", look_and_lose)
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
    open_directory = trusted_files.open_directory

    def replace_and_open(root: str, parts: tuple[str, ...], *, create: bool = False) -> int:
        if parts == ("sub",):
            (work / "sub").rename(work / "moved")
            (work / "sub").symlink_to(tmp_path)
        return open_directory(root, parts, create=create)

    monkeypatch.setattr(trusted_files, "open_directory", replace_and_open)
    saved = await save(work, out, single("sub/secret"))

    assert saved.files == ()
    assert saved.missing == ("sub/secret",)


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


@pytest.mark.parametrize("target", [".", "sub/..", "{work}"])
async def test_a_link_to_the_work_directory_itself_costs_only_itself(
    work: Path, out: Path, target: str
) -> None:
    """It is within the work directory, and no file."""
    (work / "sub").mkdir()
    (work / "stdout").symlink_to(target.format(work=work))
    (work / "stderr").write_text("stderr")
    saved = await save(work, out, archive("stdout", "stderr"), single("stdout"))

    assert members(out / "all.zip") == {"stderr": b"stderr"}
    assert len(saved.notes) == 2
    assert all("'stdout' is not saved: it is a directory" in note for note in saved.notes)


async def test_a_link_to_a_name_that_cannot_be_costs_only_itself(work: Path, out: Path) -> None:
    """It is found, and can't be opened."""
    (work / "a.txt").write_text("a")
    (work / "b.txt").symlink_to("a" * 300)
    (work / "c.txt").symlink_to("a/" * 2000)
    saved = await save(work, out, single("*.txt"), archive("b.txt", "a.txt"))

    assert members(out / "all.zip") == {"a.txt": b"a"}
    assert saved.missing == ("b.txt",)
    assert any("'b.txt' is not saved: File name too long" in note for note in saved.notes)
    assert any("'c.txt' is not saved: " in note for note in saved.notes)


async def test_a_file_behind_a_closed_directory_costs_only_itself(place: Path) -> None:
    """Be it asked for by its own name or through a link."""
    work, out = place / "work", place / "out"
    (work / "closed").mkdir(parents=True)
    out.mkdir()
    (work / "closed" / "c.txt").write_text("c")
    (work / "a.txt").write_text("a")
    (work / "b.txt").symlink_to("closed/c.txt")
    (work / "closed").chmod(0)
    saved = await save(work, out, single("*.txt", "closed/c.txt"))
    (work / "closed").chmod(0o700)

    assert tree(out) == {"a.txt"}
    assert saved.missing == ("closed/c.txt",)
    assert saved.notes == ("Output 'b.txt' is not saved: Permission denied.",)


async def test_no_output_has_the_name_of_a_temporary_file(work: Path, out: Path) -> None:
    """What is called as temporary files once were is saved like any other, and stays saved."""
    for name in (".staging.part", "a", "z"):
        (work / name).write_text(name)
    saved = await save(work, out, single(".staging.part", "a"), single("z"))

    assert tree(out) == {".staging.part", "a", "z"}
    assert (out / ".staging.part").read_text() == ".staging.part"
    assert {file.name for file in saved.files} == tree(out)
    assert saved.notes == ()


async def test_a_link_in_the_place_of_a_temporary_file_is_neither_written_nor_removed(
    work: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even one who guesses the name has only one output fail."""
    monkeypatch.setattr(secrets, "token_hex", lambda _bytes: "guessed")
    (work / "sub").mkdir()
    (out / "sub").mkdir()
    (out / "sub" / ".staging.guessed.part").symlink_to(tmp_path / "secret")
    for name in ("sub/a", "b"):
        (work / name).write_text("mine")
    saved = await save(work, out, single("sub/a", "b"))

    assert (tmp_path / "secret").read_text() == "none of yours"
    assert (out / "sub" / ".staging.guessed.part").is_symlink()
    assert [file.name for file in saved.files] == ["b"]
    assert saved.missing == ("sub/a",)


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("replaced", ["work", "out"])
@pytest.mark.parametrize("spec", [archive("secret"), single("secret")])
async def test_a_link_in_the_place_of_a_whole_directory_is_the_operators_to_look_at(
    work: Path, out: Path, tmp_path: Path, replaced: str, spec: OutputSpec, slash: str
) -> None:
    """Nothing is read or written through it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (work / "secret").write_text("mine")
    (tmp_path / replaced).rename(tmp_path / "moved")
    (tmp_path / replaced).symlink_to(tmp_path if replaced == "work" else elsewhere)

    with pytest.raises(OperatorError, match=rf"/{replaced} is not a directory.*Look at"):
        await LocalStager().stage_out([spec], f"{work}{slash}", f"{out}{slash}")
    assert tree(elsewhere) == set()
    assert replaced == "out" or tree(out) == set()


async def test_nothing_is_staged_in_through_a_link(work: Path, tmp_path: Path) -> None:
    """In the work directory's own place, too, a link is the operator's to look at."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    work.rmdir()
    work.symlink_to(elsewhere)

    with pytest.raises(OperatorError, match="/work is not a directory"):
        await stage(work, InputFile(name="data", source=str(tmp_path / "secret")))
    with pytest.raises(OperatorError, match="/work is not a directory"):
        await LocalStager().prepare(str(work))
    assert list(elsewhere.iterdir()) == []


async def test_the_way_to_the_directories_may_have_links(tmp_path: Path) -> None:
    """Only what stands in their own place must be theirs."""
    for directory in ("disk/work", "disk/out"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "disk" / "work" / "a").write_text("a")
    (tmp_path / "way").symlink_to("disk")
    saved = await save(tmp_path / "way" / "work", tmp_path / "way" / "out", single("a"))

    assert tree(tmp_path / "disk" / "out") == {"a"}
    assert saved.notes == ()
