"""One actor through all its lives: handling, starting, restarting, stopping."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from actors.effects import (
    Call,
    Effects,
    Run,
    Schedule,
    SpawnChild,
    StopChild,
    StopSelf,
    Tell,
)
from actors.runtime import Actor, Address, handles
from actors.supervision import Ending, Restart
from tests.actors.fakes import Mailbox, settle, until
from tests.actors.probe import (
    Crash,
    Crashes,
    Do,
    Line,
    LoudNote,
    Newest,
    Note,
    Order,
    Parent,
    Probe,
    Unknown,
    crash,
    do,
    ended,
    forever,
    running,
    spawn,
    spawn_parent,
    spec,
)
from transport.errors import InternalError

# --- handling ---------------------------------------------------------------------------------


async def test_messages_are_handled_in_the_order_in_which_they_were_told() -> None:
    """Whatever their class: control has reserved room, but doesn't overtake."""
    seen: list[str] = []
    async with running() as system:
        probe = spawn(system, seen)
        for message in (Note(text="a"), Line(text="b"), Order(text="c"), Newest(text="d")):
            assert probe.tell(message)
        await until(lambda: len(seen) == 5)

        assert seen == ["started", "a", "b", "c", "d"]


async def test_one_handler_runs_at_a_time() -> None:
    """What a handler tells its own actor is handled after it, never within it."""
    seen: list[str] = []

    def script(probe: Probe) -> Effects:
        probe.me.tell(Note(text="told"))
        probe.seen.append("handling")
        yield Tell(probe.me, Note(text="effect"))
        probe.seen.append("handled")

    async with running() as system:
        spawn(system, seen).tell(Do(script=script))
        await until(lambda: len(seen) == 5)

        assert seen == ["started", "handling", "handled", "told", "effect"]


async def test_effects_are_performed_when_the_handler_has_returned() -> None:
    """All of them, in order, and none before."""
    seen: list[str] = []

    def script(probe: Probe) -> Effects:
        yield Call(lambda: seen.append("first effect"))
        yield Call(lambda: seen.append("second effect"))
        seen.append("returned")

    async with running() as system:
        spawn(system, seen).tell(Do(script=script))
        await until(lambda: len(seen) == 4)

        assert seen[1:] == ["returned", "first effect", "second effect"]


async def test_a_handler_that_raises_midway_has_had_no_effect() -> None:
    """What it yielded before is forgotten with it."""
    seen: list[str] = []

    def script(probe: Probe) -> Effects:
        yield Call(lambda: seen.append("effect"))
        raise Crash

    async with running() as system:
        parent = spawn_parent(system, seen, lambda: Probe([]))
        await settle()
        parent.child("a").tell(Do(script=script))
        await until(lambda: any("crashed" in text for text in seen))

        assert "effect" not in seen


async def test_what_has_no_handler_is_a_dead_letter() -> None:
    """Counted, and not taken for a subclass of what has one."""
    seen: list[str] = []
    async with running() as system:
        probe = spawn(system, seen)
        probe.tell(Unknown())
        probe.tell(LoudNote(text="loud"))
        await settle()

        assert seen == ["started"]
        assert system.statistics().dead_letters == 2
        assert system.statistics().actors["probe"].handled == 0


async def test_a_subclass_has_its_base_s_handlers_and_its_own() -> None:
    """Where both have one for the same message, its own."""

    class Louder(Probe):
        @handles(Order)
        def louder(self, message: Order) -> Effects:
            self.seen.append(message.text.upper())
            return ()

        @handles(Unknown)
        def known(self, _: Unknown) -> Effects:
            self.seen.append("known")
            return ()

    seen: list[str] = []
    async with running() as system:
        louder = system.spawn(spec(lambda: Louder(seen), "louder"))
        for message in (Note(text="note"), Order(text="order"), Unknown()):
            louder.tell(message)
        await until(lambda: len(seen) == 4)

        assert seen == ["started", "note", "ORDER", "known"]
        assert Unknown not in Probe._handlers


async def test_an_actor_that_says_nothing_starts_and_stops() -> None:
    """Its first and its last effects are none."""
    async with running() as system:
        quiet = system.spawn(spec(Actor, "quiet"))
        quiet.tell(Unknown())
        assert repr(quiet) == "<Address quiet>"

    assert await ended(quiet) is Ending.STOPPED


async def test_a_flood_to_one_actor_does_not_starve_another() -> None:
    """Everybody gets a turn before the flood is over."""
    flooded: list[str] = []
    seen: list[str] = []
    async with running() as system:
        busy = system.spawn(spec(lambda: Probe(flooded), "busy", mailbox=5000))
        calm = system.spawn(spec(lambda: Probe(seen), "calm"))
        for number in range(5000):
            busy.tell(Note(text=str(number)))
        calm.tell(Note(text="hello"))
        await until(lambda: "hello" in seen)

        assert len(flooded) < 1000
        await until(lambda: len(flooded) == 5001)


