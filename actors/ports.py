"""What the actors need from the world: one Protocol each, and the words they speak.

`pilot/` has a real and a simulated implementation of each, of the same name. An actor is
given its ports and knows nothing of what is behind them. Methods that may wait are async and
are bounded by whoever calls them; a method that isn't async never waits.

Paths are absolute, sizes bytes, durations seconds, times UTC seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from transport.link import Link
from transport.messages import (
    ConfinementReported,
    CredentialKind,
    InputFile,
    JobDescription,
    JobStatus,
    KillReason,
    OutputSpec,
    ProcessIdentity,
    ProcessRole,
    Record,
    SavedFile,
    Usage,
)
from transport.secret import Secret


class Clock(Protocol):
    """Time for records and time for durations; a simulation has its own."""

    def now(self) -> float:
        """Return UTC seconds since the epoch: for records, never for durations."""
        ...

    def monotonic(self) -> float:
        """Return seconds of a clock that never jumps, the event loop's."""
        ...


# --- the task queue --------------------------------------------------------------------------


class Slot(Record, frozen=True, kw_only=True):
    """What a node offers, in a request for a match: free resources, not totals."""

    node: str
    site: str = ""
    cpu_cores: int
    memory_bytes: int
    disk_bytes: int
    time_left_s: float
    is_whole_node: bool = False
    """True when nothing runs here, so that a job with CPUCores = 0 may take it all."""


class Match(Record, frozen=True, kw_only=True):
    """A job handed to this node: it is ASSIGNED here until the lease runs out."""

    job_id: int
    attempt: int
    description: JobDescription
    lease_s: float


class Report(Record, frozen=True, kw_only=True):
    """A fact about one attempt for the queue.

    ``sequence`` counts an attempt's reports from 1 without gaps, so a report that comes twice
    is known by it; a report of an attempt that isn't the job's present one is stale.
    """

    job_id: int
    attempt: int
    sequence: int
    at: float


class ImageUsed(Record, frozen=True, kw_only=True):
    """The container image that a job runs in."""

    reference: str
    """As the job or the settings name it."""
    digest: str = ""
    """``sha256:...`` of what it was, where that is known."""


class StatusReport(Report, frozen=True, kw_only=True):
    """The job reached a status. WAITING gives it back, for a new attempt."""

    status: JobStatus
    reason: str = ""
    container: str | None = None
    """With STARTED: the runtime's name, or None for bare."""
    image: ImageUsed | None = None
    """With STARTED, in a container."""


class TraceReport(Report, frozen=True, kw_only=True):
    """A line for the job's trace."""

    text: str


class ProcessReport(Report, frozen=True, kw_only=True):
    """A process of the job: its PID as it sees itself, and on the host where it was found."""

    role: ProcessRole
    pid: int
    host_pid: int | None
    start_ticks: int


class UsageReport(Report, frozen=True, kw_only=True):
    """What the job used so far."""

    usage: Usage


class FinalReport(Report, frozen=True, kw_only=True):
    """The job reached its final status: everything that is known of its end, at once."""

    status: JobStatus
    exit_code: int | None
    reason: str
    kill: KillReason | None = None
    usage: Usage = Usage()
    outputs: tuple[SavedFile, ...] = ()


AnyReport = StatusReport | TraceReport | ProcessReport | UsageReport | FinalReport


class Answer(StrEnum):
    """What the queue says to a report: expected refusals are replies, not exceptions."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    """This sequence was taken before; nothing changed. As good as accepted."""
    STALE = "stale"
    """The attempt isn't the job's present one, or the job is final: stop working on it."""
    REFUSED = "refused"
    """The status graph has no such step; the report is dropped and the job goes on."""


class HeldJob(Record, frozen=True, kw_only=True):
    """A job that this node holds, in a heartbeat."""

    job_id: int
    attempt: int


class Heartbeat(Record, frozen=True, kw_only=True):
    """One for the whole node: renews the lease of each job held."""

    node: str
    jobs: tuple[HeldJob, ...]


class KillJob(Record, frozen=True, kw_only=True):
    """Command from the queue: end this attempt."""

    job_id: int
    attempt: int
    by: str
    why: str


class LoseJob(Record, frozen=True, kw_only=True):
    """Command from the queue: this attempt isn't yours any more; end it and say nothing."""

    job_id: int
    attempt: int


class DrainNode(Record, frozen=True, kw_only=True):
    """Command from the queue: take no more jobs."""

    why: str


