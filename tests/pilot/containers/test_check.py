from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pilot.bounded_process import Finished
from pilot.containers.check import (
    SelfCheck,
    Verification,
    classify_stderr,
    judge,
    own_pid_namespace,
    verify,
)
from pilot.containers.runtime import Bind, ContainerLaunch, Runtime, RuntimeKind
from tests.pilot.sandbox import (
    NONCE,
    fake_runtime,
    make_image,
    needs_apptainer,
    needs_userns,
    public_directory,
    site_runtime,
)

HOST_NAMESPACE = 4026531836


def launch(
    runtime: Runtime | None = None, *, own: bool = True, image: str = "/i"
) -> ContainerLaunch:
    """Make a launch plan without binds."""
    return ContainerLaunch(
        runtime=runtime or Runtime(path="/a", kind=RuntimeKind.APPTAINER),
        image=image,
        binds=(),
        own_pid_namespace=own,
        use_userns=needs_userns(""),
    )


def answer(
    *, nonce: str = NONCE, pid_namespace: int | None = 1, work_is_writable: bool = True
) -> bytes:
    """Make the line that a wrapper's self-check prints."""
    return msgspec.json.encode(
        SelfCheck(
            nonce=nonce,
            pid=14,
            pid_namespace=pid_namespace,
            user_namespace=2,
            uid=1000,
            work_is_writable=work_is_writable,
            python="3.11.7",
        )
    )


def finished(stdout: bytes, *, stderr: bytes = b"", exit_code: int = 0) -> Finished:
    """Make what came of a program that ended by itself."""
    return Finished(exit_code=exit_code, stdout=stdout, stderr=stderr, seconds=0.1)


def judged(result: Finished, *, own: bool = True) -> str:
    """Judge an answer to the usual question."""
    return judge(launch(own=own), NONCE, result, HOST_NAMESPACE)


# --- judging ---------------------------------------------------------------------------------


@pytest.mark.parametrize("exit_code", [0, 255])
def test_the_right_answer_counts_whatever_the_exit_code(exit_code: int) -> None:
    """Exit codes lie; the answer can't be guessed."""
    assert judged(finished(answer() + b"\n", exit_code=exit_code)) == ""


def test_success_without_an_answer_is_failure() -> None:
    """A runtime that ends with 0 and did nothing is told by its silence."""
    assert judged(finished(b"")) == "it said nothing and exited with 0"


@pytest.mark.parametrize(
    "stdout",
    [
        b"ok",
        b"Welcome to this image!\n" + answer(),
        answer() + answer(),
        b"\xff\xfe",
        b'{"nonce":1}',
        b"[]",
    ],
)
def test_anything_else_on_stdout_is_failure(stdout: bytes) -> None:
    """Stdout is to be the link; a text before it would break every job."""
    assert "stdout holds more or other" in judged(finished(stdout))


def test_an_answer_to_another_check_is_failure() -> None:
    """What is remembered or made up doesn't have this check's nonce."""
    assert judged(finished(answer(nonce="old"))) == "it gave the answer to another check"


@pytest.mark.parametrize("namespace", [HOST_NAMESPACE, None])
def test_a_pid_namespace_that_was_asked_for_must_be_there(namespace: int | None) -> None:
    """A site may refuse it with a warning; the reason quotes that."""
    result = finished(
        answer(pid_namespace=namespace),
        stderr=b"WARNING: Not virtualizing pid namespace by configuration\n",
    )

    assert judged(result).startswith(
        "it gave no PID namespace of its own: the site's configuration forbids PID namespaces"
    )
    assert judged(result, own=False) == ""


def test_a_work_directory_must_be_writable() -> None:
    """A job without one can't even begin."""
    assert judged(finished(answer(work_is_writable=False))) == "/tmp/job can't be written inside"


def test_hanging_and_flooding_are_reasons_too() -> None:
    """Even a right answer in front of them doesn't help."""
    hung = Finished(exit_code=None, stdout=b"", stderr=b"", seconds=30.2, is_timed_out=True)
    flood = Finished(exit_code=None, stdout=answer(), stderr=b"", seconds=1, is_flooded=True)

    assert judged(hung) == "no answer in 30 s"
    assert judged(flood).startswith("it wrote more than")


# --- classifying -----------------------------------------------------------------------------

SEEN = [
    (
        "FATAL:   container creation failed: mount hook function failure: mount /w->/x error: "
        "while mounting /w: destination /x doesn't exist in container",
        "the image lacks a directory",
    ),
    (
        "FATAL:   Unprivileged installation found, user namepace needed but not allowed by "
        "configuration.",
        "the site's configuration forbids user namespaces",
    ),
    (
        "ERROR  : Failed to create user namespace: maximum number of user namespaces exceeded, "
        "check /proc/sys/user/max_user_namespaces",
        "this node has no user namespaces",
    ),
    (
        "\x1b[91mERROR  : Requesting capability set 0x1ff while permitted capability set is 0x0",
        "root lacks a capability",
    ),
    (
        "FATAL:   While checking container encryption: could not open image /tmp/junk.sif: image "
        "format not recognized",
        "the image is in no format",
    ),
    (
        "FATAL:   container creation failed: image driver mount failure: image driver "
        "squashfuse_ll instance exited with error: fuse: failed to open /dev/fuse: Permission "
        "denied",
        "the image can't be mounted: FUSE",
    ),
    (
        "FATAL:   container creation failed: mount /proc/self/fd/3->/var/lib error: while mounting "
        "image: failed to find loop device: no loop devices available",
        "the image can't be mounted: no loop device",
    ),
    (
        "FATAL:   container creation failed: mount hook function failure: mount proc->/proc error: "
        "while mounting proc: operation not permitted",
        "the node doesn't let a container mount /proc",
    ),
    ("FATAL:  Couldn't determine user account information: user: unknown userid 7777", "this user"),
    (
        "FATAL:   could not open image /x: /x is not readable by the current user, check "
        "permissions",
        "a file that it needs may not be read",
    ),
    ("sh: 1: exec: /cvmfs/x/apptainer: not found", "a file that it needs is not there"),
    ("FATAL:   exec /bin/sh failed: exec format error", "the image is for another architecture"),
    ("FATAL:   write /tmp/x: no space left on device", "there is no room left"),
    ("something quite new\n", "something quite new"),
    ("", ""),
]


