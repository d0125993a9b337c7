"""Layers over each other, and layers that mean harm."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilot.images.layers import Budget
from pilot.images.unpack import Tree
from pilot.plain_files import remove_tree
from tests.pilot.images.building import (
    digest_of,
    directory,
    entry,
    file,
    hardlink,
    symlink,
    tar,
)
from transport.errors import UserError

Entries = list[tuple[tarfile.TarInfo, bytes]]


def unpack(root: Path, *layers: Entries, bytes_max: int = 1 << 20, entries_max: int = 1000) -> Tree:
    """Unpack layers into a new directory."""
    root.mkdir()
    tree = Tree(root, Budget(bytes_max, entries_max))
    for entries in layers:
        add(tree, tar(entries))
    return tree


def add(tree: Tree, layer: bytes) -> None:
    """Add one layer, packed."""
    tree.add_layer(io.BytesIO(gzip.compress(layer)), digest_of(layer))


def listing(root: Path) -> dict[str, str]:
    """Return all below a directory: the content of files, the targets of links."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_file():
            found[name] = path.read_text()
        else:
            found[name] = "/"
    return found


def test_a_later_layer_wins(tmp_path: Path) -> None:
    """Files replace files, directories are joined, and a kind replaces another."""
    unpack(
        tmp_path / "root",
        [file("a/x", b"1"), file("a/y", b"1"), directory("d"), file("d/z"), symlink("l", "a")],
        [file("a/x", b"2"), directory("a", 0o700), file("d", b"now a file"), directory("l")],
    )

    assert listing(tmp_path / "root") == {
        "a": "/",
        "a/x": "2",
        "a/y": "1",
        "d": "now a file",
        "l": "/",
    }


def test_whiteouts_remove_what_was_below(tmp_path: Path) -> None:
    """One name, or all of a directory; wherever they stand, what the layer brings stays."""
    unpack(
        tmp_path / "root",
        [file("a/x"), file("a/y"), file("b/old/x"), file("b/x"), file("c/x")],
        [
            file("a/.wh.x"),
            file("b/old/new"),
            file("b/.wh..wh..opq"),
            file("b/y"),
            file("c/y"),
            file(".wh.c"),
            file(".wh.nothing"),
            file("none/.wh.x"),
        ],
    )

    assert set(listing(tmp_path / "root")) == {"a", "a/y", "b", "b/old", "b/old/new", "b/y"} | {
        "c",
        "c/y",
    }


def test_links_of_an_earlier_layer_lead_on_inside(tmp_path: Path) -> None:
    """As in an image with a merged /usr: /lib is a link, and later layers write to /lib."""
    unpack(
        tmp_path / "root",
        [directory("usr/lib"), symlink("lib", "usr/lib"), symlink("lib64", "/usr/lib")],
        [file("lib/a", b"a"), file("lib64/b", b"b"), hardlink("c", "lib/a")],
    )

    root = tmp_path / "root"
    assert (root / "usr/lib/a").read_text() == "a"
    assert (root / "usr/lib/b").read_text() == "b"
    assert (root / "c").samefile(root / "usr/lib/a")
    assert (root / "lib").is_symlink()


def test_what_is_unpacked_is_ours_to_remove(tmp_path: Path) -> None:
    """Rights are kept but for those that would keep us out; times are kept; no devices."""
    unpack(
        tmp_path / "root",
        [
            directory("locked", 0),
            file("locked/secret", b"x", 0),
            file("su", b"x", 0o4755),
            entry("null", tarfile.CHRTYPE),
            entry("pipe", tarfile.FIFOTYPE),
        ],
    )

    root = tmp_path / "root"
    assert (root / "locked/secret").read_text() == "x"
    assert (root / "su").stat().st_mode & 0o7777 == 0o755
    assert (root / "su").stat().st_mtime == 1_700_000_000
    assert {path.name for path in root.iterdir()} == {"locked", "su"}


def test_mount_points_are_added(tmp_path: Path) -> None:
    """Where there is something of that name already it stays, link or file."""
    tree = unpack(tmp_path / "root", [symlink("home", "usr/home"), file("mnt", b"file")])

    tree.add_mount_points()

    found = listing(tmp_path / "root")
    assert {"dev", "proc", "sys", "tmp", "var/tmp", "root"} <= set(found)
    assert (found["home"], found["mnt"]) == ("-> usr/home", "file")


