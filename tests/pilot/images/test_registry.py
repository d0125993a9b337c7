"""Pulling from a real registry."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from pilot.bounded_process import run_bounded
from pilot.containers.runtime import ImageForm
from pilot.images import ImageStore
from pilot.images.manifest import node_architecture
from tests.pilot.images.building import (
    INDEX,
    digest_of,
    index,
    push,
    push_manifest,
    small_image,
)
from tests.pilot.images.building import (
    image as image_of,
)
from transport.errors import UserError

pytestmark = pytest.mark.real


async def test_an_image_is_pulled_and_unpacked(store: ImageStore, registry: str) -> None:
    """What a job gets is a directory, named by its manifest's digest."""
    made = small_image("pulled")
    push(registry, "alice/tagged", made, tag="1")

    image = await store.get(f"docker://{registry}/alice/tagged:1")

    assert image.form is ImageForm.DIRECTORY
    assert image.digest == made.digest
    assert (Path(image.path) / "etc/motd").read_text() == "pulled"
    assert (Path(image.path) / "proc").is_dir()


async def test_a_pulled_image_runs(
    apptainer: Path, busybox_image: Path, store: ImageStore, registry: str
) -> None:
    """With the real runtime: a program of the image, in the directory that the cache made."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.add(busybox_image, arcname=".")
    push(registry, "alice/busybox", image_of(data.getvalue()), tag="1")

    image = await store.get(f"docker://{registry}/alice/busybox:1")
    with await store.hold(image):
        ran = await run_bounded(
            (
                str(apptainer),
                "exec",
                *(("--userns",) if os.geteuid() == 0 else ()),
                "-C",
                "--no-home",
                image.path,
                "/bin/echo",
                "ran",
            ),
            environment={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
            timeout_s=60,
        )

    assert ran.stdout == b"ran\n", ran.stderr


async def test_an_index_leads_to_this_architecture(store: ImageStore, registry: str) -> None:
    """Both digests are the image's: the index's, which people copy, and the manifest's."""
    other = "s390x" if node_architecture() != "s390x" else "amd64"
    images = {other: small_image("other", architecture=other), node_architecture(): small_image()}
    for made in images.values():
        push(registry, "alice/many", made)
    listed = index(images)
    push_manifest(registry, "alice/many", listed, INDEX, "1")

    by_tag = await store.get(f"docker://{registry}/alice/many:1", digest=digest_of(listed))
    by_digest = await store.get(f"docker://{registry}/alice/many@{digest_of(listed)}")

    assert by_tag.digest == by_digest.digest == images[node_architecture()].digest


async def test_another_digest_than_required_is_an_error(store: ImageStore, registry: str) -> None:
    """The sentence names both."""
    made = small_image("required")
    push(registry, "alice/required", made, tag="1")
    wanted = digest_of(b"something else")

    with pytest.raises(UserError) as raised:
        await store.get(f"docker://{registry}/alice/required:1", digest=wanted)
    assert wanted in str(raised.value)
    assert made.digest in str(raised.value)


async def test_a_foreign_image_is_an_error(store: ImageStore, registry: str) -> None:
    """The job's owner reads what it is for, and what this node is."""
    other = "s390x" if node_architecture() != "s390x" else "amd64"
    push(registry, "alice/foreign", small_image(architecture=other), tag="1")

    with pytest.raises(UserError, match=f"made for linux/{other}, and this node is linux/"):
        await store.get(f"docker://{registry}/alice/foreign:1")


async def test_a_missing_image_is_an_error(store: ImageStore, registry: str) -> None:
    """The tag or the name is wrong, and the sentence says so."""
    with pytest.raises(UserError, match="has no such image; correct the name or the tag"):
        await store.get(f"docker://{registry}/alice/nothing:1")
