"""The list of input data, as payloads read it."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from pilot.staging import write_input_data_list
from transport.errors import UserError
from transport.messages import InputFile

LISTED = (
    InputFile(name="a.root", source="/x/a.root", catalogue_name='/alice/a&"b"<c>.root'),
    InputFile(name="b.root", source="/x/b.root", is_staged=False),
    InputFile(name="c.root", source="/x/c.root"),
)


def test_the_xml_list_is_an_alien_collection(work: Path) -> None:
    """It parses, says what went in, and has each file on a line that starts as AliEn's do."""
    path = write_input_data_list(str(work), "wn.xml", "xml-single", LISTED)
    text = Path(path).read_text()
    files = ET.fromstring(text).findall("collection/event/file")

    assert path == f"{work}/wn.xml"
    assert text.count('      <file name="') == 3
    assert [file.get("lfn") for file in files] == [
        '/alice/a&"b"<c>.root',
        "/x/b.root",
        f"{work}/c.root",
    ]
    assert files[0].get("turl") == 'alien:///alice/a&"b"<c>.root'
    assert files[1].get("turl") == "/x/b.root"


def test_the_text_list_has_a_line_for_each(work: Path) -> None:
    """Catalogue names are written as JAliEn does, the others as paths."""
    path = write_input_data_list(str(work), "wn.txt", "txt-list", LISTED)

    assert Path(path).read_text().splitlines() == [
        'alien:///alice/a&"b"<c>.root',
        "/x/b.root",
        f"{work}/c.root",
    ]


def test_the_json_list_parses(work: Path) -> None:
    """The same facts for whoever prefers JSON; an empty list is a list."""
    path = write_input_data_list(str(work), "wn.json", "json", LISTED)
    assert json.loads(Path(path).read_text())["files"][1]["lfn"] == "/x/b.root"

    path = write_input_data_list(str(work), "wn.json", "json", ())
    assert json.loads(Path(path).read_text())["files"] == []


def test_a_list_that_cannot_be_written_is_the_users_error(work: Path) -> None:
    """An unknown format, a name that leads out and a line break are each said."""
    broken = InputFile(name="a", source="/x", catalogue_name="/alice/a\n/alice/b")

    with pytest.raises(UserError, match="'xml-multi' isn't known; write one of xml-single"):
        write_input_data_list(str(work), "wn.xml", "xml-multi", LISTED)
    with pytest.raises(UserError, match=r"InputDataList '\.\./wn\.xml'"):
        write_input_data_list(str(work), "../wn.xml", "xml-single", LISTED)
    with pytest.raises(UserError, match="control character"):
        write_input_data_list(str(work), "wn.txt", "txt-list", (broken,))
