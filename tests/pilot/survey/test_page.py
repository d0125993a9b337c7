from __future__ import annotations

import re
import warnings
from xml.etree import ElementTree as ET

import pytest

from pilot.survey import Survey
from pilot.survey.page import SITES_DRAWN_MAX, survey_page
from tests.pilot.survey.factories import found, report, surveyed
from tests.pilot.survey.hostile import HOSTILE

CLASSES = ("fully-compatible", "underlay-disabled", "cvmfs-only", "none")


def hostile_survey() -> Survey:
    """Return a survey in which every text that a node may choose is hostile."""
    survey = surveyed(
        *(
            report(
                site=text,
                node=f"{text}{number}",
                class_=CLASSES[number % 4],
                keys={text[:60]: text, "X": text},
                advice=[{"code": text[:60]}],
                runtimes=[{"name": text[:60], "works": True}],
            )
            for number, text in enumerate(HOSTILE)
        )
    )
    survey.take(found({"schema": HOSTILE[0]}))
    survey.take(found({"schema": "x"})._replace(file=HOSTILE[1]))
    return survey


def parsed(page: str) -> ET.Element:
    """Return the page as a tree; raises if it isn't well-formed."""
    return ET.fromstring(page)


def test_the_page_is_well_formed_and_has_its_parts() -> None:
    """A summary, two charts, three tables."""
    survey = surveyed(*(report(node=str(n), site=f"S{n % 3}", keys={"X": "1"}) for n in range(9)))
    tree = parsed(survey_page(survey))

    assert tree.tag == "html"
    assert tree.attrib == {"lang": "en"}
    assert "9 nodes at 3 sites" in "".join(tree.itertext())
    assert len(tree.findall("body/svg")) == 2
    assert len(tree.findall("body/table")) == 3


def test_charts_say_what_they_show() -> None:
    """A title and a description, named by the drawing, and every id only once."""
    tree = parsed(survey_page(surveyed(report(), report(node="2", class_="none"))))
    ids = [element.attrib["id"] for element in tree.iter() if "id" in element.attrib]

    assert len(ids) == len(set(ids))
    for drawing in tree.iter("svg"):
        named = drawing.attrib["aria-labelledby"].split()
        assert drawing.attrib["role"] == "img"
        assert [drawing[0].tag, drawing[1].tag] == ["title", "desc"]
        assert [drawing[0].attrib["id"], drawing[1].attrib["id"]] == named
        assert "fully compatible" in (drawing[1].text or "")


def test_what_a_chart_refers_to_is_in_it() -> None:
    """Marks and clips that were renamed are found under their new names."""
    page = survey_page(surveyed(report(), report(node="2", site="KIT")))
    ids = {element.attrib.get("id") for element in parsed(page).iter()}
    used = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)

    assert used
    assert {one or other for one, other in used} <= ids


def test_the_page_refers_to_nothing_outside() -> None:
    """It is read offline, and tells nobody that it is."""
    page = survey_page(surveyed(*(report(node=str(n), site=f"S{n}") for n in range(50))))
    tags = {element.tag for element in parsed(page).iter()}

    assert "://" not in page
    assert "@import" not in page
    assert not tags & {"script", "link", "img", "image", "iframe", "object", "a", "metadata"}
    assert "default-src 'none'" in page


def test_hostile_names_are_only_text() -> None:
    """No element, attribute or handler comes from a report."""
    page = survey_page(hostile_survey())
    tree = parsed(page)
    tags = {element.tag for element in tree.iter()}
    attributes = {name for element in tree.iter() for name in element.attrib}
    texts = "".join(tree.itertext())

    assert not tags & {"script", "img", "iframe", "b", "link"}
    assert not {name for name in attributes if name.startswith("on")}
    assert "<script>alert(1)</script>" in texts
    assert "$\\alpha$" in texts
    assert "🙂" in texts
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "1 reports" not in texts


def test_the_same_survey_gives_the_same_page() -> None:
    """So that two pages can be compared, and a page be kept under version control."""
    assert survey_page(hostile_survey()) == survey_page(hostile_survey())


def test_a_big_grid_gives_a_bounded_page() -> None:
    """Bars for the biggest sites; the table has as many as were asked for."""
    survey = surveyed(*(report(node=str(n), site=f"S{n:03}") for n in range(90)))
    bounded, whole = survey_page(survey, sites_max=50), survey_page(survey)

    assert len(re.findall(r"<td>S\d+</td>", bounded)) == 50
    assert "40 smaller sites are left out" in bounded
    assert len(re.findall(r"<td>S\d+</td>", whole)) == 90
    assert len(re.findall(r">S\d+ \(1\)<", whole)) == SITES_DRAWN_MAX


@pytest.mark.parametrize("reports", [1, 2])
def test_a_tiny_grid_has_a_page(reports: int) -> None:
    """One site, one class: a full circle and one bar, and no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = survey_page(surveyed(*(report(node=str(n)) for n in range(reports))))

    assert len(parsed(page).findall("body/svg")) == 2
