"""The outbox of one attempt: its reports to the queue, in order, numbered, none lost.

One report is under way at a time. The queue may be away: the head stays where it is and goes
again with a growing pause; the queue knows a repetition by its sequence. When the queue says
that the attempt is stale, nothing that is still here matters to anybody.
"""

from __future__ import annotations

from collections import deque

from actors.ports import (
    Answer,
    AnyReport,
    FinalReport,
    HostProcess,
    ImageUsed,
    ProcessReport,
    StatusReport,
    TraceReport,
    UsageReport,
)
from transport.messages import (
    JobStatus,
    KillReason,
    Outcome,
    ProcessIdentity,
    ProcessRole,
    SavedFile,
    Usage,
)

PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 60.0
ROOM = 2000
"""Reports kept at most; beyond it traces and usage are left out, and counted."""


class Outbox:
    """Numbers reports, holds them until they are answered, and says when to try again."""

    def __init__(self, job_id: int, attempt: int) -> None:
        self._job_id = job_id
        self._attempt = attempt
        self._waiting: deque[AnyReport] = deque()
        self._sequence = 0
        self._failures = 0
        self._is_under_way = False
        self._is_stale = False
        self.dropped = 0

    @property
    def is_empty(self) -> bool:
        """True when everything that was put in has been answered."""
        return not self._waiting

    @property
    def is_stale(self) -> bool:
        """True once the queue said that the attempt isn't ours any more."""
        return self._is_stale

    # --- putting in, one method for each kind of report ------------------------------------

    def status(
        self,
        status: JobStatus,
        at: float,
        *,
        reason: str = "",
        container: str | None = None,
        image: ImageUsed | None = None,
    ) -> None:
        """Report a status that isn't final; WAITING gives the job back."""
        self._put(
            StatusReport(
                job_id=self._job_id,
                attempt=self._attempt,
                sequence=self._sequence + 1,
                at=at,
                status=status,
                reason=reason,
                container=container,
                image=image,
            )
        )

    def trace(self, text: str, at: float) -> None:
        """Report a line for the job's trace."""
        if self._has_room():
            self._put(
                TraceReport(
                    job_id=self._job_id,
                    attempt=self._attempt,
                    sequence=self._sequence + 1,
                    at=at,
                    text=text,
                )
            )

    def process(
        self, role: ProcessRole, process: ProcessIdentity, host: HostProcess | None, at: float
    ) -> None:
        """Report where a process is, on its own side and on the host."""
        self._put(
            ProcessReport(
                job_id=self._job_id,
                attempt=self._attempt,
                sequence=self._sequence + 1,
                at=at,
                role=role,
                pid=process.pid,
                host_pid=None if host is None else host.pid,
                start_ticks=process.start_ticks,
            )
        )

    def usage(self, usage: Usage, at: float) -> None:
        """Report what the job used so far."""
        if self._has_room():
            self._put(
                UsageReport(
                    job_id=self._job_id,
                    attempt=self._attempt,
                    sequence=self._sequence + 1,
                    at=at,
                    usage=usage,
                )
            )

    def final(
        self,
        status: JobStatus,
        at: float,
        *,
        reason: str,
        outcome: Outcome,
        kill: KillReason | None,
        usage: Usage,
        outputs: tuple[SavedFile, ...],
    ) -> None:
        """Report the final status, and all that is known of the end."""
        self._put(
            FinalReport(
                job_id=self._job_id,
                attempt=self._attempt,
                sequence=self._sequence + 1,
                at=at,
                status=status,
                exit_code=outcome.exit_code,
                reason=reason,
                kill=kill,
                usage=usage,
                outputs=outputs,
            )
        )

    def _has_room(self) -> bool:
        has_room = len(self._waiting) < ROOM
        self.dropped += not has_room
        return has_room

    def _put(self, report: AnyReport) -> None:
        if not self._is_stale:
            self._sequence += 1
            self._waiting.append(report)

    # --- sending -------------------------------------------------------------------------

    def next_report(self) -> AnyReport | None:
        """Return the report to send now; None while one is under way or none waits."""
        if self._is_under_way or not self._waiting:
            return None
        self._is_under_way = True
        return self._waiting[0]

    def answered(self, answer: Answer) -> AnyReport:
        """Take the queue's answer; return the report that it was for."""
        self._is_under_way = False
        self._failures = 0
        report = self._waiting.popleft()
        if answer is Answer.STALE:
            self._is_stale = True
            self._waiting.clear()
        return report

    def failed(self) -> float:
        """Take that the queue couldn't be reached; return the pause before the next try."""
        self._is_under_way = False
        self._failures += 1
        return min(PAUSE_FIRST_S * 2.0 ** min(self._failures - 1, 20), PAUSE_MAX_S)
