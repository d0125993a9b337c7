"""The grid that the 2019 talk surveyed, made again as probe reports, and surveyed.

    python examples/grid2019.py [DIRECTORY]

It writes a file of reports for each of 60 sites - to a temporary directory, or to the one given,
for `pilot survey DIRECTORY --html grid.html` - counts them with the survey's own interface, and
prints the talk's figures: Singularity on 78 % of the nodes; loopback mounting disabled on 65.8 %,
enabled on 6.2 %; underlay disabled on 1.9 %, enabled on 0.1 %.

Nodes of a site are mostly alike, so each property holds for a run of nodes through all sites. The
talk doesn't say which nodes had no answer, nor how many could have used CVMFS (EL 7.6 or later and
user namespaces): here an installation without an answer is a Singularity 2, which has no underlay,
and a third of the nodes without any could use CVMFS.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pilot.survey import PROBE_SCHEMA, Survey

NODES = 10_000
SITES = 60
SEED = 2019
AT = 1_556_668_800  # 2019-05-01

# Runs of nodes, in thousandths of the grid: those that have it first.
SINGULARITY = 780
LOOP_ENABLED, LOOP_ANSWERED = 62, 62 + 658
UNDERLAY_ENABLED, UNDERLAY_ANSWERED = 1, 1 + 19
CVMFS_POSSIBLE = SINGULARITY + 73


def site_sizes(dice: random.Random) -> list[int]:
    """Return how many nodes each site has: few are big, many are small."""
    weights = [dice.paretovariate(1.1) for _ in range(SITES)]
    sizes = [1 + int(weight / sum(weights) * (NODES - SITES)) for weight in weights]
    sizes[0] += NODES - sum(sizes)
    return sizes


def report(site: str, node: str, rank: int) -> dict[str, object]:
    """Return a node's report; its rank is its place among all, in thousandths."""
    has = rank < SINGULARITY
    underlay = ("yes" if rank < UNDERLAY_ENABLED else "no") if rank < UNDERLAY_ANSWERED else None
    loop = ("yes" if rank < LOOP_ENABLED else "no") if rank < LOOP_ANSWERED else None
    version = "3.1.0" if underlay else "2.6.1"
    runtime = {"name": "singularity", "path": "/usr/bin/singularity", "version": version}
    return {
        "schema": PROBE_SCHEMA,
        "node": node,
        "site": site,
        "at": AT,
        "seconds": 1.5,
        "class": node_class(rank, underlay),
        "reasons": [],
        "advice": [],
        "runtimes": [{**runtime, "works": True, "reason": "", "mode": "setuid"}] if has else [],
        "keys": {
            "SINGULARITY_LOCAL_SUPPORTED": "TRUE" if has else "FALSE",
            "SINGULARITY_CVMFS_SUPPORTED": None,
            "UNDERLAY_ENABLED": underlay,
            "shared_loop_devices": loop,
            "RUNTIME_VERSION": version if has else None,
        },
    }


def node_class(rank: int, underlay: str | None) -> str:
    """Return the class that a probe gives such a node."""
    if rank < SINGULARITY:
        return "fully-compatible" if underlay == "yes" else "underlay-disabled"
    return "cvmfs-only" if rank < CVMFS_POSSIBLE else "none"


def grid() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Yield each site with its nodes' reports; the same ones every time."""
    dice = random.Random(SEED)
    sizes = site_sizes(dice)
    nodes = [(site, number) for site, size in enumerate(sizes) for number in range(size)]
    # Most nodes stand among their site's, some are strangers there.
    order = sorted(
        nodes, key=lambda node: node[0] + (dice.random() if dice.random() < 0.9 else SITES)
    )
    rank = {node: place * 1000 // NODES for place, node in enumerate(order)}
    for site, size in enumerate(sizes):
        name = f"Site{site:02}"
        yield name, [report(name, f"wn{n:04}", rank[site, n]) for n in range(size)]


def write_reports(directory: Path) -> None:
    """Write a file of JSON lines for each site."""
    for site, reports in grid():
        lines = [json.dumps(each) + "\n" for each in reports]
        (directory / f"{site}.jsonl").write_text("".join(lines))


def show(survey: Survey) -> None:
    """Print the talk's figures, and the biggest sites."""
    overall = survey.overall()
    percent = overall.figure_percent
    print(f"{overall.nodes} nodes at {sum(1 for _ in survey.sites())} sites")
    print(f"Singularity         {percent('singularity', 'yes'):5.1f} %")
    for title, name in (("loopback mounting", "loop_devices"), ("underlay", "underlay")):
        disabled, enabled = percent(name, "no"), percent(name, "yes")
        print(f"{title:19} {disabled:5.1f} % disabled, {enabled:.1f} % enabled")
    print(f"ideal               {percent('ideal', 'yes'):5.1f} %")
    for site in list(survey.sites())[:5]:
        tally = survey.site(site)
        has = tally.figure_percent("singularity", "yes")
        print(f"  {site}: {tally.nodes} nodes, Singularity on {has:.0f} %")


def main() -> None:
    """Make the grid, survey it, show it."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        write_reports(directory)
        show(Survey.of([str(directory)]))


if __name__ == "__main__":
    main()
