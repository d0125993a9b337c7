"""The documents of an OCI image: index, manifest, configuration; and which one is for this node.

An index lists manifests by platform, or further indices; a manifest names the configuration
and the layers, each by its digest and size. Docker's own documents (schema 2) differ only in
the media types. Everything is checked here for form; that the bytes are those of the digest
is whoever fetched them to see.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence

import msgspec

from pilot.images.reference import is_digest
from transport.errors import UserError
from transport.messages import Record

DOCUMENT_BYTES_MAX = 4 << 20
LAYERS_MAX = 512
_DEPTH_MAX = 4
_NAMES_SHOWN_MAX = 8
MANIFEST_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
REF_NAME = "org.opencontainers.image.ref.name"
_MACHINES = {
    "x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "armv6l": "arm", "i686": "386",
    "i386": "386", "loongarch64": "loong64",
}  # fmt: skip
_USUAL_VARIANTS = ("", "v8", "v1", "v7")


class Platform(Record, frozen=True, kw_only=True):
    """What an image is made for."""

    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(Record, frozen=True, kw_only=True, rename="camel"):
    """A document or layer, by what is in it."""

    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None
    annotations: dict[str, str] | None = None


class Index(Record, frozen=True, kw_only=True):
    """Manifests to choose from."""

    manifests: tuple[Descriptor, ...]


class Manifest(Record, frozen=True, kw_only=True):
    """One image for one platform."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


class _RootFs(Record, frozen=True, kw_only=True):
    diff_ids: tuple[str, ...]


class Config(Record, frozen=True, kw_only=True):
    """What an image is for, and what its layers are, unpacked."""

    architecture: str = ""
    os: str = ""
    rootfs: _RootFs


class _Shape(Record, frozen=True, kw_only=True, rename="camel"):
    schema_version: int = 0
    manifests: msgspec.Raw = msgspec.Raw()
    layers: msgspec.Raw = msgspec.Raw()


class Resolved(Record, frozen=True, kw_only=True):
    """An image that was found: what it is, and what to unpack."""

    digest: str
    also: tuple[str, ...] = ()
    """Digests of the indices that led to it: names of the same image, too."""
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]


Fetch = Callable[[Descriptor], bytes]
"""Returns a document whose bytes were held against its digest and size."""


def node_architecture() -> str:
    """Return this node's architecture, as OCI calls it."""
    machine = platform.machine()
    return _MACHINES.get(machine, machine)


def resolve(top: Descriptor, fetch: Fetch, *, tag: str = "", architecture: str) -> Resolved:
    """Follow a descriptor through indices to the image for a Linux node of this architecture.

    Raises `UserError` (a fragment of a sentence) where there is none, or a document is broken.
    """
    also: list[str] = []
    descriptor = top
    for _ in range(_DEPTH_MAX):
        document = parse_document(fetch(descriptor))
        if isinstance(document, Manifest):
            config = parse_config(fetch(document.config))
            return _resolved(descriptor, tuple(also), document, config, architecture)
        if is_digest(descriptor.digest):
            also.append(descriptor.digest)
        descriptor = choose(named(document.manifests, tag), architecture)
        tag = ""
    raise UserError(f"its indices are nested more than {_DEPTH_MAX} deep")


def parse_document(data: bytes) -> Index | Manifest:
    """Return the index or manifest that these bytes are; raises `UserError` where they are none."""
    try:
        shape = msgspec.json.decode(data, type=_Shape)
        if bytes(shape.manifests):
            index = msgspec.json.decode(data, type=Index)
            _check_descriptors(index.manifests)
            return index
        if bytes(shape.layers):
            manifest = msgspec.json.decode(data, type=Manifest)
            _check_descriptors((manifest.config, *manifest.layers))
            return manifest
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"its manifest can't be read ({error}); build or push it again") from error
    if shape.schema_version == 1:
        raise UserError("it has a manifest of Docker's old schema 1; push it again, with a newer")
    raise UserError("its manifest is neither an image's nor an index of images")


