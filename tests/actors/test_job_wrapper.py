"""The JobWrapper, with the agent's end of the link in the test's hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from actors.job_wrapper import JobWrapper
from actors.messages import StopWork
from actors.outputs import OUTPUTS_MAX
from actors.ports import SavedOutputs, StagedFile
from actors.runtime import ActorSystem, Address
from actors.supervision import ChildSpec, Ending
from tests.fakes.hands import HandEnd
from tests.fakes.inside import FakeKeyMaker, FakeRunner, FakeStager, Script, wrapper_ports
from tests.fakes.world import LogLines, make_description, make_saved
from transport.errors import OperatorError, UserError
from transport.link import Link
from transport.memory import memory_link
from transport.messages import (
    ConfigureLogging,
    ConfinementReported,
    CredentialKind,
    DeliverCredential,
    Failure,
    FileStaged,
    JobFinished,
    JobStatus,
    JobStatusChanged,
    KillCode,
    KillReason,
    Limits,
    Outcome,
    ProcessAnnounced,
    ProcessRole,
    RequestCredential,
    SavedFile,
    StartJob,
    StopJob,
    TraceWritten,
)
from transport.secret import Secret

S = JobStatus
HANGS = Script(hangs=True)
IGNORES_TERM = Script(hangs=True, ignores=frozenset({15}))


class Bench:
    """A wrapper over fakes; its agent is the test."""

    def __init__(self, *scripts: Script) -> None:
        self.runner = FakeRunner(*scripts)
        self.stager = FakeStager()
        self.keys = FakeKeyMaker()
        self.log = LogLines()
        self.agent: HandEnd
        self.address: Address
        self.wrapper_end: Link
        self.ending: Ending | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[HandEnd]:
        """Run a wrapper; leaving waits for its own end."""
        near, self.wrapper_end = memory_link(epoch=3)
        self.agent = HandEnd(near)
        ports = wrapper_ports(self.runner, stager=self.stager, keys=self.keys, log=self.log)
        async with ActorSystem(on_crash=self.log.crash) as system:
            spec = ChildSpec(name="wrapper", make=lambda: JobWrapper(self.wrapper_end, ports))
            self.address = system.spawn(spec)
            yield self.agent
            async with asyncio.timeout(60):
                self.ending = await self.address.wait_ended()
        assert self.wrapper_end.is_closed

    async def outcome(self) -> Outcome:
        """Wait for the wrapper's last word."""
        finished: JobFinished = await self.agent.until_heard(JobFinished)
        return finished.outcome

    def statuses(self) -> list[JobStatus]:
        """Return what the wrapper reported."""
        return [message.status for message in self.agent.heard(JobStatusChanged)]

    def traces(self) -> str:
        """Return what the wrapper wrote into the trace."""
        return "\n".join(message.text for message in self.agent.heard(TraceWritten))


def order(
    *, credentials: tuple[CredentialKind, ...] = (), grace_s: float = 3600.0, **asked: Any
) -> StartJob:
    """Make the order of a small job."""
    return StartJob(
        job_id=1,
        attempt=1,
        description=make_description(**asked),
        limits=Limits(ttl_s=60.0, memory_bytes=1, disk_bytes=1),
        work_directory="/nowhere/work",
        output_directory="/output",
        private_directory="/private",
        environment={"HOME": "/nowhere/work"},
        credentials=credentials,
        stop_grace_s=grace_s,
    )


def stop(code: KillCode = KillCode.CENTRAL_KILL, *, grace_s: float = 3600.0) -> StopJob:
    """Make an order to stop."""
    return StopJob(reason=reason_of(code), grace_s=grace_s)


def reason_of(code: KillCode) -> KillReason:
    """Make a reason."""
    return KillReason(code=code, by="alice", at=0.0, why="enough")


CERTIFICATE = CredentialKind.CERTIFICATE


def delivered(text: str = "signed", **changes: Any) -> DeliverCredential:
    """Make an answer to a request."""
    fields: dict[str, Any] = {"kind": CERTIFICATE, "certificate_chain": text, "expires_at": 9.0}
    return DeliverCredential(**(fields | changes))


# --- the ordinary way ------------------------------------------------------------------------


