"""The mount plan, decided on paper."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pilot.containers.mounts import (
    TMP_BASE,
    ImageTree,
    MountPlan,
    SourceKind,
    Wanted,
    make_mount_points,
    plan_mounts,
)
from pilot.containers.runtime import Bind, Layers
from transport.errors import OperatorError, UserError

FULL = ImageTree(directories={"/tmp": True, "/mnt": True, "/cvmfs": True})
BARE = ImageTree(directories={})
LAYERED = Layers(makes_mount_points=True)
NO_LAYER = Layers()
CVMFS = Bind(source="/cvmfs", destination="/cvmfs", read_only=True)


def wanted(
    *,
    inputs: Mapping[int, str] | None = None,
    site: tuple[Bind, ...] = (),
    kinds: Mapping[str, SourceKind] | None = None,
    mount_tree: str = "/state/mounts",
) -> Wanted:
    """Make what a job wants, of which only what a test is about has to be said."""
    return Wanted(
        work="/state/work",
        output="/state/output",
        private="/state/private",
        bundle="/bundles/1",
        mount_tree=mount_tree,
        inputs=inputs or {},
        site=site,
        kinds=kinds or {},
    )


def said(plan: MountPlan) -> list[str]:
    """Return a plan's binds, a line each."""
    return [
        f"{bind.source} -> {bind.destination}{' ro' if bind.read_only else ''}"
        for bind in plan.binds
    ]


# --- where things are ------------------------------------------------------------------------


def test_a_job_below_tmp_needs_no_preparation() -> None:
    """The runtime makes the mount points in a /tmp of its own."""
    plan = plan_mounts(wanted(inputs={3: "/data/a"}), TMP_BASE, FULL, NO_LAYER)

    assert said(plan) == [
        "/state/work -> /tmp/job/work",
        "/state/output -> /tmp/job/output",
        "/state/private -> /tmp/job/private",
        "/bundles/1 -> /tmp/pilot ro",
        "/data/a -> /tmp/inputs/3 ro",
    ]
    assert (plan.directories, plan.files, plan.notes) == ((), (), ())
    assert (plan.work, plan.input(3)) == ("/tmp/job/work", "/tmp/inputs/3")


def test_a_mapped_job_lies_in_a_tree_that_is_bound_first_and_read_only() -> None:
    """Its mount points are on the host; a file gets a file, and parents come first."""
    plan = plan_mounts(
        wanted(inputs={0: "/data/a", 1: "/data/b"}, kinds={"/data/b": SourceKind.FILE}),
        "/mnt",
        FULL,
        NO_LAYER,
    )

    assert said(plan)[:2] == ["/state/mounts -> /mnt ro", "/state/work -> /mnt/job/work"]
    assert plan.directories == (
        "/state/mounts",
        "/state/mounts/job/work",
        "/state/mounts/job/output",
        "/state/mounts/job/private",
        "/state/mounts/pilot",
        "/state/mounts/inputs/0",
        "/state/mounts/inputs",
    )
    assert plan.files == ("/state/mounts/inputs/1",)
    assert "mapped onto the image's /mnt" in plan.notes[0]
    assert "hidden" not in plan.notes[0]


def test_what_a_mapped_job_hides_is_said() -> None:
    """An image with its software in /opt runs without it, and the trace says why."""
    image = ImageTree(directories={"/opt": False})

    plan = plan_mounts(wanted(), "/opt", image, NO_LAYER)

    assert plan.notes[0].endswith("what the image has in /opt is hidden")


def test_the_mount_points_are_made_as_planned(tmp_path: Path) -> None:
    """Twice is as good as once: a launch may be tried again."""
    plan = plan_mounts(
        wanted(
            inputs={0: "/a", 1: "/b"},
            kinds={"/b": SourceKind.FILE},
            mount_tree=str(tmp_path / "mounts"),
        ),
        "/srv",
        FULL,
        NO_LAYER,
    )

    make_mount_points(plan)
    make_mount_points(plan)

    assert (tmp_path / "mounts/job/private").is_dir()
    assert (tmp_path / "mounts/inputs/0").is_dir()
    assert (tmp_path / "mounts/inputs/1").is_file()


def test_mount_points_that_cannot_be_made_are_the_operators_business(tmp_path: Path) -> None:
    """The sentence names the place."""
    (tmp_path / "mounts").write_text("")
    plan = plan_mounts(wanted(mount_tree=str(tmp_path / "mounts")), "/srv", FULL, NO_LAYER)

    with pytest.raises(OperatorError, match=f"can't be made at {tmp_path}"):
        make_mount_points(plan)


# --- what isn't there ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SourceKind.MISSING, SourceKind.UNREADABLE, SourceKind.SILENT])
def test_a_source_that_cannot_be_bound_is_left_out_and_named(kind: SourceKind) -> None:
    """One bind that fails would end the launch."""
    plan = plan_mounts(
        wanted(inputs={0: "/data/a"}, site=(CVMFS,), kinds={"/data/a": kind, "/cvmfs": kind}),
        TMP_BASE,
        FULL,
        NO_LAYER,
    )

    assert len(plan.binds) == 4
    assert plan.notes == (
        f"input 0 is not shown in the container: /data/a {kind}",
        f"/cvmfs is not to be seen in the container: /cvmfs {kind}",
    )


