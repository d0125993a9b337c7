"""The JDL as a text: keys, strings, sets and expressions, and where each of them stands.

    # a comment
    Executable = "run.sh";
    InputFile = {"LF:/alice/cern.ch/user/a/anna/main.C", "cuts.json"};
    TTL = 3600;
    Requirements = member(other.GridPartitions, "multicore") && other.TTL > 3600;

The dialect is AliEn's. Keys are letters, digits and `_`, in any case, each given once. In a
string a backslash stands before a quote or another backslash; before anything else it is
itself. A string stays on one line, so that a forgotten quote is found where it was forgotten.
A `#` where a key, a value or a line could begin is a comment to the end of its line. `[ ]` may
enclose the whole, the last `;` may be missing, sets don't nest.

What a key means is not known here: that is `pilot.jdl`. Whatever the text is, the answer is a
`Document` or a `JdlError`, in time that grows with the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pilot.jdl.document import Document, Entry, JdlError, Origin, Word, shown

TEXT_MAX = 1 << 20
KEYS_MAX = 1000
DEPTH_MAX = 100

_BLANK = re.compile(r"(?:\s++|#[^\n]*+)*+", re.ASCII)
_SPACE = re.compile(r"\s*+", re.ASCII)
_LINE = re.compile(r"[^\n]*+")
_KEY = re.compile(r"[A-Za-z0-9_]++")
_STRING = re.compile(r'"([^"\\\r\n]*+(?:\\[^\r\n][^"\\\r\n]*+)*+)"')
_ESCAPE = re.compile(r'\\(["\\])')
_SET_WORD = re.compile(r"[^\s,;{}()\[\]\"#=]++", re.ASCII)
_EXPRESSION_PIECE = re.compile(r'[^\s";()\]]++', re.ASCII)
_LONE_EQUALS = re.compile(r"(?<![=!<>?])=(?![=?!])")
_NEVER_ALLOWED = re.compile(r"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def read_document(text: str, *, source: str) -> Document:
    """Read a JDL; raises JdlError with the place of the first mistake."""
    if len(text) > TEXT_MAX:
        raise JdlError(
            f"{source}:1:1: the JDL is {len(text)} characters long, the limit is {TEXT_MAX}; "
            "move long lists of input into a collection"
        )
    origin = Origin(source, text.removeprefix("\ufeff"))
    if found := _NEVER_ALLOWED.search(origin.text):
        raise origin.error(
            found.start(), f"the character {found.group()!a} can't be in a JDL; remove it"
        )
    return Document(origin, _Reader(origin).read_entries())


class _Reader:
    """Reads from left to right; ``at`` is the only thing that changes."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.text = origin.text
        self.at = 0
        self.key = ""

    def read_entries(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        opened_at = self._open_bracket()
        while self._skip_to_key():
            entry = self._read_entry(entries)
            entries[entry.key.lower()] = entry
            if len(entries) > KEYS_MAX:
                raise self._error(entry.at, f"this is more than {KEYS_MAX} keys; use fewer")
        self._close_bracket(opened_at)
        return entries

    def _read_entry(self, before: Mapping[str, Entry]) -> Entry:
        at = self.at
        self.key = self._read_key()
        if (first := before.get(self.key.lower())) is not None:
            line = self.origin.line(first.at)
            raise self._error(at, f"this key is already on line {line}; keep only one of them")
        self._skip_blank()
        begin = self.at
        is_set = self._peek() == "{"
        words = self._read_set() if is_set else (self._read_value(),)
        written = self.text[begin : self.at].strip()
        entry = Entry(key=self.key, at=at, words=words, is_set=is_set, written=written)
        self._end_entry()
        return entry

    # --- between entries

    def _open_bracket(self) -> int | None:
        self._skip_blank()
        if self._peek() != "[":
            return None
        self.at += 1
        return self.at - 1

    def _close_bracket(self, opened_at: int | None) -> None:
        if self._peek() == "]" and opened_at is None:
            raise self._error(self.at, "this ] closes nothing; remove it or begin the JDL with [")
        if self._peek() == "" and opened_at is not None:
            raise self._error(opened_at, "the [ here is never closed; end the JDL with ]")
        self.at += 1
        self._skip_blank()
        if self._peek():
            raise self._error(self.at, "text follows the closing ]; the ] must come last")

    def _skip_to_key(self) -> bool:
        self._skip_blank()
        while self._peek() == ";":
            self.at += 1
            self._skip_blank()
        self.key = ""
        return self._peek() not in ("", "]")

    def _read_key(self) -> str:
        found = _KEY.match(self.text, self.at)
        if found is None:
            raise self._error(self.at, self._why_no_key())
        self.at = found.end()
        self._skip_blank()
        if self._peek() != "=":
            raise self._error(self.at, "= is missing after the key; write Key = value;", found[0])
        self.at += 1
        return found.group()

    def _why_no_key(self) -> str:
        if self.text.startswith(("//", "/*"), self.at):
            return "comments begin with #; write # instead"
        return f"a key must begin here, not {shown(self._peek())}; write Key = value;"

    def _end_entry(self) -> None:
        self._skip_blank()
        if self._peek() == ";":
            self.at += 1
        elif self._peek() not in ("", "]"):
            raise self._error(self.at, "the value has ended but more follows; put ; after it")

    # --- values

    def _read_value(self) -> Word:
        if self._peek() == '"':
            return self._read_string()
        if self._peek() in ("", ";"):
            raise self._error(self.at, f"the value is missing; write {self.key} = value;")
        return self._read_expression()

    def _read_string(self) -> Word:
        begin = self.at
        content = self._take_string()
        text = _ESCAPE.sub(r"\1", content)
        return Word(self.origin, self.key, begin, text, is_quoted=True)

    def _take_string(self) -> str:
        found = _STRING.match(self.text, self.at)
        if found is None:
            problem = 'the string that starts here is never closed; end it with " on the same line'
            raise self._error(self.at, problem)
        content = found.group(1)
        if not content.replace("\t", " ").isprintable():
            problem = "the string that starts here has an invisible character; type it again"
            raise self._error(self.at, problem)
        self.at = found.end()
        return content

    def _read_set(self) -> tuple[Word, ...]:
        opened_at = self.at
        words: list[Word] = []
        self.at += 1
        while self._skip_to_item(opened_at):
            words.append(self._read_item())
            self._skip_blank()
            if self._peek() == ",":
                self.at += 1
            elif self._peek() not in ("", ";", "}"):
                raise self._error(self.at, "a comma is missing before this; write {a, b}")
        self.at += 1
        return tuple(words)

    def _skip_to_item(self, opened_at: int) -> bool:
        self._skip_blank()
        if self._peek() in ("", ";"):
            raise self._error(opened_at, "the set that starts here is never closed; end it with }")
        return self._peek() != "}"

    def _read_item(self) -> Word:
        if self._peek() == '"':
            return self._read_string()
        found = _SET_WORD.match(self.text, self.at)
        if found is None or not found[0].isascii():
            problem = f'{shown(self._peek())} can\'t begin an item of a set; write {{"a", "b"}}'
            raise self._error(self.at, problem)
        self.at = found.end()
        return Word(self.origin, self.key, found.start(), found.group(), is_quoted=False)

    def _read_expression(self) -> Word:
        """Keep everything up to the `;` as text, on one line and without comment lines."""
        begin = self.at
        pieces: list[str] = []
        open_at: list[int] = []
        while self._peek() not in ("", ";", "]"):
            start = self.at
            if self._peek() in "()":
                self._take_parenthesis(open_at)
            elif self._peek() == '"':
                self._take_string()
            elif self._peek().isspace() and self._peek().isascii():
                self._skip_gap()
                pieces.append(" ")
                continue
            else:
                self._take_piece()
            pieces.append(self.text[start : self.at])
        if open_at:
            raise self._error(open_at[-1], "the ( here is never closed; add a )")
        return Word(self.origin, self.key, begin, "".join(pieces).strip(), is_quoted=False)

    def _take_parenthesis(self, open_at: list[int]) -> None:
        if self._peek() == "(":
            open_at.append(self.at)
        elif not open_at:
            raise self._error(self.at, "this ) closes nothing; remove it")
        else:
            open_at.pop()
        if len(open_at) > DEPTH_MAX:
            raise self._error(self.at, f"more than {DEPTH_MAX} parentheses are open; use fewer")
        self.at += 1

    def _take_piece(self) -> None:
        found = _EXPRESSION_PIECE.match(self.text, self.at)
        assert found is not None, "every other character was looked at before"
        if not found[0].isascii():
            problem = f'{shown(found[0])} must be in straight quotes; write "..."'
            raise self._error(self.at, problem)
        if equals := _LONE_EQUALS.search(self.text, found.start(), found.end()):
            problem = "a second = in one value; put ; at the end of the value before it"
            raise self._error(equals.start(), problem)
        self.at = found.end()

    # --- moving on

    def _peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def _skip_blank(self) -> None:
        self._skip(_BLANK)

    def _skip_gap(self) -> None:
        """Skip white space within an expression, and the lines in it that begin with `#`."""
        begin = self.at
        self._skip(_SPACE)
        while self._peek() == "#" and "\n" in self.text[begin : self.at]:
            self._skip(_LINE)
            begin = self.at
            self._skip(_SPACE)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self.text, self.at)
        assert found is not None, "the pattern matches the empty text too"
        self.at = found.end()

    def _error(self, at: int, problem: str, key: str = "") -> JdlError:
        return self.origin.error(at, problem, key or self.key)
