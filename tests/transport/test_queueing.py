"""The bounded queue: order, and what each class of message meets at the bound."""

from __future__ import annotations

import tracemalloc
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from transport.messages import Delivery
from transport.queueing import PolicyQueue

CONTROL, ORDERED, LATEST, LOSSY = (
    Delivery.CONTROL,
    Delivery.ORDERED,
    Delivery.LATEST,
    Delivery.LOSSY,
)


def queue(room: int = 4, reserve: int = 2) -> PolicyQueue[str]:
    """Return an empty queue with little room."""
    return PolicyQueue(room, control_reserve=reserve)


def filled(delivery: Delivery, count: int, room: int = 4) -> PolicyQueue[str]:
    """Return a queue that took ``count`` messages of one class."""
    made = queue(room)
    for number in range(count):
        assert made.put(str(number), delivery)
    return made


def drained(made: PolicyQueue[str]) -> list[str]:
    """Take everything out."""
    return [made.get() for _ in range(len(made))]


def test_all_classes_share_one_order() -> None:
    """A control message has reserved room, but it doesn't overtake."""
    made = queue()
    made.put("a", ORDERED)
    made.put("b", LOSSY)
    made.put("c", CONTROL)
    made.put("d", LATEST)

    assert drained(made) == ["a", "b", "c", "d"]


def test_an_empty_queue_gives_nothing() -> None:
    """Asking an empty queue is the caller's mistake."""
    with pytest.raises(IndexError):
        queue().get()


def test_a_queue_whose_every_item_was_dropped_and_taken_is_empty() -> None:
    """Places of dropped items are never handed out."""
    made = filled(LOSSY, 5)
    drained(made)

    with pytest.raises(IndexError):
        made.get()


def test_a_full_queue_refuses_ordered_messages() -> None:
    """The sender is told, and the refusal is counted."""
    made = filled(ORDERED, 4)

    assert not made.put("late", ORDERED)
    assert made.refused == 1
    assert drained(made) == ["0", "1", "2", "3"]


def test_control_has_reserved_room_and_no_more() -> None:
    """Control passes a full queue until its reserve is used up too."""
    made = filled(ORDERED, 4)

    assert [made.put("stop", CONTROL) for _ in range(3)] == [True, True, False]
    assert len(made) == 6


def test_the_latest_takes_the_place_of_the_one_before() -> None:
    """Only the newest matters, and it stands where the first stood."""
    made = queue()
    made.put("old", LATEST, "usage")
    made.put("other", ORDERED)
    made.put("new", LATEST, "usage")

    assert made.replaced == 1
    assert drained(made) == ["new", "other"]


def test_the_latest_replaces_only_its_own_kind() -> None:
    """Two kinds of latest message don't push each other out."""
    made = queue()
    made.put("u", LATEST, "usage")
    made.put("p", LATEST, "position")

    assert drained(made) == ["u", "p"]


def test_a_latest_message_that_was_taken_isn_t_replaced() -> None:
    """What has left the queue is gone; the next one is a message of its own."""
    made = queue()
    made.put("first", LATEST, "usage")

    assert made.get() == "first"
    assert made.put("second", LATEST, "usage")
    assert drained(made) == ["second"]


def test_a_full_queue_refuses_a_first_latest() -> None:
    """There is nothing of its kind that it could replace."""
    assert not filled(ORDERED, 4).put("usage", LATEST, "usage")


def test_lossy_messages_get_half_the_room() -> None:
    """Logs push out older logs long before they crowd out anything else."""
    made = filled(LOSSY, 5)

    assert made.dropped == 3
    assert drained(made) == ["3", "4"]


def test_a_lossy_message_in_a_full_queue_takes_the_oldest_one_s_place() -> None:
    """One goes, one comes: never two lost for one."""
    made = queue()
    for text, delivery in (("l0", LOSSY), ("l1", LOSSY), ("a", ORDERED), ("b", ORDERED)):
        made.put(text, delivery)

    assert made.put("l2", LOSSY)
    assert made.dropped == 1
    assert drained(made) == ["l1", "a", "b", "l2"]


def test_a_lossy_message_beside_used_reserve_loses_one_not_two() -> None:
    """Control in its reserve doesn't make a log push out a log and then be refused itself."""
    made = queue()
    made.put("l0", LOSSY)
    for number in range(5):
        assert made.put(str(number), CONTROL)

    assert made.put("l1", LOSSY)
    assert (made.dropped, made.refused) == (1, 0)
    assert drained(made) == ["0", "1", "2", "3", "4", "l1"]


def test_a_full_queue_without_a_lossy_message_refuses_one() -> None:
    """It may drop its own class, never another."""
    made = filled(ORDERED, 4)

    assert not made.put("log", LOSSY)
    assert made.refused == 1


@pytest.mark.parametrize("first", [ORDERED, LOSSY])
def test_a_flood_of_lossy_messages_leaves_no_trace(first: Delivery) -> None:
    """Twenty thousand dropped logs cost no memory, also behind a message that waits."""
    made: PolicyQueue[str] = PolicyQueue(8, control_reserve=0)
    made.put("head", first)
    tracemalloc.start()
    try:
        for _ in range(20_000):
            made.put("line", LOSSY)
        kept_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept_bytes < 10_000
    assert made.dropped >= 19_990


def test_a_queue_has_room() -> None:
    """A queue without any place is a mistake of ours."""
    with pytest.raises(AssertionError):
        PolicyQueue(0, control_reserve=1)


class QueueMachine(RuleBasedStateMachine):
    """The queue against a list that is searched the slow way."""

    ROOM, RESERVE = 4, 2

    def __init__(self) -> None:
        super().__init__()
        self.queue: PolicyQueue[int] = PolicyQueue(self.ROOM, control_reserve=self.RESERVE)
        self.model: deque[tuple[int, Delivery, str]] = deque()
        self.number = 0

    @rule(delivery=st.sampled_from(list(Delivery)), key=st.sampled_from("xy"))
    def put(self, delivery: Delivery, key: str) -> None:
        self.number += 1
        assert self.queue.put(self.number, delivery, key) is self.model_put(delivery, key)

    def model_put(self, delivery: Delivery, key: str) -> bool:
        item = (self.number, delivery, key)
        lossy = [entry for entry in self.model if entry[1] is LOSSY]
        is_full = len(self.model) >= self.ROOM
        if delivery is LATEST:
            for at, entry in enumerate(self.model):
                if entry[1:] == (LATEST, key):
                    self.model[at] = item
                    return True
        if delivery is LOSSY and lossy and (is_full or len(lossy) >= self.ROOM // 2):
            self.model.remove(lossy[0])
        elif is_full and not (delivery is CONTROL and len(self.model) < self.ROOM + self.RESERVE):
            return False
        self.model.append(item)
        return True

    @precondition(lambda self: self.model)
    @rule()
    def get(self) -> None:
        assert self.queue.get() == self.model.popleft()[0]

    @invariant()
    def sizes_agree_and_are_bounded(self) -> None:
        assert len(self.queue) == len(self.model) <= self.ROOM + self.RESERVE


TestQueueAgainstItsModel = QueueMachine.TestCase
TestQueueAgainstItsModel.settings = settings(max_examples=80, deadline=None)
