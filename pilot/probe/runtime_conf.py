"""apptainer.conf and singularity.conf, read as the runtimes read them, with line numbers.

The rules are the runtimes' own (they all share one parser, since Singularity 3.6):

- a line is ``directive = value``; a directive is letters, spaces, ``_`` and ``-``, in lower
  case as written, so that ``#`` makes any line a comment;
- a line without a value says nothing;
- of a directive given twice the *first* line counts, but a list (``bind path``, ``limit
  container ...``) is all of its lines together;
- a comma separates values, of which only a list has more than the first;
- what the file doesn't say has the program's default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from transport.messages import Record

_LINE = re.compile(r"\s*([a-zA-Z _-]+)[ \t]*=[ \t]*(.*)")
_LISTS = frozenset(
    {
        "bind path",
        "limit container owners",
        "limit container groups",
        "limit container paths",
        "allow net users",
        "allow net groups",
        "allow net networks",
    }
)
DEFAULTS = {
    "allow setuid": "yes",
    "allow pid ns": "yes",
    "allow user ns": "yes",
    "user bind control": "yes",
    "enable overlay": "yes",
    "enable underlay": "yes",
    "max loop devices": "256",
    "shared loop devices": "no",
    "mount proc": "yes",
    "sessiondir max size": "64",
    "allow container dir": "yes",
    "allow container sif": "yes",
    "allow container squashfs": "yes",
}
"""What Apptainer 1.4 takes where the file says nothing. Older ones differ in names only
(overlay ``try`` is ``yes``), but for ``sessiondir max size``, which was 16."""


class Directive(Record, frozen=True, kw_only=True):
    """A directive as the file gives it."""

    values: tuple[str, ...]
    line: int
    """Of the first."""


class RuntimeConf(Record, frozen=True, kw_only=True):
    """A configuration file, by directive."""

    path: str
    directives: Mapping[str, Directive] = {}

    def value(self, directive: str) -> str:
        """Return what holds: the file's (first) value, or the program's default."""
        found = self.directives.get(directive)
        return DEFAULTS.get(directive, "") if found is None else found.values[0]

    def number(self, directive: str) -> int | None:
        """Return a directive that is a number; None where it is none."""
        value = self.value(directive)
        return int(value) if value.isascii() and value.isdecimal() else None

    def is_no(self, directive: str) -> bool:
        """Return whether a switch is off."""
        return self.value(directive) == "no"

    def is_limited(self, directive: str) -> bool:
        """Return whether a list names anything (``NULL`` doesn't)."""
        found = self.directives.get(directive)
        return found is not None and found.values[0].upper() != "NULL"

    def where(self, directive: str) -> str:
        """Return the place to change: the file and, where it says anything, the line."""
        found = self.directives.get(directive)
        return self.path if found is None else f"{self.path} line {found.line}"

    @property
    def has_overlay(self) -> bool:
        """Return whether overlay is enabled (``yes``, ``try`` or ``driver``)."""
        return not self.is_no("enable overlay")

    @property
    def has_underlay(self) -> bool:
        """Return whether underlay is enabled (``yes`` or ``preferred``)."""
        return not self.is_no("enable underlay")


def parse_conf(path: str, text: str) -> RuntimeConf:
    """Return what a configuration file says; lines that are no directive are passed over."""
    found: dict[str, Directive] = {}
    for number, line in enumerate(text.split("\n"), 1):
        match = _LINE.fullmatch(line.rstrip("\r"))
        name, value = (match[1].strip(), match[2].strip()) if match else ("", "")
        if not value:
            continue
        values = tuple(part.strip() for part in value.split(","))
        if name not in found:
            found[name] = Directive(values=values, line=number)
        elif name in _LISTS:
            earlier = found[name]
            found[name] = Directive(values=(*earlier.values, *values), line=earlier.line)
    return RuntimeConf(path=path, directives=found)