Command = KillJob | LoseJob | DrainNode


class TaskQueue(Protocol):
    """The central task queue, as an agent sees it.

    Each method raises `transport.errors.OperatorError` when the queue can't be reached or
    can't answer now; the agent tries again with back-off, and the same report may then come
    twice.
    """

    async def match(self, slot: Slot) -> Match | None:
        """Take the best waiting job that fits ``slot``, atomically, or None."""
        ...

    async def report(self, report: AnyReport) -> Answer:
        """Take one fact: idempotent by (job, attempt, sequence), fenced by the attempt."""
        ...

    async def heartbeat(self, beat: Heartbeat) -> tuple[Command, ...]:
        """Renew the leases and return what the node has to do."""
        ...


# --- starting wrappers -----------------------------------------------------------------------


class LaunchOrder(Record, frozen=True, kw_only=True):
    """A wrapper to start: for which attempt, and what the job says about its surroundings."""

    job_id: int
    attempt: int
    description: JobDescription


class WrapperExit(Record, frozen=True, kw_only=True):
    """How the launched process (the wrapper, or the container runtime around it) ended."""

    exit_code: int | None = None
    signal: int | None = None
    diagnosis: str = ""
    """A sentence made of the exit code and what was written to stderr, for the trace."""


class LaunchedWrapper(Protocol):
    """A started wrapper, as its work unit holds it."""

    link: Link
    launcher_pid: int
    """Host PID of the process that was started: the wrapper itself, or the runtime around it.
    0 where the wrapper is an actor of this very process."""
    container: str | None
    """Name of the container runtime, or None when bare."""
    image: ImageUsed | None
    """The container's, or None when bare."""
    traces: tuple[str, ...]
    """Why it was launched this way: for the job's trace."""
    work_directory: str
    """On the host: what the Monitor measures."""
    mark: str
    """The attempt's unique environment marker, in all its processes."""
    paths: WrapperPaths
    """Where things are, as the wrapper sees them."""

    async def wait(self) -> WrapperExit:
        """Wait until the launched process has ended."""
        ...

    def host_path(self, location: str) -> str:
        """Return where a file that the wrapper saved is on the host."""
        ...

    def signal(self, number: int) -> None:
        """Send a signal to the launched process; does nothing when it is gone."""
        ...

    def failed_to_start(self, why: str) -> bool:
        """Take that it died before its first word; return whether the next is launched otherwise.

        So it is for a container that was seen working and broke: the next launch avoids it.
        """
        ...


class WrapperPaths(Record, frozen=True, kw_only=True):
    """Where things are, as the wrapper sees them."""

    work_directory: str
    output_directory: str
    private_directory: str
    inputs: tuple[InputFile, ...] = ()
    """The job's inputs and input data with their sources mapped; same order as described."""
    environment: dict[str, str] = msgspec.field(default_factory=dict)


class WrapperLauncher(Protocol):
    """Starts wrappers: as a child process, in a container, or in this process."""

    async def launch(self, order: LaunchOrder) -> LaunchedWrapper:
        """Start a wrapper for ``order``.

        Raises `transport.errors.OperatorError` when the node can't, and
        `transport.errors.UserError` when what the job asks for can't be had.
        """
        ...

    async def rescue(self, order: LaunchOrder) -> tuple[SavedFile, ...]:
        """Save what a wrapper left that died before it could; as for a failed job."""
        ...

    async def clean(self, order: LaunchOrder) -> None:
        """Remove what the attempt left on the node's disk, but for its outputs and its log."""
        ...


# --- following processes ---------------------------------------------------------------------


class HostProcess(Record, frozen=True, kw_only=True):
    """A process as the host sees it; the start time tells it from a later one of that PID."""

    pid: int
    start_ticks: int


class ProcessTable(Protocol):
    """The node's processes: find, measure, signal, and sweep a job's."""

    async def locate(self, launcher_pid: int, process: ProcessIdentity) -> HostProcess | None:
        """Find the host-side PID of a process that announced itself; None if it isn't there."""
        ...

    async def sample(self, roots: Sequence[HostProcess], *, precise: bool) -> Usage | None:
        """Measure the trees under ``roots``: CPU, memory, processes, threads now.

        ``precise`` asks for PSS, which is dear; None when no root is there any more.
        """
        ...

    async def disk_bytes(self, directory: str) -> int:
        """Return the bytes that a directory's files occupy; 0 when it isn't there."""
        ...

    def signal(self, process: HostProcess, number: int) -> bool:
        """Signal exactly this process; False when it is gone."""
        ...

    async def sweep(self, mark: str, launcher_pid: int, *, deadline_s: float) -> int:
        """Kill whatever a finished attempt left running; return how many there were.

        ``mark`` is the attempt's unique environment marker.
        """
        ...


