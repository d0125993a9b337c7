"""Nothing that a library, C code or a grandchild prints can reach the protocol."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from pilot.children import wait_child
from transport.events import Closed, FrameRefused, MessageReceived, SessionEvent
from transport.messages import TraceWritten
from transport.session import Role
from transport.stdio import stdio_link

CHILD = Path(__file__).with_name("noisy_wrapper.py")


@pytest.mark.real
async def test_noise_on_stdout_cannot_disturb_the_protocol(tmp_path: Path) -> None:
    """A hundred messages arrive in order, no frame is refused, and the noise is in stderr."""
    child_reads, write_fd = os.pipe()
    read_fd, child_writes = os.pipe()
    site = str(Path(msgspec.__file__).parent.parent)
    with (tmp_path / "stderr").open("wb") as stderr:
        child = subprocess.Popen(
            [sys.executable, str(CHILD), site],
            stdin=child_reads,
            stdout=child_writes,
            stderr=stderr,
        )
    os.close(child_reads)
    os.close(child_writes)
    events: list[SessionEvent] = []
    link = await stdio_link(Role.AGENT, read_fd=read_fd, write_fd=write_fd, epoch=1)

    def take(event: SessionEvent) -> None:
        events.append(event)
        if isinstance(event, MessageReceived):
            link.confirm(event.sequence)

    link.open(take)
    async with asyncio.timeout(60):
        await link.wait_closed()
        code = await wait_child(child)

    said = (tmp_path / "stderr").read_bytes()
    texts = [
        event.message.text
        for event in events
        if isinstance(event, MessageReceived) and isinstance(event.message, TraceWritten)
    ]
    assert code == 0, said[-2000:]
    assert texts == [f"line {number}" for number in range(100)]
    assert not [event for event in events if isinstance(event, FrameRefused)]
    assert [event.cause for event in events if isinstance(event, Closed)] == ["goodbye"]
    for noise in (b"proud of it", b"junk", b"C says hello", b"raw write", b"a grandchild"):
        assert noise in said
