from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pilot.probe.runtime_conf import DEFAULTS, parse_conf
from tests.pilot.probe.factories import CONF, conf
from tests.pilot.sandbox import APPTAINER, APPTAINER_CONF, needs_apptainer


def test_a_directive_has_its_value_and_its_line() -> None:
    """Comments and blank lines count as lines."""
    read = conf("# ENABLE UNDERLAY: [yes/no]", "", "enable underlay = no")

    assert read.value("enable underlay") == "no"
    assert read.where("enable underlay") == f"{CONF} line 3"
    assert not read.has_underlay


def test_what_the_file_does_not_say_has_the_programs_default() -> None:
    """The place to change is then the file."""
    read = conf("")

    assert {name: read.value(name) for name in DEFAULTS} == DEFAULTS
    assert read.value("no such thing") == ""
    assert read.where("enable underlay") == CONF


@pytest.mark.parametrize(
    "line",
    [
        "enable underlay=no",
        "  enable underlay   =   no  ",
        "\tenable underlay\t= no\t",
        "enable underlay = no\r",
        "enable underlay = no, yes",
    ],
)
def test_blanks_do_not_matter(line: str) -> None:
    """As in the runtimes' own parser; of several values the first counts."""
    assert conf(line).is_no("enable underlay")


@pytest.mark.parametrize(
    "line",
    [
        "#enable underlay = no",
        " # enable underlay = no",
        "Enable Underlay = no",
        "enable underlay no",
        "enable underlay =",
        "enable  underlay = no",
        "enable underlay2 = no",
        "= no",
        "\x00enable underlay = no",
    ],
)
def test_a_line_that_is_not_that_directive_says_nothing(line: str) -> None:
    """The runtimes pass over it, and so does the probe."""
    assert conf(line).has_underlay


def test_the_first_of_two_lines_counts() -> None:
    """Seen with Apptainer 1.4: the second is without effect."""
    read = conf("enable underlay = no", "enable underlay = yes")

    assert read.is_no("enable underlay")
    assert read.where("enable underlay").endswith("line 1")


def test_a_line_without_a_value_is_not_the_first() -> None:
    """It says nothing, so the next one is what counts."""
    read = conf("enable underlay =", "enable underlay = no")

    assert read.where("enable underlay").endswith("line 2")
    assert not read.has_underlay


def test_a_list_is_all_of_its_lines() -> None:
    """Its place is the first."""
    read = conf("bind path = /a", "bind path = /b, /c", "limit container paths = /images")

    assert read.directives["bind path"].values == ("/a", "/b", "/c")
    assert read.where("bind path").endswith("line 1")
    assert read.is_limited("limit container paths")


@pytest.mark.parametrize(
    "line", ["limit container owners = NULL", "", "# limit container owners = x"]
)
def test_a_limit_that_names_nobody_is_none(line: str) -> None:
    """NULL is how the file's own comments say so."""
    assert not conf(line).is_limited("limit container owners")


@pytest.mark.parametrize(
    ("value", "overlay"), [("yes", True), ("try", True), ("driver", True), ("no", False)]
)
def test_overlay_has_more_than_two_values(value: str, overlay: bool) -> None:
    """Each but no makes mount points."""
    assert conf(f"enable overlay = {value}").has_overlay is overlay


def test_underlay_may_be_preferred() -> None:
    """Since Apptainer 1.3."""
    assert conf("enable underlay = preferred").has_underlay


@pytest.mark.parametrize(
    ("value", "number"), [("256", 256), ("0", 0), ("many", None), ("-1", None), ("²", None)]
)
def test_numbers_are_read_where_they_are_ones(value: str, number: int | None) -> None:
    """Anything else is unknown."""
    assert conf(f"max loop devices = {value}").number("max loop devices") == number


def test_any_text_can_be_read() -> None:
    """Another file under that name is no reason to fail."""
    assert parse_conf("/x", "\x00\xff =\n=\n====\n" + "a" * 100_000).directives == {}


@pytest.mark.real
@needs_apptainer
def test_the_file_that_apptainer_ships_is_read_as_apptainer_reads_it(tmp_path: Path) -> None:
    """``config global --get`` is its own parser's word for each directive with a value."""
    read = parse_conf(str(APPTAINER_CONF), APPTAINER_CONF.read_text())

    assert len(read.directives) > 30
    for name in ("enable underlay", "enable overlay", "allow pid ns", "max loop devices"):
        done = subprocess.run(
            [str(APPTAINER), "-c", str(APPTAINER_CONF), "config", "global", "--get", name],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )
        if done.returncode:
            pytest.skip(f"this Apptainer lets only root ask it: {done.stderr.strip()}")
        assert done.stdout.strip() == read.value(name)
