"""One suite for two wirings: the wrapper in this process, and the wrapper as a bare child.

The agent, its vault, the Monitor, the work unit and the wrapper are the real ones in both, and
so are staging and keys. What differs is what is between agent and wrapper (memory or pipes),
and what the payload is: a script of the fakes, or a shell's.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from actors.job_agent import AgentOptions
from actors.job_wrapper import WrapperPorts
from actors.monitor import MonitorOptions
from actors.ports import (
    Answer,
    FinalReport,
    KillJob,
    LaunchOrder,
    LoseJob,
    StatusReport,
    UsageReport,
)
from actors.slots import Resources
from actors.work_unit import WorkOptions
from pilot import procfs
from pilot.containers.ladder import ContainerPolicy, Ladder
from pilot.in_process import InProcessLauncher
from pilot.job_files import JobFiles
from pilot.keys import FileKeyMaker
from pilot.launching import LauncherOptions, NodeLauncher
from pilot.node import Node, NodePorts
from pilot.process_table import LocalProcessTable
from pilot.staging import LocalStager
from tests.fakes.inside import FakeRunner, Script
from tests.fakes.watched import until_file
from tests.fakes.world import (
    GB,
    FakeAuthority,
    FakeClock,
    FakeProcessTable,
    FakeTaskQueue,
    LogLines,
    make_description,
)
from transport.messages import (
    InputFile,
    JobStatus,
    KillCode,
    OutputSpec,
    ProcessRole,
    Record,
    Usage,
)

S = JobStatus
RAN = [S.STARTED, S.RUNNING, S.SAVING]


class Job(Record, frozen=True, kw_only=True):
    """What a job does, told twice: to a shell, and as a script of the fakes."""

    shell: str = "exit 0"
    script: Script = Script()
    check: str = ""
    """Text of its validation, a shell script."""
    check_script: Script = Script()


SUCCEEDS = Job(
    shell="echo to stdout; echo to stderr >&2; echo data > result.txt",
    script=Script(stdout="to stdout\n", stderr="to stderr\n", files={"result.txt": "data\n"}),
)
HANGS = Job(
    shell="echo begun; echo half > result.txt; echo > ready; sleep 3600",
    script=Script(stdout="begun\n", files={"result.txt": "half\n", "ready": "\n"}, hangs=True),
)
WAITS_TO_GO = Job(
    shell="until [ -e go ]; do sleep 0.02; done", script=Script(waits_for=("$HOME/go", ""))
)


class Wiring:
    """A node's world: what the two wirings have in common, and what they don't."""

    is_real = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.state = directory / "state"
        self.queue = FakeTaskQueue()
        self.clock = FakeClock()
        self.log = LogLines()
        self.authority = FakeAuthority(self.clock)
        self.table = FakeProcessTable()
        self.jobs: dict[int, Job] = {}
        self.runners: list[FakeRunner] = []

    def start(self, scope: asyncio.TaskGroup, **options: Any) -> Node:
        """Run a node with one slot in ``scope``; it ends when it is drained."""
        node = Node(self.queue, self.ports(), make_options(**options))
        scope.create_task(node.run())
        return node

    def submit(self, job: Job, **asked: Any) -> int:
        """Put a job in line."""
        if job.check:
            check = self.directory / "check"
            check.write_text(f"#!/bin/sh\n{job.check}\n")
            asked["inputs"] = (InputFile(name="check", source=str(check)),)
            asked["validation_command"] = "./check"
        arguments = ("-c", job.shell)
        description = make_description(executable="/bin/sh", arguments=arguments, **asked)
        job_id = self.queue.submit(description)
        self.jobs[job_id] = job
        return job_id

    def file(self, name: str, job_id: int = 1) -> Path:
        """Return where a file of a job's work directory is."""
        return JobFiles.of(self.state, job_id, 1).work / name

    def ports(self) -> NodePorts:
        """Return the node's ports."""
        return NodePorts(
            launcher=InProcessLauncher(self._wrapper_ports, state=self.state),
            table=self.table,
            authority=self.authority,
            clock=self.clock,
            log=self.log.agent,
            job_log=lambda job_id, attempt: self.log.job,
            note_crash=self.log.crash,
        )

    def _wrapper_ports(self, order: LaunchOrder) -> WrapperPorts:
        job = self.jobs[order.job_id]
        runner = FakeRunner(job.script, job.check_script)
        self.runners.append(runner)
        return WrapperPorts(
            runner=runner,
            stager=LocalStager(),
            keys=FileKeyMaker(),
            clock=self.clock,
            configure_logging=lambda level, form: None,
            log=self.log.agent,
        )

    def survivors(self) -> list[str]:
        """Return what still runs of any job."""
        commands = [command for runner in self.runners for command in runner.commands]
        return [repr(command.script) for command in commands if not command.has_ended]


