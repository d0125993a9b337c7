"""Tiny factories: messages, frames and session pairs, with the least that a test must say."""

from __future__ import annotations

import itertools
from typing import Any, TypeVar

import msgspec

from transport.codec import agent_codec, digest
from transport.events import SessionEvent
from transport.frames import (
    Envelope,
    FrameKind,
    FrameSplitter,
    Hello,
    decode_envelope,
    encode_frame,
)
from transport.messages import ConfigureLogging, Delivery, LogWritten, Message, TraceWritten
from transport.session import LinkOptions, Role, Session

EPOCH = 7

pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.decode
EventType = TypeVar("EventType")


class FutureMessage(Message, frozen=True, kw_only=True, tag="future-message"):
    """Any side to any side: what only a newer release knows."""

    text: str = ""


class Snapshot(Message, frozen=True, kw_only=True, tag="snapshot"):
    """Any side to any side: of which only the latest matters."""

    delivery = Delivery.LATEST
    number: int = 0


def command(text: str = "info") -> ConfigureLogging:
    """Return a message that an agent may send, with ``text`` to be known by."""
    return ConfigureLogging(level=text, format="")


def fact(text: str = "fact") -> TraceWritten:
    """Return a message that a wrapper may send, with ``text`` to be known by."""
    return TraceWritten(text=text, at=0.0)


def log_record(text: str = "line") -> LogWritten:
    """Return a lossy message of a wrapper."""
    return LogWritten(level="info", logger="test", text=text, at=0.0)


def text_of(message: object) -> str:
    """Return what `command`, `fact` or `log_record` were given."""
    if isinstance(message, ConfigureLogging):
        return message.level
    assert isinstance(message, TraceWritten | LogWritten)
    return message.text


def hello_frame(*, epoch: int = 0, versions: tuple[int, ...] = (1,)) -> bytes:
    """Return a wrapper's greeting."""
    return encode_frame(FrameKind.HELLO, epoch, 0, pack(Hello(versions=versions, epoch=epoch)))


def welcome_frame(*, epoch: int = EPOCH, **changes: Any) -> bytes:
    """Return an agent's answer to a greeting."""
    fields = {"version": 1, "epoch": epoch, "heartbeat_s": 10.0, "silence_s": 60.0, "window": 32}
    return encode_frame(FrameKind.WELCOME, epoch, 0, pack(fields | changes))


def data_frame(sequence: int, message: Message | None = None, *, epoch: int = EPOCH) -> bytes:
    """Return a message on the wire; without one, a fact named after its sequence."""
    body = agent_codec().encode(message or fact(f"fact {sequence}"))
    return encode_frame(FrameKind.DATA, epoch, sequence, body)


def echo_frame(sequence: int, body: bytes, *, epoch: int = EPOCH) -> bytes:
    """Return the confirmation of a message whose body was ``body``."""
    return encode_frame(FrameKind.ECHO, epoch, sequence, pack(digest(body)))


def envelope_frame(*parts: Any) -> bytes:
    """Return a frame around any msgpack array, whether or not it is an envelope."""
    return framed(pack(parts))


def framed(envelope: bytes) -> bytes:
    """Return any bytes behind a right length prefix."""
    return len(envelope).to_bytes(4, "big") + envelope


def frames_of(data: bytes) -> list[Envelope]:
    """Return the envelopes in what a session wants to send."""
    splitter = FrameSplitter()
    splitter.feed(data)
    envelopes = [decode_envelope(frame) for frame in iter(splitter.next_frame, None) if frame]
    assert not len(splitter), "a session writes whole frames"
    return envelopes


def kinds_of(data: bytes) -> list[FrameKind]:
    """Return the kinds of the frames in what a session wants to send."""
    return [FrameKind(envelope.kind) for envelope in frames_of(data)]


def only(events: list[SessionEvent], kind: type[EventType]) -> list[EventType]:
    """Return the events of one kind."""
    return [event for event in events if isinstance(event, kind)]


def greeting_agent(*, options: LinkOptions | None = None, epoch: int = EPOCH) -> Session:
    """Return an agent's session that waits for a Hello, at time 0."""
    return Session(Role.AGENT, now=0.0, epoch=epoch, options=options)


def greeting_wrapper(*, options: LinkOptions | None = None) -> Session:
    """Return a wrapper's session that has said Hello, at time 0."""
    return Session(Role.WRAPPER, now=0.0, options=options, release="test")


def open_agent(*, options: LinkOptions | None = None) -> Session:
    """Return an agent's session after the greeting, with nothing left to fetch."""
    session = greeting_agent(options=options)
    session.receive_data(hello_frame(), 0.0)
    session.events_received()
    session.data_to_send()
    return session


def open_wrapper(*, options: LinkOptions | None = None) -> Session:
    """Return a wrapper's session after the greeting, with nothing left to fetch."""
    session = greeting_wrapper(options=options)
    session.receive_data(welcome_frame(), 0.0)
    session.events_received()
    session.data_to_send()
    return session


def open_pair(*, options: LinkOptions | None = None) -> tuple[Session, Session]:
    """Return an agent's and a wrapper's session that have greeted each other."""
    agent, wrapper = greeting_agent(options=options), greeting_wrapper(options=options)
    exchange(agent, wrapper)
    agent.events_received()
    wrapper.events_received()
    return agent, wrapper


def exchange(agent: Session, wrapper: Session, now: float = 0.0) -> None:
    """Carry bytes both ways until both are quiet."""
    for _ in itertools.repeat(None, 100):
        to_wrapper, to_agent = agent.data_to_send(), wrapper.data_to_send()
        if not to_wrapper and not to_agent:
            return
        wrapper.receive_data(to_wrapper, now)
        agent.receive_data(to_agent, now)
    raise AssertionError("the two sessions never fall quiet")


def reattach(agent: Session, wrapper: Session, now: float = 0.0) -> None:
    """Lose the stream and what is in it, and go on over another."""
    for session in (agent, wrapper):
        session.data_to_send()
        session.receive_eof(now)
        session.attach(now)
    exchange(agent, wrapper, now)
