"""The work unit: one attempt of one job, from its match to its final status.

It is the JobAgent's hand for this job: it launches the wrapper, holds the agent's end of the
link, starts the Monitor, relays statuses to the queue, and ends the job when it must.

    launching -> greeting -> working -> leaving -> cleaning -> reporting -> gone
                     |          |          ^
                     +----------+----------+   the link is lost, the launched process died

What must stay true:

* the final status is decided once, in `_verdict`, when the wrapper is gone and nothing of the
  job runs any more; so a final status in the queue means that the node is clean;
* a wrapper that doesn't do what it is asked is helped: asked, then TERM, then KILL;
* every wait has a timer: launching (the link's greeting), the TTL, saving, leaving, cleaning;
* an attempt that the queue calls stale is ended without another word.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from functools import partial

import msgspec

from actors.effects import (
    Call,
    Effects,
    Recipient,
    Run,
    Schedule,
    SpawnChild,
    StopSelf,
    Tell,
    Unschedule,
    WorkFailed,
)
from actors.lifecycle import JobLife, path_to, status_after_wrapper_death, status_of
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
    UnitLaunched,
    UsageSampled,
    Watch,
)
from actors.monitor import Monitor, MonitorOptions
from actors.outbox import Outbox
from actors.ports import (
    Answer,
    AnyReport,
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
from actors.runtime import Actor, handles
from actors.supervision import ChildEnded, ChildRestarted, ChildSpec, Restart
from transport.errors import PilotError
from transport.events import Closed, FrameRefused, MessageReceived, MessageUnsupported, Opened
from transport.messages import (
    ConfigureLogging,
    ConfinementReported,
    CredentialKind,
    DeliverCredential,
    FileStaged,
    JobFinished,
    JobStatus,
    JobStatusChanged,
    KillCode,
    KillReason,
    Limits,
    LogWritten,
    Message,
    Outcome,
    ProcessAnnounced,
    ProcessRole,
    RequestCredential,
    SavedFile,
    StartJob,
    StopJob,
    TraceWritten,
    Usage,
)

KILLS_MAX = 3
"""A process that survives so many KILLs hangs in the kernel; the node's operator must look."""

JobLog = Callable[[str, str, float | None], None]
"""Takes (level, text, at or None for now); bound to job and attempt by whoever made it."""


class WorkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How patient a work unit is, and what it hands to its wrapper."""

    stop_grace_s: float = 5.0
    """Between TERM and KILL for the payload."""
    saving_s: float = 300.0
    leave_s: float = 10.0
    """For a wrapper that has nothing left to do; also between the rungs of the stop ladder."""
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
    agent: Recipient
    log: JobLog


class _Phase(StrEnum):
    LAUNCHING = "launching"
    GREETING = "greeting"
    WORKING = "working"
    LEAVING = "leaving"
    CLEANING = "cleaning"
    REPORTING = "reporting"


class _Launched(Message, frozen=True, kw_only=True):
    wrapper: LaunchedWrapper


class _LauncherEnded(Message, frozen=True, kw_only=True):
    exit: WrapperExit


class _Overdue(Message, frozen=True, kw_only=True):
    """Work unit to itself: a wait has come to its end."""

    what: str


class _Reported(Message, frozen=True, kw_only=True):
    answer: Answer


class _Cleaned(Message, frozen=True, kw_only=True):
    survivors: int
    rescued: tuple[SavedFile, ...]


class WorkUnit(Actor):
    """Sees one attempt through; ends when the queue has its final status."""

    def __init__(self, match: Match, ports: UnitPorts, options: WorkOptions) -> None:
        self._match = match
        self._ports = ports
        self._options = options
        self._identity = JobIdentity(
            job_id=match.job_id, attempt=match.attempt, user=match.description.user
        )
        self._order = LaunchOrder(
            job_id=match.job_id, attempt=match.attempt, description=match.description
        )
        self._life = JobLife(
            f"job {match.job_id}.{match.attempt}", JobStatus.ASSIGNED, ports.clock.now(), "match"
        )
        self._phase = _Phase.LAUNCHING
        self._outbox = Outbox(match.job_id, match.attempt)
        self._wrapper: LaunchedWrapper | None = None
        self._wrapper_process: HostProcess | None = None
        self._has_exited = False
        self._is_link_closed = False
        self._outcome: Outcome | None = None
        self._kill: KillReason | None = None
        self._trouble = ""
        self._usage = Usage()
        self._usage_reported_at = 0.0
        self._payload_since: float | None = None
        self._payload_wall_s = 0.0
        self._kills = 0
        self._rescued: tuple[SavedFile, ...] = ()

    # --- launching -----------------------------------------------------------------------

    def started(self) -> Effects:
        """Launch the wrapper."""
        yield Run("launch", self._launch)

    async def _launch(self) -> _Launched:
        return _Launched(wrapper=await self._ports.launcher.launch(self._order))

    @handles(_Launched)
    def launched(self, message: _Launched) -> Effects:
        """Hold the link and wait for the wrapper's Hello; the session bounds that wait."""
        wrapper = self._wrapper = message.wrapper
        self._phase = _Phase.GREETING
        for text in wrapper.traces:
            yield from self._trace(text)
        yield Tell(
            self._ports.agent,
            UnitLaunched(
                job_id=self._match.job_id, mark=wrapper.mark, launcher_pid=wrapper.launcher_pid
            ),
        )
        yield Call(lambda: wrapper.link.open(self._from_link))
        yield Run("launcher", self._wait_launcher)
        yield SpawnChild(self._monitor_spec(wrapper))
        if self._kill is not None:
            yield from self._stop_wrapper()

    async def _wait_launcher(self) -> _LauncherEnded:
        assert self._wrapper is not None, "there is a launcher to wait for"
        return _LauncherEnded(exit=await self._wrapper.wait())

    def _monitor_spec(self, wrapper: LaunchedWrapper) -> ChildSpec:
        make = partial(
            Monitor,
            owner=self.me,
            launcher_pid=wrapper.launcher_pid,
            work_directory=wrapper.work_directory,
            limits=self._limits(),
            table=self._ports.table,
            clock=self._ports.clock,
            options=self._options.monitor,
        )
        return ChildSpec(name="monitor", make=make, restart=Restart.TRANSIENT)

    def _limits(self) -> Limits:
        description = self._match.description
        return Limits(
            ttl_s=description.ttl_s,
            saving_s=self._options.saving_s,
            memory_bytes=description.memory_bytes,
            disk_bytes=description.disk_bytes,
            cpu_cores=description.cpu_cores,
        )

    # --- the link ------------------------------------------------------------------------

    def _from_link(self, event: object) -> None:
        confirm = None
        if isinstance(event, MessageReceived):
            assert self._wrapper is not None, "a link is part of a wrapper"
            confirm = partial(self._wrapper.link.confirm, event.sequence)
        self.me.tell(FromLink(event=event), confirm)  # type: ignore[arg-type]

    @handles(FromLink)
    def from_link(self, message: FromLink) -> Effects:
        """Take what the wrapper says, and what becomes of the link."""
        match message.event:
            case MessageReceived(message=said):
                return self._wrapper_said(said)
            case Opened():
                return self._greeted()
            case Closed(cause=cause, detail=detail):
                return self._link_closed(f"{cause}: {detail}")
            case FrameRefused(refusal=refusal, detail=detail):
                return self._trace(f"a frame of the wrapper was refused ({refusal}): {detail}")
            case MessageUnsupported(tag=tag):
                return self._trace(f"the wrapper does not know the message {tag!r}")
            case _:
                return ()

    def _greeted(self) -> Effects:
        assert self._wrapper is not None, "a link is part of a wrapper"
        wrapper, options = self._wrapper, self._options
        self._phase = _Phase.WORKING
        log_level, log_format = options.log_level, options.log_format
        yield Tell(wrapper.link, ConfigureLogging(level=log_level, format=log_format))
        yield Tell(wrapper.link, self._start_order(wrapper))
        # Preparing may take as long as the payload; RUNNING starts the clock anew.
        yield from self._await("ttl", self._match.description.ttl_s)
        if self._kill is not None:
            yield from self._stop_wrapper()

    def _start_order(self, wrapper: LaunchedWrapper) -> StartJob:
        paths, count = wrapper.paths, len(self._match.description.inputs)
        description = msgspec.structs.replace(
            self._match.description, inputs=paths.inputs[:count], input_data=paths.inputs[count:]
        )
        return StartJob(
            job_id=self._match.job_id,
            attempt=self._match.attempt,
            description=description,
            limits=self._limits(),
            work_directory=paths.work_directory,
            output_directory=paths.output_directory,
            private_directory=paths.private_directory,
            environment=paths.environment,
            credentials=self._options.credentials,
            stop_grace_s=self._options.stop_grace_s,
        )

    def _wrapper_said(self, said: Message) -> Effects:
        match said:
            case JobStatusChanged(status=status, at=at):
                return self._status_changed(status, at)
            case ProcessAnnounced():
                return (Tell(self._monitor, Watch(announced=said)),)
            case RequestCredential():
                return (Tell(self._ports.vault, self._credential_request(said)),)
            case JobFinished(outcome=outcome):
                return self._finished(outcome)
            case TraceWritten(text=text, at=at):
                return self._trace(text, at)
            case LogWritten(level=level, text=text, at=at):
                return (Call(partial(self._ports.log, level, text, at)),)
            case FileStaged(direction=direction, name=name, bytes=size):
                text = f"staged {direction}: {name} ({size} bytes)"
                return (Call(partial(self._ports.log, "debug", text, None)),)
            case ConfinementReported():
                return self._trace(told_confinement(said))
            case _:
                return self._trace(f"the wrapper said {type(said).__name__}: not its place")

    def _status_changed(self, status: JobStatus, at: float) -> Effects:
        if status not in (JobStatus.STARTED, JobStatus.RUNNING, JobStatus.SAVING):
            yield from self._trace(f"the wrapper reported {status}, which is not its to say")
            return
        if not self._life.advance(status, at, "wrapper"):
            return
        now = self._ports.clock.monotonic()
        if status is JobStatus.RUNNING:
            self._payload_since = now
            yield from self._await("ttl", self._match.description.ttl_s)
        elif status is JobStatus.SAVING:
            self._stop_payload_clock(now)
            yield Unschedule("ttl")
            yield Unschedule("ladder")
            yield from self._await("saving", self._options.saving_s)
        container = self._wrapper.container if self._wrapper is not None else None
        yield from self._status_report(status, at, container)

    def _stop_payload_clock(self, now: float) -> None:
        if self._payload_since is not None:
            self._payload_wall_s = now - self._payload_since
            self._payload_since = None

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
        if self._wrapper is not None and not self._is_link_closed:
            yield Tell(
                self._wrapper.link,
                DeliverCredential(
                    kind=message.kind,
                    certificate_chain=message.certificate_chain,
                    token=message.token,
                    expires_at=message.expires_at,
                ),
            )

    @handles(CredentialRefused)
    def credential_refused(self, message: CredentialRefused) -> Effects:
        """Tell the wrapper: it can't do its work."""
        if self._wrapper is not None and not self._is_link_closed:
            yield Tell(
                self._wrapper.link,
                DeliverCredential(kind=message.kind, expires_at=0.0, refusal=message.why),
            )

    # --- the Monitor ---------------------------------------------------------------------

    @property
    def _monitor(self) -> Recipient:
        return self.me.child("monitor")

    @handles(ProcessBound)
    def process_bound(self, message: ProcessBound) -> Effects:
        """Report where it is on the host; the wrapper's own is kept for the stop ladder."""
        if message.role is ProcessRole.WRAPPER:
            self._wrapper_process = message.host
        self._outbox.process(message.role, message.process, message.host, self._ports.clock.now())
        yield from self._send_reports()

    @handles(ProcessGone)
    def process_gone(self, _: ProcessGone) -> Effects:
        """Do nothing: whoever ended will be told by its own end."""
        return ()

    @handles(UsageSampled)
    def usage_sampled(self, message: UsageSampled) -> Effects:
        """Keep the newest; the queue hears of it now and then."""
        self._usage = message.usage
        now = self._ports.clock.monotonic()
        if now - self._usage_reported_at >= self._options.usage_report_s:
            self._usage_reported_at = now
            self._outbox.usage(self._usage_now(), self._ports.clock.now())
            yield from self._send_reports()

    @handles(LimitExceeded)
    def limit_exceeded(self, message: LimitExceeded) -> Effects:
        """End the job for it."""
        return self._stop(self._reason(message.code, message.why))

    @handles(ChildRestarted)
    def monitor_restarted(self, message: ChildRestarted) -> Effects:
        """Say so: until the next announcement the job goes on unmeasured."""
        return self._trace(f"the monitor was restarted: {message.error!r}")

    @handles(ChildEnded)
    def monitor_ended(self, _: ChildEnded) -> Effects:
        """Do nothing: it ends with the unit."""
        return ()

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
        yield Call(partial(self._ports.log, "warning", f"stopping: {reason.why}", None))
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
            case "queue":
                yield from self._send_reports()
            case _:
                raise AssertionError(f"nobody awaits {message.what}")

    def _force(self, how: str) -> Effects:
        """Signal the wrapper from outside; TERM is followed by KILL."""
        self._phase = _Phase.LEAVING
        number = 9 if how == "KILL" else 15
        if self._wrapper is not None:
            wrapper, process = self._wrapper, self._wrapper_process
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
        self._outcome = outcome
        self._phase = _Phase.LEAVING
        self._stop_payload_clock(self._ports.clock.monotonic())
        for what in ("ttl", "saving", "ladder"):
            yield Unschedule(what)
        yield from self._await("leave", self._options.leave_s)

    def _link_closed(self, why: str) -> Effects:
        self._is_link_closed = True
        if self._outcome is None and not self._has_exited:
            self._trouble = self._trouble or f"the link to the wrapper was lost: {why}"
            yield from self._force("KILL")
        yield from self._leave_if_gone()

    @handles(_LauncherEnded)
    def launcher_ended(self, message: _LauncherEnded) -> Effects:
        """Take the end of what was launched; the link's end mostly comes with it.

        A container runtime can die around a living wrapper: then the job is stopped, so that
        its outputs are saved, and what is left is swept.
        """
        self._has_exited = True
        if self._outcome is None:
            self._trouble = self._trouble or message.exit.diagnosis or told_exit(message.exit)
            if not self._is_link_closed and self._phase is _Phase.WORKING:
                why = f"the process around the wrapper ended: {told_exit(message.exit)}"
                yield from self._stop(self._reason(KillCode.WRAPPER_LOST, why))
                return
        if not self._is_link_closed:
            yield from self._await("leave", min(2.0, self._options.leave_s))
        yield from self._leave_if_gone()

    def _leave_if_gone(self) -> Effects:
        if self._is_link_closed and self._has_exited and self._phase is not _Phase.CLEANING:
            yield from self._begin_cleaning()

    def _begin_cleaning(self) -> Effects:
        self._phase = _Phase.CLEANING
        self._stop_payload_clock(self._ports.clock.monotonic())
        for what in ("ttl", "saving", "ladder", "leave"):
            yield Unschedule(what)
        yield Tell(self._ports.vault, ForgetJob(identity=self._identity))
        yield Run("clean", self._clean)

    async def _clean(self) -> _Cleaned:
        survivors = 0
        if self._wrapper is not None:
            survivors = await self._ports.table.sweep(
                self._wrapper.mark, self._wrapper.launcher_pid, deadline_s=self._options.leave_s
            )
        rescued: tuple[SavedFile, ...] = ()
        if self._outcome is None and self._wrapper is not None:
            async with asyncio.timeout(self._options.saving_s):
                rescued = await self._ports.launcher.rescue(self._order)
        await self._ports.launcher.clean(self._order)
        return _Cleaned(survivors=survivors, rescued=rescued)

    @handles(_Cleaned)
    def cleaned(self, message: _Cleaned) -> Effects:
        """Report the end: nothing of the job is left on the node."""
        self._rescued = message.rescued
        if message.survivors:
            yield from self._trace(f"killed {message.survivors} processes left by the job")
        yield from self._conclude()

    def _conclude(self) -> Effects:
        self._phase = _Phase.REPORTING
        if self._kill is None or self._kill.code is not KillCode.FENCED:
            status, reason = self._verdict()
            yield from self._walk_to(status, reason)
        yield from self._send_reports()
        yield from self._end_if_reported()

    def _verdict(self) -> tuple[JobStatus, str]:
        """Decide the final status and its reason, once."""
        if self._outcome is not None:
            outcome = self._outcome
            if outcome.kill is not None and self._kill is not None:
                outcome = msgspec.structs.replace(outcome, kill=self._kill, reason=self._kill.why)
            return status_of(outcome), outcome.reason
        status = status_after_wrapper_death(self._life.status, self._kill)
        if self._kill is not None:
            return status, self._kill.why
        return status, self._trouble or "the wrapper ended without a word"

    def _walk_to(self, final: JobStatus, reason: str) -> Effects:
        now = self._ports.clock.now()
        *between, last = path_to(self._life.status, final) or (final,)
        for status in between:
            self._life.advance(status, now, "verdict")
            yield from self._status_report(status, now, None)
        self._life.advance(last, now, "verdict")
        if last is JobStatus.WAITING:
            self._outbox.status(last, now, reason=reason)
            return
        outcome = self._outcome or Outcome()
        self._outbox.final(
            last,
            now,
            reason=reason,
            outcome=outcome,
            kill=self._kill or outcome.kill,
            usage=self._usage_now(),
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

    # --- reporting -----------------------------------------------------------------------

    def _trace(self, text: str, at: float | None = None) -> Effects:
        yield Call(partial(self._ports.log, "info", text, at))
        self._outbox.trace(text, self._ports.clock.now() if at is None else at)
        yield from self._send_reports()

    def _status_report(self, status: JobStatus, at: float, container: str | None) -> Effects:
        yield Call(partial(self._ports.log, "info", f"status {status}", None))
        self._outbox.status(status, at, container=container)
        yield from self._send_reports()

    def _send_reports(self) -> Effects:
        report = self._outbox.next_report()
        if report is not None:
            yield Run("report", partial(self._send_report, report))

    async def _send_report(self, report: AnyReport) -> _Reported:
        return _Reported(answer=await self._ports.queue.report(report))

    @handles(_Reported)
    def reported(self, message: _Reported) -> Effects:
        """Take the queue's answer: on to the next, or away with it all."""
        report = self._outbox.answered(message.answer)
        if message.answer is Answer.REFUSED:
            text = f"the queue refused {type(report).__name__}: {report}"
            yield Call(partial(self._ports.log, "error", text, None))
        if message.answer is Answer.STALE and self._phase is not _Phase.REPORTING:
            yield from self._stop(self._reason(KillCode.FENCED, "the queue gave the job away"))
        yield from self._send_reports()
        yield from self._end_if_reported()

    def _end_if_reported(self) -> Effects:
        if self._phase is _Phase.REPORTING and self._outbox.is_empty:
            yield StopSelf()

    @handles(WorkFailed)
    def work_failed(self, message: WorkFailed) -> Effects:
        """Take what failed: the queue is tried again, a launch or a cleaning is the end."""
        text = str(message.error) or type(message.error).__name__
        match message.name:
            case "report":
                if not isinstance(message.error, PilotError):
                    raise message.error
                yield Call(partial(self._ports.log, "warning", f"queue: {text}", None))
                yield from self._await("queue", self._outbox.failed())
            case "launch":
                self._trouble = f"the wrapper could not be launched: {text}"
                self._has_exited = self._is_link_closed = True
                yield from self._begin_cleaning()
            case "clean":
                yield from self._trace(f"cleaning up failed: {text}")
                yield from self._conclude()
            case _:
                raise message.error

    def _usage_now(self) -> Usage:
        running_s = 0.0
        if self._payload_since is not None:
            running_s = self._ports.clock.monotonic() - self._payload_since
        wall_s = max(self._payload_wall_s, running_s)
        return msgspec.structs.replace(self._usage, wall_s=wall_s)

    def stopping(self) -> Effects:
        """Leave nothing behind, should the unit itself have crashed."""
        wrapper = self._wrapper
        if wrapper is not None and not (self._has_exited and self._is_link_closed):
            yield Call(lambda: wrapper.link.close("the agent's work unit ended"))
            yield Call(lambda: wrapper.signal(9))


def told_exit(end: WrapperExit) -> str:
    """Say how the launched process ended."""
    if end.signal is not None:
        return f"killed by signal {end.signal}"
    return f"exited with code {end.exit_code}"


def told_confinement(report: ConfinementReported) -> str:
    """Say in a line what the wrapper is confined to."""
    namespaces = " ".join(f"{kind}:{inode}" for kind, inode in sorted(report.namespaces.items()))
    return (
        f"confinement: namespaces {namespaces}; uid map {report.uid_map or 'none'}; "
        f"{len(report.mounts)} mounts; cgroup {report.cgroup or 'none'}; "
        f"no_new_privs {'yes' if report.no_new_privileges else 'no'}"
    )
