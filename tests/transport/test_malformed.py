"""The malformed corpus: whatever comes over the wire has a named outcome.

Each case is a table's row: what comes, to whom and when, and what must be said about it. No
exception leaves `receive_data`, and memory never goes beyond the frame maximum and one read.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.transport.factories import (
    EPOCH,
    command,
    data_frame,
    echo_frame,
    envelope_frame,
    framed,
    greeting_agent,
    greeting_wrapper,
    hello_frame,
    open_agent,
    open_wrapper,
    pack,
    welcome_frame,
)
from transport.events import CloseCause, Closed, FrameRefused, Refusal
from transport.frames import FRAME_BYTES_MAX, FrameKind, encode_frame
from transport.session import Session, SessionState

READ = 64 * 1024
"""What a pipe gives at once."""

BOMB = b"\x91" * 200_000 + b"\xc0"
SHALLOW_BOMB = b"\x91" * 900 + b"\xc0"
INVALID_UTF8 = b"\xa4\xff\xfe\xfd\xfc"
NOISE = random.Random(2019).randbytes(500)

Maker = Callable[[], Session]
Named = Refusal | CloseCause


class Case(NamedTuple):
    """What comes, to whom, and what is said about it; None: it is harmless."""

    name: str
    to: Maker
    data: bytes
    outcome: Named | None
    is_end: bool = False


def hello_body(body: bytes) -> bytes:
    """Return a Hello around any body."""
    return encode_frame(FrameKind.HELLO, 0, 0, body)


def welcome_body(body: bytes) -> bytes:
    """Return a Welcome around any body."""
    return encode_frame(FrameKind.WELCOME, EPOCH, 0, body)


def data_body(body: bytes) -> bytes:
    """Return a first data frame around any body."""
    return encode_frame(FrameKind.DATA, EPOCH, 1, body)


def waiting_agent() -> Session:
    """Return an agent's session that waits for the confirmation of one message."""
    session = open_agent()
    session.send(command("a"), 0.0)
    session.data_to_send()
    return session


