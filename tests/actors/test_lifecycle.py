"""The life of a job: which status may follow which, and what earns which."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.lifecycle import (
    ACTIVE,
    FINAL,
    LEASED,
    RANKS,
    TRANSITIONS,
    IllegalTransition,
    JobLife,
    may_follow,
    path_to,
    status_after_wrapper_death,
    status_of,
)
from transport.messages import Failure, JobStatus, KillCode, KillReason, Outcome

S = JobStatus

# alien.taskQueue.JobStatus of JAliEn: name(level, AliEn id).
JALIEN = """
INSERTING(10,1) UPDATING(11,23) SPLITTING(15,2) SPLIT(18,3) WAITING(20,5) ASSIGNED(25,6)
STARTED(40,7) RUNNING(50,10) SAVING(60,11) SAVED(70,12) SAVED_WARN(71,22) ZOMBIE(600,-15)
MERGING(701,13) DONE(800,15) DONE_WARN(801,16) ERROR_A(900,-1) ERROR_I(901,-2) ERROR_E(902,-3)
ERROR_IB(903,-4) ERROR_S(906,-7) ERROR_SV(907,-9) ERROR_V(908,-10) ERROR_VN(909,-11)
ERROR_VT(910,-16) ERROR_EW(911,-18) ERROR_W(912,-19) ERROR_SPLT(913,-8) ERROR_VER(914,-20)
FAULTY(950,24) INCORRECT(951,25) EXPIRED(1000,-12) KILLED(1002,-14)
"""

statuses = st.sampled_from(JobStatus)
LIVING = {*LEASED, S.ZOMBIE}


def killed(code: KillCode) -> KillReason:
    """Return a reason to be stopped."""
    return KillReason(code=code, by="agent", at=0.0, why="because")


def life(*steps: JobStatus) -> JobLife:
    """Return a life that went through these statuses, one a second."""
    made = JobLife("job 7.1", steps[0], 0.0, "match")
    for at, status in enumerate(steps[1:], 1):
        assert made.advance(status, float(at), "wrapper")
    return made


def verdicts() -> Iterator[tuple[JobStatus, JobStatus]]:
    """Yield each status that an agent may hold with each verdict that it may come to there."""
    kills = [None, *(killed(code) for code in KillCode if code is not KillCode.FENCED)]
    outcomes = [
        Outcome(failure=failure, kill=kill, has_warning=has_warning)
        for failure in (None, *Failure)
        for kill in kills
        for has_warning in (False, True)
    ]
    for here in LEASED:
        yield from ((here, status_of(outcome)) for outcome in outcomes)
        yield from ((here, status_after_wrapper_death(here, kill)) for kill in kills)


# --- the tables ------------------------------------------------------------------------------


def test_every_status_has_jalien_s_level_and_number() -> None:
    """Exactly those, and no other status."""
    found = re.findall(r"(\w+)\((\d+),(-?\d+)\)", JALIEN)

    assert len(found) == 32
    assert {(s.value, rank.level, rank.number) for s, rank in RANKS.items()} == {
        (name, int(level), int(number)) for name, level, number in found
    }
    assert set(RANKS) == set(JobStatus)


def test_the_final_statuses_are_those_from_done_to_killed() -> None:
    """Every level from DONE's on."""
    errors = {status for status in JobStatus if status.startswith("ERROR_")}
    others = {S.DONE, S.DONE_WARN, S.FAULTY, S.INCORRECT, S.EXPIRED, S.KILLED}

    assert errors | others == FINAL


def test_the_active_statuses_are_those_in_which_something_runs() -> None:
    """A lease is held from ASSIGNED on."""
    assert {S.STARTED, S.RUNNING, S.SAVING} == ACTIVE
    assert ACTIVE | {S.ASSIGNED} == LEASED


def test_there_is_no_way_back_within_an_attempt() -> None:
    """A step raises the level, or leaves the attempt behind by giving the job back."""
    backwards = [
        (before, after)
        for before, following in TRANSITIONS.items()
        for after in following
        if after is not S.WAITING and RANKS[after].level <= RANKS[before].level
    ]

    assert backwards == []


def test_a_final_status_is_left_only_for_a_new_attempt() -> None:
    """An EXPIRED job may wait again; nothing else ever moves."""
    left = {status: TRANSITIONS[status] for status in FINAL if status in TRANSITIONS}

    assert left == {S.EXPIRED: {S.WAITING}}


def test_every_leased_job_can_be_killed_given_back_and_lost() -> None:
    """Whatever it was doing when its owner, its node or its agent had enough."""
    for status in LEASED:
        assert may_follow(status, S.KILLED)
        assert may_follow(status, S.WAITING)
        assert may_follow(status, S.ZOMBIE)


