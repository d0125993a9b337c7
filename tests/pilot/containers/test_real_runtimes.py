"""bubblewrap, Podman, Charliecloud and Docker, for real, as root and as an ordinary user."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.bundle import Bundle, build_bundle
from pilot.containers.runtime import Bind, Reason, Runtime, RuntimeKind
from tests.pilot.containers.real_runtimes import (
    BUNDLE,
    KINDS,
    SECRET,
    Place,
    docker_daemon,
    real_runtime,
    rungs_of,
    uid_of,
)
from tests.pilot.sandbox import USERS, make_image, public_directory

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]
OWN_ROOT = [kind for kind in KINDS if kind is not RuntimeKind.CHARLIECLOUD]
"""Those that put the root together from the image's entries."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """Give a directory for what the tests share."""
    with public_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def bundle(shared: Path) -> Bundle:
    """Give a bundle that every user may read."""
    return build_bundle(shared / "bundles")


@pytest.fixture(scope="module")
def image(shared: Path) -> Path:
    """Give a busybox image."""
    return make_image(shared / "image")


@pytest.fixture(scope="module")
def docker(shared: Path) -> Iterator[str]:
    """Give the address of a Docker daemon."""
    (shared / "docker").mkdir()
    with docker_daemon(shared / "docker") as address:
        yield address


@pytest.fixture(params=USERS)
def user(request: pytest.FixtureRequest) -> str:
    """Give the current user, and the ordinary one."""
    return str(request.param)


@pytest.fixture(params=KINDS)
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """Give each of them."""
    found = real_runtime(request.param)
    if found.kind is RuntimeKind.DOCKER:
        monkeypatch.setenv("DOCKER_HOST", request.getfixturevalue("docker"))
    return found


@pytest.fixture
def place(image: Path, bundle: Bundle, user: str) -> Iterator[Place]:
    """Give the directories of one launch."""
    with public_directory() as directory:
        yield Place(directory / "a place", image, bundle, user)


async def test_the_self_check_finds_what_was_asked_for(runtime: Runtime, place: Place) -> None:
    """On every rung: the work directory, the bundle read-only, the namespace, no new rights."""
    for rung in rungs_of(runtime.kind, place.user):
        verification = await place.check(place.launch(runtime, rung))

        assert verification.works, f"{rung}: {verification.detail}"
        assert verification.found is not None
        assert verification.found.no_new_privileges
        assert verification.found.namespaces["net"] == os.stat("/proc/self/ns/net").st_ino
        assert verification.found.namespaces["mnt"] != os.stat("/proc/self/ns/mnt").st_ino
        assert verification.found.namespaces["ipc"] != os.stat("/proc/self/ns/ipc").st_ino