CORPUS = (
    # --- the stream ----------------------------------------------------------------------
    Case("empty frame", open_agent, bytes(4), Refusal.NOT_AN_ENVELOPE),
    Case("cut in the prefix", open_agent, b"\0\0", CloseCause.TRUNCATED, is_end=True),
    Case("cut in a frame", open_agent, data_frame(1)[:-1], CloseCause.TRUNCATED, is_end=True),
    Case("cut in the greeting", greeting_agent, hello_frame()[:9], CloseCause.TRUNCATED, True),
    Case("one byte too long", open_agent, (FRAME_BYTES_MAX + 1).to_bytes(4), CloseCause.OVERSIZE),
    Case("100 MB announced", open_agent, (100_000_000).to_bytes(4), CloseCause.OVERSIZE),
    Case("4 GB announced", greeting_agent, b"\xff\xff\xff\xff", CloseCause.OVERSIZE),
    Case("text of a shell", greeting_agent, b"Last login: today\n", CloseCause.OVERSIZE),
    Case("noise", open_agent, NOISE, CloseCause.OVERSIZE),
    Case("noise in a frame", open_agent, framed(NOISE), Refusal.NOT_AN_ENVELOPE),
    # --- the envelope --------------------------------------------------------------------
    Case("a map", open_agent, framed(pack({"kind": 3})), Refusal.NOT_AN_ENVELOPE),
    Case("nil", open_agent, framed(b"\xc0"), Refusal.NOT_AN_ENVELOPE),
    Case("too few places", open_agent, envelope_frame(3, EPOCH, 1), Refusal.NOT_AN_ENVELOPE),
    Case("kind is text", open_agent, envelope_frame("3", EPOCH, 1, 0), Refusal.NOT_AN_ENVELOPE),
    Case("kind is negative", open_agent, envelope_frame(-3, EPOCH, 1, 0), Refusal.UNKNOWN_KIND),
    Case("kind is 0", open_agent, envelope_frame(0, EPOCH, 1, 0), Refusal.UNKNOWN_KIND),
    Case("kind is huge", open_agent, envelope_frame(2**64 - 1, EPOCH, 1, 0), Refusal.UNKNOWN_KIND),
    Case("epoch is text", open_agent, envelope_frame(3, "7", 1, 0), Refusal.NOT_AN_ENVELOPE),
    Case("epoch is negative", open_agent, data_frame(1, epoch=-7), Refusal.STALE_EPOCH),
    Case("epoch is huge", open_agent, data_frame(1, epoch=2**64 - 1), Refusal.STALE_EPOCH),
    Case("sequence is 0", open_agent, data_frame(0), Refusal.NOT_AN_ENVELOPE),
    Case("sequence is negative", open_agent, data_frame(-(2**63)), Refusal.NOT_AN_ENVELOPE),
    Case("sequence is huge", open_agent, data_frame(2**64 - 1), CloseCause.SEQUENCE_GAP),
    Case("sequence skips", open_agent, data_frame(2), CloseCause.SEQUENCE_GAP),
    Case(
        "sequence is true", open_agent, envelope_frame(3, EPOCH, True, 0), Refusal.NOT_AN_ENVELOPE
    ),
    Case(
        "trailing bytes",
        open_agent,
        framed(pack([6, EPOCH, 0, None]) + b"x"),
        Refusal.NOT_AN_ENVELOPE,
    ),
    Case("no body", open_agent, framed(b"\x94\x03\x07\x01"), Refusal.NOT_AN_ENVELOPE),
    Case("depth bomb", open_agent, data_body(BOMB), Refusal.NOT_AN_ENVELOPE),
    Case(
        "four billion items",
        open_agent,
        data_body(b"\xdd\xff\xff\xff\xff"),
        Refusal.NOT_AN_ENVELOPE,
    ),
    # --- greetings -----------------------------------------------------------------------
    Case("data before hello", greeting_agent, data_frame(1), Refusal.BEFORE_GREETING),
    Case("echo before hello", greeting_agent, echo_frame(1, b""), Refusal.BEFORE_GREETING),
    Case(
        "data before welcome", greeting_wrapper, data_frame(1, command()), Refusal.BEFORE_GREETING
    ),
    Case("second hello", open_agent, hello_frame(), Refusal.SECOND_HELLO),
    Case("second welcome", open_wrapper, welcome_frame(), Refusal.SECOND_HELLO),
    Case("hello to a wrapper", greeting_wrapper, hello_frame(), Refusal.SECOND_HELLO),
    Case("hello is text", greeting_agent, hello_body(pack("hi")), Refusal.BROKEN_MESSAGE),
    Case("hello without versions", greeting_agent, hello_body(b"\x80"), Refusal.BROKEN_MESSAGE),
    Case(
        "hello not UTF-8",
        greeting_agent,
        hello_body(b"\x82\xa8versions\x91\x01\xa7release" + INVALID_UTF8),
        Refusal.BROKEN_MESSAGE,
    ),
    Case(
        "hello of a bomb",
        greeting_agent,
        hello_body(b"\x82\xa8versions\x91\x01\xa1x" + BOMB),
        Refusal.NOT_AN_ENVELOPE,
    ),
    Case("hello of no version", greeting_agent, hello_frame(versions=()), CloseCause.WRONG_VERSION),
    Case(
        "hello of other versions",
        greeting_agent,
        hello_frame(versions=(2**64 - 1,)),
        CloseCause.WRONG_VERSION,
    ),
    Case("hello of a former life", greeting_agent, hello_frame(epoch=3), Refusal.STALE_EPOCH),
    Case("hello of a negative life", greeting_agent, hello_frame(epoch=-1), Refusal.STALE_EPOCH),
    Case("welcome is nil", greeting_wrapper, welcome_body(b"\xc0"), Refusal.BROKEN_MESSAGE),
    Case(
        "welcome not UTF-8",
        greeting_wrapper,
        welcome_body(b"\x81" + INVALID_UTF8 + b"\xc0"),
        Refusal.BROKEN_MESSAGE,
    ),
    Case("welcome of no window", greeting_wrapper, welcome_frame(window=0), Refusal.BROKEN_MESSAGE),
    Case(
        "welcome of a negative window",
        greeting_wrapper,
        welcome_frame(window=-1),
        Refusal.BROKEN_MESSAGE,
    ),
    Case(
        "welcome that spins",
        greeting_wrapper,
        welcome_frame(heartbeat_s=0.0),
        Refusal.BROKEN_MESSAGE,
    ),
    Case(
        "welcome of no number",
        greeting_wrapper,
        welcome_frame(silence_s=float("nan")),
        Refusal.BROKEN_MESSAGE,
    ),
    Case("welcome of epoch 0", greeting_wrapper, welcome_frame(epoch=0), Refusal.BROKEN_MESSAGE),
    Case(
        "welcome of version 9", greeting_wrapper, welcome_frame(version=9), CloseCause.WRONG_VERSION
    ),
    # --- messages ------------------------------------------------------------------------
    Case("unknown tag", open_agent, data_body(pack({"type": "soup"})), Refusal.UNKNOWN_MESSAGE),
    Case(
        "very long tag",
        open_agent,
        data_body(pack({"type": "x" * 3_000_000})),
        Refusal.UNKNOWN_MESSAGE,
    ),
    Case(
        "message of the other side", open_agent, data_frame(1, command()), Refusal.UNKNOWN_MESSAGE
    ),
    Case("no tag", open_agent, data_body(b"\x80"), Refusal.BROKEN_MESSAGE),
    Case("text for a message", open_agent, data_body(pack("text")), Refusal.BROKEN_MESSAGE),
    Case("nil for a message", open_agent, data_body(b"\xc0"), Refusal.BROKEN_MESSAGE),
    Case(
        "field of a wrong type",
        open_agent,
        data_body(pack({"type": "trace-written", "text": 1, "at": 1})),
        Refusal.BROKEN_MESSAGE,
    ),
    Case(
        "field missing",
        open_agent,
        data_body(pack({"type": "trace-written", "text": "a"})),
        Refusal.BROKEN_MESSAGE,
    ),
    Case(
        "field not UTF-8",
        open_agent,
        data_body(b"\x83\xa4type\xadtrace-written\xa4text" + INVALID_UTF8 + b"\xa2at\x01"),
        Refusal.BROKEN_MESSAGE,
    ),
    Case(
        "tag not UTF-8",
        open_agent,
        data_body(b"\x81\xa4type" + INVALID_UTF8),
        Refusal.BROKEN_MESSAGE,
    ),
    Case(
        "extension type", open_agent, data_body(b"\xd6\xff\xff\xff\xff\xff"), Refusal.BROKEN_MESSAGE
    ),
    Case(
        "secret is a number",
        open_wrapper,
        data_body(
            pack({"type": "deliver-credential", "kind": "token", "token": 5, "expires_at": 1})
        ),
        Refusal.BROKEN_MESSAGE,
    ),
    # --- answers -------------------------------------------------------------------------
    Case("wrong digest", waiting_agent, echo_frame(1, b"other"), CloseCause.ECHO_MISMATCH),
    Case(
        "digest is text",
        waiting_agent,
        encode_frame(FrameKind.ECHO, EPOCH, 1, pack("x")),
        CloseCause.ECHO_MISMATCH,
    ),
    Case(
        "no digest", waiting_agent, encode_frame(FrameKind.ECHO, EPOCH, 1), CloseCause.ECHO_MISMATCH
    ),
    Case("echo of nothing", open_agent, echo_frame(1, b""), Refusal.UNKNOWN_ECHO),
    Case("echo of a huge number", waiting_agent, echo_frame(2**64 - 1, b""), Refusal.UNKNOWN_ECHO),
    Case("echo of a former life", waiting_agent, echo_frame(1, b"", epoch=1), Refusal.STALE_EPOCH),
    Case(
        "unsupported of nothing",
        open_agent,
        encode_frame(FrameKind.UNSUPPORTED, EPOCH, 1, pack("x")),
        Refusal.UNKNOWN_ECHO,
    ),
    Case(
        "unsupported not UTF-8",
        waiting_agent,
        encode_frame(FrameKind.UNSUPPORTED, EPOCH, 1, INVALID_UTF8),
        None,
    ),
    Case(
        "heartbeat with a body",
        open_agent,
        encode_frame(FrameKind.HEARTBEAT, EPOCH, 9, pack("x" * 1000)),
        None,
    ),
    Case(
        "goodbye not UTF-8",
        open_agent,
        encode_frame(FrameKind.GOODBYE, EPOCH, 0, INVALID_UTF8),
        CloseCause.GOODBYE,
    ),
    Case(
        "goodbye of nothing",
        open_agent,
        encode_frame(FrameKind.GOODBYE, EPOCH, 0),
        CloseCause.GOODBYE,
    ),
    Case(
        "goodbye of a bomb",
        open_agent,
        encode_frame(FrameKind.GOODBYE, EPOCH, 0, SHALLOW_BOMB),
        CloseCause.GOODBYE,
    ),
    Case(
        "goodbye of a former life",
        open_agent,
        encode_frame(FrameKind.GOODBYE, 3, 0, pack("x")),
        Refusal.STALE_EPOCH,
    ),
)


