"""Every form of image but a registry's, as a job gets it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from pilot.containers.runtime import ImageForm
from pilot.images import ImageStore, StoreOptions
from pilot.images.manifest import node_architecture
from tests.pilot.images.building import (
    digest_of,
    directory,
    docker_archive,
    file,
    image,
    oci_archive,
    small_image,
    tar,
)
from transport.errors import OperatorError, UserError

pytestmark = pytest.mark.real
OTHER = "s390x" if node_architecture() != "s390x" else "amd64"


def make_squashfs(path: Path) -> Path:
    """Make a squashfs with a file, a setuid program, a locked directory and a link; or skip."""
    if shutil.which("mksquashfs") is None:
        pytest.skip("mksquashfs is not on this machine; tests/engines/install-registry has it")
    tree = path.with_name("tree")
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/motd").write_text("squashed")
    (tree / "program").write_text("#!/bin/sh")
    (tree / "program").chmod(0o4755)
    (tree / "link").symlink_to("/etc/motd")
    os.mkfifo(tree / "pipe")
    subprocess.run(
        ["mksquashfs", tree, path, "-no-progress", "-quiet", "-noappend"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return path


def sha256(path: Path) -> str:
    """Return a file's digest."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


async def test_a_directory_is_taken_as_it_is(store: ImageStore, tmp_path: Path) -> None:
    """It has no digest, and where one is required that is said."""
    (tmp_path / "image").mkdir()
    found = await store.get(str(tmp_path / "image"))

    assert (found.path, found.form, found.digest) == (found.reference, ImageForm.DIRECTORY, "")
    with pytest.raises(UserError, match="a plain directory has none"):
        await store.get(str(tmp_path / "image"), digest=digest_of(b""))


async def test_a_squashfs_is_told_by_its_content(store: ImageStore, tmp_path: Path) -> None:
    """Whatever it is called; its digest is the file's."""
    path = make_squashfs(tmp_path / "image.sif")
    found = await store.get(str(path))

    assert found.form is ImageForm.SQUASHFS
    assert found.digest == sha256(path)
    assert (await store.get(str(path), digest=found.digest)) == found


async def test_a_changed_file_is_another_image(store: ImageStore, tmp_path: Path) -> None:
    """What was remembered of a file doesn't hold for another of the same name and size."""
    path = make_squashfs(tmp_path / "image")
    before = await store.get(str(path))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    after = await store.get(str(path))

    assert after.digest == sha256(path) != before.digest
    assert after.state != before.state
    with pytest.raises(UserError) as raised:
        await store.get(str(path), digest=before.digest)
    assert before.digest in str(raised.value)
    assert after.digest in str(raised.value)


async def test_a_squashfs_becomes_a_directory(store: ImageStore, tmp_path: Path) -> None:
    """Unpacked into the cache: the same digest, no setuid, no pipes; held, it stays."""
    path = make_squashfs(tmp_path / "image")
    unpacked = await store.as_directory(await store.get(str(path)))

    root = Path(unpacked.path)
    assert (unpacked.form, unpacked.digest) == (ImageForm.DIRECTORY, sha256(path))
    assert (root / "etc/motd").read_text() == "squashed"
    assert (root / "program").stat().st_mode & 0o7777 == 0o755
    assert (root / "link").is_symlink()
    assert not (root / "pipe").exists()
    assert await store.as_directory(unpacked) == unpacked
    with await store.hold(unpacked) as lock:
        assert lock.fileno() >= 0


async def test_a_corrupt_squashfs_is_a_sentence(store: ImageStore, tmp_path: Path) -> None:
    """Its header is whole, what follows isn't."""
    path = make_squashfs(tmp_path / "image")
    data = path.read_bytes()
    path.write_bytes(data[:96] + bytes(len(data) - 96))

    with pytest.raises(UserError, match="squashfs can't be"):
        await store.as_directory(await store.get(str(path)))


async def test_a_sif_is_told_and_unpacked(
    apptainer: Path, store: ImageStore, tmp_path: Path
) -> None:
    """A file that Apptainer itself built, of this architecture."""
    tree = tmp_path / "tree"
    for name in ("bin", "etc"):
        (tree / name).mkdir(parents=True)
    (tree / "etc/motd").write_text("in a SIF")
    path = tmp_path / "image"
    built = subprocess.run(
        [apptainer, "build", path, tree],
        env={
            **os.environ,
            "APPTAINER_CACHEDIR": f"{tmp_path}/c",
            "APPTAINER_TMPDIR": f"{tmp_path}",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    found = await store.get(str(path))
    unpacked = await store.as_directory(found)

    assert (found.form, found.digest) == (ImageForm.SIF, sha256(path))
    assert (Path(unpacked.path) / "etc/motd").read_text() == "in a SIF"

    data = bytearray(path.read_bytes())
    data[45:47] = b"11" if OTHER == "s390x" else b"02"
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"made for linux/{OTHER}"):
        await store.get(str(path))
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="cut short"):
        await store.get(str(path))


