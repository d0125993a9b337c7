from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.survey.splitting import Piece, split

MANY = 100_000
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(), VALUES, min_size=1, max_size=4)


def pieces(content: bytes, bytes_max: int = MANY) -> list[Piece]:
    """Return all pieces of a stream."""
    return list(split(io.BytesIO(content), bytes_max))


def decoded(content: bytes) -> list[object]:
    """Return what the pieces hold."""
    return [json.loads(piece.text or b"") for piece in pieces(content)]


@given(st.lists(OBJECTS, max_size=5))
def test_each_form_gives_the_same_reports(reports: list[dict[str, object]]) -> None:
    """Lines, arrays, indented arrays, indented objects, with any text inside."""
    lines = "\n".join(json.dumps(report) for report in reports)
    indented = "\n".join(json.dumps(report, indent=1, ensure_ascii=False) for report in reports)
    forms = {
        "lines": lines,
        "lines and blank ones": "\n\n" + lines.replace("\n", "\r\n \n") + "\n",
        "an array": json.dumps(reports),
        "an indented array": json.dumps(reports, indent=4),
        "indented": indented,
    }

    for name, text in forms.items():
        assert decoded(text.encode()) == reports, name


@given(st.lists(OBJECTS, max_size=4), st.integers(1, 40))
def test_how_the_bytes_arrive_makes_no_difference(
    reports: list[dict[str, object]], chunk: int
) -> None:
    """A pipe gives what it has, cut anywhere."""

    class Pipe(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or chunk, chunk))

    text = json.dumps(reports, ensure_ascii=False).encode()
    with Pipe(text) as pipe:
        found = list(split(pipe, max(40, len(text))))

    assert [json.loads(piece.text or b"") for piece in found] == reports


def test_a_byte_order_mark_is_no_content() -> None:
    """Some editors put it there."""
    assert decoded(b"\xef\xbb\xbf" + b'{"a": 1}\n') == [{"a": 1}]


def test_lines_are_numbered() -> None:
    """Blank ones count; a piece's line is its first."""
    assert [piece.line for piece in pieces(b'\n{"a":1}\n\n\nx\n{"a":2}')] == [2, 5, 6]
    assert [piece.line for piece in pieces(b'[\n {"a":\n1},\n\n {"a":2}\n]')] == [2, 5]
    assert [piece.line for piece in pieces(b'\n{\n "a":1\n}\n{\n "a":2\n}\n')] == [2, 5]


def test_a_broken_line_costs_one_line() -> None:
    """Cut off, or garbage: the next line is the next report."""
    content = b'{"a": {"b": 1\n{"a": 2}\n\xff\xfe\x00\n{"a": 3}\n'

    assert [piece.text for piece in pieces(content)][1::2] == [b'{"a": 2}', b'{"a": 3}']


def test_an_indented_report_that_was_cut_off_ends_where_the_next_begins() -> None:
    """As `cat` puts them one after the other."""
    whole = json.dumps({"a": {"b": [{"c": 1}]}}, indent=2).encode()
    found = pieces(whole[:-4] + b"\n" + whole + b"\n" + whole)

    assert [piece.text for piece in found][1:] == [whole, whole]
    assert len(found) == 3


def test_what_stands_between_the_reports_of_an_array_is_a_piece() -> None:
    """It is counted as broken, not passed over."""
    found = pieces(b'[null, {"a": 1}, "text", {"a": 2} oops]')

    assert [piece.text for piece in found] == [
        b"null",
        b'{"a": 1}',
        b'"text"',
        b'{"a": 2}',
        b"oops",
    ]


def test_brackets_in_texts_are_text() -> None:
    """Escaped quotes, too."""
    tricky = [{"a": '}]"\\"{['}, {'{"': "\\"}]

    assert decoded(json.dumps(tricky).encode()) == tricky


@pytest.mark.parametrize("head", [b"", b"[", b"{\n "])
def test_what_is_too_long_is_not_kept(head: bytes) -> None:
    """It is told with its line; in lines, the next one is read."""
    found = pieces(head + b'{"a": "' + b"x" * 5000 + b'"}\n{"a": 1}\n', bytes_max=1000)

    assert Piece(1, None) in found
    assert all(len(piece.text or b"") <= 1000 for piece in found)
    if not head:
        assert found[-1] == Piece(2, b'{"a": 1}')


def test_a_line_of_a_gigabyte_is_read_in_parts() -> None:
    """No read asks for more than a bounded number of bytes."""

    class Endless(io.RawIOBase):
        left = 1 << 30
        largest = 0

        def readline(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            assert size > 0
            self.largest = max(self.largest, size)
            taken = min(size, self.left)
            self.left -= taken
            return memoryview(CHUNK)[:taken].tobytes()

    CHUNK = b"x" * (2 << 20)  # noqa: N806 - made once
    endless = Endless()

    assert list(split(endless)) == [Piece(1, None)]  # type: ignore[arg-type]
    assert endless.left == 0
    assert endless.largest <= 2 << 20


def test_nothing_gives_nothing() -> None:
    """An empty file, blank lines, an empty array."""
    assert pieces(b"") == pieces(b"\n \n") == pieces(b"[]") == pieces(b"[\n]\n") == []
