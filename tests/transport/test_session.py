"""The confirmed session: every rule of its opening paragraphs, one end or both, no I/O."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from tests.transport.factories import (
    EPOCH,
    FutureMessage,
    Snapshot,
    command,
    data_frame,
    echo_frame,
    envelope_frame,
    exchange,
    fact,
    frames_of,
    greeting_agent,
    greeting_wrapper,
    hello_frame,
    kinds_of,
    log_record,
    only,
    open_agent,
    open_pair,
    open_wrapper,
    pack,
    reattach,
    text_of,
    unpack,
    welcome_frame,
)
from transport.codec import agent_codec
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
)
from transport.frames import FrameKind, encode_frame
from transport.session import (
    LinkOptions,
    MessageTooLarge,
    MessageUnencodable,
    Role,
    Session,
    SessionState,
)

RESUMABLE = LinkOptions(resume_s=50.0)
NARROW = LinkOptions(window=2, backlog=3, control_reserve=1)


def the_close(session: Session) -> Closed:
    """Return how ``session`` ended; it has ended once."""
    (closed,) = only(session.events_received(), Closed)
    assert session.state is SessionState.CLOSED
    return closed


def the_refusal(session: Session) -> FrameRefused:
    """Return the one refusal so far; it was counted."""
    (refused,) = only(session.events_received(), FrameRefused)
    assert session.statistics().refusals == {refused.refusal: 1}
    return refused


def unconfirmed_body(session: Session) -> bytes:
    """Send one message and return its body as it went over the wire."""
    assert session.send(command("a"), 0.0)
    return bytes(frames_of(session.data_to_send())[-1].body)


# --- greeting --------------------------------------------------------------------------------


def test_a_wrapper_greets_and_an_agent_welcomes() -> None:
    """Hello, Welcome, and both ends are open in the agent's epoch."""
    agent, wrapper = greeting_agent(), greeting_wrapper()
    exchange(agent, wrapper)

    assert agent.events_received() == [Opened(epoch=EPOCH, release="test")]
    assert wrapper.events_received() == [Opened(epoch=EPOCH)]
    assert wrapper.epoch == agent.epoch == EPOCH
    assert agent.state is wrapper.state is SessionState.OPEN


def test_the_agent_s_limits_hold_on_both_ends() -> None:
    """A wrapper's own window, heartbeat and silence give way to those of the Welcome."""
    agent = greeting_agent(options=LinkOptions(window=1, heartbeat_s=3.0, silence_s=9.0))
    wrapper = greeting_wrapper()
    exchange(agent, wrapper)
    wrapper.send(fact("a"), 0.0)
    wrapper.send(fact("b"), 0.0)

    assert wrapper.next_deadline() == 3.0
    assert wrapper.statistics().unconfirmed == 1


@pytest.mark.parametrize(("role", "epoch"), [(Role.AGENT, 0), (Role.WRAPPER, 3), (Role.AGENT, -1)])
def test_only_an_agent_is_given_an_epoch(role: Role, epoch: int) -> None:
    """Either mix-up is a bug of ours."""
    with pytest.raises(InternalError, match="the agent chooses the epoch"):
        Session(role, now=0.0, epoch=epoch)


@pytest.mark.parametrize(
    "limits",
    [
        {"window": 0},
        {"heartbeat_s": 0.0},
        {"heartbeat_s": float("nan")},
        {"heartbeat_s": 60.0, "silence_s": 60.0},
        {"silence_s": float("inf")},
    ],
)
def test_limits_that_can_t_work_are_named_when_they_are_set(limits: dict[str, float]) -> None:
    """A link that would spin, starve or never notice a silence isn't made."""
    with pytest.raises(OperatorError, match="link"):
        LinkOptions(**limits)  # type: ignore[arg-type]  # a table of floats and an int


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"window": 0}, id="no window"),
        pytest.param({"heartbeat_s": 0.0}, id="heartbeat spins"),
        pytest.param({"heartbeat_s": -1.0}, id="heartbeat in the past"),
        pytest.param({"silence_s": 1.0}, id="silent between heartbeats"),
        pytest.param({"silence_s": float("nan")}, id="silence is no number"),
        pytest.param({"epoch": 0}, id="no epoch"),
        pytest.param({"window": "many"}, id="wrong type"),
    ],
)
def test_a_welcome_whose_limits_can_t_work_is_refused(changes: dict[str, Any]) -> None:
    """A wrapper trusts an agent's limits only where a link can live by them."""
    wrapper = greeting_wrapper()
    wrapper.receive_data(welcome_frame(**changes), 0.0)

    assert the_refusal(wrapper).refusal is Refusal.BROKEN_MESSAGE
    assert wrapper.state is SessionState.GREETING


