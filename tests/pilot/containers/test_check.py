from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from pilot.bounded_process import Finished
from pilot.containers.apptainer import APPTAINER
from pilot.containers.check import (
    Asked,
    SeenDirectory,
    SelfCheck,
    Verification,
    classify_stderr,
    judge,
    own_pid_namespace,
    verify,
)
from pilot.containers.runtime import ContainerLaunch, Reason, Runtime, RuntimeKind
from tests.pilot.sandbox import NONCE, fake_runtime

HOST_NAMESPACE = 4026531836


WORK, BUNDLE = "/tmp/job/work", "/tmp/pilot"


def asked(*, own: bool = True) -> Asked:
    """Make the usual question."""
    return Asked(
        nonce=NONCE,
        writable=(WORK,),
        read_only=(BUNDLE,),
        own_pid_namespace=own,
        host_pid_namespace=HOST_NAMESPACE,
    )


def answer(
    *,
    nonce: str = NONCE,
    pid_namespace: int | None = 1,
    uid: int = 1000,
    work: SeenDirectory | None = None,
    is_bundle_writable: bool = False,
) -> bytes:
    """Make the line that a wrapper's self-check prints."""
    return msgspec.json.encode(
        SelfCheck(
            nonce=nonce,
            pid=14,
            namespaces={"mnt": 2} | ({} if pid_namespace is None else {"pid": pid_namespace}),
            uid=uid,
            uid_map="0 1000 1",
            cgroup="0::/",
            mounts=20,
            no_new_privileges=True,
            python="3.11.7",
            directories=(
                work or SeenDirectory(path=WORK, nonce=NONCE, is_writable=True),
                SeenDirectory(path=BUNDLE, nonce="", is_writable=is_bundle_writable),
            ),
        )
    )


def finished(stdout: bytes, *, stderr: bytes = b"", exit_code: int = 0) -> Finished:
    """Make what came of a program that ended by itself."""
    return Finished(exit_code=exit_code, stdout=stdout, stderr=stderr, seconds=0.1)


def judged(result: Finished, *, own: bool = True) -> tuple[Reason | None, str]:
    """Judge an answer to the usual question."""
    verification = judge(asked(own=own), result, APPTAINER.causes)
    assert verification.works == (verification.reason is None)
    return verification.reason, verification.detail


# --- judging ---------------------------------------------------------------------------------


@pytest.mark.parametrize("exit_code", [0, 255])
def test_the_right_answer_counts_whatever_the_exit_code(exit_code: int) -> None:
    """Exit codes lie; the answer can't be guessed."""
    assert judged(finished(answer() + b"\n", exit_code=exit_code)) == (None, "")


def test_success_without_an_answer_is_failure() -> None:
    """A runtime that ends with 0 and did nothing is told by its silence."""
    assert judged(finished(b"")) == (Reason.SILENT, "it said nothing and exited with 0")


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
    reason, detail = judged(finished(stdout))

    assert reason is Reason.NONSENSE
    assert "stdout holds more or other" in detail


def test_an_answer_to_another_check_is_failure() -> None:
    """What is remembered or made up doesn't have this check's nonce."""
    detail = "it gave the answer to another check"

    assert judged(finished(answer(nonce="old"))) == (Reason.WRONG_ANSWER, detail)


@pytest.mark.parametrize("namespace", [HOST_NAMESPACE, None])
def test_a_pid_namespace_that_was_asked_for_must_be_there(namespace: int | None) -> None:
    """A site may refuse it with a warning; the reason quotes that."""
    result = finished(
        answer(pid_namespace=namespace),
        stderr=b"WARNING: Not virtualizing pid namespace by configuration\n",
    )
    reason, detail = judged(result)

    assert reason is Reason.NO_PID_NAMESPACE
    assert detail.startswith(
        "it gave no PID namespace of its own: the site's configuration forbids PID namespaces"
    )
    assert judged(result, own=False) == (None, "")


def test_a_bind_that_was_skipped_is_found_out() -> None:
    """Old runtimes leave one out and exit with 0: the nonce isn't there."""
    skipped = SeenDirectory(path=WORK, nonce="", is_writable=True)
    reason, detail = judged(finished(answer(work=skipped)))

    assert reason is Reason.NOT_MOUNTED
    assert detail == f"{WORK} inside is not what was bound there"


def test_a_work_directory_must_be_writable() -> None:
    """A job without one can't even begin."""
    locked = SeenDirectory(path=WORK, nonce=NONCE, is_writable=False)

    assert judged(finished(answer(work=locked))) == (
        Reason.NOT_WRITABLE,
        f"{WORK} can't be written inside",
    )


def test_the_bundle_must_not_be_writable() -> None:
    """Other jobs run from it."""
    assert judged(finished(answer(is_bundle_writable=True)))[0] is Reason.NOT_MOUNTED


