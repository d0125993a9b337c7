"""The in-process launcher: a wrapper as an actor of this very process, over a memory link.

For tests, for the simulation, and for embedding where a process for each job is too much. The
messages are the same, encoded and decoded on every hop, and no actor knows the difference.

A wrapper's scope is its own `InProcessWrapper.wait`: there an `ActorSystem` runs it, in the
task of whoever waits for it, which is its work unit. So a wrapper begins when it is waited
for, and can't outlive its unit: with `Node.run` cancelled or the unit crashed, the wait is
cancelled, and the wrapper ends as a killed process does. What stands for what:

* signal 9: the actor is aborted, without a last word; its command is killed with it;
* signal 15: the actor is told to stop, saves what there is, and gives the job back;
* the exit code: 0 for an end in good order, 70 for a crash;
* the kernel closing a dead process's pipes: both ends of the link are told of the end.

The payload is what the ports make of it. `pilot.runner.LocalRunner` takes all descendants of
its process for its payload's, so it fits a program that runs one such job at a time and has no
other children.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path

from actors.job_wrapper import JobWrapper, WrapperPorts
from actors.messages import StopWork
from actors.outputs import outputs_to_save
from actors.ports import ImageUsed, LaunchedWrapper, LaunchOrder, WrapperExit, WrapperPaths
from actors.runtime import ActorCrashed, ActorSystem, Address
from actors.supervision import ChildSpec
from pilot.job_files import PATH_INSIDE, JobFiles, payload_environment
from transport.link import Link
from transport.memory import memory_link
from transport.messages import KillCode, KillReason, SavedFile
from transport.session import LinkOptions

SIGTERM = 15
SIGKILL = 9
EXIT_CRASHED = 70


class InProcessLauncher:
    """Launches into this process; `actors.ports.WrapperLauncher`."""

    def __init__(
        self,
        make_ports: Callable[[LaunchOrder], WrapperPorts],
        *,
        state: Path,
        on_disk: bool = True,
        site: str = "",
        path: str = PATH_INSIDE,
        link: LinkOptions | None = None,
        next_epoch: Callable[[], int] | None = None,
    ) -> None:
        """Make wrappers with the ports of ``make_ports``, which is called for each attempt.

        An attempt's directories are below ``state``, as a real node's. With ``on_disk`` False
        they are names that only the ports understand: nothing is made or removed.
        ``next_epoch`` chooses each wrapper's epoch, above 0; by default they count from 1.
        """
        self._make_ports = make_ports
        self._state = state
        self._on_disk = on_disk
        self._site = site
        self._path = path
        self._link = link
        self._next_epoch = next_epoch or partial(next, itertools.count(1))

    async def launch(self, order: LaunchOrder) -> LaunchedWrapper:
        """Make a wrapper for ``order``; it begins when it is waited for."""
        files = self._files(order)
        if self._on_disk:
            await asyncio.to_thread(_make_room, files)
        epoch = self._next_epoch()
        mark = f"{order.job_id}.{order.attempt}.{epoch}"
        link, far_end = memory_link(epoch=epoch, options=self._link, release="in-process")
        return InProcessWrapper(
            link=link,
            far_end=far_end,
            ports=self._make_ports(order),
            work_directory=str(files.work),
            mark=mark,
            paths=self._paths(order, files, mark),
        )

    async def rescue(self, order: LaunchOrder) -> tuple[SavedFile, ...]:
        """Save what a wrapper left that was killed before it could; as for a failed job."""
        files = self._files(order)
        specs = outputs_to_save(order.description, job_id=order.job_id, has_failed=True)
        stager = self._make_ports(order).stager
        saved = await stager.stage_out(specs, str(files.work), str(files.output))
        return saved.files

    async def clean(self, order: LaunchOrder) -> None:
        """Remove what the attempt left on the disk, but for its outputs."""
        if self._on_disk:
            await asyncio.to_thread(self._files(order).remove_transient)

    def _files(self, order: LaunchOrder) -> JobFiles:
        return JobFiles.of(self._state, order.job_id, order.attempt)

    def _paths(self, order: LaunchOrder, files: JobFiles, mark: str) -> WrapperPaths:
        return WrapperPaths(
            work_directory=str(files.work),
            output_directory=str(files.output),
            private_directory=str(files.private),
            inputs=(*order.description.inputs, *order.description.input_data),
            environment=payload_environment(
                order.description,
                job_id=order.job_id,
                attempt=order.attempt,
                site=self._site,
                work_directory=str(files.work),
                mark=mark,
                path=self._path,
            ),
        )


class InProcessWrapper:
    """A wrapper in this process; `actors.ports.LaunchedWrapper`."""

    launcher_pid = 0
    container: str | None = None
    image: ImageUsed | None = None
    traces: tuple[str, ...] = ("in process: the wrapper is an actor beside the agent",)

    def __init__(
        self,
        *,
        link: Link,
        far_end: Link,
        ports: WrapperPorts,
        work_directory: str,
        mark: str,
        paths: WrapperPaths,
    ) -> None:
        self.link = link
        self.work_directory = work_directory
        self.mark = mark
        self.paths = paths
        self._far_end = far_end
        self._ports = ports
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[WrapperExit] = self._loop.create_future()
        self._has_begun = False
        self._life: asyncio.Task[WrapperExit] | None = None
        self._actor: Address | None = None
        self._killed_by = 0

    async def wait(self) -> WrapperExit:
        """Run the wrapper to its end, or, called again, wait for that end.

        The wrapper lives in the first call: cancelled, it ends at once.
        """
        if self._has_begun:
            return await asyncio.shield(self._ended)
        self._has_begun = True
        end = WrapperExit(signal=SIGKILL)
        try:
            if not self._killed_by:
                async with asyncio.TaskGroup() as scope:
                    self._life = scope.create_task(self._live(), name=f"wrapper {self.mark}")
            end = self._exit()
        finally:
            self._hang_up()
            self._ended.set_result(end)
        return end

    def host_path(self, location: str) -> str:
        """Return the location itself: the wrapper sees what the host sees."""
        return location

    def failed_to_start(self, why: str) -> bool:
        """Return False: there is only this one way."""
        return False

    def signal(self, number: int) -> None:
        """Take TERM as a wish to stop and KILL as the end; others do nothing."""
        if self._ended.done():
            return
        if number == SIGTERM and self._actor is not None:
            self._actor.tell(StopWork(reason=self._preempted()))
        elif number in (SIGTERM, SIGKILL):
            self._killed_by = number
            if self._life is not None:
                self._life.cancel()

    async def _live(self) -> WrapperExit:
        try:
            async with ActorSystem(on_crash=self._note_crash) as system:
                make = partial(JobWrapper, self._far_end, self._ports)
                self._actor = system.spawn(ChildSpec(name="wrapper", make=make))
                await self._actor.wait_ended()
        except ActorCrashed as crash:
            self._far_end.close("the wrapper crashed")
            return WrapperExit(exit_code=EXIT_CRASHED, diagnosis=str(crash))
        return WrapperExit(exit_code=0)

    def _exit(self) -> WrapperExit:
        if self._life is None or self._life.cancelled():
            return WrapperExit(signal=self._killed_by)
        return self._life.result()

    def _hang_up(self) -> None:
        """End both ends of the link; what was written before is still read."""
        self._far_end.eof_received()
        self._far_end.close("the wrapper has ended")
        self._loop.call_soon(self.link.eof_received)

    def _preempted(self) -> KillReason:
        why = "the wrapper got SIGTERM"
        at = self._ports.clock.now()
        return KillReason(code=KillCode.PREEMPTED, by="node", at=at, why=why)

    def _note_crash(self, path: str, error: Exception) -> None:
        self._ports.log("critical", f"actor {path} crashed: {error!r}")


def _make_room(files: JobFiles) -> None:
    files.remove_earlier_attempts()
    files.make()