def test_a_wrapper_of_another_protocol_is_told_so() -> None:
    """Both ends end, and the wrapper hears the agent's sentence, in whatever epoch it was said."""
    agent, wrapper = greeting_agent(), greeting_wrapper()
    wrapper.data_to_send()
    agent.receive_data(hello_frame(versions=(2, 3)), 0.0)
    wrapper.receive_data(agent.data_to_send(), 0.0)

    assert the_close(agent).cause is CloseCause.WRONG_VERSION
    closed = the_close(wrapper)
    assert closed.cause is CloseCause.GOODBYE
    assert "speaks versions (2, 3)" in closed.detail


def test_a_welcome_of_another_protocol_ends_the_session() -> None:
    """An agent that chose what the wrapper didn't offer can't be talked to."""
    wrapper = greeting_wrapper()
    wrapper.receive_data(welcome_frame(version=2), 0.0)

    assert the_close(wrapper).cause is CloseCause.WRONG_VERSION


def test_a_hello_offering_more_than_we_know_is_welcomed() -> None:
    """The greatest common version is taken."""
    agent = greeting_agent()
    agent.receive_data(hello_frame(versions=(9, 1)), 0.0)

    (welcome,) = frames_of(agent.data_to_send())
    assert unpack(welcome.body)["version"] == 1


def test_a_second_hello_is_refused_and_the_link_lives() -> None:
    """It is named, and nothing starts again."""
    agent = open_agent()
    agent.receive_data(hello_frame(), 0.0)

    assert the_refusal(agent).refusal is Refusal.SECOND_HELLO
    assert agent.state is SessionState.OPEN
    assert agent.data_to_send() == b""


def test_a_second_welcome_is_refused() -> None:
    """An agent can't change the limits of a living link."""
    wrapper = open_wrapper()
    wrapper.receive_data(welcome_frame(window=1), 0.0)

    assert the_refusal(wrapper).refusal is Refusal.SECOND_HELLO


def test_greetings_of_the_wrong_side_are_refused() -> None:
    """A wrapper isn't greeted by a Hello, nor an agent by a Welcome."""
    agent, wrapper = greeting_agent(), greeting_wrapper()
    agent.receive_data(welcome_frame(), 0.0)
    wrapper.receive_data(hello_frame(), 0.0)

    assert the_refusal(agent).refusal is the_refusal(wrapper).refusal is Refusal.SECOND_HELLO


def test_a_hello_of_a_former_life_is_refused() -> None:
    """A new session isn't resumed by a wrapper that knew another one."""
    agent = greeting_agent()
    agent.receive_data(hello_frame(epoch=EPOCH - 1), 0.0)

    assert the_refusal(agent).refusal is Refusal.STALE_EPOCH


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"\xc0", id="nil"),
        pytest.param(b"\x82\xa8versions\x91\x01\xa7release\xa2\xff\xfe", id="invalid UTF-8"),
        pytest.param(pack({"versions": "1", "version": "1"}), id="wrong types"),
    ],
)
def test_a_broken_greeting_is_refused_on_either_side(body: bytes) -> None:
    """The first frame that anyone may send never raises."""
    agent, wrapper = greeting_agent(), greeting_wrapper()
    agent.receive_data(encode_frame(FrameKind.HELLO, 0, 0, body), 0.0)
    wrapper.receive_data(encode_frame(FrameKind.WELCOME, 0, 0, body), 0.0)

    assert the_refusal(agent).refusal is the_refusal(wrapper).refusal is Refusal.BROKEN_MESSAGE


def test_data_before_the_greeting_is_refused() -> None:
    """Nothing counts until both have greeted."""
    agent = greeting_agent()
    agent.receive_data(data_frame(1), 0.0)

    assert the_refusal(agent).refusal is Refusal.BEFORE_GREETING
    assert agent.statistics().received == 0


def test_what_is_sent_before_the_greeting_travels_after_it() -> None:
    """An owner needn't wait for the greeting."""
    agent, wrapper = greeting_agent(), greeting_wrapper()
    agent.send(command("early"), 0.0)
    assert agent.data_to_send() == b""
    exchange(agent, wrapper)

    (received,) = only(wrapper.events_received(), MessageReceived)
    assert text_of(received.message) == "early"


# --- sending and confirming ------------------------------------------------------------------


def test_a_message_is_confirmed_when_handled_and_not_when_read() -> None:
    """Reading says nothing to the sender; handling does."""
    agent, wrapper = open_pair()
    agent.send(command("a"), 0.0)
    exchange(agent, wrapper)
    (received,) = only(wrapper.events_received(), MessageReceived)
    assert not agent.events_received()
    assert not agent.is_settled
    wrapper.confirm(received.sequence, 0.0)
    exchange(agent, wrapper)

    assert agent.events_received() == [MessageConfirmed(sequence=1)]
    assert agent.is_settled


