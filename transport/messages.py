"""The whole vocabulary that an agent and a wrapper speak.

Two closed unions, `AgentMessage` and `WrapperMessage`, travel as the body of data frames.
Commands are imperatives, facts are in the past tense. Every struct is frozen and
keyword-only, carries an explicit tag that never changes, and is a map on the wire, so that a
field may be added with a default and an older peer skips it. Removing or renaming a field,
or changing a tag, makes a new message.

`Hello`, `Welcome` and the other frames of the session itself are in `transport.frames`:
an actor never sees them.

Times called ``at`` are UTC seconds since the epoch; durations end in ``_s``, sizes in
``_bytes``.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import ClassVar

import msgspec

from transport.secret import Secret


class Delivery(IntEnum):
    """What a full queue does with a message: the policy is part of the vocabulary."""

    CONTROL = 0
    """Has reserved room; only a flood of control messages is refused."""
    ORDERED = 1
    """Takes ordinary room; when that is full the sender is told and must hold it back."""
    LATEST = 2
    """Replaces the unsent one of the same kind: only the newest matters."""
    LOSSY = 3
    """Makes room by dropping the oldest of its class, which is counted."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the words that messages are made of."""


class Message(Record, frozen=True, kw_only=True, tag_field="type"):
    """Base of everything that is told to an actor or sent over a link."""

    delivery: ClassVar[Delivery] = Delivery.ORDERED


# --- words that messages are made of ---------------------------------------------------------


class JobStatus(StrEnum):
    """JAliEn's job states, by name; levels and transitions are in `actors.lifecycle`."""

    INSERTING = "INSERTING"
    UPDATING = "UPDATING"
    SPLITTING = "SPLITTING"
    SPLIT = "SPLIT"
    WAITING = "WAITING"
    ASSIGNED = "ASSIGNED"
    STARTED = "STARTED"
    RUNNING = "RUNNING"
    SAVING = "SAVING"
    SAVED = "SAVED"
    SAVED_WARN = "SAVED_WARN"
    ZOMBIE = "ZOMBIE"
    MERGING = "MERGING"
    DONE = "DONE"
    DONE_WARN = "DONE_WARN"
    ERROR_A = "ERROR_A"
    ERROR_I = "ERROR_I"
    ERROR_E = "ERROR_E"
    ERROR_IB = "ERROR_IB"
    ERROR_S = "ERROR_S"
    ERROR_SV = "ERROR_SV"
    ERROR_V = "ERROR_V"
    ERROR_VN = "ERROR_VN"
    ERROR_VT = "ERROR_VT"
    ERROR_EW = "ERROR_EW"
    ERROR_W = "ERROR_W"
    ERROR_SPLT = "ERROR_SPLT"
    ERROR_VER = "ERROR_VER"
    FAULTY = "FAULTY"
    INCORRECT = "INCORRECT"
    EXPIRED = "EXPIRED"
    KILLED = "KILLED"


class ProcessRole(StrEnum):
    """Which of a job's processes is meant."""

    WRAPPER = "wrapper"
    PAYLOAD = "payload"
    VALIDATION = "validation"


class CredentialKind(StrEnum):
    """What a job may ask the vault for."""

    CERTIFICATE = "certificate"
    TOKEN = "token"  # noqa: S105 - the kind's name, not a token


class KillCode(IntEnum):
    """JAliEn's kill reasons; 0 to 9 are ours, for what has no number there."""

    OPERATOR = 1
    """The pilot itself was told to stop; the job is given back."""
    FENCED = 2
    """The queue has given the job to someone else; nothing is to be reported."""
    WRAPPER_LOST = 3
    """The link to the wrapper broke or fell silent."""
    OUT_OF_MEMORY = 10
    TTL = 20
    CENTRAL_KILL = 30
    PREEMPTED = 40
    LOW_CPU = 50
    CORE_FILE = 60
    DISK = 70
    MEMORY = 80


class Failure(StrEnum):
    """The step in which a job failed, as the wrapper saw it."""

    STAGE_IN = "stage-in"
    START = "start"
    PAYLOAD = "payload"
    VALIDATION_FAILED = "validation-failed"
    VALIDATION_KILLED = "validation-killed"
    VALIDATION_UNRUNNABLE = "validation-unrunnable"
    OUTPUT_MISSING = "output-missing"
    STAGE_OUT = "stage-out"


