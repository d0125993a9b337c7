from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from pilot.bundle import Bundle, build_bundle
from pilot.containers.check import own_pid_namespace
from pilot.containers.ladder import Choice, ContainerPolicy, ContainerTools, Ladder
from pilot.containers.memory import FAILURE_KEPT_S, Memory
from pilot.containers.runtime import ImageForm, Reason, Runtime, RuntimeKind
from pilot.containers.trial import Trial
from pilot.images import ImageStore, LocalImage, StoreOptions
from pilot.images.look_at_file import Seen
from tests.pilot.sandbox import (
    fake_runtime,
    make_image,
    needs_apptainer,
    owned_directory,
    public_directory,
    site_runtime,
)
from transport.errors import OperatorError, UserError

pytestmark = pytest.mark.real

WORKS = 'echo tried >> "$0.log"; answer 1 "$@"'
WORKS_WITHOUT_PID_NAMESPACE = f"""
echo tried >> "$0.log"
case " $* " in
  *" -C "*) echo 'FATAL: mount proc->/proc: operation not permitted' >&2; exit 255 ;;
esac
answer {own_pid_namespace()} "$@"
"""
NEVER_WORKS = 'echo tried >> "$0.log"; echo "FATAL: no idea why" >&2; exit 255'
UNMOUNTABLE = 'echo "FATAL: no loop device" >&2; exit 255'
NOWHERE = Path("/nonexistent/bundle")
NO_BUNDLE = Bundle(
    root=NOWHERE,
    python=NOWHERE / "python",
    loader=NOWHERE / "loader",
    library_path=NOWHERE / "so",
    boot=NOWHERE / "boot",
)


class StepClock:
    """A wall clock that stands still until it is moved."""

    def __init__(self) -> None:
        self._now = 1_700_000_000.0

    def now(self) -> float:
        """Return UTC seconds."""
        return self._now

    def monotonic(self) -> float:
        """Return the same: nobody asks here."""
        return self._now

    def advance(self, by_s: float) -> None:
        """Move it."""
        self._now += by_s


RUNGS = 4
"""Of Apptainer: with and without a PID namespace, each with and without --userns."""


def ladder(
    scratch: Path,
    runtimes: Sequence[Runtime],
    *,
    bundle: Bundle = NO_BUNDLE,
    clock: StepClock | None = None,
    memory: Memory | None = None,
    images: ImageStore | None = None,
) -> Ladder:
    """Make a ladder with counted nonces."""
    counter = itertools.count()
    trial = Trial(
        bundle=bundle,
        scratch_directory=scratch,
        make_nonce=lambda: f"nonce{next(counter)}",
        host=os.environ,
    )
    images = images or ImageStore(options=StoreOptions(look_kept_s=0.0))
    tools = ContainerTools(runtimes=tuple(runtimes), images=images, trial=trial)
    return Ladder(tools, memory or Memory(), clock or StepClock())


def tries(runtime: Runtime) -> int:
    """Return how often a fake runtime was run."""
    log = Path(runtime.path + ".log")
    return len(log.read_text().splitlines()) if log.exists() else 0


@pytest.fixture
def image(tmp_path: Path) -> str:
    """Give something that is there, like an image."""
    path = tmp_path / "image"
    path.mkdir()
    return str(path)


@pytest.mark.parametrize("policy", [ContainerPolicy.REQUIRE, ContainerPolicy.PREFER])
async def test_a_runtime_that_works_is_taken(
    tmp_path: Path, image: str, policy: ContainerPolicy
) -> None:
    """The first rung holds, so nothing has to be explained; nothing is left behind."""
    runtime = fake_runtime(tmp_path, WORKS)
    scratch = owned_directory(tmp_path / "scratch", "")

    choice = await ladder(scratch, [runtime]).choose(image, policy)

    assert (choice.runtime, choice.rung.own_pid_namespace) == (runtime, True)
    assert choice.reasons == ()
    assert list(scratch.iterdir()) == []


