"""Several threads, processes and sudden deaths over one file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import pilot.queue
from pilot.queue import QueueStore
from tests.pilot.queue.factories import S, make_slot, submit

ROOT = Path(pilot.queue.__file__).parents[2]

CLAIM_ALL = """
import sys
from pathlib import Path
from pilot.queue import QueueStore
from tests.pilot.queue.factories import make_slot

with QueueStore.open(Path(sys.argv[1])) as store:
    while (match := store.match(make_slot(sys.argv[2]), now=1.0)) is not None:
        print(match.job_id)
"""

SUBMIT = """
import sys
from pathlib import Path
from pilot.queue import QueueStore
from tests.pilot.queue.factories import submit

with QueueStore.open(Path(sys.argv[1])) as store:
    for _ in range(10):
        submit(store)
"""

DIE_HALF_WAY = """
import sys, time
from pathlib import Path
from pilot.queue.database import open_sqlite

database = open_sqlite(Path(sys.argv[1]))
with database.write() as connection:
    connection.exec_driver_sql("UPDATE jobs SET status = 'DONE'")
    print("written", flush=True)
    time.sleep(60)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start a Python process over this tree."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)


def finish(process: subprocess.Popen[str]) -> list[int]:
    """Return the numbers that a process printed; it must end well."""
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return [int(line) for line in output.split()]


def claim_all(path: Path, node: str) -> list[int]:
    """Claim what there is, through a connection of its own."""
    claimed = []
    with QueueStore.open(path) as store:
        while (match := store.match(make_slot(node), now=1.0)) is not None:
            claimed.append(match.job_id)
    return claimed


def test_threads_never_claim_a_job_twice(tmp_path: Path) -> None:
    """Four threads with a connection each share 200 jobs."""
    path = tmp_path / "queue.db"
    with QueueStore.open(path) as store:
        ids = [submit(store) for _ in range(200)]
    with ThreadPoolExecutor(4) as pool:
        claims = list(pool.map(claim_all, [path] * 4, ["a", "b", "c", "d"]))

    assert sorted(job_id for claim in claims for job_id in claim) == ids


@pytest.mark.real
def test_processes_never_claim_a_job_twice(tmp_path: Path) -> None:
    """Four processes share 200 jobs."""
    path = tmp_path / "queue.db"
    with QueueStore.open(path) as store:
        ids = [submit(store) for _ in range(200)]
    processes = [start(CLAIM_ALL, path, node) for node in "abcd"]
    claims = [finish(process) for process in processes]

    assert sorted(job_id for claim in claims for job_id in claim) == ids
    with QueueStore.open(path) as store:
        assert store.counts() == {S.ASSIGNED: 200}


@pytest.mark.real
def test_processes_make_the_same_new_file_at_once(tmp_path: Path) -> None:
    """Whoever comes first makes the tables; the others find them."""
    path = tmp_path / "queue.db"
    for process in [start(SUBMIT, path) for _ in range(3)]:
        finish(process)

    with QueueStore.open(path) as store:
        assert store.counts() == {S.WAITING: 30}


@pytest.mark.real
def test_kill_in_mid_transaction_leaves_a_usable_file(tmp_path: Path) -> None:
    """What the dead process had begun never was, and its lock is gone."""
    path = tmp_path / "queue.db"
    with QueueStore.open(path) as store:
        ids = [submit(store) for _ in range(50)]
    process = start(DIE_HALF_WAY, path)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)

    with QueueStore.open(path) as store:
        assert store.counts() == {S.WAITING: 50}
        assert store.match(make_slot(), now=1.0) is not None
        assert submit(store) == ids[-1] + 1
