"""A wrapper in this process: how it begins, and every way in which it can end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from actors.ports import LaunchOrder, SavedOutputs, WrapperExit
from pilot.in_process import EXIT_CRASHED, InProcessLauncher, InProcessWrapper
from tests.fakes.hands import HandEnd
from tests.fakes.inside import FakeRunner, FakeStager, Script, wrapper_ports
from tests.fakes.world import LogLines, make_description, make_saved
from transport.events import CloseCause, Opened
from transport.messages import (
    JobFinished,
    JobStatusChanged,
    KillCode,
    Limits,
    ProcessAnnounced,
    StartJob,
)

ORDER = LaunchOrder(job_id=3, attempt=2, description=make_description())


class Bench:
    """A launcher over fakes, and what a work unit does with it."""

    def __init__(self, state: Path, *scripts: Script) -> None:
        self.runner = FakeRunner(*scripts)
        self.stager = FakeStager()
        self.log = LogLines()
        self.launcher = InProcessLauncher(
            lambda order: wrapper_ports(self.runner, stager=self.stager, log=self.log),
            state=state,
            on_disk=False,
        )

    async def launch(self) -> tuple[InProcessWrapper, HandEnd]:
        """Launch a wrapper; return it, and the agent's end of its link in the test's hand."""
        wrapper = await self.launcher.launch(ORDER)
        assert isinstance(wrapper, InProcessWrapper)
        return wrapper, HandEnd(wrapper.link)


def start_job(wrapper: InProcessWrapper) -> StartJob:
    """Make the order to run."""
    return StartJob(
        job_id=3,
        attempt=2,
        description=ORDER.description,
        limits=Limits(ttl_s=60.0, memory_bytes=1, disk_bytes=1),
        work_directory=wrapper.paths.work_directory,
        output_directory=wrapper.paths.output_directory,
        private_directory=wrapper.paths.private_directory,
        environment=wrapper.paths.environment,
        credentials=(),
    )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Give a launcher whose payload hangs."""
    return Bench(tmp_path, Script(hangs=True))


async def test_a_wrapper_runs_while_it_is_waited_for(tmp_path: Path) -> None:
    """To its end in good order: exit code 0, the link closed with a goodbye."""
    bench = Bench(tmp_path)
    wrapper, agent = await bench.launch()
    agent.say(start_job(wrapper))
    exit_of = await wrapper.wait()
    closed = await agent.until_closed()

    assert exit_of == WrapperExit(exit_code=0)
    assert closed.cause is CloseCause.GOODBYE
    assert len(agent.heard(JobFinished)) == 1
    assert await wrapper.wait() == exit_of


async def test_a_wrapper_is_launched_as_on_a_real_node(bench: Bench, tmp_path: Path) -> None:
    """The same paths and the same environment; only that there is no process."""
    wrapper, agent = await bench.launch()
    second, _ = await bench.launch()

    assert (wrapper.launcher_pid, wrapper.container) == (0, None)
    assert wrapper.paths.work_directory == f"{tmp_path}/jobs/3/2/work" == wrapper.work_directory
    assert wrapper.paths.environment["ALIEN_PROC_ID"] == "3"
    assert wrapper.paths.environment["PILOT_MARK"] == wrapper.mark
    assert wrapper.mark != second.mark
    assert wrapper.host_path("/any/where") == "/any/where"
    assert list(tmp_path.iterdir()) == []
    for launched in (wrapper, second):
        launched.signal(9)
        await launched.wait()
    await agent.until_closed()


async def test_epochs_are_chosen_by_whoever_makes_the_launcher(tmp_path: Path) -> None:
    """A simulation has its own, from its seed."""
    launcher = InProcessLauncher(
        lambda order: wrapper_ports(FakeRunner()),
        state=tmp_path,
        on_disk=False,
        next_epoch=lambda: 41,
    )
    wrapper = await launcher.launch(ORDER)
    agent = HandEnd(wrapper.link)
    await agent.until_open()
    wrapper.signal(9)
    await wrapper.wait()

    opened = next(event for event in agent.events if isinstance(event, Opened))
    assert opened.epoch == 41


async def test_kill_ends_a_wrapper_without_a_word(bench: Bench) -> None:
    """Its payload ends with it, and the agent sees the end of the stream."""
    wrapper, agent = await bench.launch()
    async with asyncio.TaskGroup() as scope:
        ended = scope.create_task(wrapper.wait())
        agent.say(start_job(wrapper))
        command = await bench.runner.command()
        await agent.until_heard(JobStatusChanged, 2)
        wrapper.signal(9)
        closed = await agent.until_closed()

    assert ended.result() == WrapperExit(signal=9)
    assert closed.cause is CloseCause.END_OF_STREAM
    assert command.signals == [9]
    assert agent.heard(JobFinished) == []
    wrapper.signal(9)


