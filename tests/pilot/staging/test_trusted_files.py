"""What a hostile payload may leave, and in whose place."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from pilot.staging import trusted_files
from tests.pilot.staging.files import archive, members, save, single, tree
from transport.messages import OutputSpec


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
