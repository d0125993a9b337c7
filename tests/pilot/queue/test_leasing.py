from __future__ import annotations

import pytest

from actors.lifecycle import FINAL
from actors.ports import Answer, DrainNode, KillJob, LoseJob
from pilot.queue import KillAnswer, QueueStore
from tests.pilot.queue.factories import Holder, S, beat_of, make_slot, submit
from transport.errors import UserError
from transport.messages import JobStatus


def status_of(store: QueueStore, job_id: int) -> JobStatus:
    """Return the job's present status."""
    return store.jobs([job_id])[0].status


def test_silence_makes_a_zombie_and_then_a_new_attempt(store: QueueStore) -> None:
    """Lease, then patience, then WAITING again; each step in the history."""
    job_id = submit(store)
    Holder.of(store)

    assert store.expire(60.0) == 0
    assert store.expire(60.1) == 1
    assert status_of(store, job_id) is S.ZOMBIE
    assert store.expire(120.1) == 0
    assert store.expire(120.2) == 1

    assert [line.status for line in store.job(job_id).history] == [
        S.WAITING,
        S.ASSIGNED,
        S.ZOMBIE,
        S.EXPIRED,
        S.WAITING,
    ]
    assert Holder.of(store, now=121.0).attempt == 2


def test_match_and_heartbeat_sweep_first_and_last(store: QueueStore) -> None:
    """A lost job is found by whoever comes: no sweeper is needed."""
    submit(store)
    Holder.of(store)

    assert store.match(make_slot(), 61.0) is None
    store.heartbeat(beat_of(node="node-2"), 122.0)

    assert Holder.of(store, now=122.0).attempt == 2


def test_one_sweep_never_takes_both_steps(store: QueueStore) -> None:
    """After the queue itself was away, every agent has time to say that it lives."""
    job_id = submit(store)
    holder = Holder.of(store)

    store.expire(10_000.0)
    assert status_of(store, job_id) is S.ZOMBIE
    assert store.heartbeat(beat_of(holder), 10_001.0) == ()
    assert status_of(store, job_id) is S.ASSIGNED


def test_heartbeat_and_reports_renew_the_lease(store: QueueStore) -> None:
    """60 s count from the last word, whatever it was."""
    job_id = submit(store)
    holder = Holder.of(store)
    store.heartbeat(beat_of(holder), 50.0)
    holder.status(S.STARTED, 100.0)
    holder.trace("still here", 150.0)

    store.expire(210.0)
    assert status_of(store, job_id) is S.STARTED
    store.expire(210.1)
    assert status_of(store, job_id) is S.ZOMBIE


def test_duplicate_does_not_renew_the_lease(store: QueueStore) -> None:
    """A report that wandered about in the network is no sign of life."""
    job_id = submit(store)
    holder = Holder.of(store)
    holder.status(S.STARTED, 10.0)

    assert holder.resend(60.0) is Answer.DUPLICATE
    store.expire(70.1)
    assert status_of(store, job_id) is S.ZOMBIE


@pytest.mark.parametrize("is_report", [True, False])
def test_agent_that_comes_back_finds_its_job_where_it_was(
    store: QueueStore, is_report: bool
) -> None:
    """A ZOMBIE returns to RUNNING by a heartbeat or a report, and the history says so."""
    job_id = submit(store)
    holder = Holder.of(store)
    holder.walk(S.STARTED, S.RUNNING)
    store.expire(61.0)
    assert status_of(store, job_id) is S.ZOMBIE

    if is_report:
        assert holder.trace("back again", 70.0) is Answer.ACCEPTED
    else:
        assert store.heartbeat(beat_of(holder), 70.0) == ()

    history = store.job(job_id).history
    assert [line.status for line in history[-3:]] == [S.RUNNING, S.ZOMBIE, S.RUNNING]
    assert history[-1].reason == "node-1 was heard again"
    assert holder.status(S.SAVING, 71.0) is Answer.ACCEPTED


def test_attempts_that_expire_are_counted(store: QueueStore) -> None:
    """After three lost attempts the job stays EXPIRED."""
    job_id = submit(store)
    now = 0.0
    holders: list[Holder] = []
    for _ in range(3):
        holders.append(Holder.of(store, now))
        store.expire(now + 61)
        store.expire(now + 122)
        now += 122

    assert [holder.attempt for holder in holders] == [1, 2, 3]
    job = store.job(job_id)
    assert job.status is S.EXPIRED
    assert "3 of 3 attempts lost" in job.reason
    assert store.match(make_slot(), now) is None
    assert holders[-1].final(S.KILLED, now) is Answer.STALE


def test_job_that_waits_too_long_is_given_up(store: QueueStore) -> None:
    """After the longest wait a job is ERROR_EW, not matched."""
    job_id = submit(store, now=0.0)

    assert store.match(make_slot(), 1000.1) is None
    assert status_of(store, job_id) is S.ERROR_EW
    assert "1000 s" in store.job(job_id).reason


