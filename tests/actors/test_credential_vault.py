"""The CredentialVault: issuing, refusing, renewing in time, forgetting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from actors.credential_vault import CredentialVault
from actors.messages import CredentialIssued, CredentialRefused, ForgetJob, IssueCredential
from actors.ports import Certificate, JobIdentity, Token
from actors.runtime import ActorSystem, Address
from actors.supervision import ChildSpec
from tests.actors.fakes import Mailbox, settle, until
from transport.errors import OperatorError, UserError
from transport.messages import CredentialKind
from transport.secret import Secret

CERTIFICATE, TOKEN = CredentialKind.CERTIFICATE, CredentialKind.TOKEN


class LoopClock:
    """The loop's own time, and a UTC that moves with it, so that timers and leases agree."""

    def now(self) -> float:
        return 1_700_000_000.0 + self.monotonic()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class RecordingAuthority:
    """An authority that keeps what it was asked, and answers by its rule."""

    def __init__(self, clock: LoopClock, lifetime_s: float) -> None:
        self.clock = clock
        self.lifetime_s = lifetime_s
        self.asked: list[tuple[int, int, str]] = []
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def issue(self, identity: JobIdentity, signing_request: str) -> Certificate:
        number = await self._ask(identity, signing_request)
        return Certificate(chain=f"chain {number}", expires_at=self._expires_at())

    async def token(self, identity: JobIdentity) -> Token:
        number = await self._ask(identity, "token")
        return Token(text=Secret(f"token {number}"), expires_at=self._expires_at())

    async def _ask(self, identity: JobIdentity, what: str) -> int:
        self.asked.append((identity.job_id, identity.attempt, what))
        number = len(self.asked)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return number

    def _expires_at(self) -> float:
        return self.clock.now() + self.lifetime_s


class Bench:
    """One vault with its authority, and a work unit that asks it."""

    def __init__(self, lifetime_s: float, timeout_s: float) -> None:
        self.clock = LoopClock()
        self.authority = RecordingAuthority(self.clock, lifetime_s)
        self.unit = Mailbox()
        self.timeout_s = timeout_s
        self.vaults: list[CredentialVault] = []
        self.address: Address

    def make(self) -> CredentialVault:
        vault = CredentialVault(self.authority, self.clock, timeout_s=self.timeout_s)
        self.vaults.append(vault)
        return vault

    def ask(self, job_id: int = 7, attempt: int = 1, kind: CredentialKind = CERTIFICATE) -> None:
        """Ask for a credential."""
        self.address.tell(
            IssueCredential(
                identity=whose(job_id, attempt),
                kind=kind,
                signing_request=f"request of {job_id}.{attempt}",
                reply_to=self.unit,
            )
        )

    def forget(self, job_id: int = 7, attempt: int = 1) -> None:
        """Say that an attempt is over."""
        self.address.tell(ForgetJob(identity=whose(job_id, attempt)))

    @property
    def issued(self) -> list[CredentialIssued]:
        return [m for m in self.unit.messages if isinstance(m, CredentialIssued)]

    @property
    def refused(self) -> list[CredentialRefused]:
        return [m for m in self.unit.messages if isinstance(m, CredentialRefused)]

    async def until(self, condition: Callable[[], bool]) -> None:
        await until(condition)


@asynccontextmanager
async def issuing(lifetime_s: float = 3600.0, timeout_s: float = 30.0) -> AsyncIterator[Bench]:
    """Run a vault; it mustn't crash, whatever its authority does."""
    bench = Bench(lifetime_s, timeout_s)
    crashes: list[Exception] = []
    async with (
        asyncio.timeout(10),
        ActorSystem(lambda _, error: crashes.append(error)) as system,
    ):
        bench.address = system.spawn(ChildSpec(name="vault", make=bench.make))
        yield bench
    assert crashes == []


def whose(job_id: int = 7, attempt: int = 1) -> JobIdentity:
    """Return whom a credential is for."""
    return JobIdentity(job_id=job_id, attempt=attempt, user="alice")


def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let refusals be borne in milliseconds."""
    monkeypatch.setattr("actors.lease.RETRY_FIRST_S", 0.001)
    monkeypatch.setattr("actors.lease.RETRY_MAX_S", 0.004)


# --- the first one ---------------------------------------------------------------------------


async def test_a_certificate_is_issued_for_the_job_s_own_request() -> None:
    """The authority signs what the wrapper made; the chain goes to whoever asked."""
    async with issuing() as bench:
        bench.ask()
        await bench.until(lambda: bool(bench.issued))

        assert bench.authority.asked == [(7, 1, "request of 7.1")]
        (found,) = bench.issued
        assert (found.kind, found.certificate_chain, found.token) == (CERTIFICATE, "chain 1", None)
        assert found.expires_at > bench.clock.now()


async def test_a_token_is_handed_on_as_a_secret() -> None:
    """Nobody can print it on the way."""
    async with issuing() as bench:
        bench.ask(kind=TOKEN)
        await bench.until(lambda: bool(bench.issued))

        (found,) = bench.issued
        assert found.kind is TOKEN
        assert found.token is not None
        assert found.token.reveal() == "token 1"
        assert "token 1" not in repr(found)


async def test_each_kind_and_each_attempt_is_held_apart() -> None:
    """A job may have a certificate and a token, and so may its next attempt."""
    async with issuing() as bench:
        for attempt in (1, 2):
            bench.ask(attempt=attempt)
            bench.ask(attempt=attempt, kind=TOKEN)
        await bench.until(lambda: len(bench.issued) == 4)

        assert set(bench.vaults[0].holders) == {
            (7, attempt, kind) for attempt in (1, 2) for kind in (CERTIFICATE, TOKEN)
        }
        assert set(bench.vaults[0].holders.values()) == {bench.unit}


async def test_a_second_request_for_the_same_is_refused() -> None:
    """It was issued already, and comes renewed without being asked for."""
    async with issuing() as bench:
        bench.ask()
        bench.ask()
        await bench.until(lambda: bool(bench.refused) and bool(bench.issued))

        assert bench.refused[0].why == "it was issued already"
        assert len(bench.authority.asked) == 1


async def test_a_refusal_is_told_and_forgotten() -> None:
    """With the authority's own words; the job may ask again."""
    async with issuing() as bench:
        bench.authority.error = UserError("the key has only 1024 bits")
        bench.ask()
        await bench.until(lambda: bool(bench.refused))
        assert bench.refused[0].why == "the key has only 1024 bits"
        assert bench.vaults[0].holders == {}
        bench.authority.error = None
        bench.ask()
        await bench.until(lambda: bool(bench.issued))


