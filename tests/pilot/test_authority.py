"""The node's authority: what it signs verifies, and it signs nothing else."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store

from actors.ports import AgentIdentity, Authority, Certificate, Clock, JobIdentity
from pilot import authority as module
from pilot.authority import NodeAuthority
from transport.errors import OperatorError, UserError

NOW = 1_800_000_000.25
HOUR = 3600.0
JOB = JobIdentity(job_id=12, attempt=3, user="alice")

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class FixedClock:
    """A clock that stands still until it is moved."""

    def __init__(self, at: float = NOW) -> None:
        self.at = at

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at


@pytest.fixture
def clock() -> FixedClock:
    """Give a clock that stands still."""
    return FixedClock()


@pytest.fixture
def authority(tmp_path: Path, clock: FixedClock) -> NodeAuthority:
    """Give a new authority."""
    return open_authority(tmp_path, clock)


def open_authority(
    tmp_path: Path,
    clock: Clock,
    *,
    trust_domain: str = "grid.example",
    lifetime_s: float = 6 * HOUR,
) -> NodeAuthority:
    """Open or make the authority under a test's directory."""
    return NodeAuthority.open(
        str(tmp_path / "authority"), clock=clock, trust_domain=trust_domain, lifetime_s=lifetime_s
    )


def request(key: Key | None = None, *, greedy: bool = False) -> str:
    """Make a signing request; a greedy one asks to be an authority of another name."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root" if greedy else "job")])
    builder = x509.CertificateSigningRequestBuilder(name)
    if greedy:
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
        other = x509.UniformResourceIdentifier("spiffe://grid.example/agent/n1")
        builder = builder.add_extension(x509.SubjectAlternativeName([other]), critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.PEM).decode()


def leaf_of(certificate: Certificate) -> x509.Certificate:
    """Return the job's own certificate out of its chain."""
    return x509.load_pem_x509_certificates(certificate.chain.encode())[0]


def uris(certificate: x509.Certificate) -> list[str]:
    """Return the identities that a certificate names."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def verify(authority: NodeAuthority, certificate: Certificate, at: float = NOW) -> None:
    """Verify as a TLS server does with a client's certificate."""
    anchor = x509.load_pem_x509_certificate(authority.trust_anchor.encode())
    leaf, *others = x509.load_pem_x509_certificates(certificate.chain.encode())
    when = datetime.fromtimestamp(at, UTC)
    builder = PolicyBuilder().store(Store([anchor])).time(when)
    verified = builder.build_client_verifier().verify(leaf, others)

    assert verified.chain == [leaf, anchor]


async def test_a_job_s_certificate_verifies_and_says_whose_it_is(authority: NodeAuthority) -> None:
    """Names, uses and times are the authority's; the key is the job's."""
    port: Authority = authority
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = await port.issue(JOB, request(key))
    leaf = leaf_of(certificate)
    verify(authority, certificate)
    extensions = leaf.extensions

    assert leaf.public_key() == key.public_key()
    assert uris(leaf) == ["spiffe://grid.example/job/12/3"]
    assert leaf.subject.rfc4514_string() == "O=alice,CN=job-12.3"
    assert certificate.expires_at == leaf.not_valid_after_utc.timestamp() == int(NOW) + 6 * HOUR
    assert leaf.not_valid_before_utc.timestamp() == int(NOW) - 300
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    assert not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    uses = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
async def test_openssl_verifies_it_too(authority: NodeAuthority, tmp_path: Path) -> None:
    """A second opinion, of the library that most services have."""
    certificate = await authority.issue(JOB, request())
    (tmp_path / "anchor.pem").write_text(authority.trust_anchor)
    (tmp_path / "leaf.pem").write_text(certificate.chain)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient"]
    command += ["-attime", str(int(NOW)), "-CAfile", "anchor.pem", "leaf.pem"]
    run = await asyncio.to_thread(
        subprocess.run, command, cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert run.stdout == "leaf.pem: OK\n", run.stderr


async def test_what_a_request_asks_for_is_ignored(authority: NodeAuthority) -> None:
    """It can't make itself an authority, or the agent."""
    certificate = await authority.issue(JOB, request(greedy=True))
    leaf = leaf_of(certificate)
    verify(authority, certificate)

    assert uris(leaf) == ["spiffe://grid.example/job/12/3"]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert "root" not in leaf.subject.rfc4514_string()


async def test_a_job_without_a_user_has_no_organisation(authority: NodeAuthority) -> None:
    """An embedding program may have no users."""
    certificate = await authority.issue(JobIdentity(job_id=1, attempt=1, user=""), request())

    assert leaf_of(certificate).subject.rfc4514_string() == "CN=job-1.1"


async def test_a_user_too_long_for_a_certificate_is_refused(authority: NodeAuthority) -> None:
    """Rather than cut into another user's name."""
    with pytest.raises(UserError, match="longer than a certificate can say"):
        await authority.issue(JobIdentity(job_id=1, attempt=1, user="u" * 65), request())


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "secp256k1", "Ed25519", "RSA"],
)
async def test_other_keys_are_refused(authority: NodeAuthority, key: Key) -> None:
    """One kind of key is one kind of code."""
    with pytest.raises(UserError, match="not EC P-256"):
        await authority.issue(JOB, request(key))


