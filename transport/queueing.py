"""One bounded queue with a policy per message class, for backlogs and for mailboxes.

It keeps one order for all classes: a control message has reserved room, but it doesn't
overtake. What happens at the bound is the message's own `Delivery`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from transport.messages import Delivery

T = TypeVar("T")


class PolicyQueue(Generic[T]):
    """A bounded first-in-first-out queue; `put` never waits and tells whether it took."""

    __slots__ = (
        "_cells",
        "_latest",
        "_lossy",
        "_lossy_max",
        "_reserve",
        "_room",
        "_size",
        "dropped",
        "refused",
        "replaced",
    )

    def __init__(self, room: int, *, control_reserve: int) -> None:
        """Make a queue with ``room`` places, and ``control_reserve`` more for control."""
        assert room > 0
        self._room = room
        self._reserve = control_reserve
        self._lossy_max = max(1, room // 2)
        # A cell is [item, delivery, key]; a dropped one stays as an empty list until it is met.
        self._cells: deque[list[object]] = deque()
        self._latest: dict[Hashable, list[object]] = {}
        self._lossy: deque[list[object]] = deque()
        self._size = 0
        self.dropped = 0
        self.refused = 0
        self.replaced = 0

    def __len__(self) -> int:
        return self._size

    def put(self, item: T, delivery: Delivery, key: Hashable = None) -> bool:
        """Take ``item``, or return False where its policy refuses it.

        ``key`` says which unsent item a LATEST one replaces.
        """
        if delivery is Delivery.LATEST and (cell := self._latest.get(key)) is not None:
            cell[0] = item
            self.replaced += 1
            return True
        is_full = self._size >= self._room
        if delivery is Delivery.LOSSY and self._lossy and (is_full or self._has_enough_lossy()):
            self._drop_oldest_lossy()  # The new one takes its place: one for one.
        elif is_full and not (delivery is Delivery.CONTROL and self._has_reserve()):
            self.refused += 1
            return False
        self._append([item, delivery, key])
        return True

    def get(self) -> T:
        """Take the oldest item; raises `IndexError` when there is none."""
        cell = self._cells.popleft()
        while not cell:
            cell = self._cells.popleft()
        item, delivery, key = cell
        if delivery is Delivery.LATEST:
            del self._latest[key]
        elif delivery is Delivery.LOSSY:
            self._lossy.popleft()
        self._size -= 1
        return item  # type: ignore[return-value]  # a cell's first place holds a T

    def _append(self, cell: list[object]) -> None:
        self._cells.append(cell)
        if cell[1] is Delivery.LATEST:
            self._latest[cell[2]] = cell
        elif cell[1] is Delivery.LOSSY:
            self._lossy.append(cell)
        self._size += 1

    def _has_enough_lossy(self) -> bool:
        return len(self._lossy) >= self._lossy_max

    def _has_reserve(self) -> bool:
        return self._size < self._room + self._reserve

    def _drop_oldest_lossy(self) -> None:
        self._lossy.popleft().clear()
        self._size -= 1
        self.dropped += 1
        if len(self._cells) > 2 * (self._room + self._reserve):
            # A flood into a queue that nobody empties must not pile up empty cells.
            self._cells = deque(cell for cell in self._cells if cell)
