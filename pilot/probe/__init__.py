"""What this node truly supports, why, and what its administrator should change."""

from pilot.probe.probe import Probe, ProbeOptions
from pilot.probe.report import SCHEMA, Report
from pilot.probe.verdict import MEANINGS, NodeClass

__all__ = ["MEANINGS", "SCHEMA", "NodeClass", "Probe", "ProbeOptions", "Report"]