def test_messages_may_be_handled_in_any_order() -> None:
    """Each echo settles its own message."""
    agent, wrapper = open_pair()
    for text in "abc":
        wrapper.send(fact(text), 0.0)
    exchange(agent, wrapper)
    agent.confirm(3, 0.0)
    agent.confirm(1, 0.0)
    exchange(agent, wrapper)

    assert wrapper.events_received() == [
        MessageConfirmed(sequence=3),
        MessageConfirmed(sequence=1),
    ]
    assert wrapper.statistics().unconfirmed == 1


def test_confirming_twice_or_what_never_came_says_nothing() -> None:
    """Only a message that waits to be handled can be confirmed."""
    agent = open_agent()
    agent.receive_data(data_frame(1), 0.0)
    agent.confirm(1, 0.0)
    agent.data_to_send()
    agent.confirm(1, 0.0)
    agent.confirm(99, 0.0)

    assert agent.data_to_send() == b""


def test_at_most_a_window_is_unconfirmed() -> None:
    """What is sent beyond waits in the backlog and moves up with each confirmation."""
    agent, wrapper = open_pair(options=NARROW)
    for text in "abcd":
        assert wrapper.send(fact(text), 0.0)
    exchange(agent, wrapper)
    figures = wrapper.statistics()
    assert (figures.unconfirmed, figures.backlog) == (2, 2)
    agent.confirm(1, 0.0)
    exchange(agent, wrapper)

    texts = [text_of(event.message) for event in only(agent.events_received(), MessageReceived)]
    assert texts == ["a", "b", "c"]


def test_a_full_backlog_refuses_ordered_messages_and_keeps_room_for_control() -> None:
    """Back-pressure is told to the sender; a control message still has its reserve."""
    wrapper = open_wrapper(options=NARROW)
    sent = [wrapper.send(fact(), 0.0) for _ in range(40)]
    agent = open_agent(options=NARROW)
    controls = [agent.send(command(), 0.0) for _ in range(8)]

    assert sent.count(True) == 32 + 3, "the window of the welcome, and the backlog"
    assert wrapper.statistics().refused_to_send == 5
    assert controls == [True] * (2 + 3 + 1) + [False] * 2


def test_waiting_logs_push_out_older_logs() -> None:
    """A lossy message is never refused while there is an older one to drop."""
    agent, wrapper = open_pair(options=LinkOptions(window=1, backlog=4))
    for number in range(10):
        assert wrapper.send(log_record(str(number)), 0.0)

    assert wrapper.statistics().dropped == 7
    assert wrapper.statistics().backlog == 2
    assert agent.statistics().received == 0


def test_the_latest_waiting_message_replaces_the_one_before() -> None:
    """Of what waits, only the newest of its kind is sent."""
    _, wrapper = open_pair(options=LinkOptions(window=1))
    for number in range(5):
        assert wrapper.send(Snapshot(number=number), 0.0)

    assert wrapper.statistics().backlog == 1


def test_bytes_in_flight_are_bounded_too() -> None:
    """A window of large messages isn't written all at once: the rest waits in the backlog."""
    agent, wrapper = open_pair(options=LinkOptions(frame_bytes_max=10_000, window=32))
    for _ in range(6):
        assert wrapper.send(fact("x" * 6_000), 0.0)
    assert len(wrapper.data_to_send()) < 20_000
    assert wrapper.statistics().unconfirmed == 2
    assert wrapper.statistics().backlog == 4
    assert agent.state is SessionState.OPEN


def test_large_messages_all_arrive_as_they_are_confirmed() -> None:
    """The bound on bytes in flight opens again with each echo."""
    agent, wrapper = open_pair(options=LinkOptions(frame_bytes_max=10_000))
    for _ in range(6):
        wrapper.send(fact("x" * 6_000), 0.0)
    for _ in range(6):
        exchange(agent, wrapper)
        for received in only(agent.events_received(), MessageReceived):
            agent.confirm(received.sequence, 0.0)

    assert agent.statistics().received == 6


def test_a_message_beyond_the_frame_maximum_is_named() -> None:
    """It is a bug of ours, and the session goes on."""
    wrapper = open_wrapper(options=LinkOptions(frame_bytes_max=1000))
    with pytest.raises(MessageTooLarge, match=r"TraceWritten has 10\d\d bytes"):
        wrapper.send(fact("x" * 1000), 0.0)

    assert wrapper.send(fact("x" * 800), 0.0)


def test_the_greatest_message_that_may_be_sent_may_be_received() -> None:
    """Both ends mean the same by the maximum."""
    agent, wrapper = open_pair(options=LinkOptions(frame_bytes_max=100_000))
    size = 100_000
    while True:
        try:
            wrapper.send(fact("x" * size), 0.0)
        except MessageTooLarge:
            size -= 1
        else:
            break
    exchange(agent, wrapper)

    assert len(only(agent.events_received(), MessageReceived)) == 1


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(fact().__class__(text="a", at=2**70), id="an integer beyond 64 bits"),
        pytest.param(command(object()), id="an object"),  # type: ignore[arg-type]  # on purpose
    ],
)
def test_a_message_without_a_wire_form_is_named(message: FutureMessage) -> None:
    """The sender learns which message; nothing is sent, no number is used up."""
    wrapper = open_wrapper()
    with pytest.raises(MessageUnencodable, match=type(message).__name__):
        wrapper.send(message, 0.0)

    assert wrapper.data_to_send() == b""
    assert wrapper.statistics().sent == 0


