"""What a JDL says before anyone asks what it means: entries, words, and their places.

Every word knows where it stands, so that whoever finds it wrong, however late, says so with
the line and the column: ``raise word.error("is not a size; write 8GB")``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from transport.errors import UserError


class JdlError(UserError):
    """Raised when a JDL can't be understood: one sentence with the place, the key, what to do."""


def shown(text: str, length_max: int = 60) -> str:
    """Quote a text for an error's sentence: never long, never with invisible characters."""
    cut = text if len(text) <= length_max else text[: length_max - 3] + "..."
    return '"' + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut) + '"'


@dataclass(frozen=True, slots=True)
class Origin:
    """A whole JDL and what it is called; turns an offset into an error that names the place."""

    source: str
    text: str = field(repr=False)

    def line(self, at: int) -> int:
        """Return the line, from 1, of an offset."""
        return self.text.count("\n", 0, at) + 1

    def error(self, at: int, problem: str, key: str = "") -> JdlError:
        """Make the error that says ``source:line:column: key: problem``."""
        column = at - self.text.rfind("\n", 0, at)
        subject = f"{shown(key)[1:-1]}: " if key else ""
        return JdlError(f"{self.source}:{self.line(at)}:{column}: {subject}{problem}")


@dataclass(frozen=True, slots=True)
class Word:
    """One string, number or expression, and where it stands."""

    origin: Origin
    key: str
    at: int
    text: str
    is_quoted: bool

    def error(self, problem: str) -> JdlError:
        """Make the error that points at this word."""
        return self.origin.error(self.at, problem, self.key)

    def plain(self) -> str:
        """Return the text of a string, a number or a single bare word.

        Raises JdlError for an expression: whoever expects a name has forgotten its quotes.
        """
        if not self.is_quoted and any(c in ' "()' for c in self.text):
            raise self.error(f'{shown(self.text)} must be in quotes; write {self.key} = "...";')
        return self.text


@dataclass(frozen=True, slots=True)
class Entry:
    """One ``Key = value;``: the key and the value as written, and the words of the value."""

    key: str
    at: int
    words: tuple[Word, ...]
    is_set: bool
    written: str


@dataclass(frozen=True, slots=True)
class Document:
    """All entries of a JDL, by lower-case key, in the order of the text."""

    origin: Origin
    entries: Mapping[str, Entry]

    def entry(self, key: str) -> Entry | None:
        """Return the entry of a key, in whatever case."""
        return self.entries.get(key.lower())

    def word(self, key: str) -> Word | None:
        """Return the only word of a key that takes one value; raises JdlError for a set."""
        entry = self.entry(key)
        if entry is None:
            return None
        if entry.is_set:
            raise self.origin.error(
                entry.at, "one value belongs here, not a set; leave out the { }", entry.key
            )
        return entry.words[0]

    def words(self, *keys: str) -> tuple[Word, ...]:
        """Return the words of keys that take one value or a set, one key after the other."""
        found = (self.entry(key) for key in keys)
        return tuple(word for entry in found if entry is not None for word in entry.words)
