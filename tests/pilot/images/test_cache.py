"""The cache under many processes, under death, and under its bound."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pilot.images import ImageStore, StoreOptions
from pilot.images.cache import Entry, ImageCache
from pilot.images.locks import try_lock
from pilot.images.reference import RegistryReference
from pilot.images.tasks import Bounds, PullImage
from tests.pilot.images.building import digest_of, file, image, oci_archive, small_image, tar
from tests.pilot.images.test_faulty_registry import Handler, hang, serving
from transport.errors import OperatorError

ROOT = Path(__file__).parents[3]
A, B, C = (digest_of(name) for name in (b"a", b"b", b"c"))


def fill(cache: ImageCache, digest: str, size: int = 1000) -> Path:
    """Put an image into the cache by hand."""
    with cache.lock(digest), cache.filling(digest) as place:
        (place / "root").mkdir()
        (place / "root/x").write_text("x")
        cache.keep(place, Entry(digest=digest, bytes=size))
    return cache.root(digest)


def names(cache: ImageCache) -> list[str]:
    """Return the digests of what is there, the longest unused first."""
    return [entry.digest for entry in cache.entries()]


def test_the_longest_unused_goes(tmp_path: Path) -> None:
    """What was asked for lately stays."""
    cache = ImageCache(tmp_path / "c", bytes_max=2500)
    fill(cache, A)
    fill(cache, B)
    assert cache.find(A) is not None
    fill(cache, C)

    assert names(cache) == [A, C]
    assert {path.name for path in (tmp_path / "c").iterdir()} == {"entries", "names", "locks"}


def test_what_is_used_stays(tmp_path: Path) -> None:
    """Rather than take it from its user, a new image is refused; later there is room."""
    cache = ImageCache(tmp_path / "c", bytes_max=2500)
    fill(cache, A)
    with cache.hold(A), cache.hold(A):
        fill(cache, B)
        fill(cache, C)
        assert names(cache) == [A, C]
        with pytest.raises(OperatorError, match="are in use; raise its bound"):
            fill(cache, B, 2000)
        assert not list((tmp_path / "c").glob("filling-*"))
    fill(cache, B, 2000)

    assert names(cache) == [B]


def test_what_is_gone_cant_be_held(tmp_path: Path) -> None:
    """Its user is told, and not given an empty directory."""
    cache = ImageCache(tmp_path / "c", bytes_max=1500)
    fill(cache, A)
    fill(cache, B)

    with pytest.raises(OperatorError, match="was removed"):
        cache.hold(A)


def test_what_the_dead_left_is_swept(tmp_path: Path) -> None:
    """But not what a living process is filling."""
    cache = ImageCache(tmp_path / "c", bytes_max=2500)
    fill(cache, A)
    for digest in (B, C):
        left = tmp_path / "c" / f"filling-{digest[7:]}-x"
        (left / "root/locked").mkdir(parents=True)
        (left / "root/locked").chmod(0)
    (tmp_path / "c" / f"removing-{B[7:]}-y").mkdir()
    with cache.lock(C):
        cache.sweep()

    assert [path.name for path in (tmp_path / "c").glob("*ing-*")] == [f"filling-{C[7:]}-x"]
    cache.sweep()
    assert list((tmp_path / "c").glob("*ing-*")) == []


def test_an_entry_that_cant_be_read_is_made_again(tmp_path: Path) -> None:
    """A broken record is no image."""
    cache = ImageCache(tmp_path / "c", bytes_max=2500)
    (fill(cache, A).parent / "entry.json").write_text("{")
    assert cache.find(A) is None
    fill(cache, A)

    assert cache.find(A) is not None


def test_a_directory_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """Whoever writes there chooses what jobs run."""
    (tmp_path / "c").mkdir()
    (tmp_path / "c").chmod(0o777)

    with pytest.raises(OperatorError, match="may be written by others"):
        fill(ImageCache(tmp_path / "c", bytes_max=1), A)


def test_a_lock_whose_file_is_gone_is_no_lock(tmp_path: Path) -> None:
    """Two processes never hold one name, though its file is removed between them."""
    first = try_lock(tmp_path / "lock")
    assert first is not None
    assert try_lock(tmp_path / "lock") is None
    first.remove()
    second = try_lock(tmp_path / "lock")
    first.close()

    assert second is not None
    assert try_lock(tmp_path / "lock") is None
    second.close()


# --- real processes --------------------------------------------------------------------------


def wanting(cache: Path, reference: str) -> subprocess.Popen[str]:
    """Start a process that wants an image."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.pilot.images.wanting", str(cache), reference],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.real