async def test_an_actor_that_tells_itself_without_end_can_be_stopped() -> None:
    """A batch is what was there when it began."""
    seen: list[str] = []

    def script(probe: Probe) -> Effects:
        yield Tell(probe.me, Do(script=script))

    async with running() as system:
        spawn(system, seen).tell(Do(script=script))
        await settle()

    assert seen == ["started", "stopping"]


# --- starting ---------------------------------------------------------------------------------


async def test_an_actor_has_started_when_it_was_spawned() -> None:
    """Its first effects are performed, its children's too."""
    seen: list[str] = []
    async with running() as system:
        parent = spawn_parent(system, seen, lambda: Probe(seen, name="child "))

        assert seen == ["started", "child started"]
        assert sorted(system) == ["parent", "parent/a"]
        assert parent.child("a").tell(Note())


async def test_a_name_is_taken_once() -> None:
    """At the top and among siblings; it is free again when its actor has ended."""
    seen: list[str] = []
    async with running() as system:
        probe = spawn(system, [])
        with pytest.raises(InternalError, match="there is an actor called probe already"):
            spawn(system, [])
        probe.tell(do(StopSelf()))
        await ended(probe)
        spawn(system, seen)

        assert seen == ["started"]


async def test_first_effects_that_fail_are_a_crash() -> None:
    """Of the child, not of whoever started it."""

    def first(_: Probe) -> Effects:
        raise Crash("no disk")

    seen: list[str] = []
    async with running() as system:
        spawn_parent(system, seen, lambda: Probe([], first=first))
        await until(lambda: "a crashed: no disk" in seen)


async def test_an_actor_that_cannot_be_made_is_a_crash() -> None:
    """Of the child, not of whoever started it."""

    def make() -> Actor:
        raise Crash("no room")

    seen: list[str] = []
    async with running() as system:
        parent = spawn_parent(system, seen, make)
        await until(lambda: "a crashed: no room" in seen)

        assert parent.tell(Note(text="alive"))


# --- restarting -------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", [Restart.PERMANENT, Restart.TRANSIENT])
async def test_a_child_that_crashed_begins_anew(restart: Restart) -> None:
    """With no memory, at the same address, told what waits in its mailbox; not what crashed it."""
    seen: list[str] = []
    parent_seen: list[str] = []
    crashes = Crashes()
    async with running(crashes) as system:
        parent = spawn_parent(system, parent_seen, lambda: Probe(seen), restart=restart)
        child = parent.child("a")
        child.tell(crash())
        child.tell(Note(text="next"))
        await until(lambda: "next" in seen)

        assert seen == ["started", "stopping", "started", "next"]
        await until(lambda: parent_seen == ["started", "a restarted: boom"])
        assert crashes.texts == [("parent/a", "boom")]
        assert system.statistics().actors["parent/a"].restarts == 1


async def test_a_temporary_child_that_crashed_has_ended() -> None:
    """Its parent is told and decides."""
    seen: list[str] = []
    async with running() as system:
        parent = spawn_parent(system, seen, lambda: Probe([]))
        parent.child("a").tell(crash())
        await until(lambda: "a crashed: boom" in seen)

        assert sorted(system) == ["parent"]
        assert parent.tell(Note())


async def test_a_transient_child_may_end() -> None:
    """In good order, and then it isn't started again."""
    seen: list[str] = []
    async with running() as system:
        parent = spawn_parent(system, seen, lambda: Probe([]), restart=Restart.TRANSIENT)
        parent.child("a").tell(do(StopSelf()))
        await until(lambda: "a stopped: None" in seen)


async def test_a_permanent_child_that_ends_itself_begins_anew() -> None:
    """It is to be there always; that it left counts as a crash."""
    seen: list[str] = []
    async with running() as system:
        parent = spawn_parent(system, seen, lambda: Probe([]), restart=Restart.PERMANENT)
        parent.child("a").tell(do(StopSelf()))
        await until(lambda: "a restarted: parent/a is permanent, and ended itself" in seen)

        assert parent.child("a").tell(Note())


@pytest.mark.parametrize("restart", Restart)
async def test_a_child_that_its_parent_stops_is_not_started_again(restart: Restart) -> None:
    """Whatever its spec says."""
    seen: list[str] = []
    async with running() as system:
        parent = spawn_parent(system, seen, lambda: Probe([]), restart=restart)
        parent.tell(do(StopChild("a"), StopChild("unknown")))
        await until(lambda: "a stopped: None" in seen)


