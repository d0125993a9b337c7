from __future__ import annotations

import msgspec
import pytest

import pilot.queue
from pilot.queue import QueueStore
from tests.pilot.queue.factories import Holder, S, make_description, submit
from transport.errors import UserError


def test_detail_is_all_that_was_given(store: QueueStore) -> None:
    """Description, JDL and owner come back as they were submitted."""
    description = make_description(name="a", user="anna", variables={"RUN": "1##2"})
    job_id = store.submit(description, "jobs/a.jdl", "[ x = 1 ]", 4.0)

    job = store.job(job_id)
    assert (job.id, job.jdl, job.jdl_text) == (job_id, "jobs/a.jdl", "[ x = 1 ]")
    assert (job.name, job.user, job.submitted_at) == ("a", "anna", 4.0)
    assert (job.status, job.attempt, job.node, job.exit_code) == (S.WAITING, 0, None, None)
    assert job.description == description


def test_detail_can_be_printed_as_json(store: QueueStore) -> None:
    """The names are those of the command line's contract."""
    job = msgspec.to_builtins(store.job(submit(store)))

    assert {"id", "jdl", "name", "status", "attempt", "exit_code", "reason"} <= set(job)
    assert {"container", "history", "traces", "processes", "usage", "outputs"} <= set(job)
    assert set(job["history"][0]) == {"status", "at", "attempt", "reason"}


def test_jobs_are_those_asked_for(store: QueueStore) -> None:
    """Unknown ids, however odd, are left out; thousands are no trouble."""
    ids = [submit(store) for _ in range(3)]

    assert [row.id for row in store.jobs()] == ids
    assert [row.id for row in store.jobs([ids[2], ids[0], 99, -1, 10**30])] == [ids[0], ids[2]]
    assert [row.id for row in store.jobs(range(40_000))] == ids
    assert store.jobs([]) == []


def test_changes_are_every_jobs_steps_in_order(store: QueueStore) -> None:
    """Behind the one that was seen last, however many there are."""
    assert store.newest_change() == 0
    first = submit(store)
    seen = store.newest_change()
    Holder.of(store)

    second = store.changes(seen)
    assert [(step.job_id, step.line.status) for step in second][-1] == (first, S.ASSIGNED)
    assert store.changes(second[-1].number) == []
    assert store.newest_change() == second[-1].number


def test_changes_come_in_pieces(store: QueueStore) -> None:
    """A piece is bounded; asking on from its last one brings them all, once."""
    for _ in range(700):
        submit(store)

    first = store.changes(0)
    rest = store.changes(first[-1].number)
    assert len(first) == 500
    assert [step.job_id for step in first + rest] == list(range(1, 701))


def test_counts_are_by_status(store: QueueStore) -> None:
    """Statuses that no job has aren't there."""
    assert store.counts() == {}
    for _ in range(3):
        submit(store)
    Holder.of(store)

    assert store.counts() == {S.ASSIGNED: 1, S.WAITING: 2}


def test_unknown_job_is_the_users_error(store: QueueStore) -> None:
    """Whatever number was typed, the sentence names it."""
    for job_id in (7, -1, 10**30):
        with pytest.raises(UserError, match=f"no job {job_id} "):
            store.job(job_id)


def test_exported_names_are_these() -> None:
    """What others import from the package changes on purpose only."""
    assert pilot.queue.__all__ == [
        "Change",
        "HistoryLine",
        "JobDetail",
        "JobRow",
        "KillAnswer",
        "ProcessLine",
        "QueuePolicy",
        "QueueStore",
        "SqliteTaskQueue",
        "TraceLine",
    ]
