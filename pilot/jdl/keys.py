"""The keys that this pilot knows, and what to say about the others."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from pilot.jdl.document import Document, shown
from transport.messages import JobDescription

NOTED_KEYS_MAX = 20

KNOWN_KEYS = (
    "Arguments",
    "ContainerImage",
    "ContainerImageDigest",
    "CPUCores",
    "DebugTag",
    "Executable",
    "InputBox",
    "InputData",
    "InputDataCollection",
    "InputDataList",
    "InputDataListFormat",
    "InputFile",
    "JDLVariables",
    "JobName",
    "Jobtag",
    "MasterjobID",
    "Memorysize",
    "Name",
    "Output",
    "OutputArchive",
    "OutputDir",
    "OutputErrorE",
    "OutputFile",
    "Packages",
    "Price",
    "Priority",
    "Requirements",
    "TTL",
    "User",
    "ValidationCommand",
    "Workdirectorysize",
)
_KNOWN = {key.lower(): key for key in KNOWN_KEYS}


def unknown_keys_note(description: JobDescription) -> str:
    """Return a sentence about the keys that have no effect here, or nothing if there are none."""
    keys = list(description.unknown)
    if not keys:
        return ""
    notes = [_note(key) for key in keys[:NOTED_KEYS_MAX]]
    if len(keys) > NOTED_KEYS_MAX:
        notes.append(f"and {len(keys) - NOTED_KEYS_MAX} more")
    return f"keys without an effect here: {', '.join(notes)}"


def _note(key: str) -> str:
    name = shown(key)[1:-1]
    if key.lower().startswith("split"):
        return f"{name} (splitting is the broker's; this runs as one job)"
    near = get_close_matches(key[:64].lower(), _KNOWN, n=1, cutoff=0.75)
    return f"{name} (did you mean {_KNOWN[near[0]]}?)" if near else name


def unknown_keys(document: Document, variables: Mapping[str, str]) -> dict[str, str]:
    """Keep what has no effect; a key of the user's own named in JDLVariables has one."""
    return {
        entry.key: entry.written
        for lower, entry in document.entries.items()
        if lower not in _KNOWN and entry.key.upper() not in variables
    }
