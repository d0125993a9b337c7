"""Numbers and sizes of a JDL, each held to bounds that a real job stays in."""

from __future__ import annotations

import re
from decimal import Decimal

from pilot.jdl.document import Document, Word, shown

SIZE_BYTES_MAX = 10**15

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?")
_SIZE = re.compile(
    r"([0-9]{1,16}(?:\.[0-9]{1,9})?)\s*(B|[KMGTP](?:I?B)?|)", re.ASCII | re.IGNORECASE
)


def read_whole(document: Document, key: str, default: int, *, least: int, most: int) -> int:
    """Return the whole number of a key, quoted or not, or the default."""
    word = document.word(key)
    if word is None:
        return default
    text = word.plain().strip()
    if _WHOLE.fullmatch(text) and least <= int(text) <= most:
        return int(text)
    raise word.error(f"{shown(text)} isn't a whole number from {least} to {most}; write one")


def read_price(document: Document, default: float, *, most: float) -> float:
    """Return Price: a decimal number, not negative."""
    word = document.word("Price")
    if word is None:
        return default
    text = word.plain().strip()
    if _DECIMAL.fullmatch(text) and float(text) <= most:
        return float(text)
    raise word.error(f"{shown(text)} isn't a number from 0 to {most:g}; write one such as 1.5")


def read_size(document: Document, key: str, default: int) -> int:
    """Return the bytes of a size such as ``8GB`` (10**9), ``8GiB`` (2**30) or ``8`` (MB)."""
    word = document.word(key)
    return default if word is None else parse_size(word)


def parse_size(word: Word) -> int:
    """Return the bytes that one word asks for; as in AliEn, a number without a unit is in MB."""
    text = word.plain().strip()
    found = _SIZE.fullmatch(text)
    size = _bytes(found) if found is not None else 0
    if 1 <= size <= SIZE_BYTES_MAX:
        return size
    raise word.error(f"{shown(text)} isn't a size from 1 B to 1 PB; write one such as 8GB or 500MB")


def _bytes(found: re.Match[str]) -> int:
    number, unit = Decimal(found[1]), found[2].upper()
    base = 1024 if "I" in unit else 1000
    power = "KMGTP".find(unit[0]) + 1 if unit else 2
    return int(number * base**power)
