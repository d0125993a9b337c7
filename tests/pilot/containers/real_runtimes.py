"""The real runtimes beside Apptainer, for tests: what they need, and a launch through each."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pilot.bounded_process import Finished, run_bounded
from pilot.bundle import Bundle
from pilot.containers.check import (
    COMMON_CAUSES,
    Asked,
    Verification,
    judge,
    own_pid_namespace,
    verify,
)
from pilot.containers.dialects import dialect_of
from pilot.containers.runtime import Bind, ContainerLaunch, Rung, Runtime, RuntimeKind
from tests.pilot.sandbox import NONCE, owned_directory

KINDS = (
    RuntimeKind.BUBBLEWRAP,
    RuntimeKind.PODMAN,
    RuntimeKind.CHARLIECLOUD,
    RuntimeKind.DOCKER,
)
WORK, BUNDLE = "/tmp/job/work", "/tmp/pilot"
SECRET = "t0p 'secret' $HOME"
_TIMEOUT_S = 60.0


def real_runtime(kind: RuntimeKind) -> Runtime:
    """Return a runtime of this machine; skip the test where there is none."""
    found = shutil.which(dialect_of(kind).programs[0])
    if found is None:
        pytest.skip(f"There is no {kind} here; tests/engines/install-runtimes installs it.")
    return Runtime(path=found, kind=kind)


@contextmanager
def docker_daemon(place: Path) -> Iterator[str]:
    """Run a Docker daemon, reached through a socket in ``place`` only; yield its address.

    Where only another's is to be had, that; the test is skipped where there is none.
    """
    ask = ["docker", "version"]
    if shutil.which("docker") and not subprocess.run(ask, capture_output=True).returncode:
        yield os.environ.get("DOCKER_HOST", "")
        return
    if os.geteuid() != 0:
        pytest.skip("No Docker daemon answers, and only root can start one.")
    if shutil.which("dockerd") is None:
        pytest.skip("There is no dockerd here; tests/engines/install-runtimes installs it.")
    address = f"unix://{place}/docker.sock"
    # What it mounts is left behind: so it has a mount namespace of its own.
    command = (
        f"unshare --mount dockerd --host={address} --bridge=none --iptables=false "
        "--ip6tables=false --ip-forward=false --storage-driver=vfs "
        f"--data-root={place}/data --exec-root={place}/run --pidfile={place}/pid"
    )
    with (place / "log").open("wb") as log:
        daemon = subprocess.Popen(command.split(), stdout=log, stderr=log)
    try:
        _wait_docker(ask, address, daemon)
        # The tests' ordinary user is in no group of Docker's.
        (place / "docker.sock").chmod(0o666)
        yield address
    finally:
        daemon.terminate()
        daemon.wait(30)


def _wait_docker(ask: list[str], address: str, daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    environment = {**os.environ, "DOCKER_HOST": address}
    while subprocess.run(ask, env=environment, capture_output=True).returncode:
        assert daemon.poll() is None, "dockerd ended"
        assert time.monotonic() < deadline, "dockerd doesn't answer"
        time.sleep(0.1)


def rungs_of(kind: RuntimeKind, user: str) -> tuple[Rung, ...]:
    """Return the ways in which a user may use it."""
    runtime = Runtime(path="/nowhere", kind=kind)
    is_root = os.geteuid() == 0 and not user
    return dialect_of(kind).rungs(runtime, is_root=is_root)


class Place:
    """Directories of one launch, its user's own, with blanks in their names."""

    def __init__(self, root: Path, image: Path, bundle: Bundle, user: str) -> None:
        self.user = user
        self.image = image
        self.bundle = bundle
        self.root = owned_directory(root, user)
        self.work = owned_directory(root / "my work", user)
        self.scratch = owned_directory(root / "scratch it", user)
        (self.work / "nonce").write_text(NONCE)
        shutil.chown(self.work / "nonce", uid_of(user))

    def launch(self, runtime: Runtime, rung: Rung, *more: Bind) -> ContainerLaunch:
        """Return a launch with this place's work directory and the bundle."""
        return ContainerLaunch(
            runtime=runtime,
            image=str(self.image),
            binds=(
                Bind(source=str(self.work), destination=WORK),
                Bind(source=str(self.bundle.root), destination=BUNDLE, read_only=True),
                *more,
            ),
            working_directory=WORK,
            scratch_directory=str(self.scratch),
            rung=rung,
            environment={"PILOT_MARK": SECRET},
        )

    async def run(
        self, launch: ContainerLaunch, *command: str, around: tuple[str, ...] = ()
    ) -> Finished:
        """Run a command in the container, as the user; ``around`` may change its surroundings."""
        dialect = dialect_of(launch.runtime.kind)
        return await run_bounded(
            [*_become(self.user), *around, *dialect.command(launch), *command],
            environment=dialect.environment(launch, os.environ),
            timeout_s=_TIMEOUT_S,
        )

    async def check(self, launch: ContainerLaunch, *, around: tuple[str, ...] = ()) -> Verification:
        """Run the self-check, as the user: the very one that decides about a node."""
        asked = Asked(
            nonce=NONCE,
            writable=(WORK,),
            read_only=(BUNDLE,),
            own_pid_namespace=launch.rung.own_pid_namespace,
            host_pid_namespace=own_pid_namespace(),
        )
        command = (*self.bundle.command(BUNDLE), "check")
        if not self.user and not around:
            return await verify(launch, command, asked, host=os.environ, timeout_s=_TIMEOUT_S)
        finished = await self.run(launch, *command, NONCE, *asked.directories, around=around)
        return judge(asked, finished, (*dialect_of(launch.runtime.kind).causes, *COMMON_CAUSES))


def _become(user: str) -> tuple[str, ...]:
    if not user:
        return ()
    return ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups")


def uid_of(user: str) -> int:
    """Return who owns what the user writes."""
    return pwd.getpwnam(user).pw_uid if user else os.geteuid()
