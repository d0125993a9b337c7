"""Where a job's processes were seen, and what is told of those that nobody saw."""

from __future__ import annotations

import msgspec

from actors.ports import HostProcess
from actors.sightings import PROCESSES_MAX, Sightings
from tests.fakes.world import identity
from transport.messages import ProcessRole

WRAPPER, PAYLOAD = ProcessRole.WRAPPER, ProcessRole.PAYLOAD


def host(pid: int) -> HostProcess:
    """Make a process on the host."""
    return HostProcess(pid=pid, start_ticks=1)


def test_what_was_seen_is_told_once() -> None:
    """Found, it is told; at the end there is nothing more to say of it."""
    sightings = Sightings()
    sightings.announced(WRAPPER, identity(13))

    assert sightings.seen(WRAPPER, identity(13), host(113))
    assert sightings.unseen() == ()
    assert sightings.wrapper == host(113)


def test_what_nobody_saw_is_told_at_the_end() -> None:
    """It ran, and its owner wants to know under which PID."""
    sightings = Sightings()
    sightings.announced(PAYLOAD, identity(17))

    assert sightings.unseen() == ((PAYLOAD, identity(17)),)


def test_an_answer_for_an_earlier_announcement_leaves_the_newer_unseen() -> None:
    """The payload started anew while the first was being looked for."""
    sightings = Sightings()
    sightings.announced(PAYLOAD, identity(17))
    sightings.announced(PAYLOAD, identity(18))
    sightings.seen(PAYLOAD, identity(17), host(117))

    assert sightings.unseen() == ((PAYLOAD, identity(18)),)


def test_a_wrapper_that_was_not_found_again_stays_where_it_was() -> None:
    """Its last known place is what a signal can go to."""
    sightings = Sightings()
    sightings.seen(WRAPPER, identity(13), host(113))
    sightings.seen(WRAPPER, identity(14), None)

    assert sightings.wrapper == host(113)


def test_beside_a_bare_wrapper_a_pid_is_the_same_on_the_host() -> None:
    """One PID namespace, one number."""
    sightings = Sightings()
    sightings.seen(WRAPPER, identity(13), host(13))

    assert sightings.must_have_been(identity(17)) == HostProcess(pid=17, start_ticks=170)


def test_a_pid_of_another_namespace_says_nothing_of_the_host() -> None:
    """Neither that of a contained wrapper, nor of a payload in a namespace of its own."""
    nobody, contained, bare = Sightings(), Sightings(), Sightings()
    contained.seen(WRAPPER, identity(13), host(113))
    bare.seen(WRAPPER, identity(13), host(13))

    assert nobody.must_have_been(identity(17)) is None
    assert contained.must_have_been(identity(17)) is None
    assert bare.must_have_been(msgspec.structs.replace(identity(17), pid_namespace=2)) is None


def test_what_is_told_of_an_attempt_is_bounded() -> None:
    """A wrapper that announces without end doesn't fill the queue."""
    sightings = Sightings()
    told = [sightings.seen(PAYLOAD, identity(n), host(n)) for n in range(1, PROCESSES_MAX + 3)]
    sightings.announced(PAYLOAD, identity(99))

    assert told == [True] * PROCESSES_MAX + [False] * 2
    assert sightings.unseen() == ()
