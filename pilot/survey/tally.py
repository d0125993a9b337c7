"""Counting nodes: one `Tally` for a site, and their sum for the grid. Pure.

Tallies add up: the tally of all nodes is the sum of the sites' tallies, in any order and any
grouping. Only what is shown of the counts is cut (`ValueCounts.most`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pilot.survey.figures import ANSWERS, Answer
from pilot.survey.report import NODE_CLASSES, OTHER, NodeClass, NodeRecord


def percent(count: int, total: int) -> float:
    """Return a share in percent, to two digits; of nothing it is 0."""
    return round(100 * count / total, 2) if total else 0.0


@dataclass(frozen=True)
class ValueCounts:
    """How often each value of one key was seen, among how many nodes."""

    counts: Mapping[str, int]
    nodes: int

    @property
    def unknown(self) -> int:
        """Nodes without an answer."""
        return self.nodes - sum(self.counts.values())

    def most(self, values_max: int) -> tuple[list[tuple[str, int]], int, int]:
        """Return the most frequent values; then how many others (at least), on how many nodes."""
        known = (item for item in self.counts.items() if item[0] != OTHER)
        ordered = sorted(known, key=lambda item: (-item[1], item[0]))
        others, untold = ordered[values_max:], self.counts.get(OTHER, 0)
        other_nodes = sum(count for _, count in others) + untold
        return ordered[:values_max], len(others) + (untold > 0), other_nodes


@dataclass
class Classes:
    """How many nodes there are of each class."""

    counts: Counter[NodeClass] = field(default_factory=Counter)

    @classmethod
    def of(cls, records: Iterable[NodeRecord]) -> Classes:
        """Count nodes."""
        return cls(Counter(record.node_class for record in records))

    @property
    def nodes(self) -> int:
        """All nodes."""
        return self.counts.total()

    def add(self, other: Classes) -> None:
        """Count the other's nodes too."""
        self.counts.update(other.counts)

    def each(self) -> dict[NodeClass, int]:
        """Return the nodes of each class, from the best to the worst."""
        return {name: self.counts[name] for name in NODE_CLASSES}

    def percent(self, node_class: NodeClass) -> float:
        """Return the percentage of nodes of a class."""
        return percent(self.counts[node_class], self.nodes)


@dataclass
class Tally:
    """Everything that is counted of some nodes."""

    classes: Classes = field(default_factory=Classes)
    figures: Counter[tuple[str, Answer]] = field(default_factory=Counter)
    runtimes: Counter[str] = field(default_factory=Counter)
    """Nodes on which each runtime works."""

    advice: Counter[str] = field(default_factory=Counter)
    """Nodes whose administrator is given each advice, by its code."""

    values: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(key, value) -> nodes."""

    @classmethod
    def of(cls, records: Iterable[NodeRecord]) -> Tally:
        """Count nodes."""
        tally = cls()
        for record in records:
            tally._count(record)
        return tally

    def _count(self, record: NodeRecord) -> None:
        self.classes.counts[record.node_class] += 1
        self.values.update(record.keys)
        self.runtimes.update(record.runtimes)
        self.advice.update(record.advice)
        self.figures.update(record.figures)

    def add(self, other: Tally) -> None:
        """Count the other's nodes too: they must not be among these."""
        self.classes.add(other.classes)
        self.figures.update(other.figures)
        self.runtimes.update(other.runtimes)
        self.advice.update(other.advice)
        self.values.update(other.values)

    @property
    def nodes(self) -> int:
        """All nodes."""
        return self.classes.nodes

    def figure(self, name: str) -> dict[Answer, int]:
        """Return on how many nodes a figure of the talk is yes, no and unknown."""
        return {answer: self.figures[name, answer] for answer in ANSWERS}

    def figure_percent(self, name: str, answer: Answer) -> float:
        """Return a figure of the talk: the percentage of nodes with this answer."""
        return percent(self.figures[name, answer], self.nodes)

    def keys(self) -> dict[str, ValueCounts]:
        """Return the values of each key, by the key's name."""
        found: dict[str, dict[str, int]] = {}
        for (name, value), count in self.values.items():
            found.setdefault(name, {})[value] = count
        return {name: ValueCounts(found[name], self.nodes) for name in sorted(found)}
