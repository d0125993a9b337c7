from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pilot.bundle import Bundle, build_bundle
from pilot.containers.check import own_pid_namespace, verify
from pilot.containers.ladder import Choice, ContainerChoice, ContainerPolicy
from pilot.containers.runtime import BUNDLE_INSIDE, WORK_INSIDE, Bind, ContainerLaunch, Runtime
from pilot.containers.search import FileState
from tests.pilot.sandbox import (
    USERS,
    fake_runtime,
    make_image,
    needs_apptainer,
    needs_userns,
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
NEVER_WORKS = 'echo tried >> "$0.log"; echo "FATAL: no loop device" >&2; exit 255'


def chooser(
    scratch: Path,
    runtimes: Sequence[Runtime],
    *,
    bundle_root: Path = Path("/nonexistent"),
    check_command: tuple[str, ...] = ("check",),
    use_userns: bool = False,
) -> ContainerChoice:
    """Make a chooser with counted nonces."""
    counter = itertools.count()
    return ContainerChoice(
        runtimes=runtimes,
        bundle_root=bundle_root,
        check_command=check_command,
        make_nonce=lambda: f"nonce{next(counter)}",
        scratch_directory=scratch,
        host=os.environ,
        use_userns=use_userns,
        timeout_s=30.0,
    )


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

    choice = await chooser(scratch, [runtime]).choose(image, policy)

    assert choice == Choice(runtime=runtime, own_pid_namespace=True)
    assert list(scratch.iterdir()) == []


async def test_the_second_rung_has_no_pid_namespace(tmp_path: Path, image: str) -> None:
    """Where it can't be had, the job is told and runs all the same."""
    runtime = fake_runtime(tmp_path, WORKS_WITHOUT_PID_NAMESPACE)

    choice = await chooser(tmp_path, [runtime]).choose(image, ContainerPolicy.REQUIRE)

    assert choice.runtime == runtime
    assert not choice.own_pid_namespace
    assert len(choice.reasons) == 1
    assert "doesn't let a container mount /proc" in choice.reasons[0]


async def test_the_next_runtime_is_tried(tmp_path: Path, image: str) -> None:
    """Each rung that broke has its reason."""
    broken = fake_runtime(tmp_path, NEVER_WORKS, "broken")
    working = fake_runtime(tmp_path, WORKS, "working")

    choice = await chooser(tmp_path, [broken, working]).choose(image, ContainerPolicy.PREFER)

    assert choice.runtime == working
    assert len(choice.reasons) == 2
    assert all("no loop device" in reason for reason in choice.reasons)


async def test_a_preferred_container_that_cannot_be_had_is_none(tmp_path: Path, image: str) -> None:
    """The job runs bare, and its trace says why."""
    runtime = fake_runtime(tmp_path, NEVER_WORKS)

    choice = await chooser(tmp_path, [runtime]).choose(image, ContainerPolicy.PREFER)

    assert choice.runtime is None
    assert len(choice.reasons) == 2


async def test_a_required_container_that_cannot_be_had_is_an_error(
    tmp_path: Path, image: str
) -> None:
    """The operator reads which runtime, which image and why."""
    runtime = fake_runtime(tmp_path, NEVER_WORKS)
    choice = chooser(tmp_path, [runtime])

    with pytest.raises(OperatorError, match=rf"{runtime.path}.*{image}.*no loop device"):
        await choice.choose(image, ContainerPolicy.REQUIRE)
    with pytest.raises(OperatorError, match="No container runtime"):
        await chooser(tmp_path, []).choose(image, ContainerPolicy.REQUIRE)


@pytest.mark.parametrize("image", ["/nonexistent/image", "docker://alpine", ""])
async def test_an_image_that_is_not_there_is_the_users_business(tmp_path: Path, image: str) -> None:
    """It is named; where a container is only preferred, the job runs bare."""
    runtime = fake_runtime(tmp_path, WORKS)
    choice = chooser(tmp_path, [runtime])

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

    async def hung(_path: str) -> FileState:
        return FileState(problem="its file system doesn't answer in 5 s", is_hung=True)

    monkeypatch.setattr("pilot.containers.ladder.inspect_file", hung)

    with pytest.raises(OperatorError, match="/cvmfs/x can't be used: its file system"):
        await chooser(tmp_path, []).choose("/cvmfs/x", ContainerPolicy.REQUIRE)


async def test_never_means_never(tmp_path: Path, image: str) -> None:
    """Nothing is tried, and the reason is the setting."""
    runtime = fake_runtime(tmp_path, WORKS)

    choice = await chooser(tmp_path, [runtime]).choose(image, ContainerPolicy.NEVER)

    assert choice == Choice(reasons=("Containers are switched off in the settings.",))
    assert tries(runtime) == 0


async def test_what_was_tried_is_remembered(tmp_path: Path, image: str) -> None:
    """The next job pays nothing, for what works and for what doesn't."""
    broken = fake_runtime(tmp_path, NEVER_WORKS, "broken")
    working = fake_runtime(tmp_path, WORKS, "working")
    choice = chooser(tmp_path, [broken, working])

    first = await choice.choose(image, ContainerPolicy.PREFER)
    second = await choice.choose(image, ContainerPolicy.PREFER)

    assert first == second
    assert (tries(broken), tries(working)) == (2, 1)


async def test_a_failure_is_not_remembered_for_ever(
    tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy node fails once and works later."""
    monkeypatch.setattr("pilot.containers.ladder._FAILURE_KEPT_S", 0.0)
    runtime = fake_runtime(tmp_path, f'[ -e "$0.log" ] || {{ {NEVER_WORKS}; }}\n{WORKS}')
    choice = chooser(tmp_path, [runtime])

    first = await choice.choose(image, ContainerPolicy.PREFER)
    second = await choice.choose(image, ContainerPolicy.PREFER)

    assert not first.own_pid_namespace
    assert second.own_pid_namespace


async def test_a_changed_runtime_or_image_is_tried_again(tmp_path: Path, image: str) -> None:
    """What was true of the old one says nothing of the new one."""
    runtime = fake_runtime(tmp_path, WORKS)
    choice = chooser(tmp_path, [runtime])
    await choice.choose(image, ContainerPolicy.PREFER)

    os.utime(image, (1, 1))
    await choice.choose(image, ContainerPolicy.PREFER)
    os.utime(runtime.path, (1, 1))
    await choice.choose(image, ContainerPolicy.PREFER)

    assert tries(runtime) == 3


async def test_memory_has_a_bound(
    tmp_path: Path, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest is forgotten, however many images pass by."""
    monkeypatch.setattr("pilot.containers.ladder._REMEMBERED_MAX", 1)
    runtime = fake_runtime(tmp_path, WORKS)
    choice = chooser(tmp_path, [runtime])

    for name in (image, str(tmp_path), image):
        await choice.choose(name, ContainerPolicy.PREFER)

    assert tries(runtime) == 3


async def test_a_scratch_directory_that_is_not_there_is_named(tmp_path: Path, image: str) -> None:
    """Without a place for the check there is no container, and the reason is not the runtime."""
    choice = chooser(tmp_path / "gone", [fake_runtime(tmp_path, WORKS)])

    with pytest.raises(OperatorError, match="gone"):
        await choice.choose(image, ContainerPolicy.REQUIRE)


# --- with the real bundle, in the real Apptainer, in an image without libc and Python ---------

BOOT = """
import os, sys
app = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [app, os.path.join(os.path.dirname(app), "site")]
import asyncio, hashlib, json, zipfile
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from transport.messages import StartJob

name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "job 1")])
key = ec.generate_private_key(ec.SECP256R1())
x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
open("probe", "w").close()
print(json.dumps({
    "nonce": sys.argv[-1],
    "pid": os.getpid(),
    "pid_namespace": os.stat("/proc/self/ns/pid").st_ino,
    "user_namespace": os.stat("/proc/self/ns/user").st_ino,
    "uid": os.getuid(),
    "work_is_writable": os.path.exists("probe"),
    "python": sys.version.split()[0],
}))
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Give a directory that every user may read."""
    with public_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def bundle(place: Path) -> Bundle:
    """Give a bundle with a self-check of the test's own in it."""
    bundle = build_bundle(place / "bundles")
    (bundle.root / "app" / "boot_of_the_test.py").write_text(BOOT)
    return bundle


@pytest.fixture(scope="module")
def busybox(place: Path) -> str:
    """Give an image that has neither libc nor Python."""
    return str(make_image(place / "image"))


SITES = [
    ({"enable overlay": "no", "enable underlay": "no"}, True, ""),
    ({"enable overlay": "no", "enable underlay": "yes"}, True, ""),
    ({"enable overlay": "yes", "enable underlay": "no"}, True, ""),
    ({"allow pid ns": "no"}, False, "forbids PID namespaces"),
    ({"allow user ns": "no"}, None, "forbids user namespaces"),
]


def check_command(bundle: Bundle) -> tuple[str, ...]:
    """Return the test's own self-check, as it is seen inside."""
    return (*bundle.command(BUNDLE_INSIDE)[:-1], f"{BUNDLE_INSIDE}/app/boot_of_the_test.py")


@pytest.mark.apptainer
@needs_apptainer
@pytest.mark.parametrize(("settings", "own_pid_namespace", "reason"), SITES)
async def test_each_site_gets_the_best_that_it_can_give(
    tmp_path: Path,
    bundle: Bundle,
    busybox: str,
    settings: dict[str, str],
    own_pid_namespace: bool | None,
    reason: str,
) -> None:
    """The wrapper's Python runs in busybox; what a site can't give is a rung lower."""
    choice = await chooser(
        tmp_path,
        [site_runtime(tmp_path, "", settings)],
        bundle_root=bundle.root,
        check_command=check_command(bundle),
        use_userns=needs_userns(""),
    ).choose(busybox, ContainerPolicy.PREFER)

    assert reason in " ".join(choice.reasons), choice.reasons
    assert (choice.runtime is None) == (own_pid_namespace is None), choice.reasons
    assert choice.own_pid_namespace == bool(own_pid_namespace)


@pytest.mark.apptainer
@needs_apptainer
@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize(("settings", "own_pid_namespace", "_"), SITES)
async def test_every_user_gets_the_same(
    bundle: Bundle,
    busybox: str,
    user: str,
    settings: dict[str, str],
    own_pid_namespace: bool | None,
    _: str,
) -> None:
    """Root, who asks for a user namespace, and an ordinary user, who gets one unasked."""
    with public_directory() as site:
        launch = ContainerLaunch(
            runtime=site_runtime(site, user, settings),
            image=busybox,
            binds=(
                Bind(source=str(owned_directory(site / "work", user)), destination=WORK_INSIDE),
                Bind(source=str(bundle.root), destination=BUNDLE_INSIDE, read_only=True),
            ),
            scratch_directory=str(owned_directory(site / "scratch", user)),
            own_pid_namespace=bool(own_pid_namespace),
            use_userns=needs_userns(user),
        )
        verification = await verify(
            launch, check_command(bundle), nonce="n", host=os.environ, timeout_s=30.0
        )

    assert verification.works == (own_pid_namespace is not None), verification.reason
