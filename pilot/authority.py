"""The node's own certificate authority: signs what its jobs ask for, and the agent itself.

The authority lives in one file, key and certificate together, so that there is no moment at
which one of them is there without the other. It is written under a temporary name and then
linked to its final one: a link, unlike a rename, fails when somebody else was faster, and
the slower process reads the faster one's.

Of a signing request only the public key is used. Who the certificate is for, how long and
for what, is said here: a job's name in the request means nothing.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from actors.ports import AgentIdentity, Certificate, Clock, JobIdentity, Token
from pilot.keys import ensure_private_directory
from transport.errors import OperatorError, UserError
from transport.secret import Secret

SIGNING_REQUEST_BYTES_MAX = 16_384
_AUTHORITY_BYTES_MAX = 65_536
TOKEN_KEPT_S = 3600.0
"""After this the operator's token is read again; whoever renews it does so more often."""
_FILE_NAME = "authority.pem"
_AUTHORITY_LIFETIME_S = 10 * 365 * 86_400
_BACKDATED_S = 300
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_PATH_SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,255}")
_NAME_LENGTH_MAX = 64
"""X.520's upper bound for a common name and an organisation."""


class NodeAuthority:
    """Signs short-lived client certificates; get one from `open`."""

    def __init__(
        self,
        key: ec.EllipticCurvePrivateKey,
        certificate: x509.Certificate,
        *,
        clock: Clock,
        trust_domain: str,
        lifetime_s: float,
        token_file: str = "",
    ) -> None:
        self._key = key
        self._certificate = certificate
        self._clock = clock
        self._trust_domain = trust_domain
        self._lifetime_s = lifetime_s
        self._token_file = token_file

    @classmethod
    def open(
        cls,
        directory: str,
        *,
        clock: Clock,
        trust_domain: str,
        lifetime_s: float = 6 * 3600.0,
        token_file: str = "",
    ) -> NodeAuthority:
        """Read the authority kept in ``directory`` (0700), or make one there. Blocks.

        Raises `OperatorError` when what is there is broken, expired, open to others, or of
        another trust domain.
        """
        if not _TRUST_DOMAIN.fullmatch(trust_domain):
            raise OperatorError(
                f"{trust_domain!r} can't be a trust domain: small letters, digits and ._- can."
            )
        ensure_private_directory(directory)
        path = Path(directory, _FILE_NAME)
        try:
            if not os.path.lexists(path):
                _publish(path, _new_authority(trust_domain, clock.now()))
            key, certificate = _parse(path, _read_private(path))
        except OSError as error:
            raise OperatorError(f"The authority {path} can't be kept: {error.strerror}.") from error
        _check(path, key, certificate, trust_domain, clock.now())
        return cls(
            key,
            certificate,
            clock=clock,
            trust_domain=trust_domain,
            lifetime_s=lifetime_s,
            token_file=token_file,
        )

    @property
    def trust_anchor(self) -> str:
        """The authority's own certificate, PEM: what a service needs to believe its jobs."""
        return _pem(self._certificate)

    async def token(self, identity: JobIdentity) -> Token:
        """Return the operator's token for jobs, read anew each time, so that it may be renewed.

        It is good for an hour at a time, whatever it says itself: then it is read again.
        Raises `OperatorError` where there is none.
        """
        if not self._token_file:
            raise OperatorError(
                f"Job {identity.job_id} asks for a token; name a file that holds one in the "
                "setting token_file."
            )
        text = await asyncio.to_thread(_read_token, Path(self._token_file))
        return Token(text=Secret(text), expires_at=self._clock.now() + TOKEN_KEPT_S)

    async def issue(self, identity: JobIdentity, signing_request: str) -> Certificate:
        """Sign for ``identity``; see `actors.ports.Authority`. Takes well under a millisecond."""
        if len(identity.user) > _NAME_LENGTH_MAX:
            raise UserError(
                f"User {identity.user[:_NAME_LENGTH_MAX]!r}... is longer than a certificate "
                f"can say; use at most {_NAME_LENGTH_MAX} letters."
            )
        names = [
            x509.NameAttribute(NameOID.COMMON_NAME, f"job-{identity.job_id}.{identity.attempt}")
        ]
        if identity.user:
            names.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.user))
        spiffe_id = f"spiffe://{self._trust_domain}/job/{identity.job_id}/{identity.attempt}"
        return self._sign(_requested_key(signing_request), x509.Name(names), spiffe_id)

    def agent_identity(self, node: str) -> AgentIdentity:
        """Make a new key and certificate for the agent of this node; kept nowhere."""
        if not _PATH_SEGMENT.fullmatch(node) or node in {".", ".."}:
            raise OperatorError(
                f"{node!r} can't be a node's name in a certificate: letters, digits and ._- can."
            )
        key = ec.generate_private_key(ec.SECP256R1())
        spiffe_id = f"spiffe://{self._trust_domain}/agent/{node}"
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node[:_NAME_LENGTH_MAX])])
        return AgentIdentity(
            certificate=self._sign(key.public_key(), name, spiffe_id),
            key=Secret(_key_pem(key).decode("ascii")),
            spiffe_id=spiffe_id,
        )

    def _sign(
        self, key: ec.EllipticCurvePublicKey, subject: x509.Name, spiffe_id: str
    ) -> Certificate:
        now = int(self._clock.now())
        expires_at = min(
            now + int(self._lifetime_s), int(self._certificate.not_valid_after_utc.timestamp())
        )
        if expires_at <= now:
            raise OperatorError("The node's authority has expired; remove it to have a new one.")
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = (
            _builder(subject, self._certificate.subject, key, now, expires_at)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .add_extension(_spiffe(spiffe_id), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own), critical=False
            )
        )
        leaf = builder.sign(self._key, hashes.SHA256())
        return Certificate(chain=_pem(leaf) + self.trust_anchor, expires_at=float(expires_at))


