"""What an actor has under way: its works and its timers."""

from __future__ import annotations

import asyncio

import pytest

from actors.effects import (
    CancelWork,
    Run,
    Schedule,
    Unschedule,
)
from tests.actors.fakes import settle, until
from tests.actors.probe import (
    Crash,
    Note,
    Order,
    Probe,
    do,
    forever,
    running,
    spawn,
    spawn_parent,
)

# --- works ------------------------------------------------------------------------------------


async def test_the_result_of_a_work_is_a_message() -> None:
    """Told to the actor itself; a work that returns None tells nothing."""
    seen: list[str] = []

    async def loud() -> Note:
        await asyncio.sleep(0)
        return Note(text="done")

    async def silent() -> None:
        await asyncio.sleep(0)

    async with running() as system:
        probe = spawn(system, seen)
        probe.tell(do(Run("loud", loud), Run("silent", silent)))
        await until(lambda: "done" in seen)
        await settle()

        assert seen == ["started", "done"]
        assert system.statistics().actors["probe"].works == 0


async def test_a_work_that_raises_is_a_message_too() -> None:
    """With its name and its error, and the actor goes on."""
    seen: list[str] = []

    async def broken() -> None:
        raise Crash("no such file")

    async with running() as system:
        parent = spawn_parent(system, seen)
        parent.tell(do(Run("broken", broken)))
        await until(lambda: "broken failed: no such file" in seen)
        parent.tell(do(Run("broken", broken)))
        await until(lambda: seen.count("broken failed: no such file") == 2)


async def test_an_actor_that_does_not_care_for_failed_works_crashes() -> None:
    """Nothing is swallowed: the supervisor sees the work's own error."""
    seen: list[str] = []

    async def broken() -> None:
        raise Crash("no such file")

    async with running() as system:
        parent = spawn_parent(system, seen, lambda: Probe([]))
        parent.child("a").tell(do(Run("broken", broken)))
        await until(lambda: "a crashed: no such file" in seen)


async def test_a_work_that_ends_in_a_cancellation_of_its_own_has_failed() -> None:
    """A port's cancelled future isn't the actor's will: it is told, not lost."""
    seen: list[str] = []

    async def broken() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with running() as system:
        parent = spawn_parent(system, seen)
        parent.tell(do(Run("broken", broken)))
        await until(lambda: any(text.startswith("broken failed:") for text in seen))


async def test_a_second_work_of_the_same_name_is_our_own_mistake() -> None:
    """The message names the actor and the work."""
    seen: list[str] = []
    async with running() as system:
        parent = spawn_parent(system, seen, lambda: Probe([]))
        parent.child("a").tell(do(Run("work", forever), Run("work", forever)))
        await until(lambda: "a crashed: parent/a already runs 'work'" in seen)


async def test_a_cancelled_work_says_nothing_any_more() -> None:
    """Neither when it ends by the cancellation, nor when it ends in spite of it."""
    seen: list[str] = []
    has_ended = asyncio.Event()

    async def stubborn() -> Note:
        try:
            await forever()
        except asyncio.CancelledError:
            has_ended.set()
        return Note(text="too late")

    async with running() as system:
        parent = spawn_parent(system, seen)
        parent.tell(do(Run("work", stubborn), CancelWork("unknown")))
        await settle()
        parent.tell(do(CancelWork("work")))
        await has_ended.wait()
        await settle()

        assert seen == ["started"]
        assert system.statistics().actors["parent"].works == 0


async def test_a_result_that_waits_in_the_mailbox_can_still_be_cancelled() -> None:
    """What the actor doesn't want any more it isn't told, however far it has come."""
    seen: list[str] = []
    async with running() as system:
        probe = spawn(system, seen)

        async def quick() -> Note:
            # Both wait now, the cancellation before the result.
            probe.tell(do(CancelWork("work"), Run("work", forever)))
            return Note(text="unwanted")

        probe.tell(do(Run("work", quick)))
        await until(lambda: system.statistics().actors["probe"].handled == 2)
        await settle()

        assert seen == ["started"]
        assert system.statistics().actors["probe"].works == 1
        assert system.statistics().dead_letters == 0


async def test_the_same_name_may_run_again_at_once_after_it_was_cancelled() -> None:
    """Also while the one before still ends."""
    seen: list[str] = []

    async def second() -> Note:
        return Note(text="second")

    async with running() as system:
        probe = spawn(system, seen)
        probe.tell(do(Run("work", forever)))
        await settle()
        probe.tell(do(CancelWork("work"), Run("work", second)))
        await until(lambda: "second" in seen)


async def test_a_work_has_room_for_its_result_in_a_full_mailbox() -> None:
    """An actor that waits for its own work would otherwise wait for ever."""
    seen: list[str] = []
    async with running() as system:
        probe = spawn(system, seen, mailbox=3, reserve=2)

        async def work() -> Note:
            while probe.tell(Note(text="flood")):
                pass
            return Note(text="result")

        probe.tell(do(Run("work", work)))
        await until(lambda: "result" in seen)

        assert seen == ["started", "flood", "flood", "flood", "result"]


async def test_an_actor_that_cannot_be_told_its_own_result_crashes() -> None:
    """Losing it in silence would leave the actor waiting for ever."""
    seen: list[str] = []
    async with running() as system:
        parent = spawn_parent(system, seen, lambda: Probe([]), mailbox=1)
        child = parent.child("a")

        async def work() -> Note:
            while child.tell(Order()):
                pass
            return Note(text="result")

        child.tell(do(Run("work", work)))
        await until(lambda: len(seen) > 1)

        assert seen[1] == "a crashed: parent/a has no room for its own Note"


# --- timers -----------------------------------------------------------------------------------


async def test_a_scheduled_message_comes() -> None:
    """Once."""
    seen: list[str] = []
    async with running() as system:
        probe = spawn(system, seen)
        probe.tell(do(Schedule("key", 0.001, Note(text="now"))))
        await until(lambda: "now" in seen)
        await settle()

        assert seen == ["started", "now"]


async def test_a_scheduled_message_can_be_forgotten() -> None:
    """Unknown keys do nothing."""
    seen: list[str] = []
    async with running() as system:
        probe = spawn(system, seen)
        probe.tell(do(Schedule("key", 0.001, Note(text="never")), Unschedule("key")))
        probe.tell(do(Unschedule("unknown"), Schedule("other", 0.003, Note(text="other"))))
        await until(lambda: "other" in seen)

        assert "never" not in seen


async def test_a_second_one_of_the_same_key_replaces_the_first() -> None:
    """Other keys are left alone."""
    seen: list[str] = []
    async with running() as system:
        probe = spawn(system, seen)
        probe.tell(
            do(
                Schedule("key", 0.001, Note(text="first")),
                Schedule("other", 0.001, Note(text="other")),
                Schedule("key", 0.002, Note(text="second")),
            )
        )
        await until(lambda: "second" in seen)

        assert seen == ["started", "other", "second"]


@pytest.mark.parametrize(
    "effect", [Unschedule("key"), Schedule("key", 100, Note())], ids=["forgotten", "replaced"]
)
async def test_a_message_whose_time_has_come_can_still_be_forgotten(
    effect: Unschedule | Schedule,
) -> None:
    """It waits in the mailbox already, behind the message that makes it void."""
    seen: list[str] = []
    async with running() as system:
        probe = spawn(system, seen)
        probe.tell(
            do(
                Schedule("before", 0.0, do(effect)),
                Schedule("key", 0.0, Note(text="void")),
                Schedule("after", 0.001, Note(text="after")),
            )
        )
        await until(lambda: "after" in seen)

        assert seen == ["started", "after"]
