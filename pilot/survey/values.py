"""A key's value as it is counted: a short text.

Site Sonar's own reports hold ``"true"`` where another program's hold ``true``, and both are to be
counted as one.
"""

from __future__ import annotations

VALUE_LENGTH_MAX = 64
HUGE = "a huge number"
_INTEGER_BITS_MAX = 64
_WHOLE_MAX = 1e15

Value = str | int | float | bool | None


def value_text(value: Value) -> str:
    """Return a key's value as it is counted and shown: JSON's words, and no longer than 64."""
    if isinstance(value, str):
        is_short = len(value) <= VALUE_LENGTH_MAX
        return value if is_short else f"{value[: VALUE_LENGTH_MAX - 1]}…"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < _WHOLE_MAX else repr(value)
    return str(value) if value.bit_length() <= _INTEGER_BITS_MAX else HUGE