async def test_a_child_that_crashes_too_often_takes_its_parent_with_it() -> None:
    """Restarts don't help, so the next one up decides; the error goes with it."""
    seen: list[str] = []
    top: list[str] = []
    crashes = Crashes()

    def make_parent() -> Parent:
        child = spec(lambda: Probe([]), "child", restart=Restart.TRANSIENT, restarts=2)
        return Parent(seen, first=lambda _: [SpawnChild(child)])

    async with running(crashes) as system:
        grand = spawn_parent(system, top, make_parent)
        parent = grand.child("a")
        assert isinstance(parent, Address)
        for number in range(3):
            parent.child("child").tell(crash(str(number)))
            await settle()
        await until(lambda: "a crashed: 2" in top)

        assert seen == ["started", "child restarted: 0", "child restarted: 1", "stopping"]
        assert sorted(system) == ["parent"]
        assert [path for path, _ in crashes.told] == ["parent/a/child"] * 3 + ["parent/a"]


async def test_a_parent_that_is_restarted_makes_its_children_anew() -> None:
    """They end with it, youngest first, and its next life isn't told of theirs."""
    seen: list[str] = []
    made: Iterator[str] = iter("123456")

    def make_middle() -> Parent:
        def first(_: Probe) -> Effects:
            for name in "xy":
                child = partial(Probe, seen, name=f"{name}{next(made)} ")
                yield SpawnChild(spec(child, name, restart=Restart.PERMANENT))

        return Parent(seen, first=first)

    async with running() as system:
        top = spawn_parent(system, [], make_middle, restart=Restart.TRANSIENT)
        await settle()
        top.child("a").tell(crash())
        await until(lambda: "y4 started" in seen)
        await settle()

        assert seen == [
            "started",
            "x1 started",
            "y2 started",
            "stopping",
            "y2 stopping",
            "x1 stopping",
            "started",
            "x3 started",
            "y4 started",
        ]


async def test_a_restart_forgets_works_and_their_results() -> None:
    """The same names run again; what the former life waited for isn't told to the next."""
    seen: list[str] = []
    async with running() as system:
        make = partial(Probe, seen, first=lambda _: [Run("slow", forever)])
        parent = spawn_parent(system, [], make, restart=Restart.TRANSIENT)
        child = parent.child("a")

        async def quick() -> Note:
            # Both wait now, the crash before the result.
            child.tell(crash())
            return Note(text="result of a former life")

        child.tell(do(Run("quick", quick)))
        await until(lambda: seen.count("started") == 2)
        child.tell(Note(text="next"))
        await until(lambda: "next" in seen)

        assert seen == ["started", "stopping", "started", "next"]


async def test_a_restart_forgets_timers() -> None:
    """Those that would still fire, and what one told the former life in its last moment."""
    seen: list[str] = []
    async with running() as system:
        parent = spawn_parent(system, [], lambda: Probe(seen), restart=Restart.TRANSIENT)
        child = parent.child("a")
        timers = [Schedule(f"in {s}", s, Note(text="of a former life")) for s in (0.0, 0.001)]
        child.tell(do(*timers, Call(partial(child.tell, crash()))))
        await until(lambda: seen.count("started") == 2)
        child.tell(do(Schedule("in 0.002", 0.002, Note(text="next"))))
        await until(lambda: "next" in seen)

        assert seen == ["started", "stopping", "started", "next"]


async def test_a_restart_whose_first_effects_fail_counts_as_the_next_crash() -> None:
    """And so does one in which the actor can't be made any more: it ends, bounded."""
    lives = iter([Probe([])])

    def make() -> Actor:
        return next(lives)  # StopIteration is an error like any other.

    seen: list[str] = []
    crashes = Crashes()
    async with running(crashes) as system:
        make_middle = partial(
            Parent,
            [],
            first=lambda _: [
                SpawnChild(spec(make, "child", restart=Restart.TRANSIENT, restarts=2))
            ],
        )
        top = spawn_parent(system, seen, make_middle)
        middle = top.child("a")
        assert isinstance(middle, Address)
        middle.child("child").tell(crash())
        await until(lambda: any(text.startswith("a crashed") for text in seen))

        assert [path for path, _ in crashes.told] == ["parent/a/child"] * 3 + ["parent/a"]


async def test_a_crash_of_a_child_that_is_being_stopped_does_not_escalate() -> None:
    """Its parent wanted it to end, and it has; how it ended is told."""
    seen: list[str] = []
    is_ending, release = asyncio.Event(), asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await forever()
        finally:
            is_ending.set()
            await release.wait()

    async with running() as system:
        parent = spawn_parent(system, seen, lambda: Probe([]), restart=Restart.PERMANENT)
        parent.child("a").tell(do(Run("work", slow_to_end)))
        await settle()
        parent.child("a").tell(crash())
        await is_ending.wait()
        parent.tell(do(StopChild("a")))
        await settle()
        release.set()
        await until(lambda: "a crashed: boom" in seen)

        assert parent.tell(Note(text="alive"))
        await until(lambda: "alive" in seen)


