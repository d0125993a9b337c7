"""When a credential is to be renewed: pure arithmetic on times that are passed in.

A credential is renewed when two thirds of its lifetime have passed, so that a third is left
for an authority that is away. Each refusal doubles the pause before the next try, from five
seconds to five minutes; but however long the pause, one try is always made when a tenth of
the lifetime is left, and one at the very end.

A `Lease` is a value: what happens to it gives another one. An unanswered request is to be
counted as refused, by whoever holds the deadline; a lease itself never waits.
"""

from __future__ import annotations

from transport.messages import Record

RETRY_FIRST_S = 5.0
RETRY_MAX_S = 300.0
_RENEW_AFTER = 2 / 3
_LAST_PART = 1 / 10


def renew_at(issued_at: float, expires_at: float) -> float:
    """Return when a credential of this lifetime is first to be renewed."""
    return issued_at + _RENEW_AFTER * max(0.0, expires_at - issued_at)


def retry_after_s(refusals: int) -> float:
    """Return the pause after so many refusals in a row."""
    assert refusals > 0, "there is nothing to retry before a refusal"
    doublings = min(refusals - 1, 10)  # 5 s doubled ten times is past any bound
    return min(RETRY_FIRST_S * 2.0**doublings, RETRY_MAX_S)


class Lease(Record, frozen=True, kw_only=True):
    """A credential's time: from when it was received until it expires, and the next try."""

    issued_at: float
    expires_at: float
    try_at: float
    """When to ask for the next one."""
    refusals: int = 0
    """In a row, since the last renewal."""

    @classmethod
    def granted(cls, issued_at: float, expires_at: float) -> Lease:
        """Return the lease of a credential received at ``issued_at``, the first or a renewed."""
        try_at = renew_at(issued_at, expires_at)
        return cls(issued_at=issued_at, expires_at=expires_at, try_at=try_at)

    def refused(self, now: float) -> Lease:
        """Return the lease after a request was refused, or had no answer in time, at ``now``."""
        refusals = self.refusals + 1
        try_at = now + retry_after_s(refusals)
        for mark in (self.last_part_at, self.expires_at):
            if now < mark < try_at:
                try_at = mark
                break
        return Lease(
            issued_at=self.issued_at, expires_at=self.expires_at, try_at=try_at, refusals=refusals
        )

    @property
    def last_part_at(self) -> float:
        """When a tenth of the lifetime is left: the latest time for some try."""
        return self.expires_at - _LAST_PART * max(0.0, self.expires_at - self.issued_at)

    def is_due(self, now: float) -> bool:
        """Say whether the next one is to be asked for."""
        return now >= self.try_at

    def is_expired(self, now: float) -> bool:
        """Say whether the credential is of no use any more."""
        return now >= self.expires_at
