"""Bad input: one clear sentence, an exit code, never a traceback."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pilot.pilot_run import pilot, pilot_environment

pytestmark = pytest.mark.real

GOOD = 'Executable = "/bin/true";'


def assert_sentence(outcome: tuple[int, str, str], code: int, *words: str) -> None:
    """Assert that a command failed with this code and told a person why."""
    got, stdout, stderr = outcome
    said = stdout + stderr

    assert got == code, said
    assert "Traceback" not in said
    for word in words:
        assert word in said


def write(path: Path, text: str) -> str:
    """Write a file; return its path."""
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('Executable = "/bin/true"\nArguments = ', ("bad.jdl:", "Executable")),
        ('Arguments = "x";', ("bad.jdl", "Executable")),
        ('Executable = "/bin/true;', ("bad.jdl:1:", "never closed")),
        ('Executable = "/bin/true"; TTL = "soon";', ("bad.jdl:1:", "TTL")),
        ('Executable = "/bin/true"; Memorysize = "8 parsecs";', ("bad.jdl:1:", "Memorysize")),
        ('Executable = "/bin/true"; InputFile = "LF:/alice/x";', ("InputFile", "catalogue")),
        ("", ("bad.jdl", "Executable")),
    ],
)
def test_a_bad_jdl_is_named_with_its_place(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    """Where, which key, what is wrong; and nothing was submitted."""
    bad, good = write(tmp_path / "bad.jdl", text), write(tmp_path / "good.jdl", GOOD)
    state = tmp_path / "state"

    assert_sentence(pilot("run", good, bad, "--state", str(state)), 2, *words)
    assert not (state / "queue.sqlite").exists()


def test_every_bad_jdl_is_named_at_once(tmp_path: Path) -> None:
    """A person mends them all in one go."""
    first, second = write(tmp_path / "a.jdl", "x"), write(tmp_path / "b.jdl", "y")

    outcome = pilot("submit", first, second, "--state", str(tmp_path / "state"))
    assert_sentence(outcome, 2, "a.jdl:1", "b.jdl:1")


def test_a_jdl_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, a directory, or no text."""
    binary = tmp_path / "binary.jdl"
    binary.write_bytes(b"\xff\xfe\x00")
    for path, why in (
        (tmp_path / "absent.jdl", "No such file"),
        (tmp_path, "directory"),
        (binary, "UTF-8"),
    ):
        outcome = pilot("run", str(path), "--state", str(tmp_path / "state"))
        assert_sentence(outcome, 2, str(path), why)


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--colour", "red"),
        ("run", "--container", "maybe"),
        ("run", "--cores", "many"),
        ("run", "--cores", "-1"),
        ("run", "--log-level", "loud"),
        ("show", "one"),
        ("dance",),
    ],
)
def test_a_wrong_flag_is_a_usage_error(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Exit code 2."""
    environment = {"PILOT_STATE": str(tmp_path / "state")}

    outcome = pilot(*arguments, environment=environment)
    assert_sentence(outcome, 2)
    assert len(outcome[2].strip().splitlines()) < 12


@pytest.mark.parametrize("command", ["jobs", "show", "logs", "kill"])
def test_a_state_directory_without_a_queue_is_not_made(tmp_path: Path, command: str) -> None:
    """A mistyped --state is told, not turned into a new directory."""
    state = tmp_path / "mistyped"
    arguments = [command] if command == "jobs" else [command, "1"]

    assert_sentence(pilot(*arguments, "--state", str(state)), 2, "no queue", str(state))
    assert not state.exists()


def test_an_unknown_job_is_named(tmp_path: Path) -> None:
    """By each command that takes a number."""
    state = str(tmp_path / "state")
    pilot("submit", write(tmp_path / "good.jdl", GOOD), "--state", state)
    for command in ("show", "logs", "kill"):
        assert_sentence(pilot(command, "77", "--state", state), 2, "77")


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"\0" * 4096])
def test_a_queue_file_that_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    """The pilot couldn't work: 3; and the file is left as it was."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "queue.sqlite").write_bytes(content)
    jdl = write(tmp_path / "good.jdl", GOOD)
    for arguments in (("run", jdl), ("submit", jdl), ("jobs",)):
        assert_sentence(pilot(*arguments, "--state", str(state)), 3, "queue.sqlite")
    assert (state / "queue.sqlite").read_bytes() == content


def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    """SQLite, but not ours."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    with sqlite3.connect(state / "queue.sqlite") as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()

    assert_sentence(pilot("jobs", "--state", str(state)), 3, "queue.sqlite")


def test_a_state_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    """The pilot couldn't work: 3."""
    state = write(tmp_path / "state", "a file")
    jdl = write(tmp_path / "good.jdl", GOOD)

    assert_sentence(pilot("run", jdl, "--state", state), 3, state)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_state_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The pilot couldn't work: 3."""
    parent = tmp_path / "closed"
    parent.mkdir(mode=0o500)
    jdl = write(tmp_path / "good.jdl", GOOD)

    assert_sentence(pilot("run", jdl, "--state", str(parent / "state")), 3, "closed")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_under_our_output_is_a_sentence(tmp_path: Path) -> None:
    """What can't be printed is told where it can."""
    state = str(tmp_path / "state")
    pilot("submit", write(tmp_path / "good.jdl", GOOD), "--state", state)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pilot", "jobs", "--state", state],
            env=pilot_environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert done.returncode == 3
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_required_image_that_is_missing_is_named(tmp_path: Path) -> None:
    """Given as a flag it is a usage error; named by a job, that job's ERROR_A."""
    jdl = write(tmp_path / "good.jdl", GOOD)
    state, image = str(tmp_path / "state"), str(tmp_path / "image.sif")
    flags = ("--state", state, "--container", "require", "--image", image)
    assert_sentence(pilot("run", jdl, *flags), 2, image)

    named = write(tmp_path / "named.jdl", f'{GOOD} ContainerImage = "{image}";')
    outcome = pilot("run", named, "--state", state, "--container", "require")
    assert_sentence(outcome, 1, "ERROR_A", image)


def test_a_job_that_no_node_like_this_can_run_is_told(tmp_path: Path) -> None:
    """Instead of waiting for ever."""
    jdl = write(tmp_path / "big.jdl", 'Executable = "/bin/true"; CPUCores = 512;')

    outcome = pilot("run", jdl, "--state", str(tmp_path / "state"))
    assert_sentence(outcome, 1, "512 cores", "stay in the queue")


def test_every_step_of_a_job_is_a_line(tmp_path: Path) -> None:
    """However fast it went: the lines are the queue's history, in its order."""
    jdl = write(tmp_path / "quick.jdl", 'Executable = "/bin/true";')

    code, out, _ = pilot("run", jdl, "--state", str(tmp_path / "state"))
    steps = ["WAITING", "ASSIGNED", "STARTED", "RUNNING", "SAVING", "DONE"]
    assert code == 0
    assert [line.split()[4] for line in out.splitlines()] == steps
    assert "exit 0" in out.splitlines()[-1]


def test_a_payload_that_ends_at_once_is_still_shown(tmp_path: Path) -> None:
    """Nobody had the time to look for it; where it ran is known all the same.

    In a PID namespace of its own, only its PID in there is.
    """
    jdl = write(tmp_path / "quick.jdl", 'Executable = "/bin/true";')
    state = str(tmp_path / "state")
    pilot("run", jdl, "--state", state, environment={"PILOT_BARE_CONFINEMENT": "never"})

    _, out, _ = pilot("show", "1", "--json", "--state", state)
    payloads = [line for line in json.loads(out)["processes"] if line["role"] == "payload"]
    assert len(payloads) == 1
    assert payloads[0]["host_pid"] == payloads[0]["pid"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("cores = 'two'", "write a whole number"),
        ("container = 'maybe'", "write require or prefer or never"),
        ("catalogue = 'here'", "a table of lines"),
        ("runtimes = 'aptainer'", "no container runtime 'aptainer'"),
        ("binds = 'cvmfs'", "not an absolute path"),
        ("image = '/x'\nimage_digest = 'sha256:1'", "64 hexadecimal digits"),
        (f"image_digest = 'sha256:{'0' * 64}'", "without image"),
        ("colour = 1", "colour"),
        ("= 3", "TOML"),
        ("lease_s=0", "lease_s"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, text: str, word: str) -> None:
    """With the file that they are in."""
    settings = write(tmp_path / "pilot.toml", text)

    assert_sentence(pilot("settings", "--settings", settings), 2, word, "pilot.toml")
