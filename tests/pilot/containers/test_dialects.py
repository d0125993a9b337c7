"""The table of runtimes, and what the settings make of it."""

from __future__ import annotations

import pytest

from pilot.containers.dialects import DIALECTS, chosen_dialects, dialect_of, split_list
from pilot.containers.runtime import RuntimeKind
from transport.errors import UserError


def test_every_kind_has_a_dialect_that_knows_its_name() -> None:
    """One row each."""
    assert set(DIALECTS) == set(RuntimeKind)
    assert all(dialect_of(kind).kind is kind for kind in RuntimeKind)
    assert all(dialect.programs and dialect.image_forms for dialect in DIALECTS.values())


def test_no_choice_is_all_in_their_order() -> None:
    """The table's order is the order of trying."""
    assert chosen_dialects("") == tuple(DIALECTS.values())


def test_a_choice_is_kept_in_its_order() -> None:
    """Blanks don't matter."""
    chosen = chosen_dialects(" singularity, apptainer ")

    assert [dialect.kind for dialect in chosen] == ["singularity", "apptainer"]


def test_bare_ends_a_choice() -> None:
    """What comes after it would never be reached."""
    assert [dialect.kind for dialect in chosen_dialects("apptainer,bare,singularity")] == [
        "apptainer"
    ]
    assert chosen_dialects("bare") == ()


def test_an_unknown_name_is_named_beside_the_known() -> None:
    """A slip of the pen must not mean: no container."""
    with pytest.raises(UserError, match="no container runtime 'aptainer': write some of apptainer"):
        chosen_dialects("aptainer")


def test_a_list_has_no_empty_parts() -> None:
    """However many commas."""
    assert split_list(" a ,, b,") == ("a", "b")
