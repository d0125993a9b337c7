"""How tests wait: for events, never for time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 60.0
"""How long a test waits for what must come; never how long something may take."""


class Watched:
    """Something that tests wait for: `note` each change, and `until` looks again."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def note(self) -> None:
        """Let those who wait look."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def until(self, holds: Callable[[], object], *, patience_s: float = PATIENCE_S) -> None:
        """Wait until ``holds`` is true, looking at each change."""
        async with asyncio.timeout(patience_s):
            while not holds():
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._waiting.append(future)
                await future


class Gate(Watched):
    """A place where a fake waits until the test lets it through."""

    def __init__(self, *, is_open: bool = True) -> None:
        super().__init__()
        self.is_open = is_open
        self.arrived = 0

    def shut(self) -> None:
        """Let nobody through from now on."""
        self.is_open = False

    def open(self) -> None:
        """Let everybody through from now on."""
        self.is_open = True
        self.note()

    async def passed(self) -> None:
        """Wait here until the gate is open, however long that is."""
        self.arrived += 1
        self.note()
        await self.until(lambda: self.is_open, patience_s=3600.0)

    async def until_reached(self) -> None:
        """Wait until somebody stands here, or has passed."""
        await self.until(lambda: self.arrived)


async def until_file(path: Path, text: str = "") -> None:
    """Wait until a file is there and contains this text."""
    async with asyncio.timeout(PATIENCE_S):
        while not path.exists() or text not in path.read_text():  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.01)
