"""The one fixture of the queue's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pilot.queue import QueueStore
from tests.pilot.queue.factories import POLICY


@pytest.fixture
def store() -> Iterator[QueueStore]:
    """Give an empty queue in memory, with round figures for its patience."""
    with QueueStore.in_memory(POLICY) as store:
        yield store
