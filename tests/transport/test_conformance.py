"""One suite for every link: in memory, over pipes in this process, and over a child's stdio.

Each test sees the agent's end of a link; at the other end is an `EchoPeer`, or a peer that
writes given bytes and never reads ("raw").
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from tests.transport.factories import (
    EPOCH,
    FutureMessage,
    command,
    data_frame,
    echo_frame,
    envelope_frame,
    hello_frame,
    text_of,
)
from tests.transport.peers import PATIENCE_S, EchoPeer, End, turns
from transport import link as link_module
from transport import stdio as stdio_module
from transport.events import (
    CloseCause,
    Closed,
    FrameRefused,
    MessageConfirmed,
    MessageReceived,
    MessageUnsupported,
    Opened,
    Refusal,
)
from transport.frames import FRAME_BYTES_MAX, FrameKind, encode_frame
from transport.link import Link
from transport.memory import memory_link
from transport.messages import ConfigureLogging
from transport.session import LinkOptions, MessageTooLarge, Role, Session
from transport.stdio import stdio_link

ROOT = Path(__file__).parents[2]


class DeafStream:
    """A `ByteStream` whose peer never reads."""

    def __init__(self) -> None:
        self._unread = 0

    def write(self, data: bytes) -> None:
        """Keep count of what waits for ever."""
        self._unread += len(data)

    def unwritten_bytes(self) -> int:
        """Return all that was ever written."""
        return self._unread

    def close(self) -> None:
        """Close; nobody notices."""


class MemoryPeers:
    """The memory link."""

    @asynccontextmanager
    async def echo(self, options: LinkOptions) -> AsyncIterator[Link]:
        """Give a link to an obeying peer."""
        agent, wrapper = memory_link(epoch=EPOCH, options=options)
        EchoPeer(wrapper)
        yield agent

    @asynccontextmanager
    async def raw(self, data: bytes, options: LinkOptions, *, is_gone: bool) -> AsyncIterator[Link]:
        """Give a link to a peer that writes ``data`` and then stays or goes."""
        loop = asyncio.get_running_loop()
        agent = Link(Session(Role.AGENT, now=loop.time(), epoch=EPOCH, options=options))
        agent.attach(DeafStream())
        loop.call_soon(agent.data_received, data)
        if is_gone:
            loop.call_soon(agent.eof_received)
        yield agent


class PipePeers:
    """The stdio link over two pipes, both ends in this process."""

    @asynccontextmanager
    async def echo(self, options: LinkOptions) -> AsyncIterator[Link]:
        """Give a link to an obeying peer."""
        (agent_reads, wrapper_writes), (wrapper_reads, agent_writes) = os.pipe(), os.pipe()
        agent = await stdio_link(
            Role.AGENT, read_fd=agent_reads, write_fd=agent_writes, epoch=EPOCH, options=options
        )
        wrapper = await stdio_link(
            Role.WRAPPER, read_fd=wrapper_reads, write_fd=wrapper_writes, options=options
        )
        EchoPeer(wrapper)
        yield agent
        wrapper.close("test over")

    @asynccontextmanager
    async def raw(self, data: bytes, options: LinkOptions, *, is_gone: bool) -> AsyncIterator[Link]:
        """Give a link to a peer that writes ``data`` and then stays or goes."""
        (agent_reads, raw_writes), (raw_reads, agent_writes) = os.pipe(), os.pipe()
        agent = await stdio_link(
            Role.AGENT, read_fd=agent_reads, write_fd=agent_writes, epoch=EPOCH, options=options
        )
        os.write(raw_writes, data)
        ends = [raw_writes, raw_reads]
        if is_gone:
            os.close(ends.pop(0))
        yield agent
        for end in ends:
            os.close(end)


class ChildPeers:
    """The stdio link to a real child process."""

    @asynccontextmanager
    async def echo(self, options: LinkOptions) -> AsyncIterator[Link]:
        """Give a link to an obeying peer."""
        with child("echo") as (read_fd, write_fd):
            yield await stdio_link(
                Role.AGENT, read_fd=read_fd, write_fd=write_fd, epoch=EPOCH, options=options
            )

    @asynccontextmanager
    async def raw(self, data: bytes, options: LinkOptions, *, is_gone: bool) -> AsyncIterator[Link]:
        """Give a link to a peer that writes ``data`` and then stays or goes."""
        with child("gone" if is_gone else "raw", data.hex()) as (read_fd, write_fd):
            yield await stdio_link(
                Role.AGENT, read_fd=read_fd, write_fd=write_fd, epoch=EPOCH, options=options
            )


@contextmanager
def child(*arguments: str) -> Iterator[tuple[int, int]]:
    """Start tests/transport/echo_child.py and give our ends of its stdout and stdin."""
    (ours_to_read, its_stdout), (its_stdin, ours_to_write) = os.pipe(), os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.transport.echo_child", *arguments],
        stdin=its_stdin,
        stdout=its_stdout,
        cwd=ROOT,
    )
    os.close(its_stdin)
    os.close(its_stdout)
    try:
        yield ours_to_read, ours_to_write
    finally:
        process.kill()
        process.wait(PATIENCE_S)


Peers = MemoryPeers | PipePeers | ChildPeers


@pytest.fixture(
    params=[
        pytest.param(MemoryPeers, id="memory"),
        pytest.param(PipePeers, id="pipes"),
        pytest.param(ChildPeers, id="child", marks=pytest.mark.real),
    ]
)
def peers(request: pytest.FixtureRequest) -> Peers:
    """Give each kind of link in turn."""
    make: Callable[[], Peers] = request.param
    return make()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a pipe that nobody reads be given up at once."""
    monkeypatch.setattr(stdio_module, "LINGER_S", 0.0)


