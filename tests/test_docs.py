"""The pages that are drawn from the code say what the code does."""

from __future__ import annotations

import re

import pytest

from actors.lifecycle import TRANSITIONS
from pilot.containers.runtime import Reason
from pilot.settings import Settings
from tests.tools.diagrams import (
    DOCS,
    MEANINGS,
    PAGES,
    STATES,
    lifecycle_diagram,
    session_diagram,
    session_steps,
)
from transport.events import CloseCause
from transport.messages import JobStatus
from transport.session import SessionState


@pytest.mark.parametrize("name", PAGES)
def test_a_drawn_page_is_up_to_date(name: str) -> None:
    """``python -m tests.tools.diagrams`` writes it anew."""
    assert (DOCS / name).read_text() == PAGES[name]()


def test_every_status_and_state_is_explained() -> None:
    """A new one gets its line."""
    assert set(MEANINGS) == set(JobStatus)
    assert set(STATES) == set(SessionState)


def test_every_status_of_the_table_is_drawn() -> None:
    """Those that a pilot never sees are in the table only."""
    drawn = lifecycle_diagram().split()

    assert set(TRANSITIONS) | set().union(*TRANSITIONS.values()) <= set(drawn)


def test_every_cause_of_an_end_was_seen() -> None:
    """A session that can end in a way that nobody watched isn't fully drawn."""
    seen = {why for steps in session_steps().values() for why in steps}

    assert {f"Closed: {cause}" for cause in CloseCause} <= seen
    assert all(state in session_diagram() for state in SessionState)


def test_every_reason_of_the_ladder_is_explained() -> None:
    """A code in a trace can be looked up, and none that isn't used is."""
    rows = re.findall(r"(?m)^\| `([a-z-]+)` \|", (DOCS / "containers.md").read_text())

    assert sorted(rows) == sorted(Reason)


def test_every_setting_is_on_its_page() -> None:
    """With its name as it is written in a file."""
    page = (DOCS / "cli.md").read_text()

    assert [name for name in Settings.__struct_fields__ if f"`{name}`" not in page] == []
