"""Two sessions, a pipe that is cut anywhere, a clock that jumps: what must stay true.

Four kinds of rule, since safety and liveness alone miss bugs:

* safety: each message is delivered once and in order; never more than a window is unconfirmed;
  nothing is confirmed that wasn't handled; a session ends only for a cause that is real;
* liveness after healing: when everything flows and is handled, everything is confirmed;
* quiescence: after that only heartbeats flow, each timer makes progress, none is overdue;
* silence of the past: frames of a former epoch have no effect, and a second stream, with
  frames lost in both directions, repeats nothing and forgets nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.transport.factories import FutureMessage, command, fact, frames_of, pack, text_of
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
from transport.frames import FrameKind, encode_frame
from transport.messages import Message
from transport.session import LinkOptions, Role, Session, SessionState

WINDOW = 3
OPTIONS = LinkOptions(
    window=WINDOW,
    heartbeat_s=10.0,
    silence_s=60.0,
    greeting_s=120.0,
    confirm_s=87.0,
    resume_s=50.0,
    backlog=4,
    control_reserve=2,
    refusals_max=10_000,
)
UNKNOWN = "<unknown>"


@dataclass
class End:
    """One session and what the model knows of it."""

    role: Role
    session: Session
    pipe: bytearray = field(default_factory=bytearray)
    """What it wrote and the peer hasn't read yet."""
    accepted: list[str] = field(default_factory=list)
    """The texts that `send` took, in order; sequence n is place n - 1."""
    delivered: list[str] = field(default_factory=list)
    unhandled: list[int] = field(default_factory=list)
    handled: set[int] = field(default_factory=set)
    in_flight: dict[int, float] = field(default_factory=dict)
    """Sequence to when it was last written, until the peer settled it."""
    settled: dict[int, str] = field(default_factory=dict)
    """Sequence to "confirmed" or "unsupported"."""
    heard_at: float = 0.0
    state_since: float = 0.0
    closed: Closed | None = None