def test_a_job_without_a_lease_falls_silent_for_nobody() -> None:
    """Only what some agent holds can become a ZOMBIE."""
    assert {status for status in JobStatus if may_follow(status, S.ZOMBIE)} == LEASED


def test_a_waiting_job_does_not_wait_for_ever() -> None:
    """It is taken, killed or given up."""
    assert TRANSITIONS[S.WAITING] == {S.ASSIGNED, S.ERROR_EW, S.KILLED}


# --- one attempt -----------------------------------------------------------------------------


def test_a_good_life_ends_done() -> None:
    """From its match to its end, with the story of how it came there."""
    made = life(S.ASSIGNED, S.STARTED, S.RUNNING, S.SAVING, S.DONE)

    assert made.status is S.DONE
    assert made.is_final
    assert [step.status for step in made.story] == [
        S.ASSIGNED,
        S.STARTED,
        S.RUNNING,
        S.SAVING,
        S.DONE,
    ]


def test_the_same_status_again_changes_nothing() -> None:
    """A repetition is no step, and doesn't enter the story."""
    made = life(S.ASSIGNED, S.STARTED)

    assert not made.advance(S.STARTED, 9.0, "wrapper")
    assert len(made.story) == 2


def test_an_illegal_step_tells_the_whole_story() -> None:
    """The text alone says what was asked, by what, and how the job came to where it is."""
    made = life(S.ASSIGNED, S.STARTED, S.RUNNING)

    with pytest.raises(IllegalTransition) as caught:
        made.advance(S.STARTED, 3.0, "wrapper, message 5")

    assert str(caught.value) == (
        "job 7.1: wrapper, message 5 asks for STARTED after RUNNING, which the life cycle does "
        "not allow. Its story: ASSIGNED at 0.000 (match) -> STARTED at 1.000 (wrapper) -> "
        "RUNNING at 2.000 (wrapper)"
    )
    assert made.status is S.RUNNING


def test_an_expired_attempt_stays_expired() -> None:
    """That the job may wait again is the queue's word, for another attempt."""
    made = life(S.ZOMBIE, S.EXPIRED)

    assert made.is_final
    with pytest.raises(IllegalTransition):
        made.advance(S.WAITING, 2.0, "queue")


def test_an_attempt_that_was_given_back_is_over() -> None:
    """It is WAITING, but what follows is another attempt's life."""
    made = life(S.ASSIGNED, S.STARTED, S.WAITING)

    assert made.is_final
    with pytest.raises(IllegalTransition):
        made.advance(S.ASSIGNED, 3.0, "match")


def test_an_attempt_may_begin_by_waiting() -> None:
    """A job that waits for its first match has its life before it."""
    assert not life(S.WAITING).is_final
    assert life(S.WAITING, S.ASSIGNED).status is S.ASSIGNED


@given(start=statuses, asked=st.lists(statuses, max_size=20))
def test_a_life_never_moves_backwards(start: JobStatus, asked: list[JobStatus]) -> None:
    """Whatever is asked of it, in whatever order."""
    made = JobLife("job", start, 0.0, "start")
    for status in asked:
        was_final = made.is_final
        try:
            moved = made.advance(status, 1.0, "asked")
        except IllegalTransition:
            moved = False
        assert not (was_final and moved)

    for before, after in pairwise(made.story):
        assert may_follow(before.status, after.status)
        is_higher = RANKS[after.status].level > RANKS[before.status].level
        assert is_higher or after is made.story[-1]


# --- the way to a verdict --------------------------------------------------------------------


@pytest.mark.parametrize("before", JobStatus)
def test_a_path_is_a_chain_of_steps_or_there_is_none(before: JobStatus) -> None:
    """To any status: each step is in the table, and none goes through another attempt."""
    for after in JobStatus:
        if after not in reachable(before):
            with pytest.raises(IllegalTransition, match=f"no way leads from {before} to {after}"):
                path_to(before, after)
            continue
        chain = (before, *path_to(before, after))

        assert chain[-1] is after
        assert all(may_follow(here, there) for here, there in pairwise(chain))
        assert S.WAITING not in chain[1:-1]
        assert not FINAL.intersection(chain[:-1])


def reachable(before: JobStatus) -> set[JobStatus]:
    """Return what one attempt can come to from here, found the slow way."""
    found = {before}
    for _ in JobStatus:
        going_on = {here for here in found if here not in FINAL and here in (before, *LIVING)}
        found |= {after for here in going_on for after in TRANSITIONS.get(here, ())}
    return found


