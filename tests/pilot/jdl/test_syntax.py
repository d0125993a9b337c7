"""The JDL as a text: what reads well, and what each mistake is answered with."""

from __future__ import annotations

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pilot.jdl.document import Document, JdlError
from pilot.jdl.syntax import DEPTH_MAX, KEYS_MAX, TEXT_MAX, read_document


def read(text: str) -> Document:
    """Read a text under the name that errors then give."""
    return read_document(text, source="job.jdl")


def texts(text: str, key: str = "a") -> list[str]:
    """Return the words of one key."""
    return [word.text for word in read(text).words(key)]


def refusal(text: str) -> str:
    """Return what the user is told."""
    with pytest.raises(JdlError) as caught:
        read(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('a = "x";', ["x"]),
        ('a="x"', ["x"]),
        ("a = 12;", ["12"]),
        ("a = -1.5", ["-1.5"]),
        ('a = {"x", "y"};', ["x", "y"]),
        ('a = {x, 1, "y",};', ["x", "1", "y"]),
        ("a = {};", []),
        ('[ a = "x"; ]', ["x"]),
        ('[a = "x"]', ["x"]),
        ("[a = 5]", ["5"]),
        (';; a = "x";;', ["x"]),
        ('\ufeffa = "x";\r\n', ["x"]),
        ('# a = "no";\n  # nor this\na = # why\n "x"; # and more', ["x"]),
        ('a = {"x", # first\n "y"};', ["x", "y"]),
        ('a = "x; y = #{z}";', ["x; y = #{z}"]),
        ('a = "Übersicht";', ["Übersicht"]),
    ],
)
def test_values_are_read_as_alien_writes_them(text: str, expected: list[str]) -> None:
    """Strings, numbers and sets, with comments, brackets and a missing last semicolon."""
    assert texts(text) == expected


def test_a_backslash_escapes_quotes_and_itself_only() -> None:
    r"""A payload that needs \n or \. gets what was written."""
    assert texts(r'a = "say \"hi\" \\ \n \.root";') == [r'say "hi" \ \n \.root']


def test_keys_are_found_in_any_case_and_kept_as_written() -> None:
    """AliEn's keys have no case."""
    entry = read("CPUcores = 8;").entry("CPUCores")

    assert entry is not None
    assert entry.key == "CPUcores"
    assert entry.written == "8"


def test_an_expression_is_kept_as_text() -> None:
    """Requirements are the broker's to evaluate; comment lines and line ends aren't theirs."""
    text = """
    Requirements = ( member(other.GridPartitions, "multi  ; core")
        # not at night
        && other.TTL >= 3600 ) && other.CE =!= "x";
    """

    assert texts(text, "requirements") == [
        '( member(other.GridPartitions, "multi  ; core") && other.TTL >= 3600 ) && other.CE =!= "x"'
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '\n\nx = 1;\nOutput   = "a.root;\nTTL = 5;',
            "job.jdl:4:12: Output: the string that starts here is never closed; "
            'end it with " on the same line',
        ),
        (
            'a = {"x", "y";',
            "job.jdl:1:5: a: the set that starts here is never closed; end it with }",
        ),
        (
            'a = {"x", {"y"}};',
            'job.jdl:1:11: a: "{" can\'t begin an item of a set; write {"a", "b"}',
        ),
        ('a = {"x" "y"};', "job.jdl:1:10: a: a comma is missing before this; write {a, b}"),
        ("a = f(x;", "job.jdl:1:6: a: the ( here is never closed; add a )"),
        ("a = f(x));", "job.jdl:1:9: a: this ) closes nothing; remove it"),
        ("a = ;", "job.jdl:1:5: a: the value is missing; write a = value;"),
        ("TTL 5;", "job.jdl:1:5: TTL: = is missing after the key; write Key = value;"),
        ('a = "x" b = 1;', "job.jdl:1:9: a: the value has ended but more follows; put ; after it"),
        (
            "TTL = 5\nPrice = 1;",
            "job.jdl:2:7: TTL: a second = in one value; put ; at the end of the value before it",
        ),
        ("a = 1;\n A = 2;", "job.jdl:2:2: A: this key is already on line 1; keep only one of them"),
        ("// hm\na = 1;", "job.jdl:1:1: comments begin with #; write # instead"),
        ("= 5;", 'job.jdl:1:1: a key must begin here, not "="; write Key = value;'),
        ("[ a = 1;", "job.jdl:1:1: the [ here is never closed; end the JDL with ]"),
        ("a = 1; ]", "job.jdl:1:8: this ] closes nothing; remove it or begin the JDL with ["),
        ("[ a = 1 ] b", "job.jdl:1:11: text follows the closing ]; the ] must come last"),
        ("a = “x”;", 'job.jdl:1:5: a: "“x”" must be in straight quotes; write "..."'),
        (
            'a = "x\u200b";',
            "job.jdl:1:5: a: the string that starts here has an invisible character; type it again",
        ),
        ("a = 1;\x00", "job.jdl:1:7: the character '\\x00' can't be in a JDL; remove it"),
        ('a = "\udc80";', "job.jdl:1:6: the character '\\udc80' can't be in a JDL; remove it"),
    ],
)
def test_a_mistake_is_answered_with_its_place_and_what_to_write(text: str, expected: str) -> None:
    """One sentence: source, line, column, key, what is wrong, what to do."""
    assert refusal(text) == expected


