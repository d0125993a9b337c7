"""How an actor is reached: told, asked, and what its mailbox does at its bound."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.effects import (
    Call,
    Effects,
    Reply,
    Run,
    StopSelf,
    Tell,
)
from actors.runtime import ActorSystem, Address, NoAnswer, handles
from actors.supervision import Ending
from tests.actors.fakes import Mailbox, settle, until
from tests.actors.probe import (
    Ask,
    Crash,
    Line,
    Newest,
    Note,
    Order,
    Probe,
    Unknown,
    crash,
    do,
    ended,
    running,
    spawn,
    spawn_parent,
    spec,
)
from transport.messages import Message
from transport.queueing import PolicyQueue

# --- mailboxes --------------------------------------------------------------------------------


async def test_a_full_mailbox_refuses_and_counts() -> None:
    """The teller is told at once; control passes until its reserve is full too."""
    seen: list[str] = []
    async with running() as system:
        probe = spawn(system, seen, mailbox=2, reserve=1)

        assert [probe.tell(Note(text=text)) for text in "abc"] == [True, True, False]
        assert [probe.tell(Order(text=text)) for text in "de"] == [True, False]
        await until(lambda: len(seen) == 4)
        assert seen == ["started", "a", "b", "d"]
        assert system.statistics().dead_letters == 2
        assert system.statistics().actors["probe"].refused == 2


async def test_of_the_latest_only_the_newest_is_handled() -> None:
    """It stands where the first stood, and what it replaced is counted."""
    seen: list[str] = []
    async with running() as system:
        probe = spawn(system, seen)
        for message in (Newest(text="old"), Note(text="other"), Newest(text="new")):
            assert probe.tell(message)
        await until(lambda: len(seen) == 3)

        assert seen == ["started", "new", "other"]
        assert system.statistics().actors["probe"].replaced == 1


async def test_the_oldest_of_what_may_be_lost_is_dropped() -> None:
    """A flood of logs leaves the newest, and a count."""
    seen: list[str] = []
    async with running() as system:
        probe = spawn(system, seen, mailbox=4)
        assert all(probe.tell(Line(text=str(number))) for number in range(10))
        await until(lambda: len(seen) == 3)

        assert seen == ["started", "8", "9"]
        assert system.statistics().actors["probe"].dropped == 8


async def test_an_actor_that_has_ended_takes_nothing() -> None:
    """Its address outlives it; what is told there is a dead letter."""
    seen: list[str] = []
    async with running() as system:
        probe = spawn(system, seen)
        probe.tell(do(StopSelf()))
        assert await ended(probe) is Ending.STOPPED

        assert not probe.tell(Note(text="late"))
        assert system.statistics().dead_letters == 1
        assert "probe" not in system.statistics().actors


async def test_what_waits_when_an_actor_ends_becomes_dead_letters() -> None:
    """Counted, one by one."""
    seen: list[str] = []
    async with running() as system:
        probe = spawn(system, seen)
        probe.tell(do(StopSelf()))
        probe.tell(Note(text="late"))
        probe.tell(Note(text="later"))
        await ended(probe)

        assert seen == ["started", "stopping"]
        assert system.statistics().dead_letters == 2


async def test_a_told_effect_that_is_refused_is_a_dead_letter() -> None:
    """Once, whether by a mailbox, by a link, or because nobody is there."""

    class Closed:
        def tell(self, _: Message) -> bool:
            return False

    seen: list[str] = []
    async with running() as system:
        gone = system.spawn(spec(lambda: Probe([]), "gone"))
        gone.tell(do(StopSelf()))
        await ended(gone)
        probe = spawn(system, seen)
        effects = [Tell(to, Note()) for to in (gone, Closed(), probe.child("nobody"), Mailbox())]
        probe.tell(do(*effects))
        await settle()

        assert system.statistics().dead_letters == 3


async def test_a_child_can_be_told_things_by_its_name() -> None:
    """From its parent's address, as long as it is there."""
    seen: list[str] = []
    async with running() as system:
        parent = spawn_parent(system, [], lambda: Probe(seen))

        assert parent.child("a").tell(Note(text="hello"))
        assert not parent.child("b").tell(Note(text="hello"))
        await until(lambda: seen == ["started", "hello"])


kinds = st.sampled_from([Note, Order, Newest, Line])


@settings(max_examples=50, deadline=None)
@given(st.lists(kinds, max_size=30), st.integers(1, 6), st.integers(0, 3))
def test_a_mailbox_keeps_the_queue_s_order_and_policy(
    told: list[type[Note | Order | Newest | Line]], room: int, reserve: int
) -> None:
    """What an actor handles is what a bounded queue of the same room would hold."""
    seen: list[str] = []
    model: PolicyQueue[str] = PolicyQueue(room, control_reserve=reserve)

    async def fill_and_run() -> None:
        async with running() as system:
            probe = spawn(system, seen, mailbox=room, reserve=reserve)
            for number, kind in enumerate(told):
                taken = model.put(str(number), kind.delivery, kind)
                assert probe.tell(kind(text=str(number))) is taken
            await until(lambda: len(seen) == 1 + len(model))
            found = system.statistics()
            assert found.dead_letters == found.actors["probe"].refused == model.refused
            assert found.actors["probe"].dropped == model.dropped
            assert found.actors["probe"].replaced == model.replaced

    asyncio.run(fill_and_run())

    assert seen[1:-1] == [model.get() for _ in range(len(model))]


# --- confirming what was handled --------------------------------------------------------------