class KillReason(Record, frozen=True, kw_only=True):
    """Who ended a job, when and why: one reason, kept from agent to wrapper to queue."""

    code: KillCode
    by: str
    at: float
    why: str


class ProcessIdentity(Record, frozen=True, kw_only=True):
    """A process as it sees itself: enough to find it from another PID namespace.

    ``pid_namespace`` is the inode of /proc/self/ns/pid, ``start_ticks`` field 22 of
    /proc/self/stat (clock ticks since boot), ``boot_id`` /proc/sys/kernel/random/boot_id.
    """

    pid: int
    pid_namespace: int
    start_ticks: int
    boot_id: str


class InputFile(Record, frozen=True, kw_only=True):
    """One file to stage in: where it is and what it is called in the work directory."""

    name: str
    source: str
    is_staged: bool = True
    """False for ``nodownload``: listed for the payload, not copied."""
    catalogue_name: str = ""


class OutputSpec(Record, frozen=True, kw_only=True):
    """One entry of Output, OutputArchive or OutputFile: patterns, and the archive if any."""

    patterns: tuple[str, ...]
    archive: str = ""
    """Name of the zip archive, or empty: each matching file is saved on its own."""
    copies: int = 2
    prefer: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    is_required: bool = True
    """True where the user named it: a pattern without a match is then ERROR_S."""


class Limits(Record, frozen=True, kw_only=True):
    """What a job may use. The payload has ``ttl_s``, saving ``saving_s`` more."""

    ttl_s: float
    saving_s: float = 300.0
    memory_bytes: int
    disk_bytes: int
    cpu_cores: int = 1


class JobDescription(Record, frozen=True, kw_only=True):
    """What a job asks for, parsed from its JDL or made by an embedding program."""

    executable: str
    arguments: tuple[str, ...] = ()
    name: str = ""
    validation_command: str = ""
    inputs: tuple[InputFile, ...] = ()
    input_data: tuple[InputFile, ...] = ()
    input_data_list: str = "wn.xml"
    input_data_list_format: str = "xml-single"
    outputs: tuple[OutputSpec, ...] = ()
    error_outputs: tuple[OutputSpec, ...] = ()
    """Saved instead of ``outputs`` when the payload failed (OutputErrorE)."""
    variables: dict[str, str] = {}
    """JDLVariables, already joined by ``##``; they become ALIEN_JDL_<NAME>."""
    packages: tuple[str, ...] = ()
    ttl_s: int = 21600
    cpu_cores: int = 1
    """0 asks for the whole node."""
    memory_bytes: int = 8_000_000_000
    disk_bytes: int = 10_000_000_000
    priority: int = 0
    price: float = 1.0
    requirements: str = ""
    user: str = ""
    master_job_id: int = 0
    output_dir: str = ""
    tags: tuple[str, ...] = ()
    container_image: str = ""
    unknown: dict[str, str] = {}
    """Keys that no version of the dialect names, as written: kept and reported."""
    container_image_digest: str = ""
    """``sha256:...`` that the image must have; empty: whatever it is."""


class Usage(Record, frozen=True, kw_only=True):
    """What a job used: totals and peaks over its life, and where the figures come from."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    memory_bytes: int = 0
    memory_peak_bytes: int = 0
    rss_bytes: int = 0
    disk_bytes: int = 0
    disk_peak_bytes: int = 0
    processes: int = 0
    threads: int = 0
    samples: int = 0
    source: str = ""
    """"pss" or "rss": which memory figure the peak is."""


class SavedFile(Record, frozen=True, kw_only=True):
    """An output that is safe: under its final name, with the checksums of its bytes."""

    name: str
    bytes: int
    sha256: str
    adler32: str
    location: str


class Outcome(Record, frozen=True, kw_only=True):
    """How a job ended, as far as the wrapper can tell."""

    exit_code: int | None = None
    signal: int | None = None
    failure: Failure | None = None
    reason: str = ""
    kill: KillReason | None = None
    outputs: tuple[SavedFile, ...] = ()
    has_warning: bool = False
    """True when saved with fewer replicas than were asked for: DONE_WARN."""


# --- agent -> wrapper ------------------------------------------------------------------------


class StartJob(Message, frozen=True, kw_only=True, tag="start-job"):
    """Agent to wrapper, once: run this attempt of this job.

    All paths are as the wrapper sees them: the launch plan has mapped them into the container.
    """

    delivery = Delivery.CONTROL
    job_id: int
    attempt: int
    description: JobDescription
    limits: Limits
    work_directory: str
    output_directory: str
    private_directory: str
    """Of the wrapper alone (0700), outside the payload's work directory: keys and tokens."""
    environment: dict[str, str] = {}
    credentials: tuple[CredentialKind, ...] = (CredentialKind.CERTIFICATE,)
    stop_grace_s: float = 5.0