def test_one_value_is_not_a_set() -> None:
    """A key that takes one value says so when it is given several."""
    with pytest.raises(JdlError, match="one value belongs here, not a set"):
        read("TTL = {1, 2};").word("TTL")


def test_too_long_a_text_is_refused() -> None:
    """The bound is on the whole JDL, before anything is read."""
    assert f"the limit is {TEXT_MAX}" in refusal("#" * (TEXT_MAX + 1))


def test_too_many_keys_are_refused() -> None:
    """Whoever generates keys in a loop is told how many there may be."""
    text = "".join(f"k{i} = 1;" for i in range(KEYS_MAX + 1))

    assert f"more than {KEYS_MAX} keys" in refusal(text)


def test_too_many_parentheses_are_refused() -> None:
    """Whoever evaluates the expression later is spared the depth."""
    text = "a = " + "(" * (DEPTH_MAX + 1) + ")" * (DEPTH_MAX + 1) + ";"

    assert f"more than {DEPTH_MAX} parentheses" in refusal(text)


@pytest.mark.parametrize(
    "unit",
    ["{", "[", "(", '"', "\\", ";", "#", "#\n", " ", "\n", "a", "a=", "=", ",", 'a="\\', "a= ( "],
)
@pytest.mark.parametrize("start", ["", "a = ", "a = {", 'a = "', "a = b "])
def test_a_mebibyte_of_anything_is_answered_at_once(start: str, unit: str) -> None:
    """Time grows with the length; quadratic time would be hours here."""
    text = (start + unit * TEXT_MAX)[:TEXT_MAX]
    began = time.process_time()
    try:
        read(text)
    except JdlError as error:
        assert len(str(error)) < 300  # noqa: PT017 - either answer is right, if it is short
    assert time.process_time() - began < 10


@given(st.text() | st.text('aK=;"\\{}[]()#,\n \r1/“', max_size=60))
@example("[")
@example("a=1;#")
@example("a= #")
def test_any_text_gives_a_document_or_a_jdl_error(text: str) -> None:
    """No other exception ever leaves the parser."""
    try:
        document = read(text)
    except JdlError as error:
        assert str(error).startswith("job.jdl:")  # noqa: PT017 - either answer is right
    else:
        assert all(entry.key.lower() == key for key, entry in document.entries.items())


@given(st.lists(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]))))
def test_any_strings_written_as_a_set_are_read_back(values: list[str]) -> None:
    """Escaping a quote and a backslash is all that a writer needs to do."""
    quoted = (value.replace("\\", "\\\\").replace('"', '\\"') for value in values)
    text = "a = {" + ", ".join(f'"{value}"' for value in quoted) + "};"

    assert texts(text) == values
