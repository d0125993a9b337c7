"""Places, users, images and runtimes for tests with real containers and with broken ones."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from pilot.containers.runtime import Runtime, RuntimeKind
from pilot.plain_files import remove_tree

APPTAINER = shutil.which("apptainer")
APPTAINER_CONF = Path("/etc/apptainer/apptainer.conf")
MAKE_IMAGE = Path(__file__).parents[2] / "examples" / "campaign" / "make-image"
NONCE = "n0nce"

needs_apptainer = pytest.mark.skipif(
    APPTAINER is None,
    reason="Apptainer is not on this machine; tests/engines/install-apptainer installs it.",
)


def has_user(name: str) -> bool:
    """Return whether this process may become that user, and there is one."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return os.geteuid() == 0 and shutil.which("setpriv") is not None


USERS = ("", "grid") if has_user("grid") else ("",)
"""The current user, and the ordinary one where the current one is root."""


@contextmanager
def public_directory() -> Iterator[Path]:
    """Give a directory that other users may enter, which pytest's own they may not."""
    directory = Path(tempfile.mkdtemp(prefix="pilot-test-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        remove_tree(directory)


def make_image(directory: Path) -> Path:
    """Make a busybox image; skip the test where the machine has no busybox."""
    made = subprocess.run([MAKE_IMAGE, directory], capture_output=True, text=True, check=False)
    if made.returncode == 3:
        pytest.skip(made.stderr.strip())
    assert made.returncode == 0, made.stderr
    return directory


def as_user(user: str) -> tuple[str, ...]:
    """Return the start of a command line that runs the rest as another user, in its own home."""
    if not user:
        return ()
    home = f"HOME={pwd.getpwnam(user).pw_dir}"
    return ("setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "env", home)


def owned_directory(directory: Path, user: str) -> Path:
    """Make a directory that belongs to a user."""
    directory.mkdir()
    if user:
        shutil.chown(directory, user, user)
    return directory


def script(path: Path, text: str) -> Path:
    """Write a shell script, under its name only when it is whole."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# answer NAMESPACE "$@" answers a self-check as it should be, from that PID namespace: the bundle,
# which comes last of the directories, can't be written.
_ANSWER = r"""
answer() {
  namespace=$1
  while [ "$1" != check ]; do shift; done
  nonce=$2; shift 2
  printf '{"nonce":"%s","pid":14,"namespaces":{"pid":%s,"mnt":2},"uid":0,' $nonce $namespace
  printf '"uid_map":"","cgroup":"","mounts":1,"no_new_privileges":true,"python":"3.11",'
  printf '"directories":['
  while [ $# -gt 0 ]; do
    writable=true; comma=,
    if [ $# = 1 ]; then comma=; case $1 in */pilot) writable=false;; esac; fi
    printf '{"path":"%s","nonce":"%s","is_writable":%s}%s' "$1" $nonce $writable "$comma"
    shift
  done
  printf ']}\n'
}
"""


def fake_runtime(directory: Path, text: str, name: str = "apptainer") -> Runtime:
    """Make a runtime of a few lines of shell, which may use ``answer``."""
    path = script(directory / name, _ANSWER + text)
    return Runtime(path=str(path), kind=RuntimeKind.APPTAINER)


def site_runtime(directory: Path, user: str, settings: Mapping[str, str]) -> Runtime:
    """Make a runtime that is the real Apptainer of a site with these settings, run as a user."""
    text = APPTAINER_CONF.read_text()
    for name, value in settings.items():
        text, changes = re.subn(f"(?m)^{name} = .*$", f"{name} = {value}", text)
        assert changes == 1, name
    conf = directory / "apptainer.conf"
    conf.write_text(text)
    prefix = " ".join(as_user(user))
    path = script(directory / "apptainer", f'exec {prefix} {APPTAINER} -c {conf} "$@"')
    return Runtime(path=str(path), kind=RuntimeKind.APPTAINER)


def needs_userns(user: str) -> bool:
    """Return whether root runs it, who has to ask for a user namespace."""
    return os.geteuid() == 0 and not user