async def test_a_message_is_confirmed_after_its_effects() -> None:
    """Not when it is told, nor while it is handled."""
    seen: list[str] = []
    async with running() as system:
        probe = spawn(system, seen)
        probe.tell(do(Call(lambda: seen.append("effect"))), lambda: seen.append("confirmed"))
        assert seen == ["started"]
        await until(lambda: len(seen) == 3)

        assert seen == ["started", "effect", "confirmed"]


async def test_a_message_that_crashed_its_actor_is_not_confirmed() -> None:
    """Nor is one that nobody handles, or that came too late."""
    seen: list[str] = []
    confirmed: list[str] = []
    async with running() as system:
        parent = spawn_parent(system, seen, lambda: Probe([]))
        child = parent.child("a")
        assert isinstance(child, Address)
        child.tell(Unknown(), lambda: confirmed.append("unknown"))
        child.tell(crash(), lambda: confirmed.append("crash"))
        child.tell(Note(), lambda: confirmed.append("late"))
        await ended(child)

        assert confirmed == []


async def test_a_confirmation_that_raises_is_its_actor_s_crash() -> None:
    """The supervisor sees it, and nobody else is hurt."""
    seen: list[str] = []

    def confirm() -> None:
        raise Crash("link")

    async with running() as system:
        parent = spawn_parent(system, seen, lambda: Probe([]))
        child = parent.child("a")
        assert isinstance(child, Address)
        child.tell(Note(), confirm)
        await until(lambda: "a crashed: link" in seen)


# --- asking -----------------------------------------------------------------------------------


async def test_an_ask_is_answered() -> None:
    """With what the handler replied."""
    async with running() as system:
        probe = spawn(system, [])

        assert await probe.ask(Ask(text="hello"), timeout_s=5) == Note(text="hello")


async def test_a_reply_to_nobody_does_nothing() -> None:
    """The same handler serves a tell; and the first of two replies counts."""
    async with running() as system:
        probe = spawn(system, [])
        probe.tell(Ask(text="told"))
        twice = do(Reply(Note(text="first")), Reply(Note(text="second")))

        assert await probe.ask(twice, timeout_s=5) == Note(text="first")


async def test_an_ask_has_a_deadline() -> None:
    """However long the handler before it would take."""

    class Stuck(Probe):
        """Ends only after its work has, which takes as long as the test."""

        @handles(Unknown)
        def unknown(self, _: Unknown) -> Effects:
            yield StopSelf()

    release = asyncio.Event()

    async def work() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async with running() as system:
        stuck = system.spawn(spec(lambda: Stuck([]), "stuck"))
        stuck.tell(do(Run("work", work)))
        stuck.tell(Unknown())
        await settle()
        with pytest.raises(NoAnswer, match="stuck did not answer in time"):
            await stuck.ask(Ask(), timeout_s=0.005)
        release.set()


async def test_an_ask_of_a_full_mailbox_has_no_answer() -> None:
    """Nor has one of an actor that has ended: both at once."""
    async with running() as system:
        probe = spawn(system, [], mailbox=1, reserve=0)
        probe.tell(Note())
        with pytest.raises(NoAnswer, match="probe takes no Ask: it is full or gone"):
            await probe.ask(Ask(), timeout_s=100)
        await settle()
        probe.tell(do(StopSelf()))
        await ended(probe)
        with pytest.raises(NoAnswer, match="full or gone"):
            await probe.ask(Ask(), timeout_s=100)


async def test_an_ask_that_waits_when_its_actor_ends_has_no_answer() -> None:
    """It doesn't wait for its deadline."""
    async with running() as system:
        probe = spawn(system, [])
        probe.tell(do(StopSelf()))
        with pytest.raises(NoAnswer, match="probe has ended"):
            await probe.ask(Ask(), timeout_s=100)


@pytest.mark.parametrize("question", [Note(), Unknown(), crash()], ids=["silent", "none", "crash"])
async def test_an_ask_that_nobody_will_answer_any_more_ends_at_once(question: Message) -> None:
    """Handled without a reply, not handled at all, or the actor's last."""
    async with running() as system:
        parent = spawn_parent(system, [], lambda: Probe([]))
        child = parent.child("a")
        assert isinstance(child, Address)
        with pytest.raises(NoAnswer, match="parent/a"):
            await child.ask(question, timeout_s=100)


async def test_many_asks_are_answered_each_with_its_own() -> None:
    """One timer serves all deadlines, in whatever order they come."""
    async with running() as system:
        probe = spawn(system, [], mailbox=2000)
        asks = [probe.ask(Ask(text=str(n)), timeout_s=100 - n % 7) for n in range(1500)]

        assert await asyncio.gather(*asks) == [Note(text=str(number)) for number in range(1500)]


async def test_an_asker_that_gives_up_leaves_nothing_behind() -> None:
    """The reply finds nobody, and that is all."""
    async with running() as system:
        probe = spawn(system, [])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await probe.ask(Ask(), timeout_s=100)
        await settle()

        assert await probe.ask(Ask(text="next"), timeout_s=5) == Note(text="next")


async def test_an_ask_that_was_replaced_ends_with_the_system() -> None:
    """Nobody waits for an answer in a system that is gone."""
    async with ActorSystem() as system:
        probe = spawn(system, [])
        first = asyncio.ensure_future(probe.ask(Newest(text="old"), timeout_s=100))
        second = asyncio.ensure_future(probe.ask(Newest(text="new"), timeout_s=100))
        await settle()
    async with asyncio.timeout(5):
        answers = await asyncio.gather(first, second, return_exceptions=True)

    assert [type(answer) for answer in answers] == [NoAnswer, NoAnswer]