def outcome_of(session: Session) -> list[Named]:
    """Return what a session said about what came."""
    named: list[Named] = []
    for event in session.events_received():
        if isinstance(event, FrameRefused):
            named.append(event.refusal)
        elif isinstance(event, Closed):
            named.append(event.cause)
    return named


@pytest.mark.parametrize("size", [1, 7, READ])
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CORPUS])
def test_what_is_malformed_has_a_name(case: Case, size: int) -> None:
    """One row, in reads of any size: it is said what was wrong, once, and no more happens."""
    session = case.to()
    for at in range(0, min(len(case.data), 1000), size):
        session.receive_data(case.data[at : min(at + size, 1000)], 0.0)
    session.receive_data(case.data[1000:], 0.0)
    if case.is_end:
        session.receive_eof(0.0)

    assert outcome_of(session) == ([] if case.outcome is None else [case.outcome])
    assert (session.state is SessionState.CLOSED) is isinstance(case.outcome, CloseCause)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=case.name) for case in CORPUS if not case.is_end]
)
def test_a_refused_frame_doesn_t_harm_the_next_one(case: Case) -> None:
    """Where the link lives on, the very next frames are understood."""
    session = case.to()
    session.receive_data(case.data, 0.0)
    if session.state is not SessionState.OPEN:
        return
    session.events_received()
    session.receive_data(encode_frame(FrameKind.GOODBYE, EPOCH, 0, pack("bye")), 0.0)

    assert outcome_of(session) == [CloseCause.GOODBYE]


