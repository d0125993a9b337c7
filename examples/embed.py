"""A scheduler of a few lines embeds the pilot: its own list of jobs, its own event loop.

    python examples/embed.py

The agent asks it for jobs and tells it what becomes of them. One job is killed by the scheduler.
"""

from __future__ import annotations

import asyncio
import tempfile

from pilot import embedding as pilot

JOBS = {
    1: pilot.JobDescription(executable="/bin/echo", arguments=("hello",), ttl_s=60),
    2: pilot.JobDescription(executable="/bin/sh", arguments=("-c", "exit 3"), ttl_s=60),
    3: pilot.JobDescription(executable="/bin/sleep", arguments=("60",), ttl_s=60),
}
TO_KILL = 3


class Scheduler:
    """The three methods of a `pilot.TaskQueue`, over a dictionary."""

    def __init__(self) -> None:
        self.waiting = list(JOBS)
        self.status = dict.fromkeys(JOBS, pilot.JobStatus.WAITING)
        self.all_final = asyncio.Event()

    async def match(self, slot: pilot.Slot) -> pilot.Match | None:
        """Hand out the first waiting job that fits."""
        for job_id in self.waiting:
            if JOBS[job_id].cpu_cores <= slot.cpu_cores:
                self.waiting.remove(job_id)
                return pilot.Match(job_id=job_id, attempt=1, description=JOBS[job_id], lease_s=60)
        return None

    async def report(self, report: pilot.AnyReport) -> pilot.Answer:
        """Take what happened; traces, processes and usage are told here as well."""
        if isinstance(report, pilot.StatusReport | pilot.FinalReport):
            self.status[report.job_id] = report.status
            print(f"job {report.job_id}: {report.status} {report.reason}".rstrip())
        if all(status in pilot.FINAL for status in self.status.values()):
            self.all_final.set()
        return pilot.Answer.ACCEPTED

    async def heartbeat(self, beat: pilot.Heartbeat) -> tuple[pilot.Command, ...]:
        """Tell the agent what to do with the jobs that it holds."""
        return tuple(
            pilot.KillJob(job_id=held.job_id, attempt=held.attempt, by="scheduler", why="a whim")
            for held in beat.jobs
            if held.job_id == TO_KILL and self.status[TO_KILL] is pilot.JobStatus.RUNNING
        )


async def main() -> None:
    """Run the jobs, and end when all are final."""
    scheduler = Scheduler()
    with tempfile.TemporaryDirectory() as state:
        node = pilot.local_node(scheduler, pilot.Settings(state=state, cores=2, heartbeat_s=0.5))
        async with asyncio.TaskGroup() as group:
            group.create_task(node.run())
            await scheduler.all_final.wait()
            node.drain("all jobs are final")


if __name__ == "__main__":
    asyncio.run(main())
