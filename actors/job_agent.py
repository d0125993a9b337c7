"""The JobAgent: one for a node. It asks for matches and has a work unit for each job.

It owns the slots: what is offered is what is free. It renews the leases of all jobs with one
heartbeat, takes the queue's commands from the answer, and drains when it is told to or its
time is up: once draining, nothing new is asked for, and when the last job has ended the agent
ends.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from actors.bounds import tried, within
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
from actors.messages import Drain, ForgetJob, StopAll, StopWork
from actors.ports import (
    Clock,
    Command,
    DrainNode,
    Heartbeat,
    HeldJob,
    JobIdentity,
    KillJob,
    LaunchOrder,
    LoseJob,
    Match,
    ProcessTable,
    Slot,
    TaskQueue,
    WrapperLauncher,
)
from actors.reporter import JobLog
from actors.runtime import Actor, handles
from actors.slots import Resources, SlotBook
from actors.supervision import ChildEnded, ChildSpec, Ending
from actors.work_unit import UnitPorts, WorkOptions, WorkUnit
from transport.errors import PilotError
from transport.messages import Delivery, KillCode, KillReason, Message


class AgentOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the node offers and how often the agent speaks to the queue."""

    node: str
    site: str = ""
    resources: Resources
    time_left_s: float = 7 * 86400.0
    heartbeat_s: float = 5.0
    queue_s: float = 60.0
    """For an answer of the queue; then it is asked again."""
    poll_s: float = 1.0
    """Between two requests for a match that found nothing; grows to ten times as much."""
    work: WorkOptions = WorkOptions()


