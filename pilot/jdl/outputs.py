"""What a job saves: the items of Output, OutputFile, OutputArchive and OutputErrorE.

An item is ``archive.zip:pattern,pattern@options`` or ``pattern,pattern@options``. Options are
``disk=2`` (or ``disk:2``), the number of copies; ``ALICE::CERN::EOS``, a storage element to
prefer; ``!ALICE::CERN::EOS``, one to avoid. Without ``disk`` there are two copies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pilot.jdl.document import Word, shown
from pilot.jdl.files import work_file_name
from transport.messages import OutputSpec

COPIES_MAX = 9
ALWAYS_WRITTEN = frozenset({"stdout", "stderr", "std*", "resources"})
"""Patterns for the wrapper's own files: nobody is blamed for these."""

DEFAULT_ARCHIVE = "jalien_defarchNOSPEC"
"""Saved where the JDL names no output. The wrapper appends ``.`` and the job's id."""

DEFAULT_OUTPUTS = (
    OutputSpec(
        archive=DEFAULT_ARCHIVE, patterns=("stdout", "stderr", "resources"), is_required=False
    ),
)
DEFAULT_ERROR_OUTPUTS = (
    OutputSpec(archive="log_archive.zip", patterns=("std*",), copies=1, is_required=False),
)

_COPIES = re.compile(r"disk\s*[=:]\s*([0-9]{1,4})", re.IGNORECASE)
_STORAGE = re.compile(r"(!?)\s*([A-Za-z0-9_.-]+(?:::[A-Za-z0-9_.-]+)*)")


def read_outputs(words: Iterable[Word], *, is_required: bool) -> tuple[OutputSpec, ...]:
    """Read items that are saved together; raises JdlError for two archives of one name."""
    specs: list[OutputSpec] = []
    archives: set[str] = set()
    for word in words:
        spec = read_output(word, is_required=is_required)
        if spec.archive in archives:
            raise word.error(f"two archives are called {shown(spec.archive)}; rename one of them")
        archives |= {spec.archive} - {""}
        specs.append(spec)
    return tuple(specs)


def read_output(word: Word, *, is_required: bool) -> OutputSpec:
    """Read one item; patterns that only the wrapper's own files match are never required."""
    files, at, options = word.plain().rpartition("@")
    if not at:
        files, options = options, ""
    archive, colon, patterns = files.partition(":")
    if not colon:
        archive, patterns = "", files
    names = tuple(work_file_name(word, name.strip()) for name in patterns.split(","))
    copies, prefer, exclude = _read_options(word, options)
    return OutputSpec(
        patterns=names,
        archive=work_file_name(word, archive.strip()) if colon else "",
        copies=copies,
        prefer=prefer,
        exclude=exclude,
        is_required=is_required and not ALWAYS_WRITTEN.issuperset(names),
    )


def _read_options(word: Word, text: str) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    copies = 2
    storage: dict[str, list[str]] = {"": [], "!": []}
    for option in filter(None, map(str.strip, text.split(","))):
        if found := _COPIES.fullmatch(option):
            copies = _read_copies(word, int(found[1]))
        elif (found := _STORAGE.fullmatch(option)) and option.lower() != "disk":
            storage[found[1]].append(found[2])
        else:
            raise word.error(
                f"the option {shown(option)} isn't known; write disk=2, the name of a storage "
                "element, or ! and its name"
            )
    return copies, tuple(storage[""]), tuple(storage["!"])


def _read_copies(word: Word, copies: int) -> int:
    if not 1 <= copies <= COPIES_MAX:
        raise word.error(f"disk={copies} isn't a number of copies; write 1 to {COPIES_MAX}")
    return copies