# --- credentials -----------------------------------------------------------------------------


class JobIdentity(Record, frozen=True, kw_only=True):
    """Whom a job's credential is for."""

    job_id: int
    attempt: int
    user: str


class Certificate(Record, frozen=True, kw_only=True):
    """A signed certificate with its chain, PEM, leaf first."""

    chain: str
    expires_at: float


class AgentIdentity(Record, frozen=True, kw_only=True):
    """Who the agent is to its services: a certificate with its chain, and the key for it."""

    certificate: Certificate
    key: Secret
    spiffe_id: str


class Token(Record, frozen=True, kw_only=True):
    """A bearer token for a job."""

    text: Secret
    expires_at: float


class Authority(Protocol):
    """Signs certificates and hands out tokens: on the node now, the queue service later."""

    async def issue(self, identity: JobIdentity, signing_request: str) -> Certificate:
        """Sign for ``identity``, whatever names the request itself asks for.

        Raises `transport.errors.UserError` when the request is broken or its key unfit.
        """
        ...

    async def token(self, identity: JobIdentity) -> Token:
        """Return a bearer token; raises `transport.errors.OperatorError` when there is none."""
        ...


# --- inside the wrapper ----------------------------------------------------------------------


class ProcessEnd(Record, frozen=True, kw_only=True):
    """How a payload or a validation ended: one of the two."""

    exit_code: int | None = None
    signal: int | None = None


class RunningCommand(Protocol):
    """A started payload or validation, in a session of its own."""

    identity: ProcessIdentity

    async def wait(self) -> ProcessEnd:
        """Wait for its end."""
        ...

    def signal(self, number: int) -> None:
        """Signal the command and everything that it started."""
        ...


class CommandRunner(Protocol):
    """Starts the payload and the validation."""

    def own_identity(self) -> ProcessIdentity:
        """Return this process's identity."""
        ...

    def confinement(self) -> ConfinementReported:
        """Return what the kernel says this process is confined to."""
        ...

    async def start(
        self, arguments: Sequence[str], *, directory: str, environment: Mapping[str, str]
    ) -> RunningCommand:
        """Start a command, its stdio to the job's stdout and stderr files.

        Raises `transport.errors.UserError` when it can't be started.
        """
        ...

    async def sweep(self) -> int:
        """Kill whatever the commands left behind; return how many there were."""
        ...


class StagedFile(Record, frozen=True, kw_only=True):
    """An input that is in the work directory now."""

    name: str
    bytes: int
    sha256: str
    adler32: str


class SavedOutputs(Record, frozen=True, kw_only=True):
    """What stage-out saved, and what it could not."""

    files: tuple[SavedFile, ...] = ()
    missing: tuple[str, ...] = ()
    """Required patterns that matched nothing."""
    notes: tuple[str, ...] = ()
    """Empty archives left out, and other things to tell the job's owner."""


class Stager(Protocol):
    """Moves files in and out of the work directory."""

    async def prepare(self, work_directory: str) -> None:
        """Make the work directory's own parts (tmp)."""
        ...

    async def stage_in(self, inputs: Sequence[InputFile], work_directory: str) -> list[StagedFile]:
        """Copy the inputs; raise `transport.errors.UserError` naming the one that can't be."""
        ...

    async def write_input_list(self, description: JobDescription, work_directory: str) -> None:
        """Write the list of input data in the format asked for; nothing where there is none."""
        ...

    async def stage_out(
        self, outputs: Sequence[OutputSpec], work_directory: str, output_directory: str
    ) -> SavedOutputs:
        """Archive and save; raise `transport.errors.OperatorError` when saving fails."""
        ...


class KeyMaker(Protocol):
    """Makes the job's key where the job runs; the key never leaves it."""

    async def make_request(self, private_directory: str, common_name: str) -> str:
        """Write a new private key (0600) and return the PEM signing request for it."""
        ...

    async def store(self, private_directory: str, kind: CredentialKind, text: str) -> str:
        """Write a certificate chain or a token (0600, atomically) and return its path."""
        ...

    def environment(self, private_directory: str, kind: CredentialKind) -> dict[str, str]:
        """Return the variables that tell a payload where a stored credential is: paths only."""
        ...