@pytest.mark.parametrize(
    ("image", "layers", "is_bound"),
    [
        (FULL, NO_LAYER, True),
        (BARE, LAYERED, True),
        (BARE, NO_LAYER, False),
        (ImageTree(), LAYERED, True),
        (ImageTree(), NO_LAYER, False),
        (ImageTree(directories={}, links=frozenset({"/cvmfs"})), LAYERED, False),
    ],
)
def test_a_sites_directory_is_bound_where_it_can_be(
    image: ImageTree, layers: Layers, is_bound: bool
) -> None:
    """In the image, or made by a layer; never through a link that the image chose."""
    plan = plan_mounts(wanted(site=(CVMFS,)), TMP_BASE, image, layers)

    assert (CVMFS in plan.binds) is is_bound
    assert len(plan.notes) == (0 if is_bound else 1)


# --- binds that meet -------------------------------------------------------------------------


def test_nested_binds_are_made_parents_first() -> None:
    """Newer versions sort by themselves, older ones hide what came before."""
    deep = Bind(source="/cvmfs/alice", destination="/cvmfs/alice")

    plan = plan_mounts(wanted(site=(deep, CVMFS)), TMP_BASE, FULL, NO_LAYER)

    assert plan.binds[-2:] == (CVMFS, deep)


def test_a_bind_twice_is_one() -> None:
    """Said in two settings, say."""
    plan = plan_mounts(wanted(site=(CVMFS, CVMFS)), TMP_BASE, FULL, NO_LAYER)

    assert plan.binds.count(CVMFS) == 1


def test_two_sources_for_one_destination_are_refused() -> None:
    """The runtime takes the first without a word."""
    other = Bind(source="/elsewhere", destination="/cvmfs")

    with pytest.raises(OperatorError, match="both /cvmfs and /elsewhere to /cvmfs"):
        plan_mounts(wanted(site=(CVMFS, other)), TMP_BASE, FULL, NO_LAYER)


@pytest.mark.parametrize(
    ("destination", "base", "why"),
    [
        ("/tmp", "/tmp", "the job itself"),
        ("/tmp/job", "/tmp", "the job itself"),
        ("/tmp/pilot/so", "/tmp", "the job itself"),
        ("/mnt", "/mnt", "the job itself"),
        ("/var", "/var/tmp", "the job itself"),
        ("/", "/tmp", "the runtime mounts its own"),
        ("/proc", "/tmp", "the runtime mounts its own"),
    ],
)
def test_a_bind_over_the_job_or_the_runtime_is_left_out(
    destination: str, base: str, why: str
) -> None:
    """It would hide what makes the container a container, or the job a job."""
    bind = Bind(source="/data", destination=destination)

    plan = plan_mounts(wanted(site=(bind,)), base, FULL, LAYERED)

    assert bind not in plan.binds
    assert why in plan.notes[-1]


@pytest.mark.parametrize(("base", "made"), [("/tmp", ()), ("/mnt", ("/state/mounts/site",))])
def test_a_sites_directory_beside_the_job_finds_room(base: str, made: tuple[str, ...]) -> None:
    """In the session's /tmp by itself, in a mapped tree by preparation."""
    bind = Bind(source="/data", destination=f"{base}/site")

    plan = plan_mounts(wanted(site=(bind,)), base, BARE, NO_LAYER)

    assert plan.binds[-1] == bind
    assert plan.directories[-1:] == made


# --- paths -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a b", "a:b", "a,b", "a'b", 'a"b', "a\\b", "a//b/../c", "é"])
def test_odd_paths_are_planned_as_they_are(name: str) -> None:
    """What a runtime can't be told is its dialect's to say."""
    plan = plan_mounts(wanted(inputs={0: f"/data/{name}"}), TMP_BASE, FULL, NO_LAYER)

    assert plan.binds[-1].source == f"/data/{name}"


@pytest.mark.parametrize("path", ["/a\nb", "/a\x00b", "/a\x1b[2J", "relative", ""])
def test_a_path_that_no_runtime_can_be_told_is_refused(path: str) -> None:
    """An input is its owner's business, a site's bind the operator's."""
    with pytest.raises(UserError, match=r"input 7\) can't be bound"):
        plan_mounts(wanted(inputs={7: path}), TMP_BASE, FULL, NO_LAYER)
    with pytest.raises(OperatorError, match=r"in the settings\) can't be bound"):
        plan_mounts(wanted(site=(Bind(source=path, destination="/x"),)), TMP_BASE, FULL, NO_LAYER)


@pytest.mark.parametrize("path", ["/a//b", "/a/../b", "/a/.", "/a/"])
def test_a_destination_with_two_names_is_refused(path: str) -> None:
    """It could lie in the job's own place under another name."""
    with pytest.raises(OperatorError, match="write that path without"):
        plan_mounts(wanted(site=(Bind(source="/x", destination=path),)), TMP_BASE, FULL, NO_LAYER)