async def test_term_lets_a_wrapper_stop_in_good_order(bench: Bench) -> None:
    """It saves, and says that it was preempted."""
    wrapper, agent = await bench.launch()
    async with asyncio.TaskGroup() as scope:
        ended = scope.create_task(wrapper.wait())
        agent.say(start_job(wrapper))
        await agent.until_heard(JobStatusChanged, 2)
        wrapper.signal(15)
        finished = await agent.until_heard(JobFinished)

    assert ended.result() == WrapperExit(exit_code=0)
    assert finished.outcome.kill.code is KillCode.PREEMPTED
    assert len(bench.stager.saved) == 1


@pytest.mark.parametrize("number", [9, 15])
async def test_a_signal_before_it_began_is_its_end(bench: Bench, number: int) -> None:
    """As of a process that has no handlers yet."""
    wrapper, agent = await bench.launch()
    wrapper.signal(number)
    exit_of = await wrapper.wait()
    await agent.until_closed()

    assert exit_of == WrapperExit(signal=number)
    assert agent.heard(ProcessAnnounced) == []


async def test_other_signals_do_nothing(bench: Bench) -> None:
    """A wrapper takes Ctrl-C for its agent's."""
    wrapper, agent = await bench.launch()
    async with asyncio.TaskGroup() as scope:
        ended = scope.create_task(wrapper.wait())
        agent.say(start_job(wrapper))
        command = await bench.runner.command()
        await agent.until_heard(JobStatusChanged, 2)
        wrapper.signal(2)
        await agent.near.wait_settled()
        assert command.signals == []
        wrapper.signal(9)

    assert ended.result() == WrapperExit(signal=9)


async def test_a_wrapper_ends_with_whoever_waits_for_it(bench: Bench) -> None:
    """Cancelled, nothing of it is left: neither its payload nor its link."""
    wrapper, agent = await bench.launch()
    async with asyncio.TaskGroup() as scope:
        waiting = scope.create_task(wrapper.wait())
        agent.say(start_job(wrapper))
        command = await bench.runner.command()
        await agent.until_heard(JobStatusChanged, 2)
        waiting.cancel()

    assert command.signals == [9]
    assert (await agent.until_closed()).cause is CloseCause.END_OF_STREAM
    assert await wrapper.wait() == WrapperExit(signal=9)


async def test_a_crash_is_an_exit_code(bench: Bench) -> None:
    """That of the real wrapper; the agent is told in the goodbye."""
    wrapper, agent = await bench.launch()
    async with asyncio.TaskGroup() as scope:
        ended = scope.create_task(wrapper.wait())
        agent.say(start_job(wrapper), start_job(wrapper))
        closed = await agent.until_closed()

    assert ended.result().exit_code == EXIT_CRASHED
    assert "crashed" in ended.result().diagnosis
    assert closed.detail == "the wrapper crashed"
    assert "critical: actor wrapper crashed" in bench.log.text


async def test_the_agents_goodbye_makes_an_orphan(bench: Bench) -> None:
    """It stops its payload, and ends by itself."""
    wrapper, agent = await bench.launch()
    async with asyncio.TaskGroup() as scope:
        ended = scope.create_task(wrapper.wait())
        agent.say(start_job(wrapper))
        command = await bench.runner.command()
        await agent.until_heard(JobStatusChanged, 2)
        agent.near.close("gone")

    assert ended.result() == WrapperExit(exit_code=0)
    assert command.signals == [15]


async def test_what_a_killed_wrapper_left_is_rescued_by_the_same_stager(bench: Bench) -> None:
    """As for a failed job: its logs."""
    bench.stager.outputs = SavedOutputs(files=(make_saved("log_archive.zip"),))

    assert await bench.launcher.rescue(ORDER) == bench.stager.outputs.files
    assert [spec.archive for spec in bench.stager.saved[0]] == ["log_archive.zip"]


async def test_directories_are_made_and_removed(tmp_path: Path) -> None:
    """On a disk, an attempt's files are where a real node has them."""
    launcher = InProcessLauncher(lambda order: wrapper_ports(FakeRunner()), state=tmp_path)
    wrapper = await launcher.launch(ORDER)
    assert Path(wrapper.paths.private_directory).stat().st_mode & 0o777 == 0o700
    wrapper.signal(9)
    await wrapper.wait()
    await launcher.clean(ORDER)

    left = {path.name for path in (tmp_path / "jobs" / "3" / "2").iterdir()}
    assert left == {"output", "log"}
