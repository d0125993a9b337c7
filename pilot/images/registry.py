"""An image in a registry: the HTTP API of the OCI distribution specification, asked as nobody.

- A registry that wants a token says where one is to be had (``WWW-Authenticate: Bearer``). The
  token is asked for anonymously and goes to the registry alone, never along with a redirect to
  another host, and never over plain HTTP when the registry itself is spoken to through TLS.
- Plain HTTP only to this very node, or to hosts that the settings name.
- Whatever comes is bounded: documents by a maximum, blobs by the size in their descriptor, each
  wait by a timeout, attempts by a number. The whole has a deadline from outside.
- What came is held against its digest; a blob that was cut short is asked for again.

httpx does HTTP, TLS, and the proxies of ``HTTPS_PROXY`` and ``NO_PROXY``. It is imported by the
helper process that pulls, and by nothing else.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TypeVar
from urllib.parse import urlencode

import httpx
import msgspec

from pilot.images.manifest import (
    DOCUMENT_BYTES_MAX,
    MANIFEST_TYPES,
    Descriptor,
    Resolved,
    resolve,
)
from pilot.images.reference import RegistryReference
from transport.errors import OperatorError, UserError
from transport.messages import Record

ATTEMPTS_MAX = 4
_BACK_OFF_S = 0.5
_RETRY_AFTER_S_MAX = 10.0
_REDIRECTS_MAX = 5
_TOKEN_BYTES_MAX = 1 << 16
_CHUNK_BYTES = 1 << 20
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_Answer = TypeVar("_Answer")
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


class Token(Record, frozen=True, kw_only=True):
    """What a token service answers."""

    token: str = ""
    access_token: str = ""


class _Again(Exception):
    """Raised when another attempt may do better."""

    def __init__(self, problem: str, after_s: float = 0.0) -> None:
        super().__init__(problem)
        self.after_s = after_s


class Registry:
    """One image's repository in a registry."""

    def __init__(
        self,
        reference: RegistryReference,
        *,
        sleep: Callable[[float], None],
        timeout_s: float = 30.0,
        plain_http: Collection[str] = (),
    ) -> None:
        """``timeout_s`` is for each wait; ``plain_http`` are hosts to speak to without TLS."""
        self._reference = reference
        self._sleep = sleep
        self._is_plain = reference.is_loopback or reference.host in plain_http
        scheme = "http" if self._is_plain else "https"
        self._base = f"{scheme}://{reference.api_host}/v2/{reference.name}"
        self._token = ""
        self._client = httpx.Client(
            timeout=timeout_s, headers={"User-Agent": "pilot", "Accept-Encoding": "identity"}
        )

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def resolve(self, architecture: str) -> Resolved:
        """Return what the reference means now.

        Raises `UserError` for an image that isn't there or can't be used, `OperatorError` for a
        registry that doesn't answer; both with a fragment of a sentence.
        """
        reference = self._reference
        data = self._document(f"{self._base}/manifests/{reference.digest or reference.tag}")
        digest = _digest(data)
        if reference.digest and digest != reference.digest:
            raise UserError(_other_bytes(reference.digest, digest))
        top = Descriptor(digest=digest, size=len(data))
        known = {digest: data}
        return resolve(
            top, lambda part: known.get(part.digest) or self._part(part), architecture=architecture
        )

    @contextmanager
    def layer(self, descriptor: Descriptor, directory: Path) -> Iterator[IO[bytes]]:
        """Give a layer's bytes, fetched into a file in ``directory`` and verified."""
        with tempfile.TemporaryFile(dir=directory) as file:
            self._attempts(lambda: self._fetch_blob(descriptor, file))
            file.seek(0)
            yield file

    # --- documents and blobs -----------------------------------------------------------------

    def _part(self, part: Descriptor) -> bytes:
        kind = "manifests" if part.media_type in MANIFEST_TYPES else "blobs"
        if part.size > DOCUMENT_BYTES_MAX:
            raise UserError(f"a document of it has {part.size} bytes; {DOCUMENT_BYTES_MAX} is most")
        data = self._document(f"{self._base}/{kind}/{part.digest}")
        if len(data) != part.size or _digest(data) != part.digest:
            raise UserError(_other_bytes(part.digest, _digest(data)))
        return data

    def _document(self, url: str) -> bytes:
        accept = {"Accept": ", ".join((*MANIFEST_TYPES, "*/*"))}
        return self._attempts(lambda: self._read(url, accept, DOCUMENT_BYTES_MAX))

    def _read(self, url: str, headers: Mapping[str, str], bytes_max: int) -> bytes:
        with self._opened(url, headers) as response:
            return _bounded(response, bytes_max)

    def _fetch_blob(self, descriptor: Descriptor, file: IO[bytes]) -> None:
        file.seek(0)
        file.truncate()
        found, size = hashlib.sha256(), 0
        with self._opened(f"{self._base}/blobs/{descriptor.digest}", {}) as response:
            for chunk in response.iter_raw(_CHUNK_BYTES):
                size += len(chunk)
                if size > descriptor.size:
                    raise UserError(
                        f"the registry sends more than the {descriptor.size} bytes of "
                        f"{descriptor.digest}; push the image again"
                    )
                found.update(chunk)
                file.write(chunk)
        if size < descriptor.size:
            raise _Again(f"{descriptor.digest} ended after {size} of {descriptor.size} bytes")
        if f"sha256:{found.hexdigest()}" != descriptor.digest:
            raise UserError(_other_bytes(descriptor.digest, f"sha256:{found.hexdigest()}"))

    # --- one answer --------------------------------------------------------------------------

    def _attempts(self, ask: Callable[[], _Answer]) -> _Answer:
        problem = ""
        for number in range(ATTEMPTS_MAX):
            try:
                return ask()
            except _Again as again:
                problem, after_s = str(again), again.after_s
            except httpx.HTTPError as error:
                problem, after_s = str(error) or type(error).__name__, 0.0
            if number + 1 < ATTEMPTS_MAX:
                self._sleep(max(after_s, _BACK_OFF_S * 2**number))
        raise OperatorError(
            f"the registry {self._reference.host} failed {ATTEMPTS_MAX} times: {problem}"
        )

    @contextmanager
    def _opened(self, url: str, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """Give a good answer, after a token and redirects where these are needed."""
        try:
            response = self._send(url, headers)
            if response.status_code == 401:
                response.close()
                self._token = self._new_token(response.headers.get("WWW-Authenticate", ""))
                response = self._send(url, headers)
        except httpx.InvalidURL as error:
            raise OperatorError(f"the registry leads to no address: {error}") from error
        try:
            self._check_status(response)
            yield response
        finally:
            response.close()

    def _send(self, url: str, headers: Mapping[str, str]) -> httpx.Response:
        authorization = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        request = self._client.build_request("GET", url, headers={**headers, **authorization})
        for _ in range(_REDIRECTS_MAX + 1):
            response = self._client.send(request, stream=True)
            if response.next_request is None:
                return response
            response.close()
            if request.url.scheme == "https" and response.next_request.url.scheme != "https":
                raise OperatorError("the registry redirects from TLS to plain HTTP; refused")
            request = response.next_request  # without the token where it is another host
        raise OperatorError(f"the registry redirects more than {_REDIRECTS_MAX} times")

    def _new_token(self, challenge: str) -> str:
        kind, _, rest = challenge.partition(" ")
        asked = dict(_CHALLENGE.findall(rest))
        if kind.lower() != "bearer" or "realm" not in asked:
            raise UserError("its registry wants a login, which the pilot has none of")
        realm = asked.pop("realm")
        if not realm.startswith("https://") and not self._is_plain:
            raise OperatorError("the registry sends for a token over plain HTTP; refused")
        known = {name: asked[name] for name in ("service", "scope") if name in asked}
        self._token = ""
        separator = "&" if "?" in realm else "?"
        response = self._send(f"{realm}{separator}{urlencode(known)}", {})
        with closing(response):
            self._check_status(response)
            return _token(_bounded(response, _TOKEN_BYTES_MAX))

    def _check_status(self, response: httpx.Response) -> None:
        status, host = response.status_code, self._reference.host
        if status in _RETRIED:
            after = response.headers.get("Retry-After", "")
            after_s = float(after) if after.isdecimal() else 0.0
            raise _Again(f"it answers {status}", min(after_s, _RETRY_AFTER_S_MAX))
        if status in (401, 403):
            raise UserError(
                f"the registry {host} doesn't give it to everybody ({status}), or has no such "
                "image; make it public, or correct the name"
            )
        if status == 404:
            raise UserError(f"the registry {host} has no such image; correct the name or the tag")
        if status != 200:
            raise OperatorError(f"the registry {host} answers {status}, which makes no sense here")


def _bounded(response: httpx.Response, bytes_max: int) -> bytes:
    data = bytearray()
    for chunk in response.iter_raw(_CHUNK_BYTES):
        data += chunk
        if len(data) > bytes_max:
            raise UserError(f"the registry answers with more than {bytes_max} bytes")
    return bytes(data)


def _token(data: bytes) -> str:
    try:
        answer = msgspec.json.decode(data, type=Token)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise OperatorError("the registry's token service answers with no token") from error
    token = answer.token or answer.access_token
    if not token or not token.isascii() or not token.isprintable():
        raise OperatorError("the registry's token service answers with no token")
    return token


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _other_bytes(wanted: str, found: str) -> str:
    return f"the registry sends {found} where {wanted} is asked for; push the image again"