async def test_an_error_without_words_is_told_by_its_name() -> None:
    """A refusal always says something."""
    async with issuing() as bench:
        bench.authority.error = ConnectionResetError()
        bench.ask()
        await bench.until(lambda: bool(bench.refused))

        assert bench.refused[0].why == "ConnectionResetError"


async def test_an_authority_that_does_not_answer_has_refused() -> None:
    """A job doesn't wait for ever before it can start."""
    async with issuing(timeout_s=0.002) as bench:
        bench.authority.gate.clear()
        bench.ask()
        await bench.until(lambda: bool(bench.refused))

        assert bench.refused[0].why == "the authority did not answer within 0.002 s"


# --- renewal ---------------------------------------------------------------------------------


async def test_a_credential_is_renewed_before_it_expires() -> None:
    """With the same request, so that the key stays; and pushed to who holds it, again and again."""
    async with issuing(lifetime_s=0.3) as bench:
        bench.ask()
        await bench.until(lambda: len(bench.issued) == 3)

        assert bench.authority.asked == [(7, 1, "request of 7.1")] * 3
        assert [found.certificate_chain for found in bench.issued] == [
            "chain 1",
            "chain 2",
            "chain 3",
        ]
        assert bench.issued[0].expires_at > bench.issued[1].expires_at - 0.3


async def test_a_refused_renewal_is_tried_again_and_nobody_is_told() -> None:
    """The present one is still good; when the authority is back, the next is pushed."""
    async with issuing(lifetime_s=0.3) as bench:
        bench.ask()
        await bench.until(lambda: bool(bench.issued))
        bench.authority.error = OperatorError("the authority is away")
        await bench.until(lambda: len(bench.authority.asked) >= 2)
        await settle()
        bench.authority.error = None
        await bench.until(lambda: len(bench.issued) == 2)

        assert bench.refused == []


async def test_renewal_goes_on_after_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    """An authority that comes back late still saves a job that has to store its outputs."""
    quick_retries(monkeypatch)
    async with issuing(lifetime_s=0.15) as bench:
        bench.ask()
        await bench.until(lambda: bool(bench.issued))
        bench.authority.error = OperatorError("the authority is away")
        expires_at = bench.issued[0].expires_at
        await bench.until(lambda: bench.clock.now() > expires_at)
        count = len(bench.authority.asked)
        await bench.until(lambda: len(bench.authority.asked) > count + 1)
        bench.authority.error = None
        await bench.until(lambda: len(bench.issued) == 2)


# --- forgetting ------------------------------------------------------------------------------


async def test_a_forgotten_job_is_not_renewed() -> None:
    """None of its credentials; other jobs' and other attempts' are."""
    async with issuing(lifetime_s=0.15) as bench:
        bench.ask()
        bench.ask(kind=TOKEN)
        bench.ask(attempt=2)
        await bench.until(lambda: len(bench.issued) == 3)
        bench.forget()
        await bench.until(lambda: len(bench.authority.asked) == 5)

        assert set(bench.authority.asked[3:]) == {(7, 2, "request of 7.2")}
        assert set(bench.vaults[0].holders) == {(7, 2, CERTIFICATE)}


async def test_an_answer_that_comes_after_forgetting_is_dropped() -> None:
    """Nobody is told, and nothing is held."""
    async with issuing() as bench:
        bench.authority.gate.clear()
        bench.ask()
        await bench.until(lambda: bool(bench.authority.asked))
        bench.forget()
        await settle()
        bench.authority.gate.set()
        await settle()

        assert bench.unit.messages == []
        assert bench.vaults[0].holders == {}


async def test_a_refusal_that_comes_after_forgetting_is_dropped() -> None:
    """Like an answer."""
    async with issuing() as bench:
        bench.authority.gate.clear()
        bench.authority.error = OperatorError("away")
        bench.ask()
        await bench.until(lambda: bool(bench.authority.asked))
        bench.forget()
        await settle()
        bench.authority.gate.set()
        await settle()

        assert bench.unit.messages == []


async def test_what_was_forgotten_while_it_was_asked_for_may_be_asked_for_again() -> None:
    """At once: the request under way is not in the way."""
    async with issuing() as bench:
        bench.authority.gate.clear()
        bench.ask()
        await bench.until(lambda: bool(bench.authority.asked))
        bench.forget()
        bench.ask()
        await bench.until(lambda: len(bench.authority.asked) == 2)
        bench.authority.gate.set()
        await bench.until(lambda: bool(bench.issued))

        assert [found.certificate_chain for found in bench.issued] == ["chain 2"]


async def test_forgetting_what_is_not_held_does_nothing() -> None:
    """A job that never asked ends too."""
    async with issuing() as bench:
        bench.forget(8)
        bench.ask()
        await bench.until(lambda: bool(bench.issued))
