from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.survey import FIGURES, NODE_CLASSES, Classes, Survey, Tally, Trouble, survey_json
from pilot.survey.counting import TROUBLES_NAMED_MAX
from pilot.survey.figures import answers
from pilot.survey.report import NodeRecord
from pilot.survey.tally import ValueCounts, percent
from tests.pilot.survey.factories import found, report, surveyed

WORDS = st.sampled_from(["yes", "no", "TRUE", "false", "", "maybe", True, False, None, 1, 0])
KEYS = st.dictionaries(st.sampled_from(["UNDERLAY_ENABLED", "shared_loop_devices", "X"]), WORDS)
REPORTS = st.builds(
    report,
    node=st.sampled_from("abcd"),
    site=st.sampled_from(["", "CERN", "KIT"]),
    at=st.integers(0, 3),
    class_=st.sampled_from(NODE_CLASSES),
    keys=KEYS,
)
RECORDS = st.builds(
    lambda node_class, keys: NodeRecord(
        at=0,
        node_class=node_class,
        keys=tuple(keys.items()),
        figures=answers(keys),
        runtimes=("bwrap",),
        advice=(),
    ),
    st.sampled_from(NODE_CLASSES),
    st.dictionaries(st.sampled_from("ABC"), st.sampled_from(["yes", "no", "3"])),
)


@given(
    st.lists(REPORTS, max_size=8).flatmap(
        lambda all_: st.tuples(st.just(all_), st.permutations(all_))
    )
)
def test_the_order_of_reports_makes_no_difference(
    both: tuple[list[dict[str, Any]], list[dict[str, Any]]],
) -> None:
    """Several of one node, of the same second too."""
    one, other = both

    assert survey_json(surveyed(*one)) == survey_json(surveyed(*other))


@given(st.lists(RECORDS), st.integers(0, 10), st.randoms())
def test_tallies_add_up(records: list[NodeRecord], cut: int, dice: Any) -> None:
    """A sum of parts is the whole, in any order and wherever it is cut."""
    parts = [
        Tally.of(records[:cut]),
        Tally.of(records[cut : 2 * cut]),
        Tally.of(records[2 * cut :]),
    ]
    dice.shuffle(parts)
    total = Tally()
    for part in parts:
        total.add(part)

    assert total == Tally.of(records)
    assert total.classes == Classes.of(records)


@given(st.lists(RECORDS, min_size=1))
def test_percentages_add_up(records: list[NodeRecord]) -> None:
    """Of classes, of each figure, of each key's values: to 100, but for their rounding."""
    tally = Tally.of(records)
    sums = [
        [tally.classes.percent(name) for name in NODE_CLASSES],
        *([tally.figure_percent(name, a) for a in ("yes", "no", "unknown")] for name in FIGURES),
        *(
            [percent(count, tally.nodes) for count in (*counts.counts.values(), counts.unknown)]
            for counts in tally.keys().values()
        ),
    ]

    for shares in sums:
        assert sum(shares) == pytest.approx(100, abs=0.01 * len(shares))


@given(
    st.dictionaries(st.text(max_size=3), st.integers(1, 9)), st.integers(0, 9), st.integers(0, 5)
)
def test_values_shown_and_others_are_all_values(
    counts: dict[str, int], unknown: int, values_max: int
) -> None:
    """Cutting the list hides no node."""
    nodes = sum(counts.values()) + unknown
    most, others, other_nodes = ValueCounts(counts, nodes).most(values_max)

    assert len(most) + others == len(counts)
    assert sum(count for _, count in most) + other_nodes + unknown == nodes
    assert [count for _, count in most] == sorted((c for _, c in most), reverse=True)


def test_the_newest_report_of_a_node_counts() -> None:
    """Nodes of one name at two sites are two."""
    survey = surveyed(
        report(node="a", at=2, class_="fully-compatible"),
        report(node="a", at=1, class_="none"),
        report(node="a", at=1, site="KIT", class_="cvmfs-only"),
    )

    assert (survey.reports, survey.superseded) == (3, 1)
    assert survey.overall().classes.each() == {
        "fully-compatible": 1,
        "underlay-disabled": 0,
        "cvmfs-only": 1,
        "none": 0,
    }


def test_a_later_report_changes_an_answer_already_given() -> None:
    """Counting can go on after a look."""
    survey = surveyed(report(node="a"))
    before = survey.overall().nodes
    survey.take(Trouble("x", 1, "y"))
    for node in ("b", "c"):
        survey.take(found(report(node=node)))

    assert (before, survey.overall().nodes) == (1, 3)


def test_the_biggest_site_comes_first() -> None:
    """Those of one size by name."""
    survey = surveyed(
        report(site="B", node="1"),
        report(site="A", node="1"),
        report(site="C", node="1"),
        report(site="C", node="2"),
    )

    assert list(survey.sites()) == ["C", "A", "B"]


def test_memory_grows_with_nodes_and_not_with_reports() -> None:
    """A report a day of the same nodes, each a little different, leaves as much as one."""
    survey = Survey()
    held: list[int] = []
    for day in range(60):
        for node in range(50):
            keys = {"MAX_NAMESPACES": 15000, f"day{day % 3}": "yes"}
            survey.take(found(report(node=f"wn{node}", at=day, keys=keys)))
        held.append(survey.held())

    assert (survey.reports, survey.overall().nodes) == (3000, 50)
    assert held[-1] == held[2]


def test_troubles_are_counted_and_the_first_named() -> None:
    """A million of them is a number; and none of them moves the cursor."""
    survey = Survey()
    for number in range(1000):
        survey.take(Trouble("f.jsonl", number, f"\x1b[31m{'x' * 1000}"))

    assert survey.broken == 1000
    assert [trouble.line for trouble in survey.troubles] == list(range(TROUBLES_NAMED_MAX))
    assert all(len(trouble.reason) < 250 for trouble in survey.troubles)
    assert "\x1b" not in survey.troubles[0].reason


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ("unknown", "unknown", "unknown", "unknown")),
        (
            {"SINGULARITY_LOCAL_SUPPORTED": "TRUE", "UNDERLAY_ENABLED": "yes"},
            ("yes", "unknown", "yes", "yes"),
        ),
        (
            {"SINGULARITY_LOCAL_SUPPORTED": "FALSE", "SINGULARITY_CVMFS_SUPPORTED": "true"},
            ("yes", "unknown", "unknown", "unknown"),
        ),
        (
            {"SINGULARITY_LOCAL_SUPPORTED": "false", "shared_loop_devices": "no"},
            ("no", "no", "unknown", "no"),
        ),
        (
            {"SINGULARITY_LOCAL_SUPPORTED": "1", "UNDERLAY_ENABLED": "no"},
            ("yes", "unknown", "no", "no"),
        ),
        ({"shared_loop_devices": " Yes "}, ("unknown", "yes", "unknown", "unknown")),
        ({"UNDERLAY_ENABLED": "perhaps"}, ("unknown", "unknown", "unknown", "unknown")),
    ],
)
def test_the_figures_of_the_talk(keys: dict[str, str], expected: Sequence[str]) -> None:
    """Singularity, loop devices, underlay, ideal; no answer is never a no."""
    assert tuple(answer for _, answer in answers(keys)) == expected


def test_the_grid_is_the_sum_of_its_sites() -> None:
    """Nothing is counted twice or not at all."""
    survey = surveyed(
        *(report(site=f"S{n % 3}", node=str(n), keys={"X": str(n % 2)}) for n in range(20))
    )
    total = Tally()
    for site in survey.sites():
        total.add(survey.site(site))

    assert total == survey.overall()
    assert survey.site("nowhere").nodes == 0
