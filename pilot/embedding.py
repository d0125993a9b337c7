"""For another asyncio program that runs jobs on this machine: a node over its own queue.

    node = local_node(MyQueue(), Settings(state="/var/lib/mine", cores=8))
    async with asyncio.TaskGroup() as group:
        group.create_task(node.run())
        ...
        node.drain("no more jobs")

`TaskQueue` is what the program brings: three coroutines. What the agent does with them:

- ``match(slot)`` is asked while a core is free, one request at a time. It returns soon, with
  None where nothing fits: an agent that was told to drain waits for the answer. A job's number
  is never that of another; its attempts count from 1.
- ``report(report)`` is told everything, in order for each job: a `StatusReport` for each status
  up to SAVING, then one `FinalReport`. A `StatusReport` that says WAITING gives the job back,
  and ends this attempt too. A report is repeated until it is answered, so the same one
  (job, attempt, sequence) may come twice.
- ``heartbeat(beat)`` comes every ``settings.heartbeat_s`` seconds, whether jobs run or not; its
  answer is how the program kills a job.

Raise `OperatorError` in any of them for "not now": the agent tries again, less and less often.
Anything else that is raised is a mistake, and ends the job's work unit or the agent.

An embedded node leaves the process as it is: no signal handlers, no standard streams, no
orphans of other parts of the program. Cancelling ``run`` stops all jobs and leaves none of
their processes. ``settings.state`` belongs to one node at a time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TextIO

from actors.job_agent import AgentOptions
from actors.lifecycle import FINAL
from actors.ports import (
    Answer,
    AnyReport,
    Command,
    DrainNode,
    FinalReport,
    Heartbeat,
    HeldJob,
    KillJob,
    LoseJob,
    Match,
    ProcessReport,
    Slot,
    StatusReport,
    TaskQueue,
    TraceReport,
    UsageReport,
)
from actors.runtime import ActorCrashed
from pilot.agent_log import AgentLog
from pilot.containers.ladder import ContainerPolicy
from pilot.jdl import JdlError, parse_jdl
from pilot.node import Node, NodePorts, agent_options, real_launcher, real_ports
from pilot.settings import Settings
from transport.errors import OperatorError, PilotError, UserError
from transport.messages import (
    InputFile,
    JobDescription,
    JobStatus,
    KillReason,
    OutputSpec,
    SavedFile,
    Usage,
)

__all__ = [
    "FINAL",
    "ActorCrashed",
    "Answer",
    "AnyReport",
    "Command",
    "ContainerPolicy",
    "DrainNode",
    "FinalReport",
    "Heartbeat",
    "HeldJob",
    "InputFile",
    "JdlError",
    "JobDescription",
    "JobStatus",
    "KillJob",
    "KillReason",
    "LoseJob",
    "Match",
    "Node",
    "OperatorError",
    "OutputSpec",
    "PilotError",
    "ProcessReport",
    "SavedFile",
    "Settings",
    "Slot",
    "StatusReport",
    "TaskQueue",
    "TraceReport",
    "Usage",
    "UsageReport",
    "UserError",
    "local_node",
    "parse_jdl",
]


def local_node(queue: TaskQueue, settings: Settings) -> Node:
    """Return a node that will run ``queue``'s jobs on this machine; ``await node.run()`` starts it.

    Blocks for some milliseconds, as keys and directories are made in ``settings.state``. Raises
    `OperatorError` where that can't be.
    """
    file = settings.log_file or str(settings.state_directory / "agent.log")
    stream = sys.stderr if file == "-" else _open_log(file)
    log = AgentLog(settings.log_level, settings.log_format, stream)
    try:
        ports = real_ports(settings, log, real_launcher(settings), is_own_process=False)
    except BaseException:
        _close_log(stream)
        raise
    return _LocalNode(queue, ports, agent_options(settings), stream)


class _LocalNode(Node):
    """A node with a log file of its own, which is closed when the node has run."""

    def __init__(
        self, queue: TaskQueue, ports: NodePorts, options: AgentOptions, stream: TextIO
    ) -> None:
        super().__init__(queue, ports, options)
        self._stream = stream

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            _close_log(self._stream)


def _open_log(file: str) -> TextIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        Path(file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.fdopen(os.open(file, flags, 0o600), "a", buffering=1)
    except OSError as error:
        raise OperatorError(f"The log {file} can't be written: {error.strerror}.") from error


def _close_log(stream: TextIO) -> None:
    if stream is not sys.stderr:
        stream.close()
