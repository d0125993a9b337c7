"""The life of a job as one table: which status may follow which, and what made it so.

Names, levels and numbers are JAliEn's (alien.taskQueue.JobStatus). JAliEn's server does not
enforce the graph; ours does, and so does every agent on its own side, from this one table.
The diagram in docs/lifecycle.md is drawn from it.

What must stay true:

* a final status is never left, but for EXPIRED, and only into a *new attempt* (WAITING with
  the attempt number one higher): the queue does that, not an agent;
* within one attempt a status never moves backwards: each transition raises the level, or
  leaves the active statuses (giving the job back to WAITING, or ZOMBIE when it fell silent);
* ZOMBIE is not an end: an agent that was silent and comes back finds its job where it was,
  until the lease's second half is over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from transport.errors import InternalError
from transport.messages import Failure, JobStatus, KillCode, KillReason, Outcome

S = JobStatus


class Rank(NamedTuple):
    """A status's place in JAliEn's tables: level orders, number is what AliEn stores."""

    level: int
    number: int


RANKS: dict[JobStatus, Rank] = {
    S.INSERTING: Rank(10, 1),
    S.UPDATING: Rank(11, 23),
    S.SPLITTING: Rank(15, 2),
    S.SPLIT: Rank(18, 3),
    S.WAITING: Rank(20, 5),
    S.ASSIGNED: Rank(25, 6),
    S.STARTED: Rank(40, 7),
    S.RUNNING: Rank(50, 10),
    S.SAVING: Rank(60, 11),
    S.SAVED: Rank(70, 12),
    S.SAVED_WARN: Rank(71, 22),
    S.ZOMBIE: Rank(600, -15),
    S.MERGING: Rank(701, 13),
    S.DONE: Rank(800, 15),
    S.DONE_WARN: Rank(801, 16),
    S.ERROR_A: Rank(900, -1),
    S.ERROR_I: Rank(901, -2),
    S.ERROR_E: Rank(902, -3),
    S.ERROR_IB: Rank(903, -4),
    S.ERROR_S: Rank(906, -7),
    S.ERROR_SV: Rank(907, -9),
    S.ERROR_V: Rank(908, -10),
    S.ERROR_VN: Rank(909, -11),
    S.ERROR_VT: Rank(910, -16),
    S.ERROR_EW: Rank(911, -18),
    S.ERROR_W: Rank(912, -19),
    S.ERROR_SPLT: Rank(913, -8),
    S.ERROR_VER: Rank(914, -20),
    S.FAULTY: Rank(950, 24),
    S.INCORRECT: Rank(951, 25),
    S.EXPIRED: Rank(1000, -12),
    S.KILLED: Rank(1002, -14),
}

FINAL = frozenset(status for status, rank in RANKS.items() if rank.level >= RANKS[S.DONE].level)
ACTIVE = frozenset({S.STARTED, S.RUNNING, S.SAVING})
LEASED = ACTIVE | {S.ASSIGNED}
"""Statuses in which some agent holds the job and must renew its lease."""

_LOST = frozenset({S.ZOMBIE, S.KILLED})
_GIVEN_BACK = frozenset({S.WAITING})

TRANSITIONS: dict[JobStatus, frozenset[JobStatus]] = {
    S.WAITING: frozenset({S.ASSIGNED, S.ERROR_EW, S.KILLED}),
    S.ASSIGNED: frozenset({S.STARTED, S.ERROR_A}) | _GIVEN_BACK | _LOST,
    S.STARTED: frozenset({S.RUNNING, S.ERROR_IB, S.ERROR_E, S.SAVING}) | _GIVEN_BACK | _LOST,
    S.RUNNING: frozenset({S.SAVING, S.ERROR_E}) | _GIVEN_BACK | _LOST,
    S.SAVING: frozenset(
        {
            S.DONE,
            S.DONE_WARN,
            S.ERROR_E,
            S.ERROR_IB,
            S.ERROR_S,
            S.ERROR_SV,
            S.ERROR_V,
            S.ERROR_VN,
            S.ERROR_VT,
        }
    )
    | _GIVEN_BACK
    | _LOST,
    S.ZOMBIE: frozenset({S.EXPIRED, S.KILLED}),
    # A new attempt; only the queue does this, and never an agent.
    S.EXPIRED: _GIVEN_BACK,
}
"""What may follow what, within the part of JAliEn's graph that a pilot and its queue run.

A status that isn't a key is final or belongs to the broker's own work (splitting, merging)."""


class IllegalTransition(InternalError):
    """Raised when a status would move where the table doesn't let it; tells the job's story."""


class Step(NamedTuple):
    """One line of a job's story."""

    status: JobStatus
    at: float
    stimulus: str