def test_text_with_foreign_bytes_travels_escaped() -> None:
    """A file name that isn't Unicode can't stop a message, wherever it stands."""
    agent, wrapper = open_pair()
    wrapper.send(fact("bad\udcff.root"), 0.0)
    exchange(agent, wrapper)

    (received,) = only(agent.events_received(), MessageReceived)
    assert received.message.text == "bad\\udcff.root"  # type: ignore[attr-defined]  # a trace


def test_a_closed_session_sends_nothing() -> None:
    """The owner is told by False, without an error to handle."""
    wrapper = open_wrapper()
    wrapper.close("done", 0.0)

    assert not wrapper.send(fact(), 0.0)


# --- receiving -------------------------------------------------------------------------------


def test_a_message_that_only_a_newer_peer_knows_is_answered() -> None:
    """The sender learns which, both go on, and it counts as settled."""
    agent, wrapper = open_pair()
    wrapper.send(FutureMessage(), 0.0)
    wrapper.send(fact("next"), 0.0)
    exchange(agent, wrapper)

    refused, received = agent.events_received()
    assert isinstance(refused, FrameRefused)
    assert refused.refusal is Refusal.UNKNOWN_MESSAGE
    assert isinstance(received, MessageReceived)
    assert wrapper.events_received() == [MessageUnsupported(sequence=1, tag="future-message")]


def test_a_much_newer_peer_never_ends_the_link() -> None:
    """Unknown messages are told a few times and counted always; the link lives on."""
    agent, wrapper = open_pair(options=LinkOptions(refusals_max=4))
    for _ in range(50):
        wrapper.send(FutureMessage(), 0.0)
        exchange(agent, wrapper)

    assert len(agent.events_received()) == 4
    assert agent.statistics().refusals == {Refusal.UNKNOWN_MESSAGE: 50}
    assert agent.state is wrapper.state is SessionState.OPEN
    assert wrapper.is_settled


def test_a_broken_message_is_answered_and_refused() -> None:
    """A message that we should know but can't read is dropped by name."""
    agent = open_agent()
    agent.receive_data(
        encode_frame(FrameKind.DATA, EPOCH, 1, pack({"type": "trace-written", "at": "noon"})), 0.0
    )

    assert the_refusal(agent).refusal is Refusal.BROKEN_MESSAGE
    (answer,) = frames_of(agent.data_to_send())
    assert (answer.kind, unpack(answer.body)) == (FrameKind.UNSUPPORTED, "trace-written")


@pytest.mark.parametrize("epoch", [0, EPOCH - 1, EPOCH + 1, -1, 2**64 - 1])
@pytest.mark.parametrize(
    "kind", [FrameKind.DATA, FrameKind.ECHO, FrameKind.HEARTBEAT, FrameKind.UNSUPPORTED]
)
def test_a_frame_of_another_epoch_has_no_effect(kind: FrameKind, epoch: int) -> None:
    """An echo from a former life confirms nothing and delivers nothing."""
    agent = open_agent()
    unconfirmed_body(agent)
    agent.receive_data(encode_frame(kind, epoch, 1, pack(fact())), 0.0)

    assert the_refusal(agent).refusal is Refusal.STALE_EPOCH
    assert agent.data_to_send() == b""
    assert agent.statistics().unconfirmed == 1


def test_a_goodbye_of_another_epoch_ends_nothing() -> None:
    """Neither may a former life say goodbye for this one."""
    agent = open_agent()
    agent.receive_data(encode_frame(FrameKind.GOODBYE, EPOCH + 1, 0, pack("bye")), 0.0)

    assert the_refusal(agent).refusal is Refusal.STALE_EPOCH
    assert agent.state is SessionState.OPEN


@pytest.mark.parametrize("sequence", [0, -1, -(2**63)])
def test_data_without_a_number_is_refused(sequence: int) -> None:
    """Sequences count from one."""
    agent = open_agent()
    agent.receive_data(data_frame(sequence), 0.0)

    assert the_refusal(agent).refusal is Refusal.NOT_AN_ENVELOPE


@pytest.mark.parametrize("sequence", [2, 2**64 - 1])
def test_a_gap_ends_the_session(sequence: int) -> None:
    """A pipe loses nothing, so something is very wrong; the peer is told what."""
    agent, wrapper = greeting_agent(), open_wrapper()
    agent.receive_data(hello_frame() + data_frame(sequence), 0.0)

    assert the_close(agent).cause is CloseCause.SEQUENCE_GAP
    goodbye = frames_of(agent.data_to_send())[-1]
    assert goodbye.kind == FrameKind.GOODBYE
    assert f"message {sequence} came after 0" in unpack(goodbye.body)
    assert wrapper.state is SessionState.OPEN