def forged() -> str:
    """Make a request whose signature is another request's."""
    bodies = [x509.load_pem_x509_csr(request().encode()) for _ in range(2)]
    der = bodies[0].public_bytes(serialization.Encoding.DER)
    broken = bytearray(der)
    broken[-1] ^= 1
    csr = x509.load_der_x509_csr(bytes(broken))
    return csr.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "can't be read"),
        ("hello", "can't be read"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "read"),
        ("\ud800", "can't be read"),
        (forged(), "isn't signed by its own key"),
        (request() + "x" * 16_384, "over 16384 bytes"),
    ],
    ids=["empty", "text", "truncated", "surrogate", "forged", "oversize"],
)
async def test_broken_requests_are_refused(authority: NodeAuthority, text: str, why: str) -> None:
    """Each with a sentence, and none is quoted back."""
    with pytest.raises(UserError, match=why):
        await authority.issue(JOB, text)


def test_the_agent_has_a_new_identity_at_each_start(authority: NodeAuthority) -> None:
    """Signed by the same authority, for the node; the key can't be printed."""
    first, second = authority.agent_identity("n1.site"), authority.agent_identity("n1.site")
    leaf = leaf_of(first.certificate)
    key = serialization.load_pem_private_key(first.key.reveal().encode(), None)
    verify(authority, first.certificate)

    assert uris(leaf) == ["spiffe://grid.example/agent/n1.site"] == [first.spiffe_id]
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.public_key() == leaf.public_key()
    assert first.key != second.key
    assert isinstance(first, AgentIdentity)
    assert "PRIVATE" not in repr(first)


@pytest.mark.parametrize("node", ["", "..", "a/b", "a b", "n\n"])
def test_a_node_that_no_uri_can_say_is_refused(authority: NodeAuthority, node: str) -> None:
    """A slash would make another identity."""
    with pytest.raises(OperatorError, match="can't be a node's name"):
        authority.agent_identity(node)


def test_a_long_node_name_is_whole_in_the_identity(authority: NodeAuthority) -> None:
    """Only the common name is bounded by X.520."""
    node = "n" * 200
    assert authority.agent_identity(node).spiffe_id.endswith(node)


@pytest.mark.parametrize("trust_domain", ["", "Grid", "a/b", "a b"])
def test_a_trust_domain_that_no_uri_can_say_is_refused(
    tmp_path: Path, clock: FixedClock, trust_domain: str
) -> None:
    """Before anything is made."""
    with pytest.raises(OperatorError, match="can't be a trust domain"):
        open_authority(tmp_path, clock, trust_domain=trust_domain)
    assert not (tmp_path / "authority").exists()


