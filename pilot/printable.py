"""Text that came from a job, made fit for a log line and a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return text that came from a job without what would forge a line or move a cursor."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