@asynccontextmanager
async def watched(
    opening: AbstractAsyncContextManager[Link], *, is_confirming: bool = True
) -> AsyncIterator[End]:
    """Give the watching end of a link, and close it behind the test."""
    async with opening as link:
        end = End(link, is_confirming=is_confirming)
        try:
            yield end
        finally:
            link.close("test over")
            await turns()


def echo(
    peers: Peers, *, is_confirming: bool = True, **options: float
) -> AbstractAsyncContextManager[End]:
    """Give the watching end of a link to an obeying peer."""
    made = LinkOptions(**options)  # type: ignore[arg-type]  # a few ints among the floats
    return watched(peers.echo(made), is_confirming=is_confirming)


def raw(
    peers: Peers, *data: bytes, is_gone: bool = False, options: LinkOptions | None = None
) -> AbstractAsyncContextManager[End]:
    """Give the watching end of a link to a peer that writes ``data``."""
    opening = peers.raw(b"".join(data), options or LinkOptions(), is_gone=is_gone)
    return watched(opening)


def say(text: str) -> ConfigureLogging:
    """Return the order to say ``text`` back."""
    return ConfigureLogging(level="echo", format=text)


def order(what: str, argument: str = "") -> ConfigureLogging:
    """Return another order to the peer."""
    return ConfigureLogging(level=what, format=argument)


async def test_the_ends_greet_each_other(peers: Peers) -> None:
    """The agent learns that its wrapper is there, in the epoch that it chose."""
    async with echo(peers) as end:
        (opened,) = await end.wait_for(Opened)

        assert opened.epoch == EPOCH
        assert not opened.is_resumed


async def test_messages_travel_both_ways_in_order(peers: Peers) -> None:
    """More than a window of them, each handled and confirmed."""
    texts = [f"message {number}" for number in range(100)]
    async with echo(peers) as end:
        for text in texts:
            assert end.link.tell(say(text))
        received = await end.wait_for(MessageReceived, len(texts))
        confirmed = await end.wait_for(MessageConfirmed, len(texts))

        assert [text_of(event.message) for event in received] == texts
        assert [event.sequence for event in confirmed] == list(range(1, 101))
        await asyncio.wait_for(end.link.wait_settled(), PATIENCE_S)


async def test_a_peer_that_doesn_t_confirm_holds_the_sender_back(peers: Peers) -> None:
    """The window fills, then the backlog, then the sender is told; then all of it goes on."""
    async with echo(peers, is_confirming=False, window=4, backlog=3, control_reserve=2) as end:
        await end.wait_for(Opened)
        accepted = [end.link.tell(order("hold")) for _ in range(12)]
        await end.wait_for(MessageReceived)
        figures = end.link.statistics()
        assert accepted == [True] * 9 + [False] * 3
        assert (figures.unconfirmed, figures.backlog, figures.confirmed) == (4, 5, 0)
        end.confirm_all()
        await end.wait_for(MessageConfirmed, 9)

        assert not end.all(Closed)


async def test_a_message_is_confirmed_after_it_was_handled(peers: Peers) -> None:
    """1. the peer holds, 2. it goes on talking, 3. only its release confirms."""
    async with echo(peers, is_confirming=False) as end:
        end.link.tell(order("hold"))
        (holding,) = await end.wait_for(MessageReceived)
        assert text_of(holding.message) == "holding"
        assert not end.all(MessageConfirmed)
        end.confirm_all()

        assert await end.wait_for(MessageConfirmed) == [MessageConfirmed(sequence=1)]


