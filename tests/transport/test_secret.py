"""Secrets: every accidental way of showing one is closed."""

from __future__ import annotations

import copy
import json
import pickle
import traceback

import msgspec
import pytest

from transport.messages import CredentialKind, DeliverCredential
from transport.secret import Secret

TEXT = "correct horse battery staple"


def credential() -> DeliverCredential:
    """Return a message with a secret in it."""
    return DeliverCredential(kind=CredentialKind.TOKEN, token=Secret(TEXT), expires_at=1.0)


def test_reveal_is_the_one_way_to_the_text() -> None:
    """Whoever truly needs the text asks for it by that word."""
    assert Secret(TEXT).reveal() == TEXT


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(repr(Secret(TEXT)), id="repr"),
        pytest.param(str(Secret(TEXT)), id="str"),
        pytest.param(f"{Secret(TEXT)}", id="f-string"),
        pytest.param(f"{Secret(TEXT)!r}", id="f-string repr"),
        pytest.param("%s" % Secret(TEXT), id="percent"),  # noqa: UP031 - the very thing tested
        pytest.param(repr([Secret(TEXT)]), id="in a list"),
        pytest.param(repr(credential()), id="in a message"),
    ],
)
def test_printing_shows_no_text(shown: str) -> None:
    """Every way of printing says that there is a secret, and nothing else."""
    assert "<Secret>" in shown
    assert "horse" not in shown


@pytest.mark.parametrize(
    "leak",
    [
        pytest.param(lambda: pickle.dumps(Secret(TEXT)), id="pickle"),
        pytest.param(lambda: copy.copy(Secret(TEXT)), id="copy"),
        pytest.param(lambda: copy.deepcopy([Secret(TEXT)]), id="deepcopy"),
        pytest.param(lambda: json.dumps(Secret(TEXT)), id="json"),
        pytest.param(lambda: msgspec.json.encode(credential()), id="msgspec json"),
        pytest.param(lambda: msgspec.msgpack.encode(credential()), id="msgpack without our codec"),
        pytest.param(lambda: msgspec.to_builtins(credential()), id="builtins"),
        pytest.param(lambda: vars(Secret(TEXT)), id="vars"),
        pytest.param(lambda: format(Secret(TEXT), ">40"), id="format with a width"),
    ],
)
def test_handing_it_to_a_serializer_fails_without_showing_it(leak: object) -> None:
    """Tools that would copy the text elsewhere stop with an error that doesn't quote it."""
    assert callable(leak)
    with pytest.raises(TypeError) as caught:
        leak()

    assert "horse" not in "".join(traceback.format_exception(caught.value))


def test_equal_secrets_are_equal() -> None:
    """Two secrets of the same text are one value, also in a dictionary."""
    assert Secret(TEXT) == Secret(TEXT)
    assert Secret(TEXT) != Secret(TEXT + "!")
    assert hash(Secret(TEXT)) == hash(Secret("other")), "a hash tells nothing about the text"


def test_a_secret_is_no_text() -> None:
    """A comparison with the bare text is never true."""
    assert Secret(TEXT) != TEXT


def test_secrets_of_foreign_bytes_compare() -> None:
    """A key file that isn't UTF-8 doesn't break the comparison."""
    assert Secret("\udcff") == Secret("\udcff")
    assert Secret("\udcff") != Secret("\udcfe")
