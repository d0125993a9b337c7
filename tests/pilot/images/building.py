"""Images for tests, made by hand: layers, the documents above them, archives, and pushing."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pilot.images.manifest import node_architecture

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"


def digest_of(data: bytes) -> str:
    """Return the digest of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def file(name: str, content: bytes = b"", mode: int = 0o644) -> tuple[tarfile.TarInfo, bytes]:
    """Make a file's entry."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(content), mode, 1_700_000_000
    return info, content


def entry(
    name: str, kind: bytes, target: str = "", mode: int = 0o755
) -> tuple[tarfile.TarInfo, bytes]:
    """Make the entry of a directory, link, device or pipe."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info, b""


def directory(name: str, mode: int = 0o755) -> tuple[tarfile.TarInfo, bytes]:
    """Make a directory's entry."""
    return entry(name, tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    """Make a symlink's entry."""
    return entry(name, tarfile.SYMTYPE, target)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    """Make a hard link's entry."""
    return entry(name, tarfile.LNKTYPE, target)


def tar(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Make a tar file."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


@dataclass
class Image:
    """An image by its documents; what is fetched by digest is in ``blobs``."""

    manifest: bytes
    blobs: dict[str, bytes] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Its manifest's digest."""
        return digest_of(self.manifest)


def image(*layers: bytes, architecture: str = "", packs: bool = True) -> Image:
    """Make an image of these tar files, for this node's architecture or another."""
    packed = [gzip.compress(layer, mtime=0) if packs else layer for layer in layers]
    config = json.dumps(
        {
            "architecture": architecture or node_architecture(),
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(config, CONFIG),
        "layers": [described(blob, LAYER) for blob in packed],
    }
    blobs = {digest_of(blob): blob for blob in (config, *packed)}
    return Image(json.dumps(manifest).encode(), blobs)


def described(data: bytes, kind: str, **more: object) -> dict[str, object]:
    """Make the descriptor of some bytes."""
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data), **more}


def index(images: Mapping[str, Image]) -> bytes:
    """Make an index of images by architecture."""
    manifests = [
        described(made.manifest, MANIFEST, platform={"os": "linux", "architecture": name})
        for name, made in images.items()
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}).encode()


def oci_archive(path: Path, images: Mapping[str, Image]) -> Path:
    """Write an OCI archive of images by tag; the tag may be empty."""
    manifests = [
        described(
            made.manifest,
            MANIFEST,
            annotations={"org.opencontainers.image.ref.name": tag} if tag else {},
        )
        for tag, made in images.items()
    ]
    members = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": manifests}).encode(),
    }
    for made in images.values():
        for digest, blob in {made.digest: made.manifest, **made.blobs}.items():
            members[f"blobs/{digest.replace(':', '/')}"] = blob
    path.write_bytes(tar(file(name, content) for name, content in members.items()))
    return path


def docker_archive(path: Path, *layers: bytes) -> str:
    """Write what ``docker save`` wrote for years, and return the image's id."""
    config = json.dumps(
        {
            "architecture": node_architecture(),
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
    ).encode()
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": ["x:1"], "Layers": names}]
    members = {"manifest.json": json.dumps(manifest).encode(), "config.json": config}
    members |= dict(zip(names, layers, strict=True))
    path.write_bytes(tar(file(name, content) for name, content in members.items()))
    return digest_of(config)


def small_image(text: str = "hello", *, architecture: str = "") -> Image:
    """Make an image of one small file."""
    return image(
        tar([directory("etc"), file("etc/motd", text.encode())]), architecture=architecture
    )


# --- pushing ---------------------------------------------------------------------------------


def push(address: str, name: str, made: Image, *, tag: str = "") -> None:
    """Push an image to a registry at ``host:port``, by its digest and a tag."""
    for digest, blob in made.blobs.items():
        push_blob(address, name, digest, blob)
    push_manifest(address, name, made.manifest, MANIFEST, tag or made.digest)


def push_blob(address: str, name: str, digest: str, blob: bytes) -> None:
    """Push one blob."""
    begun = _send("POST", f"http://{address}/v2/{name}/blobs/uploads/", b"")
    place = begun["Location"]
    place = place if "://" in place else f"http://{address}{place}"
    separator = "&" if "?" in place else "?"
    _send("PUT", f"{place}{separator}digest={digest}", blob)


def push_manifest(address: str, name: str, data: bytes, kind: str, reference: str) -> None:
    """Push a manifest or an index."""
    _send("PUT", f"http://{address}/v2/{name}/manifests/{reference}", data, kind)


def _send(
    method: str, url: str, data: bytes, kind: str = "application/octet-stream"
) -> Mapping[str, str]:
    request = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": kind})
    with urllib.request.urlopen(request, timeout=20) as response:
        return dict(response.headers)
