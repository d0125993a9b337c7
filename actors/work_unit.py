"""The work unit: one attempt of one job, from its match to its final status.

It is the JobAgent's hand for this job: it launches the wrapper, holds the agent's end of the
link, starts the Monitor, relays statuses to the queue, and ends the job when it must.

    launching -> greeting -> working -> leaving -> cleaning -> reporting -> gone
                     |          |          ^
                     +----------+----------+   the link is lost, the launched process died

What must stay true:

* the final status is decided once (`actors.verdict`), when the wrapper is gone and nothing of
  the job runs any more; so a final status in the queue means that the node is clean;
* a wrapper that doesn't do what it is asked is helped: asked, then TERM, then KILL;
* a wrapper is not believed: what isn't its to say, or out of order, is traced and ignored;
* every wait has a bound: launching, the greeting (the link's), the TTL, saving, leaving,
  each step of cleaning;
* one task owns the wrapper (`actors.custody`), and lets nothing of it outlive the unit;
* an attempt that the queue calls stale is ended without another word.
"""

from __future__ import annotations

from enum import StrEnum
from functools import partial

import msgspec

from actors.custody import CleanedUp, Custody, Patience
from actors.effects import (
    Call,
    Effects,
    Recipient,
    Run,
    Schedule,
    SpawnChild,
    Tell,
    Unschedule,
    WorkFailed,
)
from actors.lifecycle import ACTIVE, JobLife, may_follow, path_to
from actors.messages import (
    CredentialIssued,
    CredentialRefused,
    ForgetJob,
    FromLink,
    IssueCredential,
    LimitExceeded,
    ProcessBound,
    ProcessGone,
    StopWork,
    UsageSampled,
    Watch,
)
from actors.meter import Meter
from actors.monitor import Monitor, MonitorOptions
from actors.ports import (
    Clock,
    HostProcess,
    JobIdentity,
    LaunchedWrapper,
    LaunchOrder,
    Match,
    ProcessTable,
    TaskQueue,
    WrapperExit,
    WrapperLauncher,
)
from actors.reporter import JobLog, Reporter, ReportPorts
from actors.runtime import handles
from actors.sightings import Sightings
from actors.supervision import ChildRestarted, ChildSpec, Restart
from actors.verdict import verdict
from actors.wrapper_words import delivery_of, limits_of, start_order, told_confinement, told_exit
from transport.events import (
    CloseCause,
    Closed,
    FrameRefused,
    MessageReceived,
    MessageUnsupported,
    Opened,
    SessionEvent,
)
from transport.messages import (
    ConfigureLogging,
    ConfinementReported,
    CredentialKind,
    Delivery,
    FileStaged,
    JobFinished,
    JobStatus,
    JobStatusChanged,
    KillCode,
    KillReason,
    LogWritten,
    Message,
    Outcome,
    ProcessAnnounced,
    ProcessIdentity,
    ProcessRole,
    RequestCredential,
    SavedFile,
    StopJob,
    TraceWritten,
)

KILLS_MAX = 3
"""A process that survives so many KILLs hangs in the kernel; the node's operator must look."""


class WorkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How patient a work unit is, and what it hands to its wrapper."""

    launch_s: float = 900.0
    """For all that is before the wrapper runs: an image may have to be fetched and tried."""
    stop_grace_s: float = 5.0
    """Between TERM and KILL for the payload."""
    saving_s: float = 300.0
    leave_s: float = 10.0
    """For a wrapper that has nothing left to do; also between the rungs of the stop ladder."""
    queue_s: float = 60.0
    """For an answer of the queue; then the report goes again."""
    usage_report_s: float = 10.0
    log_level: str = "info"
    log_format: str = "console"
    credentials: tuple[CredentialKind, ...] = (CredentialKind.CERTIFICATE,)
    monitor: MonitorOptions = MonitorOptions()


class UnitPorts(msgspec.Struct, frozen=True, kw_only=True):
    """What a work unit needs from the world, and from its neighbours."""

    queue: TaskQueue
    launcher: WrapperLauncher
    table: ProcessTable
    clock: Clock
    vault: Recipient
    log: JobLog


class _Phase(StrEnum):
    LAUNCHING = "launching"
    GREETING = "greeting"
    WORKING = "working"
    LEAVING = "leaving"
    CLEANING = "cleaning"
    REPORTING = "reporting"


class _Launched(Message, frozen=True, kw_only=True):
    delivery = Delivery.CONTROL
    wrapper: LaunchedWrapper


class _LauncherEnded(Message, frozen=True, kw_only=True):
    delivery = Delivery.CONTROL
    exit: WrapperExit


class _Overdue(Message, frozen=True, kw_only=True):
    """Work unit to itself: a wait has come to its end."""

    what: str


class _Cleaned(Message, frozen=True, kw_only=True):
    found: CleanedUp


class WorkUnit(Reporter):
    """Sees one attempt through; ends when the queue has its final status."""

    def __init__(self, match: Match, ports: UnitPorts, options: WorkOptions) -> None:
        reporting = ReportPorts(queue=ports.queue, clock=ports.clock, log=ports.log)
        super().__init__(match, reporting, queue_s=options.queue_s)
        self._match = match
        self._ports = ports
        self._options = options
        self._identity = JobIdentity(
            job_id=match.job_id, attempt=match.attempt, user=match.description.user
        )
        self._order = LaunchOrder(
            job_id=match.job_id, attempt=match.attempt, description=match.description
        )
        self._custody = Custody(
            self._order,
            ports.launcher,
            ports.table,
            Patience(launch_s=options.launch_s, leave_s=options.leave_s, saving_s=options.saving_s),
            lambda trouble: ports.log("error", trouble, None),
        )
        self._life = JobLife(
            f"job {match.job_id}.{match.attempt}", JobStatus.ASSIGNED, ports.clock.now(), "match"
        )
        self._phase = _Phase.LAUNCHING
        self._wrapper: LaunchedWrapper | None = None
        self._sightings = Sightings()
        self._has_exited = False
        self._is_link_closed = False
        self._was_greeted = False
        self._has_another_way = False
        self._outcome: Outcome | None = None
        self._kill: KillReason | None = None
        self._trouble = ""
        self._last_resort = ""
        """The reason where there is no better one: how it looked from here."""
        self._meter = Meter(report_s=options.usage_report_s)
        self._kills = 0
        self._rescued: tuple[SavedFile, ...] = ()

    # --- launching -----------------------------------------------------------------------

    def started(self) -> Effects:
        """Launch the wrapper."""
        yield Run("wrapper", partial(self._custody.hold, self._tell_launched, self._tell_ended))

    def _tell_launched(self, wrapper: LaunchedWrapper) -> None:
        self.me.tell(_Launched(wrapper=wrapper))

    def _tell_ended(self, end: WrapperExit) -> None:
        self.me.tell(_LauncherEnded(exit=end))

    @handles(_Launched)
    def launched(self, message: _Launched) -> Effects:
        """Hold the link and wait for the wrapper's Hello; the session bounds that wait."""
        wrapper = self._wrapper = message.wrapper
        self._phase = _Phase.GREETING
        for text in wrapper.traces:
            yield from self.trace(text)
        yield Call(lambda: wrapper.link.open(self._from_link))
        yield SpawnChild(self._monitor_spec(wrapper))
        if self._kill is not None:
            yield from self._stop_wrapper()

    def _monitor_spec(self, wrapper: LaunchedWrapper) -> ChildSpec:
        make = partial(
            Monitor,
            owner=self.me,
            launcher_pid=wrapper.launcher_pid,
            work_directory=wrapper.work_directory,
            limits=limits_of(self._match.description, saving_s=self._options.saving_s),
            table=self._ports.table,
            clock=self._ports.clock,
            options=self._options.monitor,
        )
        return ChildSpec(name="monitor", make=make, restart=Restart.TRANSIENT)

    # --- the link ------------------------------------------------------------------------

    def _from_link(self, event: SessionEvent) -> None:
        confirm = None
        if isinstance(event, MessageReceived):
            assert self._wrapper is not None, "a link is part of a wrapper"
            confirm = partial(self._wrapper.link.confirm, event.sequence)
        self.me.tell(FromLink(event=event), confirm)

    @handles(FromLink)
    def from_link(self, message: FromLink) -> Effects:
        """Take what the wrapper says, and what becomes of the link."""
        if self._is_over:
            return ()  # It was given up; what it still says changes nothing.
        match message.event:
            case MessageReceived(message=said):
                return self._wrapper_said(said)
            case Opened() if self._phase is _Phase.GREETING:
                return self._greeted()
            case Closed(cause=cause, detail=detail):
                return self._link_closed(cause, detail)
            case FrameRefused(refusal=refusal, detail=detail):
                return self.trace(f"a frame of the wrapper was refused ({refusal}): {detail}")
            case MessageUnsupported(tag=tag):
                return self.trace(f"the wrapper does not know the message {tag!r}")
            case _:
                return ()

    def _greeted(self) -> Effects:
        assert self._wrapper is not None, "a link is part of a wrapper"
        wrapper, options = self._wrapper, self._options
        self._phase = _Phase.WORKING
        self._was_greeted = True
        log_level, log_format = options.log_level, options.log_format
        yield Tell(wrapper.link, ConfigureLogging(level=log_level, format=log_format))
        order = start_order(
            self._order,
            wrapper.paths,
            saving_s=options.saving_s,
            stop_grace_s=options.stop_grace_s,
            credentials=options.credentials,
        )
        yield Tell(wrapper.link, order)
        # Preparing may take as long as the payload; RUNNING starts the clock anew.
        yield from self._await("ttl", self._match.description.ttl_s)

    def _wrapper_said(self, said: Message) -> Effects:
        match said:
            case JobStatusChanged(status=status, at=at):
                return self._status_changed(status, self._believed(at))
            case ProcessAnnounced(role=role, process=process):
                self._sightings.announced(role, process)
                return (Tell(self._monitor, Watch(announced=said)),)
            case RequestCredential():
                return (Tell(self._ports.vault, self._credential_request(said)),)
            case JobFinished(outcome=outcome):
                return self._finished(outcome)
            case TraceWritten(text=text, at=at):
                return self.trace(text, self._believed(at))
            case LogWritten(level=level, text=text, at=at):
                return (self.log(level, text, self._believed(at)),)
            case FileStaged(direction=direction, name=name, bytes=size):
                return (self.log("debug", f"staged {direction}: {name} ({size} bytes)"),)
            case ConfinementReported():
                return self.trace(told_confinement(said))
            case _:
                return self.trace(f"the wrapper said {type(said).__name__}: not its place")

    def _believed(self, at: float) -> float:
        """Return a wrapper's time, within what can be: after the match, and not to come."""
        return min(max(at, self._life.story[0].at), self._ports.clock.now())

    def _status_changed(self, status: JobStatus, at: float) -> Effects:
        before = self._life.status
        if status is before:
            return
        if self._outcome is not None or status not in ACTIVE or not may_follow(before, status):
            yield from self.trace(f"the wrapper reported {status} after {before}: ignored")
            return
        self._life.advance(status, at, "wrapper")
        now = self._ports.clock.monotonic()
        if status is JobStatus.RUNNING:
            self._meter.start(now)
            yield from self._await("ttl", self._match.description.ttl_s)
        elif status is JobStatus.SAVING:
            self._meter.stop(now)
            yield Unschedule("ttl")
            yield Unschedule("ladder")
            yield from self._await("saving", self._options.saving_s)
        yield from self.report_status(status, at, self._wrapper)

    def _credential_request(self, request: RequestCredential) -> IssueCredential:
        return IssueCredential(
            identity=self._identity,
            kind=request.kind,
            signing_request=request.signing_request,
            reply_to=self.me,
        )

    @handles(CredentialIssued)
    def credential_issued(self, message: CredentialIssued) -> Effects:
        """Hand it to the wrapper, the first and each renewed one."""
        return self._hand_on(message)

    @handles(CredentialRefused)
    def credential_refused(self, message: CredentialRefused) -> Effects:
        """Tell the wrapper: it can't do its work."""
        return self._hand_on(message)

    def _hand_on(self, message: CredentialIssued | CredentialRefused) -> Effects:
        if self._wrapper is not None and not self._is_link_closed:
            yield Tell(self._wrapper.link, delivery_of(message))

    # --- the Monitor ---------------------------------------------------------------------

    @property
    def _monitor(self) -> Recipient:
        return self.me.child("monitor")

    @handles(ProcessBound)
    def process_bound(self, message: ProcessBound) -> Effects:
        """Report where it is on the host."""
        if self._sightings.seen(message.role, message.process, message.host):
            yield from self._tell_process(message.role, message.process, message.host)

    def _tell_process(
        self, role: ProcessRole, process: ProcessIdentity, host: HostProcess | None
    ) -> Effects:
        seen = host or self._sightings.must_have_been(process)
        self._outbox.process(role, process, seen, self._ports.clock.now())
        yield from self.send_reports()

    @handles(ProcessGone)
    def process_gone(self, _: ProcessGone) -> Effects:
        """Do nothing: whoever ended will be told by its own end."""
        return ()

    @handles(UsageSampled)
    def usage_sampled(self, message: UsageSampled) -> Effects:
        """Keep the newest; the queue hears of it now and then."""
        now = self._ports.clock.monotonic()
        if self._meter.take(message.usage, now):
            self._outbox.usage(self._meter.usage(now), self._ports.clock.now())
            yield from self.send_reports()

    @handles(LimitExceeded)
    def limit_exceeded(self, message: LimitExceeded) -> Effects:
        """End the job for it."""
        return self._stop(self._reason(message.code, message.why))

    @handles(ChildRestarted)
    def monitor_restarted(self, message: ChildRestarted) -> Effects:
        """Say so: until the next announcement the job goes on unmeasured."""
        return self.trace(f"the monitor was restarted: {message.error!r}")

    # --- stopping ------------------------------------------------------------------------

    @handles(StopWork)
    def stop_work(self, message: StopWork) -> Effects:
        """End this attempt for the agent's reason."""
        return self._stop(message.reason)

    def _stop(self, reason: KillReason) -> Effects:
        """Keep the first reason and stop; being fenced overrules, since nobody listens then."""
        is_first = self._kill is None
        if not is_first and reason.code is not KillCode.FENCED:
            return
        self._kill = reason
        yield self.log("warning", f"stopping: {reason.why}")
        if reason.code is KillCode.FENCED:
            yield from self.fall_silent()
        if self._phase in (_Phase.GREETING, _Phase.WORKING):
            yield from self._stop_wrapper()

    def _stop_wrapper(self) -> Effects:
        assert self._wrapper is not None, "there is a wrapper to stop"
        assert self._kill is not None, "there is a reason to stop it"
        if self._phase is _Phase.GREETING:
            yield from self._force("KILL")
            return
        grace_s = 0.0 if self._kill.code is KillCode.FENCED else self._options.stop_grace_s
        yield Tell(self._wrapper.link, StopJob(reason=self._kill, grace_s=grace_s))
        if self._life.status is not JobStatus.SAVING:
            yield from self._await("ladder", grace_s + self._options.leave_s)

    @handles(_Overdue)
    def overdue(self, message: _Overdue) -> Effects:
        """Act on a wait that came to its end."""
        match message.what:
            case "ttl":
                ttl_s = self._match.description.ttl_s
                yield from self._stop(self._reason(KillCode.TTL, f"over its TTL of {ttl_s} s"))
            case "saving":
                self._trouble = f"saving took more than {self._options.saving_s:g} s"
                yield from self._force("TERM")
            case "ladder":
                self._trouble = "the wrapper did not stop when it was asked to"
                yield from self._force("TERM")
            case "leave":
                yield from self._stayed()
            case _:
                raise AssertionError(f"nobody awaits {message.what}")

    def _force(self, how: str) -> Effects:
        """Signal the wrapper from outside; TERM is followed by KILL."""
        self._phase = _Phase.LEAVING
        number = 9 if how == "KILL" else 15
        if self._wrapper is not None:
            wrapper, process = self._wrapper, self._sightings.wrapper
            if process is not None:
                yield Call(lambda: self._ports.table.signal(process, number))
            if process is None or number == 9:
                yield Call(lambda: wrapper.signal(number))
        yield from self._await("leave", self._options.leave_s)

    def _stayed(self) -> Effects:
        """Kill what didn't leave; after some tries go on without it (the sweep tries once more)."""
        self._kills += 1
        if self._has_exited or self._kills > KILLS_MAX:
            wrapper = self._wrapper
            if wrapper is not None and not self._is_link_closed:
                yield Call(lambda: wrapper.link.close("the wrapper is gone"))
            self._has_exited = self._is_link_closed = True
            yield from self._leave_if_gone()
        else:
            yield from self._force("KILL")

    def _await(self, what: str, after_s: float) -> Effects:
        yield Schedule(what, after_s, _Overdue(what=what))

    def _reason(self, code: KillCode, why: str) -> KillReason:
        return KillReason(code=code, by="agent", at=self._ports.clock.now(), why=why)

    # --- leaving -------------------------------------------------------------------------

    def _finished(self, outcome: Outcome) -> Effects:
        if self._outcome is not None:
            yield from self.trace("the wrapper said twice how the job ended: ignored")
            return
        self._outcome = outcome
        self._phase = _Phase.LEAVING
        self._meter.stop(self._ports.clock.monotonic())
        for what in ("ttl", "saving", "ladder"):
            yield Unschedule(what)
        yield from self._await("leave", self._options.leave_s)

    def _link_closed(self, cause: CloseCause, detail: str) -> Effects:
        self._is_link_closed = True
        if self._outcome is None and not self._has_exited:
            why = f"the link to the wrapper was lost: {cause}: {detail}"
            if cause in (CloseCause.END_OF_STREAM, CloseCause.TRUNCATED):
                self._last_resort = why  # It died, most likely; how it did is said by its exit.
            else:
                self._trouble = self._trouble or why
            if self._phase is not _Phase.LEAVING:
                yield from self._force("KILL")
        yield from self._leave_if_gone()

    @handles(_LauncherEnded)
    def launcher_ended(self, message: _LauncherEnded) -> Effects:
        """Take the end of what was launched; the link's end mostly comes with it.

        A container runtime can die around a living wrapper: then the job is stopped, so that
        its outputs are saved, and what is left is swept.
        """
        if self._is_over:
            return  # It was given up; that it went after all changes nothing.
        self._has_exited = True
        if self._outcome is None:
            told = told_exit(message.exit)
            yield from self.trace(message.exit.diagnosis or f"the launched process {told}")
            said = f"; {message.exit.diagnosis}" if message.exit.diagnosis else ""
            if not self._last_resort or message.exit.exit_code != 0:
                self._last_resort = f"the wrapper {told}{said}"
            if not self._is_link_closed and self._phase is _Phase.WORKING:
                why = f"the process around the wrapper ended: it {told}"
                yield from self._stop(self._reason(KillCode.WRAPPER_LOST, why))
                return
        if not self._is_link_closed:
            yield from self._await("leave", min(2.0, self._options.leave_s))
        yield from self._leave_if_gone()

    def _leave_if_gone(self) -> Effects:
        if self._is_link_closed and self._has_exited:
            yield from self._begin_cleaning()

    def _begin_cleaning(self) -> Effects:
        self._phase = _Phase.CLEANING
        self._meter.stop(self._ports.clock.monotonic())
        for what in ("ttl", "saving", "ladder", "leave"):
            yield Unschedule(what)
        if self._wrapper is not None and not self._was_greeted and self._kill is None:
            why = self._trouble or self._last_resort
            self._has_another_way = self._wrapper.failed_to_start(why)
        yield Tell(self._ports.vault, ForgetJob(identity=self._identity))
        yield Run("clean", self._clean)

    async def _clean(self) -> _Cleaned:
        must_rescue = self._outcome is None and not self._is_fenced
        return _Cleaned(found=await self._custody.clean_up(self._wrapper, must_rescue=must_rescue))

    @handles(_Cleaned)
    def cleaned(self, message: _Cleaned) -> Effects:
        """Report the end: nothing of the job is left on the node."""
        self._phase = _Phase.REPORTING
        found = message.found
        self._rescued = found.rescued
        for trouble in found.troubles:
            yield from self.trace(trouble)
        if found.survivors:
            yield from self.trace(f"killed {found.survivors} processes left by the job")
        for role, process in self._sightings.unseen():
            yield from self._tell_process(role, process, None)
        yield from self.tell_left_out()
        if not self._is_fenced:
            yield from self._conclude()
        yield from self.end_when_reported()

    def _conclude(self) -> Effects:
        """Report the way to the final status, and that with all that is known of the end."""
        now = self._ports.clock.now()
        trouble = self._trouble or self._last_resort
        decided = verdict(
            self._life.status,
            self._outcome,
            self._kill,
            trouble,
            has_another_way=self._has_another_way,
        )
        *between, last = path_to(self._life.status, decided.status)
        for status in between:
            self._life.advance(status, now, "verdict")
            yield from self.report_status(status, now, None)
        self._life.advance(last, now, "verdict")
        yield self.log("info", f"status {last}")
        if last is JobStatus.WAITING:
            self._outbox.status(last, now, reason=decided.reason)
            return
        outcome = self._outcome or Outcome()
        self._outbox.final(
            last,
            now,
            reason=decided.reason,
            outcome=outcome,
            kill=decided.kill,
            usage=self._meter.usage(self._ports.clock.monotonic()),
            outputs=self._outputs_on_host(outcome),
        )

    def _outputs_on_host(self, outcome: Outcome) -> tuple[SavedFile, ...]:
        if self._wrapper is None or self._outcome is None:
            return self._rescued
        host_path = self._wrapper.host_path
        return tuple(
            msgspec.structs.replace(file, location=host_path(file.location))
            for file in outcome.outputs
        )

    # --- what else happens ---------------------------------------------------------------

    def fenced(self) -> Effects:
        """End this attempt: the queue gave it to somebody else."""
        return self._stop(self._reason(KillCode.FENCED, "the queue gave the job away"))

    @property
    def _is_over(self) -> bool:
        return self._phase in (_Phase.CLEANING, _Phase.REPORTING)

    @property
    def _is_fenced(self) -> bool:
        return self._kill is not None and self._kill.code is KillCode.FENCED

    @handles(WorkFailed)
    def work_failed(self, message: WorkFailed) -> Effects:
        """Take a failed launch as the end of the job; all else is our own mistake."""
        if message.name != "wrapper" or self._phase is not _Phase.LAUNCHING:
            raise message.error
        text = str(message.error) or type(message.error).__name__
        self._trouble = f"the wrapper could not be launched: {text}"
        self._has_exited = self._is_link_closed = True
        return self._begin_cleaning()
