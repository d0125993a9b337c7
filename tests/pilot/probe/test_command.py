"""`pilot probe` as a person and a survey see it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pilot.cli.probing import plain_report, probe_options, report_json, show_report
from pilot.containers.runtime import Reason, RuntimeKind
from pilot.probe.report import ImageLine, ImageStep, Report, make_report
from pilot.settings import Settings
from tests.pilot.probe.factories import conf, facts, failed, runtime
from tests.pilot.sandbox import script

IMAGE = ImageLine(
    image="/images/el9",
    works=True,
    runtime="/usr/bin/apptainer",
    how="without a PID namespace",
    on="/tmp",
    digest=None,
    steps=(
        ImageStep(
            runtime="/usr/bin/apptainer",
            how="with a PID namespace",
            on="/tmp",
            reason="no-pid-namespace",
            detail="it gave none",
        ),
    ),
    reasons=(),
)


def report(image: ImageLine | None = None, version: str = "apptainer version 1.4.5") -> Report:
    """Make a report of a node with something to say about everything."""
    found = facts(
        runtime(conf=conf("enable underlay = no"), version=version),
        failed(Reason.NO_ANSWER, "no answer in 4 s", path="/opt/bin/singularity"),
        missing=("CVMFS: no answer in 4 s",),
        cpu={"model name": "Fast", "flags": "fpu"},
    )
    return make_report(found, node="wn1", site="CERN", at=5.0, seconds=1.23456, image=image)


def shown(what: Report) -> str:
    """Return what a person sees, in a wide terminal without colours."""
    console = Console(file=(out := io.StringIO()), width=250, highlight=False)
    show_report(what, console)
    return out.getvalue()


def test_the_json_is_one_object_with_the_contracts_keys() -> None:
    """A survey reads these; `class` is its real name."""
    told = json.loads(json.dumps(report_json(report(IMAGE))))

    assert list(told) == [
        "schema",
        "node",
        "site",
        "at",
        "seconds",
        "class",
        "reasons",
        "advice",
        "runtimes",
        "keys",
        "missing",
        "image",
    ]
    assert told["schema"] == "pilot-probe/1"
    assert told["class"] == "underlay-disabled"
    assert (told["node"], told["site"], told["at"], told["seconds"]) == ("wn1", "CERN", 5.0, 1.235)
    assert told["advice"][0]["code"] == "enable-underlay"
    assert told["advice"][0]["where"].endswith("apptainer.conf line 1")
    assert told["keys"]["CPU_flags"] == "fpu"
    assert told["image"]["steps"][0]["reason"] == "no-pid-namespace"


def test_each_runtime_is_told_with_why_it_does_not_work() -> None:
    """A code, and what is behind it."""
    works, broken = json.loads(json.dumps(report_json(report())))["runtimes"]

    assert (works["name"], works["works"], works["reason"]) == ("apptainer", True, "")
    assert (works["underlay"], works["overlay"]) == (False, True)
    assert (broken["works"], broken["reason"]) == (False, "no-answer")
    assert broken["detail"] == "no answer in 4 s"
    assert works.keys() == broken.keys()


def test_a_runtime_that_was_not_seen_says_so() -> None:
    """Neither true nor false."""
    told = make_report(
        facts(runtime(works=None)), node="", site="", at=0, seconds=0, image=None
    ).runtimes[0]

    assert (told.works, told.reason) == (None, "not-seen")


@pytest.mark.parametrize("text", ["table", "lines"])
def test_a_person_sees_class_reasons_advice_runtimes_and_keys(text: str) -> None:
    """In this order, with or without a terminal; the long families are left to the JSON."""
    what = report(IMAGE)
    told = shown(what) if text == "table" else "\n".join(plain_report(what))

    places = [
        told.index(part)
        for part in (
            "underlay-disabled",
            "underlay is disabled: missing mount points",
            "Not found out: CVMFS: no answer in 4 s.",
            "In /etc/apptainer/apptainer.conf line 1, set 'enable underlay = yes'",
            "[no-pid-namespace] it gave none",
            "/images/el9 works with /usr/bin/apptainer without a PID namespace",
            "SINGULARITY_LOCAL_SUPPORTED",
            "unknown",
            "CPU_model_name",
        )
    ]
    assert places == sorted(places)
    assert "CPU_flags" not in told


def test_what_a_runtime_says_cannot_move_the_cursor() -> None:
    """Nor does markup in it mean anything."""
    what = report(version="1.0 \x1b[2J[bold]x")

    assert "\x1b" not in shown(what)
    assert "[bold]x" in shown(what)


def test_an_image_that_does_not_work_says_why() -> None:
    """By its steps, or, where nothing could be tried, by its reasons."""
    line = ImageLine(
        image="/x", works=False, runtime=None, how=None, on=None, digest=None, steps=(),
        reasons=("There is no such image.",),
    )  # fmt: skip
    told = list(plain_report(report(line)))

    assert "image: /x doesn't work here; a job would run bare" in told
    assert "image: There is no such image." in told


def test_settings_say_what_is_probed(tmp_path: Path) -> None:
    """A state directory that isn't there is not made for a probe."""
    settings = Settings(
        state=str(tmp_path / "none"),
        node="n",
        site="s",
        runtimes="singularity,bare",
        binds="/a, /b",
    )
    options = probe_options(settings, {"TMPDIR": "/scratch"}, image="/i", runtime_config="x.conf")

    assert (options.node, options.site, options.image) == ("n", "s", "/i")
    assert options.bundle_place == ""
    assert options.places[:2] == (str(tmp_path / "none"), "/scratch")
    assert options.runtimes == (RuntimeKind.SINGULARITY,)
    assert options.runtime_arguments == ("-c", str(Path.cwd() / "x.conf"))
    assert options.binds == ("/a", "/b")


