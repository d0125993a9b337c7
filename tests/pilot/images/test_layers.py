from __future__ import annotations

import pytest

from pilot.images.layers import Budget, Member, Opaque, Whiteout, kept_mode, meaning
from transport.errors import UserError


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("etc/passwd", Member(parts=("etc", "passwd"))),
        ("./etc//passwd", Member(parts=("etc", "passwd"))),
        ("/etc/passwd", Member(parts=("etc", "passwd"))),
        ("./", Member(parts=())),
        ("etc/.wh.passwd", Whiteout(parts=("etc", "passwd"))),
        (".wh.etc", Whiteout(parts=("etc",))),
        ("etc/.wh..wh..opq", Opaque(parts=("etc",))),
        (".wh..wh..opq", Opaque(parts=())),
        (".wh..wh.plnk", None),
        ("etc/.wh./x", Member(parts=("etc", ".wh.", "x"))),
    ],
)
def test_what_a_name_means(name: str, expected: object) -> None:
    """Whiteouts are told by the last part alone."""
    assert meaning(name) == expected


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/..", ".wh.", "a/.wh..", "a/.wh...", "x" * 256, "a\0b"]
)
def test_a_name_that_leads_out_is_refused(name: str) -> None:
    """In a whiteout, too: ``.wh...`` would remove the directory above."""
    with pytest.raises(UserError):
        meaning(name)


def test_rights_are_kept_as_far_as_they_are_harmless() -> None:
    """Ours to read and remove, nobody else's to write, and no setuid."""
    assert kept_mode(0o4755, is_directory=False) == 0o755
    assert kept_mode(0o777, is_directory=False) == 0o755
    assert kept_mode(0o000, is_directory=False) == 0o600
    assert kept_mode(0o000, is_directory=True) == 0o700
    assert kept_mode(0o1777, is_directory=True) == 0o755


def test_a_budget_ends() -> None:
    """By bytes, or by entries that take next to none."""
    with pytest.raises(UserError, match="more than 10000 bytes"):
        Budget(10_000, 10).take(10_001)
    few = Budget(10_000_000, 2)
    few.take(0)
    few.take(0)
    with pytest.raises(UserError, match="more than 2 files"):
        few.take(0)
