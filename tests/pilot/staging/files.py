"""Asking for outputs and inputs, and looking at what came of it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from actors.ports import SavedOutputs, StagedFile
from pilot.staging import LocalStager
from transport.messages import InputFile, OutputSpec


def archive(*patterns: str, name: str = "all.zip", required: bool = True) -> OutputSpec:
    """Ask for an archive of what matches."""
    return OutputSpec(patterns=patterns, archive=name, is_required=required)


def single(*patterns: str, required: bool = True) -> OutputSpec:
    """Ask for each file that matches."""
    return OutputSpec(patterns=patterns, is_required=required)


async def save(work: Path, out: Path, *outputs: OutputSpec) -> SavedOutputs:
    """Stage out."""
    return await LocalStager().stage_out(outputs, str(work), str(out))


async def stage(work: Path, *inputs: InputFile) -> list[StagedFile]:
    """Stage in."""
    return await LocalStager().stage_in(inputs, str(work))


def members(path: Path) -> dict[str, bytes]:
    """Return what a sound archive holds, in its order."""
    with zipfile.ZipFile(path) as opened:
        assert opened.testzip() is None
        return {name: opened.read(name) for name in opened.namelist()}


def tree(directory: Path) -> set[str]:
    """Return the files under a directory."""
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
