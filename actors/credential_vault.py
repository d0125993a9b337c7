"""The CredentialVault: obtains a credential for each job, and renews it before it expires.

The job's private key is not here: it is born in the wrapper and never leaves it; what comes
is a signing request. A renewal signs the same request again, so the key stays and the
certificate changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

import msgspec

from actors.effects import (
    CancelWork,
    Effects,
    Recipient,
    Run,
    Schedule,
    Tell,
    Unschedule,
    WorkFailed,
)
from actors.lease import Lease
from actors.messages import (
    CredentialIssued,
    CredentialRefused,
    ForgetJob,
    IssueCredential,
)
from actors.ports import AgentIdentity, Authority, Clock
from actors.runtime import Actor, handles
from transport.errors import OperatorError
from transport.messages import CredentialKind, Message
from transport.secret import Secret

Key = tuple[int, int, CredentialKind]


class _Held(msgspec.Struct):
    """What the vault keeps of one job's credential: how to get the next one."""

    request: IssueCredential
    lease: Lease | None = None


class _Issued(Message, frozen=True, kw_only=True):
    key: Key
    certificate_chain: str = ""
    token: Secret | None = None
    expires_at: float


class _Renew(Message, frozen=True, kw_only=True):
    key: Key


class CredentialVault(Actor):
    """Holds no job's key; asks its authority, and pushes what it gets to the work units."""

    def __init__(
        self,
        authority: Authority,
        clock: Clock,
        *,
        identity: AgentIdentity | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        """Hold the agent's own ``identity``, which no job is ever given."""
        self.identity = identity
        self._authority = authority
        self._clock = clock
        self._timeout_s = timeout_s
        self._held: dict[Key, _Held] = {}

    @handles(IssueCredential)
    def issue(self, message: IssueCredential) -> Effects:
        """Ask the authority; the answer goes to ``reply_to``."""
        key = (message.identity.job_id, message.identity.attempt, message.kind)
        if key in self._held:
            refusal = CredentialRefused(kind=message.kind, why="it was issued already")
            yield Tell(message.reply_to, refusal)
            return
        self._held[key] = _Held(message)
        yield Run(_name(key), partial(self._ask, key, message))

    async def _ask(self, key: Key, request: IssueCredential) -> _Issued:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask_authority(key, request)
        except TimeoutError as error:
            why = f"the authority did not answer within {self._timeout_s:g} s"
            raise OperatorError(why) from error

    async def _ask_authority(self, key: Key, request: IssueCredential) -> _Issued:
        if request.kind is CredentialKind.TOKEN:
            token = await self._authority.token(request.identity)
            return _Issued(key=key, token=token.text, expires_at=token.expires_at)
        certificate = await self._authority.issue(request.identity, request.signing_request)
        return _Issued(
            key=key, certificate_chain=certificate.chain, expires_at=certificate.expires_at
        )

    @handles(_Issued)
    def issued(self, message: _Issued) -> Effects:
        """Hand it on, and plan its renewal."""
        held = self._held[message.key]
        held.lease = Lease.granted(self._clock.now(), message.expires_at)
        yield from self._plan(message.key, held.lease)
        yield Tell(
            held.request.reply_to,
            CredentialIssued(
                kind=message.key[2],
                certificate_chain=message.certificate_chain,
                token=message.token,
                expires_at=message.expires_at,
            ),
        )

    @handles(WorkFailed)
    def refused(self, message: WorkFailed) -> Effects:
        """Tell a refusal of a first credential; a renewal is tried again in time."""
        key = next(key for key in self._held if _name(key) == message.name)
        held = self._held[key]
        if held.lease is None:
            del self._held[key]
            why = str(message.error) or type(message.error).__name__
            yield Tell(held.request.reply_to, CredentialRefused(kind=key[2], why=why))
            return
        held.lease = held.lease.refused(self._clock.now())
        # Also when it has expired: the job may still need one, to save what it has.
        yield from self._plan(key, held.lease)

    def _plan(self, key: Key, lease: Lease) -> Effects:
        wait_s = max(0.1, lease.try_at - self._clock.now())
        yield Schedule(_name(key), wait_s, _Renew(key=key))

    @handles(_Renew)
    def renew(self, message: _Renew) -> Effects:
        """Ask for the next one with the same request: the key stays in the wrapper."""
        request = self._held[message.key].request
        yield Run(_name(message.key), partial(self._ask, message.key, request))

    @handles(ForgetJob)
    def forget(self, message: ForgetJob) -> Effects:
        """Renew nothing more for this attempt, and hear of nothing that is under way for it."""
        identity = message.identity
        for key in [key for key in self._held if key[:2] == (identity.job_id, identity.attempt)]:
            del self._held[key]
            yield Unschedule(_name(key))
            yield CancelWork(_name(key))

    @property
    def holders(self) -> Mapping[Key, Recipient]:
        """Return who holds what, for statistics and tests."""
        return {key: held.request.reply_to for key, held in self._held.items()}


def _name(key: Key) -> str:
    return f"issue {key[0]}.{key[1]} {key[2]}"
