"""The survey reads what the probe writes: their words are the same."""

from __future__ import annotations

from pilot.probe import SCHEMA, NodeClass
from pilot.survey import NODE_CLASSES, PROBE_SCHEMA


def test_the_survey_knows_the_probes_classes_and_schema() -> None:
    """Each has its own copy, as a report may be of another release."""
    assert sorted(NODE_CLASSES) == sorted(NodeClass)
    assert PROBE_SCHEMA == SCHEMA
