from __future__ import annotations

from typing import Any

import pytest

from pilot.containers.runtime import Reason, RuntimeKind
from pilot.probe.facts import RuntimeFacts
from pilot.probe.verdict import MEANINGS, NodeClass, best_runtime, classify, reasons
from tests.pilot.probe.factories import conf, facts, failed, runtime

FULL, NO_UNDERLAY = NodeClass.FULLY_COMPATIBLE, NodeClass.UNDERLAY_DISABLED
CVMFS, NONE = NodeClass.CVMFS_ONLY, NodeClass.NONE

NEITHER = conf("enable underlay = no", "enable overlay = no")
OVERLAY_ONLY = conf("enable underlay = no")
IN_CVMFS = runtime(path="/cvmfs/x/bin/apptainer", in_cvmfs=True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, FULL),
        ({"conf": conf("enable overlay = no")}, FULL),
        ({"conf": conf("enable underlay = preferred")}, FULL),
        ({"name": RuntimeKind.SINGULARITY}, FULL),
        ({"mode": "setuid"}, FULL),
        ({"own_pid_namespace": False, "squashfs_works": False}, FULL),
        ({"conf": OVERLAY_ONLY}, NO_UNDERLAY),
        ({"conf": NEITHER}, NO_UNDERLAY),
        ({"conf": None}, NO_UNDERLAY),
        ({"conf": None, "underlay_works": True}, FULL),
        ({"underlay_works": False}, NO_UNDERLAY),
        ({"conf": OVERLAY_ONLY, "underlay_works": True}, FULL),
        ({"name": RuntimeKind.BUBBLEWRAP, "conf": None}, NO_UNDERLAY),
        ({"name": RuntimeKind.PODMAN, "conf": None, "makes_mount_points": True}, NO_UNDERLAY),
        ({"in_cvmfs": True}, CVMFS),
        ({"in_cvmfs": True, "conf": OVERLAY_ONLY}, CVMFS),
        ({"in_cvmfs": True, "works": False}, NONE),
        ({"works": False}, NONE),
        ({"works": None}, NONE),
    ],
)
def test_the_class_that_one_runtime_gives(changes: dict[str, Any], expected: NodeClass) -> None:
    """Works, whose own, underlay: in this order. What was seen counts before the file."""
    assert classify(facts(runtime(**changes))) is expected


@pytest.mark.parametrize(
    ("runtimes", "expected"),
    [
        ((), NONE),
        ((IN_CVMFS, runtime()), FULL),
        ((IN_CVMFS, runtime(conf=NEITHER)), NO_UNDERLAY),
        ((runtime(conf=NEITHER), runtime(path="/opt/bin/apptainer")), FULL),
        ((runtime(works=False), IN_CVMFS), CVMFS),
        ((runtime(name=RuntimeKind.BUBBLEWRAP, conf=None), IN_CVMFS), NO_UNDERLAY),
        ((runtime(works=None), runtime(works=False)), NONE),
    ],
)
def test_a_node_has_the_best_class_of_its_runtimes(
    runtimes: tuple[RuntimeFacts, ...], expected: NodeClass
) -> None:
    """In whatever order they were found."""
    assert classify(facts(*runtimes)) is expected
    assert classify(facts(*reversed(runtimes))) is expected


def test_the_best_runtime_makes_the_class() -> None:
    """Where none works there is none."""
    assert best_runtime(facts(IN_CVMFS, good := runtime())) is good
    assert best_runtime(facts(failed(Reason.NO_ANSWER))) is None
    assert best_runtime(facts()) is None


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (runtime(), "works, and underlay is enabled"),
        (runtime(conf=OVERLAY_ONLY), "underlay is disabled: missing mount points are made by"),
        (runtime(conf=NEITHER), "neither underlay nor overlay is enabled"),
        (runtime(conf=None), "whether underlay is enabled could not be found out"),
        (runtime(name=RuntimeKind.PODMAN, conf=None), "podman has no underlay"),
        (IN_CVMFS, "comes from CVMFS"),
        (runtime(works=None), "no time to see it work"),
        (runtime(works=False), "doesn't work."),
        (failed(Reason.FLOODED, "it wrote more"), "doesn't work [flooded]: it wrote more."),
        (runtime(squashfs_works=False, squashfs_detail="no FUSE"), "can't run image files"),
        (runtime(squashfs_works=None, squashfs_detail="no mksquashfs"), "Not found out: whether"),
    ],
)
def test_a_reason_says_what_was_seen(found: RuntimeFacts, said: str) -> None:
    """Each is a sentence."""
    told = reasons(facts(found, cvmfs_mounted=True))

    assert any(said in reason for reason in told), told
    assert all(reason.endswith(".") for reason in told)


def test_a_node_with_nothing_says_so() -> None:
    """And why nothing comes from CVMFS."""
    assert reasons(facts()) == (
        "No container runtime was found, neither in PATH nor in CVMFS.",
        "CVMFS is not mounted, so no runtime can come from there.",
    )


def test_a_hung_cvmfs_and_what_is_missing_are_said() -> None:
    """Either may hide a better class."""
    told = reasons(facts(missing=("CVMFS: no answer in 4 s",), cvmfs_mounted=None, cvmfs_hung=True))

    assert told[1:] == (
        "CVMFS doesn't answer, so a runtime in it is not counted.",
        "Not found out: CVMFS: no answer in 4 s.",
    )


def test_every_class_has_a_meaning() -> None:
    """A new one gets its words."""
    assert set(MEANINGS) == set(NodeClass)
