"""The wrapper's process: one link, one JobWrapper, and an exit code.

What is imported here is what every job pays before it says Hello: asyncio, msgspec and our
own; tests/pilot/test_import_budget.py keeps it short.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import sys

from actors.job_wrapper import JobWrapper, WrapperPorts
from actors.messages import StopWork
from actors.runtime import ActorSystem, Address
from actors.supervision import ChildSpec, Ending
from pilot.clock import SystemClock
from pilot.confinement.plan import Held
from pilot.keys import FileKeyMaker
from pilot.runner import LocalRunner
from pilot.staging import LocalStager
from transport.link import Link
from transport.messages import KillCode, KillReason, LogWritten
from transport.session import Role
from transport.stdio import stdio_link

RELEASE = "0.1.0"
log = logging.getLogger("pilot.wrapper")


class LinkHandler(logging.Handler):
    """Sends log records to the agent; the newest win where there are too many."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, from whichever thread."""
        message = LogWritten(
            level=record.levelname.lower(),
            logger=record.name,
            text=record.getMessage()[:4000],
            at=record.created,
        )
        if not self._link.is_closed:
            self._loop.call_soon_threadsafe(self._link.tell, message)


def configure_logging(link: Link, level: str, _format: str) -> None:
    """Apply the agent's level; records go to the agent and, over stderr, to the job's own log.

    The agent renders what it receives in its own format, so the format matters only there.
    """
    root = logging.getLogger()
    root.setLevel(level.upper() if level.upper() in logging.getLevelNamesMapping() else "INFO")
    root.handlers[1:] = [LinkHandler(link)]


def run_wrapper(read_fd: int, write_fd: int, held: Held | None = None) -> int:
    """Run one job over these descriptors; return the process's exit code.

    ``held`` is what this process was confined to before, where that is known.
    """
    logging.basicConfig(
        stream=sys.stderr, level="INFO", format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # A core file of the wrapper would hold the job's key.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        return asyncio.run(_serve(read_fd, write_fd, held))
    except Exception as error:
        log.critical("the wrapper failed: %s: %s", type(error).__name__, error, exc_info=True)
        return 70


async def _serve(read_fd: int, write_fd: int, held: Held | None) -> int:
    link = await stdio_link(Role.WRAPPER, read_fd=read_fd, write_fd=write_fd, release=RELEASE)
    ports = WrapperPorts(
        runner=LocalRunner(held),
        stager=LocalStager(),
        keys=FileKeyMaker(),
        clock=SystemClock(),
        configure_logging=lambda level, form: configure_logging(link, level, form),
        log=lambda level, text: log.log(logging.getLevelNamesMapping()[level.upper()], text),
    )
    spec = ChildSpec(name="wrapper", make=lambda: JobWrapper(link, ports))
    async with ActorSystem(on_crash=_note_crash) as system:
        wrapper = system.spawn(spec)
        _stop_on_signals(wrapper)
        ending = await wrapper.wait_ended()
        if ending is not Ending.STOPPED:
            link.close("the wrapper crashed")
        await asyncio.wait_for(link.wait_closed(), 5)
    return 0 if ending is Ending.STOPPED else 70


def _stop_on_signals(wrapper: Address) -> None:
    """Take the node's TERM as a stop: the job is saved and given back."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        why = "the wrapper got SIGTERM"
        reason = KillReason(code=KillCode.PREEMPTED, by="node", at=SystemClock().now(), why=why)
        wrapper.tell(StopWork(reason=reason))

    loop.add_signal_handler(signal.SIGTERM, stop)
    # Ctrl-C is the agent's to handle, and it has the terminal; HUP means that it is gone.
    for number in (signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)


def _note_crash(path: str, error: Exception) -> None:
    log.critical("actor %s crashed", path, exc_info=error)