async def test_inside_there_is_nothing_of_the_node(
    runtime: Runtime, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No home, no /tmp, no variable of the pilot's; no right but to its own directories."""
    monkeypatch.setenv("HIDDEN", "nobody's business")
    before = sorted(path.relative_to(place.image) for path in place.image.rglob("*"))
    rung = rungs_of(runtime.kind, place.user)[0]

    finished = await place.run(
        place.launch(runtime, rung),
        *("/bin/sh", "-c"),
        f"ls /tmp; echo $PILOT_MARK; echo home $(ls -d {Path.home()} /home/* 2>/dev/null);"
        f"echo hidden $HIDDEN; touch /x /bin/x {BUNDLE}/x 2>/dev/null; ls -d /x /bin/x {BUNDLE}/x;"
        "grep CapEff /proc/self/status; echo of the job >/tmp/there; echo of the job >result; pwd",
    )

    assert finished.exit_code == 0, finished.stderr
    assert finished.stdout.decode().split("\n") == [
        *("job", "pilot"),
        SECRET,
        *("home", "hidden"),
        "CapEff:\t0000000000000000",
        "/tmp/job/work",
        "",
    ]
    assert (place.work / "result").read_text() == "of the job\n"
    assert (place.work / "result").stat().st_uid == uid_of(place.user)
    assert any(path.read_text() == "of the job\n" for path in place.scratch.rglob("there"))
    assert {path.lstat().st_uid for path in place.root.rglob("*")} == {uid_of(place.user)}
    assert sorted(path.relative_to(place.image) for path in place.image.rglob("*")) == before


async def test_stdin_and_stdout_are_bytes(runtime: Runtime, place: Place) -> None:
    """What goes in and comes out is a protocol: no byte is changed, none is added."""
    rung = rungs_of(runtime.kind, place.user)[0]
    every_byte = 'i=0; while [ $i -lt 256 ]; do printf "\\\\$(printf %o $i)"; i=$((i+1)); done'

    finished = await place.run(place.launch(runtime, rung), "/bin/sh", "-c", every_byte)

    assert finished.stdout == bytes(range(256)), finished.stderr


@pytest.mark.parametrize("runtime", OWN_ROOT, indirect=True)
async def test_an_image_needs_no_mount_point(runtime: Runtime, place: Place) -> None:
    """Not even /tmp, /proc and /dev: all are made in a root of the launch's own."""
    place.image = place.root / "bare image"
    shutil.copytree(make_image(place.root.parent / "busybox") / "bin", place.image / "bin")

    for rung in rungs_of(runtime.kind, place.user):
        verification = await place.check(place.launch(runtime, rung))

        assert verification.works, f"{rung}: {verification.detail}"
    assert [path.name for path in place.image.iterdir()] == ["bin"]


@pytest.mark.parametrize("runtime", OWN_ROOT, indirect=True)
async def test_a_hostile_image_shows_nothing_of_the_node(runtime: Runtime, place: Place) -> None:
    """A link of the image's leads nowhere outside; its own links work, and so do names."""
    keys = place.root / "keys"
    keys.mkdir()
    (keys / "key").write_text("private")
    place.image = place.root / "image"
    shutil.copytree(make_image(place.root.parent / "busybox") / "bin", place.image / "usr" / "bin")
    (place.image / "bin").symlink_to("usr/bin")
    (place.image / "data").symlink_to(keys)
    (place.image / "etc").symlink_to(keys)
    (place.image / "tmp").symlink_to(keys)
    (place.image / "a b'c").mkdir()
    rung = rungs_of(runtime.kind, place.user)[0]

    finished = await place.run(
        place.launch(runtime, rung),
        *("/bin/sh", "-c", "cat /data/key /etc/key /tmp/key; ls -d /a*; cat /etc/hosts; echo end"),
    )

    assert b"private" not in finished.stdout
    assert b"a b'c" in finished.stdout, finished.stderr
    assert b"localhost" in finished.stdout
    assert finished.stdout.endswith(b"end\n")
    assert [path.name for path in keys.iterdir()] == ["key"]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("/nowhere", Reason.MISSING_FILE),
        ("/etc/passwd", Reason.IMAGE_FORMAT),
        ("/root", Reason.NO_ACCESS),
        ("empty", Reason.IMAGE_FORMAT),
    ],
)
async def test_an_image_that_is_none_is_named(
    runtime: Runtime, place: Place, image: str, reason: Reason
) -> None:
    """Each with a code, and in a sentence."""
    (place.root / "empty").mkdir()
    place.image = place.root / image
    is_charliecloud = runtime.kind is RuntimeKind.CHARLIECLOUD
    if reason is Reason.NO_ACCESS and uid_of(place.user) == 0:
        pytest.skip("root may look into everything")
    if place.image.is_dir() and reason is Reason.IMAGE_FORMAT and is_charliecloud:
        reason = Reason.NO_MOUNT_POINT
    for rung in rungs_of(runtime.kind, place.user):
        verification = await place.check(place.launch(runtime, rung))

        assert (verification.works, verification.reason) == (False, reason), verification.detail


@pytest.mark.parametrize(
    ("bind", "reason"),
    [
        (Bind(source="/etc", destination="/bin/nothing"), Reason.NO_MOUNT_POINT),
        (Bind(source="/nowhere", destination="/tmp/x"), Reason.MISSING_FILE),
    ],
)
async def test_a_bind_that_cannot_be_is_named(
    runtime: Runtime, place: Place, bind: Bind, reason: Reason
) -> None:
    """A mount point in the image's own directories, and a source that isn't there."""
    rung = rungs_of(runtime.kind, place.user)[0]

    verification = await place.check(place.launch(runtime, rung, bind))

    assert (verification.works, verification.reason) == (False, reason), verification.detail


@pytest.mark.parametrize("runtime", [kind for kind in KINDS if kind != "docker"], indirect=True)
async def test_a_node_without_user_namespaces_is_named(runtime: Runtime, place: Place) -> None:
    """The number of them may be zero: made so in a namespace, where it is ours to say."""
    if uid_of(place.user) == 0:
        pytest.skip("root needs no user namespace")
    rung = rungs_of(runtime.kind, place.user)[0]
    fewer = 'echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all "$@"'
    launch = place.launch(runtime, rung)

    around = ("unshare", "--user", "--map-root-user", "sh", "-c", fewer, "sh")
    verification = await place.check(launch, around=around)

    assert (verification.works, verification.reason) == (False, Reason.NO_USER_NAMESPACE), (
        verification.detail
    )
