"""The newest report of each node. All that a survey remembers.

What is kept grows with the nodes of the grid and not with the reports read: a year of daily
reports costs as much as the last day's. Nothing is counted before all is read, so which
report came first makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterator

from pilot.survey.report import NodeRecord


class NodeTable:
    """Site -> node -> what is kept of its newest report. A node is known by both names."""

    def __init__(self) -> None:
        self._sites: dict[str, dict[str, NodeRecord]] = {}
        self.superseded = 0
        """How many reports don't count, as the same node wrote a newer one."""

    def add(self, site: str, node: str, record: NodeRecord) -> None:
        """Keep a report, if it is its node's newest."""
        nodes = self._sites.setdefault(site, {})
        known = nodes.get(node)
        if known is not None:
            self.superseded += 1
            if not record.is_newer_than(known):
                return
        nodes[node] = record

    def __len__(self) -> int:
        return sum(map(len, self._sites.values()))

    def sites(self) -> Iterator[str]:
        """Yield the sites, the biggest first, those of one size by name."""
        return iter(sorted(self._sites, key=lambda site: (-len(self._sites[site]), site)))

    def records(self, site: str) -> Iterator[NodeRecord]:
        """Yield what is kept of a site's nodes."""
        return iter(self._sites.get(site, {}).values())
