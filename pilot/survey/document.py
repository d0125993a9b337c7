"""A survey for programs: one JSON object, or CSV with a line a site. Contracts: docs/survey.md."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from typing import TypeVar

from pilot.printable import printable
from pilot.survey.counting import Survey
from pilot.survey.figures import ANSWERS, FIGURES
from pilot.survey.report import NODE_CLASSES
from pilot.survey.tally import Tally, ValueCounts, percent

SURVEY_SCHEMA = "pilot-survey/1"
VALUES_SHOWN_MAX = 20
_Name = TypeVar("_Name", bound=str)
_FORMULA_BEGINS = tuple("=+-@|%\uff1d\uff0b\uff0d\uff20")


def survey_json(survey: Survey) -> dict[str, object]:
    """Return everything that was counted, for `--json`."""
    oldest, newest = survey.seen_between()
    return {
        "schema": SURVEY_SCHEMA,
        "reports": survey.reports,
        "superseded": survey.superseded,
        "oldest_at": oldest,
        "newest_at": newest,
        "broken": {
            "count": survey.broken,
            "first": [
                {"file": trouble.file, "line": trouble.line or None, "reason": trouble.reason}
                for trouble in survey.troubles
            ],
        },
        "overall": tally_json(survey.overall()),
        "sites": [{"site": site, **tally_json(survey.site(site))} for site in survey.sites()],
    }


def tally_json(tally: Tally) -> dict[str, object]:
    """Return the counts of a site, or of all."""
    return {
        "nodes": tally.nodes,
        "classes": _shares(tally.classes.each(), tally.nodes),
        "figures": {name: _shares(tally.figure(name), tally.nodes) for name in FIGURES},
        "runtimes": _shares(dict(sorted(tally.runtimes.items())), tally.nodes),
        "advice": _shares(dict(sorted(tally.advice.items())), tally.nodes),
        "keys": {name: _key_json(counts) for name, counts in tally.keys().items()},
    }


def _shares(counts: Mapping[_Name, int], nodes: int) -> dict[_Name, object]:
    return {name: _share(count, nodes) for name, count in counts.items()}


def _share(count: int, nodes: int) -> dict[str, object]:
    return {"count": count, "percent": percent(count, nodes)}


def _key_json(counts: ValueCounts) -> dict[str, object]:
    most, others, other_nodes = counts.most(VALUES_SHOWN_MAX)
    return {
        "values": [{"value": value, **_share(count, counts.nodes)} for value, count in most],
        "other": {"values": others, **_share(other_nodes, counts.nodes)},
        "unknown": _share(counts.unknown, counts.nodes),
    }


def survey_csv(survey: Survey) -> Iterator[str]:
    """Yield the lines of `--csv`, without their ends: a heading, then one a site."""
    columns = [f"figure_{name}_{answer}" for name in FIGURES for answer in ANSWERS]
    classes = [name.replace("-", "_") for name in NODE_CLASSES]
    yield _line(["site", "nodes", *classes, *(f"{name}_percent" for name in classes), *columns])
    for site in survey.sites():
        tally = survey.site(site)
        yield _line([safe_cell(site), *map(str, _numbers(tally))])


def _numbers(tally: Tally) -> Iterator[float]:
    yield tally.nodes
    yield from tally.classes.each().values()
    yield from (tally.classes.percent(name) for name in NODE_CLASSES)
    for name in FIGURES:
        yield from tally.figure(name).values()


def _line(cells: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def safe_cell(text: str) -> str:
    """Return a node's own text such that no spreadsheet takes it for a formula.

    What could be one gets a quote before it, which spreadsheets read as "this is text".
    """
    plain = printable(text)
    return f"'{plain}" if plain.lstrip(" '\"").startswith(_FORMULA_BEGINS) else plain
