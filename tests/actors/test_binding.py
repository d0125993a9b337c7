"""Which host processes are a job's, as they announce themselves anew."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.binding import Bindings
from actors.ports import HostProcess
from tests.actors.fakes import identity
from transport.messages import ProcessIdentity, ProcessRole

WRAPPER, PAYLOAD = ProcessRole.WRAPPER, ProcessRole.PAYLOAD


def host(pid: int = 27562) -> HostProcess:
    """Return a process as the host sees it."""
    return HostProcess(pid=pid, start_ticks=pid)


def bound_to(pid: int, tries_max: int = 3) -> Bindings:
    """Return bindings whose wrapper is bound to this host PID."""
    bindings = Bindings(tries_max)
    bindings.announce(WRAPPER, identity(13))
    assert bindings.found(WRAPPER, identity(13), host(pid))
    return bindings


def test_an_announcement_is_wanted_until_it_is_found() -> None:
    """What announced itself is looked for; what is bound is not."""
    bindings = Bindings(3)

    assert bindings.announce(WRAPPER, identity(13))
    assert bindings.wanted() == ((WRAPPER, identity(13)),)
    assert bindings.found(WRAPPER, identity(13), host())
    assert bindings.wanted() == ()
    assert bindings.bound() == (host(),)
    assert bindings.process(WRAPPER) == host()
    assert bindings.process(PAYLOAD) is None


def test_the_same_announcement_again_says_nothing_new() -> None:
    """A repetition unbinds nothing and starts no search."""
    bindings = bound_to(27562)

    assert not bindings.announce(WRAPPER, identity(13))
    assert bindings.process(WRAPPER) == host(27562)


@pytest.mark.parametrize(
    "changed",
    [identity(14), identity(13, pid_namespace=1), identity(13, start_ticks=9)],
    ids=["pid", "namespace", "start"],
)
def test_an_announcement_that_differs_rebinds(changed: ProcessIdentity) -> None:
    """Another PID, another namespace or another start is another process."""
    bindings = bound_to(27562)

    assert bindings.announce(WRAPPER, changed)
    assert bindings.bound() == ()
    assert bindings.wanted() == ((WRAPPER, changed),)
    assert bindings.found(WRAPPER, changed, host(2))
    assert bindings.process(WRAPPER) == host(2)


def test_a_stale_answer_changes_nothing() -> None:
    """An answer for the announcement before doesn't bind, and doesn't cost a try."""
    bindings = Bindings(1)
    bindings.announce(WRAPPER, identity(13))
    bindings.announce(WRAPPER, identity(14))

    assert not bindings.found(WRAPPER, identity(13), host())
    assert not bindings.found(WRAPPER, identity(13), None)
    assert bindings.bound() == ()
    assert bindings.wanted() == ((WRAPPER, identity(14)),)


def test_an_answer_about_what_was_never_announced_changes_nothing() -> None:
    """Nobody asked for it."""
    bindings = Bindings(3)

    assert not bindings.found(PAYLOAD, identity(13), host())
    assert bindings.bound() == ()


def test_a_second_answer_doesn_t_rebind() -> None:
    """Once it is bound it stays so until it announces itself anew."""
    bindings = bound_to(27562)

    assert not bindings.found(WRAPPER, identity(13), host(2))
    assert bindings.process(WRAPPER) == host(27562)


def test_a_search_is_given_up_after_its_tries() -> None:
    """The last try settles it, and what comes later is too late."""
    bindings = Bindings(3)
    bindings.announce(WRAPPER, identity(13))

    assert [bindings.found(WRAPPER, identity(13), None) for _ in range(3)] == [False, False, True]
    assert bindings.wanted() == ()
    assert not bindings.found(WRAPPER, identity(13), None)
    assert not bindings.found(WRAPPER, identity(13), host())
    assert bindings.bound() == ()


def test_a_new_announcement_has_its_own_tries() -> None:
    """What was given up is looked for again once it says something new."""
    bindings = Bindings(1)
    bindings.announce(WRAPPER, identity(13))
    bindings.found(WRAPPER, identity(13), None)

    assert bindings.announce(WRAPPER, identity(14))
    assert bindings.wanted() == ((WRAPPER, identity(14)),)


def test_what_is_lost_is_not_looked_for_again() -> None:
    """A process that was there and has gone has gone for good."""
    bindings = bound_to(27562)

    assert bindings.lost_all((host(27562),)) == (WRAPPER,)
    assert bindings.bound() == ()
    assert bindings.wanted() == ()
    assert bindings.lost_all((host(27562),)) == ()


def test_only_what_was_looked_at_is_lost() -> None:
    """A process that was bound while the others were measured is not among the dead."""
    bindings = bound_to(27562)
    bindings.announce(PAYLOAD, identity(14))
    bindings.found(PAYLOAD, identity(14), host(2))

    assert bindings.lost_all((host(27562),)) == (WRAPPER,)
    assert bindings.bound() == (host(2),)


class BindingMachine(RuleBasedStateMachine):
    """Announcements and answers in any order: only the newest announcement is ever bound."""

    roles = st.sampled_from([WRAPPER, PAYLOAD])
    pids = st.integers(1, 3)

    def __init__(self) -> None:
        super().__init__()
        self.bindings = Bindings(2)
        self.newest: dict[ProcessRole, ProcessIdentity] = {}
        self.misses: dict[ProcessRole, int] = {}

    @rule(role=roles, pid=pids)
    def announce(self, role: ProcessRole, pid: int) -> None:
        is_new = self.newest.get(role) != identity(pid)
        if is_new:
            self.newest[role] = identity(pid)
            self.misses[role] = 0
        assert self.bindings.announce(role, identity(pid)) is is_new

    @rule(role=roles, pid=pids, is_there=st.booleans())
    def answer(self, role: ProcessRole, pid: int, is_there: bool) -> None:
        is_wanted = (role, identity(pid)) in self.bindings.wanted()
        self.misses[role] = self.misses.get(role, 0) + (is_wanted and not is_there)
        settles = is_wanted and (is_there or self.misses[role] == 2)
        answer = host(pid) if is_there else None
        assert self.bindings.found(role, identity(pid), answer) is settles

    @rule()
    def lose(self) -> None:
        self.bindings.lost_all(self.bindings.bound())
        assert self.bindings.bound() == ()

    @invariant()
    def what_is_bound_is_the_newest(self) -> None:
        for role, process in self.newest.items():
            found = self.bindings.process(role)
            assert found is None or found == host(process.pid)

    @invariant()
    def nothing_is_wanted_and_bound(self) -> None:
        for role, process in self.bindings.wanted():
            assert self.newest[role] == process
            assert self.bindings.process(role) is None
            assert self.misses[role] < 2


TestBindingsInAnyOrder = BindingMachine.TestCase
TestBindingsInAnyOrder.settings = settings(max_examples=60, deadline=None)
