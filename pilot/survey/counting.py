"""A survey: reports read one after the other, and what they say of each site and of the grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from pilot.printable import printable
from pilot.survey.nodes import NodeTable
from pilot.survey.report import BrokenReport, NodeRecord, ReportReader
from pilot.survey.sources import Found, Trouble, found_in
from pilot.survey.tally import Classes, Tally

TROUBLES_NAMED_MAX = 20
_REASON_LENGTH_MAX = 200


class Survey:
    """Counts the reports it is given; ask it when all are in.

    It keeps the newest report of each node, a few hundred bytes each, and nothing of the others;
    of what couldn't be counted, the number and the first places.
    """

    def __init__(self) -> None:
        self._reader = ReportReader()
        self._nodes = NodeTable()
        self._overall: Tally | None = None
        self.reports = 0
        """Reports that could be counted, superseded ones among them."""

        self.broken = 0
        """Reports and files that couldn't."""

        self.troubles: list[Trouble] = []
        """The first of them."""

    @classmethod
    def of(cls, paths: Iterable[str]) -> Survey:
        """Survey the reports in files and directories; "-" is stdin.

        Nothing that is wrong with one of them is raised: see `troubles`.
        """
        survey = cls()
        for found in found_in(paths):
            survey.take(found)
        return survey

    def take(self, found: Found | Trouble) -> None:
        """Count one report, or what there is instead of it."""
        if isinstance(found, Trouble):
            self._note(found)
            return
        try:
            site, node, record = self._reader.read(found.text)
        except BrokenReport as why:
            self._note(Trouble(found.file, found.line, str(why)))
            return
        self.reports += 1
        self._nodes.add(site, node, record)
        self._overall = None

    def _note(self, trouble: Trouble) -> None:
        self.broken += 1
        if len(self.troubles) < TROUBLES_NAMED_MAX:
            reason = printable(trouble.reason[:_REASON_LENGTH_MAX])
            self.troubles.append(trouble._replace(reason=reason))

    @property
    def superseded(self) -> int:
        """Reports that don't count, as their node wrote a newer one."""
        return self._nodes.superseded

    def held(self) -> int:
        """Return how many things are kept in memory: nodes, and what they share."""
        return len(self._nodes) + self._reader.pooled() + len(self.troubles)

    def sites(self) -> Iterator[str]:
        """Yield the sites' names, the biggest first."""
        return self._nodes.sites()

    def site(self, name: str) -> Tally:
        """Count the nodes of a site."""
        return Tally.of(self._nodes.records(name))

    def classes(self, site: str) -> Classes:
        """Count the classes of a site's nodes, and nothing else: that is much quicker."""
        return Classes.of(self._nodes.records(site))

    def overall(self) -> Tally:
        """Count all nodes."""
        if self._overall is None:
            self._overall = Tally.of(self._records())
        return self._overall

    def seen_between(self) -> tuple[float, float]:
        """Return when the oldest and the newest report that count were written; 0 for none."""
        oldest = min((record.at for record in self._records()), default=0.0)
        newest = max((record.at for record in self._records()), default=0.0)
        return oldest, newest

    def _records(self) -> Iterator[NodeRecord]:
        return chain.from_iterable(map(self._nodes.records, self.sites()))