def test_an_answer_about_other_directories_is_failure() -> None:
    """It must tell of exactly those that it was asked for."""
    other = SeenDirectory(path="/etc", nonce=NONCE, is_writable=True)

    assert judged(finished(answer(work=other)))[0] is Reason.WRONG_ANSWER


def test_another_user_inside_is_failure_where_one_was_asked_for() -> None:
    """Files would belong to somebody else."""
    wanted = msgspec.structs.replace(asked(), uid=1001)

    assert judge(wanted, finished(answer(uid=0)), ()).reason is Reason.WRONG_ANSWER
    assert judge(wanted, finished(answer(uid=1001)), ()).works


@pytest.mark.parametrize(
    ("found", "works"),
    [({"pid": 1, "mnt": 9}, True), ({"pid": 1, "mnt": 5}, False), ({"pid": 1}, False)],
)
def test_a_mount_namespace_of_its_own_is_no_matter_of_belief(
    found: dict[str, int], works: bool
) -> None:
    """A "container" that shows the host's own files is none."""
    wanted = msgspec.structs.replace(asked(), host_namespaces={"mnt": 5})
    check = msgspec.json.decode(answer(), type=SelfCheck)
    check = msgspec.structs.replace(check, namespaces=found)
    verification = judge(wanted, finished(msgspec.json.encode(check)), ())

    assert verification.works is works
    assert (verification.reason is Reason.NOT_CONFINED) is not works


def test_hanging_and_flooding_are_reasons_too() -> None:
    """Even a right answer in front of them doesn't help."""
    hung = Finished(exit_code=None, stdout=b"", stderr=b"", seconds=30.2, is_timed_out=True)
    flood = Finished(exit_code=None, stdout=answer(), stderr=b"", seconds=1, is_flooded=True)

    assert judged(hung) == (Reason.NO_ANSWER, "no answer in 30 s")
    assert judged(flood)[0] is Reason.FLOODED


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
    assert classify_stderr(stderr.encode(), RuntimeKind.APPTAINER).startswith(meaning)


def test_a_failure_is_found_among_warnings() -> None:
    """Harmless warnings in the same words as the failure don't hide it."""
    text = (
        b"WARNING: Skipping mount /etc/hosts [binds]: /etc/hosts doesn't exist in container\n"
        b"WARNING: Not virtualizing pid namespace by configuration\n"
        b"FATAL:   image format not recognized\n"
    )

    assert classify_stderr(text, RuntimeKind.APPTAINER).startswith("the image is in no format")


def test_a_reason_is_short() -> None:
    """However long a line a runtime writes, the job's trace gets a sentence."""
    assert len(classify_stderr(b"FATAL: not found " + b"x" * 10_000)) < 300


# --- verifying, with broken runtimes ---------------------------------------------------------


async def verified(runtime: Runtime, *, own: bool = True, timeout_s: float = 10.0) -> Verification:
    """Verify a launch with a runtime that is no container at all."""
    launch = ContainerLaunch(runtime=runtime, image="/i", binds=(), working_directory=WORK)
    question = msgspec.structs.replace(asked(own=own), host_pid_namespace=own_pid_namespace())
    return await verify(launch, ("check",), question, host=os.environ, timeout_s=timeout_s)


@pytest.mark.real
async def test_a_runtime_that_does_as_asked_works(tmp_path: Path) -> None:
    """The nonce comes back, and what was found is kept."""
    verification = await verified(fake_runtime(tmp_path, 'answer 1 "$@"'))

    assert verification.works
    assert verification.reason is None
    assert verification.found is not None
    assert verification.found.pid == 14


@pytest.mark.real
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("sleep 1000", Reason.NO_ANSWER),
        ("echo all is well", Reason.NONSENSE),
        ("exit 0", Reason.SILENT),
        ("while :; do echo more; done", Reason.FLOODED),
        ("while :; do echo more >&2; done", Reason.FLOODED),
        ("echo 'FATAL: image format not recognized' >&2; exit 255", Reason.IMAGE_FORMAT),
        ("kill -SEGV $$", Reason.SILENT),
    ],
)
async def test_a_broken_runtime_is_found_out(tmp_path: Path, script: str, reason: Reason) -> None:
    """Whatever it does, it costs a bounded time and gives a reason."""
    timeout_s = 0.5 if "sleep" in script else 10.0
    verification = await verified(fake_runtime(tmp_path, script), timeout_s=timeout_s)

    assert not verification.works
    assert verification.reason is reason


@pytest.mark.real
async def test_the_hosts_own_pid_namespace_is_known(tmp_path: Path) -> None:
    """A runtime that leaves the wrapper in it works only where that was asked for."""
    runtime = fake_runtime(tmp_path, f'answer {own_pid_namespace()} "$@"')

    assert not (await verified(runtime)).works
    assert (await verified(runtime, own=False)).works