def test_a_peer_beyond_its_window_is_cut_off() -> None:
    """More unhandled messages than were allowed are never kept."""
    agent = open_agent(options=NARROW)
    agent.receive_data(b"".join(data_frame(n) for n in (1, 2, 3, 4)), 0.0)

    events = agent.events_received()
    assert len(only(events, MessageReceived)) == 2
    assert only(events, Closed)[0].cause is CloseCause.WINDOW_EXCEEDED


def test_an_echo_of_other_bytes_ends_the_session() -> None:
    """What the peer did can't be trusted, so it is neither confirmed nor sent again."""
    agent = open_agent()
    unconfirmed_body(agent)
    agent.receive_data(echo_frame(1, b"other bytes"), 0.0)

    events = agent.events_received()
    assert not only(events, MessageConfirmed)
    assert only(events, Closed)[0].cause is CloseCause.ECHO_MISMATCH
    assert kinds_of(agent.data_to_send()) == [FrameKind.GOODBYE]


@pytest.mark.parametrize("body", [b"\xc0", pack("text"), pack(2**64 - 1), pack([1])])
def test_an_echo_whose_digest_is_no_digest_is_a_mismatch(body: bytes) -> None:
    """Whatever stands where the digest should, it isn't the right one."""
    agent = open_agent()
    unconfirmed_body(agent)
    agent.receive_data(encode_frame(FrameKind.ECHO, EPOCH, 1, body), 0.0)

    assert the_close(agent).cause is CloseCause.ECHO_MISMATCH


@pytest.mark.parametrize("sequence", [0, -1, 2, 2**64 - 1])
@pytest.mark.parametrize("kind", [FrameKind.ECHO, FrameKind.UNSUPPORTED])
def test_an_answer_to_what_was_never_sent_is_refused(kind: FrameKind, sequence: int) -> None:
    """It is counted; nothing is confirmed by it."""
    agent = open_agent()
    unconfirmed_body(agent)
    agent.receive_data(encode_frame(kind, EPOCH, sequence, pack("x")), 0.0)

    assert the_refusal(agent).refusal is Refusal.UNKNOWN_ECHO


def test_a_second_echo_of_the_same_message_is_harmless() -> None:
    """Right after a re-attach an echo may come twice."""
    agent = open_agent()
    body = unconfirmed_body(agent)
    agent.receive_data(echo_frame(1, body) * 2, 0.0)

    assert agent.events_received() == [MessageConfirmed(sequence=1)]


def test_an_unreadable_tag_is_an_empty_one() -> None:
    """An answer that names nothing still settles its message."""
    agent = open_agent()
    unconfirmed_body(agent)
    agent.receive_data(encode_frame(FrameKind.UNSUPPORTED, EPOCH, 1, b"\xa2\xff\xfe"), 0.0)

    assert agent.events_received() == [MessageUnsupported(sequence=1, tag="")]


def test_an_unknown_kind_is_refused() -> None:
    """A frame of a kind that no version names is dropped."""
    agent = open_agent()
    agent.receive_data(envelope_frame(99, EPOCH, 0, None), 0.0)

    assert the_refusal(agent) == FrameRefused(refusal=Refusal.UNKNOWN_KIND, detail="kind 99")


def test_too_many_refusals_end_the_session() -> None:
    """A peer that keeps talking nonsense is told why and left."""
    agent = open_agent(options=LinkOptions(refusals_max=3))
    agent.receive_data(envelope_frame(99, EPOCH, 0, None) * 10, 0.0)

    events = agent.events_received()
    assert len(only(events, FrameRefused)) == 4
    assert only(events, Closed)[0].cause is CloseCause.TOO_MANY_REFUSALS


def test_a_refusal_quotes_little_of_the_peer() -> None:
    """What a peer writes fills neither memory nor logs."""
    agent = open_agent()
    agent.receive_data(
        encode_frame(
            FrameKind.DATA,
            EPOCH,
            1,
            pack({"type": "job-status-changed", "status": "X" * 90_000, "at": 1}),
        ),
        0.0,
    )

    assert len(the_refusal(agent).detail) <= 500


def test_an_oversize_prefix_ends_the_session() -> None:
    """The announcement alone is enough, and nothing of it is kept."""
    agent = open_agent()
    agent.receive_data((100_000_000).to_bytes(4, "big") + b"x" * 50, 0.0)

    assert the_close(agent).cause is CloseCause.OVERSIZE
    assert agent.statistics().buffered_bytes == 0


def test_a_closed_session_hears_nothing() -> None:
    """Bytes, ends and failures after the close have no effect."""
    agent = open_agent()
    agent.receive_eof(0.0)
    agent.events_received()
    agent.receive_data(data_frame(1), 0.0)
    agent.receive_eof(0.0)
    agent.fail(CloseCause.NOT_READING, "late", 0.0)
    agent.handle_timer(1e9)

    assert agent.events_received() == []
    assert agent.next_deadline() is None


