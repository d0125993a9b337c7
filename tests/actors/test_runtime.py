"""The system that holds all actors: leaving it, and what it tells of itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from actors.effects import (
    Effects,
    Run,
    Schedule,
)
from actors.runtime import ActorCrashed, ActorSystem, Address
from actors.supervision import Ending, Restart
from tests.actors.fakes import settle, until
from tests.actors.probe import (
    Crash,
    Crashes,
    Note,
    Probe,
    crash,
    do,
    ended,
    forever,
    running,
    spawn,
    spawn_parent,
    spec,
)

# --- leaving ----------------------------------------------------------------------------------


def busy(system: ActorSystem, seen: list[str]) -> Address:
    """Start a parent with children, each with a work and a timer under way."""

    def first(_: Probe) -> Effects:
        yield Run("work", forever)
        yield Schedule("tick", 0.001, Note(text="tick"))

    children = [partial(Probe, seen, first=first)] * 3
    return spawn_parent(system, seen, *children)


async def entered(
    body: Callable[[ActorSystem], Awaitable[None]],
    on_crash: Callable[[str, Exception], None] | None = None,
) -> None:
    """Enter a system, do something in it, and leave it."""
    async with asyncio.timeout(10), ActorSystem(on_crash) as system:
        await body(system)


async def test_leaving_stops_everything() -> None:
    """No task is left, and each actor had its last word."""
    seen: list[str] = []
    async with running() as system:
        parent = busy(system, seen)
        await settle()

    assert seen.count("stopping") == 4
    assert await ended(parent) is Ending.STOPPED


async def test_leaving_by_an_exception_aborts_everything() -> None:
    """No task is left, and the exception comes out as it was."""
    addresses: list[Address] = []

    async def body(system: ActorSystem) -> None:
        addresses.append(busy(system, []))
        await settle()
        raise Crash("ours")

    with pytest.raises(Crash, match="ours"):
        await entered(body)

    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await ended(addresses[0]) is Ending.ABORTED


async def test_leaving_by_cancellation_aborts_everything() -> None:
    """No task is left, and the cancellation goes on."""
    addresses: list[Address] = []

    async def body(system: ActorSystem) -> None:
        addresses.append(busy(system, []))
        await forever()

    task = asyncio.ensure_future(entered(body))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await ended(addresses[0]) is Ending.ABORTED


async def test_being_cancelled_while_leaving_aborts_the_rest() -> None:
    """A stop that takes too long for somebody is cut short, not left behind."""
    is_stopping = asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await forever()
        finally:
            is_stopping.set()
            await forever()

    async def body(system: ActorSystem) -> None:
        spawn(system, []).tell(do(Run("work", slow_to_end)))
        await settle()

    task = asyncio.ensure_future(entered(body))
    await is_stopping.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_restart_that_is_cut_short_ends_its_actor() -> None:
    """Aborted while it cleared away: it doesn't begin anew in a system that is leaving."""
    seen: list[str] = []
    is_ending = asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await forever()
        finally:
            is_ending.set()
            await forever()

    async def body(system: ActorSystem) -> None:
        probe = system.spawn(spec(lambda: Probe(seen), restart=Restart.TRANSIENT))
        probe.tell(do(Run("work", slow_to_end)))
        await settle()
        probe.tell(crash())
        await is_ending.wait()
        raise Crash("ours")

    with pytest.raises(Crash, match="ours"):
        await entered(body)

    assert seen == ["started", "stopping"]


async def test_an_aborted_actor_s_timers_are_gone() -> None:
    """What was scheduled isn't told to nobody, later."""
    systems: list[ActorSystem] = []

    async def body(system: ActorSystem) -> None:
        systems.append(system)
        busy(system, [])
        raise Crash("ours")

    with pytest.raises(Crash):
        await entered(body)
    await asyncio.sleep(0.005)

    assert systems[0].dead_letters == 0


async def test_an_error_that_is_not_an_actor_s_is_not_hidden() -> None:
    """A log that can't be written, say, is nobody's crash: it ends the system."""

    def broken_log(path: str, error: Exception) -> None:
        raise OSError("no space left")

    async def body(system: ActorSystem) -> None:
        spawn(system, []).tell(crash())
        await forever()

    with pytest.raises(ExceptionGroup) as caught:
        await entered(body, broken_log)

    assert caught.group_contains(OSError, match="no space left")
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_lost_top_level_actor_is_raised_on_leaving() -> None:
    """With its cause; the others were stopped meanwhile."""
    crashes = Crashes()

    async def body(system: ActorSystem) -> None:
        other = system.spawn(spec(lambda: Probe([]), "other"))
        probe = spawn(system, [])
        probe.tell(crash())
        assert await ended(probe) is Ending.CRASHED
        assert await ended(other) is Ending.STOPPED

    with pytest.raises(ActorCrashed, match=r"actor probe crashed for good: Crash\('boom'\)") as it:
        await entered(body, crashes)

    assert isinstance(it.value.__cause__, Crash)
    assert crashes.texts == [("probe", "boom")]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_first_lost_actor_is_the_one_that_is_raised() -> None:
    """What was lost after it was lost because of it, as likely as not."""

    async def body(system: ActorSystem) -> None:
        addresses = [system.spawn(spec(lambda: Probe([]), name)) for name in ("first", "second")]
        for address in addresses:
            address.tell(crash())
        for address in addresses:
            assert await ended(address) is Ending.CRASHED

    with pytest.raises(ActorCrashed, match="first"):
        await entered(body)


async def test_a_top_level_actor_is_restarted_as_its_spec_says() -> None:
    """It has no parent to be told."""
    seen: list[str] = []
    async with running() as system:
        probe = system.spawn(spec(lambda: Probe(seen), restart=Restart.TRANSIENT))
        probe.tell(crash())
        probe.tell(Note(text="next"))
        await until(lambda: "next" in seen)


async def test_the_body_s_own_error_outranks_a_lost_actor() -> None:
    """It is what the caller has to see first."""

    async def body(system: ActorSystem) -> None:
        probe = spawn(system, [])
        probe.tell(crash())
        await ended(probe)
        raise Crash("ours")

    with pytest.raises(Crash, match="ours"):
        await entered(body)


# --- statistics -------------------------------------------------------------------------------


async def test_statistics_tell_what_each_mailbox_holds_and_has_seen() -> None:
    """By path; cheap enough to be asked for at any time."""
    async with running() as system:
        parent = spawn_parent(system, [], lambda: Probe([]))
        parent.tell(Note())
        parent.tell(do(Run("work", forever)))
        assert system.statistics().actors["parent"].waiting == 2
        await settle()

        found = system.statistics()
        assert sorted(found.actors) == ["parent", "parent/a"]
        assert found.actors["parent"].handled == 2
        assert found.actors["parent"].works == 1
        assert found.actors["parent"].waiting == 0
        assert found.dead_letters == 0
