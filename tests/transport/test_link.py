"""The shell around a session: one timer, one write a turn, and what is said last."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.transport.factories import (
    EPOCH,
    command,
    data_frame,
    fact,
    frames_of,
    hello_frame,
    kinds_of,
    text_of,
    unpack,
)
from tests.transport.peers import PATIENCE_S, End, turns
from transport import stdio as stdio_module
from transport.events import (
    CloseCause,
    Closed,
    Detached,
    MessageConfirmed,
    MessageReceived,
    Opened,
    SessionEvent,
)
from transport.frames import FrameKind
from transport.link import Link
from transport.memory import join_in_memory, memory_link
from transport.session import LinkOptions, Role, Session
from transport.stdio import stdio_link

RESUMABLE = LinkOptions(resume_s=50.0)


class RecordingStream:
    """A `ByteStream` that keeps what was written, write by write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_closed = False
        self._written = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Keep what was written."""
        assert not self.is_closed, "nothing is written to a closed stream"
        self.writes.append(data)
        self._written.set()

    def unwritten_bytes(self) -> int:
        """Return nothing: all is written at once."""
        return 0

    def close(self) -> None:
        """Note the close."""
        self.is_closed = True

    def kinds(self) -> list[FrameKind]:
        """Return the kinds of the frames written so far."""
        return kinds_of(b"".join(self.writes))

    async def wait_for(self, kind: FrameKind, count: int) -> None:
        """Wait until so many frames of a kind were written."""
        async with asyncio.timeout(PATIENCE_S):
            while self.kinds().count(kind) < count:
                self._written.clear()
                await self._written.wait()


def agent_link(options: LinkOptions | None = None) -> Link:
    """Return an agent's end without a stream."""
    now = asyncio.get_running_loop().time()
    return Link(Session(Role.AGENT, now=now, epoch=EPOCH, options=options))


def wrapper_link(options: LinkOptions | None = None) -> Link:
    """Return a wrapper's end without a stream."""
    now = asyncio.get_running_loop().time()
    return Link(Session(Role.WRAPPER, now=now, options=options))


def memory_ends(options: LinkOptions | None = None) -> tuple[End, End]:
    """Return both watched ends of a link in memory."""
    agent, wrapper = memory_link(epoch=EPOCH, options=options, release="test")
    return End(agent), End(wrapper)


async def test_what_is_said_in_one_turn_is_written_at_once() -> None:
    """Ten messages cost one write."""
    link, stream = agent_link(), RecordingStream()
    link.attach(stream)
    link.data_received(hello_frame())
    for _ in range(10):
        link.tell(command())
    await turns()
    link.close("done")

    assert len(stream.writes) == 2
    assert stream.kinds() == [FrameKind.WELCOME, *[FrameKind.DATA] * 10, FrameKind.GOODBYE]


async def test_a_greeting_isn_t_lost_before_there_is_a_stream() -> None:
    """A wrapper may have something to tell before its pipe is connected."""
    link, stream = wrapper_link(), RecordingStream()
    link.tell(fact())
    await turns()
    link.attach(stream)
    await turns()
    link.close("done")

    assert stream.kinds()[0] is FrameKind.HELLO


async def test_the_peer_is_told_why_before_the_stream_is_closed() -> None:
    """A fault of the peer's ends the link with a goodbye that says it."""
    link, stream = agent_link(), RecordingStream()
    end = End(link)
    link.attach(stream)
    link.data_received(hello_frame())
    await turns()
    link.data_received(data_frame(5))
    await turns()

    assert end.all(Closed)[0].cause is CloseCause.SEQUENCE_GAP
    assert stream.kinds()[-1] is FrameKind.GOODBYE
    assert stream.is_closed
    assert "message 5 came after 0" in unpack(frames_of(stream.writes[-1])[-1].body)