async def test_a_wrapper_announces_itself_before_anything_else() -> None:
    """Who it is, and what it is confined to."""
    bench = Bench()
    async with bench.running() as agent:
        await agent.until_heard(ConfinementReported)
        agent.say(order())
        await bench.outcome()

    first, second = agent.received[:2]
    assert isinstance(first, ProcessAnnounced)
    assert first.role is ProcessRole.WRAPPER
    assert isinstance(second, ConfinementReported)


async def test_a_job_goes_its_way() -> None:
    """Announced before RUNNING; saved as a success; the link closed with a goodbye."""
    bench = Bench()
    bench.stager.outputs = SavedOutputs(files=(make_saved("result"),), notes=("a note",))
    bench.stager.staged = [StagedFile(name="in", bytes=5, sha256="00", adler32="00")]
    async with bench.running() as agent:
        agent.say(ConfigureLogging(level="debug", format="json"), order())
        outcome = await bench.outcome()

    assert bench.statuses() == [S.STARTED, S.RUNNING, S.SAVING]
    assert outcome == Outcome(exit_code=0, outputs=(make_saved("result"),))
    assert [(file.direction, file.name) for file in agent.heard(FileStaged)] == [
        ("in", "in"),
        ("out", "result"),
    ]
    assert "a note" in bench.traces()
    assert bench.ending is Ending.STOPPED


async def test_a_payload_waits_for_its_inputs_and_its_credentials() -> None:
    """Both; and what was delivered is told by its path."""
    bench = Bench()
    bench.stager.stage_in_gate.shut()
    both = (CERTIFICATE, CredentialKind.TOKEN)
    async with bench.running() as agent:
        agent.say(order(credentials=both))
        await agent.until_heard(RequestCredential, 2)
        agent.say(delivered())
        agent.say(delivered("", kind=CredentialKind.TOKEN, token=Secret("t0ken")))
        await bench.keys.until(lambda: len(bench.keys.stored) == 2)
        assert bench.runner.arguments == []
        bench.stager.stage_in_gate.open()
        await bench.outcome()

    requests = {request.kind: request.signing_request for request in agent.heard(RequestCredential)}
    assert requests == {CERTIFICATE: "request of job-1.1", CredentialKind.TOKEN: ""}
    assert set(bench.keys.stored) == {(CERTIFICATE, "signed"), (CredentialKind.TOKEN, "t0ken")}
    assert bench.runner.commands[0].environment == {
        "HOME": "/nowhere/work",
        "CREDENTIAL_CERTIFICATE": "/private/certificate",
        "CREDENTIAL_TOKEN": "/private/token",
    }


async def test_the_wrapper_stays_until_its_last_word_is_confirmed() -> None:
    """An agent that is slow to handle it loses nothing."""
    bench = Bench()
    async with bench.running() as agent:
        agent.say(order())
        await agent.until_heard(JobStatusChanged, 3)
        agent.confirms = False
        await bench.outcome()
        assert not bench.wrapper_end.is_closed
        for sequence in range(1, 40):
            agent.near.confirm(sequence)

    assert bench.ending is Ending.STOPPED


async def test_what_the_payload_left_running_is_swept_before_saving() -> None:
    """Nothing writes to what is being saved."""
    bench = Bench()
    bench.runner.left_over = 2
    bench.runner.sweep_gate.shut()
    async with bench.running() as agent:
        agent.say(order())
        await bench.runner.sweep_gate.until_reached()
        assert bench.stager.saved == []
        bench.runner.sweep_gate.open()
        await bench.outcome()

    assert "killed 2 processes that the payload left behind" in bench.traces()


async def test_a_sweep_that_fails_does_not_keep_the_outputs() -> None:
    """They are saved all the same."""
    bench = Bench()
    bench.runner.sweep_error = OSError("no /proc")
    async with bench.running() as agent:
        agent.say(order())
        outcome = await bench.outcome()

    assert outcome.failure is None
    assert len(bench.stager.saved) == 1


