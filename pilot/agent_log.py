"""The agent's log: structlog, event first, facts as key-values, to a file or to stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import structlog

from actors.reporter import JobLog
from pilot.printable import printable
from transport.errors import OperatorError


class AgentLog:
    """Where the agent and its work units write; the level applies to all."""

    def __init__(self, level: str, form: str, stream: TextIO) -> None:
        renderer: structlog.typing.Processor = (
            structlog.processors.JSONRenderer(sort_keys=True)
            if form == "json"
            else structlog.dev.ConsoleRenderer(colors=stream.isatty())
        )
        self._logger = structlog.wrap_logger(
            structlog.PrintLogger(stream),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                renderer,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(
                logging.getLevelNamesMapping()[level.upper()]
            ),
        )

    @classmethod
    def open(cls, level: str, form: str, file: str) -> AgentLog:
        """Write to ``file``, or to stderr where it is "-"; 0600, appended to."""
        if file == "-":
            return cls(level, form, sys.stderr)
        try:
            Path(file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = open(file, "a", buffering=1, opener=_private)  # noqa: SIM115 - kept open
        except OSError as error:
            raise OperatorError(f"The log {file} can't be written: {error.strerror}.") from error
        return cls(level, form, descriptor)

    def agent(self) -> Callable[[str, str], None]:
        """Return the agent's own log."""
        logger = self._logger.bind(actor="agent")
        return lambda level, text: logger.log(_number(level), text)

    def job(self, job_id: int, attempt: int) -> JobLog:
        """Return the log of one attempt."""
        logger = self._logger.bind(actor="job", job=job_id, attempt=attempt)

        def write(level: str, text: str, at: float | None) -> None:
            facts = {} if at is None else {"at": round(at, 3)}
            logger.log(_number(level), printable(text), **facts)

        return write

    def crash(self, path: str, error: Exception) -> None:
        """Write that an actor crashed, with where."""
        self._logger.error("actor crashed", path=path, exc_info=error)


def _number(level: str) -> int:
    return logging.getLevelNamesMapping().get(level.upper(), logging.INFO)


def _private(path: str, flags: int) -> int:
    import os

    return os.open(path, flags | os.O_CLOEXEC, 0o600)
