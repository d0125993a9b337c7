"""Probes of this very machine: as it is, as other sites are set up, and with what is broken."""

from __future__ import annotations

import errno
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pilot.clock import SystemClock
from pilot.containers.runtime import RuntimeKind
from pilot.probe import NodeClass, Probe, ProbeOptions, Report
from pilot.probe import probe as probe_module
from pilot.probe import workshop as workshop_module
from tests.pilot.probe.hung import hung_directory
from tests.pilot.sandbox import (
    APPTAINER_CONF,
    make_image,
    needs_apptainer,
    public_directory,
    script,
)
from transport.errors import OperatorError

pytestmark = pytest.mark.real
PATIENT_S = 90.0
"""For probes of what works, on however busy a machine: they end when they are done."""
FULL, NO_UNDERLAY = NodeClass.FULLY_COMPATIBLE, NodeClass.UNDERLAY_DISABLED


@pytest.fixture(scope="module")
def bundles() -> Iterator[Path]:
    """Give a directory in which the wrapper's bundle is made once for all of these tests."""
    with public_directory() as directory:
        yield directory


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory with a short path, to work in."""
    with public_directory() as directory:
        yield directory


async def probed(place: Path, bundles: Path, path: str | None = None, **options: object) -> Report:
    """Probe this machine, in a directory of the test's; nothing may be left in there."""
    host = {**os.environ, "PATH": os.environ["PATH"] if path is None else path}
    (workplace := place / "work").mkdir(exist_ok=True)
    wanted = {
        "deadline_s": PATIENT_S,
        "cvmfs": str(place / "cvmfs"),
        "places": (str(workplace),),
        "runtimes": (RuntimeKind.APPTAINER, RuntimeKind.SINGULARITY),
        **options,
    }
    numbers = itertools.count()
    report = await Probe(
        ProbeOptions(
            node="wn1",
            site="Here",
            host=host,
            bundle_place=str(bundles),
            **wanted,  # type: ignore[arg-type]
        ),
        clock=SystemClock(),
        make_nonce=lambda: f"nonce{next(numbers)}",
    ).run()
    assert list(workplace.iterdir()) == []
    return report


def site_conf(place: Path, changes: Mapping[str, str]) -> tuple[Path, dict[str, int]]:
    """Write the configuration of a site with these settings; return it, and their lines."""
    text, lines = APPTAINER_CONF.read_text(), {}
    for name, value in changes.items():
        text, count = re.subn(f"(?m)^{name} = .*$", f"{name} = {value}", text)
        assert count == 1, name
        lines[name] = text.split("\n").index(f"{name} = {value}") + 1
    (conf := place / "apptainer.conf").write_text(text)
    return conf, lines


@needs_apptainer
@pytest.mark.parametrize(
    ("changes", "expected", "advised"),
    [
        ({}, FULL, {}),
        ({"enable overlay": "no"}, FULL, {}),
        ({"enable underlay": "no"}, NO_UNDERLAY, {"enable-underlay": "enable underlay"}),
        (
            {"enable underlay": "no", "enable overlay": "no"},
            NO_UNDERLAY,
            {"enable-underlay": "enable underlay"},
        ),
        ({"allow pid ns": "no"}, FULL, {"allow-pid-ns": "allow pid ns"}),
        (
            {"user bind control": "no"},
            NodeClass.NONE,
            {"user-bind-control": "user bind control"},
        ),
        (
            {"user bind control": "no", "enable underlay": "no"},
            NodeClass.NONE,
            {"enable-underlay": "enable underlay", "user-bind-control": "user bind control"},
        ),
    ],
)
async def test_every_kind_of_site_has_its_class_and_its_advice(
    place: Path,
    bundles: Path,
    changes: Mapping[str, str],
    expected: NodeClass,
    advised: Mapping[str, str],
) -> None:
    """The real Apptainer with that site's configuration; each advice names the right line."""
    conf, lines = site_conf(place, changes)

    report = await probed(place, bundles, runtime_arguments=("-c", str(conf)))

    told = [advice for advice in report.advice if advice.where.startswith("/")]
    assert report.class_ is expected, report.reasons
    assert {advice.code: advice.where for advice in told} == {
        code: f"{conf} line {lines[directive]}" for code, directive in advised.items()
    }
    assert report.keys["UNDERLAY_ENABLED"] == changes.get("enable underlay", "yes")
    assert report.keys["OVERLAY_ENABLED"] == changes.get("enable overlay", "yes")
    assert report.missing == ()


