"""The bundle in real roots: no libc, an older one than the node's, the same, and a newer one.

The Debian roots are made by tests/engines/make-roots, in the directory that TEST_ROOTS names.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.bundle import WRAPPER_VARIABLES, Bundle, build_bundle
from pilot.containers.check import Asked, Verification, own_pid_namespace, verify
from pilot.containers.runtime import Bind, ContainerLaunch, Rung
from tests.pilot.pilot_run import pilot
from tests.pilot.sandbox import (
    NONCE,
    USERS,
    make_image,
    needs_apptainer,
    needs_userns,
    owned_directory,
    public_directory,
    site_runtime,
)

pytestmark = [pytest.mark.real, pytest.mark.apptainer, needs_apptainer]
ROOTS = Path(os.environ.get("TEST_ROOTS", "/var/tmp/pilot-roots"))
NAMES = ("busybox", "bullseye", "bookworm", "unstable")

# What a payload sees of itself: one section each for its variables, descriptors and memory.
PAYLOAD = """#!/bin/sh
env
echo ---
ls /proc/self/fd
echo ---
cat /proc/self/maps
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Give a directory that every user may read."""
    with public_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def bundle(place: Path) -> Bundle:
    """Give a bundle of this interpreter and this checkout."""
    return build_bundle(place / "bundles")


@pytest.fixture(scope="module")
def busybox(place: Path) -> Path:
    """Give the image without a libc."""
    return make_image(place / "busybox")


@pytest.fixture
def root(request: pytest.FixtureRequest, busybox: Path) -> Path:
    """Give the root of a name, or skip where it wasn't made."""
    name = str(request.param)
    if name == "busybox":
        return busybox
    if not (ROOTS / name / "bin" / "sh").exists():
        pytest.skip(f"{ROOTS} has no Debian {name}; tests/engines/make-roots makes it.")
    return ROOTS / name


@pytest.fixture
def hostile(root: Path, tmp_path: Path) -> Path:
    """Give a copy of a root that does what it can to disturb a program with another libc."""
    image = tmp_path / "hostile"
    shutil.copytree(root, image, symlinks=True, ignore_dangling_symlinks=True)
    libc = Path("lib/libc.so.6")
    (image / libc.parent).mkdir(exist_ok=True)
    (image / libc).write_bytes(b"no library at all")
    for name in ("libpython3.11.so.1.0", "libz.so.1", "evil.so"):
        shutil.copy(image / libc, image / "lib" / name)
    etc = image / "etc"
    (etc / "ld.so.preload").write_text("/lib/evil.so\n")
    (etc / "ld.so.conf").write_text("/lib\n")
    (etc / "ssl").mkdir(exist_ok=True)
    (etc / "ssl" / "openssl.cnf").write_text("openssl_conf = x\n[x]\nproviders = y\n[y]\nz = z\n")
    (image / ".singularity.d" / "env").mkdir(parents=True, exist_ok=True)
    (image / ".singularity.d" / "env" / "99-hostile.sh").write_text(
        "export PYTHONHOME=/nonexistent PYTHONPATH=/lib PYTHONSTARTUP=/etc/passwd\n"
        "export LD_LIBRARY_PATH=/lib LD_PRELOAD=/lib/evil.so LD_AUDIT=/lib/evil.so\n"
        "export OPENSSL_CONF=/etc/ssl/openssl.cnf OPENSSL_MODULES=/lib LC_ALL=xx_XX.ISO-8859-15\n"
    )
    return image


def checked(bundle: Bundle, image: Path, place: Path, user: str) -> Verification:
    """Run the wrapper's self-check from the bundle, as a trial does."""
    work = owned_directory(place / "work", user)
    (work / "nonce").write_text(NONCE)
    launch = ContainerLaunch(
        runtime=site_runtime(place, user, {}),
        image=str(image),
        binds=(
            Bind(source=str(bundle.root), destination="/tmp/pilot", read_only=True),
            Bind(source=str(work), destination="/tmp/job"),
        ),
        working_directory="/tmp/job",
        rung=Rung(use_userns=needs_userns(user)),
        environment=WRAPPER_VARIABLES,
    )
    asked = Asked(
        nonce=NONCE,
        writable=("/tmp/job",),
        read_only=("/tmp/pilot",),
        host_pid_namespace=own_pid_namespace(),
    )
    command = (*bundle.command("/tmp/pilot"), "check")
    return asyncio.run(verify(launch, command, asked, host=os.environ, timeout_s=60.0))


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("root", NAMES, indirect=True)
def test_the_self_check_answers_in_every_root(bundle: Bundle, root: Path, user: str) -> None:
    """As root with a user namespace, and as an ordinary user: no image needs Python or libc."""
    with public_directory() as own:
        verification = checked(bundle, root, own, user)

    assert verification.works, verification


