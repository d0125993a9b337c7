from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pilot.pilot_run import ROOT, pilot, pilot_environment
from tests.pilot.survey.factories import line, write
from tests.pilot.survey.hostile import HOSTILE

pytestmark = pytest.mark.real


def grid(directory: Path) -> str:
    """Write some reports of 30 sites; return the directory."""
    content = b"".join(
        line(site=f"S{n % 30:02}", node=f"n{n}", class_=("fully-compatible", "none")[n % 2])
        for n in range(90)
    )
    write(directory / "grid.jsonl", content)
    return str(directory)


def test_a_person_gets_a_summary_and_tables(tmp_path: Path) -> None:
    """The biggest sites; all of them on request."""
    code, stdout, stderr = pilot("survey", grid(tmp_path))
    everything = pilot("survey", str(tmp_path), "--all")[1]

    assert (code, stderr) == (0, "")
    assert stdout.startswith("90 nodes at 30 sites, from 90 reports.\n")
    assert "10 smaller sites (--all)" in stdout
    assert "S29" not in stdout
    assert "S29" in everything


def test_a_program_gets_one_object(tmp_path: Path) -> None:
    """On one line, of ASCII."""
    code, stdout, stderr = pilot("survey", grid(tmp_path), "--json")

    assert (code, stderr) == (0, "")
    assert stdout.isascii()
    assert stdout.count("\n") == 1
    assert json.loads(stdout)["overall"]["classes"]["none"] == {"count": 45, "percent": 50.0}


def test_a_spreadsheet_gets_a_line_a_site(tmp_path: Path) -> None:
    """And a heading."""
    code, stdout, _ = pilot("survey", grid(tmp_path), "--csv")

    assert code == 0
    assert len(stdout.splitlines()) == 31


def test_reports_come_through_a_pipe_too() -> None:
    """``-`` is stdin, beside files."""
    done = subprocess.run(
        [sys.executable, "-m", "pilot", "survey", "-", "--json"],
        input=line(node="a") + line(node="b"),
        env=pilot_environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["overall"]["nodes"] == 2


def test_broken_reports_are_named_and_the_others_counted(tmp_path: Path) -> None:
    """On stderr, with file and line; the exit code says that there is a survey."""
    path = write(tmp_path / "r.jsonl", b"garbage\n" + line() + line(schema="old/0"))
    code, stdout, stderr = pilot("survey", path, str(tmp_path / "absent"), "--json")

    assert code == 0
    assert json.loads(stdout)["broken"]["count"] == 3
    assert "3 reports or files not counted:" in stderr
    assert f"{path}:1: it isn't JSON" in stderr
    assert f"{path}:3: its schema is 'old/0'; pilot-probe/1 is read" in stderr
    assert f"{tmp_path / 'absent'}: it can't be read: No such file" in stderr


@pytest.mark.parametrize("content", [b"", b"garbage\n", b"[]", None])
def test_without_a_usable_report_there_is_no_survey(tmp_path: Path, content: bytes | None) -> None:
    """Exit code 2, a sentence, and no page."""
    if content is not None:
        write(tmp_path / "r.json", content)
    page = tmp_path / "page.html"
    code, stdout, stderr = pilot("survey", str(tmp_path), "--html", str(page))

    assert (code, stdout) == (2, "")
    assert str(tmp_path) in stderr
    assert stderr.count("\n") == 1
    assert "Traceback" not in stderr
    assert not page.exists()


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    """Beside the table; readable for whom the umask says; the old one is replaced."""
    page = tmp_path / "page.html"
    page.write_text("old")
    code, stdout, stderr = pilot("survey", grid(tmp_path), "--html", str(page))

    assert (code, stderr) == (0, "")
    assert stdout.startswith("90 nodes")
    assert page.read_text().endswith("</html>\n")
    assert page.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.jsonl", "page.html"]


def test_a_page_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """The directory isn't there, or a directory is in its place."""
    for page in (tmp_path / "absent" / "page.html", tmp_path):
        code, _, stderr = pilot("survey", grid(tmp_path), "--html", str(page))

        assert code == 3
        assert f"{page} can't be written" in stderr


def test_without_the_plotting_library_there_is_a_sentence(tmp_path: Path) -> None:
    """Exit code 3; everything else works without it."""
    hidden = tmp_path / "hidden"
    (hidden / "matplotlib").mkdir(parents=True)
    write(hidden / "matplotlib" / "__init__.py", b"raise ImportError('it is hidden')")
    environment = {"PYTHONPATH": f"{hidden}{os.pathsep}{ROOT}"}
    page = tmp_path / "page.html"
    code, stdout, stderr = pilot(
        "survey", grid(tmp_path), "--html", str(page), environment=environment
    )

    assert (code, stdout) == (3, "")
    assert "matplotlib" in stderr
    assert "two-layer-pilot[plot]" in stderr
    assert stderr.count("\n") == 1
    assert not page.exists()
    assert pilot("survey", str(tmp_path), environment=environment)[0] == 0


def test_hostile_names_leave_the_terminal_alone(tmp_path: Path) -> None:
    """No control characters, no colours of their own, no links."""
    content = b"".join(
        line(site=text, node=str(n), keys={text[:60]: text}, advice=[{"code": text[:60]}])
        for n, text in enumerate(HOSTILE)
    )
    write(tmp_path / "r.jsonl", content)
    code, stdout, stderr = pilot("survey", str(tmp_path), "--all")

    assert (code, stderr) == (0, "")
    assert "[red]rich[/red]" in stdout
    assert all(char.isprintable() or char == "\n" for char in stdout)


@pytest.mark.parametrize("flags", [("--json", "--csv"), ("--jsno",), ("--html",)])
def test_wrong_flags_are_told(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Exit code 2."""
    code, _, stderr = pilot("survey", grid(tmp_path), *flags)

    assert code == 2
    assert flags[0] in stderr
    assert "Traceback" not in stderr


def _umask() -> int:
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