def test_a_bundle_is_kept_where_an_agent_keeps_it(tmp_path: Path) -> None:
    """In a state directory that is there; a published one is named by the settings."""
    options = probe_options(Settings(state=str(tmp_path), bundle="/cvmfs/b"), {})

    assert options.bundle_place == str(tmp_path)
    assert options.published == "/cvmfs/b"


# --- for real --------------------------------------------------------------------------------


def run_probe(*arguments: str, cwd: Path, path: str) -> subprocess.CompletedProcess[str]:
    """Run `pilot probe` as it is run."""
    root = Path(__file__).parents[3]
    places = os.pathsep.join([str(root), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "pilot", "probe", *arguments],
        cwd=cwd,
        env={**os.environ, "PATH": path, "PYTHONPATH": places, "TMPDIR": str(cwd)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.real
def test_the_exit_code_is_0_whatever_the_class(tmp_path: Path) -> None:
    """Nothing is left in the directory where it ran."""
    done = run_probe("--json", cwd=tmp_path, path=str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["class"] == "none"
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
def test_a_running_agent_in_the_same_state_directory_is_not_disturbed(tmp_path: Path) -> None:
    """Its files stay as they are; the bundle alone is shared."""
    state = tmp_path / "state"
    agents = {state / "queue.sqlite", state / "checks" / "check-1" / "nonce", state / "agent.log"}
    for file in agents:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("the agent's")
    (bin_directory := tmp_path / "bin").mkdir()
    script(bin_directory / "apptainer", "exit 1")

    done = run_probe("--state", str(state), "--json", cwd=tmp_path, path=str(bin_directory))

    left = {file for file in state.rglob("*") if file.is_file()}
    assert done.returncode == 0, done.stderr
    assert all(file.read_text() == "the agent's" for file in agents)
    assert {file.relative_to(state).parts[0].partition("-")[0] for file in left - agents} == {
        "bundle",
        "bundle.lock",
    }


@pytest.mark.real
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--settings", "nowhere.toml"], "nowhere.toml"),
        (["--runtime-config", "nowhere.conf"], "nowhere.conf"),
        (["--image", "bad\nname"], "bad"),
    ],
)
def test_a_mistake_in_what_was_given_is_named(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    """A flag's is a 2; an image's is part of the report."""
    done = run_probe(*arguments, cwd=tmp_path, path=str(tmp_path))

    is_image = arguments[0] == "--image"
    assert done.returncode == (0 if is_image else 2)
    assert said in (done.stdout if is_image else done.stderr)
    assert "Traceback" not in done.stderr
