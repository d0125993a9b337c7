"""Frames: what is cut out of a byte stream, and what is refused before it costs memory."""

from __future__ import annotations

import tracemalloc

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transport.factories import envelope_frame, pack
from transport.frames import (
    FRAME_BYTES_MAX,
    PREFIX_BYTES,
    Envelope,
    FrameKind,
    FrameSplitter,
    Hello,
    OversizeFrame,
    Welcome,
    decode_body,
    decode_envelope,
    encode_frame,
)

KINDS = st.sampled_from(list(FrameKind))
COUNTS = st.integers(0, 2**64 - 1)


def all_frames(splitter: FrameSplitter) -> list[bytes]:
    """Return every whole frame that ``splitter`` holds."""
    return list(iter(splitter.next_frame, None))


@given(kind=KINDS, epoch=COUNTS, sequence=COUNTS, body=st.text())
def test_a_frame_comes_back_as_it_was(
    kind: FrameKind, epoch: int, sequence: int, body: str
) -> None:
    """Every envelope survives its encoding, with its body still raw."""
    frame = encode_frame(kind, epoch, sequence, pack(body))
    envelope = decode_envelope(frame[PREFIX_BYTES:])

    assert (envelope.kind, envelope.epoch, envelope.sequence) == (kind, epoch, sequence)
    assert bytes(envelope.body) == pack(body)


def test_a_frame_without_a_body_carries_nil() -> None:
    """A heartbeat has nothing to say but that it is there."""
    envelope = decode_envelope(encode_frame(FrameKind.HEARTBEAT, 1, 0)[PREFIX_BYTES:])

    assert bytes(envelope.body) == pack(None)


@given(bodies=st.lists(st.binary(max_size=40), max_size=8), data=st.data())
def test_frames_come_whole_however_the_bytes_are_cut(
    bodies: list[bytes], data: st.DataObject
) -> None:
    """A stream cut anywhere yields the same frames, each once."""
    frames = [encode_frame(FrameKind.DATA, 1, n, pack(body)) for n, body in enumerate(bodies)]
    stream = b"".join(frames)
    splitter = FrameSplitter()
    got = []
    at = 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        splitter.feed(stream[at : at + size])
        at += size
        got += all_frames(splitter)

    assert got == [frame[PREFIX_BYTES:] for frame in frames]
    assert len(splitter) == 0


def test_an_empty_frame_is_a_frame() -> None:
    """A length of zero is whole at once; what it means is the session's to say."""
    splitter = FrameSplitter()
    splitter.feed(bytes(PREFIX_BYTES))

    assert splitter.next_frame() == b""
    assert splitter.next_frame() is None


def test_a_frame_of_the_greatest_size_passes() -> None:
    """The maximum itself is allowed."""
    splitter = FrameSplitter(bytes_max=8)
    splitter.feed(b"\0\0\0\x08" + b"x" * 8)

    assert splitter.next_frame() == b"x" * 8


def test_an_oversize_frame_is_refused_at_its_prefix() -> None:
    """A peer that announces 100 MB costs four bytes, and what it sent is dropped."""
    splitter = FrameSplitter()
    splitter.feed((100_000_000).to_bytes(PREFIX_BYTES, "big"))

    with pytest.raises(OversizeFrame, match="100000000 bytes was announced"):
        splitter.next_frame()
    assert len(splitter) == 0


def test_a_splitter_keeps_one_frame_and_one_read() -> None:
    """However much flows through, only the unfinished frame stays in memory."""
    frame = encode_frame(FrameKind.DATA, 1, 1, pack(b"x" * 100_000))
    read = frame * 10 + frame[:50]
    splitter = FrameSplitter()
    tracemalloc.start()
    try:
        for _ in range(50):
            splitter.feed(read)
            for _ in all_frames(splitter):
                pass
            splitter.clear()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 6 * len(read)


def test_clearing_forgets_the_rest_of_a_stream() -> None:
    """A new stream doesn't begin in the middle of the old one's last frame."""
    splitter = FrameSplitter()
    splitter.feed(b"\0\0\0\x05abc")
    splitter.clear()
    splitter.feed(b"\0\0\0\x01z")

    assert splitter.next_frame() == b"z"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xc1", id="a byte that msgpack never uses"),
        pytest.param(pack({"kind": 3}), id="map"),
        pytest.param(pack([3, 1, 1]), id="too short"),
        pytest.param(pack(["3", 1, 1, None]), id="kind is text"),
        pytest.param(pack([3, 1.5, 1, None]), id="epoch is a fraction"),
        pytest.param(pack([3, 1, None, None]), id="no sequence"),
        pytest.param(pack([3, 1, 1, None]) + b"\0", id="trailing byte"),
        pytest.param(b"\x94\x03\x01\x01" + b"\x91" * 100_000 + b"\xc0", id="depth bomb"),
        pytest.param(b"\x94\x03\x01\x01\xdd\xff\xff\xff\xff", id="four billion items"),
        pytest.param(b"\x94\xa1\xff\x01\x01\xc0", id="invalid UTF-8"),
    ],
)
def test_what_is_no_envelope_is_named(data: bytes) -> None:
    """Garbage raises one kind of error, whatever the garbage."""
    with pytest.raises(msgspec.DecodeError):
        decode_envelope(data)


def test_a_longer_envelope_is_read_to_where_it_is_known() -> None:
    """A newer peer may append a place to the array."""
    frame = envelope_frame(FrameKind.ECHO, 1, 2, 3, "from the future")

    assert decode_envelope(frame[PREFIX_BYTES:]).sequence == 2


@given(data=st.binary(max_size=200))
def test_any_bytes_are_an_envelope_or_an_error(data: bytes) -> None:
    """Nothing but `msgspec.DecodeError` leaves the decoder."""
    try:
        envelope = decode_envelope(data)
    except msgspec.DecodeError:
        return
    assert isinstance(envelope, Envelope)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\x82\xa8versions\x91\x01\xa7release\xa2\xff\xfe", id="invalid UTF-8"),
        pytest.param(b"\x82\xa8versions\x91\x01\xa1x" + b"\x91" * 100_000 + b"\xc0", id="depth"),
        pytest.param(pack({"release": "1"}), id="no versions"),
        pytest.param(pack({"versions": ["1"]}), id="versions are text"),
        pytest.param(b"\x81\xa8versions\xdd\xff\xff\xff\xff", id="four billion versions"),
    ],
)
def test_a_broken_greeting_is_named(body: bytes) -> None:
    """The one frame that anyone may send first raises one kind of error."""
    with pytest.raises(msgspec.DecodeError):
        decode_body(msgspec.Raw(body), Hello)


def test_a_greeting_with_unknown_fields_is_read() -> None:
    """A newer peer may greet with more than we know."""
    body = pack({"versions": [1, 2], "release": "9", "colour": {"deep": [1]}})

    assert decode_body(msgspec.Raw(body), Hello) == Hello(versions=(1, 2), release="9")


def test_a_welcome_names_an_epoch() -> None:
    """Epoch 0 is before the greeting; no welcome may give it."""
    body = pack(Welcome(version=1, epoch=0, heartbeat_s=1.0, silence_s=2.0, window=1))

    with pytest.raises(msgspec.DecodeError):
        decode_body(msgspec.Raw(body), Welcome)


def test_the_frame_maximum_fits_the_prefix() -> None:
    """The four bytes of a prefix can say every allowed length."""
    assert FRAME_BYTES_MAX < 2 ** (8 * PREFIX_BYTES)
