"""When credentials are renewed, and how refusals are borne."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.lease import RETRY_FIRST_S, RETRY_MAX_S, Lease, renew_at, retry_after_s

HOUR = 3600.0


def refused_times(lease: Lease, times: int) -> Lease:
    """Refuse every try at the moment it is made."""
    for _ in range(times):
        lease = lease.refused(lease.try_at)
    return lease


def test_renewal_is_due_after_two_thirds() -> None:
    """A six-hour credential is renewed after four."""
    lease = Lease.granted(1000.0, 1000.0 + 6 * HOUR)

    assert lease.try_at == renew_at(1000.0, 1000.0 + 6 * HOUR) == 1000.0 + 4 * HOUR
    assert not lease.is_due(1000.0 + 4 * HOUR - 1)
    assert lease.is_due(1000.0 + 4 * HOUR)


def test_a_refusal_is_retried_in_five_seconds() -> None:
    """The first pause is the shortest."""
    lease = Lease.granted(0.0, 6 * HOUR).refused(4 * HOUR)

    assert lease.try_at == 4 * HOUR + RETRY_FIRST_S
    assert lease.refusals == 1


def test_pauses_double_up_to_five_minutes() -> None:
    """However many refusals, the pause is bounded, and so is the arithmetic."""
    pauses = [retry_after_s(refusals) for refusals in (1, 2, 3, 6, 7, 8, 10**9)]

    assert pauses == [5.0, 10.0, 20.0, 160.0, 300.0, 300.0, 300.0]


def test_a_renewal_forgets_the_refusals() -> None:
    """A granted lease starts from nothing."""
    refused = refused_times(Lease.granted(0.0, HOUR), 4)
    assert refused.refusals == 4

    assert Lease.granted(refused.try_at, refused.try_at + HOUR).refusals == 0


def test_a_long_pause_stops_at_the_last_tenth() -> None:
    """A pause that would jump over the mark ends at it."""
    lease = Lease(issued_at=0.0, expires_at=1000.0, try_at=890.0, refusals=5).refused(890.0)

    assert lease.try_at == 900.0


def test_a_long_pause_stops_at_expiry() -> None:
    """In the last tenth, the end itself is the mark."""
    lease = Lease(issued_at=0.0, expires_at=1000.0, try_at=950.0, refusals=5).refused(950.0)

    assert lease.try_at == 1000.0


def test_tries_go_on_after_expiry() -> None:
    """An authority that comes back late is still asked."""
    lease = Lease(issued_at=0.0, expires_at=1000.0, try_at=1000.0, refusals=9).refused(1000.0)

    assert lease.is_expired(1000.0)
    assert lease.try_at == 1000.0 + RETRY_MAX_S


def test_a_credential_born_expired_is_due_at_once() -> None:
    """Clocks that disagree give a lifetime below zero, not a crash or a wait."""
    lease = Lease.granted(100.0, 50.0)

    assert lease.is_due(100.0)
    assert lease.is_expired(100.0)
    assert lease.refused(100.0).try_at == 105.0


@given(
    issued_at=st.floats(0, 2e9),
    lifetime_s=st.floats(1, 1e6),
    delays=st.lists(st.floats(0, 1000), max_size=60),
)
def test_every_pause_is_bounded_and_the_marks_are_kept(
    issued_at: float, lifetime_s: float, delays: list[float]
) -> None:
    """Tries go forward, never by more than five minutes, and none jumps over a mark."""
    lease = Lease.granted(issued_at, issued_at + lifetime_s)

    for delay_s in delays:
        now = lease.try_at + delay_s
        lease = lease.refused(now)

        assert now < lease.try_at <= now + RETRY_MAX_S
        for mark in (lease.last_part_at, lease.expires_at):
            assert not now < mark < lease.try_at