class SessionMachine(RuleBasedStateMachine):
    """The model: lists and dictionaries, and the frames as they pass by."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.epoch = 3
        self.number = 0
        self.former_frames: list[bytes] = []
        self.written_frames: list[bytes] = []

    @initialize()
    def start(self) -> None:
        self.agent = End(
            Role.AGENT, Session(Role.AGENT, now=self.now, epoch=self.epoch, options=OPTIONS)
        )
        self.wrapper = End(Role.WRAPPER, Session(Role.WRAPPER, now=self.now, options=OPTIONS))
        for end in self.ends():
            end.heard_at = end.state_since = self.now
            self.collect(end)

    # --- helpers -------------------------------------------------------------------------

    def ends(self) -> tuple[End, End]:
        return self.agent, self.wrapper

    def peer_of(self, end: End) -> End:
        return self.wrapper if end is self.agent else self.agent

    def end(self, is_agent: bool) -> End:
        return self.agent if is_agent else self.wrapper

    def are_alive(self) -> bool:
        return all(end.closed is None for end in self.ends())

    def collect(self, end: End) -> None:
        """Take events and bytes from a session, and hold both against the model."""
        data = end.session.data_to_send()
        for envelope in frames_of(data):
            assert envelope.epoch in (0, self.epoch)
            self.take_frame(end, FrameKind(envelope.kind), envelope.sequence)
        for event in end.session.events_received():
            self.take_event(end, event)
        assert len(end.in_flight) <= WINDOW
        if data:
            self.written_frames.append(data)
        if end.session.state is not SessionState.DETACHED:
            end.pipe += data

    def take_event(self, end: End, event: SessionEvent) -> None:
        assert end.closed is None, "nothing is said after the end"
        peer = self.peer_of(end)
        match event:
            case MessageReceived():
                assert event.sequence not in end.unhandled
                assert event.sequence not in end.handled
                self.take_delivery(end, event.sequence, text_of(event.message))
                end.unhandled.append(event.sequence)
            case MessageConfirmed():
                assert event.sequence in peer.handled, "confirmed without having been handled"
                self.settle(end, event.sequence, "confirmed")
            case MessageUnsupported():
                assert end.accepted[event.sequence - 1] == UNKNOWN
                self.settle(end, event.sequence, "unsupported")
            case FrameRefused():
                if event.refusal is Refusal.UNKNOWN_MESSAGE:
                    self.take_delivery(end, len(end.delivered) + 1, UNKNOWN)
                else:
                    assert event.refusal is Refusal.STALE_EPOCH
            case Opened() | Detached():
                end.state_since = self.now
            case Closed():
                end.closed = event

    def take_delivery(self, end: End, sequence: int, text: str) -> None:
        assert sequence == len(end.delivered) + 1, "in order, each once"
        assert self.peer_of(end).accepted[sequence - 1] == text
        end.delivered.append(text)

    def settle(self, end: End, sequence: int, how: str) -> None:
        assert sequence not in end.settled, "settled once"
        end.settled[sequence] = how
        del end.in_flight[sequence]

    def take_frame(self, end: End, kind: FrameKind, sequence: int) -> None:
        if kind is FrameKind.DATA:
            assert sequence not in end.settled, "what is settled never goes again"
            end.in_flight[sequence] = self.now
        elif kind is FrameKind.ECHO:
            assert sequence in end.handled, "an echo means that it was handled"
        elif kind is FrameKind.UNSUPPORTED:
            assert self.peer_of(end).accepted[sequence - 1] == UNKNOWN

    def move(self, end: End, size: int) -> None:
        """Let ``end`` read so many of the bytes that its peer wrote."""
        source = self.peer_of(end).pipe
        data = bytes(source[:size])
        del source[:size]
        if data:
            end.session.receive_data(data, self.now)
            end.heard_at = self.now
            self.collect(end)

    def handle(self, end: End, sequence: int) -> None:
        end.unhandled.remove(sequence)
        end.handled.add(sequence)
        end.session.confirm(sequence, self.now)
        self.collect(end)

    def is_between_frames(self, end: End) -> bool:
        return end.session.statistics().buffered_bytes == 0

    def flow(self) -> None:
        """Let everything arrive and be handled until nothing moves."""
        for _ in range(200):
            if not self.are_alive():
                return
            for end in self.ends():
                self.move(end, 1 << 20)
                for sequence in list(end.unhandled):
                    self.handle(end, sequence)
            if not any(end.pipe for end in self.ends()):
                return
        raise AssertionError("the link never falls quiet")

    # --- what may happen -----------------------------------------------------------------

    @precondition(are_alive)
    @rule(is_agent=st.booleans(), count=st.integers(1, 5), is_unknown=st.booleans())
    def send(self, is_agent: bool, count: int, is_unknown: bool) -> None:
        end = self.end(is_agent)
        for _ in range(count):
            self.number += 1
            text = UNKNOWN if is_unknown and self.number % 3 == 0 else f"{self.number}"
            message: Message = command(text) if is_agent else fact(text)
            if end.session.send(FutureMessage() if text == UNKNOWN else message, self.now):
                end.accepted.append(text)
            self.collect(end)

    @precondition(are_alive)
    @rule(is_agent=st.booleans(), size=st.integers(1, 120))
    def some_bytes_arrive(self, is_agent: bool, size: int) -> None:
        self.move(self.end(is_agent), size)

    @precondition(are_alive)
    @rule(is_agent=st.booleans())
    def everything_arrives(self, is_agent: bool) -> None:
        self.move(self.end(is_agent), 1 << 20)

    @precondition(lambda self: any(end.unhandled for end in self.ends()))
    @rule(data=st.data())
    def an_actor_handles(self, data: st.DataObject) -> None:
        end = data.draw(st.sampled_from([end for end in self.ends() if end.unhandled]))
        self.handle(end, data.draw(st.sampled_from(end.unhandled)))

    @precondition(are_alive)
    @rule(seconds=st.sampled_from([0.5, 3.0, 9.9, 10.0, 20.0, 60.0, 95.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for end in self.ends():
            self.ring(end)

    def ring(self, end: End) -> None:
        """Call the timer as a shell would; it always makes progress."""
        for _ in range(5):
            deadline = end.session.next_deadline()
            if deadline is None or deadline > self.now:
                return
            end.session.handle_timer(self.now)
            self.collect(end)
            if end.closed is not None:
                self.check_cause(end, end.closed.cause)
        raise AssertionError("a timer is due again and again")

    def check_cause(self, end: End, cause: CloseCause) -> None:
        """Check that a session that time ended had a deadline that was over."""
        waited = {
            CloseCause.SILENT: (
                self.now - end.heard_at >= OPTIONS.silence_s
                or self.now - end.state_since >= OPTIONS.resume_s
            ),
            CloseCause.UNCONFIRMED: any(
                self.now - at >= OPTIONS.confirm_s for at in end.in_flight.values()
            ),
            CloseCause.NO_GREETING: self.now - end.state_since >= OPTIONS.greeting_s,
        }
        assert waited[cause]

    @precondition(lambda self: all(e.session.state is SessionState.OPEN for e in self.ends()))
    @rule()
    def actors_hang(self) -> None:
        """Bytes and heartbeats flow, but nobody handles: noticed at the deadline, not later."""
        for end in self.ends():
            self.move(end, 1 << 20)
        while self.are_alive() and any(end.in_flight for end in self.ends()):
            oldest = min(at for end in self.ends() for at in end.in_flight.values())
            self.now = min(end.session.next_deadline() or 0.0 for end in self.ends())
            assert self.now <= oldest + OPTIONS.confirm_s
            for end in self.ends():
                self.ring(end)
            for end in self.ends():
                self.move(end, 1 << 20)

    @precondition(are_alive)
    @rule(to_agent=st.integers(0, 100), to_wrapper=st.integers(0, 100))
    def the_stream_is_cut(self, to_agent: int, to_wrapper: int) -> None:
        self.move(self.agent, to_agent)
        self.move(self.wrapper, to_wrapper)
        for end in self.ends():
            end.pipe.clear()
            was_attached = end.session.state is not SessionState.DETACHED
            end.session.receive_eof(self.now)
            self.collect(end)
            end.pipe.clear()
            if was_attached:
                end.state_since = self.now
        if self.are_alive():
            assert all(end.session.state is SessionState.DETACHED for end in self.ends())

    @precondition(
        lambda self: all(end.session.state is SessionState.DETACHED for end in self.ends())
    )
    @rule()
    def the_stream_comes_back(self) -> None:
        for end in self.ends():
            end.session.attach(self.now)
            end.heard_at = end.state_since = self.now
            self.collect(end)

    @precondition(lambda self: self.former_frames and self.are_alive())
    @rule(is_agent=st.booleans(), data=st.data())
    def a_former_life_speaks(self, is_agent: bool, data: st.DataObject) -> None:
        end = self.end(is_agent)
        if end.session.state is not SessionState.OPEN or not self.is_between_frames(end):
            return
        before = end.session.statistics()
        end.session.receive_data(data.draw(st.sampled_from(self.former_frames)), self.now)
        end.heard_at = self.now
        after = end.session.statistics()
        events = end.session.events_received()

        assert not end.session.data_to_send(), "the past is not answered"
        assert all(
            isinstance(event, FrameRefused) and event.refusal is Refusal.STALE_EPOCH
            for event in events
        )
        assert len(events) == 1
        assert (after.received, after.unconfirmed) == (before.received, before.unconfirmed)

    @precondition(lambda self: any(end.in_flight for end in self.ends()) and self.are_alive())
    @rule(data=st.data())
    def an_echo_tells_of_other_bytes(self, data: st.DataObject) -> None:
        end = data.draw(st.sampled_from([end for end in self.ends() if end.in_flight]))
        if end.session.state is not SessionState.OPEN or not self.is_between_frames(end):
            return
        sequence = data.draw(st.sampled_from(sorted(end.in_flight)))
        end.session.receive_data(
            encode_frame(FrameKind.ECHO, self.epoch, sequence, pack(2**40)), self.now
        )
        self.collect(end)

        assert end.closed is not None
        assert end.closed.cause is CloseCause.ECHO_MISMATCH

    @precondition(lambda self: not self.are_alive())
    @rule()
    def a_new_wrapper_starts(self) -> None:
        self.former_frames = self.single_frames()[-40:]
        self.written_frames = []
        self.epoch += 1
        self.start()

    def single_frames(self) -> list[bytes]:
        """Return the frames of this epoch one by one, without greetings and goodbyes."""
        silent = (FrameKind.HELLO, FrameKind.WELCOME, FrameKind.GOODBYE)
        return [
            encode_frame(
                FrameKind(envelope.kind), envelope.epoch, envelope.sequence, bytes(envelope.body)
            )
            for envelope in frames_of(b"".join(self.written_frames))
            if envelope.kind not in silent
        ]

    @precondition(are_alive)
    @rule()
    def everything_heals(self) -> None:
        """Liveness, then quiescence."""
        if any(end.session.state is SessionState.DETACHED for end in self.ends()):
            self.the_stream_comes_back()
        self.flow()
        assert self.are_alive()
        for end in self.ends():
            assert end.session.state is SessionState.OPEN
            assert end.session.is_settled
            assert self.peer_of(end).delivered == end.accepted
            assert sorted(end.settled) == list(range(1, len(end.accepted) + 1))
        self.rest()

    def rest(self) -> None:
        """Let time pass from deadline to deadline: only heartbeats flow, for ever."""
        for _ in range(6):
            self.now = min(end.session.next_deadline() or 0.0 for end in self.ends())
            for end in self.ends():
                self.ring(end)
                assert all(
                    envelope.kind == FrameKind.HEARTBEAT for envelope in frames_of(bytes(end.pipe))
                )
            self.flow()
            assert self.are_alive()

    # --- what must stay true -------------------------------------------------------------

    @invariant()
    def deliveries_are_a_prefix_of_what_was_sent(self) -> None:
        for end in self.ends():
            sent = self.peer_of(end).accepted
            assert end.delivered == sent[: len(end.delivered)]

    @invariant()
    def no_timer_is_overdue(self) -> None:
        for end in self.ends():
            deadline = end.session.next_deadline()
            assert (deadline is None) is (end.closed is not None)
            if end.session.state is SessionState.OPEN and end.closed is None:
                assert self.now - end.heard_at < OPTIONS.silence_s
                assert all(self.now - at < OPTIONS.confirm_s for at in end.in_flight.values())

    @invariant()
    def figures_agree_with_the_model(self) -> None:
        for end in self.ends():
            figures = end.session.statistics()
            assert figures.unconfirmed == len(end.in_flight) <= WINDOW
            assert figures.received == len(end.delivered)
            assert figures.backlog <= OPTIONS.backlog + OPTIONS.control_reserve


TestSessions = SessionMachine.TestCase
TestSessions.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
