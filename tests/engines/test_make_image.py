from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.pilot.sandbox import MAKE_IMAGE, make_image

pytestmark = pytest.mark.real


def test_an_image_is_busybox_and_nothing_else(tmp_path: Path) -> None:
    """Beside mount points that every image has there is no directory and no second program."""
    image = make_image(tmp_path / "a" / "image")

    names = {path.name for path in image.iterdir()}
    programs = [path for path in (image / "bin").iterdir() if not path.is_symlink()]
    assert names - {"lib", "lib64", "usr"} == {"bin", "dev", "etc", "proc", "sys", "tmp", "var"}
    assert programs == [image / "bin" / "busybox"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["image"]


def test_an_image_that_is_there_stays(tmp_path: Path) -> None:
    """The second call changes nothing."""
    image = make_image(tmp_path / "image")
    before = image.stat()

    make_image(image)

    assert image.stat() == before


def test_a_directory_that_is_no_image_is_left_alone(tmp_path: Path) -> None:
    """What somebody else keeps there isn't ours to replace."""
    (tmp_path / "file").write_text("mine")
    made = subprocess.run([MAKE_IMAGE, tmp_path], capture_output=True, text=True, check=False)

    assert made.returncode == 1
    assert "not an image of mine" in made.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("arguments", [[], [""], ["a", "b"]])
def test_wrong_usage_is_said(arguments: list[str]) -> None:
    """It takes one directory."""
    made = subprocess.run([MAKE_IMAGE, *arguments], capture_output=True, text=True, check=False)

    assert made.returncode == 2
    assert "usage:" in made.stderr


def test_a_machine_without_busybox_is_told_so(tmp_path: Path) -> None:
    """The sentence names the package, and the exit code is one of its own."""
    made = subprocess.run(
        ["/bin/sh", MAKE_IMAGE, tmp_path / "image"],
        env={"PATH": "/nonexistent"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert made.returncode == 3
    assert "no busybox" in made.stderr
    assert list(tmp_path.iterdir()) == []