@pytest.mark.parametrize(
    ("before", "after", "steps"),
    [
        (S.DONE, S.DONE, ()),
        (S.SAVING, S.DONE, (S.DONE,)),
        (S.RUNNING, S.WAITING, (S.WAITING,)),
        (S.ASSIGNED, S.ERROR_IB, (S.STARTED, S.ERROR_IB)),
        (S.STARTED, S.ERROR_SV, (S.SAVING, S.ERROR_SV)),
        (S.RUNNING, S.ERROR_V, (S.SAVING, S.ERROR_V)),
        (S.ASSIGNED, S.DONE, (S.STARTED, S.SAVING, S.DONE)),
    ],
)
def test_the_shortest_way_is_taken(
    before: JobStatus, after: JobStatus, steps: tuple[JobStatus, ...]
) -> None:
    """A verdict that is known early is reported with the steps that lead to it."""
    assert path_to(before, after) == steps


def test_every_verdict_can_be_reached_from_where_it_is_come_to() -> None:
    """Whatever dies and whenever: there is a way, so the agent is never at a loss."""
    for here, verdict in verdicts():
        assert path_to(here, verdict)[-1:] in ((verdict,), ())


def test_every_verdict_ends_the_attempt() -> None:
    """It is final, or the job is given back."""
    assert {verdict for _, verdict in verdicts()} <= FINAL | {S.WAITING}


# --- the right final status ------------------------------------------------------------------


def test_a_job_without_fault_is_done() -> None:
    """With a warning where it was saved with fewer replicas than asked for."""
    assert status_of(Outcome(exit_code=0)) is S.DONE
    assert status_of(Outcome(exit_code=0, has_warning=True)) is S.DONE_WARN


FAILURES = {
    Failure.STAGE_IN: S.ERROR_IB,
    Failure.START: S.ERROR_E,
    Failure.PAYLOAD: S.ERROR_E,
    Failure.VALIDATION_FAILED: S.ERROR_V,
    Failure.VALIDATION_KILLED: S.ERROR_VT,
    Failure.VALIDATION_UNRUNNABLE: S.ERROR_VN,
    Failure.OUTPUT_MISSING: S.ERROR_S,
    Failure.STAGE_OUT: S.ERROR_SV,
}


@pytest.mark.parametrize("failure", Failure)
def test_each_failure_earns_its_error(failure: Failure) -> None:
    """As JAliEn names them; a warning beside a failure is no excuse."""
    assert status_of(Outcome(failure=failure)) is FAILURES[failure]
    assert status_of(Outcome(failure=failure, has_warning=True)) is FAILURES[failure]


KILLS = {
    KillCode.CENTRAL_KILL: S.KILLED,
    KillCode.OPERATOR: S.WAITING,
    KillCode.PREEMPTED: S.WAITING,
}


@pytest.mark.parametrize("code", KillCode)
@pytest.mark.parametrize("failure", [None, Failure.PAYLOAD, Failure.STAGE_OUT])
def test_a_kill_outranks_what_the_payload_says(code: KillCode, failure: Failure | None) -> None:
    """Its owner's kill is KILLED, the pilot's own stop gives it back, a limit is ERROR_E."""
    outcome = Outcome(exit_code=0, failure=failure, kill=killed(code))

    assert status_of(outcome) is KILLS.get(code, S.ERROR_E)


@pytest.mark.parametrize("code", KillCode)
def test_a_limit_that_ends_the_validation_is_its_own_error(code: KillCode) -> None:
    """But its owner's kill, or the pilot's stop, is what it is anywhere."""
    outcome = Outcome(failure=Failure.VALIDATION_KILLED, kill=killed(code))

    assert status_of(outcome) is KILLS.get(code, S.ERROR_VT)


@pytest.mark.parametrize(
    ("last", "status"),
    [
        (S.ASSIGNED, S.ERROR_A),
        (S.STARTED, S.ERROR_E),
        (S.RUNNING, S.ERROR_E),
        (S.SAVING, S.ERROR_SV),
    ],
)
def test_a_wrapper_s_death_is_judged_by_what_it_was_doing(
    last: JobStatus, status: JobStatus
) -> None:
    """Before it started, while it ran, while it saved; that it was lost is no other reason."""
    assert status_after_wrapper_death(last, None) is status
    assert status_after_wrapper_death(last, killed(KillCode.WRAPPER_LOST)) is status


@pytest.mark.parametrize("last", sorted(LEASED))
@pytest.mark.parametrize("code", KillCode)
def test_a_wrapper_that_died_of_a_kill_earns_what_the_kill_earns(
    last: JobStatus, code: KillCode
) -> None:
    """A limit before anything started is an error of the assignment."""
    if code is KillCode.WRAPPER_LOST:
        return
    limit = S.ERROR_A if last is S.ASSIGNED else S.ERROR_E

    assert status_after_wrapper_death(last, killed(code)) is KILLS.get(code, limit)
