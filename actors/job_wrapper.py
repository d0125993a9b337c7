"""The JobWrapper: runs one job, in its own process, perhaps in a container.

    greeting -> preparing -> running -> validating -> saving -> finished
                    |           |           |           ^
                    +-----------+-----------+-----------+   a failure, or StopJob

Each stage is a work whose result is a message. A failure or a stop in any of them leads to
saving: the logs of a job are saved whatever happened to it. What must stay true:

* the payload starts only when its inputs and its credentials are there;
* the first kill reason is kept, and comes back in `JobFinished`;
* when saving begins, no process of the payload runs any more;
* one task waits for a command, and kills it should the wrapper itself be lost;
* when the link is lost nobody can collect the job: the payload is stopped and the wrapper ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import assert_never

import msgspec

from actors.effects import (
    Call,
    CancelWork,
    Effects,
    Run,
    Schedule,
    StopSelf,
    Tell,
    Unschedule,
    WorkFailed,
)
from actors.messages import FromLink, StopWork
from actors.outputs import listable, outputs_to_save, staged_out
from actors.ports import (
    Clock,
    CommandRunner,
    KeyMaker,
    ProcessEnd,
    RunningCommand,
    SavedOutputs,
    StagedFile,
    Stager,
)
from actors.runtime import Actor, handles
from transport.errors import InternalError
from transport.events import Closed, MessageReceived, Opened, SessionEvent
from transport.link import Link
from transport.messages import (
    ConfigureLogging,
    CredentialKind,
    DeliverCredential,
    Failure,
    FileStaged,
    JobFinished,
    JobStatus,
    JobStatusChanged,
    KillCode,
    KillReason,
    Message,
    Outcome,
    ProcessAnnounced,
    ProcessRole,
    RequestCredential,
    SavedFile,
    StartJob,
    StopJob,
    TraceWritten,
)

REASON_LENGTH_MAX = 4096
KILL_AGAIN_S = 1.0
KILLS_MAX = 5
"""A command that survives so many KILLs hangs in the kernel; the wrapper goes on without it."""


class WrapperPorts(msgspec.Struct, frozen=True, kw_only=True):
    """What a wrapper needs from the world."""

    runner: CommandRunner
    stager: Stager
    keys: KeyMaker
    clock: Clock
    configure_logging: Callable[[str, str], None]
    log: Callable[[str, str], None]
    """Takes (level, text)."""


class Stage(StrEnum):
    """How far a wrapper is."""

    GREETING = "greeting"
    PREPARING = "preparing"
    RUNNING = "running"
    VALIDATING = "validating"
    SAVING = "saving"
    FINISHED = "finished"


class _RequestMade(Message, frozen=True, kw_only=True):
    kind: CredentialKind
    signing_request: str


class _CredentialStored(Message, frozen=True, kw_only=True):
    kind: CredentialKind


class _StagedIn(Message, frozen=True, kw_only=True):
    files: tuple[StagedFile, ...]


class _Started(Message, frozen=True, kw_only=True):
    role: ProcessRole
    command: RunningCommand


class _Ended(Message, frozen=True, kw_only=True):
    role: ProcessRole
    end: ProcessEnd


class _GraceOver(Message, frozen=True, kw_only=True):
    """Wrapper to itself: what was asked to end hasn't; kill it."""


class _Swept(Message, frozen=True, kw_only=True):
    killed: int


class _Saved(Message, frozen=True, kw_only=True):
    outputs: SavedOutputs


class _Settled(Message, frozen=True, kw_only=True):
    """Wrapper to itself: the agent has confirmed everything."""