# --- failures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scripts", "failure"),
    [
        ((Script(exit_code=3),), Failure.PAYLOAD),
        ((Script(signal=11),), Failure.PAYLOAD),
        ((Script(error="no such program"),), Failure.START),
        ((Script(), Script(exit_code=1)), Failure.VALIDATION_FAILED),
        ((Script(), Script(signal=9)), Failure.VALIDATION_KILLED),
        ((Script(), Script(error="no such check")), Failure.VALIDATION_UNRUNNABLE),
    ],
)
async def test_a_failure_is_named_by_its_step(
    scripts: tuple[Script, ...], failure: Failure
) -> None:
    """And only the error outputs are saved."""
    bench = Bench(*scripts)
    async with bench.running() as agent:
        agent.say(order(validation_command="check it"))
        outcome = await bench.outcome()

    assert outcome.failure is failure
    assert outcome.exit_code == (None if failure is Failure.START else scripts[0].exit_code) or (
        outcome.signal == scripts[0].signal
    )
    assert [spec.archive for spec in bench.stager.saved[0]] == ["log_archive.zip"]


async def test_a_validation_gets_its_arguments() -> None:
    """Split on white space, as AliEn does."""
    bench = Bench(Script(), Script())
    async with bench.running() as agent:
        agent.say(order(validation_command="./check  it  well"))
        await bench.outcome()

    assert bench.runner.arguments == [("run",), ("./check", "it", "well")]
    roles = [message.role for message in agent.heard(ProcessAnnounced)]
    assert roles == [ProcessRole.WRAPPER, ProcessRole.PAYLOAD, ProcessRole.VALIDATION]


async def test_a_failed_stage_in_stops_all_preparations() -> None:
    """The payload isn't started, though the credential comes after all."""
    bench = Bench()
    bench.stager.stage_in_error = UserError("Input 'x' can't be read")
    async with bench.running() as agent:
        agent.say(order(credentials=(CERTIFICATE,)))
        await agent.until_heard(JobStatusChanged, 2)
        agent.say(delivered())
        outcome = await bench.outcome()

    assert (outcome.failure, outcome.reason) == (Failure.STAGE_IN, "Input 'x' can't be read")
    assert bench.runner.arguments == []
    assert bench.statuses() == [S.STARTED, S.SAVING]


@pytest.mark.parametrize("step", ["request", "store"])
async def test_a_key_that_cannot_be_made_or_stored_fails_the_job(step: str) -> None:
    """Without its credential a job can't do its work."""
    bench = Bench()
    error = OperatorError("no room for a key")
    if step == "request":
        bench.keys.request_error = error
    else:
        bench.keys.store_error = error
    async with bench.running() as agent:
        agent.say(order(credentials=(CERTIFICATE,)))
        if step == "store":
            await agent.until_heard(RequestCredential)
            agent.say(delivered())
        outcome = await bench.outcome()

    assert (outcome.failure, outcome.reason) == (Failure.START, "no room for a key")


async def test_a_refused_credential_fails_the_job() -> None:
    """With the authority's reason."""
    bench = Bench()
    async with bench.running() as agent:
        agent.say(order(credentials=(CERTIFICATE,)))
        await agent.until_heard(RequestCredential)
        agent.say(delivered("", refusal="not you"))
        outcome = await bench.outcome()

    assert outcome.failure is Failure.START
    assert outcome.reason == "no certificate could be had: not you"


async def test_a_renewal_that_fails_does_not_harm_a_running_payload() -> None:
    """The old credential serves until it expires; the trace says so."""
    bench = Bench(HANGS)
    async with bench.running() as agent:
        agent.say(order(credentials=(CERTIFICATE,)))
        await agent.until_heard(RequestCredential)
        agent.say(delivered("first"))
        command = await bench.runner.command()
        agent.say(delivered("second"))
        await bench.keys.until(lambda: len(bench.keys.stored) == 2)
        bench.keys.store_error = OperatorError("disk full")
        agent.say(delivered("third"), delivered("", refusal="not you any more"))
        await agent.until_heard(TraceWritten)
        command.signal(15)
        await bench.outcome()

    assert "store certificate failed: disk full" in bench.traces()
    assert [text for _, text in bench.keys.stored] == ["first", "second"]


async def test_outputs_that_cannot_be_saved_are_their_own_failure() -> None:
    """The payload succeeded; its exit code says so."""
    bench = Bench()
    bench.stager.stage_out_error = OperatorError("storage is away")
    async with bench.running() as agent:
        agent.say(order())
        outcome = await bench.outcome()

    assert (outcome.failure, outcome.reason) == (Failure.STAGE_OUT, "storage is away")
    assert outcome.exit_code == 0


