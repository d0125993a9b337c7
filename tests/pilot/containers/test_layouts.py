"""Which ways to mount a job are worth a try."""

from __future__ import annotations

import pytest

from pilot.containers.layouts import NoMountPoint, possible_layouts
from pilot.containers.mounts import MAPPED_BASES, ImageTree
from pilot.containers.runtime import Bind, Layers

CVMFS = Bind(source="/cvmfs", destination="/cvmfs")
PERHAPS = Layers(may_make_mount_points=True)
NEVER = Layers()


def tried(image: ImageTree, layers: Layers, *site: Bind) -> list[str]:
    """Return the layouts, each as its base, with + where layers are counted on."""
    return [
        layout.base + ("+" if layout.layers.makes_mount_points else "")
        for layout in possible_layouts(image, layers, site)
    ]


def has(*directories: str, links: tuple[str, ...] = ()) -> ImageTree:
    """Make an image with these directories, all empty."""
    return ImageTree(directories=dict.fromkeys(directories, True), links=frozenset(links))


@pytest.mark.parametrize(
    ("image", "layers", "site", "expected"),
    [
        # All is there: nothing to hope for.
        (has("/tmp", "/mnt"), PERHAPS, (), ["/tmp", "/mnt"]),
        (has("/tmp", "/cvmfs"), PERHAPS, (CVMFS,), ["/tmp"]),
        # A layer would help: first with it, then without what needs it.
        (has("/tmp"), PERHAPS, (CVMFS,), ["/tmp+", "/tmp"]),
        (has("/srv", "/opt"), PERHAPS, (), ["/tmp+", "/srv", "/opt"]),
        (has(), PERHAPS, (), ["/tmp+"]),
        (has("/mnt"), NEVER, (), ["/mnt"]),
        # A link is no place, even for a layer.
        (has("/mnt", links=("/tmp",)), PERHAPS, (), ["/mnt"]),
        (has(links=("/tmp",)), PERHAPS, (), ["/mnt+"]),
        (has(links=("/tmp", "/mnt")), PERHAPS, (), ["/media+"]),
        # Nobody could look: everything may be.
        (ImageTree(), PERHAPS, (), ["/tmp", *MAPPED_BASES]),
        (ImageTree(), PERHAPS, (CVMFS,), ["/tmp+", "/tmp", *MAPPED_BASES]),
        # A runtime that always can, and one that mounts no /tmp.
        (has(), Layers(makes_mount_points=True), (), ["/tmp+"]),
        (has("/tmp", "/mnt"), Layers(has_own_tmp=False), (), ["/mnt"]),
    ],
)
def test_the_best_way_comes_first(
    image: ImageTree, layers: Layers, site: tuple[Bind, ...], expected: list[str]
) -> None:
    """Each is tried until one is verified, so none is there twice."""
    assert tried(image, layers, *site) == expected


@pytest.mark.parametrize("image", [has(), has("/usr"), has(links=("/tmp", "/mnt"))])
def test_an_image_without_a_place_is_explained(image: ImageTree) -> None:
    """The sentence names what was looked for and what the site would have to allow."""
    with pytest.raises(NoMountPoint, match=r"/tmp, /mnt.*neither overlay nor underlay"):
        possible_layouts(image, NEVER)


def test_an_image_of_links_is_refused_by_every_layer() -> None:
    """Whoever made it did so on purpose."""
    image = has(links=("/tmp", *MAPPED_BASES))

    with pytest.raises(NoMountPoint):
        possible_layouts(image, PERHAPS)