def parse_config(data: bytes) -> Config:
    """Return an image's configuration; raises `UserError` where these bytes are none."""
    try:
        return msgspec.json.decode(data, type=Config)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(
            f"its configuration can't be read ({error}): it may be no container image but "
            "something else that registries keep"
        ) from error


def named(manifests: Sequence[Descriptor], tag: str) -> tuple[Descriptor, ...]:
    """Return those of a tag, or all without one; more than one image needs a tag.

    Raises `UserError` where that leaves none, or leaves it open which.
    """
    names = [(m.annotations or {}).get(REF_NAME, "") for m in manifests]
    if tag:
        found = tuple(
            m
            for m, name in zip(manifests, names, strict=True)
            if name == tag or name.endswith(f":{tag}")
        )
        if not found:
            raise UserError(f"it holds no image {tag!r}, only {_listed(names)}")
        return found
    if len(set(filter(None, names))) > 1:
        raise UserError(f"it holds several images: {_listed(names)}; write :TAG after its name")
    return tuple(manifests)


def choose(manifests: Sequence[Descriptor], architecture: str) -> Descriptor:
    """Return the manifest for Linux on this architecture; raises `UserError` if there is none."""
    fitting = [
        m
        for m in manifests
        if m.platform is None
        or (m.platform.os in ("linux", "") and m.platform.architecture in (architecture, ""))
    ]
    if not fitting:
        others = sorted(
            {
                f"{m.platform.os}/{m.platform.architecture}"
                for m in manifests
                if m.platform is not None and m.platform.os != "unknown"
            }
        )
        raise UserError(_foreign(", ".join(others[:_NAMES_SHOWN_MAX]) or "nothing", architecture))
    return min(fitting, key=_unusualness)


def _unusualness(descriptor: Descriptor) -> tuple[bool, int]:
    variant = descriptor.platform.variant if descriptor.platform else ""
    known = variant in _USUAL_VARIANTS
    return descriptor.platform is None, _USUAL_VARIANTS.index(variant) if known else 99


def _resolved(
    descriptor: Descriptor,
    also: tuple[str, ...],
    manifest: Manifest,
    config: Config,
    architecture: str,
) -> Resolved:
    check_config(config, len(manifest.layers), architecture)
    return Resolved(
        digest=descriptor.digest,
        also=also,
        layers=manifest.layers,
        diff_ids=config.rootfs.diff_ids,
    )


def check_config(config: Config, layers: int, architecture: str) -> None:
    """Raise `UserError` for an image of another kind of machine, or with other layers."""
    if config.os not in ("linux", "") or config.architecture not in (architecture, ""):
        raise UserError(_foreign(f"{config.os}/{config.architecture}", architecture))
    if len(config.rootfs.diff_ids) != layers:
        raise UserError(
            f"it has {layers} layers, and its configuration tells of "
            f"{len(config.rootfs.diff_ids)}; build it again"
        )
    if layers > LAYERS_MAX:
        raise UserError(f"it has {layers} layers, and {LAYERS_MAX} is the most")
    if not all(map(is_digest, config.rootfs.diff_ids)):
        raise UserError("its configuration names layers by something else than sha256")


def _check_descriptors(descriptors: Sequence[Descriptor]) -> None:
    for descriptor in descriptors:
        if not is_digest(descriptor.digest) or descriptor.size < 0:
            raise UserError(
                f"its manifest names a part that is no sha256 digest and size: "
                f"{descriptor.digest[:80]!r}"
            )


def _foreign(others: str, architecture: str) -> str:
    return (
        f"it is made for {others}, and this node is linux/{architecture}; name an image for this "
        "architecture, or one for several"
    )


def _listed(names: Sequence[str]) -> str:
    shown = [name[:80] for name in dict.fromkeys(filter(None, names))]
    return ", ".join(map(repr, shown[:_NAMES_SHOWN_MAX])) or "one without a name"