HOSTILE: dict[str, list[Entries]] = {
    "climbs": [[file("../escaped")]],
    "climbs later": [[file("a/b/../../../escaped")]],
    "climbs by a whiteout": [[file("a/.wh...")]],
    "links to the host": [[hardlink("a", "../../escaped")]],
    "links to nothing": [[hardlink("a", "b")]],
    "links to itself": [[hardlink("a", "a")]],
    "links to a directory": [[directory("d"), hardlink("a", "d")]],
    "a ring": [[symlink("a", "b"), symlink("b", "a"), file("a/x")]],
    "below a file": [[file("a"), file("a/b")]],
    "an endless name": [[file("/".join(["d" * 200] * 40))]],
    "a long name": [[file("x" * 300)]],
    "an empty link": [[symlink("a", "")]],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_layer_is_a_sentence(name: str, tmp_path: Path) -> None:
    """And nothing is written beside the image."""
    (tmp_path / "escaped").write_text("mine")
    with pytest.raises(UserError):
        unpack(tmp_path / "root", *HOSTILE[name])

    assert {path.name for path in tmp_path.iterdir()} == {"root", "escaped"}
    assert (tmp_path / "escaped").read_text() == "mine"
    assert (tmp_path / "escaped").stat().st_nlink == 1


@pytest.mark.parametrize(
    "target", ["/outside", "../../outside", "../outside", "../../../../../../../outside"]
)
@pytest.mark.parametrize("is_later", [False, True])
def test_nothing_is_written_through_a_link(target: str, is_later: bool, tmp_path: Path) -> None:
    """A link that leads out leads to the same name inside, as it would for a process there."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("mine")
    first: Entries = [symlink("a", target), symlink("f", f"{outside}/x")]
    second: Entries = [
        file("a/x", b"theirs"),
        file("f", b"theirs"),
        file("a/.wh.x"),
        file("a/.wh..wh..opq"),
    ]
    unpack(tmp_path / "root", *([first, second] if is_later else [first + second]))

    assert [path.name for path in outside.iterdir()] == ["x"]
    assert (outside / "x").read_text() == "mine"
    assert (tmp_path / "root/f").read_text() == "theirs"
    assert not (tmp_path / "root/f").is_symlink()
    assert (tmp_path / "root/outside/x").read_text() == "theirs"


def test_a_name_from_the_root_is_the_images(tmp_path: Path) -> None:
    """An absolute name means a place in the image."""
    unpack(tmp_path / "root", [file("/tmp/x", b"inside")])

    assert (tmp_path / "root/tmp/x").read_text() == "inside"


def test_a_bomb_of_bytes_ends_early(tmp_path: Path) -> None:
    """A file that is far bigger than the cache isn't begun; nor is a stream read to its end."""
    with pytest.raises(UserError, match="the most that this node keeps"):
        unpack(tmp_path / "root", [file("zero", bytes(3 << 20))])
    assert list((tmp_path / "root").iterdir()) == []

    tree = Tree(tmp_path / "root", Budget(1 << 20, 10))
    trailing = tar([file("a")]) + bytes(64 << 20)
    with pytest.raises(UserError, match="far longer"):
        add(tree, trailing)


def test_a_bomb_of_entries_ends_early(tmp_path: Path) -> None:
    """Empty files and directories made on the way count as well."""
    with pytest.raises(UserError, match="more than 20 files"):
        unpack(tmp_path / "root", [file(f"f{n}") for n in range(30)], entries_max=20)
    with pytest.raises(UserError, match="more than 20 files"):
        unpack(tmp_path / "root2", [file("/".join("abcdefghijklmnopqrstuvwxyz"))], entries_max=20)


def test_another_layer_than_named_is_refused(tmp_path: Path) -> None:
    """The configuration's digest of the unpacked layer holds, too."""
    tree = unpack(tmp_path / "root")
    layer = tar([file("a")])

    with pytest.raises(UserError, match="is what it should be"):
        tree.add_layer(io.BytesIO(layer), digest_of(b"other"))


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b", b"\x1f\x8bnonsense" * 9, b"x" * 600])
def test_a_layer_that_is_no_tar_is_a_sentence(data: bytes, tmp_path: Path) -> None:
    """Whatever a registry keeps as a layer."""
    with pytest.raises(UserError):
        unpack(tmp_path / "root").add_layer(io.BytesIO(data), digest_of(b""))


def test_zstd_is_said(tmp_path: Path) -> None:
    """What this Python can't unpack is named, and what to do."""
    with pytest.raises(UserError, match=r"zstd|corrupt"):
        unpack(tmp_path / "root").add_layer(io.BytesIO(b"\x28\xb5\x2f\xfdxxxx"), digest_of(b""))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 4095), st.binary(min_size=1, max_size=12)), min_size=1, max_size=6
    )
)
def test_a_damaged_layer_is_a_sentence_or_an_image(
    tmp_path: Path, damage: list[tuple[int, bytes]]
) -> None:
    """Whatever is changed in the headers of a layer, nothing else than a `UserError` comes."""
    layer = bytearray(
        tar([directory("d"), file("d/x", b"x" * 600), symlink("l", "d"), hardlink("h", "d/x")])
    )
    for at, what in damage:
        layer[at : at + len(what)] = what
    root = tmp_path / "root"
    root.mkdir()
    try:
        add(Tree(root, Budget(1 << 20, 100)), bytes(layer))
    except UserError:
        pass
    finally:
        remove_tree(root)

    assert os.listdir(tmp_path) == []
