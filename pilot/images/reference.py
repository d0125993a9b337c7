"""How an image is named: one grammar, for the JDL, the settings and the command line.

    /path                               a directory, a SIF or squashfs file, or an archive: which
                                        of them is told by its content
    oci-archive:/path[:tag]             an OCI archive: a tar file of an OCI layout
    docker-archive:/path[:tag]          what ``docker save`` writes
    docker://[host[:port]/]name[:tag][@sha256:...]
                                        in a registry; Docker Hub where no host is named
    name:tag, name@sha256:...           the same, without the scheme

The first part of a registry reference is a host if it has a dot or a port, or is
``localhost``; a name at Docker Hub without a user is one of its ``library/``. Nothing here looks
at a file or a host.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from transport.errors import UserError
from transport.messages import Record

DEFAULT_TAG = "latest"
HUB = ".".join(("docker", "io"))
"""Docker Hub, as references call it; its registry answers at another host."""
HUB_HOST = f"registry-1.{HUB}"
LENGTH_MAX = 4096
_NAME_MAX = 255
_SHOWN_MAX = 100

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?)(?::(\d{1,5}))?")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?://|/|$)")
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_ARCHIVES = ("oci-archive", "docker-archive")


class PathReference(Record, frozen=True, kw_only=True):
    """A file or directory of the node; its content tells what it is."""

    path: str

    def __str__(self) -> str:
        return self.path


class ArchiveReference(Record, frozen=True, kw_only=True):
    """A tar file that holds an image."""

    scheme: str
    """``oci-archive`` or ``docker-archive``."""
    path: str
    tag: str = ""
    """Which of several; empty: the only one."""

    def __str__(self) -> str:
        return f"{self.scheme}:{self.path}" + (f":{self.tag}" if self.tag else "")


class RegistryReference(Record, frozen=True, kw_only=True):
    """An image in a registry."""

    host: str
    """With the port, where one is named."""
    name: str
    tag: str = ""
    digest: str = ""
    """``sha256:...``; then the tag says nothing."""

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"docker://{self.host}/{self.name}{tag}{digest}"

    @property
    def api_host(self) -> str:
        """Where the registry answers."""
        return HUB_HOST if self.host == HUB else self.host

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this very node, where plain HTTP will do."""
        host = self.host.rpartition(":")[0] if _has_port(self.host) else self.host
        if host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host.strip("[]")).is_loopback
        except ValueError:
            return False


Reference = PathReference | ArchiveReference | RegistryReference


def parse_reference(text: str) -> Reference:
    """Return what an image's name means; raises `UserError` for one that means nothing."""
    if not text:
        raise UserError("No container image is named, by the job or in the settings.")
    if len(text) > LENGTH_MAX:
        raise _wrong(text, f"it is longer than {LENGTH_MAX} characters")
    if text.startswith("/"):
        return PathReference(path=_checked_path(text, text))
    scheme, colon, rest = text.partition(":")
    if colon and scheme in _ARCHIVES:
        return _archive(text, scheme, rest)
    if text.startswith("docker://"):
        return _registry(text, text.removeprefix("docker://"))
    if (other := _SCHEME.match(text)) is not None:
        raise _wrong(
            text,
            f"nothing is known of {other[1]}: images; write a path, docker://host/name:tag or "
            "oci-archive:/path",
        )
    if is_tagged(text) or "@" in text:
        return _registry(text, text)
    raise _wrong(text, "write an absolute path, or docker:// before a name in a registry")


def check_digest(digest: str, where: str) -> None:
    """Raise `UserError` for what is no digest; ``where`` begins the sentence."""
    if not is_digest(digest):
        raise UserError(f"{where} is {_shown(digest)}: write sha256: and 64 hexadecimal digits.")


def is_digest(text: str) -> bool:
    """Return whether this is ``sha256:`` and 64 lower-case hexadecimal digits."""
    return _DIGEST.fullmatch(text) is not None


def local_path(text: str) -> str:
    """Return the path on the node that a name leads to; empty for a registry's, or no name."""
    try:
        reference = parse_reference(text)
    except UserError:
        return ""
    return "" if isinstance(reference, RegistryReference) else reference.path


