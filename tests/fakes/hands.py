"""The two ends of a link in the test's hand, and a launcher of such wrappers."""

from __future__ import annotations

import asyncio
from typing import Any

from actors.ports import ImageUsed, LaunchedWrapper, LaunchOrder, WrapperExit, WrapperPaths
from tests.fakes.watched import Gate, Watched
from transport.events import Closed, MessageReceived, Opened, SessionEvent
from transport.link import Link
from transport.memory import memory_link
from transport.messages import Message, SavedFile


class HandEnd(Watched):
    """One end of a link, played by the test: keeps what comes, and confirms it."""

    def __init__(self, near: Link, *, is_mute: bool = False) -> None:
        """A mute one never says Hello."""
        super().__init__()
        self.near = near
        self.received: list[Message] = []
        self.events: list[SessionEvent] = []
        self.confirms = True
        self._is_mute = is_mute
        if not is_mute:
            near.open(self._take)

    def say(self, *messages: Message) -> None:
        """Send these."""
        for message in messages:
            self.near.tell(message)

    def heard(self, kind: type[Message]) -> list[Any]:
        """Return what came of one kind."""
        return [message for message in self.received if type(message) is kind]

    async def until_heard(self, kind: type[Message], count: int = 1) -> Any:
        """Wait for so many messages of one kind, and return the last of them."""
        await self.until(lambda: len(self.heard(kind)) >= count)
        return self.heard(kind)[count - 1]

    async def until_open(self) -> None:
        """Wait until the greeting is done."""
        await self.until(lambda: any(isinstance(event, Opened) for event in self.events))

    async def until_closed(self) -> Closed:
        """Wait until the link is closed, and return how."""
        await self.until(lambda: any(isinstance(event, Closed) for event in self.events))
        return next(event for event in self.events if isinstance(event, Closed))

    def _take(self, event: SessionEvent) -> None:
        self.events.append(event)
        if isinstance(event, MessageReceived):
            self.received.append(event.message)
            if self.confirms:
                self.near.confirm(event.sequence)
        self.note()


class HandWrapper(HandEnd):
    """A launched wrapper whose every word and deed is the test's.

    It dies of the signals that it is said to die of, and of nothing else.
    """

    traces: tuple[str, ...] = ("launched by hand",)
    work_directory = "/nowhere/work"
    paths = WrapperPaths(
        work_directory="/nowhere/work", output_directory="/output", private_directory="/private"
    )
    launcher_pid = 77
    image: ImageUsed | None = None

    def __init__(
        self,
        order: LaunchOrder,
        dies_of: frozenset[int],
        container: str | None,
        *,
        is_mute: bool = False,
    ) -> None:
        self.link, far_end = memory_link(epoch=7)
        super().__init__(far_end, is_mute=is_mute)
        self.mark = f"mark-{order.job_id}"
        self.container = container
        self.dies_of = dies_of
        self.signals: list[int] = []
        self.host_path_error: Exception | None = None
        self.has_another_way = False
        self.failed_starts: list[str] = []
        self._ended: asyncio.Future[WrapperExit] = asyncio.get_running_loop().create_future()

    async def wait(self) -> WrapperExit:
        """Wait until the test ends it."""
        return await asyncio.shield(self._ended)

    def host_path(self, location: str) -> str:
        """Map it as a container would."""
        if self.host_path_error is not None:
            raise self.host_path_error
        return f"/host{location}"

    def failed_to_start(self, why: str) -> bool:
        """Record it, and say what the test says."""
        self.failed_starts.append(why)
        return self.has_another_way

    def signal(self, number: int) -> None:
        """Record it, and die if it is deadly; nothing reaches what is gone."""
        if self._ended.done():
            return
        self.signals.append(number)
        self.note()
        if number in self.dies_of:
            self.die(WrapperExit(signal=number))

    async def until_signalled(self, number: int, count: int = 1) -> None:
        """Wait until it got a signal so many times."""
        await self.until(lambda: self.signals.count(number) >= count)

    def end_launcher(self, end: WrapperExit | None = None) -> None:
        """End the launched process; the link may live on, as around a container's inside."""
        if not self._ended.done():
            self._ended.set_result(end or WrapperExit(exit_code=0))

    def break_wait(self, error: Exception) -> None:
        """Let `wait` raise: an adapter's bug."""
        self._ended.set_exception(error)

    def hang_up(self) -> None:
        """Close the wrapper's end as the kernel closes a dead process's."""
        if not self._is_mute:
            self.near.eof_received()
            self.near.close("gone")
        asyncio.get_running_loop().call_soon(self.link.eof_received)

    def die(self, end: WrapperExit | None = None) -> None:
        """End altogether."""
        self.end_launcher(end)
        self.hang_up()

    def leave(self) -> None:
        """End as a wrapper does that has said all."""
        self.near.close("the job has finished")
        self.end_launcher()


class FakeWrapperLauncher(Watched):
    """Launches wrappers that are in the test's hand."""

    def __init__(self) -> None:
        super().__init__()
        self.orders: list[LaunchOrder] = []
        self.wrappers: list[HandWrapper] = []
        self.gate = Gate()
        self.error: Exception | None = None
        self.container: str | None = None
        self.is_mute = False
        self.dies_of: frozenset[int] = frozenset({9})
        self.rescued: tuple[SavedFile, ...] = ()
        self.rescues: list[LaunchOrder] = []
        self.rescue_error: Exception | None = None
        self.rescue_gate = Gate()
        self.cleaned: list[LaunchOrder] = []
        self.clean_error: Exception | None = None

    async def launch(self, order: LaunchOrder) -> LaunchedWrapper:
        """Return a wrapper that says nothing by itself."""
        self.orders.append(order)
        self.note()
        await self.gate.passed()
        if self.error is not None:
            raise self.error
        wrapper = HandWrapper(order, self.dies_of, self.container, is_mute=self.is_mute)
        self.wrappers.append(wrapper)
        self.note()
        return wrapper

    async def wrapper(self, number: int = 0) -> HandWrapper:
        """Wait for a wrapper, and return it."""
        await self.until(lambda: len(self.wrappers) > number)
        return self.wrappers[number]

    async def rescue(self, order: LaunchOrder) -> tuple[SavedFile, ...]:
        """Return what the test says."""
        self.rescues.append(order)
        await self.rescue_gate.passed()
        if self.rescue_error is not None:
            raise self.rescue_error
        return self.rescued

    async def clean(self, order: LaunchOrder) -> None:
        """Record it."""
        self.cleaned.append(order)
        self.note()
        if self.clean_error is not None:
            raise self.clean_error