async def test_the_first_failure_is_the_cause() -> None:
    """What goes wrong in saving what a failed payload left is only traced."""
    bench = Bench(Script(exit_code=3))
    bench.stager.stage_out_error = OperatorError("storage is away")
    async with bench.running() as agent:
        agent.say(order())
        outcome = await bench.outcome()

    assert outcome.failure is Failure.PAYLOAD
    assert "storage is away" in bench.traces()


async def test_missing_outputs_are_named() -> None:
    """All of them."""
    bench = Bench()
    bench.stager.outputs = SavedOutputs(files=(make_saved("a"),), missing=("b", "c*"))
    async with bench.running() as agent:
        agent.say(order())
        outcome = await bench.outcome()

    assert outcome.failure is Failure.OUTPUT_MISSING
    assert outcome.reason == "required output is missing: b, c*"
    assert len(outcome.outputs) == 1


async def test_too_many_outputs_are_refused_with_a_way_out() -> None:
    """The list of them travels in one frame."""
    bench = Bench()
    files = tuple(make_saved(f"file-{number}") for number in range(OUTPUTS_MAX + 1))
    bench.stager.outputs = SavedOutputs(files=files)
    async with bench.running() as agent:
        agent.say(order())
        outcome = await bench.outcome()

    assert outcome.failure is Failure.STAGE_OUT
    assert "use an archive" in outcome.reason
    assert len(outcome.outputs) == OUTPUTS_MAX


async def test_outputs_with_long_names_fit_into_the_last_word() -> None:
    """A name may have 4,000 letters, and a frame has its bound."""
    bench = Bench()
    files = tuple(
        SavedFile(name=f"{number}", bytes=1, sha256="0" * 64, adler32="0", location="x" * 4000)
        for number in range(2000)
    )
    bench.stager.outputs = SavedOutputs(files=files, missing=("y" * 4000,) * 2000)
    async with bench.running() as agent:
        agent.say(order())
        outcome = await bench.outcome()

    assert outcome.failure is Failure.STAGE_OUT
    assert 0 < len(outcome.outputs) < 2000
    assert "crash" not in bench.log.text


# --- stopping, at each stage -----------------------------------------------------------------


async def test_a_running_payload_is_asked_and_then_killed() -> None:
    """TERM, and after the grace KILL; the reason comes back."""
    bench = Bench(IGNORES_TERM)
    async with bench.running() as agent:
        agent.say(order())
        command = await bench.runner.command()
        await agent.until_heard(JobStatusChanged, 2)
        agent.say(stop(grace_s=0.01))
        outcome = await bench.outcome()

    assert command.signals == [15, 9]
    assert outcome.kill == reason_of(KillCode.CENTRAL_KILL)
    assert (outcome.signal, outcome.reason) == (9, "enough")


async def test_a_stop_without_grace_kills_at_once() -> None:
    """A fenced job has no time to lose."""
    bench = Bench(HANGS)
    async with bench.running() as agent:
        agent.say(order())
        command = await bench.runner.command()
        await agent.until_heard(JobStatusChanged, 2)
        agent.say(stop(KillCode.FENCED, grace_s=0.0))
        await bench.outcome()

    assert command.signals == [9]


async def test_a_payload_that_ends_well_when_it_is_stopped_was_stopped_all_the_same() -> None:
    """Its exit code is told; its outputs are not taken for good ones."""
    bench = Bench(Script(hangs=True, ignores=frozenset({15})))
    async with bench.running() as agent:
        agent.say(order(validation_command="check"))
        command = await bench.runner.command()
        await agent.until_heard(JobStatusChanged, 2)
        agent.say(stop())
        await command.until(lambda: command.signals)
        command.script = Script()
        command.signals.clear()
        command.note()
        outcome = await bench.outcome()

    assert (outcome.exit_code, outcome.kill) == (0, reason_of(KillCode.CENTRAL_KILL))
    assert len(bench.runner.arguments) == 1
    assert [spec.archive for spec in bench.stager.saved[0]] == ["log_archive.zip"]


