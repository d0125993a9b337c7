"""Frames: what travels over the wire, one after the other.

A frame is a length (four bytes, big endian, the envelope's bytes) and an envelope: a msgpack
array ``[kind, epoch, sequence, body]`` that can be decoded before its body is. The length is
checked before a single byte of the envelope is kept, so a peer that announces 100 MB costs
four bytes.

The *epoch* names one wrapper incarnation: the agent chooses it, `Welcome` tells it, and a
frame of another epoch is an echo from a former life. Epoch 0 is before the greeting.
The *sequence* counts data frames of one direction from 1, without gaps.

========== ======================= ===================== ==========================
kind       sequence                body                  sent by
========== ======================= ===================== ==========================
HELLO      0                       `Hello`               wrapper, once per stream
WELCOME    0                       `Welcome`             agent, answering `Hello`
DATA       this message's          the message           both
ECHO       of the message handled  digest of its body    both
HEARTBEAT  0                       nil                   both, when otherwise quiet
UNSUPPORTED of the message refused the tag not known     both
GOODBYE    0                       why, a sentence       both, before closing
========== ======================= ===================== ==========================
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, TypeVar

import msgspec

FRAME_BYTES_MAX = 4 * 1024 * 1024
"""An envelope's greatest size; a JDL of 1 MiB fits, a payload's output never travels here."""

PREFIX_BYTES = 4


class FrameKind(IntEnum):
    """What a frame is; numbers never change their meaning."""

    HELLO = 1
    WELCOME = 2
    DATA = 3
    ECHO = 4
    HEARTBEAT = 5
    UNSUPPORTED = 6
    GOODBYE = 7


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """The outer part of every frame. Append only: it is an array on the wire."""

    kind: int
    epoch: int
    sequence: int
    body: msgspec.Raw


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Wrapper to agent, first thing: what it can speak, and what it still knows of a link.

    ``epoch`` is 0 for a new wrapper; one that attaches again names its own.
    """

    versions: tuple[int, ...]
    release: str = ""
    epoch: int = 0


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """Agent to wrapper: the version, the epoch and the limits of this link."""

    version: int
    epoch: Annotated[int, msgspec.Meta(ge=1)]
    heartbeat_s: float
    silence_s: float
    window: int


class OversizeFrame(Exception):
    """Raised when a length prefix announces more than the maximum; the stream is lost."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)
_NIL = msgspec.Raw(b"\xc0")
_BodyType = TypeVar("_BodyType")


def encode_frame(kind: FrameKind, epoch: int, sequence: int, body: bytes | None = None) -> bytes:
    """Return a whole frame around an encoded body (None: no body)."""
    envelope = _encoder.encode(
        Envelope(kind, epoch, sequence, _NIL if body is None else msgspec.Raw(body))
    )
    return len(envelope).to_bytes(PREFIX_BYTES, "big") + envelope


def decode_envelope(data: bytes) -> Envelope:
    """Decode an envelope, leaving its body raw.

    Raises `msgspec.DecodeError` (or a subclass) for anything that isn't one.
    """
    try:
        return _decoder.decode(data)
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(f"not an envelope: {error}") from error


def decode_body(body: msgspec.Raw, kind: type[_BodyType]) -> _BodyType:
    """Decode the body of one of the session's own frames.

    Raises `msgspec.DecodeError` (or a subclass) for anything that isn't a ``kind``.
    """
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except (RecursionError, UnicodeDecodeError) as error:
        raise msgspec.DecodeError(f"not a {kind.__name__}: {error}") from error


class FrameSplitter:
    """Cuts a byte stream into envelopes; never keeps more than one frame and one read."""

    def __init__(self, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._buffer = bytearray()
        self._start = 0

    def __len__(self) -> int:
        return len(self._buffer) - self._start

    def feed(self, data: bytes) -> None:
        """Take bytes as they came."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def next_frame(self) -> bytes | None:
        """Return the next whole envelope, or None until more bytes come.

        Raises `OversizeFrame` as soon as a prefix announces too much; what came is dropped.
        """
        body = self._start + PREFIX_BYTES
        if len(self._buffer) < body:
            return None
        length = int.from_bytes(self._buffer[self._start : body], "big")
        if length > self._bytes_max:
            self.clear()
            raise OversizeFrame(
                f"a frame of {length} bytes was announced; the maximum is {self._bytes_max}"
            )
        end = body + length
        if len(self._buffer) < end:
            return None
        self._start = end
        return bytes(self._buffer[body:end])

    def clear(self) -> None:
        """Forget what is left of a stream that ended."""
        self._buffer.clear()
        self._start = 0
