"""Stage-in, into a work directory where a payload may have planted something."""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path

import pytest

from pilot.staging import LocalStager, trusted_files
from tests.pilot.staging.files import stage, tree
from transport.errors import OperatorError, UserError
from transport.messages import InputFile


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
    """The file behind a link is never written; nobody knows the temporary name to plant one."""
    (tmp_path / "source").write_text("new")
    (work / "data").symlink_to(tmp_path / "secret")
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

    def fill(self: trusted_files.Sink, data: bytes) -> int:
        with Path("/dev/full").open("wb", buffering=0) as full:
            return full.write(data)

    monkeypatch.setattr(trusted_files.Sink, "write", fill)

    with pytest.raises(OperatorError, match="Input 'data' can't be written: No space left"):
        await stage(work, InputFile(name="data", source=str(tmp_path / "secret")))
    assert tree(work) == set()
