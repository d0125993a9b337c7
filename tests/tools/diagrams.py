"""Draws the two state diagrams in docs/: run ``python -m tests.tools.diagrams``.

The life cycle is read from its table. The session has no table - its rules are its methods -
so it is *watched*: a session is brought into each of its states, each thing that can happen is
made to happen there, and what became of it is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from actors.lifecycle import FINAL, LEASED, RANKS, TRANSITIONS
from tests.transport.factories import (
    EPOCH,
    data_frame,
    echo_frame,
    envelope_frame,
    fact,
    greeting_agent,
    greeting_wrapper,
    hello_frame,
    pack,
    welcome_frame,
)
from transport.events import CloseCause, Closed, Detached, Opened
from transport.frames import FrameKind, encode_frame
from transport.messages import JobStatus
from transport.session import LinkOptions, Role, Session, SessionState

DOCS = Path(__file__).parents[2] / "docs"
S = JobStatus

# --- the life of a job -----------------------------------------------------------------------

MEANINGS: dict[JobStatus, str] = {
    S.INSERTING: "the job is being written into the queue",
    S.UPDATING: "its description is being changed",
    S.SPLITTING: "a master job is being split",
    S.SPLIT: "a master job that has been split; its subjobs run",
    S.WAITING: "it can be matched",
    S.ASSIGNED: "an agent holds it, and has not started it yet",
    S.STARTED: "its wrapper runs and stages in",
    S.RUNNING: "its payload runs",
    S.SAVING: "the payload has ended; it is validated, and its outputs are saved",
    S.SAVED: "saved, and to be registered by the central services",
    S.SAVED_WARN: "the same, with fewer replicas than were asked for",
    S.ZOMBIE: "its agent fell silent; heard again, the job is where it was",
    S.MERGING: "the outputs of its subjobs are being merged",
    S.DONE: "done, and everything is saved",
    S.DONE_WARN: "done, and saved with fewer replicas than were asked for",
    S.ERROR_A: "it could not be assigned: its wrapper never started",
    S.ERROR_I: "it could not be inserted",
    S.ERROR_E: "its payload failed, or was stopped for a limit",
    S.ERROR_IB: "an input could not be staged in",
    S.ERROR_S: "a required output is missing",
    S.ERROR_SV: "its outputs could not be saved",
    S.ERROR_V: "its validation failed",
    S.ERROR_VN: "its validation could not be run",
    S.ERROR_VT: "its validation was stopped for a limit",
    S.ERROR_EW: "nobody matched it for too long",
    S.ERROR_W: "it could not wait: a central error",
    S.ERROR_SPLT: "it could not be split",
    S.ERROR_VER: "its version is not supported",
    S.FAULTY: "it was resubmitted too often",
    S.INCORRECT: "its description is wrong",
    S.EXPIRED: "its agent stayed silent; the attempt is over, the job may wait again",
    S.KILLED: "its owner, or an operator of the queue, ended it",
}

Edge = tuple[str, str]


def lifecycle_diagram() -> str:
    """Return the life cycle as a Mermaid state diagram.

    What may follow every leased status is drawn once, from the box around them.
    """
    common = frozenset.intersection(*(TRANSITIONS[status] for status in LEASED))
    inner = [(a, b) for a, b in _steps() if a in LEASED and b in LEASED]
    outer = [(a, b) for a, b in _steps() if not (a in LEASED and (b in common or b in LEASED))]
    ends = sorted({b for _, b in _steps() if b in FINAL and b not in TRANSITIONS}, key=_level)
    return "\n".join(
        [
            "stateDiagram-v2",
            "    [*] --> WAITING",
            "    state leased {",
            *(f"        {before} --> {after}" for before, after in inner),
            "    }",
            *(f"    leased --> {status}{_told(status)}" for status in sorted(common, key=_level)),
            *(f"    {before} --> {after}{_told(after)}" for before, after in outer),
            *(f"    {status} --> [*]" for status in ends),
        ]
    )


def _steps() -> Iterator[tuple[JobStatus, JobStatus]]:
    for before in sorted(TRANSITIONS, key=_level):
        for after in sorted(TRANSITIONS[before], key=_level):
            yield before, after


def _level(status: JobStatus) -> int:
    return RANKS[status].level


def _told(after: JobStatus) -> str:
    return ": given back, as a new attempt" if after is S.WAITING else ""


def lifecycle_page() -> str:
    """Return docs/lifecycle.md."""
    rows = [
        f"| `{status}` | {rank.level} | {rank.number} | {_class(status)} | {MEANINGS[status]} |"
        for status, rank in RANKS.items()
    ]
    return _page(
        "The life of a job",
        "actors/lifecycle.py",
        "Names, levels and numbers are JAliEn's. The queue enforces this graph, and so does every"
        "\nagent on its own side. Within one attempt a status never moves backwards: a job that is"
        "\ngiven back, or whose attempt EXPIRED, is WAITING again under the next attempt's number."
        "\nA ZOMBIE whose agent is heard again goes back to where it was; that is the queue's step,"
        "\nnot the graph's.",
        lifecycle_diagram(),
        "| status | level | AliEn's number | | meaning |\n|---|---|---|---|---|\n" + "\n".join(rows),
    )


def _class(status: JobStatus) -> str:
    if status in FINAL:
        return "final"
    if status in LEASED:
        return "leased"
    return "" if status in TRANSITIONS else "the broker's"


# --- the confirmed session -------------------------------------------------------------------

GARBAGE = envelope_frame("no", "envelope")
LINK = LinkOptions(window=2, confirm_s=30.0, resume_s=300.0)
LATER = 1_000.0

Act = Callable[[Session], None]


def _hears(data: bytes) -> Act:
    return lambda session: session.receive_data(data, 0.0)


def _hears_goodbye(session: Session) -> None:
    session.receive_data(encode_frame(FrameKind.GOODBYE, session.epoch, 0, pack("bye")), 0.0)


def _is_greeted(session: Session) -> None:
    is_agent = session.statistics().state is SessionState.GREETING and session.epoch == EPOCH
    session.receive_data(hello_frame() if is_agent else welcome_frame(), 0.0)
    session.receive_data(hello_frame(epoch=EPOCH), 0.0)


def _is_not_confirmed(session: Session) -> None:
    session.send(fact(), 0.0)
    session.receive_data(encode_frame(FrameKind.HEARTBEAT, EPOCH, 0, None), 29.0)
    session.handle_timer(30.0)


def _is_confirmed_wrongly(session: Session) -> None:
    session.send(fact(), 0.0)
    session.receive_data(echo_frame(1, b"other bytes"), 0.0)


def _hears_too_much(session: Session) -> None:
    session.receive_data(b"".join(data_frame(number) for number in (1, 2, 3)), 0.0)


HAPPENINGS: tuple[Act, ...] = (
    _is_greeted,
    _hears_goodbye,
    _hears(hello_frame(versions=(99,))),
    _hears(welcome_frame(version=99)),
    _hears(data_frame(2)),
    _hears_too_much,
    _hears(GARBAGE * 50),
    _hears((1 << 31).to_bytes(4, "big")),
    _is_confirmed_wrongly,
    _is_not_confirmed,
    lambda session: session.receive_eof(0.0),
    lambda session: (session.receive_data(b"\0\0", 0.0), session.receive_eof(0.0))[-1],
    lambda session: session.attach(0.0),
    lambda session: session.fail(CloseCause.NOT_READING, "", 0.0),
    lambda session: session.handle_timer(LATER),
)


def sessions() -> Iterator[Session]:
    """Yield a new session in each state, of either end, with and without re-attach."""
    for options in (LINK, msgspec.structs.replace(LINK, resume_s=0.0)):
        for role in Role:
            for steps in ((), (_is_greeted,), (_is_greeted, _loses), (_is_greeted, _loses, _found)):
                session = _new(role, options)
                for step in steps:
                    step(session)
                session.events_received()
                yield session


def _new(role: Role, options: LinkOptions) -> Session:
    make = greeting_agent if role is Role.AGENT else greeting_wrapper
    return make(options=options)


def _loses(session: Session) -> None:
    session.receive_eof(0.0)


def _found(session: Session) -> None:
    session.attach(0.0)


def session_steps() -> dict[Edge, set[str]]:
    """Return what leads from which state to which, as it was watched."""
    steps: dict[Edge, set[str]] = {}
    for number in range(len(list(sessions()))):
        for happening in HAPPENINGS:
            session = list(sessions())[number]
            before = session.state
            happening(session)
            if session.state is not before:
                _note(steps, before, session)
    steps.setdefault(("greeting", "closed"), set()).add("close()")
    return steps


def _note(steps: dict[Edge, set[str]], before: SessionState, session: Session) -> None:
    here = before
    for event in session.events_received():
        match event:
            case Opened():
                there, why = SessionState.OPEN, "greeted"
            case Detached():
                there, why = SessionState.DETACHED, "the stream ended"
            case Closed(cause=cause):
                there, why = SessionState.CLOSED, str(cause)
            case _:
                continue
        steps.setdefault((here, there), set()).add(why)
        here = there
    if here is not session.state:
        steps.setdefault((here, session.state), set()).add("attach()")
