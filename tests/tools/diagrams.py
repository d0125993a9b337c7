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
    open_agent,
    open_wrapper,
    pack,
    welcome_frame,
)
from transport.events import CloseCause, Closed, Detached, Opened, SessionEvent
from transport.frames import FrameKind, encode_frame
from transport.messages import JobStatus
from transport.session import LinkOptions, Session, SessionState

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
    S.SAVED: "saved, and not yet DONE",
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
    S.ERROR_W: "JAliEn's own; nothing here sets it",
    S.ERROR_SPLT: "it could not be split",
    S.ERROR_VER: "JAliEn's own; nothing here sets it",
    S.FAULTY: "JAliEn's own; nothing here sets it",
    S.INCORRECT: "its description is wrong",
    S.EXPIRED: "its agent stayed silent; the attempt is over, the job may wait again",
    S.KILLED: "its owner, or an operator of the queue, ended it",
}


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
        "| status | level | AliEn's number | | meaning |\n|---|---|---|---|---|\n"
        + "\n".join(rows),
    )


def _class(status: JobStatus) -> str:
    if status in FINAL:
        return "final"
    if status in LEASED:
        return "leased"
    return "" if status in TRANSITIONS else "the broker's"


# --- the confirmed session -------------------------------------------------------------------

LINK = LinkOptions(window=2, confirm_s=30.0, resume_s=300.0)
LATER = 1_000.0

Edge = tuple[SessionState, SessionState]

STATES: dict[SessionState, str] = {
    SessionState.GREETING: "the wrapper has said, or is to say, Hello; what is sent waits",
    SessionState.OPEN: "messages travel, and are confirmed",
    SessionState.DETACHED: "the stream is gone; another may be attached; what is sent waits",
    SessionState.CLOSED: "the end; nothing is sent or heard any more",
}


def _hears(data: bytes) -> Callable[[Session], None]:
    return lambda session: session.receive_data(data, 0.0)


def _is_confirmed_wrongly(session: Session) -> None:
    session.send(fact(), 0.0)
    session.receive_data(echo_frame(1, b"other bytes"), 0.0)


def _is_never_confirmed(session: Session) -> None:
    session.send(fact(), 0.0)
    session.receive_data(encode_frame(FrameKind.HEARTBEAT, EPOCH, 0, None), 29.0)
    session.handle_timer(30.0)


def _ends_within_a_frame(session: Session) -> None:
    session.receive_data(b"\0\0", 0.0)
    session.receive_eof(0.0)


HAPPENINGS: dict[str, Callable[[Session], None]] = {
    "attach()": lambda session: session.attach(0.0),
    "close()": lambda session: session.close("enough", 0.0),
    "Hello": _hears(hello_frame()),
    "Hello again": _hears(hello_frame(epoch=EPOCH)),
    "Hello of another version": _hears(hello_frame(versions=(99,))),
    "Welcome": _hears(welcome_frame()),
    "Welcome of another version": _hears(welcome_frame(version=99)),
    "Goodbye": _hears(encode_frame(FrameKind.GOODBYE, EPOCH, 0, pack("enough"))),
    "a gap": _hears(data_frame(2)),
    "more than the window": _hears(b"".join(data_frame(number) for number in (1, 2, 3))),
    "garbage": _hears(envelope_frame("no", "envelope") * 50),
    "too large a frame": _hears((1 << 31).to_bytes(4, "big")),
    "a wrong echo": _is_confirmed_wrongly,
    "no echo": _is_never_confirmed,
    "the stream's end": lambda session: session.receive_eof(0.0),
    "the stream's end within a frame": _ends_within_a_frame,
    "a peer that doesn't read": lambda session: session.fail(CloseCause.NOT_READING, "", 0.0),
    "time": lambda session: session.handle_timer(LATER),
}


def watched_sessions() -> list[Session]:
    """Return a new session in each state, of either end, with and without re-attach."""
    return [
        session
        for options in (LINK, msgspec.structs.replace(LINK, resume_s=0.0))
        for session in (
            greeting_agent(options=options),
            greeting_wrapper(options=options),
            open_agent(options=options),
            open_wrapper(options=options),
            _lost(open_agent(options=options)),
            _lost(open_wrapper(options=options)),
            _found(_lost(open_agent(options=options))),
            _found(_lost(open_wrapper(options=options))),
        )
    ]


def _lost(session: Session) -> Session:
    session.receive_eof(0.0)
    return session


def _found(session: Session) -> Session:
    session.attach(0.0)
    return session


def session_steps() -> dict[Edge, list[str]]:
    """Return what was seen to lead from which state to which."""
    steps: dict[Edge, list[str]] = {}
    for name, happens in HAPPENINGS.items():
        for session in watched_sessions():
            session.events_received()
            before = session.state
            happens(session)
            if session.state is not before:
                seen = steps.setdefault((before, session.state), [])
                seen.append(_why(session.events_received()) or name)
    return {edge: sorted(set(seen)) for edge, seen in sorted(steps.items())}


def _why(events: list[SessionEvent]) -> str:
    """Return what the session itself says of a step; some, its owner's own, it doesn't tell."""
    for event in events:
        match event:
            case Opened():
                return "Opened"
            case Detached():
                return "Detached"
            case Closed(cause=cause):
                return f"Closed: {cause}"
    return ""


def session_diagram() -> str:
    """Return the session's states as a Mermaid state diagram; the causes are in the table."""
    arrows = [
        f"    {before} --> {after}{_label(seen)}"
        for (before, after), seen in session_steps().items()
    ]
    return "\n".join(["stateDiagram-v2", "    [*] --> greeting", *arrows, "    closed --> [*]"])


def _label(seen: list[str]) -> str:
    return f": {seen[0]}" if len(seen) == 1 else ""


def session_page() -> str:
    """Return docs/session.md."""
    rows = [
        f"| {before} | {after} | {', '.join(f'`{why}`' for why in seen)} |"
        for (before, after), seen in session_steps().items()
    ]
    states = "".join(f"* **{state}**: {meaning}\n" for state, meaning in STATES.items())
    return _page(
        "The confirmed session",
        "transport/session.py",
        "The states of one end of a link; agent and wrapper have the same. Drawn from what a"
        "\nsession was seen to do, in each state, with each thing that can happen to it.\n\n"
        + states.rstrip(),
        session_diagram(),
        "`Opened`, `Detached` and `Closed` are what the session tells its owner"
        " (`transport/events.py`);\n`attach()` and `close()` are the owner's own.\n\n"
        "| from | to | by |\n|---|---|---|\n" + "\n".join(rows),
    )


# --- writing ---------------------------------------------------------------------------------


def _page(title: str, source: str, about: str, diagram: str, table: str) -> str:
    return (
        f"# {title}\n\n"
        f"<!-- Made by `python -m tests.tools.diagrams` from {source}; don't edit. -->\n\n"
        f"{about}\n\n```mermaid\n{diagram}\n```\n\n{table}\n"
    )


PAGES: dict[str, Callable[[], str]] = {
    "lifecycle.md": lifecycle_page,
    "session.md": session_page,
}


def write_diagrams() -> None:
    """Write the pages into docs/."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())


if __name__ == "__main__":
    write_diagrams()
