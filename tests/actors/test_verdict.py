"""The verdict: what is decided from the last status, the last word, the kill and the trouble."""

from __future__ import annotations

import pytest

from actors.verdict import verdict
from transport.messages import Failure, JobStatus, KillCode, KillReason, Outcome

S = JobStatus


def kill(code: KillCode, why: str = "enough") -> KillReason:
    """Make a reason."""
    return KillReason(code=code, by="x", at=0.0, why=why)


def test_a_last_word_without_a_kill_is_believed() -> None:
    """Its failure is the status, its reason the reason."""
    outcome = Outcome(exit_code=3, failure=Failure.PAYLOAD, reason="exited with code 3")

    assert verdict(S.SAVING, outcome, None, "noise") == (S.ERROR_E, "exited with code 3", None)


def test_a_kill_that_came_too_late_is_none() -> None:
    """The wrapper had finished; that somebody wanted to stop it doesn't matter any more."""
    late = kill(KillCode.CENTRAL_KILL)

    assert verdict(S.SAVING, Outcome(exit_code=0), late, "") == (S.DONE, "", None)


def test_the_agents_reason_goes_before_the_wrappers() -> None:
    """A wrapper that was asked and then got TERM has two; the agent's was the first."""
    ours, theirs = kill(KillCode.TTL, "over its TTL"), kill(KillCode.PREEMPTED, "got TERM")
    outcome = Outcome(failure=Failure.PAYLOAD, kill=theirs)

    assert verdict(S.SAVING, outcome, ours, "") == (S.ERROR_E, "over its TTL", ours)


def test_a_kill_of_the_node_is_the_wrappers_to_tell() -> None:
    """Nobody else knows of it: the job goes back."""
    theirs = kill(KillCode.PREEMPTED, "got TERM")
    outcome = Outcome(failure=Failure.PAYLOAD, kill=theirs)

    assert verdict(S.SAVING, outcome, None, "") == (S.WAITING, "got TERM", theirs)


@pytest.mark.parametrize(
    ("last", "status"),
    [
        (S.ASSIGNED, S.ERROR_A),
        (S.STARTED, S.ERROR_E),
        (S.RUNNING, S.ERROR_E),
        (S.SAVING, S.ERROR_SV),
    ],
)
def test_without_a_last_word_the_stage_decides(last: JobStatus, status: JobStatus) -> None:
    """The trouble is the reason, or that there is none."""
    assert verdict(last, None, None, "the link was lost") == (status, "the link was lost", None)
    assert verdict(last, None, None, "").reason == "the wrapper ended without a word"


def test_without_a_last_word_a_kill_decides() -> None:
    """Whatever else went wrong while the job was being stopped."""
    ours = kill(KillCode.CENTRAL_KILL)

    assert verdict(S.RUNNING, None, ours, "it did not stop") == (S.KILLED, "enough", ours)


def test_a_container_that_broke_before_its_first_word_gives_the_job_back() -> None:
    """There is another way to launch it; what had begun is no such case."""
    given_back = verdict(S.ASSIGNED, None, None, "exited with 255", has_another_way=True)
    begun = verdict(S.RUNNING, None, None, "exited with 255", has_another_way=True)

    assert given_back == (S.WAITING, "launched otherwise next time: exited with 255", None)
    assert begun.status is S.ERROR_E
