"""The confirmed session: what both ends of a link agree on, without any I/O.

A pipe neither loses nor reorders, so nothing here rebuilds TCP. What a pipe cannot say is
whether the *actor* at the other end has dealt with a message. So each data frame is answered
by an echo - (epoch, sequence, digest of the bytes received) - when the receiving actor has
handled it, not when it was read. The sender keeps what isn't confirmed.

    wrapper                                  agent
       | HELLO versions, epoch 0, received 0    |
       |--------------------------------------->|
       |     WELCOME version, epoch, window     |
       |<---------------------------------------|
       | DATA epoch, 1, body                    |
       |--------------------------------------->|  event MessageReceived(1)
       |                                        |  ... the actor handles it: confirm(1)
       |         ECHO epoch, 1, digest          |
       |<---------------------------------------|
       |  event MessageConfirmed(1)

Rules, and what must stay true:

* At most ``window`` messages are unconfirmed, and no further one is sent while they make up a
  greatest frame's bytes. What is sent beyond waits in a bounded backlog, whose policy at the
  bound is the message's own (`Delivery`); `send` tells when it refused.
* A message is delivered once. After a re-attach both ends say what they have received;
  unconfirmed messages that the other side lacks go again, and a repeated one that was handled
  is only echoed again.
* Only frames of the present epoch count. One epoch is one wrapper incarnation.
* Every wait has a deadline: the greeting, silence, a confirmation, a re-attach. The caller
  asks `next_deadline` and calls `handle_timer`; time comes in as ``now`` and from nowhere else.
* A frame that can't be used is refused by name and counted. Those that leave the stream in
  doubt (`CloseCause`) end the session; the rest don't, up to a number of them. A message that
  only a newer peer knows is no fault of that peer's, and never ends it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum

import msgspec

from transport.codec import Codec, Undecodable, agent_codec, digest, wrapper_codec
from transport.errors import InternalError, OperatorError
from transport.events import (
    CloseCause,
    Closed,
    Detached,
    FrameRefused,
    MessageConfirmed,
    MessageReceived,
    MessageUnsupported,
    Opened,
    Refusal,
    SessionEvent,
)
from transport.frames import (
    FRAME_BYTES_MAX,
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
from transport.messages import Message
from transport.queueing import PolicyQueue

PROTOCOL_VERSIONS = (1,)
_ENVELOPE_BYTES = 64
"""More than an envelope adds to a body."""


class Role(StrEnum):
    """The wrapper greets, the agent welcomes; after that they are equals."""

    AGENT = "agent"
    WRAPPER = "wrapper"


class SessionState(StrEnum):
    """Where a session stands."""

    GREETING = "greeting"
    OPEN = "open"
    DETACHED = "detached"
    CLOSED = "closed"


class LinkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A link's limits. The agent's apply on both ends: `Welcome` tells them."""

    window: int = 32
    heartbeat_s: float = 10.0
    silence_s: float = 60.0
    greeting_s: float = 120.0
    """A container may take its time before the wrapper can say Hello."""
    confirm_s: float = 120.0
    resume_s: float = 0.0
    """How long a lost stream may be replaced; 0: the end of the stream is the end."""
    backlog: int = 1024
    control_reserve: int = 64
    refusals_max: int = 16
    frame_bytes_max: int = FRAME_BYTES_MAX

    def __post_init__(self) -> None:
        """Raise `OperatorError` for limits that no link can live by."""
        if self.window < 1:
            raise OperatorError(f"a link's window is at least 1, not {self.window}")
        if not 0 < self.heartbeat_s < self.silence_s < math.inf:
            raise OperatorError(
                f"a link's heartbeat_s ({self.heartbeat_s:g}) is above 0 and below its "
                f"silence_s ({self.silence_s:g}), which is finite"
            )


class SessionStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Counters since the start, and what can fill up."""

    state: SessionState
    sent: int
    received: int
    confirmed: int
    unconfirmed: int
    backlog: int
    dropped: int
    refused_to_send: int
    refusals: dict[str, int]
    buffered_bytes: int


class MessageTooLarge(InternalError):
    """Raised when a message to send exceeds the frame maximum; the session goes on."""


class MessageUnencodable(InternalError):
    """Raised when a message to send holds what has no wire form; the session goes on.

    An integer beyond 64 bits, say, or an object that is no word of the vocabulary.
    """


class _Unconfirmed(msgspec.Struct):
    body: bytes
    digest: int
    sent_at: float


_encode = msgspec.msgpack.Encoder().encode


class Session:
    """One end of a confirmed link; feed it bytes and time, take bytes and events from it."""

    def __init__(
        self,
        role: Role,
        *,
        now: float,
        epoch: int = 0,
        options: LinkOptions | None = None,
        release: str = "",
        codec: Codec | None = None,
    ) -> None:
        """Start in the greeting; an agent's session is given its wrapper's ``epoch`` (> 0)."""
        if (role is Role.AGENT) != (epoch > 0):
            raise InternalError("the agent chooses the epoch, above 0; a wrapper is told it")
        self._role = role
        self._codec = codec or (agent_codec() if role is Role.AGENT else wrapper_codec())
        self._options = options or LinkOptions()
        self._release = release
        self._epoch = epoch
        self._state = SessionState.GREETING
        self._splitter = FrameSplitter(self._options.frame_bytes_max)
        self._out: list[bytes] = []
        self._events: list[SessionEvent] = []
        self._backlog: PolicyQueue[bytes] = PolicyQueue(
            self._options.backlog, control_reserve=self._options.control_reserve
        )
        self._unconfirmed: dict[int, _Unconfirmed] = {}
        self._unconfirmed_bytes = 0
        self._unhandled: dict[int, int] = {}
        self._sent = 0
        self._received = 0
        self._refusals: dict[str, int] = {}
        self._opened_once = False
        self._state_since = now
        self._last_heard = now
        self._last_said = now
        self._on_frame: dict[int, Callable[[Envelope, float], None]] = {
            FrameKind.HELLO: self._on_hello,
            FrameKind.WELCOME: self._on_welcome,
            FrameKind.DATA: self._on_data,
            FrameKind.ECHO: self._on_echo,
            FrameKind.HEARTBEAT: self._on_heartbeat,
            FrameKind.UNSUPPORTED: self._on_unsupported,
            FrameKind.GOODBYE: self._on_goodbye,
        }
        if role is Role.WRAPPER:
            self._greet(now)

    # --- what the caller may ask ---------------------------------------------------------

    @property
    def state(self) -> SessionState:
        """Where the session stands."""
        return self._state

    @property
    def epoch(self) -> int:
        """The wrapper incarnation; 0 in a wrapper that hasn't been welcomed yet."""
        return self._epoch

    @property
    def is_settled(self) -> bool:
        """True when everything that was sent is confirmed and nothing waits to be."""
        return not self._unconfirmed and not len(self._backlog)

    def statistics(self) -> SessionStatistics:
        """Return the counters; cheap enough to be called at each sample."""
        return SessionStatistics(
            state=self._state,
            sent=self._sent,
            received=self._received,
            confirmed=self._sent - len(self._unconfirmed),
            unconfirmed=len(self._unconfirmed),
            backlog=len(self._backlog),
            dropped=self._backlog.dropped,
            refused_to_send=self._backlog.refused,
            refusals=dict(self._refusals),
            buffered_bytes=len(self._splitter),
        )

    # --- sending -------------------------------------------------------------------------

    def send(self, message: Message, now: float) -> bool:
        """Send, or keep until the window opens; False where the message's policy refuses.

        Raises `MessageTooLarge` or `MessageUnencodable`; does nothing but return False once
        the session is closed.
        """
        if self._state is SessionState.CLOSED:
            return False
        try:
            body = self._codec.encode(message)
        except (OverflowError, TypeError) as error:
            raise MessageUnencodable(
                f"{type(message).__name__} has no wire form: {error}"
            ) from error
        if len(body) + _ENVELOPE_BYTES > self._options.frame_bytes_max:
            raise MessageTooLarge(
                f"{type(message).__name__} has {len(body)} bytes; "
                f"a frame holds {self._options.frame_bytes_max}"
            )
        if self._has_window() and not len(self._backlog):
            self._transmit(body, now)
            return True
        return self._backlog.put(body, message.delivery, type(message))

    def confirm(self, sequence: int, now: float) -> None:
        """Echo a message that its actor has handled; a second time does nothing."""
        received = self._unhandled.pop(sequence, None)
        if received is not None and self._state is SessionState.OPEN:
            self._say(FrameKind.ECHO, sequence, _encode(received), now)

    def close(self, why: str, now: float) -> None:
        """Say goodbye and end the session; what isn't confirmed is given up."""
        if self._state in (SessionState.OPEN, SessionState.GREETING):
            self._say_goodbye(why, now)
        self._state = SessionState.CLOSED

    def fail(self, cause: CloseCause, detail: str, now: float) -> None:
        """End the session for a cause that only the shell can see."""
        if self._state is not SessionState.CLOSED:
            self._close(cause, detail, now)

    def data_to_send(self) -> bytes:
        """Return what has to be written now, and forget it."""
        if not self._out:
            return b""
        data = b"".join(self._out)
        self._out.clear()
        return data

    # --- receiving -----------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> None:
        """Take bytes from the wire; look at `events_received` and `data_to_send` after."""
        if self._state in (SessionState.CLOSED, SessionState.DETACHED):
            return
        self._last_heard = now
        self._splitter.feed(data)
        try:
            while not self._is_closed():
                frame = self._splitter.next_frame()
                if frame is None:
                    return
                self._receive_frame(frame, now)
        except OversizeFrame as error:
            self._close(CloseCause.OVERSIZE, str(error), now)

    def receive_eof(self, now: float) -> None:
        """Take the end of the stream: detach where the options allow it, else close."""
        if self._state in (SessionState.CLOSED, SessionState.DETACHED):
            return
        left = len(self._splitter)
        self._splitter.clear()
        self._out.clear()
        if self._options.resume_s > 0 and self._opened_once:
            self._enter(SessionState.DETACHED, now)
            self._events.append(Detached())
        elif left:
            self._close(CloseCause.TRUNCATED, f"the stream ended within a frame ({left} B)", now)
        else:
            self._close(CloseCause.END_OF_STREAM, "the peer closed its end", now)

    def attach(self, now: float) -> None:
        """Go on over a new stream after `Detached`; does nothing in another state."""
        if self._state is not SessionState.DETACHED:
            return
        self._enter(SessionState.GREETING, now)
        self._last_heard = now
        if self._role is Role.WRAPPER:
            self._greet(now)

    def events_received(self) -> list[SessionEvent]:
        """Return what happened since the last call, in order."""
        events, self._events = self._events, []
        return events

    # --- time ----------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """Return when `handle_timer` is next to be called, or None when nothing is awaited."""
        if self._state is SessionState.CLOSED:
            return None
        if self._state is SessionState.GREETING:
            return self._state_since + self._options.greeting_s
        if self._state is SessionState.DETACHED:
            return self._state_since + self._options.resume_s
        return self._next_open_deadline()

    def handle_timer(self, now: float) -> None:
        """Do what is due at ``now``; early calls do nothing."""
        deadline = self.next_deadline()
        if deadline is None or now < deadline:
            return
        if self._state is SessionState.GREETING:
            waited = self._options.greeting_s
            self._close(CloseCause.NO_GREETING, f"no greeting within {waited:g} s", now)
        elif self._state is SessionState.DETACHED:
            waited = self._options.resume_s
            self._close(CloseCause.SILENT, f"not attached again within {waited:g} s", now)
        else:
            self._handle_open_timer(now)

    def _next_open_deadline(self) -> float:
        options = self._options
        deadline = min(self._last_said + options.heartbeat_s, self._last_heard + options.silence_s)
        for oldest in self._unconfirmed.values():
            return min(deadline, oldest.sent_at + options.confirm_s)
        return deadline

    def _handle_open_timer(self, now: float) -> None:
        options = self._options
        oldest = next(iter(self._unconfirmed.items()), None)
        if now >= self._last_heard + options.silence_s:
            self._close(CloseCause.SILENT, f"nothing heard for {options.silence_s:g} s", now)
        elif oldest is not None and now >= oldest[1].sent_at + options.confirm_s:
            self._close(
                CloseCause.UNCONFIRMED,
                f"message {oldest[0]} was not handled within {options.confirm_s:g} s",
                now,
            )
        else:
            self._say(FrameKind.HEARTBEAT, 0, None, now)

    # --- frames, one method each ---------------------------------------------------------

    def _receive_frame(self, frame: bytes, now: float) -> None:
        try:
            envelope = decode_envelope(frame)
        except msgspec.MsgspecError as error:
            self._refuse(Refusal.NOT_AN_ENVELOPE, str(error), now)
            return
        on_frame = self._on_frame.get(envelope.kind)
        if on_frame is None:
            self._refuse(Refusal.UNKNOWN_KIND, f"kind {envelope.kind}", now)
        elif envelope.kind in (FrameKind.HELLO, FrameKind.WELCOME, FrameKind.GOODBYE):
            on_frame(envelope, now)
        elif self._state is not SessionState.OPEN:
            self._refuse(Refusal.BEFORE_GREETING, f"kind {envelope.kind}", now)
        elif envelope.epoch != self._epoch:
            detail = f"epoch {envelope.epoch}, the present one is {self._epoch}"
            self._refuse(Refusal.STALE_EPOCH, detail, now)
        else:
            on_frame(envelope, now)

    def _on_hello(self, envelope: Envelope, now: float) -> None:
        if self._role is not Role.AGENT or self._state is not SessionState.GREETING:
            self._refuse(Refusal.SECOND_HELLO, "a greeting where none was due", now)
            return
        try:
            hello = decode_body(envelope.body, Hello)
        except msgspec.MsgspecError as error:
            self._refuse(Refusal.BROKEN_MESSAGE, f"Hello: {error}", now)
            return
        common = [version for version in PROTOCOL_VERSIONS if version in hello.versions]
        if not common:
            self._close_with_goodbye(
                CloseCause.WRONG_VERSION,
                f"the wrapper speaks versions {hello.versions[:8]}, we {PROTOCOL_VERSIONS}",
                now,
            )
        elif hello.epoch != (self._epoch if self._opened_once else 0):
            self._refuse(Refusal.STALE_EPOCH, f"Hello of epoch {hello.epoch}", now)
        else:
            self._welcome(max(common), now)
            self._open(hello.release, now)

    def _on_welcome(self, envelope: Envelope, now: float) -> None:
        if self._role is not Role.WRAPPER or self._state is not SessionState.GREETING:
            self._refuse(Refusal.SECOND_HELLO, "a welcome where none was due", now)
            return
        try:
            welcome = decode_body(envelope.body, Welcome)
        except msgspec.MsgspecError as error:
            self._refuse(Refusal.BROKEN_MESSAGE, f"Welcome: {error}", now)
            return
        if welcome.version not in PROTOCOL_VERSIONS:
            detail = f"the agent chose version {welcome.version}, we speak {PROTOCOL_VERSIONS}"
            self._close_with_goodbye(CloseCause.WRONG_VERSION, detail, now)
        elif self._opened_once and welcome.epoch != self._epoch:
            self._refuse(Refusal.STALE_EPOCH, f"Welcome of epoch {welcome.epoch}", now)
        else:
            self._take_welcome(welcome, now)

    def _on_data(self, envelope: Envelope, now: float) -> None:
        sequence, body = envelope.sequence, envelope.body
        if sequence < 1:
            self._refuse(Refusal.NOT_AN_ENVELOPE, f"data with sequence {sequence}", now)
            return
        if sequence <= self._received:
            # It went again after a re-attach. Answered already: answer again; else soon.
            if sequence not in self._unhandled:
                self._answer_again(sequence, body, now)
            return
        if sequence != self._received + 1:
            detail = f"message {sequence} came after {self._received}"
            self._close_with_goodbye(CloseCause.SEQUENCE_GAP, detail, now)
            return
        if len(self._unhandled) >= self._options.window:
            detail = f"more than {self._options.window} messages came unconfirmed"
            self._close_with_goodbye(CloseCause.WINDOW_EXCEEDED, detail, now)
            return
        self._received = sequence
        try:
            message = self._codec.decode(body)
        except Undecodable as error:
            self._say(FrameKind.UNSUPPORTED, sequence, _encode(error.tag), now)
            known = Refusal.UNKNOWN_MESSAGE if error.is_unknown else Refusal.BROKEN_MESSAGE
            self._refuse(known, str(error), now)
            return
        self._unhandled[sequence] = digest(body)
        self._events.append(MessageReceived(sequence=sequence, message=message))

    def _answer_again(self, sequence: int, body: msgspec.Raw, now: float) -> None:
        try:
            self._codec.decode(body)
        except Undecodable as error:
            self._say(FrameKind.UNSUPPORTED, sequence, _encode(error.tag), now)
        else:
            self._say(FrameKind.ECHO, sequence, _encode(digest(body)), now)

    def _on_echo(self, envelope: Envelope, now: float) -> None:
        entry = self._unconfirmed.get(envelope.sequence)
        if entry is None:
            # Right after a re-attach an echo may come twice; otherwise the peer is confused.
            if not 0 < envelope.sequence <= self._sent:
                self._refuse(Refusal.UNKNOWN_ECHO, f"of message {envelope.sequence}", now)
            return
        if bytes(envelope.body) != _encode(entry.digest):
            detail = f"the peer handled other bytes than message {envelope.sequence} had"
            self._close_with_goodbye(CloseCause.ECHO_MISMATCH, detail, now)
            return
        self._settle(envelope.sequence, now)
        self._events.append(MessageConfirmed(sequence=envelope.sequence))

    def _on_unsupported(self, envelope: Envelope, now: float) -> None:
        if envelope.sequence not in self._unconfirmed:
            self._refuse(Refusal.UNKNOWN_ECHO, f"unsupported message {envelope.sequence}", now)
            return
        self._settle(envelope.sequence, now)
        tag = _text(envelope.body)
        self._events.append(MessageUnsupported(sequence=envelope.sequence, tag=tag))

    def _on_heartbeat(self, envelope: Envelope, now: float) -> None:
        """Having been heard was all."""

    def _on_goodbye(self, envelope: Envelope, now: float) -> None:
        # A wrapper that was never welcomed has no epoch to compare with.
        if self._epoch > 0 and envelope.epoch not in (0, self._epoch):
            self._refuse(Refusal.STALE_EPOCH, f"Goodbye of epoch {envelope.epoch}", now)
            return
        self._close(CloseCause.GOODBYE, _text(envelope.body), now)

    # --- the small steps -----------------------------------------------------------------

    def _greet(self, now: float) -> None:
        hello = Hello(
            versions=PROTOCOL_VERSIONS,
            release=self._release,
            epoch=self._epoch,
        )
        self._say(FrameKind.HELLO, 0, _encode(hello), now)

    def _welcome(self, version: int, now: float) -> None:
        welcome = Welcome(
            version=version,
            epoch=self._epoch,
            heartbeat_s=self._options.heartbeat_s,
            silence_s=self._options.silence_s,
            window=self._options.window,
        )
        self._say(FrameKind.WELCOME, 0, _encode(welcome), now)

    def _take_welcome(self, welcome: Welcome, now: float) -> None:
        try:
            self._options = msgspec.structs.replace(
                self._options,
                heartbeat_s=welcome.heartbeat_s,
                silence_s=welcome.silence_s,
                window=welcome.window,
            )
        except OperatorError as error:
            self._refuse(Refusal.BROKEN_MESSAGE, f"Welcome: {error}", now)
            return
        self._epoch = welcome.epoch
        self._open("", now)

    def _open(self, release: str, now: float) -> None:
        is_resumed, self._opened_once = self._opened_once, True
        self._enter(SessionState.OPEN, now)
        self._events.append(Opened(epoch=self._epoch, release=release, is_resumed=is_resumed))
        for sequence, entry in self._unconfirmed.items():
            # Its echo may have been lost with the stream: the peer drops a repetition.
            entry.sent_at = now
            self._say(FrameKind.DATA, sequence, entry.body, now)
        self._drain_backlog(now)

    def _is_closed(self) -> bool:
        return self._state is SessionState.CLOSED

    def _has_window(self) -> bool:
        return (
            self._state is SessionState.OPEN
            and len(self._unconfirmed) < self._options.window
            and self._unconfirmed_bytes < self._options.frame_bytes_max
        )

    def _transmit(self, body: bytes, now: float) -> None:
        self._sent += 1
        self._unconfirmed[self._sent] = _Unconfirmed(body, digest(body), now)
        self._unconfirmed_bytes += len(body)
        self._say(FrameKind.DATA, self._sent, body, now)

    def _settle(self, sequence: int, now: float) -> None:
        self._unconfirmed_bytes -= len(self._unconfirmed.pop(sequence).body)
        if len(self._backlog):
            self._drain_backlog(now)

    def _drain_backlog(self, now: float) -> None:
        while len(self._backlog) and self._has_window():
            self._transmit(self._backlog.get(), now)

    def _say(self, kind: FrameKind, sequence: int, body: bytes | None, now: float) -> None:
        self._last_said = now
        self._out.append(encode_frame(kind, self._epoch, sequence, body))

    def _say_goodbye(self, why: str, now: float) -> None:
        printable = why[:1000].encode("utf-8", "backslashreplace").decode()
        self._say(FrameKind.GOODBYE, 0, _encode(printable), now)

    def _refuse(self, refusal: Refusal, detail: str, now: float) -> None:
        self._refusals[refusal] = self._refusals.get(refusal, 0) + 1
        refusals_max = self._options.refusals_max
        if refusal is not Refusal.UNKNOWN_MESSAGE or self._refusals[refusal] <= refusals_max:
            self._events.append(FrameRefused(refusal=refusal, detail=detail[:500]))
        if self._faults() > refusals_max:
            detail = f"more than {refusals_max} frames were refused"
            self._close_with_goodbye(CloseCause.TOO_MANY_REFUSALS, detail, now)

    def _faults(self) -> int:
        """Return how many frames were the peer's fault: that it is newer than we isn't one."""
        return sum(self._refusals.values()) - self._refusals.get(Refusal.UNKNOWN_MESSAGE, 0)

    def _close_with_goodbye(self, cause: CloseCause, detail: str, now: float) -> None:
        self._say_goodbye(detail, now)
        self._close(cause, detail, now)

    def _close(self, cause: CloseCause, detail: str, now: float) -> None:
        self._enter(SessionState.CLOSED, now)
        self._splitter.clear()
        self._events.append(Closed(cause=cause, detail=detail))

    def _enter(self, state: SessionState, now: float) -> None:
        self._state = state
        self._state_since = now


def _text(body: msgspec.Raw) -> str:
    """Return a short text that the peer sent, or nothing where it is none."""
    try:
        return decode_body(body, str)[:1000]
    except msgspec.MsgspecError:
        return ""