def _requested_key(signing_request: str) -> ec.EllipticCurvePublicKey:
    """Return the one thing that is taken from a signing request, proven to be its sender's."""
    if len(signing_request) > SIGNING_REQUEST_BYTES_MAX:
        raise UserError(
            f"The signing request is over {SIGNING_REQUEST_BYTES_MAX} bytes; send an EC P-256 one."
        )
    try:
        request = x509.load_pem_x509_csr(signing_request.encode())
        key = request.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
            raise UserError("The signing request's key is not EC P-256; make one that is.")
        is_signed = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise UserError("The signing request can't be read; send PEM PKCS#10.") from error
    if not is_signed:
        raise UserError("The signing request isn't signed by its own key; sign it with that.")
    return key


# --- the authority's file --------------------------------------------------------------------


def _new_authority(trust_domain: str, now: float) -> bytes:
    """Return the text of a new authority: its key, then its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number() % 2**32
    name = x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, f"pilot node authority {serial:08x}")]
    )
    public = key.public_key()
    certificate = (
        _builder(name, name, public, int(now), int(now) + _AUTHORITY_LIFETIME_S)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(_spiffe(f"spiffe://{trust_domain}"), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _key_pem(key) + _pem(certificate).encode()


def _publish(path: Path, text: bytes) -> None:
    """Give the file its final name whole, unless another process was faster."""
    descriptor, part = tempfile.mkstemp(prefix=".authority.", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            return
    finally:
        Path(part).unlink()


def _read_token(path: Path) -> str:
    try:
        text = _read_private(path).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it isn't plain text"
        raise OperatorError(f"The token {path} can't be read: {why}.") from error
    if not text:
        raise OperatorError(f"The token {path} is empty.")
    return text


def _read_private(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        status = os.fstat(file.fileno())
        is_ours = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        if not is_ours or status.st_mode & 0o077:
            raise OperatorError(
                f"{path} isn't a file of ours alone (0600): others may know the secret in it, so "
                "replace it."
            )
        return file.read(_AUTHORITY_BYTES_MAX)


def _parse(path: Path, text: bytes) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key = serialization.load_pem_private_key(text, password=None)
        certificate = x509.load_pem_x509_certificate(text)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise OperatorError(_broken(path, "can't be read")) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise OperatorError(_broken(path, "has a key that isn't EC"))
    return key, certificate


def _check(
    path: Path,
    key: ec.EllipticCurvePrivateKey,
    certificate: x509.Certificate,
    trust_domain: str,
    now: float,
) -> None:
    """Refuse a file that would sign what nobody believes."""
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        is_keys = certificate.public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
        raise OperatorError(_broken(path, "isn't one that a pilot made")) from error
    if not constraints.ca or not is_keys:
        raise OperatorError(_broken(path, "has a key that isn't its certificate's"))
    if names.get_values_for_type(x509.UniformResourceIdentifier) != [f"spiffe://{trust_domain}"]:
        raise OperatorError(_broken(path, f"isn't of the trust domain {trust_domain}"))
    if certificate.not_valid_after_utc.timestamp() <= now:
        raise OperatorError(_broken(path, "has expired"))


def _broken(path: Path, what: str) -> str:
    return f"The authority {path} {what}; remove it to have a new one."


# --- parts of certificates -------------------------------------------------------------------


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: int,
    expires_at: int,
) -> x509.CertificateBuilder:
    """Begin a certificate, valid from a little before now: clocks of nodes drift."""
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(now - _BACKDATED_S, UTC))
        .not_valid_after(datetime.fromtimestamp(expires_at, UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _spiffe(identity: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