async def test_the_second_rung_has_no_pid_namespace(tmp_path: Path, image: str) -> None:
    """Where it can't be had, the job is told and runs all the same."""
    runtime = fake_runtime(tmp_path, WORKS_WITHOUT_PID_NAMESPACE)

    choice = await ladder(tmp_path, [runtime]).choose(image, ContainerPolicy.REQUIRE)

    assert choice.runtime == runtime
    assert not choice.rung.own_pid_namespace
    assert len(choice.reasons) == 1
    assert "doesn't let a container mount /proc" in choice.reasons[0]


async def test_the_next_runtime_is_tried(tmp_path: Path, image: str) -> None:
    """Each rung that broke has its reason."""
    broken = fake_runtime(tmp_path, NEVER_WORKS, "broken")
    working = fake_runtime(tmp_path, WORKS, "working")

    choice = await ladder(tmp_path, [broken, working]).choose(image, ContainerPolicy.PREFER)

    assert choice.runtime == working
    assert len(choice.reasons) == RUNGS
    assert all("no idea why" in reason for reason in choice.reasons)


async def test_a_preferred_container_that_cannot_be_had_is_none(tmp_path: Path, image: str) -> None:
    """The job runs bare, and its trace says why."""
    runtime = fake_runtime(tmp_path, NEVER_WORKS)

    choice = await ladder(tmp_path, [runtime]).choose(image, ContainerPolicy.PREFER)

    assert choice.runtime is None
    assert len(choice.reasons) == RUNGS


async def test_a_required_container_that_cannot_be_had_is_an_error(
    tmp_path: Path, image: str
) -> None:
    """The operator reads which runtime, which image and why."""
    runtime = fake_runtime(tmp_path, NEVER_WORKS)
    choice = ladder(tmp_path, [runtime])

    with pytest.raises(OperatorError, match=rf"{runtime.path}.*{image}.*no idea why"):
        await choice.choose(image, ContainerPolicy.REQUIRE)
    with pytest.raises(OperatorError, match="No container runtime"):
        await ladder(tmp_path, []).choose(image, ContainerPolicy.REQUIRE)


@pytest.mark.parametrize("image", ["/nonexistent/image", "docker://Alpine", ""])
async def test_an_image_that_is_not_there_is_the_users_business(tmp_path: Path, image: str) -> None:
    """It is named; where a container is only preferred, the job runs bare."""
    runtime = fake_runtime(tmp_path, WORKS)
    choice = ladder(tmp_path, [runtime])

    with pytest.raises(UserError, match=image or "No container image"):
        await choice.choose(image, ContainerPolicy.REQUIRE)
    preferred = await choice.choose(image, ContainerPolicy.PREFER)

    assert preferred.runtime is None
    assert image in preferred.reasons[0]
    assert tries(runtime) == 0


async def test_an_image_on_a_dead_mount_is_the_operators_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user can't mend a file system."""

    async def hung(_path: str, *, timeout_s: float) -> Seen:
        raise OperatorError(f"its file system doesn't answer in {timeout_s:g} s")

    monkeypatch.setattr("pilot.images.store.look_at_file", hung)

    with pytest.raises(OperatorError, match="/cvmfs/x can't be used: its file system"):
        await ladder(tmp_path, []).choose("/cvmfs/x", ContainerPolicy.REQUIRE)


async def test_never_means_never(tmp_path: Path, image: str) -> None:
    """Nothing is tried, and the reason is the setting."""
    runtime = fake_runtime(tmp_path, WORKS)

    choice = await ladder(tmp_path, [runtime]).choose(image, ContainerPolicy.NEVER)

    assert choice == Choice(reasons=("Containers are switched off in the settings.",))
    assert tries(runtime) == 0


async def test_what_was_tried_is_remembered(tmp_path: Path, image: str) -> None:
    """The next job pays nothing, for what works and for what doesn't."""
    broken = fake_runtime(tmp_path, NEVER_WORKS, "broken")
    working = fake_runtime(tmp_path, WORKS, "working")
    choice = ladder(tmp_path, [broken, working])

    first = await choice.choose(image, ContainerPolicy.PREFER)
    second = await choice.choose(image, ContainerPolicy.PREFER)

    assert first == second
    assert (tries(broken), tries(working)) == (RUNGS, 1)


