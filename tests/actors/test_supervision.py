"""Restart intensity: how many restarts are still believed to help."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.supervision import ChildSpec, Intensity, Restart, RestartCounter
from tests.actors.probe import Probe


def counter(restarts: int = 3, within_s: float = 60.0) -> RestartCounter:
    """Return a counter that has seen nothing."""
    return RestartCounter(Intensity(restarts=restarts, within_s=within_s))


def test_the_restart_after_the_last_allowed_one_is_too_many() -> None:
    """Three within a minute help; the fourth doesn't."""
    counted = counter()

    assert [counted.allows(at) for at in (0.0, 1.0, 2.0, 3.0)] == [True, True, True, False]


def test_restarts_are_forgotten_after_a_while() -> None:
    """What crashes once an hour may do so for ever."""
    counted = counter()

    assert all(counted.allows(hour * 3600.0) for hour in range(100))


def test_a_restart_counts_for_exactly_the_period() -> None:
    """A restart as old as the period is forgotten, a younger one is not."""
    counted = counter(restarts=1, within_s=10.0)

    assert counted.allows(0.0)
    assert not counted.allows(9.0)
    assert counted.allows(19.0)


def test_no_restarts_may_be_allowed_at_all() -> None:
    """The first is then one too many."""
    assert not counter(restarts=0).allows(0.0)


def test_a_child_is_temporary_unless_it_says_otherwise() -> None:
    """To be started again is something that an actor must have been written for."""
    assert ChildSpec(name="x", make=lambda: Probe([])).restart is Restart.TEMPORARY


@given(
    st.integers(0, 5),
    st.lists(st.floats(0.0, 30.0), max_size=30),
)
def test_never_more_than_allowed_within_the_period(restarts: int, pauses: list[float]) -> None:
    """Whatever the rhythm, no period holds more allowed restarts than the intensity."""
    counted, now, allowed = counter(restarts, 60.0), 0.0, [float("-inf")]
    for pause_s in pauses:
        now += pause_s
        if counted.allows(now):
            allowed.append(now)

        assert sum(at > now - 60.0 for at in allowed) <= restarts
