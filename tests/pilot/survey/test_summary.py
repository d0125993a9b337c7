from __future__ import annotations

from pilot.survey.summary import VALUES_IN_A_LINE_MAX, key_line, keys_lines, not_counted, summary
from pilot.survey.tally import ValueCounts
from tests.pilot.survey.factories import found, report, surveyed


def test_the_summary_says_what_a_manager_asks() -> None:
    """How many nodes, what they can do, which sites are ready, what is to be changed."""
    survey = surveyed(
        report(node="1"),
        report(node="1", at=1),
        report(node="2", class_="underlay-disabled", advice=[{"code": "enable-underlay"}]),
        report(node="3", site="KIT"),
        report(node="4", site="RAL", class_="none"),
    )

    assert summary(survey, survey.overall()) == [
        "4 nodes at 3 sites, from 5 reports (1 superseded by a newer one of the same node).",
        "50.0 % of the nodes are fully compatible, 25.0 % but for underlay, "
        "0.0 % only through CVMFS, 25.0 % not at all.",
        "1 site fully compatible on every node; 2 of 3 can run containers on every node.",
        "Most often advised: enable-underlay on 25.0 % of the nodes.",
    ]


def test_what_a_node_can_do_comes_before_what_it_is_made_of() -> None:
    """A hundred lines of /proc/cpuinfo don't hide whether underlay is enabled."""
    keys = {"CPU_flags": "fpu", "OS_ID": "debian", "RAM_kB_MemTotal": 1, "UNDERLAY_ENABLED": "yes"}
    lines = keys_lines(surveyed(report(keys={**keys, "ARCH": "x"})).overall(), 3)

    assert [name for name, _ in lines] == ["ARCH", "UNDERLAY_ENABLED", "CPU_flags"]


def test_a_key_is_one_line() -> None:
    """The most frequent values, the others, and who had no answer."""
    counts = {str(n): 10 - n for n in range(VALUES_IN_A_LINE_MAX + 2)}

    assert key_line(ValueCounts(counts, 50)) == (
        "0 20.0 %, 1 18.0 %, 2 16.0 %, 3 14.0 %, 2 other values 22.0 %, no answer 10.0 %"
    )
    assert key_line(ValueCounts({"": 1}, 1)) == '"" 100.0 %'


def test_what_was_not_counted_is_told_with_its_place() -> None:
    """And how much more there is."""
    survey = surveyed(report())
    assert not_counted(survey) == []
    for number in range(1, 31):
        survey.take(found({"schema": "x"}, number))
    told = not_counted(survey)

    assert told[0] == "30 reports or files not counted:"
    assert told[1] == "  reports.jsonl:1: its schema is 'x'; pilot-probe/1 is read"
    assert told[-1] == "  and 10 more"
