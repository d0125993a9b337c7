from __future__ import annotations

import re
from pathlib import Path

import pytest

from pilot.containers.runtime import Reason, RuntimeKind
from pilot.probe.facts import Facts, Value
from pilot.probe.keys import keys_of
from tests.pilot.probe.factories import conf, facts, failed, runtime

PAGE = Path(__file__).parents[3] / "docs" / "probe.md"
IN_CVMFS = runtime(path="/cvmfs/x/bin/apptainer", in_cvmfs=True, conf=None)
BUBBLEWRAP = runtime(name=RuntimeKind.BUBBLEWRAP, path="/usr/bin/bwrap", conf=None)


@pytest.mark.parametrize(
    ("found", "local", "cvmfs"),
    [
        (facts(runtime()), "TRUE", "FALSE"),
        (facts(IN_CVMFS), "FALSE", "TRUE"),
        (facts(runtime(), IN_CVMFS), "TRUE", "TRUE"),
        (facts(BUBBLEWRAP), "FALSE", "FALSE"),
        (facts(), "FALSE", "FALSE"),
        (facts(failed(Reason.SILENT)), "FALSE", "FALSE"),
        (facts(runtime(works=None)), None, "FALSE"),
        (facts(runtime(works=None), runtime(path="/opt/a")), "TRUE", "FALSE"),
        (facts(cvmfs_hung=True, cvmfs_mounted=None), "FALSE", None),
    ],
)
def test_support_is_what_was_seen_to_work(found: Facts, local: Value, cvmfs: Value) -> None:
    """Of Apptainer and Singularity; what could not be seen is unknown, not a no."""
    keys = keys_of(found)

    assert keys["SINGULARITY_LOCAL_SUPPORTED"] == local
    assert keys["SINGULARITY_CVMFS_SUPPORTED"] == cvmfs


def test_the_configuration_speaks_as_the_file_does() -> None:
    """Site Sonar copied these values out of it."""
    read = conf("enable underlay = no", "shared loop devices = yes", "max loop devices = 8")
    keys = keys_of(facts(runtime(conf=read)))

    assert keys["UNDERLAY_ENABLED"] == "no"
    assert keys["OVERLAY_ENABLED"] == "yes"
    assert keys["shared_loop_devices"] == "yes"
    assert keys["max_loop_devices"] == 8


def test_a_runtime_that_fails_still_has_a_configuration() -> None:
    """Where none works, the first file that was read counts; without any it is unknown."""
    found = failed(Reason.SILENT, conf=conf("enable underlay = no"))

    assert keys_of(facts(BUBBLEWRAP, found))["UNDERLAY_ENABLED"] == "no"
    assert keys_of(facts(found))["RUNTIME"] is None
    assert keys_of(facts(BUBBLEWRAP))["UNDERLAY_ENABLED"] is None


def test_the_best_runtime_has_the_runtimes_keys() -> None:
    """What it is, and what it was seen to do."""
    keys = keys_of(facts(IN_CVMFS, runtime(mode="setuid", squashfs_works=None)))

    assert keys["RUNTIME"] == "apptainer"
    assert keys["RUNTIME_PATH"] == "/usr/bin/apptainer"
    assert keys["RUNTIME_MODE"] == "setuid"
    assert keys["PID_NAMESPACE"] == keys["MOUNT_POINTS"] == "TRUE"
    assert keys["IMAGE_SQUASHFS"] is None


def test_families_have_site_sonars_names() -> None:
    """Blanks become underscores, as in CPU_model_name."""
    keys = keys_of(
        facts(cpu={"model name": "X", "fpu": "yes"}, os_release={"ID": "el9"}, memory_kb={"M": 1})
    )

    assert keys["CPU_model_name"] == "X"
    assert keys["CPU_fpu"] == "yes"
    assert keys["OS_ID"] == "el9"
    assert keys["RAM_kB_M"] == 1


@pytest.mark.parametrize(
    ("mounted", "hung", "said"),
    [(True, False, "TRUE"), (False, False, "FALSE"), (None, True, "HUNG"), (None, False, None)],
)
def test_cvmfs_is_there_or_not_or_hangs(mounted: bool | None, hung: bool, said: Value) -> None:
    """Or is unknown."""
    assert keys_of(facts(cvmfs_mounted=mounted, cvmfs_hung=hung))["CVMFS_MOUNTED"] == said


def test_every_key_is_documented() -> None:
    """A survey's reader looks there for what a value means."""
    page = PAGE.read_text()
    undocumented = [
        key
        for key in keys_of(facts(runtime(), cpu={"a": "b"}, os_release={"a": "b"}))
        if f"`{key}`" not in page and not re.match("CPU_|OS_|RAM_kB_", key)
    ]

    assert undocumented == []