def test_an_announced_100_mb_costs_nothing() -> None:
    """1. the prefix is refused, 2. what follows isn't kept, 3. memory stays where it was."""
    session = open_agent()
    read = b"x" * READ
    tracemalloc.start()
    try:
        session.receive_data((100_000_000).to_bytes(4) + read, 0.0)
        for _ in range(200):
            session.receive_data(read, 0.0)
            assert session.statistics().buffered_bytes == 0
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 4 * READ


def test_the_greatest_frame_is_never_kept_more_than_once_and_a_read() -> None:
    """A frame of 4 MiB that arrives in reads, again and again, is buffered once."""
    session = open_agent()
    frame = framed(b"\xc1" * FRAME_BYTES_MAX)
    for at in range(0, len(frame), READ):
        session.receive_data(frame[at : at + READ], 0.0)
        assert session.statistics().buffered_bytes <= FRAME_BYTES_MAX + READ

    assert outcome_of(session) == [Refusal.NOT_AN_ENVELOPE]
    assert session.statistics().buffered_bytes == 0


PIECES = st.one_of(
    st.binary(max_size=60),
    st.binary(max_size=60).map(framed),
    st.sampled_from([case.data for case in CORPUS if len(case.data) < 1000]),
    st.builds(
        envelope_frame,
        st.integers(-1, 9),
        st.sampled_from([0, EPOCH, EPOCH + 1]),
        st.integers(-1, 4),
        st.none() | st.integers(0, 2**32) | st.text() | st.dictionaries(st.text(), st.text()),
    ),
)
MAKERS = st.sampled_from(
    [greeting_agent, greeting_wrapper, open_agent, open_wrapper, waiting_agent]
)


@settings(max_examples=300, deadline=None)
@example(make=open_agent, pieces=[NOISE], cuts=[1], is_end=True)
@given(
    make=MAKERS,
    pieces=st.lists(PIECES, max_size=12),
    cuts=st.lists(st.integers(1, 50), min_size=1),
    is_end=st.booleans(),
)
def test_any_bytes_in_any_reads_raise_nothing(
    make: Maker, pieces: list[bytes], cuts: list[int], is_end: bool
) -> None:
    """Whatever comes, however it is cut: no exception, whole answers, and time goes on."""
    session = make()
    stream = b"".join(pieces)
    at = 0
    for turn in range(len(stream)):
        if at >= len(stream):
            break
        size = cuts[turn % len(cuts)]
        session.receive_data(stream[at : at + size], float(turn))
        at += size
        assert session.statistics().buffered_bytes <= len(stream)
    if is_end:
        session.receive_eof(1e4)
    session.handle_timer(1e5)
    session.send(command("a"), 1e5)
    closes = [event for event in session.events_received() if isinstance(event, Closed)]

    assert len(closes) <= 1
    assert (session.state is SessionState.CLOSED) is bool(closes)
    assert session.state is SessionState.CLOSED, "by 1e5 s every deadline is over"
