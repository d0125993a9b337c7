"""An image in a tar file: an OCI archive, or what ``docker save`` writes.

An OCI archive is a tar of an OCI layout: ``oci-layout``, ``index.json``, ``blobs/sha256/...``.
Docker's own has a ``manifest.json`` that names a configuration and layers, which have no
digests but those in the configuration; such an image is known by that configuration's digest,
its image id. Newer ones hold both, and are read as OCI. Nothing is unpacked from the file but
what these documents name, and only plain members count.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from pilot.images.manifest import (
    DOCUMENT_BYTES_MAX,
    Descriptor,
    Resolved,
    check_config,
    parse_config,
    resolve,
)
from transport.errors import UserError
from transport.messages import Record

_MEMBERS_MAX = 20_000
_CHUNK_BYTES = 1 << 20


class _DockerImage(Record, frozen=True, kw_only=True, rename="pascal"):
    config: str
    layers: tuple[str, ...]
    repo_tags: tuple[str, ...] | None = None


class Archive:
    """An open archive."""

    def __init__(self, path: Path) -> None:
        """Raise `UserError` (a fragment of a sentence) for a file that is none."""
        self._tar = tarfile.open(path, "r:")  # noqa: SIM115 - closed by __exit__
        self._members: dict[str, tarfile.TarInfo] = {}
        try:
            self._list()
        except BaseException:
            self._tar.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def resolve(self, architecture: str, *, tag: str = "") -> Resolved:
        """Return the image in it; raises `UserError` where there is none for this node."""
        if "index.json" in self._members:
            top = Descriptor(digest="", size=0)
            return resolve(top, self._document, tag=tag, architecture=architecture)
        if "manifest.json" in self._members:
            return self._docker(tag, architecture)
        raise UserError(
            "it is a tar file without an index.json or a manifest.json, so it is no OCI archive"
        )

    @contextmanager
    def layer(self, descriptor: Descriptor, directory: Path) -> Iterator[IO[bytes]]:
        """Give a layer's bytes, verified; ``directory`` isn't needed."""
        with self._opened(descriptor) as file:
            if descriptor.digest.startswith("sha256:"):
                _verify(file, descriptor)
                file.seek(0)
            yield file

    def _list(self) -> None:
        try:
            while (member := self._tar.next()) is not None:
                if member.size < 0 or len(self._members) >= _MEMBERS_MAX:
                    raise UserError("it is no archive of an image: too many parts, or broken ones")
                if member.isreg():
                    self._members[member.name.removeprefix("./")] = member
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
            raise UserError(f"its tar file is broken ({error}); copy it again") from error

    def _document(self, descriptor: Descriptor) -> bytes:
        if not descriptor.digest:
            return self._read("index.json")
        with self._opened(descriptor) as file:
            _verify(file, descriptor)
            file.seek(0)
            return file.read(DOCUMENT_BYTES_MAX)

    def _docker(self, tag: str, architecture: str) -> Resolved:
        try:
            images = msgspec.json.decode(self._read("manifest.json"), type=tuple[_DockerImage, ...])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UserError(f"its manifest.json can't be read ({error})") from error
        chosen = [
            image
            for image in images
            if not tag or any(name.endswith(f":{tag}") for name in image.repo_tags or ())
        ]
        if len(chosen) != 1:
            raise UserError(
                f"it holds {len(chosen)} images{f' {tag!r}' if tag else ''}; write :TAG after its "
                "name, for one of them"
            )
        data = self._read(chosen[0].config)
        config = parse_config(data)
        check_config(config, len(chosen[0].layers), architecture)
        return Resolved(
            digest=f"sha256:{hashlib.sha256(data).hexdigest()}",
            layers=tuple(Descriptor(digest=name, size=-1) for name in chosen[0].layers),
            diff_ids=config.rootfs.diff_ids,
        )

    def _read(self, name: str) -> bytes:
        member = self._members.get(name)
        if member is None or member.size > DOCUMENT_BYTES_MAX:
            raise UserError(f"it has no {name[:100]!r}, or too big a one")
        return self._content(member).read()

    @contextmanager
    def _opened(self, descriptor: Descriptor) -> Iterator[IO[bytes]]:
        name = descriptor.digest
        if name.startswith("sha256:"):
            name = f"blobs/{name.replace(':', '/')}"
        member = self._members.get(name)
        if member is None:
            raise UserError(f"a part of it is missing: {name[:100]}; write it again")
        with self._content(member) as file:
            yield file

    def _content(self, member: tarfile.TarInfo) -> IO[bytes]:
        file = self._tar.extractfile(member)
        assert file is not None, "a regular file has content"
        return file


def _verify(file: IO[bytes], descriptor: Descriptor) -> None:
    found, size = hashlib.sha256(), 0
    try:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
            size += len(chunk)
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"it is cut short ({error}); copy it again") from error
    digest = f"sha256:{found.hexdigest()}"
    if size != descriptor.size or digest != descriptor.digest:
        raise UserError(
            f"a part of it is {digest} of {size} bytes, and {descriptor.digest} of "
            f"{descriptor.size} is what it should be; copy it again"
        )