async def test_a_goodbye_closes_both_ends(peers: Peers) -> None:
    """The peer's reason arrives; nothing can be told afterwards."""
    async with echo(peers) as end:
        end.link.tell(order("close", "job finished"))
        closed = await end.wait_for(Closed)
        await asyncio.wait_for(end.link.wait_closed(), PATIENCE_S)

        assert closed == [Closed(cause=CloseCause.GOODBYE, detail="job finished")]
        assert end.link.is_closed
        assert not end.link.tell(command())


async def test_a_peer_that_is_gone_is_an_end_of_stream(peers: Peers) -> None:
    """What it said before is still heard."""
    async with raw(peers, hello_frame(), data_frame(1), is_gone=True) as end:
        (closed,) = await end.wait_for(Closed)

        assert closed.cause is CloseCause.END_OF_STREAM
        assert len(end.all(MessageReceived)) == 1


async def test_a_peer_that_died_within_a_frame_is_a_truncation(peers: Peers) -> None:
    """Half a message is never delivered."""
    async with raw(peers, hello_frame(), data_frame(1)[:-3], is_gone=True) as end:
        (closed,) = await end.wait_for(Closed)

        assert closed.cause is CloseCause.TRUNCATED
        assert not end.all(MessageReceived)


async def test_a_silent_peer_is_given_up(peers: Peers) -> None:
    """A peer that is there but says nothing more is silent."""
    options = LinkOptions(heartbeat_s=0.05, silence_s=0.3)
    async with raw(peers, hello_frame(), options=options) as end:
        (closed,) = await end.wait_for(Closed)

        assert closed.cause is CloseCause.SILENT


async def test_a_peer_that_never_greets_is_given_up(peers: Peers) -> None:
    """A process that isn't a wrapper is noticed."""
    async with raw(peers, options=LinkOptions(greeting_s=0.1)) as end:
        (closed,) = await end.wait_for(Closed)

        assert closed.cause is CloseCause.NO_GREETING


async def test_a_living_peer_that_never_handles_is_given_up(peers: Peers) -> None:
    """Heartbeats keep it from being silent, and no more."""
    async with echo(
        peers, is_confirming=False, heartbeat_s=0.05, silence_s=5.0, confirm_s=0.5
    ) as end:
        await end.wait_for(Opened)
        end.link.tell(order("hold"))
        (closed,) = await end.wait_for(Closed)

        assert closed.cause is CloseCause.UNCONFIRMED


async def test_a_second_hello_is_refused_and_the_link_goes_on(peers: Peers) -> None:
    """It changes nothing: the next message is the next message."""
    async with raw(peers, hello_frame(), hello_frame(), data_frame(1)) as end:
        await end.wait_for(MessageReceived)

        assert [event.refusal for event in end.all(FrameRefused)] == [Refusal.SECOND_HELLO]
        assert len(end.all(Opened)) == 1


async def test_a_message_of_a_newer_peer_is_refused_and_the_link_goes_on(peers: Peers) -> None:
    """An older agent drops by name what it doesn't know."""
    async with raw(peers, hello_frame(), data_frame(1, FutureMessage()), data_frame(2)) as end:
        await end.wait_for(MessageReceived)

        assert [event.refusal for event in end.all(FrameRefused)] == [Refusal.UNKNOWN_MESSAGE]


async def test_a_message_that_the_peer_is_too_old_for_is_answered(peers: Peers) -> None:
    """A newer agent learns what its wrapper doesn't know, and goes on."""
    async with echo(peers) as end:
        end.link.tell(FutureMessage())
        end.link.tell(say("and on"))
        (unsupported,) = await end.wait_for(MessageUnsupported)
        await end.wait_for(MessageReceived)

        assert unsupported == MessageUnsupported(sequence=1, tag="future-message")


async def test_garbage_is_refused_by_name_until_it_is_too_much(peers: Peers) -> None:
    """The end is named too."""
    async with raw(peers, hello_frame(), envelope_frame(99, EPOCH, 0, None) * 30) as end:
        (closed,) = await end.wait_for(Closed)

        assert closed.cause is CloseCause.TOO_MANY_REFUSALS
        assert len(end.all(FrameRefused)) == LinkOptions().refusals_max + 1


async def test_an_announced_monster_ends_the_link(peers: Peers) -> None:
    """A prefix of 100 MB is enough to know."""
    async with raw(peers, hello_frame(), (100_000_000).to_bytes(4, "big")) as end:
        (closed,) = await end.wait_for(Closed)

        assert closed.cause is CloseCause.OVERSIZE


