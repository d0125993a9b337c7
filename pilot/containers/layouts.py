"""Where a job can be mounted in an image: every way that is worth a try, the best first.

Whether a runtime can make mount points is often known only when it has tried: a site may allow
overlays and its kernel not. So a layout is a base together with what is hoped of the layers.
First comes the hope, in which every directory of the site's is bound and /tmp is had in any
image; then what needs no layer: what the image hasn't got is left out, and its own directories
serve as the base.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pilot.containers.mounts import MAPPED_BASES, TMP_BASE, ImageTree
from pilot.containers.runtime import Bind, Layers
from transport.errors import OperatorError
from transport.messages import Record


class Layout(Record, frozen=True, kw_only=True):
    """A base, and the layers that it counts on."""

    base: str = TMP_BASE
    layers: Layers = Layers()


class NoMountPoint(OperatorError):
    """Raised when nothing can be mounted into an image: the sentence names what is missing."""


def possible_layouts(
    image: ImageTree, layers: Layers, site: Sequence[Bind] = ()
) -> tuple[Layout, ...]:
    """Return the ways to mount a job with these site's binds, none of them twice.

    Raises `NoMountPoint` when there is none.
    """
    surely = msgspec.structs.replace(layers, may_make_mount_points=False)
    layouts = [Layout(base=base, layers=surely) for base in _bases(image, surely)]
    if layers.may_make_mount_points and not layers.makes_mount_points:
        hoped = msgspec.structs.replace(surely, makes_mount_points=True)
        hopes = [Layout(base=base, layers=hoped) for base in _bases(image, hoped)[:1]]
        if hopes and layouts and hopes[0].base == layouts[0].base and _needs_no_layer(image, site):
            hopes = []
        layouts = [*hopes, *layouts]
    if not layouts:
        raise NoMountPoint(
            f"the image has no directory to mount a job on (looked for "
            f"{', '.join((TMP_BASE, *MAPPED_BASES))}), and neither overlay nor underlay is to be "
            "had to make one"
        )
    return tuple(layouts)


def _bases(image: ImageTree, layers: Layers) -> list[str]:
    own_tmp = layers.has_own_tmp and (layers.makes_tmp or image.has(TMP_BASE))
    can_make = [layers.makes_mount_points and base not in image.links for base in _ALL]
    bases = [TMP_BASE] if own_tmp or can_make[0] else []
    bases += [base for base in MAPPED_BASES if image.has(base)]
    made = [base for base, is_made in zip(_ALL, can_make, strict=True) if is_made]
    return bases or made[:1]


_ALL = (TMP_BASE, *MAPPED_BASES)


def _needs_no_layer(image: ImageTree, site: Sequence[Bind]) -> bool:
    """Return whether all that is bound outside the base is known to be in the image."""
    return all(image.surely_has(bind.destination) for bind in site)
