"""The job's key is made once, private from its first moment, and nowhere else."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from actors.ports import KeyMaker
from pilot.keys import FileKeyMaker
from transport.errors import OperatorError, UserError
from transport.messages import CredentialKind


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """Give the path of a private directory that isn't there yet."""
    return tmp_path / "private"


def mode(path: Path) -> int:
    """Return a path's own permissions."""
    return stat.S_IMODE(path.lstat().st_mode)


def modes(directory: Path) -> dict[str, int]:
    """Return the permissions of all that is in a directory."""
    return {path.name: mode(path) for path in directory.iterdir()}


def key_in(directory: Path) -> bytes:
    """Return the private key that was written."""
    return (directory / "job.key").read_bytes()


def plant(kind: str, key: Path, trap: Path) -> None:
    """Be there before the key maker."""
    key.parent.mkdir(mode=0o700)
    if kind == "file":
        key.write_text("planted")
    else:
        key.symlink_to(trap)
    if kind == "link":
        trap.write_text("planted")


def spoil(fault: str, private: Path) -> Path:
    """Make a private directory that isn't one, and return its path."""
    match fault:
        case "open":
            private.mkdir()
            private.chmod(0o750)
        case "link":
            private.symlink_to(private.parent)
        case "file":
            private.write_text("")
        case _:
            private = private / "deeper"
    return private


async def test_a_request_is_made_for_a_new_key(private: Path) -> None:
    """The request is signed by the key that was written, and holds nothing of it."""
    maker: KeyMaker = FileKeyMaker()
    text = await maker.make_request(str(private), "job-12.1")
    request = x509.load_pem_x509_csr(text.encode())
    key = load_pem_private_key(key_in(private), None)

    assert request.is_signature_valid
    assert request.subject.rfc4514_string() == "CN=job-12.1"
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert key.public_key() == request.public_key()
    assert "PRIVATE" not in text


async def test_everything_is_private_whatever_the_umask(private: Path) -> None:
    """Directory 0700, files 0600, though the umask would allow more."""
    before = os.umask(0)
    try:
        maker = FileKeyMaker()
        await maker.make_request(str(private), "job-12.1")
        for kind in CredentialKind:
            await maker.store(str(private), kind, "text")
    finally:
        os.umask(before)

    assert mode(private) == 0o700
    assert modes(private) == {
        "job.key": 0o600,
        "job.pem": 0o600,
        "job.proxy": 0o600,
        "job.token": 0o600,
    }


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
async def test_a_planted_key_is_neither_replaced_nor_followed(
    private: Path, tmp_path: Path, kind: str
) -> None:
    """Whoever was there first doesn't get the key."""
    trap = tmp_path / "trap"
    plant(kind, private / "job.key", trap)

    with pytest.raises(OperatorError, match=r"job\.key is there already"):
        await FileKeyMaker().make_request(str(private), "job-12.1")
    assert not trap.exists() or trap.read_text() == "planted"


async def test_a_second_key_is_not_made(private: Path) -> None:
    """A renewal signs the first request again."""
    maker = FileKeyMaker()
    await maker.make_request(str(private), "job-12.1")
    key = key_in(private)

    with pytest.raises(OperatorError, match="there already"):
        await maker.make_request(str(private), "job-12.1")
    assert key_in(private) == key


async def test_a_renewed_credential_takes_the_place_of_the_old(private: Path) -> None:
    """Who holds the old file open still has it whole; nothing else is left behind."""
    maker = FileKeyMaker()
    path = Path(await maker.store(str(private), CredentialKind.TOKEN, "old"))
    with path.open() as held:  # noqa: ASYNC230 - a small file of the test's own
        assert await maker.store(str(private), CredentialKind.TOKEN, "new") == str(path)

        assert held.read() == "old"
    assert path.read_text() == "new"
    assert [entry.name for entry in private.iterdir()] == ["job.token"]


async def test_a_link_planted_for_a_credential_is_replaced(private: Path, tmp_path: Path) -> None:
    """Neither the name nor the temporary name leads anywhere else."""
    private.mkdir(mode=0o700)
    for name in ("job.token", ".job.token.part"):
        (private / name).symlink_to(tmp_path / "trap")
    path = Path(await FileKeyMaker().store(str(private), CredentialKind.TOKEN, "token"))

    assert not path.is_symlink()
    assert path.read_text() == "token"
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("fault", ["open", "link", "file", "orphan"])
async def test_a_directory_that_is_not_private_is_refused(
    private: Path, tmp_path: Path, fault: str
) -> None:
    """Each sentence names the directory; nothing is written."""
    path = str(spoil(fault, private))

    with pytest.raises(OperatorError, match=path):
        await FileKeyMaker().make_request(path, "job-12.1")
    with pytest.raises(OperatorError, match=path):
        await FileKeyMaker().store(path, CredentialKind.TOKEN, "token")
    assert not (tmp_path / "job.key").exists()


@pytest.mark.parametrize("name", ["", "x" * 65])
async def test_a_name_that_no_certificate_can_say_is_refused(private: Path, name: str) -> None:
    """Before a key is made."""
    with pytest.raises(UserError, match="1 to 64"):
        await FileKeyMaker().make_request(str(private), name)
    assert str(private) not in map(str, private.parent.iterdir())


async def test_another_users_directory_is_refused(
    private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its owner could read what we write there."""
    await FileKeyMaker().store(str(private), CredentialKind.TOKEN, "token")
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000)

    with pytest.raises(OperatorError, match="another user's"):
        await FileKeyMaker().make_request(str(private), "job-12.1")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
async def test_a_key_that_cannot_be_written_whole_is_not_left_there(
    private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is the operator's error, and the next attempt may make its key."""
    full = os.open("/dev/full", os.O_WRONLY)
    fdopen = os.fdopen

    def fdopen_full(descriptor: int, mode: str) -> IO[bytes]:
        os.dup2(full, descriptor)
        return cast("IO[bytes]", fdopen(descriptor, mode))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdopen", fdopen_full)
        with pytest.raises(OperatorError, match=r"job\.key can't be written: No space left"):
            await FileKeyMaker().make_request(str(private), "job-12.1")
    os.close(full)

    assert modes(private) == {}


async def test_a_credential_that_cannot_be_created_is_the_operators_error(
    private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sentence names the file."""

    def refuse(*_: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "open", refuse)

    with pytest.raises(OperatorError, match=r"job\.token\.part can't be written: Read-only"):
        await FileKeyMaker().store(str(private), CredentialKind.TOKEN, "token")