async def test_closing_gives_up_what_is_in_flight(peers: Peers) -> None:
    """Our own close is at once, whatever waits; nothing is delivered after it."""
    async with echo(peers) as end:
        await end.wait_for(Opened)
        for number in range(20):
            end.link.tell(say(f"{number}"))
        end.link.close("never mind")
        count = len(end.events)
        await asyncio.wait_for(end.link.wait_closed(), PATIENCE_S)
        await asyncio.wait_for(end.link.wait_settled(), PATIENCE_S)
        await turns()

        assert len(end.events) == count
        assert end.link.is_closed


async def test_a_peer_may_close_while_data_is_in_flight(peers: Peers) -> None:
    """What came before its goodbye is confirmed, the rest is known to be unconfirmed."""
    async with echo(peers) as end:
        await end.wait_for(Opened)
        end.link.tell(say("first"))
        end.link.tell(order("close", "enough"))
        for number in range(20):
            end.link.tell(say(f"late {number}"))
        (closed,) = await end.wait_for(Closed)

        assert closed.cause is CloseCause.GOODBYE
        assert [event.sequence for event in end.all(MessageConfirmed)] == [1]
        assert end.link.statistics().unconfirmed == 21


async def test_a_message_near_the_frame_maximum_goes_there_and_back(peers: Peers) -> None:
    """It is cut into many reads on the way and comes back whole."""
    text = "x" * (FRAME_BYTES_MAX - 1000)
    async with echo(peers) as end:
        end.link.tell(say(text))
        (received,) = await end.wait_for(MessageReceived)

        assert text_of(received.message) == text
        with pytest.raises(MessageTooLarge):
            end.link.tell(say("x" * FRAME_BYTES_MAX))
        assert not end.link.is_closed


async def test_a_burst_of_large_messages_isn_t_taken_for_a_deaf_peer(peers: Peers) -> None:
    """A window of large messages, told at once to a peer that reads, all arrives."""
    text = "x" * 1_000_000
    async with echo(peers) as end:
        await end.wait_for(Opened)
        for _ in range(32):
            assert end.link.tell(order("echo", text))
        await end.wait_for(MessageConfirmed, 32)

        assert not end.all(Closed)


async def test_a_peer_that_doesn_t_read_is_given_up(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits to be written has a bound, and a name for what happens there."""
    monkeypatch.setattr(link_module, "UNREAD_BYTES_MAX", 300_000)
    async with raw(peers, hello_frame()) as end:
        await end.wait_for(Opened)
        for _ in range(10):
            end.link.tell(command("x" * 50_000))
        (closed,) = await end.wait_for(Closed)
        await asyncio.wait_for(end.link.wait_closed(), PATIENCE_S)

        assert closed.cause is CloseCause.NOT_READING


async def test_a_deaf_peer_that_asks_again_and_again_is_given_up(
    peers: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every old message is echoed; who doesn't read the echoes is cut off."""
    monkeypatch.setattr(link_module, "UNREAD_BYTES_MAX", 20_000)
    async with raw(peers, hello_frame(), data_frame(1)) as end:
        await end.wait_for(MessageReceived)
        for _ in range(2_000):
            end.link.data_received(data_frame(1) * 10)
            await asyncio.sleep(0)
            if end.link.is_closed:
                break
        (closed,) = await end.wait_for(Closed)

        assert closed.cause is CloseCause.NOT_READING


async def test_frames_of_a_former_life_have_no_effect(peers: Peers) -> None:
    """An old echo doesn't confirm a new message."""
    stale = encode_frame(FrameKind.DATA, EPOCH - 1, 1, b"\xc0")
    async with raw(peers, hello_frame(), stale, echo_frame(1, b"", epoch=3), data_frame(1)) as end:
        await end.wait_for(MessageReceived)

        assert {event.refusal for event in end.all(FrameRefused)} == {Refusal.STALE_EPOCH}
        assert not end.all(MessageConfirmed)


async def test_an_event_before_there_is_an_owner_is_kept(peers: Peers) -> None:
    """Whoever opens a link late misses nothing."""
    async with peers.raw(hello_frame() + data_frame(1), LinkOptions(), is_gone=True) as link:
        await asyncio.wait_for(link.wait_closed(), PATIENCE_S)
        end = End(link)

        assert [type(event) for event in end.events] == [Opened, MessageReceived, Closed]
        link.close("test over")
        await turns()