class RealWiring(Wiring):
    """The wrapper is a child process, and its payload a shell."""

    is_real = True

    def ports(self) -> NodePorts:
        """Return the node's ports, as this machine has them."""
        options = LauncherOptions(state=self.state, policy=ContainerPolicy.NEVER)
        return NodePorts(
            launcher=NodeLauncher(options, {"PATH": "/usr/bin:/bin"}, no_ladder),
            table=LocalProcessTable(),
            authority=self.authority,
            clock=self.clock,
            log=self.log.agent,
            job_log=lambda job_id, attempt: self.log.job,
            note_crash=self.log.crash,
        )

    def survivors(self) -> list[str]:
        """Return every process that was started for a job of this test."""
        mark = str(self.state).encode()
        running = (stat.pid for stat in procfs.all_processes() if stat.state != "Z")
        found = {pid: procfs.environment_of(pid) for pid in running}
        return [str(pid) for pid, environment in found.items() if mark in environment]


async def no_ladder() -> Ladder:
    """Refuse: no test here wants a container."""
    raise AssertionError


def make_options(*, queue_s: float = 0.05, **work: Any) -> AgentOptions:
    """Make the options of a node with one core that looks often and is patient."""
    values: dict[str, Any] = {
        "stop_grace_s": 60.0,
        "leave_s": 60.0,
        "usage_report_s": 0.1,
        "monitor": MonitorOptions(interval_s=0.1, disk_interval_s=0.1),
    }
    return AgentOptions(
        node="node",
        resources=Resources(cpu_cores=1, memory_bytes=8 * GB, disk_bytes=8 * GB),
        heartbeat_s=queue_s,
        poll_s=queue_s,
        work=WorkOptions(**(values | work)),
    )


@pytest.fixture(params=[Wiring, pytest.param(RealWiring, marks=pytest.mark.real)])
def wiring(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Wiring]:
    """Give a wiring; after the test, nothing of it may run, and nobody may have crashed."""
    made: Wiring = request.param(tmp_path)
    yield made
    assert made.survivors() == []
    assert "crash" not in made.log.text


async def run_to_the_end(wiring: Wiring, job: Job, **asked: Any) -> FinalReport:
    """Run one job and return its final report."""
    async with asyncio.TaskGroup() as scope:
        node = wiring.start(scope)
        final = await wiring.queue.until_final(wiring.submit(job, **asked))
        node.drain("the test is over")
    assert len(wiring.queue.finals()) == 1
    return final


def saved(final: FinalReport) -> dict[str, str]:
    """Return what a job saved: each file's text by name, those in archives too."""
    texts = {}
    for file in final.outputs:
        path = Path(file.location)
        assert path.stat().st_size == file.bytes
        if path.suffix == ".zip":
            with ZipFile(path) as archive:
                texts.update({name: archive.read(name).decode() for name in archive.namelist()})
        else:
            texts[file.name] = path.read_text()
    return texts


def required(*patterns: str) -> tuple[OutputSpec, ...]:
    """Name outputs that a job must have."""
    return (OutputSpec(patterns=patterns),)


# --- a job that nobody disturbs --------------------------------------------------------------


async def test_a_job_that_succeeds_is_done_and_its_outputs_are_safe(wiring: Wiring) -> None:
    """Statuses come in order, and the final report names the files."""
    final = await run_to_the_end(wiring, SUCCEEDS, outputs=required("result.txt"))

    assert wiring.queue.statuses() == [*RAN, S.DONE]
    assert (final.exit_code, final.reason, final.kill) == (0, "", None)
    assert saved(final)["result.txt"] == "data\n"