class ConfigureLogging(Message, frozen=True, kw_only=True, tag="configure-logging"):
    """Agent to wrapper, first: the agent's own logging options, to be applied there too."""

    delivery = Delivery.CONTROL
    level: str
    format: str


class DeliverCredential(Message, frozen=True, kw_only=True, tag="deliver-credential"):
    """Agent to wrapper: the answer to `RequestCredential`, and again at each renewal."""

    delivery = Delivery.CONTROL
    kind: CredentialKind
    certificate_chain: str = ""
    token: Secret | None = None
    expires_at: float
    refusal: str = ""
    """Why there is none; the job then fails, as it can't do its work."""


class StopJob(Message, frozen=True, kw_only=True, tag="stop-job"):
    """Agent to wrapper: end the payload for this reason, then save what there is."""

    delivery = Delivery.CONTROL
    reason: KillReason
    grace_s: float


# --- wrapper -> agent ------------------------------------------------------------------------


class ProcessAnnounced(Message, frozen=True, kw_only=True, tag="process-announced"):
    """Wrapper to agent, for each process and again whenever it changes: rebind the Monitor."""

    role: ProcessRole
    process: ProcessIdentity
    at: float


class ConfinementReported(
    Message, frozen=True, kw_only=True, omit_defaults=True, tag="confinement-reported"
):
    """Wrapper to agent, at start: what it really got, to be held against what was asked."""

    namespaces: dict[str, int]
    """Kind (pid, mnt, user, ...) to inode."""
    uid_map: str
    mounts: tuple[str, ...]
    cgroup: str
    no_new_privileges: bool
    own_namespaces: tuple[str, ...] | None = None
    """Those that a bare wrapper entered itself; None where it can't know: in a container."""
    landlock: int = 0
    """ABI of the Landlock domain that the wrapper entered itself; 0: none."""
    payload_landlock: int = 0
    """And of the narrower one that its payload gets; 0: none."""


class RequestCredential(Message, frozen=True, kw_only=True, tag="request-credential"):
    """Wrapper to agent: a credential for this job; the private key stays in the wrapper."""

    kind: CredentialKind
    signing_request: str = ""
    """PEM PKCS#10, for certificates."""


class JobStatusChanged(Message, frozen=True, kw_only=True, tag="job-status-changed"):
    """Wrapper to agent: the job reached this status."""

    status: JobStatus
    at: float
    fields: dict[str, str] = {}


class TraceWritten(Message, frozen=True, kw_only=True, tag="trace-written"):
    """Wrapper to agent: a line for the job's trace in the queue."""

    text: str
    at: float


class LogWritten(Message, frozen=True, kw_only=True, tag="log-written"):
    """Wrapper to agent: one log record, for the agent's log; dropped first when room is short."""

    delivery = Delivery.LOSSY
    level: str
    logger: str
    text: str
    at: float


class FileStaged(Message, frozen=True, kw_only=True, tag="file-staged"):
    """Wrapper to agent: a file came in or went out. `JobFinished` names the saved ones again."""

    delivery = Delivery.LOSSY
    direction: str
    """"in" or "out"."""
    name: str
    bytes: int
    sha256: str = ""
    adler32: str = ""
    location: str = ""
    replicas: int = 1


class JobFinished(Message, frozen=True, kw_only=True, tag="job-finished"):
    """Wrapper to agent, last: how it ended; the wrapper exits when this is confirmed."""

    delivery = Delivery.CONTROL
    outcome: Outcome
    at: float


AgentMessage = StartJob | ConfigureLogging | DeliverCredential | StopJob
WrapperMessage = (
    ProcessAnnounced
    | ConfinementReported
    | RequestCredential
    | JobStatusChanged
    | TraceWritten
    | LogWritten
    | FileStaged
    | JobFinished
)
