from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.images.reference import (
    HUB,
    HUB_HOST,
    ArchiveReference,
    PathReference,
    RegistryReference,
    check_digest,
    from_directory,
    local_path,
    parse_reference,
)
from transport.errors import UserError

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "host", "name", "tag", "digest"),
    [
        ("docker://almalinux", HUB, "library/almalinux", "latest", ""),
        ("almalinux:9", HUB, "library/almalinux", "9", ""),
        ("docker://alice/slc9:v1.2_x-y", HUB, "alice/slc9", "v1.2_x-y", ""),
        ("registry.cern.ch/alice/slc9:1", "registry.cern.ch", "alice/slc9", "1", ""),
        ("docker://localhost/x", "localhost", "x", "latest", ""),
        ("docker://127.0.0.1:5000/a/b/c:1", "127.0.0.1:5000", "a/b/c", "1", ""),
        ("docker://[::1]:5000/x", "[::1]:5000", "x", "latest", ""),
        (f"docker://x@{DIGEST}", HUB, "library/x", "", DIGEST),
        (f"a.example/x:1@{DIGEST}", "a.example", "x", "1", DIGEST),
        (f"docker://{HUB_HOST}/x/y", HUB, "x/y", "latest", ""),
    ],
)
def test_a_registry_reference(text: str, host: str, name: str, tag: str, digest: str) -> None:
    """Host, name, tag and digest, with the field's defaults for what isn't written."""
    expected = RegistryReference(host=host, name=name, tag=tag, digest=digest)

    assert parse_reference(text) == expected
    assert parse_reference(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/images/a b:c,d", PathReference(path="/images/a b:c,d")),
        ("/cvmfs/x.ch/library/debian:12", PathReference(path="/cvmfs/x.ch/library/debian:12")),
        ("oci-archive:/a b.tar", ArchiveReference(scheme="oci-archive", path="/a b.tar")),
        ("oci-archive:/a.tar:1", ArchiveReference(scheme="oci-archive", path="/a.tar", tag="1")),
        ("docker-archive:/a:1/b", ArchiveReference(scheme="docker-archive", path="/a:1/b")),
    ],
)
def test_a_reference_on_the_node(text: str, expected: object) -> None:
    """A path says nothing of what is there; an archive may hold several images."""
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "No container image is named"),
        ("almalinux", "write an absolute path, or docker://"),
        ("image.sif", "write an absolute path, or docker://"),
        ("library://x/y", "nothing is known of library: images"),
        ("oci:/x", "nothing is known of oci: images"),
        ("oci-archive:x.tar", "an absolute path"),
        ("docker://Alice/x", "lower case"),
        ("docker://", "a name is made of"),
        ("docker://a..b/x", "is no host"),
        ("docker://a.b:0/x", "is no host"),
        ("docker://a.b:99999/x", "is no host"),
        ("docker://[::g]/x", "is no host"),
        ("docker://x:", "a tag is"),
        ("docker://x:-1", "a tag is"),
        ("docker://x@sha256:12", "after the @"),
        ("docker://x@md5:" + "0" * 32, "after the @"),
        ("docker://x y", "no blanks"),
        ("docker://../../x", "is no host"),
        ("docker://x/../y", "a name is made of"),
        ("/a\nb", "control characters"),
        ("/" + "x" * 5000, "longer than 4096"),
        ("docker://" + "x" * 300, "longer than 255"),
    ],
)
def test_a_mistake_is_one_short_sentence(text: str, problem: str) -> None:
    """It quotes what was written and says what to write."""
    with pytest.raises(UserError) as raised:
        parse_reference(text)
    assert problem in str(raised.value)
    assert len(str(raised.value)) < 400


def test_a_password_is_refused_and_not_repeated() -> None:
    """What somebody wrote by mistake doesn't go to a log."""
    with pytest.raises(UserError) as raised:
        parse_reference("docker://anna:s3cret@host.example/x:1")
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("127.example.org", False),
        ("10.0.0.1:5000", False),
        ("registry.cern.ch", False),
    ],
)
def test_only_this_node_is_loopback(host: str, expected: bool) -> None:
    """Plain HTTP goes to nobody else unasked."""
    assert RegistryReference(host=host, name="x").is_loopback is expected


def test_where_a_name_leads_on_this_node() -> None:
    """For whoever guards the pilot's own files."""
    assert local_path("oci-archive:/state/x.tar:1") == "/state/x.tar"
    assert local_path("/state") == "/state"
    assert local_path("docker://x:1") == local_path("nonsense") == ""


@pytest.mark.parametrize("text", ["", "sha256:", DIGEST.upper(), DIGEST + "0", "md5:" + "0" * 32])
def test_what_is_no_digest(text: str) -> None:
    """Lower case, sha256, 64 digits."""
    with pytest.raises(UserError, match=r"The flag is .*: write sha256: and 64"):
        check_digest(text, "The flag")


@given(st.text(max_size=60) | st.text("docker:/@.[]-_ax0:", max_size=40).map("docker://".__add__))
def test_any_text_is_a_reference_or_a_sentence(text: str) -> None:
    """There is no third answer; and what was understood is understood again."""
    try:
        parsed = parse_reference(text)
    except UserError:
        return

    assert parse_reference(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("image", "/here/image"),
        ("./alma:9", "/here/alma:9"),
        ("/image", "/image"),
        ("alma:9", "alma:9"),
        ("docker://alma", "docker://alma"),
        ("oci-archive:a.tar:1", "oci-archive:/here/a.tar:1"),
        ("oci-archive:/a.tar", "oci-archive:/a.tar"),
        ("", ""),
    ],
)
def test_a_name_from_the_command_line(written: str, expected: str) -> None:
    """A relative path is one from where the command is given."""
    assert from_directory(written, Path("/here")) == expected