# --- ending ----------------------------------------------------------------------------------


def test_a_goodbye_ends_both_sides() -> None:
    """The peer learns that it was on purpose, and why."""
    agent, wrapper = open_pair()
    wrapper.close("job finished", 0.0)
    exchange(agent, wrapper)

    assert the_close(agent) == Closed(cause=CloseCause.GOODBYE, detail="job finished")
    assert wrapper.state is SessionState.CLOSED


def test_closing_twice_says_goodbye_once() -> None:
    """A second close has nothing to add."""
    agent = open_agent()
    agent.close("a", 0.0)
    agent.close("b", 0.0)

    assert kinds_of(agent.data_to_send()) == [FrameKind.GOODBYE]


def test_an_agent_may_leave_before_the_greeting() -> None:
    """A wrapper that was never welcomed understands the goodbye all the same."""
    agent, wrapper = greeting_agent(), greeting_wrapper()
    agent.close("cancelled", 0.0)
    wrapper.receive_data(agent.data_to_send(), 0.0)

    assert the_close(wrapper).detail == "cancelled"


def test_a_goodbye_may_quote_what_isn_t_unicode() -> None:
    """A reason that holds a foreign file name is said as far as it can be."""
    agent, wrapper = open_pair()
    wrapper.close("can't open a\udcff.root", 0.0)
    exchange(agent, wrapper)

    assert the_close(agent).detail == "can't open a\\udcff.root"


def test_the_end_between_frames_is_an_end() -> None:
    """A peer that exits without a word closes its end of the pipe."""
    agent = open_agent()
    agent.receive_eof(0.0)

    assert the_close(agent).cause is CloseCause.END_OF_STREAM


def test_the_end_within_a_frame_is_a_truncation() -> None:
    """A peer that was killed while it wrote is told apart from one that exited."""
    agent = open_agent()
    agent.receive_data(data_frame(1)[:-1], 0.0)
    agent.receive_eof(0.0)

    assert the_close(agent).cause is CloseCause.TRUNCATED


def test_the_shell_may_end_a_session_for_its_own_cause() -> None:
    """What only the shell can see is named like the rest."""
    agent = open_agent()
    agent.fail(CloseCause.NOT_READING, "the pipe is full", 0.0)

    assert the_close(agent) == Closed(cause=CloseCause.NOT_READING, detail="the pipe is full")


# --- time ------------------------------------------------------------------------------------


def test_a_greeting_that_never_comes_is_noticed() -> None:
    """Both ends give up at their greeting deadline."""
    options = LinkOptions(greeting_s=5.0)
    for session in (greeting_agent(options=options), greeting_wrapper(options=options)):
        assert session.next_deadline() == 5.0
        session.handle_timer(5.0)

        assert the_close(session).cause is CloseCause.NO_GREETING


def test_garbage_doesn_t_put_off_the_greeting_deadline() -> None:
    """A peer that only makes noise hasn't greeted."""
    agent = greeting_agent(options=LinkOptions(greeting_s=5.0))
    agent.receive_data(envelope_frame(99, 0, 0, None), 4.0)

    assert agent.next_deadline() == 5.0


def test_a_quiet_side_sends_heartbeats() -> None:
    """A heartbeat goes out when nothing else did for its interval."""
    agent = open_agent()
    agent.send(command(), 4.0)
    agent.data_to_send()
    assert agent.next_deadline() == 14.0
    agent.handle_timer(14.0)

    assert kinds_of(agent.data_to_send()) == [FrameKind.HEARTBEAT]
    assert agent.next_deadline() == 24.0


def test_an_early_timer_does_nothing() -> None:
    """The shell may look too soon."""
    agent = open_agent()
    agent.handle_timer(9.9)

    assert agent.data_to_send() == b""


def test_a_silent_peer_is_noticed() -> None:
    """Nothing heard for the silence deadline: the session ends by that name."""
    agent = open_agent()
    agent.receive_data(encode_frame(FrameKind.HEARTBEAT, EPOCH, 0), 30.0)
    for now in (10.0, 60.0, 89.9):
        agent.handle_timer(now)
    assert agent.state is SessionState.OPEN
    agent.handle_timer(90.0)

    assert the_close(agent).cause is CloseCause.SILENT


def test_a_living_peer_that_doesn_t_handle_is_noticed() -> None:
    """Heartbeats don't stand in for confirmations."""
    agent = open_agent()
    unconfirmed_body(agent)
    agent.receive_data(encode_frame(FrameKind.HEARTBEAT, EPOCH, 0), 100.0)
    agent.handle_timer(119.0)
    assert agent.next_deadline() == 120.0
    agent.handle_timer(120.0)

    closed = the_close(agent)
    assert closed.cause is CloseCause.UNCONFIRMED
    assert "message 1" in closed.detail


