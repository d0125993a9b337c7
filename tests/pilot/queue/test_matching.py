from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot.queue import QueueStore
from tests.pilot.queue.factories import GB, POLICY, Holder, S, make_slot, submit
from transport.errors import UserError


def test_match_hands_out_the_job_with_its_first_attempt(store: QueueStore) -> None:
    """A match carries the description, attempt 1 and the lease."""
    job_id = submit(store, name="anna")

    match = store.match(make_slot("wn7"), now=5.0)

    assert match is not None
    assert (match.job_id, match.attempt, match.lease_s) == (job_id, 1, 60.0)
    assert match.description.name == "anna"
    row = store.jobs([job_id])[0]
    assert (row.status, row.node, row.attempt) == (S.ASSIGNED, "wn7", 1)


def test_order_is_priority_then_price_then_age(store: QueueStore) -> None:
    """The highest priority goes first, then the highest price, then the oldest."""
    old = submit(store, price=1.0)
    young = submit(store, price=1.0)
    dear = submit(store, price=2.0)
    urgent = submit(store, priority=1, price=0.5)

    order = [Holder.of(store).job_id for _ in range(4)]

    assert order == [urgent, dear, old, young]
    assert store.match(make_slot(), now=0.0) is None


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"cpu_cores": 64}, "asks for 64 cores; this node has 2"),
        ({"memory_bytes": 8 * GB}, "asks for 8 GB of memory; this node has 4 GB"),
        ({"disk_bytes": 11 * GB}, "asks for 11 GB of disk; this node has 10 GB"),
        ({"ttl_s": 1001}, "asks for 1001 s; this node has 1000 s left"),
        ({"cpu_cores": 0}, "asks for the whole node; this node has a part to give"),
        (
            {"cpu_cores": 4, "ttl_s": 2000},
            "asks for 4 cores and 2000 s; this node has 2 and 1000 s left",
        ),
    ],
)
def test_job_too_large_stays_and_is_explained(
    store: QueueStore, asked: dict[str, Any], why: str
) -> None:
    """What doesn't fit isn't matched, and `unmatchable` says what is missing."""
    job_id = submit(store, **asked)
    slot = make_slot(is_whole_node=False)

    assert store.match(slot, now=0.0) is None
    assert store.unmatchable(slot) == {job_id: why}


def test_whole_node_job_takes_a_whole_node(store: QueueStore) -> None:
    """CPUCores = 0 fits only where nothing else runs."""
    job_id = submit(store, cpu_cores=0)

    assert store.match(make_slot(is_whole_node=False), now=0.0) is None
    assert Holder.of(store, slot=make_slot(is_whole_node=True)).job_id == job_id


def test_smaller_job_passes_a_larger_one_that_does_not_fit(store: QueueStore) -> None:
    """A job that doesn't fit blocks nobody, whatever its priority."""
    submit(store, priority=9, cpu_cores=64)
    small = submit(store)

    assert Holder.of(store).job_id == small


def test_unmatchable_looks_at_waiting_jobs_of_these_ids_only(store: QueueStore) -> None:
    """Jobs that fit, that run, or that weren't asked about aren't in the answer."""
    running = submit(store, priority=1)
    Holder.of(store)
    fits, large, other = submit(store), submit(store, cpu_cores=3), submit(store, cpu_cores=5)

    assert set(store.unmatchable(make_slot(), [running, fits, large])) == {large}
    assert set(store.unmatchable(make_slot())) == {large, other}


def test_draining_node_gets_nothing_until_the_drain_ends(store: QueueStore) -> None:
    """A drain holds for the named node alone."""
    submit(store)
    store.request_drain("node-1", "new kernel", now=0.0)
    store.request_drain("node-1", "newer kernel", now=1.0)

    assert store.match(make_slot("node-1"), now=2.0) is None
    store.end_drain("node-1", now=3.0)
    assert store.match(make_slot("node-1"), now=4.0) is not None


SIZES = st.integers(0, 3)


@given(cores=SIZES, memory=SIZES, disk=SIZES, ttl=SIZES, is_whole=st.booleans())
@settings(max_examples=30, deadline=None)
def test_words_and_comparison_agree(
    cores: int, memory: int, disk: int, ttl: int, is_whole: bool
) -> None:
    """A job is either matched or explained, never both, never neither."""
    slot = make_slot(
        cpu_cores=2, memory_bytes=2, disk_bytes=2, time_left_s=2.0, is_whole_node=is_whole
    )
    with QueueStore.in_memory(POLICY) as store:
        submit(store, cpu_cores=cores, memory_bytes=memory, disk_bytes=disk, ttl_s=ttl)

        is_explained = bool(store.unmatchable(slot))
        is_matched = store.match(slot, now=0.0) is not None

        assert is_explained != is_matched


@pytest.mark.parametrize(
    "asked",
    [
        {"memory_bytes": 2**63},
        {"cpu_cores": -1},
        {"ttl_s": 10**30},
        {"priority": -(2**70)},
        {"price": float("nan")},
        {"arguments": ("\udcff",)},
    ],
)
def test_description_that_no_column_holds_is_the_users_error(
    store: QueueStore, asked: dict[str, Any]
) -> None:
    """The error names the JDL, and nothing is stored."""
    with pytest.raises(UserError, match=r"job\.jdl"):
        submit(store, **asked)

    assert store.jobs() == []