async def test_a_stop_while_preparing_starts_no_payload() -> None:
    """What was being prepared is given up."""
    bench = Bench()
    bench.stager.stage_in_gate.shut()
    async with bench.running() as agent:
        agent.say(order())
        await bench.stager.stage_in_gate.until_reached()
        agent.say(stop())
        outcome = await bench.outcome()

    assert bench.statuses() == [S.STARTED, S.SAVING]
    assert outcome.kill is not None
    assert bench.runner.arguments == []


async def test_a_stop_while_the_payload_is_being_started_kills_it_as_soon_as_it_is_there() -> None:
    """There is no moment in which a stop is lost."""
    bench = Bench(IGNORES_TERM)
    bench.runner.gate.shut()
    async with bench.running() as agent:
        agent.say(order())
        await bench.runner.gate.until_reached()
        agent.say(stop())
        await agent.until_heard(TraceWritten)
        bench.runner.gate.open()
        outcome = await bench.outcome()

    assert bench.runner.commands[0].signals == [9]
    assert outcome.kill is not None


@pytest.mark.parametrize("script", [HANGS, Script(hangs=True, ignores=frozenset({15}))])
async def test_a_stop_while_validating_is_a_killed_validation(script: Script) -> None:
    """Whether it dies of TERM or ends by itself."""
    bench = Bench(Script(), script)
    async with bench.running() as agent:
        agent.say(order(validation_command="check"))
        command = await bench.runner.command(1)
        await agent.until_heard(ProcessAnnounced, 3)
        agent.say(stop(KillCode.TTL))
        await command.until(lambda: command.signals)
        if script is not HANGS:
            command.script = Script(exit_code=1)
            command.signals.clear()
            command.note()
        outcome = await bench.outcome()

    assert outcome.failure is Failure.VALIDATION_KILLED
    assert outcome.kill == reason_of(KillCode.TTL)


@pytest.mark.parametrize(
    ("code", "is_killed"), [(KillCode.CENTRAL_KILL, True), (KillCode.OPERATOR, False)]
)
async def test_a_stop_while_saving_lets_the_saving_end(code: KillCode, *, is_killed: bool) -> None:
    """The job has done its work: only its owner can still decide that it is to be killed."""
    bench = Bench()
    bench.stager.stage_out_gate.shut()
    async with bench.running() as agent:
        agent.say(order())
        await bench.stager.stage_out_gate.until_reached()
        agent.say(stop(code))
        await agent.near.wait_settled()
        bench.stager.stage_out_gate.open()
        outcome = await bench.outcome()

    assert (outcome.kill is not None) is is_killed
    assert len(bench.stager.saved) == 1


async def test_the_first_reason_is_kept() -> None:
    """A second stop only presses on."""
    bench = Bench(IGNORES_TERM)
    async with bench.running() as agent:
        agent.say(order())
        await bench.runner.command()
        await agent.until_heard(JobStatusChanged, 2)
        agent.say(stop(KillCode.TTL), stop(KillCode.MEMORY, grace_s=0.0))
        outcome = await bench.outcome()

    assert outcome.kill == reason_of(KillCode.TTL)


async def test_a_wrapper_that_is_told_to_end_itself_gives_the_job_back() -> None:
    """The node's TERM came to the wrapper's own process."""
    bench = Bench(HANGS)
    async with bench.running() as agent:
        agent.say(order())
        await bench.runner.command()
        await agent.until_heard(JobStatusChanged, 2)
        bench.address.tell(StopWork(reason=reason_of(KillCode.PREEMPTED)))
        outcome = await bench.outcome()

    assert outcome.kill == reason_of(KillCode.PREEMPTED)
    assert len(bench.stager.saved) == 1


async def test_a_wrapper_that_is_told_to_end_before_it_has_a_job_says_goodbye() -> None:
    """It doesn't leave its agent waiting for a silent link."""
    bench = Bench()
    async with bench.running() as agent:
        await agent.until_heard(ConfinementReported)
        bench.address.tell(StopWork(reason=reason_of(KillCode.PREEMPTED)))
        await agent.until_closed()

    assert bench.ending is Ending.STOPPED


# --- without an agent ------------------------------------------------------------------------


