"""Golden wire files: what the protocol looks like, byte for byte, in each of its versions.

One file per message of both unions (a whole data frame), and one per frame of the session's
own. A file that exists is never edited: a change that breaks one breaks older peers. To add the
file of a new message, add its sample below and run

    WRITE_GOLDEN=1 pytest tests/transport/test_golden.py

which writes what is missing and touches nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.transport.factories import EPOCH, frames_of, pack, unpack
from transport.codec import Codec, agent_codec, digest, wrapper_codec
from transport.frames import FrameKind, Hello, Welcome, decode_body, encode_frame
from transport.messages import (
    AgentMessage,
    ConfigureLogging,
    ConfinementReported,
    CredentialKind,
    DeliverCredential,
    FileStaged,
    InputFile,
    JobDescription,
    JobFinished,
    JobStatus,
    JobStatusChanged,
    KillCode,
    KillReason,
    Limits,
    LogWritten,
    Message,
    Outcome,
    OutputSpec,
    ProcessAnnounced,
    ProcessIdentity,
    ProcessRole,
    RequestCredential,
    SavedFile,
    StartJob,
    StopJob,
    TraceWritten,
    WrapperMessage,
)
from transport.secret import Secret

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = ("v1", "v2")
"""Oldest first. A message that gains a field gets a file in a version of its own."""
PLACEHOLDER = "not-a-real-token"

_KILL = KillReason(code=KillCode.MEMORY, by="monitor", at=1.5, why="8.1 GB of 8 GB")

MESSAGES: tuple[Message, ...] = (
    StartJob(
        job_id=4_000_000_001,
        attempt=2,
        description=JobDescription(
            executable="/alice/bin/sim.sh",
            arguments=("--events", "10"),
            name="sim",
            validation_command="/alice/bin/check.sh",
            inputs=(InputFile(name="macro.C", source="/alice/macro.C"),),
            input_data=(
                InputFile(
                    name="raw.root",
                    source="root://se//raw.root",
                    is_staged=False,
                    catalogue_name="/alice/raw.root",
                ),
            ),
            outputs=(OutputSpec(patterns=("*.root",), archive="root.zip", prefer=("CERN",)),),
            error_outputs=(OutputSpec(patterns=("std*",), archive="log.zip", copies=1),),
            variables={"RUN": "1##2"},
            packages=("VO_ALICE@AliPhysics::v1",),
            requirements="other.TTL > 100",
            user="aliprod",
            tags=("pp",),
            unknown={"Colour": "blue"},
        ),
        limits=Limits(ttl_s=3600.0, memory_bytes=8_000_000_000, disk_bytes=10_000_000_000),
        work_directory="/tmp/job",
        output_directory="/tmp/out",
        private_directory="/tmp/private",
        environment={"ALIEN_PROC_ID": "4000000001"},
        credentials=(CredentialKind.CERTIFICATE, CredentialKind.TOKEN),
    ),
    ConfigureLogging(level="debug", format="json"),
    DeliverCredential(
        kind=CredentialKind.TOKEN,
        certificate_chain="-----BEGIN CERTIFICATE-----",
        token=Secret(PLACEHOLDER),
        expires_at=1_700_000_000.0,
        refusal="none",
    ),
    StopJob(reason=_KILL, grace_s=30.0),
    ProcessAnnounced(
        role=ProcessRole.PAYLOAD,
        process=ProcessIdentity(
            pid=14, pid_namespace=4_026_532_281, start_ticks=123_456, boot_id="b0-0t"
        ),
        at=2.5,
    ),
    ConfinementReported(
        namespaces={"pid": 4_026_532_281, "mnt": 4_026_532_280},
        uid_map="0 1000 1",
        mounts=("/", "/tmp/job"),
        cgroup="0::/job",
        no_new_privileges=True,
    ),
    RequestCredential(kind=CredentialKind.CERTIFICATE, signing_request="-----BEGIN"),
    JobStatusChanged(status=JobStatus.RUNNING, at=3.5, fields={"node": "wn1"}),
    TraceWritten(text="stage-in done", at=4.5),
    LogWritten(level="info", logger="wrapper", text="caf\u00e9", at=5.5),
    FileStaged(
        direction="out",
        name="a.root",
        bytes=5_000_000_000,
        sha256="ab",
        adler32="cd",
        location="/se/a.root",
        replicas=2,
    ),
    JobFinished(
        outcome=Outcome(
            exit_code=1,
            signal=9,
            reason="killed",
            kill=_KILL,
            outputs=(SavedFile(name="a", bytes=1, sha256="ab", adler32="cd", location="/se/a"),),
            has_warning=True,
        ),
        at=6.5,
    ),
)


def tag_of(message: Message) -> str:
    """Return what a message is called on the wire."""
    return str(type(message).__struct_config__.tag)


BY_TAG = {tag_of(message): message for message in MESSAGES}


def codec_of(message: Message) -> Codec:
    """Return the codec of the end that reads a message."""
    return wrapper_codec() if isinstance(message, AgentMessage) else agent_codec()


def message_frame(message: Message) -> bytes:
    """Return a data frame of the message, as its sender writes it."""
    return encode_frame(FrameKind.DATA, EPOCH, 1, codec_of(message).encode(message))


HELLO = Hello(versions=(1,), release="1.0", epoch=EPOCH)
WELCOME = Welcome(version=1, epoch=EPOCH, heartbeat_s=10.0, silence_s=60.0, window=32)

FRAMES: dict[str, tuple[FrameKind, int, Any]] = {
    "hello": (FrameKind.HELLO, 0, HELLO),
    "welcome": (FrameKind.WELCOME, 0, WELCOME),
    "echo": (FrameKind.ECHO, 5, digest(b"the body")),
    "heartbeat": (FrameKind.HEARTBEAT, 0, None),
    "unsupported": (FrameKind.UNSUPPORTED, 6, "future-message"),
    "goodbye": (FrameKind.GOODBYE, 0, "job finished"),
}


def wire_of(name: str) -> bytes:
    """Return what this release writes for a golden file's sample."""
    if name in BY_TAG:
        return message_frame(BY_TAG[name])
    kind, sequence, body = FRAMES[name]
    return encode_frame(kind, EPOCH, sequence, pack(body))