@pytest.mark.parametrize("is_named", [False, True])
async def test_an_oci_archive(store: ImageStore, tmp_path: Path, is_named: bool) -> None:
    """By its scheme, or as a tar file that turns out to be one."""
    made = small_image("archived")
    path = oci_archive(tmp_path / "image.x", {"": made})
    found = await store.get(f"oci-archive:{path}" if is_named else str(path), digest=made.digest)

    assert found.digest == made.digest
    assert (Path(found.path) / "etc/motd").read_text() == "archived"


async def test_an_archive_of_several_images(store: ImageStore, tmp_path: Path) -> None:
    """A tag chooses; without one they are listed."""
    images = {"1": small_image("one"), "2": small_image("two")}
    path = oci_archive(tmp_path / "image.tar", images)

    assert (await store.get(f"oci-archive:{path}:2")).digest == images["2"].digest
    with pytest.raises(UserError, match="several images: '1', '2'"):
        await store.get(str(path))
    with pytest.raises(UserError, match="no image '3'"):
        await store.get(f"oci-archive:{path}:3")


async def test_a_docker_archive(store: ImageStore, tmp_path: Path) -> None:
    """Its digest is the image id."""
    image_id = docker_archive(tmp_path / "x.tar", tar([file("a", b"1")]), tar([file("b", b"2")]))
    found = await store.get(f"docker-archive:{tmp_path}/x.tar:1", digest=image_id)

    assert (Path(found.path) / "a").read_text() == "1"
    assert (Path(found.path) / "b").read_text() == "2"


async def test_broken_archives_are_sentences(store: ImageStore, tmp_path: Path) -> None:
    """Each names what is wrong with the file."""
    made = small_image()
    path = oci_archive(tmp_path / "a.tar", {"": made})
    whole = path.read_bytes()
    problems = {}

    async def problem(name: str, data: bytes) -> str:
        path.write_bytes(data)
        with pytest.raises(UserError) as raised:
            await store.get(str(path))
        problems[name] = str(raised.value)
        return problems[name]

    some_blob = max(made.blobs.values(), key=len)
    assert "can't be used" in await problem("cut short", whole[: len(whole) // 3])
    changed = whole.replace(some_blob, bytes(len(some_blob)))
    assert "is what it should be; copy it again" in await problem("other bytes", changed)
    assert "no OCI archive" in await problem("a tar", tar([file("x")]))
    assert "can't be read" in await problem("no JSON", tar([file("index.json", b"{")]))
    nested = json.dumps({"manifests": [{"digest": "sha256:x", "size": 1}]}).encode()
    assert "no sha256" in await problem("no digest", tar([file("index.json", nested)]))
    linked, content = directory("index.json")
    linked.type, linked.linkname = tarfile.SYMTYPE, "/etc/passwd"
    assert "no OCI archive" in await problem("a link", tar([(linked, content)]))
    assert "gunzip" in await problem("gzip", b"\x1f\x8b" + bytes(600))
    assert "is empty" in await problem("empty", b"")
    assert "by its content" in await problem("text", b"#!/bin/sh\n")
    foreign = oci_archive(tmp_path / "b.tar", {"": small_image(architecture=OTHER)}).read_bytes()
    assert f"made for linux/{OTHER}" in await problem("foreign", foreign)
    hostile = image(tar([file("../../escaped", b"x")]))
    escaping = oci_archive(tmp_path / "b.tar", {"": hostile}).read_bytes()
    assert "leads out of the image" in await problem("hostile", escaping)
    assert not (tmp_path / "escaped").exists()


async def test_what_is_not_there(store: ImageStore, tmp_path: Path) -> None:
    """A path that leads to nothing, to a pipe, or to a CVMFS that this node hasn't."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no such file or directory"):
        await store.get(f"{tmp_path}/nothing")
    with pytest.raises(UserError, match="neither a file nor a directory"):
        await store.get(f"{tmp_path}/pipe")
    with pytest.raises(OperatorError, match="this node has no /cvmfs/no-such"):
        await store.get("/cvmfs/no-such.example/image")


async def test_a_bomb_is_refused(tmp_path: Path) -> None:
    """What is more than the cache may hold, unpacked, never gets there."""
    store = ImageStore(tmp_path / "images", StoreOptions(bytes_max=4 << 20, timeout_s=60))
    path = oci_archive(tmp_path / "a.tar", {"": image(tar([file("zero", bytes(64 << 20))]))})

    assert path.stat().st_size < 1 << 20
    with pytest.raises(UserError, match="the most that this node keeps"):
        await store.get(str(path))
    assert list((tmp_path / "images/entries").iterdir()) == []


async def test_a_store_without_a_cache_says_so(tmp_path: Path) -> None:
    """Directories and files are had all the same."""
    store = ImageStore()
    path = oci_archive(tmp_path / "a.tar", {"": small_image()})

    assert (await store.get(str(tmp_path))).form is ImageForm.DIRECTORY
    with pytest.raises(OperatorError, match="no image cache"):
        await store.get(str(path))
