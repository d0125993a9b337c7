"""A real registry on a loopback port, and a cache of each test's own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot.images import ImageStore, StoreOptions


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the ``host:port`` of a registry, or skip."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not on this machine; tests/engines/install-registry has it")
    place = tmp_path_factory.mktemp("registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    (place / "config.yml").write_text(
        "version: 0.1\n"
        "log: {level: error}\n"
        f"storage: {{filesystem: {{rootdirectory: {place}/data}}}}\n"
        f"http: {{addr: '{address}'}}\n"
    )
    with (place / "log").open("wb") as log:
        server = subprocess.Popen([program, "serve", place / "config.yml"], stdout=log, stderr=log)
    try:
        wait_answers(address, server, place / "log")
        yield address
    finally:
        server.kill()
        server.wait()


def wait_answers(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a registry answers; fail where it ends or takes too long."""
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/v2/", timeout=5):
                return
        except OSError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    """Give a store with an empty cache of its own."""
    options = StoreOptions(timeout_s=60, registry_wait_s=10, look_kept_s=0)
    return ImageStore(tmp_path / "images", options)
