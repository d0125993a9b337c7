"""One probe report, decoded and made small enough to be kept for every node of a grid.

A report comes from a node that nobody controls. So only what is counted is decoded, every text
has a bound, and whatever doesn't fit is a `BrokenReport` with a sentence, never anything else.

Values of keys become text: Site Sonar's own reports hold ``"true"`` where `pilot probe` holds
``true``, and both are to be counted as one. A value that is null was asked for and not
answered, which for a survey is the same as a key that isn't there.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

PROBE_SCHEMA = "pilot-probe/1"
VALUE_LENGTH_MAX = 64
KEYS_MAX = 1_000
VALUES_MAX = 1_000
OTHER = "\0other"
"""What stands for a value beyond the first `VALUES_MAX` of its key."""

_TUPLES_POOLED_MAX = 1_000
_INTEGER_BITS_MAX = 64
_HUGE = "a huge number"

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
_Value = str | int | float | bool | None


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
    keys: Annotated[dict[_Key, _Value], Meta(max_length=512)] = msgspec.field(default_factory=dict)


class NodeRecord(msgspec.Struct, frozen=True, order=True, gc=False):
    """What a survey keeps of a node. Ordered by time first: the newest is the greatest.

    The order goes on with the content, so that which of two reports of the same second counts
    doesn't depend on which was read first.
    """

    at: float
    node_class: NodeClass
    names: tuple[str, ...]
    """Names of the keys that have an answer, sorted; nodes with the same ones share the tuple."""

    values: tuple[str, ...]
    """The answers, in the order of ``names``."""

    runtimes: tuple[str, ...]
    """Names of the runtimes that work there, sorted."""

    advice: tuple[str, ...]
    """Codes of what its administrator is advised to change, sorted."""


class ReportReader:
    """Decodes reports. One reader for a whole survey: equal texts are then kept once.

    A key's first 1,000 different values are told apart; all others become `OTHER`, as free bytes
    or clock rates have a value a node. So are the first 1,000 keys; others are left out.
    """

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(_Report).decode
        self._decode_schema = msgspec.json.Decoder(_Schema).decode
        self._values: dict[str, dict[_Value, str]] = {}
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
        return sum(map(len, self._values.values())) + len(self._tuples)

    def _record(self, report: _Report) -> NodeRecord:
        names, values = [], []
        for name, value in sorted(report.keys.items()):
            known = self._values.get(name)
            if value is None or (known is None and (known := self._new_key(name)) is None):
                continue
            names.append(name)
            if value is True:
                values.append("true")
            elif value is False:
                values.append("false")
            else:
                values.append(known.get(value) or self._new_value(known, value))
        working = {runtime.name for runtime in report.runtimes if runtime.works}
        advice = {a.code for a in report.advice if isinstance(a, _Advice) and a.code}
        return NodeRecord(
            at=report.at,
            node_class=report.node_class,
            names=self._shared(tuple(names)),
            values=tuple(values),
            runtimes=self._shared(tuple(sorted(working))),
            advice=self._shared(tuple(sorted(advice))),
        )

    def _new_key(self, name: str) -> dict[_Value, str] | None:
        if len(self._values) >= KEYS_MAX:
            return None
        return self._values.setdefault(name, {})

    def _new_value(self, known: dict[_Value, str], value: str | float) -> str:
        is_full = len(known) >= VALUES_MAX
        if is_full and not isinstance(value, str):
            return OTHER
        text = value_text(value)
        if is_full or text in known:
            return known.get(text, OTHER)
        # What is long isn't kept as it was, but as it is counted.
        known[text if isinstance(value, str) or text == _HUGE else value] = text
        return text

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


def value_text(value: _Value) -> str:
    """Return a key's value as it is counted and shown: JSON's words, and no longer than 64."""
    if isinstance(value, str):
        is_short = len(value) <= VALUE_LENGTH_MAX
        return value if is_short else f"{value[: VALUE_LENGTH_MAX - 1]}…"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return str(value) if value.bit_length() <= _INTEGER_BITS_MAX else _HUGE


def _other_schema(schema: str) -> str:
    if not schema:
        return f"it has no schema; {PROBE_SCHEMA} is read"
    return f"its schema is {schema[:VALUE_LENGTH_MAX]!r}; {PROBE_SCHEMA} is read"


def _uncapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]
