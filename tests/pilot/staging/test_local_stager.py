"""The stager as the wrapper has it: what it costs to import, and how it is cancelled."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from actors.ports import Stager
from pilot.staging import LocalStager, stage_out, trusted_files
from tests.pilot.staging.files import archive, save, stage, tree
from transport.messages import InputFile

ROOT = Path(__file__).parents[3]


async def test_it_is_a_stager_and_prepares_a_private_tmp(work: Path) -> None:
    """The job's tmp is for it alone, however it was before."""
    stager: Stager = LocalStager()
    await stager.prepare(str(work))
    (work / "tmp").chmod(0o755)
    await stager.prepare(str(work))

    assert stat.S_IMODE((work / "tmp").stat().st_mode) == 0o700


async def test_a_cancelled_copy_stops_at_the_next_chunk(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped job doesn't copy on, and leaves no half-written file."""
    begun, loop = asyncio.Event(), asyncio.get_running_loop()
    write = trusted_files.Sink.write

    def write_and_tell(self: trusted_files.Sink, data: bytes) -> int:
        loop.call_soon_threadsafe(begun.set)
        return write(self, data)

    monkeypatch.setattr(trusted_files.Sink, "write", write_and_tell)
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(1 << 43)
    task = asyncio.ensure_future(stage(work, InputFile(name="huge", source=str(tmp_path / "huge"))))
    await asyncio.wait_for(begun.wait(), 20)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert tree(work) == set()


async def test_a_cancelled_stage_out_stops(
    work: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of terabytes doesn't hold a stopped job, nor is half of it kept."""
    for bound in ("SAVED_BYTES_MAX", "_SPARSE_BYTES_MIN"):
        monkeypatch.setattr(stage_out, bound, 1 << 44)
    with (work / "huge").open("wb") as huge:
        huge.truncate(1 << 43)
    started = time.monotonic()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(save(work, out, archive("huge")), 0.2)
    assert time.monotonic() - started < 5
    assert tree(out) == set()


@pytest.mark.parametrize("module", ["pilot.staging", "pilot.keys"])
def test_importing_it_is_cheap(module: str) -> None:
    """The wrapper pays for neither cryptography nor zipfile until they are needed."""
    code = (
        f"import sys; sys.path[:0] = {[str(ROOT), *sys.path]!r}; import {module};"
        "print([name for name in ('cryptography', 'zipfile', 'json', 'xml', 'tempfile')"
        " if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60
    )

    assert run.stdout.strip() == "[]"