@pytest.mark.parametrize(("stderr", "meaning"), SEEN)
def test_stderr_becomes_a_sentence(stderr: str, meaning: str) -> None:
    """What was seen at sites is known; what is new is quoted."""
    assert classify_stderr(stderr.encode()).startswith(meaning)


def test_a_failure_is_found_among_warnings() -> None:
    """Harmless warnings in the same words as the failure don't hide it."""
    text = (
        b"WARNING: Skipping mount /etc/hosts [binds]: /etc/hosts doesn't exist in container\n"
        b"WARNING: Not virtualizing pid namespace by configuration\n"
        b"FATAL:   image format not recognized\n"
    )

    assert classify_stderr(text).startswith("the image is in no format")


def test_a_reason_is_short() -> None:
    """However long a line a runtime writes, the job's trace gets a sentence."""
    assert len(classify_stderr(b"FATAL: not found " + b"x" * 10_000)) < 300


# --- verifying, with broken runtimes ---------------------------------------------------------


async def verified(runtime: Runtime, *, own: bool = True, timeout_s: float = 10.0) -> Verification:
    """Verify a launch with a runtime that is no container at all."""
    return await verify(
        launch(runtime, own=own), ("check",), nonce=NONCE, host=os.environ, timeout_s=timeout_s
    )


@pytest.mark.real
async def test_a_runtime_that_does_as_asked_works(tmp_path: Path) -> None:
    """The nonce is the last argument, and comes back."""
    verification = await verified(fake_runtime(tmp_path, 'answer 1 "$@"'))

    assert verification.works
    assert verification.reason == ""
    assert 0 < verification.seconds < 10


@pytest.mark.real
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("sleep 1000", "no answer in"),
        ("echo all is well", "stdout holds more or other"),
        ("exit 0", "it said nothing"),
        ("while :; do echo more; done", "it wrote more than"),
        ("while :; do echo more >&2; done", "it wrote more than"),
        ("echo 'FATAL: image format not recognized' >&2; exit 255", "the image is in no format"),
        ("kill -SEGV $$", "it said nothing and exited with -11"),
    ],
)
async def test_a_broken_runtime_is_found_out(tmp_path: Path, script: str, reason: str) -> None:
    """Whatever it does, it costs a bounded time and gives a reason."""
    timeout_s = 0.5 if "sleep" in script else 10.0
    verification = await verified(fake_runtime(tmp_path, script), timeout_s=timeout_s)

    assert not verification.works
    assert reason in verification.reason
    assert verification.seconds < 9


@pytest.mark.real
async def test_the_hosts_own_pid_namespace_is_known(tmp_path: Path) -> None:
    """A runtime that leaves the wrapper in it works only where that was asked for."""
    runtime = fake_runtime(tmp_path, f'answer {own_pid_namespace()} "$@"')

    assert not (await verified(runtime)).works
    assert (await verified(runtime, own=False)).works


# --- verifying, with the real one ------------------------------------------------------------

# The self-check of a wrapper, in busybox's shell.
CHECK = (
    "sh",
    "-c",
    'touch x && printf \'{"nonce":"%s","pid":%d,"pid_namespace":%s,"user_namespace":1,"uid":%d,'
    '"work_is_writable":true,"python":"none"}\' "$0" $$ '
    '"$(readlink /proc/self/ns/pid | tr -dc 0-9)" "$(id -u)"',
)


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a directory that every user may read."""
    with public_directory() as directory:
        (directory / "work").mkdir()
        yield directory


@pytest.mark.real
@pytest.mark.apptainer
@needs_apptainer
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, ""),
        ({"enable overlay": "no", "enable underlay": "no"}, ""),
        ({"allow pid ns": "no"}, "the site's configuration forbids PID namespaces"),
        ({"allow user ns": "no"}, "the site's configuration forbids user namespaces"),
        ({"user bind control": "no"}, "forbids binds"),
        ({"allow container dir": "no"}, "the site forbids this kind of image"),
        (
            {"enable overlay": "no", "enable underlay": "no", "mount tmp": "no"},
            "neither overlay nor underlay can make it",
        ),
    ],
)
async def test_every_kind_of_site_is_told_apart(
    place: Path, settings: dict[str, str], reason: str
) -> None:
    """What a site's settings forbid is in the reason, whatever the exit code."""
    planned = ContainerLaunch(
        runtime=site_runtime(place, "", settings),
        image=str(make_image(place / "image")),
        binds=(Bind(source=str(place / "work"), destination="/tmp/job"),),
        use_userns=needs_userns(""),
    )
    verification = await verify(planned, CHECK, nonce=NONCE, host=os.environ, timeout_s=30.0)

    assert verification.works == (not reason), verification.reason
    assert reason in verification.reason
