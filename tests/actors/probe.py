"""An actor that does what a test tells it, and remembers what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from actors.effects import Effect, Effects, Reply, SpawnChild, WorkFailed
from actors.runtime import Actor, ActorSystem, Address, handles
from actors.supervision import ChildEnded, ChildRestarted, ChildSpec, Ending, Intensity, Restart
from transport.messages import Delivery, Message


class Note(Message, frozen=True, kw_only=True):
    """Anyone to a probe: an ordinary message."""

    text: str = ""


class Order(Message, frozen=True, kw_only=True):
    """Anyone to a probe: a control message."""

    delivery = Delivery.CONTROL
    text: str = ""


class Newest(Message, frozen=True, kw_only=True):
    """Anyone to a probe: of which only the latest matters."""

    delivery = Delivery.LATEST
    text: str = ""


class Line(Message, frozen=True, kw_only=True):
    """Anyone to a probe: which may be dropped."""

    delivery = Delivery.LOSSY
    text: str = ""


class Ask(Message, frozen=True, kw_only=True):
    """Anyone to a probe: answered with a `Note` of the same text."""

    text: str = ""


class Unknown(Message, frozen=True, kw_only=True):
    """Anyone to a probe: it has no handler for it."""


class LoudNote(Note, frozen=True, kw_only=True):
    """Anyone to a probe: a subclass of what it handles, which isn't what it handles."""


class Do(Message, frozen=True, kw_only=True):
    """A test to a probe: return these effects."""

    delivery = Delivery.CONTROL
    script: Callable[[Probe], Effects]


class Probe(Actor):
    """Writes into ``seen``, which outlives it, and follows scripts."""

    def __init__(
        self,
        seen: list[str],
        *,
        first: Callable[[Probe], Effects] | None = None,
        last: Callable[[Probe], Effects] | None = None,
        name: str = "",
    ) -> None:
        self.seen = seen
        self.first = first
        self.last = last
        self.name = name

    def started(self) -> Effects:
        self.seen.append(f"{self.name}started")
        return () if self.first is None else self.first(self)

    def stopping(self) -> Effects:
        self.seen.append(f"{self.name}stopping")
        return () if self.last is None else self.last(self)

    @handles(Note)
    def note(self, message: Note) -> Effects:
        return self._see(message.text)

    @handles(Order)
    def order(self, message: Order) -> Effects:
        return self._see(message.text)

    @handles(Newest)
    def newest(self, message: Newest) -> Effects:
        return self._see(message.text)

    @handles(Line)
    def line(self, message: Line) -> Effects:
        return self._see(message.text)

    def _see(self, text: str) -> Effects:
        self.seen.append(text)
        return ()

    @handles(Ask)
    def asked(self, message: Ask) -> Effects:
        yield Reply(Note(text=message.text))

    @handles(Do)
    def told(self, message: Do) -> Effects:
        return message.script(self)


class Parent(Probe):
    """A probe that cares for its children and its works."""

    @handles(ChildEnded)
    def child_ended(self, message: ChildEnded) -> Effects:
        self.seen.append(f"{message.name} {message.ending}: {message.error}")
        return ()

    @handles(ChildRestarted)
    def child_restarted(self, message: ChildRestarted) -> Effects:
        self.seen.append(f"{message.name} restarted: {message.error}")
        return ()

    @handles(WorkFailed)
    def work_failed(self, message: WorkFailed) -> Effects:
        self.seen.append(f"{message.name} failed: {message.error}")
        return ()


class Crash(Exception):
    """Raised on purpose."""


def spec(
    make: Callable[[], Actor],
    name: str = "probe",
    *,
    restart: Restart = Restart.TEMPORARY,
    restarts: int = 3,
    mailbox: int = 1024,
    reserve: int = 64,
    grace_s: float = 5.0,
) -> ChildSpec:
    """Return how to start a probe."""
    return ChildSpec(
        name=name,
        make=make,
        restart=restart,
        intensity=Intensity(restarts=restarts, within_s=60.0),
        mailbox=mailbox,
        control_reserve=reserve,
        grace_s=grace_s,
    )


def crash(text: str = "boom") -> Do:
    """Return an order to crash."""

    def script(_: Probe) -> Effects:
        raise Crash(text)

    return Do(script=script)


def do(*effects: Effect) -> Do:
    """Return an order to perform these effects."""
    return Do(script=lambda _: effects)


class Crashes:
    """What a system tells whoever keeps its log."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Exception]] = []

    def __call__(self, path: str, error: Exception) -> None:
        self.told.append((path, error))

    @property
    def texts(self) -> list[tuple[str, str]]:
        return [(path, str(error)) for path, error in self.told]


@asynccontextmanager
async def running(on_crash: Crashes | None = None) -> AsyncIterator[ActorSystem]:
    """Enter a system that mustn't hang, and that leaves nothing running."""
    async with asyncio.timeout(10):
        async with ActorSystem(on_crash) as system:
            yield system
        assert asyncio.all_tasks() == {asyncio.current_task()}


def spawn(
    system: ActorSystem, seen: list[str], *, mailbox: int = 1024, reserve: int = 64
) -> Address:
    """Start a probe at the top."""
    return system.spawn(spec(lambda: Probe(seen), mailbox=mailbox, reserve=reserve))


def spawn_parent(
    system: ActorSystem, seen: list[str], *children: Callable[[], Actor], **options: object
) -> Address:
    """Start a parent with children called a, b, c ... all treated alike."""

    def first(_: Probe) -> Effects:
        for name, make in zip("abc", children, strict=False):
            yield SpawnChild(spec(make, name, **options))  # type: ignore[arg-type]

    return system.spawn(spec(lambda: Parent(seen, first=first), "parent"))


async def ended(address: Address) -> Ending:
    """Wait until an actor has ended, but not for ever."""
    async with asyncio.timeout(5):
        return await address.wait_ended()


async def forever() -> None:
    """Work that ends only by cancellation."""
    await asyncio.Event().wait()