class AgentPorts(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent needs from the world, and the vault beside it."""

    queue: TaskQueue
    launcher: WrapperLauncher
    table: ProcessTable
    clock: Clock
    vault: Recipient
    log: Callable[[str, str], None]
    """Takes (level, text)."""
    job_log: Callable[[int, int], JobLog]
    """Makes the log of one attempt."""


class _Matched(Message, frozen=True, kw_only=True):
    match: Match | None


class _Beaten(Message, frozen=True, kw_only=True):
    delivery = Delivery.CONTROL
    commands: tuple[Command, ...]


class _Cleaned(Message, frozen=True, kw_only=True):
    job_id: int
    troubles: tuple[str, ...]


class _AskAgain(Message, frozen=True, kw_only=True):
    """Agent to itself: time to look for work."""


class _BeatAgain(Message, frozen=True, kw_only=True):
    """Agent to itself: time for a heartbeat."""

    delivery = Delivery.CONTROL


class JobAgent(Actor):
    """Runs jobs until it is drained."""

    def __init__(self, ports: AgentPorts, options: AgentOptions) -> None:
        self._ports = ports
        self._options = options
        self._slots = SlotBook(options.resources)
        self._units: dict[int, Match] = {}
        self._empty_answers = 0
        self._is_matching = False
        self._draining = ""
        self._stopping: StopAll | None = None
        self._ends_at = ports.clock.monotonic() + options.time_left_s

    def started(self) -> Effects:
        """Ask for work, and start the heart."""
        yield from self._ask_for_work()
        yield Schedule("heartbeat", self._options.heartbeat_s, _BeatAgain())
        yield Schedule("time", self._options.time_left_s, Drain(why="the node's time is up"))

    # --- matching ------------------------------------------------------------------------

    def _ask_for_work(self) -> Effects:
        if self._is_matching or self._draining:
            return
        slot = self._slots.offer(
            node=self._options.node,
            site=self._options.site,
            time_left_s=self._ends_at - self._ports.clock.monotonic(),
        )
        if slot is not None:
            self._is_matching = True
            yield Unschedule("match")
            yield Run("match", partial(self._match, slot))

    async def _match(self, slot: Slot) -> _Matched:
        ask = partial(self._ports.queue.match, slot)
        return _Matched(match=await within(self._options.queue_s, "the answer", ask))

    @handles(_AskAgain)
    def ask_again(self, _: _AskAgain) -> Effects:
        """Look for work."""
        return self._ask_for_work()

    @handles(_Matched)
    def matched(self, message: _Matched) -> Effects:
        """Start a work unit for a match, and ask on; without one, wait a little."""
        self._is_matching = False
        match = message.match
        if match is None:
            yield from self._ask_later()
            return
        self._empty_answers = 0
        if match.job_id in self._units or not self._slots.take(match.job_id, match.description):
            # Not held, so its lease runs out and the queue gives it to someone else.
            text = f"job {match.job_id} was matched, but does not fit what is free here"
            yield Call(partial(self._ports.log, "error", text))
            yield from self._ask_later()
            return
        self._units[match.job_id] = match
        yield SpawnChild(self._unit_spec(match))
        if self._stopping is not None:
            # It was under way when all were stopped: it goes back like the others.
            yield from self._stop_for(match, self._stopping)
        yield from self._ask_for_work()

    def _ask_later(self) -> Effects:
        self._empty_answers += 1
        patience = min(10, self._empty_answers)
        if not self._draining:
            yield Schedule("match", self._options.poll_s * patience, _AskAgain())
        yield from self._end_if_drained()

    def _unit_spec(self, match: Match) -> ChildSpec:
        # When it crashes it still ends its wrapper, and sweeps: it is given the time for that.
        grace_s = 4 * self._options.work.leave_s
        make = partial(self._unit, match)
        return ChildSpec(name=_name(match.job_id), make=make, grace_s=grace_s)

    def _unit(self, match: Match) -> WorkUnit:
        ports = UnitPorts(
            queue=self._ports.queue,
            launcher=self._ports.launcher,
            table=self._ports.table,
            clock=self._ports.clock,
            vault=self._ports.vault,
            log=self._ports.job_log(match.job_id, match.attempt),
        )
        return WorkUnit(match, ports, self._options.work)

    # --- work units ----------------------------------------------------------------------

    @handles(ChildEnded)
    def unit_ended(self, message: ChildEnded) -> Effects:
        """Free its slot; one that crashed left files and a credential, and its lease runs out."""
        job_id = int(message.name.removeprefix("job-"))
        match = self._units[job_id]
        if message.ending is Ending.CRASHED:
            user = match.description.user
            identity = JobIdentity(job_id=job_id, attempt=match.attempt, user=user)
            yield Tell(self._ports.vault, ForgetJob(identity=identity))
            yield Run(f"clean {job_id}", partial(self._clean, match))
        else:
            yield from self._release(job_id)

    async def _clean(self, match: Match) -> _Cleaned:
        order = LaunchOrder(
            job_id=match.job_id, attempt=match.attempt, description=match.description
        )
        clean = partial(self._ports.launcher.clean, order)
        troubles: list[str] = []
        await tried(self._options.work.saving_s, "removing files", clean, None, troubles)
        return _Cleaned(job_id=match.job_id, troubles=tuple(troubles))

    @handles(_Cleaned)
    def cleaned(self, message: _Cleaned) -> Effects:
        """Free the slot of a unit that crashed."""
        for trouble in message.troubles:
            text = f"job {message.job_id}, whose work unit was lost: {trouble}"
            yield Call(partial(self._ports.log, "warning", text))
        yield from self._release(message.job_id)

    def _release(self, job_id: int) -> Effects:
        del self._units[job_id]
        self._slots.give_back(job_id)
        self._empty_answers = 0
        yield from self._ask_for_work()
        yield from self._end_if_drained()

    # --- the heartbeat -------------------------------------------------------------------

    @handles(_BeatAgain)
    def beat_again(self, _: _BeatAgain) -> Effects:
        """Renew the leases of what is held, also when that is nothing: commands come back."""
        held = tuple(
            HeldJob(job_id=match.job_id, attempt=match.attempt) for match in self._units.values()
        )
        yield Run("heartbeat", partial(self._beat, Heartbeat(node=self._options.node, jobs=held)))

    async def _beat(self, beat: Heartbeat) -> _Beaten:
        say = partial(self._ports.queue.heartbeat, beat)
        return _Beaten(commands=await within(self._options.queue_s, "the answer", say))

    @handles(_Beaten)
    def beaten(self, message: _Beaten) -> Effects:
        """Do what the queue wants done."""
        yield Schedule("heartbeat", self._options.heartbeat_s, _BeatAgain())
        for command in message.commands:
            yield from self._obey(command)

    def _obey(self, command: Command) -> Effects:
        match command:
            case KillJob(job_id=job_id, attempt=attempt, by=by, why=why):
                yield from self._stop_unit(job_id, attempt, KillCode.CENTRAL_KILL, by, why)
            case LoseJob(job_id=job_id, attempt=attempt):
                why = "the queue gave the job away"
                yield from self._stop_unit(job_id, attempt, KillCode.FENCED, "queue", why)
            case DrainNode(why=why):
                yield from self._drain(why)

    def _stop_unit(self, job_id: int, attempt: int, code: KillCode, by: str, why: str) -> Effects:
        """Stop exactly this attempt: a command for another one is stale."""
        match = self._units.get(job_id)
        if match is not None and match.attempt == attempt:
            reason = KillReason(code=code, by=by, at=self._ports.clock.now(), why=why)
            # Told when this is performed: the unit may be spawned by an effect before it.
            yield Call(lambda: self.me.child(_name(job_id)).tell(StopWork(reason=reason)))

    @handles(WorkFailed)
    def work_failed(self, message: WorkFailed) -> Effects:
        """Try the queue again later; what isn't the queue's is our own mistake."""
        if not isinstance(message.error, PilotError):
            raise message.error
        yield Call(partial(self._ports.log, "warning", f"{message.name}: {message.error}"))
        if message.name == "match":
            self._is_matching = False
            yield from self._ask_later()
        else:
            yield Schedule("heartbeat", self._options.heartbeat_s, _BeatAgain())

    # --- draining ------------------------------------------------------------------------

    @handles(Drain)
    def drain(self, message: Drain) -> Effects:
        """Take nothing new; end when the present jobs have."""
        return self._drain(message.why)

    def _drain(self, why: str) -> Effects:
        if not self._draining:
            self._draining = why
            yield Call(partial(self._ports.log, "info", f"draining: {why}"))
        yield Unschedule("match")
        yield from self._end_if_drained()

    def _end_if_drained(self) -> Effects:
        # A match under way may still bring a job, which is then seen through.
        if self._draining and not self._units and not self._is_matching:
            yield StopSelf()

    @handles(StopAll)
    def stop_all(self, message: StopAll) -> Effects:
        """Drain, and stop what runs: the jobs go back to the queue."""
        self._stopping = message
        yield from self._drain(message.why)
        for match in tuple(self._units.values()):
            yield from self._stop_for(match, message)

    def _stop_for(self, match: Match, stop: StopAll) -> Effects:
        code = KillCode.OPERATOR
        return self._stop_unit(match.job_id, match.attempt, code, stop.by, stop.why)


def _name(job_id: int) -> str:
    return f"job-{job_id}"
