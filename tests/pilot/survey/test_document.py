from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from pilot.survey import survey_csv, survey_json
from pilot.survey.document import VALUES_SHOWN_MAX, safe_cell
from tests.pilot.survey.factories import report, surveyed
from tests.pilot.survey.hostile import HOSTILE


def rows(*reports: dict[str, Any]) -> list[dict[str, str]]:
    """Return the CSV as a spreadsheet reads it."""
    text = "\n".join(survey_csv(surveyed(*reports)))
    return list(csv.DictReader(io.StringIO(text)))


def test_the_json_has_counts_and_percentages() -> None:
    """Of the grid and of each site: classes, figures, runtimes, advice, keys."""
    yes = {"SINGULARITY_LOCAL_SUPPORTED": "TRUE", "UNDERLAY_ENABLED": "yes", "RUNTIME": "apptainer"}
    document: Any = survey_json(
        surveyed(
            report(node="1", keys=yes, runtimes=[{"name": "apptainer", "works": True}], at=5),
            report(node="2", keys=yes, class_="underlay-disabled", at=7),
            report(node="3", site="KIT", class_="none", advice=[{"code": "install"}], at=6),
        )
    )
    overall, cern = document["overall"], document["sites"][0]

    assert json.loads(json.dumps(document)) == document
    assert (document["schema"], document["reports"]) == ("pilot-survey/1", 3)
    assert (document["oldest_at"], document["newest_at"]) == (5, 7)
    assert overall["nodes"] == 3
    assert overall["classes"]["fully-compatible"] == {"count": 1, "percent": 33.33}
    assert overall["figures"]["ideal"]["yes"] == {"count": 2, "percent": 66.67}
    assert overall["figures"]["underlay"]["unknown"] == {"count": 1, "percent": 33.33}
    assert overall["runtimes"] == {"apptainer": {"count": 1, "percent": 33.33}}
    assert overall["advice"] == {"install": {"count": 1, "percent": 33.33}}
    assert overall["keys"]["RUNTIME"] == {
        "values": [{"value": "apptainer", "count": 2, "percent": 66.67}],
        "other": {"values": 0, "count": 0, "percent": 0.0},
        "unknown": {"count": 1, "percent": 33.33},
    }
    assert [site["site"] for site in document["sites"]] == ["CERN", "KIT"]
    assert (cern["nodes"], cern["keys"]["RUNTIME"]["unknown"]["count"]) == (2, 0)


def test_the_values_of_a_key_are_bounded() -> None:
    """The most frequent ones, and how many others."""
    document: Any = survey_json(
        surveyed(*(report(node=str(n), keys={"FREE": n // 2}) for n in range(100)))
    )
    key = document["overall"]["keys"]["FREE"]

    assert len(key["values"]) == VALUES_SHOWN_MAX
    assert key["other"] == {"values": 50 - VALUES_SHOWN_MAX, "count": 60, "percent": 60.0}


def test_what_was_not_counted_is_in_the_json() -> None:
    """With file and line."""
    survey = surveyed(report(), {"schema": "other"})
    document: Any = survey_json(survey)

    assert document["broken"]["count"] == 1
    assert document["broken"]["first"][0] == {
        "file": "reports.jsonl",
        "line": 2,
        "reason": "its schema is 'other'; pilot-probe/1 is read",
    }


def test_the_csv_has_a_line_a_site() -> None:
    """Counts and percentages of the classes, counts of the figures."""
    found = rows(
        report(node="1", keys={"UNDERLAY_ENABLED": "no"}, class_="underlay-disabled"),
        report(node="2"),
        report(node="3", site="KIT", class_="none"),
    )

    assert [(row["site"], row["nodes"]) for row in found] == [("CERN", "2"), ("KIT", "1")]
    assert found[0]["underlay_disabled"] == "1"
    assert found[0]["underlay_disabled_percent"] == "50.0"
    assert (found[0]["figure_underlay_no"], found[0]["figure_underlay_unknown"]) == ("1", "1")
    assert found[1]["none_percent"] == "100.0"


def test_hostile_names_stay_in_their_cell() -> None:
    """One line each, and nothing that a spreadsheet would run."""
    reports = [report(site=site, node=str(n)) for n, site in enumerate(HOSTILE)]
    lines = list(survey_csv(surveyed(*reports)))
    found = rows(*reports)

    assert len(lines) == len(HOSTILE) + 1
    assert all(line.isprintable() for line in lines)
    assert {row["nodes"] for row in found} == {"1"}
    assert not [row["site"] for row in found if row["site"].startswith(("=", "+", "-", "@"))]


@pytest.mark.parametrize(
    "begin",
    ["=", "+", "-", "@", "|", "%", "\uff1d", "\uff0b", "\uff0d", "\uff20", " =", "\t=", "'="],
)
def test_a_formula_is_made_text(begin: str) -> None:
    """Also where blanks or a quote come before it."""
    assert safe_cell(f"{begin}1+1").startswith(("'", "\\t"))


@pytest.mark.parametrize("plain", ["CERN", "RAL-LCG2", "FZK 1", "", "3.5", "日本"])
def test_a_plain_name_stays_as_it_is(plain: str) -> None:
    """A quote would be noise."""
    assert safe_cell(plain) == plain
