"""The system that holds all actors: leaving it, and what it tells of itself."""

from __future__ import annotations

import asyncio
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
    with pytest.raises(Crash, match="ours"):
        async with ActorSystem() as system:
            parent = busy(system, [])
            await settle()
            raise Crash("ours")

    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await ended(parent) is Ending.ABORTED


async def test_leaving_by_cancellation_aborts_everything() -> None:
    """No task is left, and the cancellation goes on."""
    addresses: list[Address] = []

    async def body() -> None:
        async with ActorSystem() as system:
            addresses.append(busy(system, []))
            await forever()

    task = asyncio.ensure_future(body())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert await ended(addresses[0]) is Ending.ABORTED


async def test_being_cancelled_while_leaving_aborts_the_rest() -> None:
    """A stop that takes too long for somebody is cut short, not left behind."""
    seen: list[str] = []
    is_stopping = asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await forever()
        finally:
            is_stopping.set()
            await forever()

    async def body() -> None:
        async with ActorSystem() as system:
            spawn(system, seen).tell(do(Run("work", slow_to_end)))
            await settle()

    task = asyncio.ensure_future(body())
    await is_stopping.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_an_aborted_actor_s_timers_are_gone() -> None:
    """What was scheduled isn't told to nobody, later."""
    system = ActorSystem()
    with pytest.raises(Crash):
        async with system:
            busy(system, [])
            await settle(2)
            raise Crash
    await asyncio.sleep(0.005)

    assert system.dead_letters == 0


async def test_a_lost_top_level_actor_is_raised_on_leaving() -> None:
    """With its cause; the others were stopped meanwhile."""
    seen: list[str] = []
    crashes = Crashes()
    with pytest.raises(ActorCrashed, match=r"actor probe crashed for good: Crash\('boom'\)") as it:
        async with running(crashes) as system:
            other = system.spawn(spec(lambda: Probe(seen), "other"))
            probe = spawn(system, [])
            second = system.spawn(spec(lambda: Probe([]), "second"))
            second.tell(do())
            probe.tell(crash())
            assert await ended(probe) is Ending.CRASHED
            assert await ended(other) is Ending.STOPPED

    assert isinstance(it.value.__cause__, Crash)
    assert crashes.texts == [("probe", "boom")]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_first_lost_actor_is_the_one_that_is_raised() -> None:
    """What was lost after it was lost because of it, as likely as not."""
    with pytest.raises(ActorCrashed, match="first"):
        async with running() as system:
            first = system.spawn(spec(lambda: Probe([]), "first"))
            second = system.spawn(spec(lambda: Probe([]), "second"))
            first.tell(crash())
            second.tell(crash())
            await ended(second)


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
    with pytest.raises(Crash, match="ours"):
        async with ActorSystem() as system:
            probe = spawn(system, [])
            probe.tell(crash())
            await ended(probe)
            raise Crash("ours")


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