def golden(name: str) -> bytes:
    """Return a golden file's bytes; write it first where it is missing and that was asked for."""
    path = GOLDEN / newest(name) / f"{name}.bin"
    if not path.exists() and os.environ.get("WRITE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wire_of(name))
    return path.read_bytes()


def newest(name: str) -> str:
    """Return the newest version that has a file of its own."""
    there = [version for version in VERSIONS if (GOLDEN / version / f"{name}.bin").exists()]
    return there[-1] if there else VERSIONS[-1]


def test_every_message_has_a_golden_file() -> None:
    """Nothing of the vocabulary is left out, and no file is left over."""
    tags = {
        kind.__struct_config__.tag for kind in (*AgentMessage.__args__, *WrapperMessage.__args__)
    }
    for name in (*BY_TAG, *FRAMES):
        golden(name)

    assert set(BY_TAG) == tags
    assert {path.stem for path in GOLDEN.glob("*/*.bin")} == tags | set(FRAMES)
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted(VERSIONS)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*/*.bin")), ids=lambda path: str(path.stem))
def test_a_golden_message_of_any_version_is_read(path: Path) -> None:
    """What it didn't know yet is as if it weren't asked for."""
    (envelope,) = frames_of(path.read_bytes())

    if path.stem in BY_TAG:
        assert codec_of(BY_TAG[path.stem]).decode(envelope.body) == BY_TAG[path.stem]


@pytest.mark.parametrize("tag", BY_TAG)
def test_a_golden_message_reads_as_it_was_meant(tag: str) -> None:
    """The words in the file are the words of today."""
    (envelope,) = frames_of(golden(tag))
    message = BY_TAG[tag]

    assert (envelope.kind, envelope.epoch, envelope.sequence) == (FrameKind.DATA, EPOCH, 1)
    assert codec_of(message).decode(envelope.body) == message


@pytest.mark.parametrize("tag", BY_TAG)
def test_a_golden_message_is_written_byte_for_byte(tag: str) -> None:
    """Decoded and encoded again it is the same file."""
    (envelope,) = frames_of(golden(tag))
    codec = codec_of(BY_TAG[tag])
    body = codec.encode(codec.decode(envelope.body))

    assert encode_frame(FrameKind.DATA, EPOCH, 1, body) == golden(tag)


@pytest.mark.parametrize("tag", BY_TAG)
def test_fields_from_the_future_are_skipped(tag: str) -> None:
    """A newer peer's extra fields, at the top and in the words within, change nothing."""
    (envelope,) = frames_of(golden(tag))
    body = pack(with_future_fields(unpack(envelope.body), set(MAPS)))

    assert codec_of(BY_TAG[tag]).decode(body) == BY_TAG[tag]


MAPS = ("environment", "variables", "unknown", "namespaces", "fields")
"""Fields that are maps of the user's keys, where an extra key is an extra value."""


def with_future_fields(value: Any, maps: set[str]) -> Any:
    """Return the same words, each with a field more."""
    if isinstance(value, list):
        return [with_future_fields(item, maps) for item in value]
    if not isinstance(value, dict):
        return value
    grown = {
        key: item if key in maps else with_future_fields(item, maps) for key, item in value.items()
    }
    return grown | {"future_field": {"deep": [1, None]}}


@pytest.mark.parametrize("name", FRAMES)
def test_a_golden_frame_is_read_and_written_byte_for_byte(name: str) -> None:
    """The session's own frames are as fixed as the messages."""
    kind, sequence, meant = FRAMES[name]
    (envelope,) = frames_of(golden(name))
    body = decode_body(envelope.body, type(meant)) if meant is not None else None

    assert (envelope.kind, envelope.epoch, envelope.sequence) == (kind, EPOCH, sequence)
    assert body == meant
    assert encode_frame(kind, EPOCH, sequence, pack(body)) == golden(name)


@pytest.mark.parametrize("meant", [HELLO, WELCOME])
def test_a_greeting_from_the_future_is_read(meant: Hello | Welcome) -> None:
    """A newer peer may greet with more fields than we know."""
    body = msgspec.Raw(pack(msgspec.to_builtins(meant) | {"future_field": {"deep": [1]}}))

    assert decode_body(body, type(meant)) == meant


def test_no_golden_file_holds_a_credential() -> None:
    """The one secret in the corpus is a placeholder, and private keys have no field."""
    corpus = b"".join(path.read_bytes() for path in GOLDEN.glob("*/*.bin"))

    assert corpus.count(PLACEHOLDER.encode()) == 1
    assert b"PRIVATE" not in corpus