async def test_what_a_payload_prints_is_saved(wiring: Wiring) -> None:
    """Both streams, apart, whatever outputs were asked for."""
    final = await run_to_the_end(wiring, SUCCEEDS)

    texts = saved(final)
    assert texts["stdout"] == "to stdout\n"
    assert texts["stderr"] == "to stderr\n"


async def test_an_output_in_a_directory_is_where_the_report_says(wiring: Wiring) -> None:
    """Its place below the work directory is part of its name."""
    job = Job(
        shell="mkdir -p a/b; echo deep > a/b/deep.txt; echo top > deep.txt",
        script=Script(files={"a/b/deep.txt": "deep\n", "deep.txt": "top\n"}),
    )
    final = await run_to_the_end(wiring, job, outputs=required("a/b/*.txt", "deep.txt"))

    assert final.status is S.DONE
    assert saved(final)["a/b/deep.txt"] == "deep\n"
    assert saved(final)["deep.txt"] == "top\n"


async def test_a_job_leaves_only_its_outputs_on_the_node(wiring: Wiring) -> None:
    """The work directory and the key are gone when the final status is known."""
    await run_to_the_end(wiring, SUCCEEDS)

    left = {path.name for path in JobFiles.of(wiring.state, 1, 1).root.iterdir()}
    assert left <= {"output", "log"}


async def test_processes_and_usage_are_reported(wiring: Wiring) -> None:
    """The queue hears where the wrapper and the payload are, and what they use."""
    async with asyncio.TaskGroup() as scope:
        node = wiring.start(scope)
        wiring.submit(WAITS_TO_GO)
        await wiring.queue.until(lambda: len(wiring.queue.processes()) == 2)
        await wiring.queue.until(
            lambda: any(isinstance(report, UsageReport) for report in wiring.queue.reports)
        )
        wiring.file("go").touch()
        node.drain("the test is over")

    processes = wiring.queue.processes()
    assert {report.role for report in processes} == {ProcessRole.WRAPPER, ProcessRole.PAYLOAD}
    assert all(report.host_pid is not None for report in processes)


async def test_a_second_job_runs_when_the_first_has_ended(wiring: Wiring) -> None:
    """One core: one at a time, in the order of submission."""
    async with asyncio.TaskGroup() as scope:
        node = wiring.start(scope)
        first, second = wiring.submit(SUCCEEDS), wiring.submit(SUCCEEDS)
        await wiring.queue.until_final(second)
        node.drain("the test is over")

    order = [r.job_id for r in wiring.queue.reports if isinstance(r, StatusReport | FinalReport)]
    assert order == [first] * 4 + [second] * 4
    assert wiring.queue.statuses(second)[-1] is S.DONE


# --- failures, each with its status ----------------------------------------------------------


async def test_a_failed_payload_is_error_e_and_saves_its_error_outputs(wiring: Wiring) -> None:
    """What was to be its result is not kept, as it may be half of one."""
    job = Job(
        shell="echo half > result.txt; echo why > core.log; exit 3",
        script=Script(exit_code=3, files={"result.txt": "half\n", "core.log": "why\n"}),
    )
    final = await run_to_the_end(
        wiring, job, outputs=required("result.txt"), error_outputs=required("core.log")
    )

    assert wiring.queue.statuses() == [*RAN, S.ERROR_E]
    assert (final.exit_code, final.reason) == (3, "the payload exited with code 3")
    assert saved(final)["core.log"] == "why\n"
    assert "result.txt" not in saved(final)


async def test_a_payload_that_dies_of_a_signal_is_error_e(wiring: Wiring) -> None:
    """The reason names the signal."""
    job = Job(shell="kill -11 $$", script=Script(signal=11))
    final = await run_to_the_end(wiring, job)

    assert (final.status, final.reason) == (S.ERROR_E, "the payload was killed by signal 11")


async def test_a_payload_that_cannot_be_started_is_error_e(wiring: Wiring) -> None:
    """It was never RUNNING, so the queue doesn't hear that it was."""
    job = Job(script=Script(error="/no/such/program can't be started: No such file"))
    wiring.jobs[1] = job
    wiring.queue.submit(make_description(executable="/no/such/program"))
    async with asyncio.TaskGroup() as scope:
        node = wiring.start(scope)
        final = await wiring.queue.until_final()
        node.drain("the test is over")

    assert wiring.queue.statuses() == [S.STARTED, S.SAVING, S.ERROR_E]
    assert final.reason.startswith("/no/such/program can't be started")


