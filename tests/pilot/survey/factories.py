"""Probe reports, made in a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pilot.survey import PROBE_SCHEMA, Found, Survey


def report(**fields: Any) -> dict[str, Any]:
    """Return a report; ``class`` is given as ``class_``."""
    made = {
        "schema": PROBE_SCHEMA,
        "node": "wn1",
        "site": "CERN",
        "at": 1000.0,
        "seconds": 1.0,
        "class": fields.pop("class_", "fully-compatible"),
        "reasons": [],
        "advice": [],
        "runtimes": [],
        "keys": {},
    }
    return {**made, **fields}


def line(**fields: Any) -> bytes:
    """Return a report as a line of JSON."""
    return json.dumps(report(**fields)).encode() + b"\n"


def found(fields: dict[str, Any], number: int = 1) -> Found:
    """Return a report as it is found in a file."""
    return Found("reports.jsonl", number, json.dumps(fields).encode())


def surveyed(*reports: dict[str, Any]) -> Survey:
    """Return a survey of these reports."""
    survey = Survey()
    for number, each in enumerate(reports, 1):
        survey.take(found(each, number))
    return survey


def write(path: Path, content: bytes) -> str:
    """Write a file; return its path."""
    path.write_bytes(content)
    return str(path)
