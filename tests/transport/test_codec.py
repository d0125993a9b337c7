"""The codec: messages to bytes and back, and a name for whatever isn't one."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transport.factories import FutureMessage, command, fact, pack, unpack
from transport.codec import Codec, Undecodable, agent_codec, digest, wrapper_codec
from transport.messages import (
    AgentMessage,
    CredentialKind,
    DeliverCredential,
    TraceWritten,
    WrapperMessage,
)
from transport.secret import Secret


def refused(codec: Codec, body: bytes) -> Undecodable:
    """Return why ``codec`` can't decode ``body``."""
    with pytest.raises(Undecodable) as caught:
        codec.decode(body)
    return caught.value


def test_each_end_reads_what_the_other_says() -> None:
    """The agent decodes wrappers' messages, the wrapper agents'."""
    assert agent_codec().decode(wrapper_codec().encode(fact("a"))) == fact("a")
    assert wrapper_codec().decode(agent_codec().encode(command("b"))) == command("b")


def test_a_message_of_the_wrong_direction_is_unknown() -> None:
    """A wrapper that commands an agent isn't understood."""
    error = refused(agent_codec(), agent_codec().encode(command()))

    assert error.is_unknown
    assert error.tag == "configure-logging"


def test_a_message_of_a_newer_peer_is_unknown_by_its_tag() -> None:
    """The tag is what gets answered."""
    error = refused(agent_codec(), wrapper_codec().encode(FutureMessage()))

    assert (error.tag, error.is_unknown) == ("future-message", True)


def test_an_unknown_field_is_skipped() -> None:
    """A field that a newer peer added changes nothing here."""
    body = pack({"type": "trace-written", "text": "a", "at": 1.0, "mood": {"deep": [1, {}]}})

    assert agent_codec().decode(body) == TraceWritten(text="a", at=1.0)


def test_a_message_raw_in_its_envelope_is_decoded() -> None:
    """A body needn't be copied out of its frame first."""
    raw = msgspec.Raw(wrapper_codec().encode(fact("a")))

    assert agent_codec().decode(raw) == fact("a")


def test_a_codec_of_one_message_knows_one_tag() -> None:
    """A union of one is no union to Python, but it is to us."""
    codec = Codec(TraceWritten)

    assert codec.decode(pack({"type": "trace-written", "text": "a", "at": 1.0})) == TraceWritten(
        text="a", at=1.0
    )
    assert not refused(codec, pack({"type": "trace-written"})).is_unknown


@pytest.mark.parametrize(
    ("body", "tag"),
    [
        pytest.param(pack({"type": "trace-written"}), "trace-written", id="fields missing"),
        pytest.param(
            pack({"type": "trace-written", "text": 5, "at": 1.0}), "trace-written", id="wrong type"
        ),
        pytest.param(
            b"\x82\xa4type\xadtrace-written\xa4text\xa1\xff", "trace-written", id="invalid UTF-8"
        ),
        pytest.param(
            pack({"type": "job-status-changed", "status": "HAPPY", "at": 1.0}),
            "job-status-changed",
            id="no such status",
        ),
        pytest.param(pack("text"), "", id="text"),
        pytest.param(pack(None), "", id="nil"),
        pytest.param(pack([1, 2]), "", id="array"),
        pytest.param(pack({"text": "a"}), "", id="no tag"),
        pytest.param(pack({"type": 7}), "", id="tag is a number"),
        pytest.param(b"\x81\xa4type\xa2\xff\xfe", "", id="tag isn't UTF-8"),
        pytest.param(b"", "", id="empty"),
        pytest.param(b"\xc1", "", id="no msgpack"),
        pytest.param(b"\x91" * 100_000, "", id="depth bomb"),
        pytest.param(b"\x81\xa1x" + b"\x91" * 100_000, "", id="depth bomb in a field"),
        pytest.param(b"\xdf\xff\xff\xff\xff", "", id="four billion fields"),
    ],
)
def test_a_broken_message_is_named_and_not_called_unknown(body: bytes, tag: str) -> None:
    """What can't be read raises one error, with the tag as far as there is one."""
    error = refused(agent_codec(), body)

    assert (error.tag, error.is_unknown) == (tag, False)


def test_only_the_start_of_a_foreign_tag_is_kept() -> None:
    """A tag is the peer's text: a long one is neither kept nor answered whole."""
    error = refused(agent_codec(), pack({"type": "x" * 100_000}))

    assert error.tag == "x" * 64
    assert len(str(error)) < 200


def test_a_secret_travels_and_arrives_as_one() -> None:
    """The codec is one of the few places that reveal."""
    sent = DeliverCredential(kind=CredentialKind.TOKEN, token=Secret("s3"), expires_at=1.0)
    body = agent_codec().encode(sent)
    got = wrapper_codec().decode(body)

    assert got == sent
    assert isinstance(got, DeliverCredential)
    assert isinstance(got.token, Secret)


def test_a_secret_of_the_wrong_type_is_broken() -> None:
    """A number where a token belongs is refused without a crash."""
    body = pack({"type": "deliver-credential", "kind": "token", "token": 5, "expires_at": 1.0})

    assert refused(wrapper_codec(), body).tag == "deliver-credential"


def test_what_has_no_wire_form_is_refused() -> None:
    """A value that isn't a word of the vocabulary can't slip into a message."""
    with pytest.raises(TypeError, match="object can't travel"):
        agent_codec().encode(TraceWritten(text=object(), at=1.0))  # type: ignore[arg-type]


def test_a_field_of_a_foreign_type_can_t_be_read() -> None:
    """A vocabulary that names a type without a wire form is found at the first message."""

    class Odd(msgspec.Struct, tag_field="type", tag="odd"):
        value: complex

    error = refused(Codec(Odd), pack({"type": "odd", "value": "1"}))

    assert "complex" in str(error)


@given(body=st.binary(max_size=300))
def test_any_body_decodes_or_is_undecodable(body: bytes) -> None:
    """Nothing but `Undecodable` leaves the decoder, whatever came."""
    for codec in (agent_codec(), wrapper_codec()):
        with contextlib.suppress(Undecodable):
            codec.decode(body)


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    ),
    field=st.sampled_from(["text", "at", "role", "process", "namespaces", "outcome", "status"]),
    tag=st.sampled_from(
        ["trace-written", "process-announced", "confinement-reported", "job-finished"]
    ),
)
def test_any_value_in_any_field_is_read_or_undecodable(value: object, field: str, tag: str) -> None:
    """Well-formed msgpack of the wrong shape meets the same one error."""
    with contextlib.suppress(Undecodable):
        agent_codec().decode(pack({"type": tag, field: value}))


def test_a_digest_tells_bodies_apart() -> None:
    """One flipped bit is another digest."""
    assert digest(b"DONE") != digest(b"DONE_WARN")
    assert digest(msgspec.Raw(b"DONE")) == digest(b"DONE")


def test_tags_are_unique_over_both_unions() -> None:
    """A tag says one thing, whichever way it travels."""
    tags = [
        kind.__struct_config__.tag for kind in (*AgentMessage.__args__, *WrapperMessage.__args__)
    ]

    assert len(tags) == len(set(tags)) == 12
    assert unpack(agent_codec().encode(command()))["type"] in tags
