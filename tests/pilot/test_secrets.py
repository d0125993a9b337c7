"""No key and no token shows anywhere: planted secrets are searched for over every channel."""

from __future__ import annotations

import json
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot import procfs
from tests.pilot.pilot_run import PilotRun, pilot

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

TOKEN = "planted-token-4f7a9c0d2b"
JOB = """
Executable = "/bin/sh";
Arguments = {"-c", "cat $JALIEN_TOKEN_KEY $BEARER_TOKEN_FILE | wc -c; env; sleep 1000"};
OutputArchive = "out.zip:stdout,stderr";
"""
WHERE_SECRETS_MAY_BE = {"job.key", "job.token", "job.proxy", "authority.pem"}


@pytest.fixture(params=["bare", "container"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Give a job that looks for its credentials, bare or in a container."""
    image = ""
    if request.param == "container":
        image = f'ContainerImage = "{request.getfixturevalue("busybox_image")}";'
    path = tmp_path / "job.jdl"
    path.write_text(image + JOB)
    return path


def private_key_block(path: Path) -> list[bytes]:
    """Return the secret lines of the private key in a file."""
    text = path.read_text()
    start = text.index("-----BEGIN PRIVATE KEY-----")
    block = text[start : text.index("-----END PRIVATE KEY-----")]
    return [line.encode() for line in block.splitlines()[1:] if len(line) > 20]


def files_with(state: Path, secrets: list[bytes]) -> Iterator[Path]:
    """Yield the files under a state directory that hold a secret."""
    for path in state.rglob("*"):
        if path.is_file() and any(secret in path.read_bytes() for secret in secrets):
            yield path


def process_channels() -> Iterator[tuple[str, bytes]]:
    """Yield argv and environment of every process that can be looked at."""
    for process in procfs.all_processes():
        for channel in ("cmdline", "environ"):
            try:
                yield (
                    f"{process.pid} {channel}",
                    Path(f"/proc/{process.pid}/{channel}").read_bytes(),
                )
            except OSError:
                continue


def test_no_secret_is_seen_anywhere(tmp_path: Path, job: Path) -> None:
    """While it runs and afterwards: files, argv, environments, logs, traces, the queue, JSON."""
    token_file = tmp_path / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(TOKEN)
    state = tmp_path / "state"
    environment = {"PILOT_TOKEN_FILE": str(token_file), "PILOT_LOG_LEVEL": "debug"}
    with PilotRun(state, "--json", str(job), environment=environment) as run:
        # 1. The credentials are there, and nobody but the owner can read them.
        run.wait_payload()
        private = state / "jobs" / "1" / "1" / "private"
        secrets = [
            TOKEN.encode(),
            *private_key_block(private / "job.key"),
            *private_key_block(state / "authority" / "authority.pem"),
        ]
        assert len(secrets) >= 5
        for path in files_with(state, secrets):
            assert path.name in WHERE_SECRETS_MAY_BE, path
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700, path

        # 2. No process has one in its argv or environment; the payload has paths.
        for channel, text in process_channels():
            assert not any(secret in text for secret in secrets), channel

        # 3. Nothing that the pilot prints has one.
        _, shown, _ = pilot("show", "1", "--state", str(state), "--json")
        _, logs, _ = pilot("logs", "1", "--state", str(state))
        assert int(logs.split("--- stdout")[1].split()[0]) > 200
        assert not any(secret.decode() in shown + logs for secret in secrets)

        # 4. Afterwards only the authority's own file holds its key; the job's are gone.
        pilot("kill", "1", "--state", str(state))
        _, stdout, stderr = run.end()
        assert json.loads(stdout)["status"] == "KILLED"
        assert not any(secret.decode() in stdout + stderr for secret in secrets)
        assert [path.name for path in files_with(state, secrets)] == ["authority.pem"]
        assert run.job()["outputs"]


def test_agent_and_job_have_different_identities(tmp_path: Path, job: Path) -> None:
    """The job's certificate names the job, is short-lived, and its key is not the authority's."""
    from cryptography import x509

    state = tmp_path / "state"
    job.write_text(job.read_text().replace(" $BEARER_TOKEN_FILE", ""))
    with PilotRun(state, str(job)) as run:
        run.wait_payload()
        chain = (state / "jobs/1/1/private/job.pem").read_bytes()
        leaf, authority = x509.load_pem_x509_certificates(chain)
        run.signal(signal.SIGTERM)
        run.end()

    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://pilot.local/job/1/1"
    ]
    assert leaf.public_key() != authority.public_key()
    assert "this agent is spiffe://pilot.local/agent/" in (state / "agent.log").read_text()
    lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    assert lifetime.total_seconds() < 86_400
