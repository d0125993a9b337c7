"""Messages to bytes and back: msgpack maps with a tag, decoded into a closed union."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from transport.messages import AgentMessage, Message, WrapperMessage
from transport.secret import Secret


class Undecodable(Exception):
    """Raised when a body is not a message of the union; ``tag`` is its tag, if it has one.

    ``is_unknown`` tells a message that only a newer peer knows from one that is broken.
    """

    def __init__(self, tag: str, why: str, *, is_unknown: bool) -> None:
        super().__init__(why)
        self.tag = tag
        self.is_unknown = is_unknown


class _Tagged(msgspec.Struct):
    type: str


def _reveal(value: object) -> str:
    if isinstance(value, Secret):
        return value.reveal()
    raise TypeError(f"{type(value).__name__} can't travel in a message")


def _conceal(kind: type, value: object) -> object:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise TypeError(f"{kind.__name__} can't be read from {type(value).__name__}")


class Codec:
    """Encodes any message; decodes those of one union."""

    def __init__(self, incoming: Any) -> None:
        self._encoder = msgspec.msgpack.Encoder(enc_hook=_reveal)
        self._decoder = msgspec.msgpack.Decoder(incoming, dec_hook=_conceal)
        self._tags = frozenset(
            kind.__struct_config__.tag for kind in getattr(incoming, "__args__", (incoming,))
        )

    def encode(self, message: Message) -> bytes:
        """Encode a message; text with foreign bytes (a file name, say) travels escaped.

        Raises `TypeError` or `OverflowError` for what has no wire form at all.
        """
        try:
            return self._encoder.encode(message)
        except UnicodeEncodeError:
            return self._encoder.encode(_escaped(msgspec.to_builtins(message, enc_hook=_reveal)))

    def decode(self, body: bytes | msgspec.Raw) -> Message:
        """Decode a body; raises `Undecodable` and nothing else."""
        try:
            message: Message = self._decoder.decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, TypeError) as error:
            raise self._undecodable(body, error) from error
        return message

    def _undecodable(self, body: bytes | msgspec.Raw, error: Exception) -> Undecodable:
        try:
            tag = msgspec.msgpack.decode(body, type=_Tagged).type
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return Undecodable("", f"not a message: {error}", is_unknown=False)
        # A tag is the peer's text: only so much of it is ever kept or answered.
        tag = tag[:64]
        if tag in self._tags:
            return Undecodable(tag, f"{tag}: {error}", is_unknown=False)
        return Undecodable(tag, f"no message is called {tag!r}", is_unknown=True)


def _escaped(value: object) -> object:
    """Return the same with every lone surrogate in a text written as a backslash escape."""
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_escaped(key): _escaped(item) for key, item in value.items()}
        case list() | tuple():
            return [_escaped(item) for item in value]
        case _:
            return value


def digest(body: bytes | msgspec.Raw) -> int:
    """Return what an echo carries to say which bytes were received.

    A CRC-32: with the epoch and the sequence it tells every mix-up of a healthy pipe, costs
    300 ns, and lets no secret come back over the wire. It is no defence against a hostile
    peer, who is the other end of the pipe anyway.
    """
    return zlib.crc32(body)


def agent_codec() -> Codec:
    """Return the agent's codec: it reads what wrappers say."""
    return Codec(WrapperMessage)


def wrapper_codec() -> Codec:
    """Return the wrapper's codec: it reads what agents say."""
    return Codec(AgentMessage)
