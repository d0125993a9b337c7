"""Every kind of site for real, with every kind of image: it runs the job, or says why not.

A site is the real Apptainer with another apptainer.conf: overlay, underlay and PID namespaces
allowed or not. An image has /tmp and more, or one directory only that a job can do without, or
none but those that every image has; it is a directory, a squashfs file or a SIF. Each cell goes
through the real ladder and the real self-check, and then through a launch of its own, whose
shell tells what it sees. What is to come of a cell is in `expected`, and nothing else passes.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from pilot.bundle import Bundle, build_bundle
from pilot.clock import SystemClock
from pilot.containers.check import own_pid_namespace
from pilot.containers.dialects import dialect_of
from pilot.containers.ladder import Choice, ContainerPolicy, ContainerTools, Ladder
from pilot.containers.memory import Memory
from pilot.containers.mounts import (
    LOOKED_FOR,
    ImageTree,
    MountPlan,
    SourceKind,
    Wanted,
    make_mount_points,
    plan_mounts,
)
from pilot.containers.runtime import (
    Bind,
    ContainerLaunch,
    ImageForm,
    Reason,
    Runtime,
    RuntimeKind,
)
from pilot.containers.trial import Trial
from pilot.images import ImageStore, LocalImage
from pilot.images.look import look_into
from tests.pilot.sandbox import (
    APPTAINER,
    APPTAINER_CONF,
    make_image,
    needs_apptainer,
    public_directory,
)
from tests.pilot.squashed import needs_squashfs, squashed, wrapped_in_sif
from transport.messages import Record

pytestmark = [pytest.mark.real, pytest.mark.apptainer, needs_apptainer, needs_squashfs]

SITE = "/grid-site"
"""Where a site's own directory is to be seen; no image has it."""
KINDS = {
    "full": ("tmp", "var/tmp", "mnt", "media", "srv", "opt", "home", "root"),
    "only-srv": ("srv",),
    "nothing": (),
}
"""The directories of each kind of image, beside those that every image has."""
HAS_FUSE = os.geteuid() == 0 or os.access("/dev/fuse", os.R_OK | os.W_OK)


class Cell(Record, frozen=True, kw_only=True):
    """A site and an image."""

    overlay: bool
    underlay: bool
    pid: bool
    kind: str
    form: ImageForm

    def __str__(self) -> str:
        can = [name for name in ("overlay", "underlay", "pid") if getattr(self, name)]
        return f"{'+'.join(can) or 'none'}-{self.kind}-{self.form}"


class Outcome(Record, frozen=True, kw_only=True):
    """What comes of a cell: where the job lies, or why it doesn't run."""

    base: str = ""
    sees_site: bool = False
    steps: tuple[Reason, ...] = ()
    """Of the ladder, that didn't hold, in their order."""


def expected(cell: Cell) -> Outcome:
    """Return what must come of a cell."""
    if cell.form is not ImageForm.DIRECTORY and not HAS_FUSE:
        # With --userns and without; then it would be unpacked, and there is no cache here.
        return Outcome(steps=(Reason.IMAGE_UNMOUNTABLE,) * 2 + (Reason.IMAGE_FORM,))
    without_pid = () if cell.pid else (Reason.NO_PID_NAMESPACE,)
    if cell.overlay or cell.underlay:
        return Outcome(base="/tmp", sees_site=True, steps=without_pid)
    # The hope for a layer fails, then what the image has is taken.
    if cell.kind == "nothing":
        return Outcome(steps=(Reason.NO_MOUNT_POINT,) * 2)  # with --userns and without
    base = "/tmp" if cell.kind == "full" else "/srv"
    return Outcome(base=base, steps=(Reason.NO_MOUNT_POINT, *without_pid))


CELLS = [
    Cell(overlay=overlay, underlay=underlay, pid=pid, kind=kind, form=form)
    for overlay, underlay, pid in itertools.product((True, False), repeat=3)
    for kind in KINDS
    for form in ImageForm
]