class JobLife:
    """One attempt's status, changed in one place, with the story of how it came there.

    ``stimulus`` names the event that caused a step (a message and its sequence, a timer), so
    that an illegal transition can be explained from its text alone.
    """

    def __init__(self, job: str, status: JobStatus, at: float, stimulus: str) -> None:
        self._job = job
        self._story = [Step(status, at, stimulus)]

    @property
    def status(self) -> JobStatus:
        """The present status."""
        return self._story[-1].status

    @property
    def story(self) -> tuple[Step, ...]:
        """Every status so far, oldest first."""
        return tuple(self._story)

    @property
    def is_final(self) -> bool:
        """True once nothing can follow in this attempt: it has ended, or was given back."""
        is_given_back = self.status in _GIVEN_BACK and len(self._story) > 1
        return self.status in FINAL or is_given_back

    def advance(self, status: JobStatus, at: float, stimulus: str) -> bool:
        """Move to ``status``; return False, changing nothing, when it is there already.

        Raises `IllegalTransition` when the table has no such step.
        """
        if status is self.status:
            return False
        if not may_follow(self.status, status) or self.is_final:
            raise IllegalTransition(
                f"{self._job}: {stimulus} asks for {status} after {self.status}, "
                f"which the life cycle does not allow. Its story: {_told(self._story)}"
            )
        self._story.append(Step(status, at, stimulus))
        return True


def may_follow(before: JobStatus, after: JobStatus) -> bool:
    """Tell whether the table has a step from ``before`` to ``after``."""
    return after in TRANSITIONS.get(before, frozenset())


def path_to(before: JobStatus, after: JobStatus) -> tuple[JobStatus, ...]:
    """Return the shortest steps from ``before`` to ``after``, the last included.

    A verdict can be known before its status may be reached (a failed stage-in whose logs are
    still to be saved, say): the steps in between are then reported too. Returns an empty tuple
    when they are the same; raises `IllegalTransition` when there is no way.
    """
    paths: list[tuple[JobStatus, ...]] = [()]
    seen = {before}
    for path in paths:
        here = path[-1] if path else before
        if here is after:
            return path
        for following in sorted(TRANSITIONS.get(here, ()), key=lambda status: RANKS[status].level):
            is_way = following is not S.WAITING or after is S.WAITING
            if following not in seen and here not in FINAL and is_way:
                seen.add(following)
                paths.append((*path, following))
    raise IllegalTransition(f"no way leads from {before} to {after}")


# --- the right final status ------------------------------------------------------------------

_BY_FAILURE: dict[Failure, JobStatus] = {
    Failure.STAGE_IN: S.ERROR_IB,
    Failure.START: S.ERROR_E,
    Failure.PAYLOAD: S.ERROR_E,
    Failure.VALIDATION_FAILED: S.ERROR_V,
    Failure.VALIDATION_KILLED: S.ERROR_VT,
    Failure.VALIDATION_UNRUNNABLE: S.ERROR_VN,
    Failure.OUTPUT_MISSING: S.ERROR_S,
    Failure.STAGE_OUT: S.ERROR_SV,
}

_BY_KILL: dict[KillCode, JobStatus] = {
    KillCode.CENTRAL_KILL: S.KILLED,
    # The job did nothing wrong: it goes back and runs again elsewhere.
    KillCode.OPERATOR: S.WAITING,
    KillCode.PREEMPTED: S.WAITING,
}


def status_of(outcome: Outcome) -> JobStatus:
    """Return the status that an outcome earns.

    The kill reason comes first: whatever a stopped payload's exit code says, the job did not
    fail by itself. A limit is ERROR_E; its owner's kill is KILLED; the pilot's own stop gives
    the job back (WAITING).
    """
    if outcome.kill is not None:
        if outcome.failure is Failure.VALIDATION_KILLED and outcome.kill.code not in _BY_KILL:
            return S.ERROR_VT
        return _BY_KILL.get(outcome.kill.code, S.ERROR_E)
    if outcome.failure is not None:
        return _BY_FAILURE[outcome.failure]
    return S.DONE_WARN if outcome.has_warning else S.DONE


def status_after_wrapper_death(last: JobStatus, kill: KillReason | None) -> JobStatus:
    """Return the status of a job whose wrapper died without a word, as JAliEn decides it.

    Killed on purpose: what the kill earns. Before it started: ERROR_A. While it saved:
    ERROR_SV. Otherwise ERROR_E.
    """
    if kill is not None and kill.code is not KillCode.WRAPPER_LOST:
        return _BY_KILL.get(kill.code, S.ERROR_E if last is not S.ASSIGNED else S.ERROR_A)
    if last is S.SAVING:
        return S.ERROR_SV
    return S.ERROR_A if last is S.ASSIGNED else S.ERROR_E


def _told(story: Iterable[Step]) -> str:
    return " -> ".join(f"{step.status} at {step.at:.3f} ({step.stimulus})" for step in story)
