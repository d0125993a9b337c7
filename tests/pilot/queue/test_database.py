from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from pilot.queue import QueueStore
from pilot.queue.database import Database, open_sqlite
from tests.pilot.queue.factories import make_description, make_slot, submit
from transport.errors import OperatorError

NOBODY = 65534


@contextmanager
def not_root() -> Iterator[None]:
    """Do without root's rights for a while; nothing to do for who isn't root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Give the path of a queue that isn't there yet."""
    return tmp_path / "pilot" / "queue.db"


def mode(path: Path) -> int:
    """Return the permission bits."""
    return path.stat().st_mode & 0o777


def test_file_and_directory_are_for_the_user_alone(path: Path) -> None:
    """0700 and 0600, also for what SQLite puts beside."""
    with QueueStore.open(path) as store:
        submit(store)

        assert mode(path.parent) == 0o700
        assert {mode(file) for file in path.parent.iterdir()} == {0o600}
        assert {file.name for file in path.parent.iterdir()} >= {"queue.db", "queue.db-wal"}


def test_queue_outlives_its_process(path: Path) -> None:
    """What was submitted is there when the file is opened again."""
    with QueueStore.open(path) as store:
        job_id = submit(store, name="anna")
    with QueueStore.open(path) as store:
        assert store.job(job_id).name == "anna"


def write_and_fail(database: Database) -> None:
    """Write a line, and then change one's mind."""
    with database.write() as connection:
        connection.exec_driver_sql("INSERT INTO draining_nodes VALUES ('n', '', 0)")
        raise ZeroDivisionError


def test_body_that_raises_leaves_nothing(path: Path) -> None:
    """A transaction is kept whole or not at all."""
    database = open_sqlite(path)
    with pytest.raises(ZeroDivisionError):
        write_and_fail(database)
    with database.read() as connection:
        left = connection.exec_driver_sql("SELECT count(*) FROM draining_nodes").scalar()
    database.close()

    assert left == 0


def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    """And it is left as it was."""
    path = tmp_path / "notes.txt"
    path.write_text("x" * 4096)

    with pytest.raises(OperatorError, match=r"notes\.txt is not a queue: it is no SQLite file"):
        QueueStore.open(path)
    assert path.read_text() == "x" * 4096


def test_database_of_another_program_is_refused(tmp_path: Path) -> None:
    """No table of ours is put into it."""
    path = tmp_path / "browser.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE bookmarks (url)")

    with pytest.raises(OperatorError, match="another program's SQLite file"):
        QueueStore.open(path)


def test_newer_version_is_refused(path: Path) -> None:
    """An older pilot doesn't touch what it doesn't know."""
    QueueStore.open(path).close()
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE queue_schema SET version = 99")

    with pytest.raises(OperatorError, match="has version 99, and this pilot knows 2"):
        QueueStore.open(path)


def test_directory_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """The sentence says that it is one."""
    with pytest.raises(OperatorError, match="is a directory"):
        QueueStore.open(tmp_path)


def test_pipe_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    """Nothing hangs on it."""
    os.mkfifo(tmp_path / "queue.db")

    with pytest.raises(OperatorError, match="not a regular file"):
        QueueStore.open(tmp_path / "queue.db")


@pytest.mark.parametrize("name", ["/proc/none/queue.db", "/dev/null/queue.db", "a\0b"])
def test_place_that_takes_no_file_is_refused(name: str) -> None:
    """Whatever the system says against the path, it is one sentence."""
    with pytest.raises(OperatorError, match="can't be opened"):
        QueueStore.open(Path(name))


def test_unreadable_file_is_refused() -> None:
    """The file of another user, in a directory that anybody may enter."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "queue.db")
        QueueStore.open(path).close()
        path.parent.chmod(0o755)
        path.chmod(0o000)

        with not_root(), pytest.raises(OperatorError, match=r"queue\.db can't be opened"):
            QueueStore.open(path)


def test_read_only_file_is_refused_at_the_first_write() -> None:
    """It may be looked at, where SQLite can, but not changed."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "queue.db")
        QueueStore.open(path).close()
        path.parent.chmod(0o755)
        path.chmod(0o444)

        with not_root(), pytest.raises(OperatorError, match=r"can't be (written|opened)"):
            use(path)


def use(path: Path) -> None:
    """Open, write, close."""
    with QueueStore.open(path) as store:
        submit(store)


def make_full(database: Database) -> None:
    """Let the file grow no more: what a full disk does to SQLite."""
    with database.read() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")


def test_full_disk_is_a_sentence_and_leaves_the_queue_usable(path: Path) -> None:
    """The job that found no room isn't there; the others are."""
    database = open_sqlite(path)
    with QueueStore(database) as store:
        submit(store)
        make_full(database)

        with pytest.raises(OperatorError, match="no room left on its disk"):
            store.submit(make_description(), "large.jdl", "x" * 1_000_000, 0.0)
        assert store.match(make_slot(), 1.0) is not None


def test_lock_held_too_long_is_a_sentence(path: Path) -> None:
    """Reading still works meanwhile."""
    QueueStore.open(path).close()
    with (
        closing(sqlite3.connect(path, isolation_level=None)) as other,
        QueueStore(open_sqlite(path, busy_s=0.05)) as store,
    ):
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(OperatorError, match="locked by another process for too long"):
            submit(store)
        assert store.jobs() == []
        other.execute("ROLLBACK")
        submit(store)


def test_connection_in_use_too_long_is_a_sentence(path: Path) -> None:
    """Threads of one process wait for each other no longer than processes do."""
    database = open_sqlite(path, busy_s=0.05)
    with (
        QueueStore(database) as store,
        database.read(),
        pytest.raises(OperatorError, match="in use by another thread"),
    ):
        store.jobs()


def test_damaged_record_is_a_sentence(path: Path) -> None:
    """What can't be decoded names the file, not a traceback."""
    with QueueStore.open(path) as store:
        job_id = submit(store)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE jobs SET description = '{'")

        with pytest.raises(OperatorError, match="can't take"):
            store.job(job_id)


def test_damaged_file_is_a_sentence(path: Path) -> None:
    """Pages of noise are told as damage."""
    with QueueStore.open(path) as store:
        for _ in range(50):
            submit(store)
    noise = b"\xa5" * (path.stat().st_size - 4096)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(noise)

    with pytest.raises(OperatorError, match="is damaged"), QueueStore.open(path) as store:
        store.jobs()


def test_failure_without_a_name_of_its_own_is_told(path: Path) -> None:
    """What SQLite says is in the sentence."""
    database = open_sqlite(path)
    with pytest.raises(OperatorError, match="no such table: missing"), database.read() as reader:
        reader.exec_driver_sql("SELECT * FROM missing")
    database.close()
