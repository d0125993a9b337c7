"""Recording fakes of a wrapper's ports: commands that follow a script, staging, keys."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from actors.job_wrapper import WrapperPorts
from actors.ports import ProcessEnd, RunningCommand, SavedOutputs, StagedFile
from tests.fakes.watched import Gate, Watched, until_file
from tests.fakes.world import FakeClock, LogLines, identity
from transport.errors import UserError
from transport.messages import (
    ConfinementReported,
    CredentialKind,
    InputFile,
    JobDescription,
    OutputSpec,
    ProcessIdentity,
    Record,
)


class Script(Record, frozen=True, kw_only=True):
    """What a fake command does."""

    exit_code: int = 0
    signal: int | None = None
    """Ends of it by itself."""
    stdout: str = ""
    stderr: str = ""
    files: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    hangs: bool = False
    """Until it is signalled."""
    ignores: frozenset[int] = frozenset()
    """Signals that it doesn't die of."""
    waits_for: tuple[str, str] = ("", "")
    """Waits until this file (a path with ``$HOME`` and the like) contains this text."""
    error: str = ""
    """Why it can't be started."""


class FakeCommand(Watched):
    """A command that follows its script, in a work directory that may be a real one."""

    def __init__(
        self, pid: int, script: Script, directory: str, environment: Mapping[str, str]
    ) -> None:
        super().__init__()
        self.identity = identity(pid)
        self.script = script
        self.environment = dict(environment)
        self.signals: list[int] = []
        self.has_ended = False
        if Path(directory).is_dir():
            self._write(Path(directory))

    def _write(self, directory: Path) -> None:
        said = {"stdout": self.script.stdout, "stderr": self.script.stderr}
        for name, text in (*said.items(), *self.script.files.items()):
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as file:
                file.write(text)

    async def wait(self) -> ProcessEnd:
        """Wait for what the script waits for."""
        path, text = self.script.waits_for
        if path:
            await until_file(Path(Template(path).substitute(self.environment)), text)
        await self.until(lambda: self._deadly() or not self.script.hangs, patience_s=3600.0)
        self.has_ended = True
        if number := self._deadly() or self.script.signal:
            return ProcessEnd(signal=number)
        return ProcessEnd(exit_code=self.script.exit_code)

    def signal(self, number: int) -> None:
        """Record it, and perhaps die."""
        self.signals.append(number)
        self.has_ended = self.has_ended or bool(self._deadly())
        self.note()

    def _deadly(self) -> int:
        return next((number for number in self.signals if number not in self.script.ignores), 0)


class FakeRunner(Watched):
    """Starts the payload, then the validation: one script each, in this order."""

    def __init__(self, *scripts: Script) -> None:
        super().__init__()
        self._scripts = deque(scripts or (Script(),))
        self.gate = Gate()
        self.commands: list[FakeCommand] = []
        self.arguments: list[tuple[str, ...]] = []
        self.sweeps = 0
        self.left_over = 0
        self.sweep_gate = Gate()
        self.sweep_error: Exception | None = None

    def own_identity(self) -> ProcessIdentity:
        """Return the wrapper's own."""
        return identity(10)

    def confinement(self) -> ConfinementReported:
        """Return that there is none to speak of."""
        return ConfinementReported(
            namespaces={"pid": 1, "mnt": 2},
            uid_map="0 0 1",
            mounts=("/",),
            cgroup="",
            no_new_privileges=False,
        )

    async def start(
        self, arguments: Sequence[str], *, directory: str, environment: Mapping[str, str]
    ) -> RunningCommand:
        """Start the next script."""
        self.arguments.append(tuple(arguments))
        self.note()
        await self.gate.passed()
        script = self._scripts.popleft()
        if script.error:
            raise UserError(script.error)
        command = FakeCommand(20 + len(self.commands), script, directory, environment)
        self.commands.append(command)
        self.note()
        return command

    async def command(self, number: int = 0) -> FakeCommand:
        """Wait for a command that was started, and return it."""
        await self.until(lambda: len(self.commands) > number)
        return self.commands[number]

    async def sweep(self) -> int:
        """Kill what hangs still."""
        self.sweeps += 1
        self.note()
        await self.sweep_gate.passed()
        if self.sweep_error is not None:
            raise self.sweep_error
        for command in self.commands:
            if not command.has_ended:
                command.signal(9)
        return self.left_over


class FakeStager(Watched):
    """Stages nothing, and says what the test wants it to."""

    def __init__(self) -> None:
        super().__init__()
        self.stage_in_gate = Gate()
        self.stage_out_gate = Gate()
        self.stage_in_error: Exception | None = None
        self.stage_out_error: Exception | None = None
        self.staged: list[StagedFile] = []
        self.outputs = SavedOutputs()
        self.saved: list[tuple[OutputSpec, ...]] = []

    async def prepare(self, work_directory: str) -> None:
        """Make nothing."""

    async def stage_in(self, inputs: Sequence[InputFile], work_directory: str) -> list[StagedFile]:
        """Copy nothing."""
        await self.stage_in_gate.passed()
        if self.stage_in_error is not None:
            raise self.stage_in_error
        return self.staged

    async def write_input_list(self, description: JobDescription, work_directory: str) -> None:
        """Write nothing."""

    async def stage_out(
        self, outputs: Sequence[OutputSpec], work_directory: str, output_directory: str
    ) -> SavedOutputs:
        """Save nothing, and remember what was to be saved."""
        self.saved.append(tuple(outputs))
        self.note()
        await self.stage_out_gate.passed()
        if self.stage_out_error is not None:
            raise self.stage_out_error
        return self.outputs


class FakeKeyMaker(Watched):
    """Makes no key, and stores in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()
        self.request_error: Exception | None = None
        self.store_error: Exception | None = None
        self.stored: list[tuple[CredentialKind, str]] = []

    async def make_request(self, private_directory: str, common_name: str) -> str:
        """Return a request that says whom it is for."""
        await self.gate.passed()
        if self.request_error is not None:
            raise self.request_error
        return f"request of {common_name}"

    async def store(self, private_directory: str, kind: CredentialKind, text: str) -> str:
        """Remember it."""
        if self.store_error is not None:
            raise self.store_error
        self.stored.append((kind, text))
        self.note()
        return f"{private_directory}/{kind}"

    def environment(self, private_directory: str, kind: CredentialKind) -> dict[str, str]:
        """Name the path."""
        return {f"CREDENTIAL_{kind.name}": f"{private_directory}/{kind}"}


def wrapper_ports(
    runner: FakeRunner,
    *,
    stager: FakeStager | None = None,
    keys: FakeKeyMaker | None = None,
    log: LogLines | None = None,
) -> WrapperPorts:
    """Make a wrapper's ports, all of them fakes."""
    return WrapperPorts(
        runner=runner,
        stager=stager or FakeStager(),
        keys=keys or FakeKeyMaker(),
        clock=FakeClock(),
        configure_logging=lambda level, form: None,
        log=(log or LogLines()).agent,
    )