async def test_nothing_is_delivered_after_a_close_in_a_handler() -> None:
    """An owner that closes at the first of two messages doesn't get the second."""
    link = agent_link()
    seen: list[SessionEvent] = []

    def deliver(event: SessionEvent) -> None:
        seen.append(event)
        if isinstance(event, MessageReceived):
            link.close("enough")

    link.open(deliver)
    link.attach(RecordingStream())
    link.data_received(hello_frame() + data_frame(1) + data_frame(2))
    await turns()

    assert [type(event) for event in seen] == [Opened, MessageReceived]


async def test_a_link_has_one_owner() -> None:
    """A second one is a mistake of ours."""
    link = agent_link()
    link.open(lambda event: None)

    with pytest.raises(AssertionError, match="one owner"):
        link.open(lambda event: None)
    link.close("done")


async def test_closing_twice_is_closing() -> None:
    """The second close finds nothing to do."""
    link, stream = agent_link(), RecordingStream()
    link.attach(stream)
    link.close("a")
    link.close("b")
    await turns()

    assert stream.kinds() == [FrameKind.GOODBYE]
    assert link.is_closed


async def test_waiting_for_a_link_that_ends_ends() -> None:
    """What will never be confirmed isn't waited for."""
    agent, _ = memory_ends()
    agent.link.tell(command())
    waiting = asyncio.ensure_future(agent.link.wait_settled())
    await turns(1)
    assert not waiting.done()
    agent.link.close("done")

    await asyncio.wait_for(waiting, PATIENCE_S)


async def test_a_quiet_link_sends_heartbeats() -> None:
    """The one timer goes from the greeting's far deadline to the nearer ones, again and again."""
    link, stream = agent_link(LinkOptions(heartbeat_s=0.01)), RecordingStream()
    link.attach(stream)
    link.data_received(hello_frame())
    await stream.wait_for(FrameKind.HEARTBEAT, 3)
    link.close("done")

    assert stream.kinds()[0] is FrameKind.WELCOME


async def test_a_closed_link_leaves_no_timer() -> None:
    """Nothing keeps the loop, or the link, alive."""
    agent, wrapper = memory_ends()
    await agent.wait_for(Opened)
    agent.link.close("done")
    await wrapper.wait_for(Closed)
    await turns(6)

    loop = asyncio.get_running_loop()
    handles = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]  # the loop tells it nowhere else
    assert not [handle for handle in handles if "Link" in repr(handle)]


async def test_a_lost_stream_is_replaced_and_nothing_is_lost_or_repeated() -> None:
    """1. both detach with bytes on the way, 2. they are joined at once, 3. all arrives once."""
    agent, wrapper = memory_ends(RESUMABLE)
    await agent.wait_for(Opened)
    await wrapper.wait_for(Opened)
    for number in range(20):
        agent.link.tell(command(f"down {number}"))
        wrapper.link.tell(fact(f"up {number}"))
    await turns(1)
    agent.link.eof_received()
    wrapper.link.eof_received()
    join_in_memory(agent.link, wrapper.link)
    for end in (agent, wrapper):
        await end.wait_for(MessageConfirmed, 20)

    for end, word in ((agent, "up"), (wrapper, "down")):
        texts = [text_of(event.message) for event in end.all(MessageReceived)]
        assert texts == [f"{word} {number}" for number in range(20)]
        assert end.link.statistics().refusals == {}
        assert [event.is_resumed for event in end.all(Opened)] == [False, True]
        assert len(end.all(Detached)) == 1
    agent.link.close("done")
    await wrapper.wait_for(Closed)


async def test_an_old_stream_s_end_doesn_t_end_the_new_one() -> None:
    """A close that was on its way when the ends were joined again comes to nothing."""
    agent, wrapper = memory_ends(RESUMABLE)
    await agent.wait_for(Opened)
    await wrapper.wait_for(Opened)
    old = wrapper.link._stream
    assert old is not None
    agent.link.eof_received()
    wrapper.link.eof_received()
    old.close()
    join_in_memory(agent.link, wrapper.link)
    old.write(data_frame(9))
    agent.link.tell(command())
    await agent.wait_for(MessageConfirmed)

    assert len(agent.all(Detached)) == 1
    agent.link.close("done")
    await wrapper.wait_for(Closed)


