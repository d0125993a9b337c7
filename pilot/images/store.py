"""Images as they lie on this node: found, told apart, and named by what is in them."""

from __future__ import annotations

import re
from pathlib import Path

from pilot.containers.mounts import ImageTree
from pilot.containers.runtime import ImageForm, checked_image
from pilot.containers.search import Glances
from transport.errors import OperatorError, UserError
from transport.messages import Record

_SQUASHFS_MAGIC = b"hsqs"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def check_digest(digest: str, where: str) -> None:
    """Raise `UserError` for what is no digest; ``where`` begins the sentence."""
    if not _DIGEST.fullmatch(digest):
        raise UserError(f"{where} is {digest!r}: write sha256: and 64 hexadecimal digits.")


class LocalImage(Record, frozen=True, kw_only=True):
    """An image that is there to be run."""

    reference: str
    """As the job or the settings name it."""
    path: str
    form: ImageForm
    state: str
    """Changes when the image becomes another one."""
    digest: str = ""
    """``sha256:...`` of what it is, where that is known."""


class ImageStore:
    """Finds the images that jobs name."""

    def __init__(self) -> None:
        self._glances = Glances()

    async def get(self, reference: str, *, digest: str = "") -> LocalImage:
        """Return the image that a job names; it has this digest, if one is given.

        Raises `UserError` for an image that can't be had or is another one, and `OperatorError`
        where this node is the reason.
        """
        if not reference:
            raise UserError("No container image is named, by the job or in the settings.")
        found = await self._glances.look(checked_image(reference))
        if found.problem:
            by_whom = OperatorError if found.is_hung else UserError
            raise by_whom(f"The container image {reference} can't be used: {found.problem}.")
        return LocalImage(
            reference=reference, path=reference, form=_form(Path(reference)), state=found.state
        )

    async def tree(self, image: LocalImage) -> ImageTree:
        """Return what is known of the directories that a job could be mounted on."""
        return ImageTree()

    async def as_directory(self, image: LocalImage) -> LocalImage:
        """Return the same image as a directory, for runtimes that take nothing else.

        Raises `OperatorError` where it can't be unpacked here.
        """
        if image.form is not ImageForm.DIRECTORY:
            raise OperatorError(f"The image {image.reference} can't be unpacked on this node.")
        return image


def _form(path: Path) -> ImageForm:
    if path.is_dir():
        return ImageForm.DIRECTORY
    with path.open("rb") as file:
        return ImageForm.SQUASHFS if file.read(4) == _SQUASHFS_MAGIC else ImageForm.SIF
