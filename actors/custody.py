"""Custody of a wrapper: one task owns it from its launch to its end, and what it left after.

Pure actors decide what is to become of a wrapper; here is what they can't do, since it waits.
Whatever ends the task that holds a wrapper (its unit was stopped, crashed, or cancelled with
the whole node), the wrapper ends too, and what it started is swept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from actors.bounds import tried, within
from actors.ports import (
    LaunchedWrapper,
    LaunchOrder,
    ProcessTable,
    WrapperExit,
    WrapperLauncher,
)
from transport.messages import SavedFile


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long each step may take."""

    launch_s: float
    leave_s: float
    saving_s: float


class CleanedUp(msgspec.Struct, frozen=True, kw_only=True):
    """What was found and done when a wrapper was gone."""

    survivors: int
    rescued: tuple[SavedFile, ...]
    troubles: tuple[str, ...]


class Custody:
    """Holds the wrapper of one attempt, and cleans up after it."""

    def __init__(
        self,
        order: LaunchOrder,
        launcher: WrapperLauncher,
        table: ProcessTable,
        patience: Patience,
        complain: Callable[[str], object],
    ) -> None:
        """``complain`` is told what went wrong where nobody else can be told."""
        self._order = order
        self._launcher = launcher
        self._table = table
        self._patience = patience
        self._complain = complain

    async def hold(
        self,
        launched: Callable[[LaunchedWrapper], object],
        ended: Callable[[WrapperExit], object],
    ) -> None:
        """Launch a wrapper and own it until its process has ended and its link is closed.

        Raises what the launcher raises. When it is cancelled, it first lets nothing live on.
        """
        launch = partial(self._launcher.launch, self._order)
        wrapper = await within(self._patience.launch_s, "the launch", launch)
        try:
            launched(wrapper)
            ended(await wrapper.wait())
            await wrapper.link.wait_closed()
        except BaseException:
            await self._let_go(wrapper)
            raise

    async def _let_go(self, wrapper: LaunchedWrapper) -> None:
        leave_s = self._patience.leave_s
        wrapper.link.close("the agent's work unit ended")
        wrapper.signal(9)
        troubles: list[str] = []
        await tried(leave_s, "ending the wrapper", wrapper.wait, WrapperExit(), troubles)
        await self._sweep(wrapper, troubles)
        for trouble in troubles:
            self._complain(trouble)

    async def clean_up(self, wrapper: LaunchedWrapper | None, *, must_rescue: bool) -> CleanedUp:
        """Sweep, rescue outputs, remove files: each is tried whatever became of the others."""
        troubles: list[str] = []
        survivors, rescued = 0, tuple[SavedFile, ...]()
        if wrapper is not None:
            survivors = await self._sweep(wrapper, troubles)
        if wrapper is not None and must_rescue:
            rescue = partial(self._launcher.rescue, self._order)
            bound_s = self._patience.saving_s
            rescued = await tried(bound_s, "rescuing outputs", rescue, rescued, troubles)
        await self.remove_files(troubles)
        return CleanedUp(survivors=survivors, rescued=rescued, troubles=tuple(troubles))

    async def remove_files(self, troubles: list[str]) -> None:
        """Remove what the attempt left on the disk."""
        clean = partial(self._launcher.clean, self._order)
        await tried(self._patience.saving_s, "removing files", clean, None, troubles)

    async def _sweep(self, wrapper: LaunchedWrapper, troubles: list[str]) -> int:
        leave_s = self._patience.leave_s
        pid = wrapper.launcher_pid
        sweep = partial(self._table.sweep, wrapper.mark, pid, deadline_s=leave_s)
        return await tried(2 * leave_s, "sweeping", sweep, 0, troubles)
