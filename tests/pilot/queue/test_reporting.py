from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from actors.ports import Answer, FinalReport
from pilot.queue import QueueStore, rows
from tests.pilot.queue.factories import Holder, S, submit
from transport.messages import (
    JobStatus,
    KillCode,
    KillReason,
    ProcessRole,
    SavedFile,
    Usage,
)


def make_running(store: QueueStore) -> Holder:
    """Give a job that runs."""
    submit(store)
    holder = Holder.of(store)
    holder.walk(S.STARTED, S.RUNNING)
    return holder


def test_whole_life_is_in_the_history(store: QueueStore) -> None:
    """Each status is there once, in order, with time, attempt and reason."""
    submit(store, now=1.0)
    holder = Holder.of(store, now=2.0)
    holder.status(S.STARTED, 3.0, container="apptainer")
    holder.walk(S.RUNNING, S.SAVING, now=4.0)
    assert holder.final(S.DONE, 5.0) is Answer.ACCEPTED

    job = store.job(holder.job_id)
    assert [(line.status, line.at, line.attempt) for line in job.history] == [
        (S.WAITING, 1.0, 0),
        (S.ASSIGNED, 2.0, 1),
        (S.STARTED, 3.0, 1),
        (S.RUNNING, 4.0, 1),
        (S.SAVING, 4.0, 1),
        (S.DONE, 5.0, 1),
    ]
    assert (job.status, job.exit_code, job.container) == (S.DONE, 0, "apptainer")
    assert job.history[1].reason == "matched by node-1"


def test_final_report_is_kept_whole(store: QueueStore) -> None:
    """Exit code, reason, kill, usage and outputs come back as they were told."""
    holder = make_running(store)
    holder.walk(S.SAVING)
    saved = SavedFile(name="a.zip", bytes=3, sha256="s", adler32="a", location="/out/a.zip")
    kill = KillReason(code=KillCode.MEMORY, by="limits", at=8.0, why="9 GB of 8 GB")
    usage = Usage(wall_s=7.0, memory_peak_bytes=9, source="pss")

    answer = holder.send(
        FinalReport(
            job_id=holder.job_id,
            attempt=1,
            sequence=holder.sequence + 1,
            at=9.0,
            status=S.ERROR_E,
            exit_code=137,
            reason="too much memory",
            kill=kill,
            usage=usage,
            outputs=(saved,),
        ),
        9.0,
    )

    assert answer is Answer.ACCEPTED
    job = store.job(holder.job_id)
    assert (job.exit_code, job.reason, job.kill) == (137, "too much memory", kill)
    assert (job.usage, job.outputs) == (usage, (saved,))


def test_report_twice_is_a_duplicate_without_effect(store: QueueStore) -> None:
    """A sequence that was taken changes nothing, whatever kind of report it was."""
    holder = make_running(store)
    sends: list[Callable[[], Answer]] = [
        lambda: holder.trace("a line"),
        lambda: holder.usage(Usage(wall_s=1.0)),
        lambda: holder.process(ProcessRole.PAYLOAD, 14, 4711, 0.0),
        lambda: holder.status(S.SAVING),
        lambda: holder.status(S.RUNNING),
        lambda: holder.final(S.DONE),
    ]
    for send in sends:
        send()
        before = store.job(holder.job_id)

        assert holder.resend(100.0) is Answer.DUPLICATE
        assert store.job(holder.job_id) == before


def test_gap_in_the_sequence_is_taken_and_closes_behind(store: QueueStore) -> None:
    """An agent may drop lossy reports; what is below the highest sequence is then a duplicate."""
    holder = make_running(store)
    holder.sequence = 9
    assert holder.trace("tenth") is Answer.ACCEPTED

    holder.sequence = 4
    assert holder.trace("fifth") is Answer.DUPLICATE


def test_stale_attempt_is_ignored(store: QueueStore) -> None:
    """An old attempt, one that never was, and an unknown job change nothing."""
    old = make_running(store)
    old.status(S.WAITING, 1.0)
    new = Holder.of(store, now=2.0)
    before = store.job(new.job_id)

    assert old.status(S.SAVING, 3.0) is Answer.STALE
    assert old.final(S.KILLED, 3.0) is Answer.STALE
    new.attempt = 7
    assert new.trace("from the future") is Answer.STALE
    new.job_id = 10**30
    assert new.trace("of no job") is Answer.STALE
    assert store.job(old.job_id) == before


def test_final_job_answers_duplicate_only_to_its_last_report(store: QueueStore) -> None:
    """A lost answer to the final report is given again; anything else is stale."""
    holder = make_running(store)
    status = holder.last
    holder.walk(S.SAVING)
    holder.final(S.DONE)
    before = store.job(holder.job_id)

    assert holder.resend(1.0) is Answer.DUPLICATE
    assert holder.trace("late") is Answer.STALE
    assert holder.final(S.ERROR_E) is Answer.STALE
    assert status is not None
    assert store.report(status, 1.0) is Answer.STALE
    assert store.job(holder.job_id) == before


@pytest.mark.parametrize("status", [S.SAVED, S.STARTED, S.ZOMBIE, S.DONE, S.KILLED, S.EXPIRED])
def test_impossible_status_is_refused_and_traced(store: QueueStore, status: JobStatus) -> None:
    """The job goes on, and its trace says what was refused."""
    holder = make_running(store)

    assert holder.status(status) is Answer.REFUSED
    job = store.job(holder.job_id)
    assert job.status is S.RUNNING
    assert job.traces[-1].text.startswith(f"refused: report 3 says {status} after RUNNING")


