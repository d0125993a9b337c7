"""Who stays outside of a PID namespace: it waits, passes signals on, and ends as the inside did.

It is what the agent started and holds, so it must not outlast the inside, nor the inside it:
the inside is killed when this process dies, whatever kills it. When the agent dies the wrapper
notices by its link and ends in good order; if it doesn't, it is ended from here.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
from contextlib import suppress
from typing import NoReturn

ORPHANED_S = 30.0
"""How long a wrapper may take to end when its agent is gone."""
_PR_SET_PDEATHSIG = 1
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Holds the process that started this one, to see its end."""

    def __init__(self) -> None:
        """Take it now: after a fork, it would be another."""
        self.descriptor = -1
        with suppress(OSError):  # before Linux 5.3; or it is outside of what can be seen
            self.descriptor = os.pidfd_open(os.getppid())

    def close(self) -> None:
        """Let go of it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def go_inside(watch: Watch, descriptors: tuple[int, ...]) -> None:
    """Fork; return in the child, which is the first process of its PID namespace.

    ``descriptors`` are closed in the parent: the child is the only one to hold them.
    """
    # Signals that come in between would be lost, or end only one of the two.
    signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
    lifeline, held = os.pipe()
    inside = os.fork()
    if inside:
        for descriptor in (lifeline, *descriptors):
            os.close(descriptor)
        _stay(inside, watch)
    os.close(held)
    _die_with_parent(lifeline)
    for number in _PASSED_ON:
        # PID 1 has no default actions. The wrapper sets its own handlers when it is ready.
        signal.signal(number, _leave)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)


def _die_with_parent(lifeline: int) -> None:
    """Be killed when the parent dies, which it may have done already: its PID is no help here."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    poll = select.poll()
    poll.register(lifeline, select.POLLIN)
    if poll.poll(0):
        os._exit(1)
    os.close(lifeline)


def _leave(number: int, _frame: object) -> NoReturn:
    os._exit(128 + number)


def _stay(inside: int, watch: Watch) -> NoReturn:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in _PASSED_ON:
        signal.signal(number, lambda number, _: _signal(inside, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
    if watch.descriptor >= 0:
        _wait_either(inside, watch)
    _, status = os.waitpid(inside, 0)
    _end_like(status)


def _wait_either(inside: int, watch: Watch) -> None:
    """Wait until the inside has ended; see to that when the agent has."""
    poll = select.poll()
    held = os.pidfd_open(inside)
    poll.register(held, select.POLLIN)
    poll.register(watch.descriptor, select.POLLIN)
    if held not in dict(poll.poll()):
        poll.unregister(watch.descriptor)
        if not poll.poll(ORPHANED_S * 1000):
            _signal(inside, signal.SIGKILL)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _end_like(status: int) -> NoReturn:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