@pytest.mark.parametrize("root", ["bullseye", "unstable"], indirect=True)
def test_what_an_image_says_of_linking_is_not_heard(bundle: Bundle, hostile: Path) -> None:
    """Its preload list, libraries, variables, locale and OpenSSL settings leave us alone."""
    with public_directory() as own:
        verification = checked(bundle, hostile, own, "")

    assert verification.works, verification


def payload_of_job(state: Path, *arguments: str) -> tuple[dict[str, object], str]:
    """Run one whole job with the payload; return how it ended, and what it wrote."""
    jdl = state.with_name("job.jdl")
    state.with_name("payload.sh").write_text(PAYLOAD)
    jdl.write_text('Executable = "payload.sh"; TTL = 120;')
    code, stdout, stderr = pilot("run", "--state", str(state), "--json", *arguments, str(jdl))
    assert code == 0, stdout + stderr
    job = json.loads(pilot("show", "1", "--state", str(state), "--json")[1])
    text: str = json.loads(pilot("logs", "1", "--state", str(state), "--json")[1])["stdout"]
    return job, text


def assert_nothing_of_ours(text: str) -> None:
    """Assert that a payload has nothing that the bundle needs."""
    variables, descriptors, maps = text.split("---\n")
    names = {line.partition("=")[0] for line in variables.splitlines()}

    assert not {name for name in names if name.startswith(("LD_", "PYTHON", "OPENSSL", "GLIBC"))}
    assert set(descriptors.split()) <= {"0", "1", "2", "3"}  # 3 is how ls reads the directory
    assert "/tmp/pilot" not in text
    assert "bundle-" not in text
    assert "python" not in maps


@pytest.mark.parametrize("root", NAMES, indirect=True)
def test_a_whole_job_runs_in_every_root(root: Path, bundle: Bundle, tmp_path: Path) -> None:
    """With its key made inside, from a published bundle; nothing of it reaches the payload."""
    job, text = payload_of_job(
        tmp_path / "state",
        *("--container", "require", "--image", str(root)),
        *("--settings", settings(tmp_path, bundle)),
    )

    assert job["container"] == "apptainer"
    assert "X509_USER_PROXY=/tmp/job/private/job.proxy" in text
    assert_nothing_of_ours(text)
    assert not list((tmp_path / "state").glob("bundle*"))


@pytest.mark.parametrize("root", ["bullseye"], indirect=True)
def test_a_whole_job_runs_in_a_hostile_image(hostile: Path, bundle: Bundle, tmp_path: Path) -> None:
    """The wrapper signs, stages and reports as in any other; its payload is a static busybox's."""
    state = tmp_path / "state"
    jdl = tmp_path / "job.jdl"
    jdl.write_text('Executable = "/nonexistent";')

    pilot(
        *("run", "--state", str(state), "--container", "require", "--image", str(hostile)),
        *("--settings", settings(tmp_path, bundle), str(jdl)),
    )
    job = json.loads(pilot("show", "1", "--state", str(state), "--json")[1])

    assert job["status"] == "ERROR_E"
    assert job["container"] == "apptainer"


def test_a_bare_payload_has_nothing_of_ours(tmp_path: Path) -> None:
    """Whatever the wrapper's interpreter needs, its payload's environment is the job's."""
    _, text = payload_of_job(tmp_path / "state", "--container", "never")

    assert_nothing_of_ours(text)


def settings(directory: Path, bundle: Bundle) -> str:
    """Write a settings file that names a published bundle."""
    file = directory / "pilot.toml"
    file.write_text(f"bundle = {json.dumps(str(bundle.root.parent))}\n")
    return str(file)
