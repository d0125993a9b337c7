"""What a job used so far, with the payload's wall time, and when the queue is to hear of it."""

from __future__ import annotations

import msgspec

from transport.messages import Usage


class Meter:
    """Keeps the newest usage, and the time for which the payload runs or ran."""

    def __init__(self, *, report_s: float) -> None:
        """Report no more often than every ``report_s`` seconds."""
        self._report_s = report_s
        self._reported_at = 0.0
        self._usage = Usage()
        self._since: float | None = None
        self._wall_s = 0.0

    def start(self, now: float) -> None:
        """Let the payload's clock run."""
        self._since = now

    def stop(self, now: float) -> None:
        """Stop the payload's clock; a second time does nothing."""
        if self._since is not None:
            self._wall_s = now - self._since
            self._since = None

    def take(self, usage: Usage, now: float) -> bool:
        """Keep the newest sample; True when it is time to report it."""
        self._usage = usage
        is_time = now - self._reported_at >= self._report_s
        if is_time:
            self._reported_at = now
        return is_time

    def usage(self, now: float) -> Usage:
        """Return what was used until now."""
        running_s = 0.0 if self._since is None else now - self._since
        return msgspec.structs.replace(self._usage, wall_s=max(self._wall_s, running_s))