@pytest.mark.parametrize(
    ("job", "status", "reason"),
    [
        (
            Job(check="exit 4", check_script=Script(exit_code=4)),
            S.ERROR_V,
            "the validation exited with code 4",
        ),
        (
            Job(check="kill -9 $$", check_script=Script(signal=9)),
            S.ERROR_VT,
            "the validation was killed by signal 9",
        ),
        (Job(check="exit 0", check_script=Script()), S.DONE, ""),
    ],
    ids=["fails", "is killed", "passes"],
)
async def test_a_validation_decides(
    wiring: Wiring, job: Job, status: JobStatus, reason: str
) -> None:
    """What it says of a payload that succeeded is the job's status."""
    final = await run_to_the_end(wiring, job)

    assert wiring.queue.statuses() == [*RAN, status]
    assert final.reason == reason


async def test_a_validation_that_cannot_run_is_error_vn(wiring: Wiring) -> None:
    """That is its own status: nobody knows whether the result is good."""
    job = Job(check_script=Script(error="./no-such-check can't be started: No such file"))
    final = await run_to_the_end(wiring, job, validation_command="./no-such-check")

    assert final.status is S.ERROR_VN
    assert "./no-such-check can't be started" in final.reason


async def test_a_missing_input_is_error_ib(wiring: Wiring) -> None:
    """The payload isn't started, and the reason names the input."""
    missing = InputFile(name="data.root", source=str(wiring.directory / "nowhere"))
    final = await run_to_the_end(wiring, SUCCEEDS, inputs=(missing,))

    assert wiring.queue.statuses() == [S.STARTED, S.SAVING, S.ERROR_IB]
    assert "'data.root'" in final.reason


async def test_a_missing_required_output_is_error_s(wiring: Wiring) -> None:
    """What is there is saved all the same."""
    final = await run_to_the_end(wiring, SUCCEEDS, outputs=required("result.txt", "other.txt"))

    assert wiring.queue.statuses() == [*RAN, S.ERROR_S]
    assert final.reason == "required output is missing: other.txt"
    assert saved(final)["result.txt"] == "data\n"


# --- limits ----------------------------------------------------------------------------------


async def test_a_job_over_its_ttl_is_stopped(wiring: Wiring) -> None:
    """ERROR_E, with the limit in the reason, and its logs saved."""
    final = await run_to_the_end(wiring, HANGS, ttl_s=2)

    assert (final.status, final.reason) == (S.ERROR_E, "over its TTL of 2 s")
    assert final.kill is not None
    assert final.kill.code is KillCode.TTL
    assert "stdout" in saved(final)


async def test_a_job_over_its_memory_is_stopped(wiring: Wiring) -> None:
    """Both figures are in the reason: what it used and what it asked for."""
    wiring.table.usage = Usage(memory_bytes=GB, rss_bytes=GB, source="pss")
    eats = f"exec {sys.executable} -c 'x = bytearray(300_000_000); import time; time.sleep(3600)'"
    job = Job(shell=eats, script=Script(hangs=True))
    final = await run_to_the_end(wiring, job, memory_bytes=100_000_000)

    assert final.status is S.ERROR_E
    assert "of memory (pss); asked for 100 MB, stopped above 120 MB" in final.reason
    assert final.kill is not None
    assert final.kill.code is KillCode.MEMORY
    assert final.usage.memory_peak_bytes > 120_000_000


async def test_a_job_over_its_disk_is_stopped(wiring: Wiring) -> None:
    """Disk is taken as written, without the margin that memory has."""
    wiring.table.disk = 20_000_000
    fills = "head -c 20000000 /dev/zero > big; sleep 3600"
    job = Job(shell=fills, script=Script(hangs=True))
    final = await run_to_the_end(wiring, job, disk_bytes=5_000_000)

    assert final.status is S.ERROR_E
    assert "of disk; the limit is 5 MB" in final.reason
    assert final.usage.disk_peak_bytes > 5_000_000


# --- commands of the queue -------------------------------------------------------------------


