"""A survey in a few sentences and lines: what a person reads first, on a terminal or a page."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from pilot.printable import printable
from pilot.survey.counting import Survey
from pilot.survey.tally import Tally, ValueCounts

FIGURE_TITLES: Mapping[str, str] = {
    "singularity": "Singularity or Apptainer is there",
    "loop_devices": "loop devices shared",
    "underlay": "underlay enabled",
    "ideal": "ideal: Singularity with underlay",
}
VALUES_IN_A_LINE_MAX = 4
_ADVICE_TOLD_MAX = 3
_MADE_OF = ("CPU_", "OS_", "RAM_")


def summary(survey: Survey, overall: Tally) -> list[str]:
    """Return the sentences: how much was surveyed, what it can do, which sites are ready."""
    sites = ready = usable = 0
    for site in survey.sites():
        classes = survey.classes(site)
        sites += 1
        ready += classes.counts["fully-compatible"] == classes.nodes
        usable += not classes.counts["none"]
    sentences = [
        f"{_many(overall.nodes, 'node')} at {_many(sites, 'site')}, from "
        f"{_many(survey.reports, 'report')}{_superseded(survey)}.",
        f"{overall.classes.percent('fully-compatible'):.1f} % of the nodes are fully compatible, "
        f"{overall.classes.percent('underlay-disabled'):.1f} % but for underlay, "
        f"{overall.classes.percent('cvmfs-only'):.1f} % only through CVMFS, "
        f"{overall.classes.percent('none'):.1f} % not at all.",
        f"{_many(ready, 'site')} fully compatible on every node; "
        f"{usable:,} of {sites:,} can run containers on every node.",
    ]
    if overall.advice:
        most = sorted(overall.advice.items(), key=lambda item: (-item[1], item[0]))
        advised = ", ".join(
            f"{printable(code)} on {100 * count / overall.nodes:.1f} % of the nodes"
            for code, count in most[:_ADVICE_TOLD_MAX]
        )
        sentences.append(f"Most often advised: {advised}.")
    return sentences


def not_counted(survey: Survey) -> list[str]:
    """Return what couldn't be counted, for stderr: how many, and the first places."""
    if not survey.broken:
        return []
    named = [place(trouble.file, trouble.line, trouble.reason) for trouble in survey.troubles]
    more = survey.broken - len(named)
    return [
        f"{_many(survey.broken, 'report or file', 'reports or files')} not counted:",
        *(f"  {line}" for line in named),
        *([f"  and {more:,} more"] if more else []),
    ]


def place(file: str, line: int, reason: str) -> str:
    """Return where and why, as compilers do."""
    where = f"{printable(file)}:{line}" if line else printable(file)
    return f"{where}: {reason}"


def key_line(counts: ValueCounts, values_max: int = VALUES_IN_A_LINE_MAX) -> str:
    """Return a key's most frequent values with their percentages, in one line."""
    most, others, other_nodes = counts.most(values_max)
    parts = [(printable(value) or '""', count) for value, count in most]
    if others:
        parts.append((f"{_many(others, 'other value')}", other_nodes))
    if counts.unknown:
        parts.append(("no answer", counts.unknown))
    return ", ".join(f"{name} {100 * count / counts.nodes:.1f} %" for name, count in parts)


def keys_lines(tally: Tally, keys_max: int | None) -> list[tuple[str, str]]:
    """Return the keys, each with its line: what a node can do first, what it is made of last."""
    keys = tally.keys()
    names = sorted(keys, key=lambda name: (name.startswith(_MADE_OF), name))
    return [(printable(name), key_line(keys[name])) for name in islice(names, keys_max)]


def _superseded(survey: Survey) -> str:
    if not survey.superseded:
        return ""
    return f" ({survey.superseded:,} superseded by a newer one of the same node)"


def _many(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
