"""The queue's file: opening it, its transactions, and its failures as sentences.

Everything that is SQLite's own stands in this file. One connection a process: the pool of one
is the line in which a process's threads wait for each other, and SQLite's lock the one in
which processes do; both waits are bounded by ``busy_s``. Writers begin IMMEDIATE, so that a
transaction that has begun can't fail for a lock half-way. In WAL mode readers never wait, and
the next process to open the file undoes what a killed one had begun.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool

from pilot.queue.schema import SCHEMA_VERSION, metadata, queue_schema
from transport.errors import OperatorError

BUSY_S = 10.0
"""How long to wait for another writer before giving up."""

_MEMORY = ":memory:"

_SENTENCES = {
    "SQLITE_NOTADB": "is not a queue: it is no SQLite file. Name another path, or move it away",
    "SQLITE_CORRUPT": "is damaged. Restore it from a copy, or move it away to begin a new queue",
    "SQLITE_CANTOPEN": "can't be opened. Check the permissions of the file and of its directory",
    "SQLITE_PERM": "can't be opened. Check the permissions of the file and of its directory",
    "SQLITE_READONLY": "can't be written. Check the permissions of the file and its directory",
    "SQLITE_BUSY": "was locked by another process for too long. Try again, or end that process",
    "SQLITE_LOCKED": "was locked by another process for too long. Try again, or end that process",
    "SQLITE_FULL": "has no room left on its disk. Free some, then try again",
    "SQLITE_IOERR": "can't be read or written. Check its disk and your quota there",
}
"""By the beginning of SQLite's error name; extended names have a suffix."""


class Database:
    """A queue's database, open; failures leave its transactions as `OperatorError`."""

    def __init__(self, engine: Engine, path: str) -> None:
        self.path = path
        self._engine = engine
        self._writing_engine = engine.execution_options(is_writer=True)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection that may write: all of it is kept, or none when the body raises."""
        with _explained(self.path), self._writing_engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one moment of the queue."""
        with _explained(self.path), self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close the connection; the next transaction would open it again."""
        self._engine.dispose()


def open_sqlite(path: Path, *, busy_s: float = BUSY_S) -> Database:
    """Open the queue in the file ``path``, made with its directory when there is none.

    New ones are for this user alone (0700, 0600). Raises `OperatorError` when the file can't
    be had or isn't a queue of a version that we know.
    """
    path = path.absolute()
    _make_file(path)
    database = Database(_engine(str(path), busy_s), str(path))
    try:
        _make_tables(database)
        with _explained(database.path):
            _use_wal(path, busy_s)
    except BaseException:
        database.close()
        raise
    return database


def open_memory() -> Database:
    """Open an empty queue that lives in this process and ends with it."""
    database = Database(_engine(_MEMORY, BUSY_S), _MEMORY)
    _make_tables(database)
    return database


# --- the file --------------------------------------------------------------------------------


def _make_file(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # An existing file isn't opened here: closing it would drop the locks that another
        # connection of this process holds on it.
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise OperatorError(
            f"the queue {path} can't be opened: {why}. Check its path and permissions"
        ) from error
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise OperatorError(f"the queue {path} is {kind}. Name a file")


def _connect(path: str, busy_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=busy_s, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA synchronous = FULL").close()
        connection.execute("PRAGMA foreign_keys = ON").close()
    except BaseException:
        connection.close()
        raise
    return connection


def _engine(path: str, busy_s: float) -> Engine:
    engine = create_engine(
        "sqlite://",
        creator=lambda: _connect(path, busy_s),
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=busy_s,
    )
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    is_writer = connection.get_execution_options().get("is_writer", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")


def _use_wal(path: Path, busy_s: float) -> None:
    """Turn the file to WAL for good; SQLite doesn't wait by itself for this one."""
    deadline = time.monotonic() + busy_s
    connection = _connect(str(path), busy_s)
    try:
        while _journal_mode(connection, "") != "wal":
            try:
                _journal_mode(connection, " = WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
    finally:
        connection.close()


def _journal_mode(connection: sqlite3.Connection, setting: str) -> str:
    return str(connection.execute("PRAGMA journal_mode" + setting).fetchone()[0])


# --- its version -----------------------------------------------------------------------------


def _make_tables(database: Database) -> None:
    with database.read() as connection:
        is_empty = _is_empty(connection, database.path)
    if not is_empty:
        return
    with database.write() as connection:
        if _is_empty(connection, database.path):  # no other process was quicker
            metadata.create_all(connection)
            connection.execute(insert(queue_schema).values(version=SCHEMA_VERSION))


def _is_empty(connection: Connection, path: str) -> bool:
    """Tell whether there are no tables yet; raise `OperatorError` when they aren't ours."""
    names = inspect(connection).get_table_names()
    if not names:
        return True
    if queue_schema.name not in names:
        raise OperatorError(
            f"the queue {path} is not a queue but another program's SQLite file. Name another path"
        )
    version = connection.scalar(select(queue_schema.c.version))
    if version != SCHEMA_VERSION:
        raise OperatorError(
            f"the queue {path} has version {version}, and this pilot knows {SCHEMA_VERSION}. "
            "Use the pilot that made it, or name another path"
        )
    return False


# --- its failures ----------------------------------------------------------------------------


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """Turn whatever a database raises into an `OperatorError` of one sentence."""
    try:
        yield
    except PoolTimeout as error:
        raise OperatorError(
            f"the queue {path} was in use by another thread for too long. Try again"
        ) from error
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise OperatorError(f"the queue {path} {_sentence(error)}") from error
    except (msgspec.MsgspecError, OverflowError, UnicodeError) as error:
        raise OperatorError(
            f"the queue {path} holds, or was given, what it can't take: {error}"
        ) from error


def _sentence(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    name = getattr(cause, "sqlite_errorname", "")
    for beginning, sentence in _SENTENCES.items():
        if name.startswith(beginning):
            return sentence
    return f"can't answer: {str(cause).splitlines()[0]}. Check the file, or name another path"
