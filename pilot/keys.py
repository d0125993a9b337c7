"""A job's private key, made where the job runs, and its credentials beside it.

Everything is in the wrapper's private directory (0700). A file is created with its final
mode, never written and then made private, and no name is followed through a symbolic link:
a payload of the same user may have been there before us.
"""

from __future__ import annotations

import asyncio
import os
import stat
from contextlib import suppress
from pathlib import Path

from transport.errors import OperatorError, UserError
from transport.messages import CredentialKind

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_COMMON_NAME_LENGTH_MAX = 64
"""X.520's ub-common-name."""
_KEY_NAME = "job.key"
_PROXY_NAME = "job.proxy"
_CREDENTIAL_NAMES = {CredentialKind.CERTIFICATE: "job.pem", CredentialKind.TOKEN: "job.token"}


class FileKeyMaker:
    """Makes the key (EC P-256) once and keeps what is signed for it, in files.

    Both methods raise `OperatorError` when the private directory isn't one, isn't ours, or
    is open to others.
    """

    async def make_request(self, private_directory: str, common_name: str) -> str:
        """Write a new private key and return the PEM signing request for it.

        Raises `OperatorError` when there is something at the key's path already: a key is
        never replaced, nor written through a link.
        """
        if not 0 < len(common_name) <= _COMMON_NAME_LENGTH_MAX:
            raise UserError(f"{common_name!r} can't be a certificate's name: 1 to 64 letters can.")
        return await asyncio.to_thread(_make_request, private_directory, common_name)

    async def store(self, private_directory: str, kind: CredentialKind, text: str) -> str:
        """Write a certificate chain or a token and return its path.

        A reader of that path sees the old text or the new, whole.
        """
        return await asyncio.to_thread(_store, private_directory, kind, text)

    def environment(self, private_directory: str, kind: CredentialKind) -> dict[str, str]:
        """Return the variables that tell a payload where a stored credential is: paths only."""
        path = f"{private_directory}/{_CREDENTIAL_NAMES[kind]}"
        if kind is CredentialKind.TOKEN:
            return {"BEARER_TOKEN_FILE": path}
        return {
            "JALIEN_TOKEN_CERT": path,
            "JALIEN_TOKEN_KEY": f"{private_directory}/{_KEY_NAME}",
            "X509_USER_PROXY": f"{private_directory}/{_PROXY_NAME}",
        }


def ensure_private_directory(path: str) -> None:
    """Make a directory of mode 0700, or make sure that it is one and ours.

    Raises `OperatorError` when it isn't.
    """
    try:
        with suppress(FileExistsError):
            Path(path).mkdir(mode=0o700)
        status = Path(path).lstat()
    except OSError as error:
        raise OperatorError(
            f"The private directory {path} can't be made: {error.strerror}."
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise OperatorError(f"{path} is to be a private directory but is no directory; remove it.")
    if status.st_uid != os.geteuid():
        raise OperatorError(f"The private directory {path} is another user's; remove it.")
    if status.st_mode & 0o077:
        raise OperatorError(f"The private directory {path} is open to others; chmod it to 700.")


def _make_request(private_directory: str, common_name: str) -> str:
    """Make the key; cryptography is imported here, as not every wrapper needs it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    ensure_private_directory(private_directory)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    request = x509.CertificateSigningRequestBuilder(subject).sign(key, hashes.SHA256())
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write_new(Path(private_directory, _KEY_NAME), text)
    return request.public_bytes(serialization.Encoding.PEM).decode("ascii")


def _store(private_directory: str, kind: CredentialKind, text: str) -> str:
    ensure_private_directory(private_directory)
    path = Path(private_directory, _CREDENTIAL_NAMES[kind])
    _write_over(path, text.encode())
    key = Path(private_directory, _KEY_NAME)
    if kind is CredentialKind.CERTIFICATE and key.exists():
        _write_over(path.with_name(_PROXY_NAME), _proxy(text, key.read_text()).encode())
    return str(path)


def _proxy(chain: str, key: str) -> str:
    """Return the one file that X509_USER_PROXY's readers want: certificate, key, then the rest."""
    end = "-----END CERTIFICATE-----\n"
    leaf, found, rest = chain.partition(end)
    return f"{leaf}{found}{key}{rest}"


def _write_over(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    with suppress(FileNotFoundError):
        part.unlink()
    _write_new(part, data)
    part.replace(path)


def _write_new(path: Path, data: bytes) -> None:
    """Write a file that wasn't there, 0600 from its first moment; leave none half written."""
    try:
        descriptor = os.open(path, _CREATE, 0o600)
    except FileExistsError as error:
        raise OperatorError(
            f"{path} is there already, before this job made it; clean the private directory."
        ) from error
    except OSError as error:
        raise OperatorError(f"{path} can't be written: {error.strerror}.") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OperatorError(f"{path} can't be written: {error.strerror}.") from error