class JobWrapper(Actor):
    """Runs one job and ends; its stop is always in good order, whatever the agent does."""

    def __init__(self, link: Link, ports: WrapperPorts) -> None:
        self._link = link
        self._ports = ports
        self._stage = Stage.GREETING
        self._order: StartJob | None = None
        self._awaited: set[str] = set()
        self._command: RunningCommand | None = None
        self._environment: dict[str, str] = {}
        self._failure: Failure | None = None
        self._reason = ""
        self._end = ProcessEnd()
        self._kill: KillReason | None = None
        self._kills = 0
        self._is_orphan = False

    # --- the link ------------------------------------------------------------------------

    def started(self) -> Effects:
        """Listen to the agent."""
        yield Call(lambda: self._link.open(self._from_link))

    def _from_link(self, event: SessionEvent) -> None:
        confirm = None
        if isinstance(event, MessageReceived):
            confirm = partial(self._link.confirm, event.sequence)
        self.me.tell(FromLink(event=event), confirm)

    @handles(FromLink)
    def from_link(self, message: FromLink) -> Effects:
        """Take what the agent says, and what becomes of the link."""
        match message.event:
            case MessageReceived(message=StartJob() as order):
                return self._start(order)
            case MessageReceived(message=StopJob() as stop):
                return self._stop(stop.reason, stop.grace_s)
            case MessageReceived(message=DeliverCredential() as credential):
                return self._deliver(credential)
            case MessageReceived(message=ConfigureLogging() as options):
                return (Call(lambda: self._ports.configure_logging(options.level, options.format)),)
            case Opened():
                return self._announce_self()
            case Closed(cause=cause, detail=detail):
                return self._orphaned(f"{cause}: {detail}")
            case _:
                return ()

    def _announce_self(self) -> Effects:
        yield self._announce(ProcessRole.WRAPPER, None)
        yield Tell(self._link, self._ports.runner.confinement())

    def _announce(self, role: ProcessRole, command: RunningCommand | None) -> Tell:
        process = self._ports.runner.own_identity() if command is None else command.identity
        announced = ProcessAnnounced(role=role, process=process, at=self._ports.clock.now())
        return Tell(self._link, announced)

    def _status(self, status: JobStatus, **fields: str) -> Tell:
        at = self._ports.clock.now()
        return Tell(self._link, JobStatusChanged(status=status, at=at, fields=fields))

    def _log(self, level: str, text: str) -> Call:
        return Call(partial(self._ports.log, level, text))

    def _trace(self, text: str) -> Tell:
        text = text[:REASON_LENGTH_MAX]
        return Tell(self._link, TraceWritten(text=text, at=self._ports.clock.now()))

    # --- preparing -----------------------------------------------------------------------

    def _start(self, order: StartJob) -> Effects:
        if self._order is not None:
            raise InternalError(f"the wrapper of job {self._order.job_id} was given a second job")
        self._order = order
        self._stage = Stage.PREPARING
        self._environment = dict(order.environment)
        self._awaited = {"stage-in", *(kind.value for kind in order.credentials)}
        yield self._status(JobStatus.STARTED)
        yield self._log("info", f"attempt {order.attempt} of job {order.job_id} begins")
        yield Run("stage-in", self._stage_in)
        for kind in order.credentials:
            yield Run(kind.value, partial(self._make_request, kind))

    async def _stage_in(self) -> _StagedIn:
        order = self._job
        await self._ports.stager.prepare(order.work_directory)
        wanted = (*order.description.inputs, *order.description.input_data)
        staged = await self._ports.stager.stage_in(wanted, order.work_directory)
        await self._ports.stager.write_input_list(order.description, order.work_directory)
        return _StagedIn(files=tuple(staged))

    async def _make_request(self, kind: CredentialKind) -> _RequestMade:
        request = ""
        if kind is CredentialKind.CERTIFICATE:
            name = f"job-{self._job.job_id}.{self._job.attempt}"
            request = await self._ports.keys.make_request(self._job.private_directory, name)
        return _RequestMade(kind=kind, signing_request=request)

    @handles(_RequestMade)
    def request_made(self, message: _RequestMade) -> Effects:
        """Ask the agent; the key stays here."""
        yield Tell(
            self._link,
            RequestCredential(kind=message.kind, signing_request=message.signing_request),
        )

    def _deliver(self, credential: DeliverCredential) -> Effects:
        if credential.refusal:
            if self._stage is Stage.PREPARING:
                why = f"no {credential.kind} could be had: {credential.refusal}"
                yield from self._fail(Failure.START, why)
            return
        yield CancelWork(f"store {credential.kind}")
        yield Run(f"store {credential.kind}", partial(self._store, credential))

    async def _store(self, credential: DeliverCredential) -> _CredentialStored:
        text = credential.certificate_chain
        if credential.token is not None:
            text = credential.token.reveal()
        directory = self._job.private_directory
        await self._ports.keys.store(directory, credential.kind, text)
        return _CredentialStored(kind=credential.kind)

    @handles(_CredentialStored)
    def credential_stored(self, message: _CredentialStored) -> Effects:
        """Tell the payload where it is; a renewed one lies at the same path."""
        directory = self._job.private_directory
        self._environment |= self._ports.keys.environment(directory, message.kind)
        return self._prepared(message.kind.value)

    @handles(_StagedIn)
    def staged_in(self, message: _StagedIn) -> Effects:
        """Tell what came in."""
        for file in message.files:
            yield Tell(
                self._link,
                FileStaged(
                    direction="in",
                    name=file.name,
                    bytes=file.bytes,
                    sha256=file.sha256,
                    adler32=file.adler32,
                ),
            )
        yield from self._prepared("stage-in")

    def _prepared(self, what: str) -> Effects:
        self._awaited.discard(what)
        if self._stage is Stage.PREPARING and not self._awaited:
            self._stage = Stage.RUNNING
            description = self._job.description
            command = (description.executable, *description.arguments)
            yield Run("start", partial(self._start_command, ProcessRole.PAYLOAD, command))

    # --- running -------------------------------------------------------------------------

    async def _start_command(self, role: ProcessRole, command: tuple[str, ...]) -> _Started:
        running = await self._ports.runner.start(
            command, directory=self._job.work_directory, environment=self._environment
        )
        return _Started(role=role, command=running)

    @handles(_Started)
    def command_started(self, message: _Started) -> Effects:
        """Announce it, and wait for its end."""
        self._command = message.command
        yield self._announce(message.role, message.command)
        yield self._log("info", f"the {message.role} runs, PID {message.command.identity.pid}")
        if message.role is ProcessRole.PAYLOAD:
            yield self._status(JobStatus.RUNNING)
        yield Run(message.role.value, partial(self._wait, message.role, message.command))
        if self._kill is not None or self._is_orphan:
            yield from self._end_command(0.0)

    async def _wait(self, role: ProcessRole, command: RunningCommand) -> _Ended:
        try:
            return _Ended(role=role, end=await command.wait())
        except asyncio.CancelledError:
            command.signal(SIGKILL)
            raise

    @handles(_Ended)
    def command_ended(self, message: _Ended) -> Effects:
        """Judge how it ended: on to the validation, or to saving."""
        self._command = None
        yield Unschedule("grace")
        yield self._log("info", f"the {message.role} {told(message.end)}")
        if message.role is ProcessRole.PAYLOAD:
            self._end = message.end
            yield from self._payload_ended(message.end)
        else:
            yield from self._validation_ended(message.end)

    def _payload_ended(self, end: ProcessEnd) -> Effects:
        validation = self._job.description.validation_command
        if end.exit_code != 0 or self._kill is not None or self._is_orphan:
            yield from self._fail(Failure.PAYLOAD, f"the payload {told(end)}")
        elif validation:
            self._stage = Stage.VALIDATING
            command = tuple(validation.split())
            yield Run("start", partial(self._start_command, ProcessRole.VALIDATION, command))
        else:
            yield from self._save()

    def _validation_ended(self, end: ProcessEnd) -> Effects:
        if end.exit_code == 0 and self._kill is None and not self._is_orphan:
            yield from self._save()
        else:
            was_killed = end.signal is not None or self._kill is not None
            failure = Failure.VALIDATION_KILLED if was_killed else Failure.VALIDATION_FAILED
            yield from self._fail(failure, f"the validation {told(end)}")

    # --- stopping ------------------------------------------------------------------------

    @handles(StopWork)
    def stop_work(self, message: StopWork) -> Effects:
        """End for a reason of the node's own: its TERM came to the wrapper itself."""
        grace_s = self._order.stop_grace_s if self._order is not None else 0.0
        return self._stop(message.reason, grace_s)

    def _stop(self, reason: KillReason, grace_s: float) -> Effects:
        if self._stage is Stage.FINISHED or (
            self._stage is Stage.SAVING and reason.code is not KillCode.CENTRAL_KILL
        ):
            return  # It ended by itself before the reason came.
        if self._kill is None:
            self._kill = reason
            yield self._trace(f"stopping: {reason.why} (by {reason.by})")
        if self._stage in (Stage.RUNNING, Stage.VALIDATING):
            yield from self._end_command(grace_s)
        elif self._stage is Stage.PREPARING:
            yield from self._fail(Failure.START, "stopped before the payload started")
        elif self._stage is Stage.GREETING:
            yield from self._leave("stopped before it had a job")

    def _end_command(self, grace_s: float) -> Effects:
        """Ask the command to end, and kill it after the grace; the start may still be under way."""
        command = self._command
        if command is not None:
            number = SIGTERM if grace_s > 0 else SIGKILL
            yield Call(lambda: command.signal(number))
            yield Schedule("grace", max(grace_s, 0.2), _GraceOver())

    @handles(_GraceOver)
    def grace_over(self, _: _GraceOver) -> Effects:
        """Kill what didn't end when it was asked to."""
        command = self._command
        if command is None:
            return
        self._kills += 1
        if self._kills <= KILLS_MAX:
            yield Call(lambda: command.signal(SIGKILL))
            yield Schedule("grace", KILL_AGAIN_S, _GraceOver())
        else:
            is_validation = self._stage is Stage.VALIDATING
            role = ProcessRole.VALIDATION if is_validation else ProcessRole.PAYLOAD
            yield self._trace(f"the {role} can't be killed; the job goes on without its end")
            yield CancelWork(role.value)
            yield from self.command_ended(_Ended(role=role, end=ProcessEnd(signal=SIGKILL)))

    def _orphaned(self, why: str) -> Effects:
        """End without an agent: stop the payload, save nothing that nobody could collect."""
        self._is_orphan = True
        self._ports.log("warning", f"the agent is gone ({why}); the wrapper ends")
        match self._stage:
            case Stage.GREETING | Stage.FINISHED:
                yield StopSelf()
            case Stage.PREPARING:
                yield from self._fail(Failure.START, "the agent is gone")
            case Stage.RUNNING | Stage.VALIDATING:
                yield from self._end_command(self._job.stop_grace_s)
            case Stage.SAVING:
                # Storage may hang, and nobody waits for what is being saved.
                yield CancelWork("stage-out")
                yield CancelWork("sweep")
                yield Run("sweep", self._sweep)
            case _:
                assert_never(self._stage)

    # --- saving --------------------------------------------------------------------------

    @handles(WorkFailed)
    def work_failed(self, message: WorkFailed) -> Effects:
        """Name the step that failed; each leads to saving, and saving's own to the end."""
        text = str(message.error) or type(message.error).__name__
        self._ports.log("error", f"{message.name}: {text}")
        match message.name:
            case "stage-in":
                return self._fail(Failure.STAGE_IN, text)
            case "start" if self._stage is Stage.VALIDATING:
                return self._fail(Failure.VALIDATION_UNRUNNABLE, text)
            case "sweep":
                return self._after_sweep()
            case "stage-out":
                return self._finish((), Failure.STAGE_OUT, text)
            case "goodbye":
                return (StopSelf(),)
            case _ if self._stage is Stage.PREPARING or message.name == "start":
                return self._fail(Failure.START, text)
            case _:
                # A renewed credential could not be stored: the old one serves until it expires.
                return (self._trace(f"{message.name} failed: {text}"),)

    def _fail(self, failure: Failure, reason: str) -> Effects:
        if self._failure is None:
            self._failure, self._reason = failure, reason
        yield from self._save()

    def _save(self) -> Effects:
        if self._stage in (Stage.SAVING, Stage.FINISHED):
            return
        self._stage = Stage.SAVING
        order = self._job
        for name in ("stage-in", "start", *(kind.value for kind in order.credentials)):
            yield CancelWork(name)
        yield self._status(JobStatus.SAVING)
        yield Run("sweep", self._sweep)

    async def _sweep(self) -> _Swept:
        return _Swept(killed=await self._ports.runner.sweep())

    @handles(_Swept)
    def swept(self, message: _Swept) -> Effects:
        """Save, now that nothing writes to the work directory any more."""
        if message.killed:
            yield self._trace(f"killed {message.killed} processes that the payload left behind")
        yield from self._after_sweep()

    def _after_sweep(self) -> Effects:
        if self._is_orphan:
            self._stage = Stage.FINISHED
            yield StopSelf()
        else:
            yield Run("stage-out", self._save_outputs)

    async def _save_outputs(self) -> _Saved:
        order = self._job
        specs = outputs_to_save(
            order.description,
            job_id=order.job_id,
            has_failed=self._failure is not None or self._kill is not None,
        )
        outputs = await self._ports.stager.stage_out(
            specs, order.work_directory, order.output_directory
        )
        return _Saved(outputs=outputs)

    @handles(_Saved)
    def saved(self, message: _Saved) -> Effects:
        """Tell what is safe, and finish."""
        outputs = message.outputs
        for note in outputs.notes:
            yield self._trace(note)
        files = listable(outputs.files)
        for file in files:
            yield Tell(self._link, staged_out(file))
        if len(files) < len(outputs.files):
            why = f"{len(outputs.files)} output files; only {len(files)} fit: use an archive"
            yield from self._finish(files, Failure.STAGE_OUT, why)
        elif outputs.missing:
            missing = ", ".join(outputs.missing)
            why = f"required output is missing: {missing}"
            yield from self._finish(files, Failure.OUTPUT_MISSING, why)
        else:
            yield from self._finish(files, None, "")

    def _finish(
        self, files: tuple[SavedFile, ...], failure: Failure | None, reason: str
    ) -> Effects:
        self._stage = Stage.FINISHED
        # The first failure is the cause; what went wrong in saving its remains is not.
        if self._failure is None:
            self._failure, self._reason = failure, reason
        elif reason:
            yield self._trace(reason)
        outcome = Outcome(
            exit_code=self._end.exit_code,
            signal=self._end.signal,
            failure=self._failure,
            reason=(self._kill.why if self._kill is not None else self._reason)[:REASON_LENGTH_MAX],
            kill=self._kill,
            outputs=files,
        )
        yield Tell(self._link, JobFinished(outcome=outcome, at=self._ports.clock.now()))
        yield Run("goodbye", self._wait_settled)

    async def _wait_settled(self) -> _Settled:
        await self._link.wait_settled()
        return _Settled()

    @handles(_Settled)
    def settled(self, _: _Settled) -> Effects:
        """End: the agent has confirmed all that there was to say."""
        return self._leave("the job has finished")

    def _leave(self, why: str) -> Effects:
        yield Call(lambda: self._link.close(why))
        yield StopSelf()

    @property
    def _job(self) -> StartJob:
        assert self._order is not None, "nothing runs before StartJob"
        return self._order


SIGTERM = 15
SIGKILL = 9


def told(end: ProcessEnd) -> str:
    """Say how a command ended."""
    if end.signal is not None:
        return f"was killed by signal {end.signal}"
    return f"exited with code {end.exit_code}"
