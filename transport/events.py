"""What a confirmed session tells its owner: a closed union of facts."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from transport.messages import Message


class Refusal(StrEnum):
    """Why a frame was dropped. Each is counted; the link lives on, up to a number of them.

    Unknown messages never end a link: only the first few of them are told, all are counted.
    """

    NOT_AN_ENVELOPE = "not-an-envelope"
    UNKNOWN_KIND = "unknown-kind"
    STALE_EPOCH = "stale-epoch"
    BEFORE_GREETING = "before-greeting"
    SECOND_HELLO = "second-hello"
    UNKNOWN_MESSAGE = "unknown-message"
    BROKEN_MESSAGE = "broken-message"
    UNKNOWN_ECHO = "unknown-echo"


class CloseCause(StrEnum):
    """Why a session ended; after one of these it says and hears nothing more."""

    GOODBYE = "goodbye"
    """The peer, or we, ended it on purpose."""
    END_OF_STREAM = "end-of-stream"
    """The peer's end of the pipe is closed, between frames."""
    TRUNCATED = "truncated"
    """The stream ended within a frame."""
    OVERSIZE = "oversize"
    SEQUENCE_GAP = "sequence-gap"
    WINDOW_EXCEEDED = "window-exceeded"
    """The peer sent more than it was allowed to without waiting for confirmations."""
    NOT_READING = "not-reading"
    """The peer doesn't take what is written to it."""
    ECHO_MISMATCH = "echo-mismatch"
    """The peer handled other bytes than we sent: nothing that it did can be trusted."""
    SILENT = "silent"
    """Nothing came for longer than the silence deadline (or a re-attach never came)."""
    UNCONFIRMED = "unconfirmed"
    """The peer is alive but hasn't handled a message in time."""
    NO_GREETING = "no-greeting"
    WRONG_VERSION = "wrong-version"
    TOO_MANY_REFUSALS = "too-many-refusals"


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """The greeting is done; what was sent before travels now."""

    epoch: int
    release: str = ""
    is_resumed: bool = False


class MessageReceived(msgspec.Struct, frozen=True, kw_only=True):
    """A new message, exactly once; `Session.confirm` its sequence when it is handled."""

    sequence: int
    message: Message


class MessageConfirmed(msgspec.Struct, frozen=True, kw_only=True):
    """The peer's actor has handled the message of this sequence."""

    sequence: int


class MessageUnsupported(msgspec.Struct, frozen=True, kw_only=True):
    """The peer doesn't know this message and has dropped it."""

    sequence: int
    tag: str


class FrameRefused(msgspec.Struct, frozen=True, kw_only=True):
    """A frame was dropped, and why."""

    refusal: Refusal
    detail: str


class Detached(msgspec.Struct, frozen=True, kw_only=True):
    """The stream is gone; the session waits to be attached to another."""


class Closed(msgspec.Struct, frozen=True, kw_only=True):
    """The session is over."""

    cause: CloseCause
    detail: str


SessionEvent = (
    Opened
    | MessageReceived
    | MessageConfirmed
    | MessageUnsupported
    | FrameRefused
    | Detached
    | Closed
)
