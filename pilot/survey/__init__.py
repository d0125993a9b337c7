"""What a whole grid supports, from its nodes' probe reports."""

from pilot.survey.counting import Survey
from pilot.survey.document import survey_csv, survey_json
from pilot.survey.figures import FIGURES
from pilot.survey.report import NODE_CLASSES, PROBE_SCHEMA, BrokenReport
from pilot.survey.sources import Found, Trouble
from pilot.survey.tally import Classes, Tally, ValueCounts, percent

__all__ = [
    "FIGURES",
    "NODE_CLASSES",
    "PROBE_SCHEMA",
    "BrokenReport",
    "Classes",
    "Found",
    "Survey",
    "Tally",
    "Trouble",
    "ValueCounts",
    "percent",
    "survey_csv",
    "survey_json",
]