async def test_an_orphan_without_a_job_ends() -> None:
    """There is nothing to do."""
    bench = Bench()
    async with bench.running() as agent:
        await agent.until_open()
        agent.near.close("gone")

    assert bench.ending is Ending.STOPPED


async def test_an_orphan_stops_its_payload_and_ends() -> None:
    """With the grace that it was given; nobody could collect what it saved."""
    bench = Bench(IGNORES_TERM)
    async with bench.running() as agent:
        agent.say(order(grace_s=0.01))
        command = await bench.runner.command()
        agent.near.close("gone")

    assert command.signals[-2:] == [15, 9] or command.signals == [9]
    assert bench.stager.saved == []
    assert bench.runner.sweeps == 1


async def test_an_orphan_gives_its_preparations_up() -> None:
    """No payload is started for nobody."""
    bench = Bench()
    bench.stager.stage_in_gate.shut()
    async with bench.running() as agent:
        agent.say(order())
        await bench.stager.stage_in_gate.until_reached()
        agent.near.close("gone")

    assert bench.runner.arguments == []
    assert bench.stager.saved == []


async def test_an_orphan_kills_a_payload_that_is_being_started() -> None:
    """As soon as it is there."""
    bench = Bench(HANGS)
    bench.runner.gate.shut()
    async with bench.running() as agent:
        agent.say(order())
        await bench.runner.gate.until_reached()
        agent.near.close("gone")
        await bench.log.until_said("the agent is gone")
        bench.runner.gate.open()

    assert bench.runner.commands[0].signals == [9]


async def test_an_orphan_does_not_start_the_validation() -> None:
    """The payload ended well, for nobody."""
    bench = Bench(IGNORES_TERM, Script())
    async with bench.running() as agent:
        agent.say(order(validation_command="check"))
        command = await bench.runner.command()
        await agent.until_heard(JobStatusChanged, 2)
        agent.near.close("gone")
        await command.until(lambda: command.signals)
        command.script = Script()
        command.signals.clear()
        command.note()

    assert len(bench.runner.arguments) == 1


async def test_an_orphan_does_not_wait_for_a_storage_that_hangs() -> None:
    """What it was saving is for nobody."""
    bench = Bench()
    bench.stager.stage_out_gate.shut()
    async with bench.running() as agent:
        agent.say(order())
        await bench.stager.stage_out_gate.until_reached()
        agent.near.close("gone")

    assert bench.ending is Ending.STOPPED


async def test_an_orphan_whose_sweep_fails_ends() -> None:
    """There is nothing better to do."""
    bench = Bench(HANGS)
    bench.runner.sweep_error = OSError("no /proc")
    async with bench.running() as agent:
        agent.say(order(grace_s=0.0))
        await bench.runner.command()
        agent.near.close("gone")

    assert bench.stager.saved == []


async def test_an_orphan_with_its_last_word_unconfirmed_ends() -> None:
    """Nobody will confirm it."""
    bench = Bench()
    async with bench.running() as agent:
        agent.say(order())
        await agent.until_heard(JobStatusChanged, 3)
        agent.confirms = False
        await bench.outcome()
        agent.near.close("gone")

    assert bench.ending is Ending.STOPPED


async def test_a_payload_that_cannot_be_killed_does_not_keep_an_orphan_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It hangs in the kernel; a bounded number of KILLs, and the wrapper ends."""
    monkeypatch.setattr("actors.job_wrapper.KILL_AGAIN_S", 0.01)
    bench = Bench(Script(hangs=True, ignores=frozenset({15, 9})))
    async with bench.running() as agent:
        agent.say(order(grace_s=0.0))
        command = await bench.runner.command()
        agent.near.close("gone")

    assert set(command.signals) == {9}
    assert bench.ending is Ending.STOPPED


# --- our own mistakes ------------------------------------------------------------------------


async def test_a_crashed_wrapper_takes_its_payload_along() -> None:
    """A second job is our agent's mistake; the payload of the first doesn't outlive the crash."""
    bench = Bench(HANGS)
    with pytest.raises(Exception, match="second job"):  # noqa: PT012 - the wrapper ends by itself
        async with bench.running() as agent:
            agent.say(order())
            await bench.runner.command()
            await agent.until_heard(JobStatusChanged, 2)
            agent.say(order())

    assert bench.runner.commands[0].signals == [9]
