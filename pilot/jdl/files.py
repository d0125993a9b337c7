"""Where the names in a JDL lead: to the catalogue, beside the JDL, or to the node.

- ``LF:`` begins a catalogue name. So is an absolute path under one of the prefixes of the
  setting `catalogue`, or under ``/alice/``, the root of AliEn's own catalogue. It is found in
  the directory that stands for its longest prefix.
- Any other absolute path is the node's own, or the image's: ``/bin/sh``, ``/cvmfs/...``.
- A relative path is a file beside the JDL.

A program (Executable, ValidationCommand) follows the same rule: on the node it is called by its
path; anything else is staged in and called ``./name``. A bare name that is already the name of
an input means that input.

Whether a file is there is not looked at: stage-in finds out, on the node where it matters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pilot.images.reference import is_digest, is_tagged, parse_reference
from pilot.jdl.document import Word, shown
from transport.errors import UserError
from transport.messages import InputFile

GRID_ROOT = PurePosixPath("/alice")
NAME_BYTES_MAX = 255
WRITTEN_BY_WRAPPER = frozenset({"stdout", "stderr", "resources", "tmp"})

_LFN = "LF:"
_URL = re.compile(r"PF:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """The directory of the JDL, and which directory stands for which part of the catalogue."""

    directory: Path
    catalogue: tuple[tuple[PurePosixPath, Path], ...]
    """Longest prefix first."""

    @classmethod
    def of(cls, directory: Path, catalogue: Mapping[str, Path]) -> Whereabouts:
        """Put the setting `catalogue` in the order in which it is searched."""
        pairs = [(_absolute(prefix), path) for prefix, path in catalogue.items()]
        return cls(directory, tuple(sorted(pairs, key=lambda pair: -len(pair[0].parts))))

    def find(self, word: Word, text: str) -> tuple[str, str]:
        """Return the source of a file and its catalogue name, which is empty if it has none."""
        if _URL.match(text):
            raise word.error(f"{shown(text)} is a URL; write a path or LF: and a catalogue name")
        if not self.is_catalogue_name(text):
            return str(self.directory / text), ""
        lfn = _catalogue_name(word, text)
        for prefix, path in self.catalogue:
            if lfn.is_relative_to(prefix):
                return str(path / lfn.relative_to(prefix)), str(lfn)
        raise word.error(
            f"no directory stands for the catalogue name {shown(str(lfn))}; "
            "add its prefix to the setting `catalogue`"
        )

    def is_catalogue_name(self, text: str) -> bool:
        """Tell whether a name belongs to the catalogue, by the rule above."""
        if text.upper().startswith(_LFN):
            return True
        roots = (GRID_ROOT, *(prefix for prefix, _ in self.catalogue))
        return text.startswith("/") and any(_absolute(text).is_relative_to(r) for r in roots)


class Program(NamedTuple):
    """How a program is called, and its file if that must be staged in for it."""

    called: str
    file: InputFile | None = None


class Inputs:
    """What a job stages in; refuses two files that would have the same name."""

    def __init__(self, where: Whereabouts, reserved: Iterable[str] = ()) -> None:
        self._where = where
        self._reserved = WRITTEN_BY_WRAPPER | frozenset(reserved)
        self._staged: dict[str, InputFile] = {}

    def add(self, word: Word) -> InputFile:
        """Take one item of InputFile or InputData, with or without ``,nodownload``."""
        text = word.plain()
        name, _, option = text.rpartition(",")
        if option.strip().lower() == "nodownload":
            return self._add(word, name.rstrip(), is_staged=False)
        return self._add(word, text, is_staged=True)

    def add_program(self, word: Word, text: str) -> Program:
        """Take the name of a program, without its arguments."""
        if text.startswith("/") and not self._where.is_catalogue_name(text):
            return Program(text)
        if text in self._staged:
            return Program(f"./{text}")
        source, _ = self._where.find(word, text)
        name = _file_name(word, text)
        before = self._staged.get(name)
        if before is not None and before.source == source:
            return Program(f"./{name}")
        return Program(f"./{name}", self._add(word, text, is_staged=True))

    def _add(self, word: Word, text: str, *, is_staged: bool) -> InputFile:
        name = _file_name(word, text)
        source, lfn = self._where.find(word, text)
        file = InputFile(name=name, source=source, is_staged=is_staged, catalogue_name=lfn)
        if is_staged:
            self._refuse_collision(word, file)
            self._staged[name] = file
        return file

    def _refuse_collision(self, word: Word, file: InputFile) -> None:
        if file.name in self._reserved:
            raise word.error(f"the job itself writes {shown(file.name)}; rename this file")
        if (other := self._staged.get(file.name)) is not None:
            raise word.error(
                f"{shown(file.source)} and {shown(other.source)} would both be called "
                f"{shown(file.name)}; rename one, or add ,nodownload to one"
            )


def work_file_name(word: Word, text: str) -> str:
    """Return a name that stays in the work directory; raises JdlError for any other."""
    if not text or text.startswith("/") or ".." in text.split("/"):
        raise word.error(
            f"{shown(text)} isn't in the work directory; write a relative name without .."
        )
    return text


def image_reference(word: Word, where: Whereabouts) -> str:
    """Return how the node is to call a container image; raises JdlError for what means nothing.

    It is in a registry if it has a scheme (``docker://``) or its last part has a tag or a digest
    (``almalinux:9``); a path that looks like that is written ``./almalinux:9``. Other names, and
    those of archives (``oci-archive:``), lead where the names of files do.
    """
    text = word.plain()
    if not text:
        raise word.error("the image has no name; write a path or a reference such as docker://...")
    archive = re.fullmatch(r"((?:oci|docker)-archive:)(.+?)(:[^/:]*)?", text)
    if archive is not None:
        text = f"{archive[1]}{where.find(word, archive[2])[0]}{archive[3] or ''}"
    elif "://" not in text and (where.is_catalogue_name(text) or not is_tagged(text)):
        text = where.find(word, text)[0]
    try:
        parse_reference(text)
    except UserError as error:
        sentence = str(error).rstrip(".")
        raise word.error(sentence[0].lower() + sentence[1:]) from error
    return text


def image_digest(word: Word) -> str:
    """Return the digest that a container image must have; raises JdlError for what is none."""
    text = word.plain()
    if not is_digest(text):
        raise word.error(f"{shown(text)} is no digest; write sha256: and 64 digits of 0-9 and a-f")
    return text


def _file_name(word: Word, text: str) -> str:
    name = text[len(_LFN) :] if text.upper().startswith(_LFN) else text
    name = name.rpartition("/")[2]
    if name in ("", ".", ".."):
        raise word.error(f"{shown(text)} names no file; write a path that ends in a file's name")
    if len(name.encode()) > NAME_BYTES_MAX:
        raise word.error(f"{shown(name)} is longer than {NAME_BYTES_MAX} bytes; rename the file")
    return name


def _catalogue_name(word: Word, text: str) -> PurePosixPath:
    name = text[len(_LFN) :] if text.upper().startswith(_LFN) else text
    if not name.startswith("/") or ".." in name.split("/"):
        raise word.error(
            f"{shown(text)} isn't a full catalogue name; write LF:/ and its path without .."
        )
    return _absolute(name)


def _absolute(path: str) -> PurePosixPath:
    return PurePosixPath("/" + path.lstrip("/"))
