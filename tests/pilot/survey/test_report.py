from __future__ import annotations

import json

import pytest

from pilot.survey.figures import FIGURES
from pilot.survey.report import (
    KEYS_MAX,
    OTHER,
    VALUES_MAX,
    BrokenReport,
    NodeRecord,
    ReportReader,
)
from pilot.survey.values import VALUE_LENGTH_MAX, value_text
from tests.pilot.survey.factories import line, report


def read(text: bytes) -> NodeRecord:
    """Return what is kept of a report."""
    return ReportReader().read(text)[2]


def without(name: str) -> bytes:
    """Return a report that lacks a field."""
    fields = report()
    del fields[name]
    return json.dumps(fields).encode()


def test_what_is_counted_is_kept() -> None:
    """Class, keys that have an answer, runtimes that work, codes of advice."""
    site, node, record = ReportReader().read(
        line(
            keys={"b": "yes", "a": 3, "c": None, "d": True},
            runtimes=[{"name": "bwrap", "works": True}, {"name": "docker", "works": None}],
            advice=[{"code": "enable-underlay"}, "a sentence", {"where": "somewhere"}],
        )
    )

    assert (site, node) == ("CERN", "wn1")
    assert record == NodeRecord(
        at=1000.0,
        node_class="fully-compatible",
        keys=(("b", "yes"), ("a", "3"), ("d", "true")),
        figures=tuple((name, "unknown") for name in FIGURES),
        runtimes=("bwrap",),
        advice=("enable-underlay",),
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "isn't JSON"),
        (b"<html>", "isn't JSON"),
        (line()[:-9], "isn't JSON"),
        (line() + line(), "isn't JSON"),
        (b"\xff\xfe{", "isn't JSON"),
        (line(node="wn\xe9").replace(b"\\u00e9", b"\xe9"), "isn't UTF-8"),
        (line(node="wn?").replace(b"wn?", b"\\ud800"), "isn't JSON"),
        (line(at=float("nan")), "isn't JSON"),
        (line(at=1).replace(b'"at": 1', b'"at": 1e999'), "out of range"),
        (b"null", "expected `object`"),
        (b"[]", "expected `object`"),
        (b"17", "expected `object`"),
        (b'{"x":' * 100_000, "nested too deeply"),
        (line(schema="pilot-probe/0"), "its schema is 'pilot-probe/0'"),
        (line(schema="site-sonar", at="yesterday"), "its schema is 'site-sonar'"),
        (line(schema=""), "no schema"),
        (b"{}", "no schema"),
        (without("schema"), "no schema"),
        (without("class"), "`class`"),
        (without("node"), "`node`"),
        (line(class_="perfect"), "'perfect'"),
        (line(class_=None), "class"),
        (line(node=""), "length"),
        (line(node="n" * 300), "length"),
        (line(site=["CERN"]), "site"),
        (line(at="yesterday"), "at"),
        (line(at=True), "at"),
        (line(keys=[]), "keys"),
        (line(keys={"a": {"b": 1}}), "keys"),
        (line(keys={"k" * 100: 1}), "length"),
        (line(keys={str(number): 1 for number in range(1000)}), "length"),
        (line(runtimes={"apptainer": True}), "runtimes"),
    ],
)
def test_a_broken_report_says_why(text: bytes, why: str) -> None:
    """Whatever it is, it is one short sentence."""
    with pytest.raises(BrokenReport, match=r".*") as raised:
        read(text)

    assert why in str(raised.value)
    assert len(str(raised.value)) < 200


def test_unknown_fields_are_skipped() -> None:
    """A newer probe says more; what is deep in there isn't looked at."""
    assert read(line(future={"deep": [[[1]]]})).node_class == "fully-compatible"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("yes", "yes"),
        ("", ""),
        (True, "true"),
        (False, "false"),
        (0, "0"),
        (-0.0, "0"),
        (256.0, "256"),
        (2.5, "2.5"),
        (1e300, "1e+300"),
        (2**63, str(2**63)),
        (10**400, "a huge number"),
        ("x" * VALUE_LENGTH_MAX, "x" * VALUE_LENGTH_MAX),
        ("x" * 1_000_000, "x" * (VALUE_LENGTH_MAX - 1) + "…"),
    ],
)
def test_values_become_short_texts(value: str | float | bool, text: str) -> None:
    """The words of JSON; the same whether decoded first or as the second of its kind."""
    reader = ReportReader()

    assert value_text(value) == text
    assert [reader.read(line(keys={"k": value}))[2].keys for _ in range(2)] == [(("k", text),)] * 2


def test_true_is_not_one() -> None:
    """To Python they are equal; to an administrator they aren't."""
    reader = ReportReader()
    values = (1, True, 1.0, 0, False)

    assert [reader.read(line(keys={"k": value}))[2].keys[0][1] for value in values] == [
        *("1", "true", "1", "0", "false")
    ]


def test_values_told_apart_are_bounded() -> None:
    """Those that came first go on being counted; what comes later is another value."""
    reader = ReportReader()
    for number in range(3 * VALUES_MAX):
        reader.read(line(keys={"free_bytes": number, "path": f"/tmp/{number}"}))

    late = reader.read(line(keys={"free_bytes": 10**6, "path": "/tmp/late"}))[2]
    early = reader.read(line(keys={"free_bytes": 7, "path": "/tmp/7"}))[2]
    assert late.keys == (("free_bytes", OTHER), ("path", OTHER))
    assert early.keys == (("free_bytes", "7"), ("path", "/tmp/7"))


def test_what_is_shared_between_reports_is_bounded() -> None:
    """Reports that all differ in keys, values, runtimes and advice leave only so much behind."""
    reader = ReportReader()
    for number in range(2 * KEYS_MAX):
        name = f"name{number}"
        reader.read(line(keys={name: name}, runtimes=[{"name": name, "works": True}]))

    assert reader.pooled() <= 3 * KEYS_MAX
