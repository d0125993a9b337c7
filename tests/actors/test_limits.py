"""When a job is over its limits, and how that is said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.limits import MEMORY_FACTOR, LimitWatch, megabytes
from transport.messages import KillCode, Limits, Usage


def watch(memory_bytes: int = 1000, disk_bytes: int = 500) -> LimitWatch:
    """Return a watch on small limits."""
    return LimitWatch(Limits(ttl_s=60, memory_bytes=memory_bytes, disk_bytes=disk_bytes))


def test_memory_may_be_a_fifth_over_what_was_asked_for() -> None:
    """What a user writes into Memorysize is a round number."""
    assert watch().check(Usage(memory_bytes=1200)) == ()
    assert [found.code for found in watch().check(Usage(memory_bytes=1201))] == [KillCode.MEMORY]


def test_disk_is_taken_as_written() -> None:
    """A byte over is over."""
    assert watch().check(Usage(disk_bytes=500)) == ()
    assert [found.code for found in watch().check(Usage(disk_bytes=501))] == [KillCode.DISK]


def test_each_limit_is_said_once() -> None:
    """A job that stays over its limit isn't told so again."""
    watched = watch()
    over = Usage(memory_bytes=5000, disk_bytes=5000)

    assert [found.code for found in watched.check(over)] == [KillCode.MEMORY, KillCode.DISK]
    assert watched.check(over) == ()


def test_one_limit_said_doesn_t_hide_the_other() -> None:
    """They are counted apart."""
    watched = watch()
    watched.check(Usage(memory_bytes=5000))

    found = watched.check(Usage(memory_bytes=5000, disk_bytes=5000))

    assert [exceeded.code for exceeded in found] == [KillCode.DISK]


def test_the_reason_names_the_figures() -> None:
    """A person reads what was used, by which measure, and what was allowed."""
    watched = watch(memory_bytes=8_000_000_000, disk_bytes=10_000_000_000)

    memory, disk = watched.check(
        Usage(memory_bytes=9_700_000_000, disk_bytes=12_345_000_000, source="pss")
    )

    assert memory.why == (
        "used 9,700 MB of memory (pss); asked for 8,000 MB, stopped above 9,600 MB"
    )
    assert disk.why == "used 12,345 MB of disk; the limit is 10,000 MB"


def test_a_high_cheap_figure_calls_for_the_precise_one() -> None:
    """RSS counts shared pages many times, so it accuses but doesn't condemn."""
    watched = watch()

    assert not watched.needs_precise(Usage(rss_bytes=1000))
    assert watched.needs_precise(Usage(rss_bytes=1001))
    assert watched.check(Usage(rss_bytes=10**9)) == ()


def test_sizes_are_told_in_megabytes() -> None:
    """As the node's operator counts them."""
    assert megabytes(1_234_567_890) == "1,235 MB"


@given(memory=st.integers(1, 10**13), used=st.integers(0, 10**13))
def test_a_job_is_over_exactly_above_the_factor(memory: int, used: int) -> None:
    """At no size does the arithmetic kill a job within its bound."""
    is_over = bool(watch(memory_bytes=memory, disk_bytes=1).check(Usage(memory_bytes=used)))

    assert is_over is (used > int(memory * MEMORY_FACTOR))