@needs_apptainer
async def test_this_machine_is_seen_as_it_is(place: Path, bundles: Path) -> None:
    """What the self-check found inside is in the report."""
    report = await probed(place, bundles)

    apptainer = next(runtime for runtime in report.runtimes if runtime.name == "apptainer")
    assert apptainer.works
    assert apptainer.configuration == str(APPTAINER_CONF)
    assert apptainer.mode in ("user-namespace", "setuid")
    assert apptainer.mount_points
    assert apptainer.own_pid_namespace
    assert report.keys["SINGULARITY_LOCAL_SUPPORTED"] == "TRUE"
    assert report.keys["SINGULARITY_CVMFS_SUPPORTED"] == "FALSE"
    assert (report.node, report.site, report.schema) == ("wn1", "Here", "pilot-probe/1")


@needs_apptainer
async def test_an_apptainer_in_cvmfs_is_not_the_nodes_own(place: Path, bundles: Path) -> None:
    """It is found where CVMFS has it, and works."""
    there = place / "cvmfs/oasis.opensciencegrid.org/mis/apptainer/current/bin"
    there.mkdir(parents=True)
    script(there / "apptainer", 'exec /usr/bin/apptainer "$@"')

    report = await probed(place, bundles, path=str(place))

    assert report.class_ is NodeClass.CVMFS_ONLY
    assert report.keys["SINGULARITY_CVMFS_SUPPORTED"] == "TRUE"
    assert report.keys["SINGULARITY_LOCAL_SUPPORTED"] == "FALSE"
    assert [advice.code for advice in report.advice if advice.code != "dev-fuse"] == [
        "install-apptainer"
    ]


async def test_a_node_without_any_runtime_has_none(place: Path, bundles: Path) -> None:
    """PATH holds nothing at all; the probe itself needs nothing from there."""
    report = await probed(place, bundles, path=str(place / "empty"))

    assert report.class_ is NodeClass.NONE
    assert report.runtimes == ()
    assert report.missing == ()
    assert [advice.code for advice in report.advice] == ["install-apptainer"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("exec sleep 3600", "no-answer"),
        ('[ "$1" = --version ] && { echo apptainer 9; exit; }; exec sleep 3600', "no-answer"),
        ("exec cat /dev/zero", "flooded"),
        ("cat /dev/zero >&2", "flooded"),
        ("echo apptainer version 9; exit 0", "nonsense"),
        ('echo "{}"', "nonsense"),
        ("exit 0", "silent"),
        ("kill -9 $$", "silent"),
        ('echo "FATAL: no loop device" >&2; exit 255', "image-unmountable"),
    ],
)
async def test_a_broken_runtime_is_told_from_one_that_works(
    place: Path, bundles: Path, text: str, reason: str
) -> None:
    """That it is there, answers ``--version`` or exits with 0 counts for nothing."""
    script(place / "apptainer", text)

    report = await probed(place, bundles, path=f"{place}:/usr/bin:/bin", deadline_s=8.0)

    broken = next(line for line in report.runtimes if line.path == f"{place}/apptainer")
    assert (broken.works, broken.reason) == (False, reason)
    assert report.class_ is NodeClass.NONE or len(report.runtimes) > 1


async def test_a_runtime_that_had_no_time_is_not_called_broken(place: Path, bundles: Path) -> None:
    """A busy node may need longer; that it doesn't work is said of what was waited for."""
    script(place / "apptainer", '[ "$1" = --version ] && exit; exec /bin/sleep 3600')

    report = await probed(place, bundles, path=str(place), deadline_s=2.0)

    (line,) = report.runtimes
    assert (line.works, line.reason) == (None, "not-seen")
    assert "repair-runtime" not in [advice.code for advice in report.advice]


async def test_one_that_works_once_and_then_not_is_no_reason_to_fail(
    place: Path, bundles: Path
) -> None:
    """What a look didn't see is unknown; the probe goes on."""
    script(
        place / "apptainer",
        f'[ "$1" = exec ] && [ -e {place}/used ] && exit 1\n'
        f'[ "$1" = exec ] && : > {place}/used\n'
        'exec /usr/bin/apptainer "$@"',
    )

    report = await probed(place, bundles, path=str(place), deadline_s=20.0)

    assert len(report.runtimes) == 1
    assert report.reasons


