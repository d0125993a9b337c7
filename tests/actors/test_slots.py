"""What a node has, what its jobs hold, what is left to offer."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.slots import Resources, SlotBook
from transport.errors import InternalError
from transport.messages import JobDescription

TOTAL = Resources(cpu_cores=8, memory_bytes=16, disk_bytes=80)


def job(cores: int = 1, memory: int = 2, disk: int = 10) -> JobDescription:
    """Return a job that asks for so much."""
    return JobDescription(executable="x", cpu_cores=cores, memory_bytes=memory, disk_bytes=disk)


def free_cores(book: SlotBook) -> int:
    """Return what a match request would offer."""
    slot = book.offer(node="n", site="s", time_left_s=60.0)
    return 0 if slot is None else slot.cpu_cores


def test_a_job_holds_what_it_asks_for() -> None:
    """What is free is what nobody holds."""
    book = SlotBook(TOTAL)

    assert book.take(1, job(3, 4, 5))
    assert book.free == Resources(cpu_cores=5, memory_bytes=12, disk_bytes=75)
    assert not book.is_empty


@pytest.mark.parametrize(
    "greedy", [job(9), job(memory=17), job(disk=81)], ids=["cores", "memory", "disk"]
)
def test_a_job_that_doesn_t_fit_holds_nothing(greedy: JobDescription) -> None:
    """One resource too many is one too many."""
    book = SlotBook(TOTAL)

    assert not book.take(1, greedy)
    assert book.is_empty
    assert book.free == TOTAL


def test_a_job_that_fits_exactly_is_taken() -> None:
    """The last core is to be used."""
    book = SlotBook(TOTAL)

    assert book.take(1, job(8, 16, 80))
    assert book.free == Resources(cpu_cores=0, memory_bytes=0, disk_bytes=0)


def test_a_job_s_slot_comes_back_once() -> None:
    """Giving back twice doesn't make a node larger."""
    book = SlotBook(TOTAL)
    book.take(1, job())
    book.give_back(1)
    book.give_back(1)
    book.give_back(2)

    assert book.free == TOTAL
    assert book.is_empty


def test_taking_twice_is_our_own_mistake() -> None:
    """The message names the job."""
    book = SlotBook(TOTAL)
    book.take(7, job())

    with pytest.raises(InternalError, match="job 7 "):
        book.take(7, job())


def test_the_whole_node_is_every_core() -> None:
    """A job with 0 cores waits for an empty node and then holds it."""
    book = SlotBook(TOTAL)
    whole = job(cores=0)
    book.take(1, job())

    assert book.needs(whole).cpu_cores == 8
    assert not book.take(2, whole)
    book.give_back(1)
    assert book.take(2, whole)
    assert free_cores(book) == 0


def test_an_empty_node_is_offered_whole() -> None:
    """The offer says what is free, and for how long."""
    slot = SlotBook(TOTAL).offer(node="wn7", site="CERN", time_left_s=3600.0)

    assert slot is not None
    assert (slot.node, slot.site, slot.time_left_s) == ("wn7", "CERN", 3600.0)
    assert (slot.cpu_cores, slot.memory_bytes, slot.disk_bytes) == (8, 16, 80)
    assert slot.is_whole_node


def test_a_node_in_use_is_not_offered_whole() -> None:
    """A whole-node job would not fit."""
    book = SlotBook(TOTAL)
    book.take(1, job())

    slot = book.offer(node="n", site="", time_left_s=1.0)

    assert slot is not None
    assert not slot.is_whole_node


@pytest.mark.parametrize(
    "hungry", [job(8, 1, 1), job(1, 16, 1), job(1, 1, 80)], ids=["cores", "memory", "disk"]
)
def test_nothing_is_offered_where_one_resource_is_used_up(hungry: JobDescription) -> None:
    """Cores without memory or disk run no job."""
    book = SlotBook(TOTAL)
    book.take(1, hungry)

    assert book.offer(node="n", site="", time_left_s=1.0) is None


class SlotMachine(RuleBasedStateMachine):
    """Jobs come and go in any order: the books always balance."""

    jobs = st.integers(1, 6)

    def __init__(self) -> None:
        super().__init__()
        self.book = SlotBook(TOTAL)
        self.held: dict[int, JobDescription] = {}

    @rule(job_id=jobs, cores=st.integers(0, 9), memory=st.integers(0, 17), disk=st.integers(0, 81))
    def take(self, job_id: int, cores: int, memory: int, disk: int) -> None:
        asked = job(cores, memory, disk)
        if job_id in self.held:
            with pytest.raises(InternalError):
                self.book.take(job_id, asked)
            return
        fits = self.book.free.holds(self.book.needs(asked))
        assert self.book.take(job_id, asked) is fits
        if fits:
            self.held[job_id] = asked

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from(sorted(self.held)))
        self.book.give_back(job_id)
        del self.held[job_id]

    @rule(job_id=jobs)
    def give_back_what_may_not_be_held(self, job_id: int) -> None:
        self.book.give_back(job_id)
        self.held.pop(job_id, None)

    @invariant()
    def nothing_is_over_committed(self) -> None:
        free = self.book.free
        assert min(free.cpu_cores, free.memory_bytes, free.disk_bytes) >= 0

    @invariant()
    def what_is_held_and_what_is_free_are_the_node(self) -> None:
        needs = [self.book.needs(description) for description in self.held.values()]
        free = self.book.free
        assert free.cpu_cores + sum(n.cpu_cores for n in needs) == TOTAL.cpu_cores
        assert free.memory_bytes + sum(n.memory_bytes for n in needs) == TOTAL.memory_bytes
        assert free.disk_bytes + sum(n.disk_bytes for n in needs) == TOTAL.disk_bytes
        assert self.book.is_empty is (not self.held)

    @invariant()
    def the_offer_can_be_taken(self) -> None:
        slot = self.book.offer(node="n", site="", time_left_s=1.0)
        if slot is not None:
            offered = job(slot.cpu_cores, slot.memory_bytes, slot.disk_bytes)
            assert self.book.take(-1, offered)
            self.book.give_back(-1)


TestSlotsInAnyOrder = SlotMachine.TestCase
TestSlotsInAnyOrder.settings = settings(max_examples=60, deadline=None)