# --- what the cells share --------------------------------------------------------------------


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Give a directory for images, bundle and configurations."""
    with public_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def bundle(place: Path) -> Bundle:
    """Give the real bundle."""
    return build_bundle(place / "bundles")


@pytest.fixture(scope="module")
def images(place: Path) -> dict[tuple[str, ImageForm], Path]:
    """Give each kind of image in each form."""
    return {
        (kind, form): path
        for kind, directories in KINDS.items()
        for form, path in in_each_form(place / kind, directories).items()
    }


def in_each_form(place: Path, directories: tuple[str, ...]) -> dict[ImageForm, Path]:
    """Make an image of busybox and these directories, three times."""
    place.mkdir()
    root = make_image(place / "image")
    shutil.rmtree(root / "var")
    (root / "tmp").rmdir()
    for directory in directories:
        (root / directory).mkdir(parents=True)
    squashfs = squashed(root)
    forms = (ImageForm.DIRECTORY, ImageForm.SQUASHFS, ImageForm.SIF)
    return dict(zip(forms, (root, squashfs, wrapped_in_sif(squashfs)), strict=True))


def site_of(cell: Cell, place: Path) -> Runtime:
    """Return the Apptainer of a cell's site."""
    text = APPTAINER_CONF.read_text()
    for name, value in (
        ("enable overlay", cell.overlay),
        ("enable underlay", cell.underlay),
        ("allow pid ns", cell.pid),
    ):
        text, changes = re.subn(f"(?m)^{name} = .*$", f"{name} = {'yes' if value else 'no'}", text)
        assert changes == 1, name
    conf = place / f"{cell.overlay}-{cell.underlay}-{cell.pid}.conf"
    conf.write_text(text)
    return Runtime(
        path=str(APPTAINER),
        kind=RuntimeKind.APPTAINER,
        version="apptainer version 1.4.5",
        arguments=("-c", str(conf)),
    )


class OneImage(ImageStore):
    """A store with one image, which it looks into as the real one does."""

    def __init__(self, path: Path, form: ImageForm) -> None:
        super().__init__()
        self._image = LocalImage(reference=str(path), path=str(path), form=form, state="")

    async def get(self, reference: str, *, digest: str = "") -> LocalImage:
        """Return it, whatever is asked for."""
        return self._image

    async def tree(self, image: LocalImage, also: Sequence[str] = ()) -> ImageTree:
        """Return what was seen in it."""
        return await look_into(image.path, image.form, directories=(*LOOKED_FOR, SITE))


# --- the cells -------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", CELLS, ids=str)
async def test_a_cell_runs_the_job_or_explains_itself(
    tmp_path: Path,
    place: Path,
    bundle: Bundle,
    images: dict[tuple[str, ImageForm], Path],
    cell: Cell,
) -> None:
    """The self-check holds as asked and the job sees its files; or each step has its reason."""
    outcome = expected(cell)
    for name in ("scratch", "site"):
        (tmp_path / name).mkdir()
    (tmp_path / "site" / "file").write_text("from the site\n")
    site = Bind(source=str(tmp_path / "site"), destination=SITE, read_only=True)
    store = OneImage(images[cell.kind, cell.form], cell.form)

    choice = await chosen(tmp_path / "scratch", site_of(cell, place), bundle, store, site)

    assert tuple(step.reason for step in choice.steps) == outcome.steps, choice.reasons
    assert all(len(reason) > 60 and reason.endswith(".") for reason in choice.reasons)
    assert (choice.runtime is not None) is bool(outcome.base), choice.reasons
    if choice.runtime is not None:
        assert choice.layout.base == outcome.base
        assert choice.rung.own_pid_namespace is cell.pid
        await launches(tmp_path, choice, bundle, site, outcome)


async def chosen(
    scratch: Path, runtime: Runtime, bundle: Bundle, store: ImageStore, *site: Bind
) -> Choice:
    """Climb the real ladder."""
    trial = Trial(
        bundle=bundle,
        scratch_directory=scratch,
        make_nonce=lambda: "n0nce",
        host=os.environ,
        site_binds=site,
    )
    tools = ContainerTools(runtimes=(runtime,), images=store, trial=trial)
    ladder = Ladder(tools, Memory(), SystemClock())
    return await ladder.choose("image", ContainerPolicy.PREFER)