def test_a_re_attach_that_never_comes_is_noticed() -> None:
    """A detached session waits no longer than it was told to."""
    agent = open_agent(options=RESUMABLE)
    agent.receive_eof(10.0)
    assert agent.next_deadline() == 60.0
    agent.handle_timer(60.0)

    assert the_close(agent).cause is CloseCause.SILENT


# --- a second stream -------------------------------------------------------------------------


def test_an_end_of_stream_detaches_a_resumable_session() -> None:
    """It keeps what is unconfirmed and says that it waits."""
    agent = open_agent(options=RESUMABLE)
    agent.receive_data(data_frame(1)[:5], 0.0)
    agent.receive_eof(0.0)

    assert agent.events_received() == [Detached()]
    assert agent.statistics().buffered_bytes == 0
    assert agent.state is SessionState.DETACHED


def test_a_session_that_never_opened_isn_t_resumed() -> None:
    """There is nothing to go on with."""
    agent = greeting_agent(options=RESUMABLE)
    agent.receive_eof(0.0)

    assert the_close(agent).cause is CloseCause.END_OF_STREAM


def test_a_detached_session_hears_nothing_and_closes_silently() -> None:
    """Bytes of the old stream don't reach it, and there is nobody to say goodbye to."""
    agent = open_agent(options=RESUMABLE)
    agent.receive_eof(0.0)
    agent.events_received()
    agent.receive_data(data_frame(1), 0.0)
    agent.receive_eof(0.0)
    agent.close("enough", 0.0)

    assert agent.events_received() == []
    assert agent.data_to_send() == b""
    assert agent.state is SessionState.CLOSED


def test_attaching_an_attached_session_does_nothing() -> None:
    """A shell attaches its first stream too."""
    wrapper = greeting_wrapper()
    wrapper.data_to_send()
    wrapper.attach(5.0)

    assert wrapper.data_to_send() == b""


def test_messages_lost_with_the_stream_go_again() -> None:
    """Lost in both directions, delivered once in both."""
    agent, wrapper = open_pair(options=RESUMABLE)
    agent.send(command("down"), 0.0)
    wrapper.send(fact("up"), 0.0)
    reattach(agent, wrapper)

    for session, text in ((agent, "up"), (wrapper, "down")):
        events = session.events_received()
        assert [event.is_resumed for event in only(events, Opened)] == [True]
        assert [text_of(event.message) for event in only(events, MessageReceived)] == [text]


def test_a_message_whose_echo_was_lost_isn_t_delivered_again() -> None:
    """1. handled, 2. its echo is lost, 3. it goes again, 4. it is only echoed again."""
    agent, wrapper = open_pair(options=RESUMABLE)
    wrapper.send(fact("a"), 0.0)
    exchange(agent, wrapper)
    agent.confirm(1, 0.0)
    agent.events_received()
    reattach(agent, wrapper)

    assert not only(agent.events_received(), MessageReceived)
    assert only(wrapper.events_received(), MessageConfirmed) == [MessageConfirmed(sequence=1)]


def test_a_message_in_its_handler_during_the_cut_is_confirmed_after_it() -> None:
    """It is neither delivered again nor confirmed before it is handled."""
    agent, wrapper = open_pair(options=RESUMABLE)
    wrapper.send(fact("a"), 0.0)
    exchange(agent, wrapper)
    agent.events_received()
    reattach(agent, wrapper)
    assert not only(agent.events_received(), MessageReceived)
    assert not wrapper.is_settled
    agent.confirm(1, 0.0)
    exchange(agent, wrapper)

    assert wrapper.is_settled


def test_a_message_handled_while_detached_is_confirmed_after_the_re_attach() -> None:
    """The actor needn't know about streams."""
    agent, wrapper = open_pair(options=RESUMABLE)
    wrapper.send(fact("a"), 0.0)
    exchange(agent, wrapper)
    agent.receive_eof(0.0)
    wrapper.receive_eof(0.0)
    agent.confirm(1, 0.0)
    agent.attach(0.0)
    wrapper.attach(0.0)
    exchange(agent, wrapper)

    assert wrapper.is_settled


def test_an_unknown_message_whose_answer_was_lost_is_not_confirmed_after_all() -> None:
    """Dropped stays dropped: the sender never hears that it was handled."""
    agent, wrapper = open_pair(options=RESUMABLE)
    wrapper.send(FutureMessage(), 0.0)
    agent.receive_data(wrapper.data_to_send(), 0.0)
    wrapper.events_received()
    reattach(agent, wrapper)

    events = wrapper.events_received()
    assert not only(events, MessageConfirmed)
    assert only(events, MessageUnsupported) == [
        MessageUnsupported(sequence=1, tag="future-message")
    ]