async def test_facts_of_supervision_are_told_only_where_they_are_handled() -> None:
    """An actor that doesn't care isn't charged with dead letters."""
    async with running() as system:
        child = spec(lambda: Probe([]), "child", restart=Restart.TRANSIENT)
        careless = system.spawn(spec(lambda: Probe([], first=lambda _: [SpawnChild(child)])))
        careless.child("child").tell(crash())
        await settle()
        careless.child("child").tell(do(StopSelf()))
        await until(lambda: sorted(system) == ["probe"])

        assert system.statistics().dead_letters == 0


# --- stopping ---------------------------------------------------------------------------------


async def test_children_end_before_their_parent_youngest_first() -> None:
    """And actors at the top likewise."""
    seen: list[str] = []
    async with running() as system:
        system.spawn(spec(lambda: Probe(seen, name="elder "), "elder"))
        names = ["a ", "b ", "c "]
        spawn_parent(system, [], *(partial(Probe, seen, name=name) for name in names))
        seen.clear()

    assert seen == ["c stopping", "b stopping", "a stopping", "elder stopping"]


async def test_last_effects_are_performed_when_the_children_are_gone() -> None:
    """A stopped actor has a last word, and so has one that crashed."""
    seen: list[str] = []
    told = Mailbox()

    def last(probe: Probe) -> Effects:
        yield Call(lambda: seen.append(f"{probe.name}children gone"))
        yield Tell(told, Note(text=probe.name))

    def first(_: Probe) -> Effects:
        yield SpawnChild(spec(lambda: Probe(seen, name="child "), "child"))

    async with running() as system:
        make = [partial(Probe, seen, first=first, last=last, name=name) for name in ("a ", "b ")]
        parent = spawn_parent(system, [], *make)
        seen.clear()
        parent.tell(do(StopChild("a")))
        await until(lambda: len(told.messages) == 1)
        parent.child("b").tell(crash())
        await until(lambda: len(told.messages) == 2)

    assert seen == [
        *("a stopping", "child stopping", "a children gone"),
        *("b stopping", "child stopping", "b children gone"),
    ]


@pytest.mark.parametrize(
    "last",
    [
        lambda _: [Call(partial(int, "x")), Call(partial(int, "x"))],
        lambda _: int("x"),
    ],
    ids=["performing", "collecting"],
)
@pytest.mark.parametrize("end", [do(StopSelf()), crash()], ids=["stopped", "crashed"])
async def test_last_effects_that_fail_are_noted_and_hurt_nobody(
    last: Callable[[Probe], Effects], end: Do
) -> None:
    """The actor is ending anyway; everybody else goes on."""
    seen: list[str] = []
    crashes = Crashes()
    async with running(crashes) as system:
        parent = spawn_parent(system, seen, lambda: Probe([], last=last))
        parent.child("a").tell(end)
        await until(lambda: len(seen) == 2)

        assert any("invalid literal" in text for _, text in crashes.texts)
        assert parent.tell(Note(text="alive"))


async def test_a_last_effect_that_would_outlive_its_actor_is_refused() -> None:
    """Works and children of an actor that has ended would be nobody's."""
    crashes = Crashes()
    async with running(crashes) as system:
        probe = system.spawn(spec(lambda: Probe([], last=lambda _: [Run("work", forever)])))
        probe.tell(do(StopSelf()))
        assert await ended(probe) is Ending.STOPPED

        assert "Run" in crashes.texts[0][1]


async def test_works_end_with_their_actor() -> None:
    """They are cancelled, and have time to clean up."""
    seen: list[str] = []

    async def work() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.001)
            seen.append("cleaned up")

    async with running() as system:
        probe = spawn(system, seen)
        probe.tell(do(Run("work", work)))
        await settle()
        probe.tell(do(StopSelf()))
        await ended(probe)

        assert seen == ["started", "stopping", "cleaned up"]


async def test_a_work_that_ignores_cancellation_is_abandoned_after_the_grace() -> None:
    """Its actor ends without it; only leaving the system waits for it."""
    release = asyncio.Event()

    async def stubborn() -> Note:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return Note(text="nobody is there")

    async with running() as system:
        probe = system.spawn(spec(lambda: Probe([]), grace_s=0.002))
        probe.tell(do(Run("work", stubborn)))
        await settle()
        probe.tell(do(StopSelf()))

        assert await ended(probe) is Ending.STOPPED
        release.set()
        await settle()
        assert system.statistics().dead_letters == 0