def from_directory(text: str, directory: Path) -> str:
    """Return a name with the relative path in it, if there is one, taken from a directory.

    For the command line, whose names are written as in a JDL: ``almalinux:9`` is in a registry,
    ``./almalinux:9``, ``almalinux`` and ``oci-archive:almalinux.tar`` are files.
    """
    scheme, colon, rest = text.partition(":")
    if colon and scheme in _ARCHIVES:
        return f"{scheme}:{directory.absolute() / rest}" if rest else text
    if not text or _SCHEME.match(text) or is_tagged(text):
        return text
    return str(directory.absolute() / text)


def is_tagged(text: str) -> bool:
    """Return whether a name without a scheme is one in a registry: it has a tag or a digest."""
    is_path = text.startswith(("/", "./", "../"))
    return not is_path and re.search("[:@]", text.rstrip("/").rpartition("/")[2]) is not None


def _archive(text: str, scheme: str, rest: str) -> ArchiveReference:
    path, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        path, tag = rest, ""
    if not path.startswith("/"):
        raise _wrong(text, f"write {scheme}: and an absolute path")
    return ArchiveReference(scheme=scheme, path=_checked_path(text, path), tag=tag)


def _checked_path(text: str, path: str) -> str:
    if "://" in path or re.search(r"[\x00-\x1f\x7f]", path):
        raise _wrong(text, "a path may hold no control characters and no ://")
    return path


def _registry(text: str, rest: str) -> RegistryReference:
    if _CONTROL.search(rest):
        raise _wrong(text, "it may hold no blanks and no control characters")
    before, slash, _ = rest.partition("/")
    if slash and "@" in before:
        raise UserError(
            "A container image's name carries no user and no password: the pilot asks registries "
            "as nobody. Take out what stands before the @."
        )
    rest, at, digest = rest.partition("@")
    if at and not is_digest(digest):
        raise _wrong(text, "after the @ belongs sha256: and 64 digits of 0-9 and a-f")
    host, name = _split_host(text, rest)
    name, colon, tag = name.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _wrong(
            text, "a tag is up to 128 letters, digits, '_', '.' and '-', and begins with none of .-"
        )
    if host == HUB and "/" not in name:
        name = f"library/{name}"
    _check_name(text, name)
    return RegistryReference(
        host=host, name=name, tag=tag or ("" if digest else DEFAULT_TAG), digest=digest
    )


def _split_host(text: str, rest: str) -> tuple[str, str]:
    host, slash, name = rest.partition("/")
    if not slash or not (host == "localhost" or re.search(r"[.:\[]", host)):
        return HUB, rest
    found = _HOST.fullmatch(host)
    if found is None or not 0 < int(found[2] or 1) < 65536 or not _is_address(found[1]):
        raise _wrong(text, f"{_shown(host)} is no host, or no host and port")
    host = host.lower()
    return (HUB if host in (f"index.{HUB}", HUB_HOST) else host), name


def _is_address(host: str) -> bool:
    if not host.startswith("["):
        return ".." not in host
    try:
        return ipaddress.ip_address(host[1:-1]).version == 6
    except ValueError:
        return False


def _check_name(text: str, name: str) -> None:
    if len(name) > _NAME_MAX:
        raise _wrong(text, f"its name is longer than {_NAME_MAX} characters")
    if any(letter.isupper() for letter in name):
        raise _wrong(text, "names in a registry are in lower case")
    if not all(_NAME.fullmatch(part) for part in name.split("/")):
        raise _wrong(
            text,
            "a name is made of a-z, 0-9, and '.', '_' or '-' between them, in parts split by /",
        )


def _has_port(host: str) -> bool:
    return re.search(r":\d+$", host) is not None and not host.endswith("]")


def _wrong(text: str, problem: str) -> UserError:
    return UserError(f"The container image {_shown(text)} can't be understood: {problem}.")


def _shown(text: str) -> str:
    cut = text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "..."
    return repr(cut)
