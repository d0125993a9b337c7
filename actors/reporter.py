"""The side of a work unit that faces the queue: what is said of an attempt, and how often.

Reports go one at a time and in order (`actors.outbox`). The queue may be away for as long as
it likes: a report that got no answer goes again. What must stay true:

* the final report is answered, or the attempt fenced, before the actor may end;
* an attempt that is fenced is nobody's any more: nothing of it is reported from then on;
* a wrapper can't fill the queue: its traces are bounded in number and in length.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from actors.bounds import within
from actors.effects import Call, Effects, Run, Schedule, StopSelf
from actors.outbox import Outbox
from actors.ports import Answer, AnyReport, Clock, LaunchedWrapper, Match, TaskQueue
from actors.runtime import Actor, handles
from transport.errors import PilotError
from transport.messages import JobStatus, Message

TRACES_MAX = 1000
"""Lines of one attempt's trace; beyond it they are counted, and still in the agent's log."""
TRACE_LENGTH_MAX = 4096

JobLog = Callable[[str, str, float | None], None]
"""Takes (level, text, at or None for now); bound to job and attempt by whoever made it."""


class ReportPorts(msgspec.Struct, frozen=True, kw_only=True):
    """What reporting needs from the world."""

    queue: TaskQueue
    clock: Clock
    log: JobLog


class _Reported(Message, frozen=True, kw_only=True):
    answer: Answer


class _NotReported(Message, frozen=True, kw_only=True):
    why: str


class _ReportAgain(Message, frozen=True, kw_only=True):
    """Reporter to itself: the pause after a failure is over."""


class Reporter(Actor):
    """Base of the work unit: reports one attempt."""

    def __init__(self, match: Match, ports: ReportPorts, *, queue_s: float) -> None:
        """``queue_s`` bounds the wait for one answer."""
        self._outbox = Outbox(match.job_id, match.attempt)
        self._reporting = ports
        self._queue_s = queue_s
        self._traces = 0
        self._is_silent = False
        self._has_said_all = False

    # --- for the subclass ----------------------------------------------------------------

    def trace(self, text: str, at: float | None = None) -> Effects:
        """Write a line to the agent's log and to the job's trace."""
        text = text[:TRACE_LENGTH_MAX]
        yield self.log("info", text, at)
        self._traces += 1
        if self._traces <= TRACES_MAX:
            self._outbox.trace(text, self._reporting.clock.now() if at is None else at)
            yield from self.send_reports()

    def report_status(
        self, status: JobStatus, at: float, wrapper: LaunchedWrapper | None
    ) -> Effects:
        """Report a status on the way and where the wrapper is, and log it."""
        yield self.log("info", f"status {status}", None)
        container, image = (wrapper.container, wrapper.image) if wrapper else (None, None)
        self._outbox.status(status, at, container=container, image=image)
        yield from self.send_reports()

    def log(self, level: str, text: str, at: float | None = None) -> Call:
        """Return the effect of a line in the agent's log."""
        return Call(partial(self._reporting.log, level, text[:TRACE_LENGTH_MAX], at))

    def fall_silent(self) -> Effects:
        """Report nothing more: the attempt is fenced."""
        self._is_silent = True
        yield from self._end_if_reported()

    def tell_left_out(self) -> Effects:
        """Say, before the final report, how much of the trace there isn't."""
        left_out = self._traces - TRACES_MAX
        if left_out > 0:
            text = f"{left_out} lines of the trace were left out"
            self._outbox.trace(text, self._reporting.clock.now())
            yield self.log("warning", text)

    def end_when_reported(self) -> Effects:
        """End the actor as soon as all that was put in is answered."""
        self._has_said_all = True
        yield from self.send_reports()
        yield from self._end_if_reported()

    def fenced(self) -> Effects:
        """Take that the queue gave the attempt away: for the subclass to end its work."""
        return ()

    # --- sending -------------------------------------------------------------------------

    def send_reports(self) -> Effects:
        """Send the next report, unless one is under way."""
        report = None if self._is_silent else self._outbox.next_report()
        if report is not None:
            yield Run("report", partial(self._send_report, report))

    async def _send_report(self, report: AnyReport) -> _Reported | _NotReported:
        ask = partial(self._reporting.queue.report, report)
        try:
            return _Reported(answer=await within(self._queue_s, "the answer", ask))
        except PilotError as error:
            return _NotReported(why=str(error))

    @handles(_Reported)
    def reported(self, message: _Reported) -> Effects:
        """Take the queue's answer: on to the next, or away with it all."""
        report = self._outbox.answered(message.answer)
        if message.answer is Answer.REFUSED:
            yield self.log("error", f"the queue refused {type(report).__name__}: {report}")
        if message.answer is Answer.STALE and not self._has_said_all:
            yield from self.fenced()
        yield from self.send_reports()
        yield from self._end_if_reported()

    @handles(_NotReported)
    def not_reported(self, message: _NotReported) -> Effects:
        """Keep the report, and try again after a pause that grows."""
        yield self.log("warning", f"queue: {message.why}")
        yield Schedule("queue", self._outbox.failed(), _ReportAgain())

    @handles(_ReportAgain)
    def report_again(self, _: _ReportAgain) -> Effects:
        """Try again."""
        return self.send_reports()

    def _end_if_reported(self) -> Effects:
        if self._has_said_all and (self._is_silent or self._outbox.is_empty):
            yield StopSelf()
