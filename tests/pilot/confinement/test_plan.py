"""What a confinement is on a command line, and what is granted to hide a directory."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot.confinement.plan import Confinement, below, beside, parsed

PATHS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20).map(
    "/{}".format
)


@given(
    st.builds(
        Confinement,
        namespaces=st.sampled_from([(), ("user", "mnt"), ("user", "mnt", "pid")]),
        landlock=st.integers(0, 7),
        write=st.lists(PATHS, max_size=3).map(tuple),
        hide=PATHS,
        read=st.lists(PATHS, max_size=3).map(tuple),
    )
)
def test_words_are_read_back_as_they_were_meant(confinement: Confinement) -> None:
    """Whatever is in a path: an equals sign, a line break, two dashes."""
    words = confinement.arguments()
    end = words.index("--")

    assert end == len(words) - 1
    assert parsed(list(words[:end])) == confinement


TREE = {
    "/": ["bin", "home", "etc"],
    "/home": ["ann", "bob", "bobby"],
    "/home/bob": [".pilot", "data", ".pilots"],
}


def names_in(directory: str) -> list[str]:
    """List a directory of the tree."""
    return TREE.get(directory, [])


def test_what_is_beside_the_way_is_granted() -> None:
    """All but the directory itself and those that lead to it."""
    granted = list(beside("/home/bob/.pilot", names_in))

    assert granted == [
        "/bin",
        "/etc",
        "/home/ann",
        "/home/bobby",
        "/home/bob/.pilots",
        "/home/bob/data",
    ]


@pytest.mark.parametrize("hidden", ["/home/bob/.pilot", "/home/bob", "/home", "/bin", "/new/place"])
def test_nothing_granted_holds_what_is_hidden(hidden: str) -> None:
    """A rule counts for all below its directory."""
    for granted in beside(hidden, names_in):
        assert os.path.commonpath([granted, hidden]) not in (granted, hidden)


def test_a_directory_that_cannot_be_listed_has_nothing_beside_the_way() -> None:
    """What is above it is granted all the same."""
    assert list(beside("/home/eve/x", names_in)) == [
        "/bin",
        "/etc",
        "/home/ann",
        "/home/bob",
        "/home/bobby",
    ]


def test_only_what_is_in_the_hidden_directory_needs_to_be_let_through() -> None:
    """Each once, and not again within another."""
    paths = ["/s/b/c", "/s/a", "/s", "/state/x", "/usr", "/s/b", "/s/a", "/s/bc"]

    assert below(paths, "/s") == ("/s/a", "/s/b", "/s/bc")