def test_sweep_takes_no_more_than_its_bound(
    store: QueueStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is left to the next one."""
    monkeypatch.setattr("pilot.queue.leasing.SWEEP_MAX", 2)
    for _ in range(3):
        submit(store)

    assert [store.expire(2000.0) for _ in range(3)] == [2, 1, 0]


def test_heartbeat_takes_away_what_is_not_the_nodes(store: QueueStore) -> None:
    """Final, foreign, old, given back and unknown attempts are to be lost."""
    for _ in range(4):
        submit(store)
    final, foreign, old, back = (Holder.of(store) for _ in range(4))
    final.final(S.ERROR_A)
    back.status(S.WAITING)
    foreign_beat = store.heartbeat(beat_of(foreign, node="node-2"), 0.0)
    old.attempt = 0
    unknown = Holder.of(store)
    unknown.job_id = 10**30

    commands = store.heartbeat(beat_of(final, old, back, unknown), 0.0)

    assert foreign_beat == (LoseJob(job_id=foreign.job_id, attempt=1),)
    assert commands == tuple(
        LoseJob(job_id=holder.job_id, attempt=holder.attempt)
        for holder in (final, old, back, unknown)
    )


def test_heartbeat_tells_a_draining_node(store: QueueStore) -> None:
    """The command comes with each heartbeat, also of a node without jobs."""
    store.request_drain("node-1", "new kernel", now=0.0)

    for now in (1.0, 2.0):
        assert store.heartbeat(beat_of(), now) == (DrainNode(why="new kernel"),)
    assert store.heartbeat(beat_of(node="node-2"), 3.0) == ()


def test_waiting_job_is_killed_at_once(store: QueueStore) -> None:
    """Nobody has it: there is nobody to ask."""
    job_id = submit(store)

    assert store.request_kill(job_id, "anna", "wrong cuts", 1.0) is KillAnswer.KILLED
    job = store.job(job_id)
    assert (job.status, job.reason) == (S.KILLED, "killed by anna: wrong cuts")
    assert job.kill is not None
    assert (job.kill.by, job.kill.why, job.kill.at) == ("anna", "wrong cuts", 1.0)
    assert store.request_kill(job_id, "bob", "", 2.0) is KillAnswer.ALREADY_FINAL


def test_running_job_is_killed_through_its_agent(store: QueueStore) -> None:
    """The command comes with each heartbeat until the end is reported; the first wish counts."""
    job_id = submit(store)
    holder = Holder.of(store)
    holder.walk(S.STARTED, S.RUNNING)
    command = KillJob(job_id=job_id, attempt=1, by="anna", why="wrong cuts")

    assert store.request_kill(job_id, "anna", "wrong cuts", 1.0) is KillAnswer.RECORDED
    assert store.request_kill(job_id, "bob", "me too", 2.0) is KillAnswer.RECORDED
    assert store.heartbeat(beat_of(holder), 3.0) == (command,)
    assert store.heartbeat(beat_of(holder), 4.0) == (command,)
    assert holder.final(S.KILLED, 5.0) is Answer.ACCEPTED
    assert store.heartbeat(beat_of(holder), 6.0) == (LoseJob(job_id=job_id, attempt=1),)


def test_kill_that_came_too_late_does_not_change_the_end(store: QueueStore) -> None:
    """A job that is done is DONE, and says who wanted it killed."""
    job_id = submit(store)
    holder = Holder.of(store)
    holder.walk(S.STARTED, S.RUNNING, S.SAVING)
    store.request_kill(job_id, "anna", "late", 1.0)

    assert holder.final(S.DONE, 2.0) is Answer.ACCEPTED
    job = store.job(job_id)
    assert (job.status, job.kill) == (S.DONE, None)
    assert job.kill_request is not None


def test_kill_outlives_silence_but_not_the_attempt(store: QueueStore) -> None:
    """When the agent is lost, or gives the job back, the job is killed, not tried again."""
    lost, given_back = submit(store), submit(store)
    Holder.of(store)
    holder = Holder.of(store)
    store.request_kill(lost, "anna", "x", 1.0)
    store.request_kill(given_back, "anna", "x", 1.0)

    holder.status(S.WAITING, 2.0)
    store.expire(61.0)

    assert [row.status for row in store.jobs()] == [S.KILLED, S.KILLED]
    assert [line.status for line in store.job(lost).history[-2:]] == [S.ZOMBIE, S.KILLED]
    assert [line.status for line in store.job(given_back).history[-2:]] == [S.WAITING, S.KILLED]
    assert holder.resend(62.0) is Answer.DUPLICATE


def test_zombie_is_killed_at_once(store: QueueStore) -> None:
    """No agent is heard that could do it; should it come back, it loses the job."""
    job_id = submit(store)
    holder = Holder.of(store)
    store.expire(61.0)

    assert store.request_kill(job_id, "anna", "x", 62.0) is KillAnswer.KILLED
    assert store.heartbeat(beat_of(holder), 63.0) == (LoseJob(job_id=job_id, attempt=1),)
    assert holder.status(S.STARTED, 64.0) is Answer.STALE
    assert status_of(store, job_id) in FINAL


def test_kill_of_an_unknown_job_is_the_users_error(store: QueueStore) -> None:
    """Whatever number was typed, the sentence names it."""
    for job_id in (7, -1, 10**30):
        with pytest.raises(UserError, match=f"no job {job_id} "):
            store.request_kill(job_id, "anna", "x", 0.0)