@pytest.mark.parametrize("status", [S.DONE, S.ERROR_IB, S.SAVING, S.WAITING, S.EXPIRED])
def test_impossible_end_is_refused(store: QueueStore, status: JobStatus) -> None:
    """A final report needs a final status that may follow."""
    holder = make_running(store)

    assert holder.final(status) is Answer.REFUSED
    assert store.job(holder.job_id).status is S.RUNNING


def test_same_status_again_is_accepted_and_not_written(store: QueueStore) -> None:
    """The job is where the report says: there is nothing to do."""
    holder = make_running(store)
    before = store.job(holder.job_id)

    assert holder.status(S.RUNNING) is Answer.ACCEPTED
    assert store.job(holder.job_id) == before


def test_given_back_job_is_matched_as_a_new_attempt(store: QueueStore) -> None:
    """Giving back, however often, doesn't use up the attempts."""
    submit(store)
    for attempt in range(1, 6):
        holder = Holder.of(store)
        holder.walk(S.STARTED)
        assert holder.attempt == attempt
        assert holder.status(S.WAITING, reason="pilot stopped") is Answer.ACCEPTED
        assert holder.resend(0.0) is Answer.DUPLICATE
        assert holder.trace("late") is Answer.STALE

    row = store.jobs()[0]
    assert (row.status, row.node, row.reason) == (S.WAITING, None, "pilot stopped")


def test_processes_and_usage_are_kept(store: QueueStore) -> None:
    """Each announcement is a line; of usage the newest counts."""
    holder = make_running(store)
    holder.process(ProcessRole.WRAPPER, 13, None, 1.0)
    holder.process(ProcessRole.WRAPPER, 13, 4711, 2.0)
    holder.usage(Usage(wall_s=1.0))
    holder.usage(Usage(wall_s=2.0))

    job = store.job(holder.job_id)
    assert [(p.role, p.pid, p.host_pid, p.at) for p in job.processes] == [
        (ProcessRole.WRAPPER, 13, None, 1.0),
        (ProcessRole.WRAPPER, 13, 4711, 2.0),
    ]
    assert job.usage.wall_s == 2.0


def test_new_attempt_starts_without_the_old_ones_facts(store: QueueStore) -> None:
    """Container and usage are the present attempt's; traces keep their attempt."""
    submit(store)
    first = Holder.of(store)
    first.status(S.STARTED, container="apptainer")
    first.usage(Usage(wall_s=1.0))
    first.trace("first")
    first.status(S.WAITING)
    Holder.of(store).trace("second")

    job = store.job(first.job_id)
    assert (job.container, job.usage) == (None, Usage())
    assert [(line.text, line.attempt) for line in job.traces] == [("first", 1), ("second", 2)]


def test_long_trace_line_is_cut(store: QueueStore) -> None:
    """4 kB stay, and no half character."""
    holder = make_running(store)
    holder.trace("é" * 5000)
    holder.trace("x" + "é" * 5000)

    texts = [line.text for line in store.job(holder.job_id).traces]
    assert texts == ["é" * 2048, "x" + "é" * 2047]


def test_trace_is_bounded_per_attempt(store: QueueStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many lines are kept, one says that others aren't, and the next attempt begins anew."""
    assert rows.TRACES_MAX == 1000
    monkeypatch.setattr(rows, "TRACES_MAX", 5)
    holder = make_running(store)
    for number in range(8):
        assert holder.trace(f"line {number}") is Answer.ACCEPTED

    traces = store.job(holder.job_id).traces
    assert len(traces) == 6
    assert traces[4].text == "line 4"
    assert "left out" in traces[5].text
    holder.status(S.WAITING)
    Holder.of(store).trace("again")
    assert store.job(holder.job_id).traces[-1].text == "again"


def test_processes_are_bounded_per_attempt(store: QueueStore) -> None:
    """A wrapper that announces without end fills nothing."""
    holder = make_running(store)
    for pid in range(105):
        holder.process(ProcessRole.PAYLOAD, pid, None, 0.0)

    assert len(store.job(holder.job_id).processes) == 100


def test_text_and_time_that_no_database_takes_are_made_harmless(store: QueueStore) -> None:
    """Broken Unicode, NUL and a clock that shows no number are stored readably."""
    holder = make_running(store)
    holder.trace("a\0b\udcff")
    assert holder.last is not None
    report = msgspec.structs.replace(holder.last, sequence=99, at=float("nan"))

    assert store.report(report, 8.0) is Answer.ACCEPTED
    trace = store.job(holder.job_id).traces[-1]
    assert (trace.text, trace.at) == ("a\\x00b\\udcff", 8.0)


def test_output_of_a_broken_name_does_not_keep_a_job_from_its_end(store: QueueStore) -> None:
    """A file name that isn't UTF-8 is shown escaped."""
    holder = make_running(store)
    holder.walk(S.SAVING)
    saved = SavedFile(name="\udcff", bytes=1, sha256="", adler32="", location="/o/\udcff")
    report = FinalReport(
        job_id=holder.job_id,
        attempt=1,
        sequence=9,
        at=1.0,
        status=S.DONE,
        exit_code=0,
        reason="",
        outputs=(saved,),
    )

    assert store.report(report, 1.0) is Answer.ACCEPTED
    assert store.job(holder.job_id).outputs[0].name == "\\udcff"
