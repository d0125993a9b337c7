"""`pilot run`: a node over the embedded queue, and what is shown meanwhile."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from rich.console import Console
from rich.live import Live

from actors.lifecycle import FINAL
from actors.ports import Slot
from pilot.agent_log import AgentLog
from pilot.cli import views
from pilot.cli.submitting import ParsedJdl, submit_all
from pilot.clock import SystemClock
from pilot.jdl import unknown_keys_note
from pilot.node import Node, agent_options, queue_policy, real_launcher, real_ports
from pilot.printable import printable
from pilot.queue import Change, JobRow, QueueStore, SqliteTaskQueue
from pilot.recovery import clean_up_after_the_dead
from pilot.settings import Settings
from transport.messages import JobStatus

LOOK_S = 0.25
EXIT_JOBS_FAILED = 1


class Campaign:
    """The jobs of one `pilot run`, and how they are shown as they go."""

    def __init__(self, parsed: list[ParsedJdl], *, as_json: bool) -> None:
        self.parsed = parsed
        self.ids: list[int] = []
        self._as_json = as_json
        self.newest_change = 0
        """The last step of any job's history that was shown, or was there before."""
        self._finals_shown: set[int] = set()
        self._live: Live | None = None
        if not as_json and sys.stdout.isatty():
            self._live = Live(console=Console(highlight=False), refresh_per_second=4)

    def __enter__(self) -> Campaign:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, rows: Sequence[JobRow], changes: Sequence[Change]) -> None:
        """Show how the jobs stand, and what befell them since the last call."""
        if self._live is not None:
            self._live.update(views.job_table(rows))
        elif self._as_json:
            new = [row for row in rows if _is_over(row) and row.id not in self._finals_shown]
            self._finals_shown.update(row.id for row in new)
            for row in new:
                _say(views.as_json(views.row_json(row)))
        else:
            by_id = {row.id: row for row in rows}
            for change in changes:
                if change.job_id in by_id:
                    _say(views.change_line(by_id[change.job_id], change.line))

    def note(self, text: str) -> None:
        """Tell the person something beside the table."""
        if self._live is not None:
            self._live.console.print(text, markup=False)
        else:
            sys.stderr.write(f"pilot: {text}\n")


async def run_agent(settings: Settings) -> int:
    """Run an agent until it is told to stop; return the exit code."""
    async with AsyncExitStack() as stack:
        node, _ = await _node(settings, stack)
        _listen_to_signals(node, lambda text: sys.stderr.write(f"pilot: {text}\n"))
        await node.run()
    return 0


async def run_campaign(settings: Settings, campaign: Campaign) -> int:
    """Submit the campaign's jobs, run until all are final; return the exit code."""
    async with AsyncExitStack() as stack:
        node, queue = await _node(settings, stack)
        campaign.newest_change = await queue.call(lambda store, _: store.newest_change())
        campaign.ids = await queue.call(lambda store, now: submit_all(store, campaign.parsed, now))
        with campaign:
            for jdl in campaign.parsed:
                if note := unknown_keys_note(jdl.description):
                    campaign.note(f"{jdl.path}: {note}")
            _listen_to_signals(node, campaign.note)
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(_watch(settings, node, queue, campaign))
                await node.run()
                watch.cancel()
            return _exit_code(await _look(queue, campaign), campaign)


async def _node(settings: Settings, stack: AsyncExitStack) -> tuple[Node, SqliteTaskQueue]:
    state = settings.state_directory
    log = AgentLog.open(
        settings.log_level, settings.log_format, settings.log_file or str(state / "agent.log")
    )
    store = await asyncio.to_thread(QueueStore.open, settings.queue_file, queue_policy(settings))
    queue = await stack.enter_async_context(SqliteTaskQueue(store, SystemClock()))
    launcher = await asyncio.to_thread(real_launcher, settings)
    ports = await asyncio.to_thread(real_ports, settings, log, launcher, is_own_process=True)
    for line in await clean_up_after_the_dead(state, ports.table):
        ports.log("warning", line)
    for line in await launcher.prepare():
        ports.log("warning", line)
        sys.stderr.write(f"pilot: {printable(line)}\n")
    return Node(queue, ports, agent_options(settings)), queue


async def _watch(
    settings: Settings, node: Node, queue: SqliteTaskQueue, campaign: Campaign
) -> None:
    """Show the jobs until all are final, then let the node drain."""
    hopeless: set[int] = set()
    slot = _whole_slot(settings)
    while True:
        rows = await _look(queue, campaign)
        reasons = await queue.call(lambda store, _: store.unmatchable(slot, campaign.ids))
        for job_id, why in reasons.items():
            if job_id not in hopeless:
                hopeless.add(job_id)
                campaign.note(f"job {job_id} can't run on this node: it {why}")
        if all(_is_over(row) or row.id in hopeless for row in rows):
            node.drain("all jobs given are final")
            return
        await asyncio.sleep(LOOK_S)


def _is_over(row: JobRow) -> bool:
    return row.status in FINAL


def _whole_slot(settings: Settings) -> Slot:
    total = settings.resources()
    return Slot(
        node=settings.node,
        site=settings.site,
        cpu_cores=total.cpu_cores,
        memory_bytes=total.memory_bytes,
        disk_bytes=total.disk_bytes,
        time_left_s=settings.time_left_s,
        is_whole_node=True,
    )


async def _look(queue: SqliteTaskQueue, campaign: Campaign) -> list[JobRow]:
    """Show what there is to see now; return how the jobs stand."""
    steps: list[Change] = []
    while some := await queue.call(lambda store, _: store.changes(campaign.newest_change)):
        campaign.newest_change = some[-1].number
        steps += some
    rows = await queue.call(lambda store, _: store.jobs(campaign.ids))
    campaign.show(rows, steps)
    return rows


def _exit_code(rows: list[JobRow], campaign: Campaign) -> int:
    unfinished = [row for row in rows if not _is_over(row)]
    if unfinished:
        campaign.note(
            f"{len(unfinished)} of {len(rows)} jobs are not finished; they stay in the queue, "
            "and `pilot run` with the same --state goes on with them"
        )
    return 0 if all(row.status is JobStatus.DONE for row in rows) else EXIT_JOBS_FAILED


def _listen_to_signals(node: Node, note: Callable[[str], object]) -> None:
    """Ctrl-C drains, twice stops; TERM, which a batch system follows with KILL, stops at once."""
    loop = asyncio.get_running_loop()
    pressed = 0

    def interrupt() -> None:
        nonlocal pressed
        pressed += 1
        if pressed == 1:
            note("draining: no new jobs; the present ones are finished. Ctrl-C again stops them")
            node.drain("Ctrl-C")
        else:
            note("stopping: the present jobs are given back to the queue")
            node.stop("operator", "the operator stopped the pilot (Ctrl-C twice)")

    def terminate() -> None:
        note("SIGTERM: the present jobs are given back to the queue")
        node.stop("node", "the pilot got SIGTERM")

    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGTERM, terminate)


def _say(text: str) -> None:
    sys.stdout.write(f"{printable(text)}\n")
    sys.stdout.flush()