async def test_a_job_killed_by_its_owner_saves_its_logs(wiring: Wiring) -> None:
    """KILLED, with who and why, and what it had printed."""
    async with asyncio.TaskGroup() as scope:
        node = wiring.start(scope)
        job = wiring.submit(HANGS)
        await until_file(wiring.file("ready"))
        wiring.queue.order(KillJob(job_id=job, attempt=1, by="alice", why="changed my mind"))
        final = await wiring.queue.until_final(job)
        node.drain("the test is over")

    assert wiring.queue.statuses() == [*RAN, S.KILLED]
    assert final.reason == "changed my mind"
    assert final.kill is not None
    assert (final.kill.code, final.kill.by) == (KillCode.CENTRAL_KILL, "alice")
    assert saved(final)["stdout"] == "begun\n"


async def test_a_kill_of_another_attempt_is_ignored(wiring: Wiring) -> None:
    """It is stale: the job goes on, until a command for its own attempt comes."""
    async with asyncio.TaskGroup() as scope:
        node = wiring.start(scope)
        job = wiring.submit(HANGS)
        await until_file(wiring.file("ready"))
        wiring.queue.order(KillJob(job_id=job, attempt=2, by="alice", why="stale"))
        await wiring.queue.until(lambda: wiring.queue.commands_given)
        wiring.queue.order(KillJob(job_id=job, attempt=1, by="alice", why="right"))
        final = await wiring.queue.until_final(job)
        node.drain("the test is over")

    assert (final.status, final.reason) == (S.KILLED, "right")
    assert "stale" not in wiring.log.text


async def test_a_lost_job_is_ended_without_a_word(wiring: Wiring) -> None:
    """It is somebody else's now: the payload ends, and the queue hears nothing more of it."""
    async with asyncio.TaskGroup() as scope:
        node = wiring.start(scope, usage_report_s=3600.0)
        job = wiring.submit(HANGS)
        await until_file(wiring.file("ready"))
        await wiring.queue.until_status(S.RUNNING)
        await wiring.queue.until(lambda: len(wiring.queue.processes()) == 2)
        wiring.queue.order(LoseJob(job_id=job, attempt=1))
        await wiring.queue.until(lambda: wiring.queue.commands_given)
        heard = len(wiring.queue.calls)
        node.drain("the test is over")

    assert wiring.queue.statuses() == [S.STARTED, S.RUNNING]
    assert len(wiring.queue.calls) == heard


async def test_a_stale_answer_fences_the_job(wiring: Wiring) -> None:
    """One is enough: the payload ends, and no further report is sent."""
    async with asyncio.TaskGroup() as scope:
        node = wiring.start(scope)
        job = wiring.submit(HANGS)
        await until_file(wiring.file("ready"))
        await wiring.queue.until_status(S.RUNNING)
        wiring.queue.stale.add(job)
        node.drain("the test is over")

    answers = [answer for _, answer in wiring.queue.calls]
    assert answers.count(Answer.STALE) == 1
    assert answers[-1] is Answer.STALE
    assert wiring.queue.finals() == []


# --- a queue that is away --------------------------------------------------------------------