async def test_an_authority_is_kept_and_kept_private(
    tmp_path: Path, authority: NodeAuthority, clock: FixedClock
) -> None:
    """A restarted agent's services still believe its jobs; nothing else is left on disk."""
    certificate = await authority.issue(JOB, request())
    again = open_authority(tmp_path, clock)
    verify(again, certificate)
    directory = tmp_path / "authority"

    assert again.trust_anchor == authority.trust_anchor
    assert [entry.name for entry in directory.iterdir()] == ["authority.pem"]
    assert (directory / "authority.pem").stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700


def test_processes_that_start_at_once_share_one_authority(
    tmp_path: Path, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All have made theirs before any publishes: one wins, the others take it."""
    together = threading.Barrier(8, timeout=20)
    publish = module._publish

    def publish_together(path: Path, text: bytes) -> None:
        together.wait()
        publish(path, text)

    monkeypatch.setattr(module, "_publish", publish_together)
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: open_authority(tmp_path, clock), range(8)))

    assert len({one.trust_anchor for one in opened}) == 1
    assert [entry.name for entry in (tmp_path / "authority").iterdir()] == ["authority.pem"]


async def test_a_lifetime_is_a_setting_and_ends_with_the_authority_s(
    tmp_path: Path, clock: FixedClock
) -> None:
    """No certificate outlives the one that it hangs from; an expired authority signs none."""
    authority = open_authority(tmp_path, clock, lifetime_s=60)
    assert (await authority.issue(JOB, request())).expires_at == int(NOW) + 60

    end = int(NOW) + module._AUTHORITY_LIFETIME_S
    clock.at = end - 10
    last = await authority.issue(JOB, request())
    assert last.expires_at == end
    verify(authority, last, at=end - 5)

    clock.at = end
    with pytest.raises(OperatorError, match="has expired"):
        await authority.issue(JOB, request())
    with pytest.raises(OperatorError, match="has expired; remove it"):
        open_authority(tmp_path, clock)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("empty", "can't be read"),
        ("truncated", "can't be read"),
        ("mixed", "isn't its certificate's"),
        ("job", "isn't its certificate's"),
        ("rsa", "isn't EC"),
        ("plain", "isn't one that a pilot made"),
        ("other domain", "isn't of the trust domain grid.example"),
        ("open", "isn't a file of ours alone"),
        ("link", "can't be kept"),
        ("directory", "can't be kept"),
        ("fifo", "isn't a file of ours alone"),
    ],
)
def test_a_file_that_is_no_authority_of_ours_is_refused(
    tmp_path: Path, clock: FixedClock, fault: str, why: str
) -> None:
    """The sentence names the file; what is in it is neither used, replaced nor shown."""
    other = "other.example" if fault == "other domain" else "grid.example"
    made = open_authority(tmp_path, clock, trust_domain=other)
    path = tmp_path / "authority" / "authority.pem"
    text = path.read_text()
    key, certificate = text[: text.index("-----BEGIN C")], text[text.index("-----BEGIN C") :]
    agent = made.agent_identity("n1")
    match fault:
        case "empty":
            path.write_text("")
        case "truncated":
            path.write_text(text[:-100])
        case "mixed":
            path.write_text(agent.key.reveal() + certificate)
        case "job":
            path.write_text(agent.key.reveal() + agent.certificate.chain)
        case "rsa":
            path.write_text(pem(rsa.generate_private_key(65537, 2048)) + certificate)
        case "plain":
            path.write_text(key + bare_certificate())
        case "open":
            path.chmod(0o640)
        case "link":
            path.rename(tmp_path / "elsewhere")
            path.symlink_to(tmp_path / "elsewhere")
        case "directory":
            path.unlink()
            path.mkdir()
        case "fifo":
            path.unlink()
            os.mkfifo(path, 0o600)
        case _:
            pass

    with pytest.raises(OperatorError, match=why) as caught:
        open_authority(tmp_path, clock)
    assert re.search(re.escape(str(path)), str(caught.value))


def pem(key: rsa.RSAPrivateKey) -> str:
    """Return a key's text."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def bare_certificate() -> str:
    """Make a certificate without extensions, as an old tool's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1)
    builder = builder.not_valid_before(datetime.fromtimestamp(NOW, UTC))
    builder = builder.not_valid_after(datetime.fromtimestamp(NOW + HOUR, UTC))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