async def launches(
    tmp_path: Path, choice: Choice, bundle: Bundle, site: Bind, outcome: Outcome
) -> None:
    """Launch a job as it was chosen, and look at what it sees."""
    for name in ("work", "output", "private", "run", "directory"):
        (tmp_path / name).mkdir()
    (tmp_path / "a file").write_text("staged\n")
    inputs = {0: str(tmp_path / "a file"), 1: str(tmp_path / "directory")}
    plan = plan_mounts(
        Wanted(
            work=str(tmp_path / "work"),
            output=str(tmp_path / "output"),
            private=str(tmp_path / "private"),
            bundle=str(bundle.root),
            mount_tree=str(tmp_path / "mounts"),
            inputs=inputs,
            site=(site,),
            kinds={inputs[0]: SourceKind.FILE},
        ),
        choice.layout.base,
        choice.tree,
        choice.layout.layers,
    )
    make_mount_points(plan)

    said = await asyncio.to_thread(run_shell, tmp_path, choice, plan)

    assert said == {
        "pwd": plan.work,
        "input": "staged",
        "site": "from the site" if outcome.sees_site else "",
        "rights": "none",
        "bundle": "read-only",
        "base": "read-only" if plan.directories else "writable",
        "own": "yes" if choice.rung.own_pid_namespace else "no",
    }
    assert (tmp_path / "work" / "written").exists()
    assert any(SITE in note for note in plan.notes) is not outcome.sees_site
    assert any("mapped onto" in note for note in plan.notes) is (choice.layout.base != "/tmp")