@needs_apptainer
async def test_a_dead_cvmfs_holds_up_nothing(place: Path, bundles: Path) -> None:
    """What else the node has is seen all the same, and the whole takes less than 10 s."""
    with hung_directory(place) as dead:
        report = await probed(place, bundles, cvmfs=str(dead), deadline_s=7.0)

    assert report.class_ is FULL
    assert report.keys["CVMFS_MOUNTED"] == "HUNG"
    assert report.keys["SINGULARITY_LOCAL_SUPPORTED"] == "TRUE"
    assert report.keys["SINGULARITY_CVMFS_SUPPORTED"] is None
    assert report.keys["CORES"]
    assert "cvmfs-hung" in [advice.code for advice in report.advice]
    assert any(text.startswith("CVMFS: no answer") for text in report.missing)
    assert report.seconds < 10  # The promise itself: the deadline, and what hangs is let go.


async def test_a_dead_directory_in_path_does_not_hide_a_runtime(place: Path, bundles: Path) -> None:
    """One that is behind it in PATH is found; whether it can work then is for its trial."""
    script(place / "apptainer", "echo apptainer version 9")
    with hung_directory(place) as dead:
        path = f"{dead}/some/bin:{place}"
        report = await probed(place, bundles, path=path, cvmfs=str(dead), deadline_s=5.0)

    assert [runtime.path for runtime in report.runtimes] == [f"{place}/apptainer"]


async def test_without_a_place_to_try_them_runtimes_are_not_seen(
    place: Path, bundles: Path
) -> None:
    """They are named, and why nothing is known of them; the rest of the report is there."""
    script(place / "apptainer", "exit 1")

    report = await probed(place, bundles, path=str(place), places=(str(place / "nowhere"),))

    (line,) = report.runtimes
    assert (line.works, line.reason) == (None, "not-seen")
    assert report.keys["SINGULARITY_LOCAL_SUPPORTED"] is None
    assert "no directory can be made in" in report.missing[0]
    assert report.keys["CORES"]


async def test_a_bundle_that_is_never_made_is_said(
    place: Path, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs its deadline."""
    sleeper = place / "bundling.py"
    sleeper.write_text("import time\ntime.sleep(3600)\n")
    monkeypatch.setattr(workshop_module, "BUNDLING_PROGRAM", sleeper)
    script(place / "apptainer", "exit 1")

    report = await probed(place, bundles, path=str(place), deadline_s=2.5)

    assert "the wrapper's bundle can't be made: no answer" in report.missing[0]


async def test_a_node_with_too_many_runtimes_names_those_not_tried(
    place: Path, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work of a probe is bounded."""
    monkeypatch.setattr(probe_module, "_RUNTIMES_MAX", 1)
    script(place / "apptainer", "exit 1")
    script(place / "singularity", "exit 1")

    report = await probed(place, bundles, path=str(place), deadline_s=20.0)

    assert len(report.runtimes) == 1
    assert report.missing == (f"{place}/singularity: there are more than 1 runtimes",)


async def test_a_node_that_starts_no_process_cannot_be_probed(
    place: Path, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentence and not a group of exceptions; here a user has all processes that it may."""

    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("pilot.bounded_process.subprocess.Popen", refuse)

    with pytest.raises(OperatorError, match="temporarily unavailable"):
        await probed(place, bundles)


@needs_apptainer
async def test_an_image_is_climbed_for_as_a_job_would(place: Path, bundles: Path) -> None:
    """Every step of the ladder is shown with its code, and what held."""
    image = make_image(place / "image")
    conf, _ = site_conf(place, {"allow pid ns": "no"})

    report = await probed(place, bundles, runtime_arguments=("-c", str(conf)), image=str(image))

    assert report.image is not None
    assert report.image.works
    assert report.image.runtime == report.runtimes[0].path
    assert {step.reason for step in report.image.steps} == {"no-pid-namespace"}
    assert "without a PID namespace" in str(report.image.how)


async def test_an_image_that_is_not_there_is_said(place: Path, bundles: Path) -> None:
    """The report is none the less for it."""
    report = await probed(place, bundles, image=f"{place}/nowhere")

    assert report.image is not None
    assert report.image.works is False
    assert "no such file or directory" in report.image.reasons[0]
