"""Looking into real images of every form."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pilot.containers.mounts import ImageTree, SourceKind
from pilot.containers.runtime import ImageForm
from pilot.containers.sources import look_at_sources
from pilot.images.look import look_into
from tests.pilot.sandbox import needs_apptainer
from tests.pilot.squashed import needs_squashfs, squashed, wrapped_in_sif

pytestmark = pytest.mark.real

PATHS = ("/tmp", "/mnt", "/srv", "/opt", "/var/tmp", "/cvmfs", "/home", "/usr/a/b")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give an image as a directory: empty, full, of links, of files, and hostile."""
    root = tmp_path / "image"
    for name in ("mnt", "opt/soft=", "usr", "elsewhere/tmp", "bin"):
        (root / name).mkdir(parents=True)
    (root / "opt" / "=").write_text("")
    (root / "tmp").symlink_to("mnt")
    (root / "srv").symlink_to("/etc")
    (root / "var").symlink_to("elsewhere")
    (root / "home").write_text("")
    return root


SEEN = ImageTree(
    directories={"/mnt": True, "/opt": False}, links=frozenset({"/tmp", "/srv", "/home"})
)


async def test_a_directory_is_seen_as_it_is(root: Path) -> None:
    """No link is followed, neither out of the image nor within; what is behind one is one, too."""
    seen = await look_into(str(root), ImageForm.DIRECTORY, directories=PATHS)

    assert seen.directories == SEEN.directories
    assert seen.links == SEEN.links | {"/var/tmp"}


async def test_an_image_behind_a_link_is_that_image(root: Path, tmp_path: Path) -> None:
    """CVMFS names the newest of its images by a link."""
    (tmp_path / "latest").symlink_to(root)

    seen = await look_into(str(tmp_path / "latest"), ImageForm.DIRECTORY, directories=PATHS)

    assert seen.directories == SEEN.directories


@needs_squashfs
async def test_a_squashfs_file_is_seen_like_its_directory(root: Path) -> None:
    """A link on the way is seen as absent, which is as good."""
    seen = await look_into(str(squashed(root)), ImageForm.SQUASHFS, directories=PATHS)

    assert seen == SEEN


@needs_squashfs
async def test_a_name_in_an_image_cannot_forge_a_listing(root: Path) -> None:
    """A file may be called like any line; then the image is unknown, at worst."""
    line = "drwxr-xr-x root/root 3 2026-01-01 00:00 squashfs-root"
    (root / "mnt" / f"a\n=\n{line}\n{line}".replace("/", "_")).write_text("")

    seen = await look_into(str(squashed(root)), ImageForm.SQUASHFS, directories=("/mnt", "/tmp"))

    assert seen == ImageTree()


@needs_squashfs
@needs_apptainer
@pytest.mark.apptainer
async def test_a_sif_is_seen_through_its_header(root: Path) -> None:
    """The partition's place is read from a header that Apptainer itself wrote."""
    sif = wrapped_in_sif(squashed(root))

    assert await look_into(str(sif), ImageForm.SIF, directories=PATHS) == SEEN


@pytest.mark.parametrize("form", list(ImageForm))
async def test_what_is_no_image_is_unknown(tmp_path: Path, form: ImageForm) -> None:
    """Text, nothing, and no file at all; whether it runs is for the runtime to say."""
    (tmp_path / "text").write_text("not an image\n" * 1000)
    (tmp_path / "empty").write_text("")

    for name in ("text", "empty", "absent"):
        assert await look_into(str(tmp_path / name), form) == ImageTree()


async def test_a_look_is_bounded_in_what_it_looks_for(root: Path) -> None:
    """Patterns aren't looked for: unsquashfs would list what fits them."""
    paths = ("/m*", "/[m]nt", "/mnt")

    seen = await look_into(str(root), ImageForm.DIRECTORY, directories=paths)

    assert seen == ImageTree(directories={"/mnt": True})


# --- file systems that hang ------------------------------------------------------------------


@contextmanager
def hung_mount(image: Path, place: Path) -> Iterator[Path]:
    """Give a mount whose server stopped, as that of a dead network file system."""
    place.mkdir()
    server = subprocess.Popen(["squashfuse", "-f", image, place], start_new_session=True)
    try:
        wait_mounted(server, place)
        os.kill(server.pid, signal.SIGSTOP)
        yield place
    finally:
        server.kill()
        server.wait()
        subprocess.run(["umount", "-l", place], check=False)


def wait_mounted(server: subprocess.Popen[bytes], place: Path) -> None:
    """Wait until it is mounted; the server ends where it can't be."""
    while not os.path.ismount(place):
        try:
            server.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        pytest.skip("squashfuse can't mount here")


@needs_squashfs
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may use /dev/fuse on every machine")
@pytest.mark.skipif(shutil.which("squashfuse") is None, reason="squashfuse is not installed")
async def test_a_hung_file_system_costs_the_deadline_only(root: Path, tmp_path: Path) -> None:
    """Looking into an image there says unknown, at a source silent; others are still seen."""
    with hung_mount(squashed(root), tmp_path / "hung") as place:
        seen = await look_into(str(place), ImageForm.DIRECTORY, timeout_s=0.5)
        kinds = await look_at_sources(
            [str(tmp_path), str(place / "a"), str(root / "home")], timeout_s=0.5
        )

    assert seen == ImageTree()
    assert list(kinds.values()) == [SourceKind.DIRECTORY, SourceKind.SILENT, SourceKind.FILE]