async def test_a_re_attach_that_never_comes_ends_the_link() -> None:
    """A detached link waits on a timer too."""
    agent, _ = memory_ends(LinkOptions(resume_s=0.02))
    await agent.wait_for(Opened)
    agent.link.eof_received()
    (closed,) = await agent.wait_for(Closed)

    assert closed.cause is CloseCause.SILENT


async def test_a_pipe_that_is_never_read_is_given_up_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """1. more waits than a pipe holds, 2. we close, 3. the descriptor isn't held for ever."""
    monkeypatch.setattr(stdio_module, "LINGER_S", 0.0)
    (our_read, their_write), (their_read, our_write) = os.pipe(), os.pipe()
    link = await stdio_link(Role.AGENT, read_fd=our_read, write_fd=our_write, epoch=EPOCH)
    os.write(their_write, hello_frame())
    end = End(link)
    await end.wait_for(Opened)
    for _ in range(10):
        link.tell(command("x" * 50_000))
    link.close("done")
    assert is_open(our_write)
    await turns()

    assert not is_open(our_write)
    os.close(their_read)
    os.close(their_write)


async def test_what_a_slow_reader_hasn_t_read_yet_is_still_written_after_a_close() -> None:
    """1. more waits than a pipe holds, 2. we close, 3. the peer reads it all, goodbye included."""
    (our_read, their_write), (their_read, our_write) = os.pipe(), os.pipe()
    link = await stdio_link(Role.AGENT, read_fd=our_read, write_fd=our_write, epoch=EPOCH)
    os.write(their_write, hello_frame())
    end = End(link)
    await end.wait_for(Opened)
    for _ in range(5):
        link.tell(command("x" * 50_000))
    link.close("done")
    data = await asyncio.to_thread(Path(f"/dev/fd/{their_read}").read_bytes)

    assert kinds_of(data) == [FrameKind.WELCOME, *[FrameKind.DATA] * 5, FrameKind.GOODBYE]
    os.close(their_read)
    os.close(their_write)


@pytest.mark.parametrize("is_reader_wrong", [True, False])
async def test_a_descriptor_that_is_no_pipe_is_named_and_neither_is_kept(
    is_reader_wrong: bool, tmp_path: Path
) -> None:
    """Both descriptors belong to the link, also when it can't be made of them."""
    theirs_read, our_write = os.pipe()
    our_read, theirs_write = os.pipe()
    wrong = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.dup2(wrong, our_read if is_reader_wrong else our_write)
    os.close(wrong)
    with pytest.raises(ValueError, match="Pipe transport is"):
        await stdio_link(Role.AGENT, read_fd=our_read, write_fd=our_write, epoch=EPOCH)
    await turns()

    assert not is_open(our_read)
    assert not is_open(our_write)
    os.close(theirs_read)
    os.close(theirs_write)


def is_open(descriptor: int) -> bool:
    """Tell whether this process still holds a descriptor of that number."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


async def test_a_peer_that_stops_reading_may_still_talk() -> None:
    """1. it closes its stdin, 2. what it says still arrives, 3. what we say is dropped."""
    (our_read, their_write), (their_read, our_write) = os.pipe(), os.pipe()
    link = await stdio_link(Role.AGENT, read_fd=our_read, write_fd=our_write, epoch=EPOCH)
    end = End(link)
    os.close(their_read)
    os.write(their_write, hello_frame())
    await end.wait_for(Opened)
    link.tell(command())
    os.write(their_write, data_frame(1))
    await end.wait_for(MessageReceived)
    assert not end.all(Closed)
    os.close(their_write)
    (closed,) = await end.wait_for(Closed)

    assert closed.cause is CloseCause.END_OF_STREAM
    await turns(5)