def run_shell(tmp_path: Path, choice: Choice, plan: MountPlan) -> dict[str, str]:
    """Run a few lines of shell in the container, and return what they said, by name."""
    assert choice.runtime is not None
    assert choice.image is not None
    launch = ContainerLaunch(
        runtime=choice.runtime,
        image=choice.image.path,
        image_form=choice.image.form,
        binds=plan.binds,
        working_directory=plan.work,
        scratch_directory=str(tmp_path / "run"),
        rung=choice.rung,
    )
    script = f"""
    echo "pwd=$(pwd)"
    echo "input=$(cat '{plan.input(0)}')"
    [ -d {plan.input(1)} ] || echo "input=none"
    echo "site=$(cat {SITE}/file 2>/dev/null)"
    case "$(grep CapEff /proc/self/status)" in *0000000000000000) echo rights=none ;; esac
    touch {plan.bundle}/x 2>/dev/null && echo bundle=writable || echo bundle=read-only
    touch {plan.base}/x 2>/dev/null && echo base=writable || echo base=read-only
    case "$(readlink /proc/self/ns/pid)" in *{own_pid_namespace()}*) echo own=no ;;
    *) echo own=yes ;; esac
    touch written
    """
    dialect = dialect_of(choice.runtime.kind)
    ran = subprocess.run(
        [*dialect.command(launch), "sh", "-c", script],
        env=dialect.environment(launch, os.environ),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [line.partition("=") for line in ran.stdout.splitlines()]
    return {name: value for name, _, value in lines}


# --- images that lead astray -----------------------------------------------------------------

LAYERS = [pytest.param(False, id="no-layer"), pytest.param(True, id="layers")]


def image_with_links(place: Path, directories: tuple[str, ...], links: Mapping[str, str]) -> Path:
    """Make a busybox image with these directories and links."""
    root = make_image(place / "image")
    shutil.rmtree(root / "var")
    (root / "tmp").rmdir()
    for directory in directories:
        (root / directory).mkdir()
    for name, target in links.items():
        (root / name).symlink_to(target)
    return root


def layered_site(place: Path, is_layered: bool) -> Runtime:
    """Return a site with both layers or none."""
    cell = Cell(
        overlay=is_layered, underlay=is_layered, pid=True, kind="", form=ImageForm.DIRECTORY
    )
    return site_of(cell, place)


@pytest.mark.parametrize("is_layered", LAYERS)
@pytest.mark.parametrize("target", ["mnt", "/etc", "../../../../../tmp", "nowhere"])
async def test_a_tmp_that_is_a_link_is_no_base(
    tmp_path: Path, place: Path, bundle: Bundle, is_layered: bool, target: str
) -> None:
    """Wherever it leads, the job lies on a real directory, and nothing had to be tried."""
    image = image_with_links(tmp_path, ("mnt", "srv"), {"tmp": target})
    store = OneImage(image, ImageForm.DIRECTORY)

    choice = await chosen(tmp_path, layered_site(place, is_layered), bundle, store)

    assert (choice.layout.base, choice.reasons) == ("/mnt", ())


async def test_a_tmp_that_leads_over_proc_is_found_out(
    tmp_path: Path, place: Path, bundle: Bundle
) -> None:
    """Apptainer mounts its /tmp wherever the link leads; without /proc nothing can be verified."""
    image = image_with_links(tmp_path, ("mnt",), {"tmp": "/proc"})
    store = OneImage(image, ImageForm.DIRECTORY)

    choice = await chosen(tmp_path, layered_site(place, False), bundle, store)

    assert choice.runtime is None
    assert choice.steps[-1].reason is Reason.NOT_MOUNTED
    assert "/proc inside is not the kernel's" in choice.reasons[-1]


@pytest.mark.parametrize("is_layered", LAYERS)
async def test_a_base_that_is_a_link_is_passed_over(
    tmp_path: Path, place: Path, bundle: Bundle, is_layered: bool
) -> None:
    """The next that is a directory is taken."""
    links = {"tmp": "/etc", "mnt": "/etc", "media": "bin"}
    image = image_with_links(tmp_path, ("srv",), links)
    store = OneImage(image, ImageForm.DIRECTORY)

    choice = await chosen(tmp_path, layered_site(place, is_layered), bundle, store)

    assert (choice.layout.base, choice.reasons) == ("/srv", ())


@pytest.mark.parametrize("is_layered", LAYERS)
async def test_an_image_of_links_only_is_refused(
    tmp_path: Path, place: Path, bundle: Bundle, is_layered: bool
) -> None:
    """With no place at all there is no launch, and the reason names what was looked for."""
    names = ("tmp", "mnt", "media", "srv", "opt", "home", "root", "var")
    image = image_with_links(tmp_path, (), dict.fromkeys(names, "/bin"))
    store = OneImage(image, ImageForm.DIRECTORY)

    choice = await chosen(tmp_path, layered_site(place, is_layered), bundle, store)

    assert [step.reason for step in choice.steps] == [Reason.NO_MOUNT_POINT]
    assert "no directory to mount a job on" in choice.reasons[0]


async def test_an_image_that_nobody_could_look_into_is_found_out_by_trying(
    tmp_path: Path, place: Path, bundle: Bundle
) -> None:
    """Layers can't make what a link is in the way of; the check tells, and the next base holds."""
    image = image_with_links(tmp_path, ("srv",), {"tmp": "nowhere"})

    class Blind(OneImage):
        async def tree(self, image: LocalImage, also: Sequence[str] = ()) -> ImageTree:
            return ImageTree()

    choice = await chosen(
        tmp_path, layered_site(place, True), bundle, Blind(image, ImageForm.DIRECTORY)
    )

    assert choice.steps
    assert all(step.reason is Reason.NO_MOUNT_POINT for step in choice.steps)
    assert choice.layout.base != "/tmp"


@pytest.mark.skipif(not HAS_FUSE, reason="only root may use /dev/fuse here")
async def test_a_sif_that_apptainer_built_needs_no_layer(
    tmp_path: Path, place: Path, bundle: Bundle
) -> None:
    """Building puts a /tmp into it that its source hadn't."""
    image = image_with_links(tmp_path, (), {})
    sif = tmp_path / "image.sif"
    command = [str(APPTAINER), "build", "--userns", str(sif), str(image)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)

    store = OneImage(sif, ImageForm.SIF)
    choice = await chosen(tmp_path, layered_site(place, False), bundle, store)

    assert (choice.layout.base, choice.reasons) == ("/tmp", ())
