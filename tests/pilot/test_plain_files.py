"""What a payload leaves on purpose is neither followed, waited for, nor left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pilot.plain_files import is_plain_directory, read_plain, remove_tree


def test_only_the_end_of_a_large_file_is_read(tmp_path: Path) -> None:
    """Memory is bounded by what was asked for."""
    path = tmp_path / "log"
    path.write_bytes(b"x" * 1000 + b"the end")

    assert read_plain(path, bytes_max=7) == b"the end"


@pytest.mark.parametrize("kind", ["fifo", "link", "directory", "absent"])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """A pipe would block, a link would lead elsewhere."""
    path = tmp_path / "log"
    (tmp_path / "secret").write_text("secret")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "secret")
    elif kind == "directory":
        path.mkdir()

    with pytest.raises(OSError, match=r"\w"):
        read_plain(path, bytes_max=100)


def test_a_link_is_no_plain_directory(tmp_path: Path) -> None:
    """Nor is what isn't there."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path)

    assert is_plain_directory(tmp_path)
    assert not is_plain_directory(link)
    assert not is_plain_directory(tmp_path / "absent")


def test_a_tree_deeper_than_any_path_is_removed(tmp_path: Path) -> None:
    """Twenty thousand levels: no recursion, no long path."""
    tree = tmp_path / "tree"
    tree.mkdir()
    descriptor = os.open(tree, os.O_RDONLY)
    for _ in range(20_000):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)

    remove_tree(tree)

    assert not tree.exists()


def test_modes_and_links_stop_nothing_and_lead_nowhere(tmp_path: Path) -> None:
    """Directories without rights go; what links point to stays."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "link").symlink_to(precious)
    (tree / "a" / "file").touch()
    os.mkfifo(tree / "a" / "fifo")
    (tree / "a" / "b").chmod(0)
    (tree / "a").chmod(0)

    remove_tree(tree)
    remove_tree(tree)

    assert not tree.exists()
    assert (precious / "file").read_text() == "kept"


def test_a_link_in_the_place_of_a_tree_is_removed_itself(tmp_path: Path) -> None:
    """And not what it points to."""
    precious = tmp_path / "precious"
    precious.mkdir()
    link = tmp_path / "tree"
    link.symlink_to(precious)

    remove_tree(link)

    assert not link.is_symlink()
    assert precious.exists()