async def test_fifty_who_want_an_image_pull_it_once(tmp_path: Path) -> None:
    """Ten processes and forty jobs of one: each blob is asked for once."""
    made = small_image()
    with serving(made) as server:
        reference = f"docker://{server.address}/x:1"
        others = [wanting(tmp_path / "c", reference) for _ in range(10)]
        store = ImageStore(tmp_path / "c", StoreOptions(timeout_s=100))
        images = await asyncio.gather(*(store.get(reference) for _ in range(40)))
        answers = [await asyncio.to_thread(other.communicate, "") for other in others]

    assert {found.digest for found in images} == {made.digest}
    assert [out for out, _ in answers] == [f"{made.digest}\nTrue\n"] * 10
    assert len(server.asked) == 1 + len(made.blobs)


@pytest.mark.real
async def test_an_image_in_use_by_another_process_stays(tmp_path: Path) -> None:
    """Until that process dies, by whatever death: then its place is there for another."""
    first = oci_archive(tmp_path / "1.tar", {"": image(tar([file("etc/motd", b"1" * 60_000)]))})
    second = oci_archive(tmp_path / "2.tar", {"": image(tar([file("etc/motd", b"2" * 60_000)]))})
    options = StoreOptions(bytes_max=1 << 20, timeout_s=60)
    user = wanting(tmp_path / "c", str(first))
    assert user.stdin is not None
    assert user.stdout is not None
    digest = user.stdout.readline().strip()
    cache = ImageCache(tmp_path / "c", bytes_max=100_000)
    try:
        with pytest.raises(OperatorError, match="in use"):
            cache.make_room(90_000)
        assert names(cache) == [digest]
    finally:
        user.kill()
        user.wait()
        user.stdin.close()
        user.stdout.close()
    cache.make_room(90_000)
    await ImageStore(tmp_path / "c", options).get(str(second))

    assert digest not in names(cache)


@pytest.mark.real
async def test_a_pull_that_is_killed_leaves_nothing_half_done(tmp_path: Path) -> None:
    """Its lock is free, its directory is swept, and the next one pulls the image whole."""
    made = small_image()
    stuck = [True]

    def hang_first(handler: Handler) -> bool:
        _, layer = made.blobs
        return stuck[0] and handler.path.endswith(layer) and hang(handler)

    with serving(made, hang_first) as server:
        helper = start_helper(tmp_path / "c", server.address)
        try:
            wait_until(lambda: any(tmp_path.glob("c/filling-*/root")))
        finally:
            helper.kill()
            helper.wait()
        left = list((tmp_path / "c").glob("filling-*"))
        assert list((tmp_path / "c/entries").iterdir()) == []
        stuck[0] = False
        found = await ImageStore(tmp_path / "c").get(f"docker://{server.address}/x:1")

    assert len(left) == 1
    assert list((tmp_path / "c").glob("filling-*")) == []
    assert (Path(found.path) / "etc/motd").read_text() == "hello"


def start_helper(cache: Path, address: str) -> subprocess.Popen[bytes]:
    """Start the process that pulls."""
    task = PullImage(
        bounds=Bounds(directory=str(cache), bytes_max=1 << 30, timeout_s=60),
        reference=RegistryReference(host=address, name="x", tag="1"),
        since=0.0,
    )
    return subprocess.Popen(
        [sys.executable, "-m", "pilot.images.helper", msgspec.json.encode(task)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)
