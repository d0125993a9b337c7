"""One probe report, decoded and made small enough to be kept for every node of a grid.

A report comes from a node that nobody controls. So only what is counted is decoded, every text
has a bound, and whatever doesn't fit is a `BrokenReport` with a sentence, never anything else.

A value that is null was asked for and not answered, which for a survey is the same as a key that
isn't there.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pilot.survey.figures import Answer, answers
from pilot.survey.values import HUGE, VALUE_LENGTH_MAX, Value, value_text

PROBE_SCHEMA = "pilot-probe/1"
KEYS_MAX = 1_000
VALUES_MAX = 1_000
OTHER = "\0other"
"""What stands for a value beyond the first `VALUES_MAX` of its key."""

_TUPLES_POOLED_MAX = 1_000

NodeClass = Literal["fully-compatible", "underlay-disabled", "cvmfs-only", "none"]
NODE_CLASSES: tuple[NodeClass, ...] = (
    "fully-compatible",
    "underlay-disabled",
    "cvmfs-only",
    "none",
)
"""From best to worst."""

_Name = Annotated[str, Meta(min_length=1, max_length=255)]
_Key = Annotated[str, Meta(max_length=VALUE_LENGTH_MAX)]


class BrokenReport(ValueError):
    """Raised when a report can't be counted; the text says why, for a person."""


class _Schema(msgspec.Struct, gc=False):
    schema: str = ""


class _Runtime(msgspec.Struct, gc=False):
    name: _Key
    works: bool | None = None


class _Advice(msgspec.Struct, gc=False):
    code: _Key = ""


class _Report(msgspec.Struct):
    schema: str
    node: _Name
    node_class: NodeClass = msgspec.field(name="class")
    site: Annotated[str, Meta(max_length=255)] = ""
    at: float = 0.0
    runtimes: Annotated[list[_Runtime], Meta(max_length=64)] = msgspec.field(default_factory=list)
    advice: Annotated[list[_Advice | str], Meta(max_length=64)] = msgspec.field(
        default_factory=list
    )
    keys: Annotated[dict[_Key, Value], Meta(max_length=512)] = msgspec.field(default_factory=dict)


class NodeRecord(msgspec.Struct, frozen=True, gc=False):
    """What a survey keeps of a node; texts and pairs are shared with the other nodes."""

    at: float
    node_class: NodeClass
    keys: tuple[tuple[str, str], ...]
    """Each key that has an answer, with it."""

    figures: tuple[tuple[str, Answer], ...]
    """The answer to each figure of the talk."""

    runtimes: tuple[str, ...]
    """Names of the runtimes that work there, sorted."""

    advice: tuple[str, ...]
    """Codes of what its administrator is advised to change, sorted."""

    def is_newer_than(self, other: NodeRecord) -> bool:
        """Tell whether this one counts. Of two of the same second the content decides.

        So that it makes no difference which was read first.
        """
        return self.at > other.at or (self.at == other.at and self._content() > other._content())

    def _content(self) -> tuple[object, ...]:
        return self.node_class, sorted(self.keys), self.runtimes, self.advice


class ReportReader:
    """Decodes reports. One reader for a whole survey: equal texts are then kept once.

    A key's first 1,000 different values are told apart; all others become `OTHER`, as free bytes
    or clock rates have a value a node. So are the first 1,000 keys; others are left out.
    """

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(_Report).decode
        self._decode_schema = msgspec.json.Decoder(_Schema).decode
        self._pairs: dict[str, dict[Value, tuple[str, str]]] = {}
        self._truths: dict[tuple[str, bool], tuple[str, str]] = {}
        self._tuples: dict[tuple[str, ...], tuple[str, ...]] = {}

    def read(self, text: bytes) -> tuple[str, str, NodeRecord]:
        """Return site, node and what is kept of it; raises `BrokenReport`."""
        try:
            report = self._decode(text)
        except (ValueError, RecursionError) as error:
            raise BrokenReport(self._why_broken(text, error)) from None
        if report.schema != PROBE_SCHEMA:
            raise BrokenReport(_other_schema(report.schema))
        return report.site, report.node, self._record(report)

    def pooled(self) -> int:
        """Return how many texts and tuples are kept for sharing; bounded."""
        return sum(map(len, self._pairs.values())) + len(self._truths) + len(self._tuples)

    def _record(self, report: _Report) -> NodeRecord:
        working = {runtime.name for runtime in report.runtimes if runtime.works}
        advice = {a.code for a in report.advice if isinstance(a, _Advice) and a.code}
        return NodeRecord(
            at=report.at,
            node_class=report.node_class,
            keys=tuple(self._answered(report.keys)),
            figures=answers(report.keys),
            runtimes=self._shared(tuple(sorted(working))),
            advice=self._shared(tuple(sorted(advice))),
        )

    def _answered(self, keys: dict[str, Value]) -> list[tuple[str, str]]:
        """Return the pairs of those that have an answer. Most of a survey's time is spent here."""
        found, known = [], self._pairs
        for name, value in keys.items():
            if value is None:
                continue
            pair = (
                self._truths.get((name, value))  # For a dict, True is 1.
                if value is True or value is False
                else (known[name].get(value) if name in known else None)
            ) or self._new_pair(name, value)
            if pair is not None:
                found.append(pair)
        return found

    def _new_pair(self, name: str, value: str | float | bool) -> tuple[str, str] | None:
        if name not in self._pairs:
            if len(self._pairs) >= KEYS_MAX:
                return None
            self._pairs[name] = {OTHER: (name, OTHER)}
        known = self._pairs[name]
        if isinstance(value, bool):
            return self._truths.setdefault((name, value), (name, value_text(value)))
        is_full = len(known) > VALUES_MAX
        if is_full and not isinstance(value, str):
            return known[OTHER]
        text = value_text(value)
        if is_full or text in known:
            return known.get(text, known[OTHER])
        # What is long isn't kept as it was, but as it is counted.
        pair = (name, text)
        known[text if isinstance(value, str) or text == HUGE else value] = pair
        return pair

    def _shared(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        if len(self._tuples) < _TUPLES_POOLED_MAX:
            return self._tuples.setdefault(texts, texts)
        return self._tuples.get(texts, texts)

    def _why_broken(self, text: bytes, error: Exception) -> str:
        """Return a sentence; a report of another schema is no broken one of ours."""
        if isinstance(error, RecursionError):
            return "it is nested too deeply"
        if isinstance(error, UnicodeDecodeError):
            return "its text isn't UTF-8"
        if not isinstance(error, msgspec.ValidationError):
            return (
                f"it isn't JSON: {_uncapitalised(str(error).removeprefix('JSON is malformed: '))}"
            )
        try:
            schema = self._decode_schema(text).schema
        except (ValueError, RecursionError):
            schema = PROBE_SCHEMA
        return _other_schema(schema) if schema != PROBE_SCHEMA else _uncapitalised(str(error))


def _other_schema(schema: str) -> str:
    if not schema:
        return f"it has no schema; {PROBE_SCHEMA} is read"
    return f"its schema is {schema[:VALUE_LENGTH_MAX]!r}; {PROBE_SCHEMA} is read"


def _uncapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]