async def test_a_final_status_outlives_a_queue_that_is_away(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reports wait in order and are tried again; the end arrives once."""
    monkeypatch.setattr("actors.outbox.PAUSE_FIRST_S", 0.02)
    async with asyncio.TaskGroup() as scope:
        node = wiring.start(scope, usage_report_s=3600.0)
        job = wiring.submit(WAITS_TO_GO)
        await wiring.queue.until_status(S.RUNNING)
        wiring.queue.is_away = True
        wiring.file("go").touch()
        await wiring.log.until_said("warning: queue: ", 3)
        wiring.queue.is_away = False
        await wiring.queue.until_final(job)
        node.drain("the test is over")

    assert wiring.queue.statuses() == [*RAN, S.DONE]


async def test_a_lost_answer_makes_a_repetition_and_not_a_second_report(
    wiring: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every report is taken twice by the queue, which knows it again."""
    monkeypatch.setattr("actors.outbox.PAUSE_FIRST_S", 0.01)
    wiring.queue.loses_first_answers = True
    await run_to_the_end(wiring, SUCCEEDS)

    answers = [answer for _, answer in wiring.queue.calls]
    assert answers.count(Answer.DUPLICATE) == answers.count(Answer.ACCEPTED)
    assert wiring.queue.statuses() == [*RAN, S.DONE]


# --- draining and stopping -------------------------------------------------------------------


async def test_a_draining_node_finishes_what_it_has(wiring: Wiring) -> None:
    """And takes nothing new."""
    async with asyncio.TaskGroup() as scope:
        node = wiring.start(scope)
        wiring.submit(WAITS_TO_GO)
        await wiring.queue.until_status(S.RUNNING)
        node.drain("enough")
        wiring.submit(SUCCEEDS)
        wiring.file("go").touch()

    assert wiring.queue.statuses(1) == [*RAN, S.DONE]
    assert wiring.queue.statuses(2) == []


async def test_a_stopped_node_gives_its_job_back(wiring: Wiring) -> None:
    """WAITING, with the reason; there is no final report, since the job isn't at its end."""
    async with asyncio.TaskGroup() as scope:
        node = wiring.start(scope)
        wiring.submit(HANGS)
        await until_file(wiring.file("ready"))
        node.stop("operator", "the machine is needed")

    last = wiring.queue.reports[-1]
    assert isinstance(last, StatusReport)
    assert (last.status, last.reason) == (S.WAITING, "the machine is needed")
    assert wiring.queue.finals() == []


async def test_a_cancelled_node_leaves_nothing_running(wiring: Wiring) -> None:
    """It stops at once; the lease runs out, and the queue gives the job to another."""
    async with asyncio.TaskGroup() as scope:
        node = Node(wiring.queue, wiring.ports(), make_options())
        running = scope.create_task(node.run())
        wiring.submit(HANGS)
        await until_file(wiring.file("ready"))
        running.cancel()

    assert wiring.queue.finals() == []
    await until_nothing_survives(wiring)


async def until_nothing_survives(wiring: Wiring) -> None:
    """Wait for the kernel, which takes a moment to end what was killed."""
    async with asyncio.timeout(60):
        while wiring.survivors():  # noqa: ASYNC110 - processes can't be waited for from here
            await asyncio.sleep(0.02)


async def test_a_payload_that_ignores_term_is_killed_after_the_grace(wiring: Wiring) -> None:
    """What it wrote is saved; the reason is that of the stop, not that of the signal."""
    job = Job(
        shell="trap '' TERM; echo begun; echo > ready; sleep 3600",
        script=Script(stdout="begun\n", files={"ready": "\n"}, hangs=True, ignores=frozenset({15})),
    )
    async with asyncio.TaskGroup() as scope:
        node = wiring.start(scope, stop_grace_s=0.2)
        wiring.submit(job)
        await until_file(wiring.file("ready"))
        wiring.queue.order(KillJob(job_id=1, attempt=1, by="alice", why="enough"))
        final = await wiring.queue.until_final()
        node.drain("the test is over")

    assert (final.status, final.reason) == (S.KILLED, "enough")
    assert saved(final)["stdout"] == "begun\n"


# --- credentials -----------------------------------------------------------------------------


async def test_a_refused_credential_is_error_e(wiring: Wiring) -> None:
    """The payload isn't started without it, and the reason is the authority's."""
    wiring.authority = FakeAuthority(wiring.clock, refusal="alice may not")
    final = await run_to_the_end(wiring, SUCCEEDS)

    assert wiring.queue.statuses() == [S.STARTED, S.SAVING, S.ERROR_E]
    assert final.reason == "no certificate could be had: alice may not"


async def test_a_renewed_certificate_reaches_the_payload(wiring: Wiring) -> None:
    """At the same path, while the payload runs; the key and its request stay the same."""
    wiring.authority = FakeAuthority(wiring.clock, 0.3, 86400.0)
    job = Job(
        shell="""until grep -q 'certificate 2' "$JALIEN_TOKEN_CERT"; do sleep 0.05; done""",
        script=Script(waits_for=("$JALIEN_TOKEN_CERT", "certificate 2")),
    )
    final = await run_to_the_end(wiring, job)

    assert final.status is S.DONE
    requests = {request for _, request in wiring.authority.issued}
    assert len(requests) == 1


async def test_a_job_without_credentials_runs(wiring: Wiring) -> None:
    """What isn't asked for isn't waited for."""
    async with asyncio.TaskGroup() as scope:
        node = wiring.start(scope, credentials=())
        final = await wiring.queue.until_final(wiring.submit(SUCCEEDS))
        node.drain("the test is over")

    assert final.status is S.DONE
    assert wiring.authority.issued == []