async def test_a_failure_is_not_remembered_for_ever(
    tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy node fails once and works later."""
    clock = StepClock()
    runtime = fake_runtime(tmp_path, f'[ -e "$0.log" ] || {{ {NEVER_WORKS}; }}\n{WORKS}')
    choice = ladder(tmp_path, [runtime], clock=clock)

    first = await choice.choose(image, ContainerPolicy.PREFER)
    clock.advance(FAILURE_KEPT_S)
    second = await choice.choose(image, ContainerPolicy.PREFER)

    assert not first.rung.own_pid_namespace
    assert second.rung.own_pid_namespace


async def test_a_changed_runtime_or_image_is_tried_again(
    tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was true of the old one says nothing of the new one."""
    monkeypatch.setattr("pilot.containers.search.GLANCE_KEPT_S", 0.0)
    runtime = fake_runtime(tmp_path, WORKS)
    choice = ladder(tmp_path, [runtime])
    await choice.choose(image, ContainerPolicy.PREFER)

    os.utime(image, (1, 1))
    await choice.choose(image, ContainerPolicy.PREFER)
    os.utime(runtime.path, (1, 1))
    await choice.choose(image, ContainerPolicy.PREFER)

    assert tries(runtime) == 3


async def test_what_broke_later_is_not_tried_again(tmp_path: Path, image: str) -> None:
    """A runtime that worked in its check and not for the job: the next rung, at last bare."""
    runtime = fake_runtime(tmp_path, f'case "$*" in *-C*) {WORKS} ;; *) {NEVER_WORKS} ;; esac')
    steps = ladder(tmp_path, [runtime])
    first = await steps.choose(image, ContainerPolicy.PREFER)

    assert steps.launch_failed(first, "it died before its first word")
    second = await steps.choose(image, ContainerPolicy.PREFER)

    assert first.runtime == runtime
    assert second.steps[0].reason is Reason.BROKE_LATER
    assert "died before its first word" in second.reasons[0]
    assert not steps.launch_failed(Choice(), "bare has no other way")


async def test_one_check_serves_all_who_wait_for_it(tmp_path: Path, image: str) -> None:
    """Fifty jobs that come at once cost one try."""
    runtime = fake_runtime(tmp_path, WORKS)
    steps = ladder(tmp_path, [runtime])
    choices = await asyncio.gather(
        *(steps.choose(image, ContainerPolicy.REQUIRE) for _ in range(50))
    )

    assert {choice.runtime for choice in choices} == {runtime}
    assert tries(runtime) == 1


async def test_the_next_pilot_remembers(tmp_path: Path, image: str) -> None:
    """What was verified is in a file: a pilot that starts anew pays nothing."""
    runtime = fake_runtime(tmp_path, WORKS)
    file = tmp_path / "verified.json"
    for _ in range(2):
        steps = ladder(tmp_path, [runtime], memory=Memory(file))
        assert (await steps.choose(image, ContainerPolicy.REQUIRE)).runtime == runtime

    assert tries(runtime) == 1


async def test_a_scratch_directory_that_is_not_there_is_named(tmp_path: Path, image: str) -> None:
    """Without a place for the check there is no container, and the reason is not the runtime."""
    choice = ladder(tmp_path / "gone", [fake_runtime(tmp_path, WORKS)])

    with pytest.raises(OperatorError, match="gone"):
        await choice.choose(image, ContainerPolicy.REQUIRE)


# --- with the real bundle, in the real Apptainer, in an image without libc and Python ---------


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Give a directory that every user may read."""
    with public_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def bundle(place: Path) -> Bundle:
    """Give the real bundle."""
    return build_bundle(place / "bundles")


@pytest.fixture(scope="module")
def busybox(place: Path) -> str:
    """Give an image that has neither libc nor Python."""
    return str(make_image(place / "image"))


SITES = [
    ({}, True, set()),
    ({"enable overlay": "no", "enable underlay": "no"}, True, set()),
    ({"allow pid ns": "no"}, False, {Reason.NO_PID_NAMESPACE}),
    ({"allow user ns": "no"}, None, {Reason.NO_USER_NAMESPACE}),
    ({"user bind control": "no"}, None, {Reason.BINDS_FORBIDDEN}),
    ({"allow container dir": "no"}, None, {Reason.IMAGE_FORBIDDEN}),
]


@pytest.mark.apptainer
@needs_apptainer
@pytest.mark.parametrize(("settings", "own_pid_namespace", "reasons"), SITES)
async def test_each_site_gets_the_best_that_it_can_give(
    tmp_path: Path,
    bundle: Bundle,
    busybox: str,
    settings: dict[str, str],
    own_pid_namespace: bool | None,
    reasons: set[Reason],
) -> None:
    """The wrapper's Python runs in busybox; what a site can't give is a rung lower."""
    runtime = site_runtime(tmp_path, "", settings)
    choice = await ladder(tmp_path, [runtime], bundle=bundle).choose(
        busybox, ContainerPolicy.PREFER
    )

    assert reasons <= {step.reason for step in choice.steps}, choice.reasons
    assert (choice.runtime is None) == (own_pid_namespace is None), choice.reasons
    if choice.runtime is not None:
        assert choice.rung.own_pid_namespace == own_pid_namespace


# --- an image that this runtime can't take as it is --------------------------------------------


class Unpacking(ImageStore):
    """Has one image file, and the directory that it is unpacked to."""

    def __init__(self, file: Path, directory: Path) -> None:
        super().__init__()
        self._file = LocalImage(
            reference="an.sif", path=str(file), form=ImageForm.SIF, state="1", digest="sha256:1"
        )
        self._directory = msgspec.structs.replace(
            self._file, path=str(directory), form=ImageForm.DIRECTORY
        )

    async def get(self, reference: str, *, digest: str = "") -> LocalImage:
        """Return the file."""
        return self._file

    async def as_directory(self, image: LocalImage) -> LocalImage:
        """Return the directory."""
        return self._directory


async def test_an_image_that_cannot_be_mounted_is_unpacked(tmp_path: Path, image: str) -> None:
    """No FUSE and no loop device: the same runtime takes its files as a directory."""
    script = f'case "$*" in *an.sif*) {UNMOUNTABLE} ;; esac\n{WORKS}'
    runtime = fake_runtime(tmp_path, script)
    steps = ladder(tmp_path, [runtime], images=Unpacking(tmp_path / "an.sif", Path(image)))
    choice = await steps.choose("an.sif", ContainerPolicy.REQUIRE)

    assert choice.runtime == runtime
    assert choice.image is not None
    assert (choice.image.path, choice.image.digest) == (image, "sha256:1")
    assert [step.reason for step in choice.steps] == [Reason.IMAGE_UNMOUNTABLE] * 2


async def test_a_runtime_that_takes_directories_only_gets_one(tmp_path: Path, image: str) -> None:
    """It is not even asked to try the file."""
    (Path(image) / "bin").mkdir()
    fake = fake_runtime(tmp_path, WORKS, "bwrap")
    runtime = msgspec.structs.replace(fake, kind=RuntimeKind.BUBBLEWRAP)
    steps = ladder(tmp_path, [runtime], images=Unpacking(tmp_path / "an.sif", Path(image)))
    choice = await steps.choose("an.sif", ContainerPolicy.REQUIRE)

    assert choice.image is not None
    assert choice.image.path == image
    assert choice.steps == ()


async def test_what_one_runtime_cannot_be_told_the_next_is(tmp_path: Path) -> None:
    """A comma in the state directory's path is nothing to Apptainer, and too much for Podman."""
    place = owned_directory(tmp_path / "a,b", "")
    image = owned_directory(place / "image", "")
    podman = Runtime(path="/nonexistent/podman", kind=RuntimeKind.PODMAN)
    apptainer = fake_runtime(tmp_path, WORKS)
    choice = await ladder(place, [podman, apptainer]).choose(str(image), ContainerPolicy.REQUIRE)

    assert choice.runtime == apptainer
    assert {step.reason for step in choice.steps} == {Reason.NOT_EXPRESSIBLE}