def test_what_was_sent_while_detached_travels_after_the_re_attach() -> None:
    """It waits in the backlog, behind what was in flight."""
    agent, wrapper = open_pair(options=RESUMABLE)
    wrapper.send(fact("a"), 0.0)
    wrapper.data_to_send()
    wrapper.receive_eof(0.0)
    wrapper.send(fact("b"), 0.0)
    agent.receive_eof(0.0)
    agent.attach(0.0)
    wrapper.attach(0.0)
    exchange(agent, wrapper)

    received = only(agent.events_received(), MessageReceived)
    assert [text_of(event.message) for event in received] == ["a", "b"]


def test_what_wasn_t_written_to_the_old_stream_isn_t_written_to_the_new_one() -> None:
    """The new stream begins with the greeting; the messages go again after it."""
    agent, wrapper = open_pair(options=RESUMABLE)
    wrapper.send(fact("a"), 0.0)
    wrapper.receive_eof(0.0)
    wrapper.attach(0.0)

    assert kinds_of(wrapper.data_to_send()) == [FrameKind.HELLO]
    assert agent.state is SessionState.OPEN


def test_time_without_a_stream_doesn_t_count_against_the_peer() -> None:
    """A message that goes again has its whole confirmation time again."""
    agent, wrapper = open_pair(options=RESUMABLE)
    wrapper.send(fact("a"), 0.0)
    reattach(agent, wrapper, now=100.0)
    wrapper.receive_data(encode_frame(FrameKind.HEARTBEAT, EPOCH, 0), 150.0)
    wrapper.handle_timer(200.0)

    assert wrapper.state is SessionState.OPEN


def test_a_new_wrapper_can_t_resume_an_old_one_s_link() -> None:
    """One epoch is one wrapper incarnation."""
    agent = open_agent(options=RESUMABLE)
    agent.receive_eof(0.0)
    agent.attach(0.0)
    agent.events_received()
    agent.receive_data(hello_frame(), 0.0)

    assert the_refusal(agent).refusal is Refusal.STALE_EPOCH
    assert agent.state is SessionState.GREETING


def test_another_agent_can_t_take_over_a_wrapper() -> None:
    """A wrapper that lost its stream goes on only in its own epoch."""
    wrapper = open_wrapper(options=RESUMABLE)
    wrapper.receive_eof(0.0)
    wrapper.attach(0.0)
    wrapper.events_received()
    wrapper.receive_data(welcome_frame(epoch=EPOCH + 1), 0.0)

    assert the_refusal(wrapper).refusal is Refusal.STALE_EPOCH
    assert wrapper.epoch == EPOCH


# --- floods ----------------------------------------------------------------------------------


def flooded_bytes(session: Session, read: bytes, reads: int) -> int:
    """Feed the same read many times; return how many bytes stayed in memory."""
    session.receive_data(read, 0.0)
    session.data_to_send()
    tracemalloc.start()
    try:
        for _ in range(reads):
            session.receive_data(read, 0.0)
            session.data_to_send()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(encode_frame(FrameKind.HEARTBEAT, EPOCH, 0), id="heartbeats"),
        pytest.param(data_frame(1), id="old data"),
        pytest.param(echo_frame(1, agent_codec().encode(command("a"))), id="old echoes"),
        pytest.param(hello_frame(), id="hellos"),
        pytest.param(encode_frame(FrameKind.DATA, EPOCH + 1, 1), id="stale frames"),
        pytest.param(bytes(4), id="empty frames"),
    ],
)
def test_a_flood_leaves_nothing_behind(frame: bytes) -> None:
    """Twenty thousand useless frames and nobody who fetches the events: no growth."""
    agent = open_agent()
    unconfirmed_body(agent)
    agent.receive_data(data_frame(1), 0.0)
    agent.confirm(1, 0.0)

    read = frame * 1000

    assert flooded_bytes(agent, read, 20) < 2 * len(read) + 10_000


def test_a_million_heartbeats_change_nothing() -> None:
    """They are heard, and that is all."""
    agent = open_agent()
    before = agent.statistics()
    read = encode_frame(FrameKind.HEARTBEAT, EPOCH, 0) * 10_000
    for _ in range(100):
        agent.receive_data(read, 1.0)

    assert agent.statistics() == before
    assert agent.events_received() == []
    assert agent.data_to_send() == b""


def test_a_flood_of_unknown_messages_leaves_no_pile_of_events() -> None:
    """A newer peer may go on for ever, also when nobody fetches what it caused."""
    agent = open_agent()
    for sequence in range(1, 2_001):
        agent.receive_data(data_frame(sequence, FutureMessage()), 0.0)
        agent.data_to_send()

    assert len(agent.events_received()) <= LinkOptions().refusals_max
    assert agent.state is SessionState.OPEN


def test_a_flood_of_messages_stops_at_the_window() -> None:
    """Events that nobody fetches are bounded by what may be unconfirmed."""
    agent = open_agent()
    agent.receive_data(b"".join(data_frame(n) for n in range(1, 1000)), 0.0)

    assert len(only(agent.events_received(), MessageReceived)) == LinkOptions().window
