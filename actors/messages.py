"""What actors of one process tell each other; the link's words are in `transport.messages`."""

from __future__ import annotations

from actors.effects import Recipient
from actors.ports import HostProcess, JobIdentity
from transport.events import SessionEvent
from transport.messages import (
    CredentialKind,
    Delivery,
    KillCode,
    KillReason,
    Message,
    ProcessAnnounced,
    ProcessIdentity,
    ProcessRole,
    Usage,
)
from transport.secret import Secret


class FromLink(Message, frozen=True, kw_only=True):
    """Link to its owner: something happened on the link; handling it confirms a message."""

    delivery = Delivery.CONTROL
    event: SessionEvent


# --- the Monitor -----------------------------------------------------------------------------


class Watch(Message, frozen=True, kw_only=True):
    """Work unit to Monitor: a process announced itself; bind to it (again)."""

    delivery = Delivery.CONTROL
    announced: ProcessAnnounced


class ProcessBound(Message, frozen=True, kw_only=True):
    """Monitor to work unit: where an announced process is on the host (None: not there)."""

    role: ProcessRole
    process: ProcessIdentity
    host: HostProcess | None


class UsageSampled(Message, frozen=True, kw_only=True):
    """Monitor to work unit: what the job uses; only the newest matters."""

    delivery = Delivery.LATEST
    usage: Usage


class LimitExceeded(Message, frozen=True, kw_only=True):
    """Monitor to work unit: the job uses more than it may; said once for each limit."""

    delivery = Delivery.CONTROL
    code: KillCode
    why: str


class ProcessGone(Message, frozen=True, kw_only=True):
    """Monitor to work unit: a process that was bound isn't there any more. An ordinary fact."""

    role: ProcessRole


# --- the CredentialVault ---------------------------------------------------------------------


class IssueCredential(Message, frozen=True, kw_only=True):
    """Work unit to vault: a credential for this job, now and renewed until `ForgetJob`."""

    identity: JobIdentity
    kind: CredentialKind
    signing_request: str
    reply_to: Recipient


class CredentialIssued(Message, frozen=True, kw_only=True):
    """Vault to work unit: a credential, the first and each renewed one."""

    delivery = Delivery.CONTROL
    kind: CredentialKind
    certificate_chain: str = ""
    token: Secret | None = None
    expires_at: float


class CredentialRefused(Message, frozen=True, kw_only=True):
    """Vault to work unit: there is none, and why."""

    delivery = Delivery.CONTROL
    kind: CredentialKind
    why: str


class ForgetJob(Message, frozen=True, kw_only=True):
    """Work unit to vault: the attempt is over; renew nothing more."""

    delivery = Delivery.CONTROL
    identity: JobIdentity


# --- the JobAgent and its work units ---------------------------------------------------------


class StopWork(Message, frozen=True, kw_only=True):
    """Agent to work unit: end this attempt for this reason."""

    delivery = Delivery.CONTROL
    reason: KillReason


class Drain(Message, frozen=True, kw_only=True):
    """Node to agent: take no more jobs; end when the present ones have ended."""

    delivery = Delivery.CONTROL
    why: str


class StopAll(Message, frozen=True, kw_only=True):
    """Node to agent: drain, and stop the present jobs; they are given back to the queue."""

    delivery = Delivery.CONTROL
    by: str
    why: str
