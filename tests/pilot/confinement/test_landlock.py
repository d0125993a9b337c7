"""Landlock by kernel: which rights each ABI has, and what this one does with them."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pilot.confinement import landlock
from pilot.confinement.domains import enter_wrapper_domain
from pilot.confinement.namespaces import allow_no_new_privileges
from pilot.confinement.plan import Confinement

needs_landlock = pytest.mark.skipif(
    landlock.supported_abi() == 0, reason="this kernel has no Landlock"
)


@pytest.mark.parametrize(("found", "used"), [(1, 0), (2, 2), (6, 6), (7, 7), (12, 7)])
def test_an_abi_is_used_as_far_as_it_is_known(
    monkeypatch: pytest.MonkeyPatch, found: int, used: int
) -> None:
    """The first is of no use, and those to come are used like the last one known."""
    monkeypatch.setattr(landlock, "_syscall", lambda *_: found)

    assert landlock.supported_abi() == used


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
def test_a_kernel_without_landlock_has_abi_0(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Not built, switched off, or forbidden by a filter of system calls."""

    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(landlock, "_syscall", refuse)

    assert landlock.supported_abi() == 0


def test_each_abi_is_asked_for_what_it_knows() -> None:
    """A right too many, and the kernel refuses the whole ruleset."""
    assert landlock.write_rights(2) < 1 << 14
    assert landlock.write_rights(3) & 1 << 14
    assert landlock.write_rights(7) < 1 << 15
    assert not landlock.scopes(5)
    assert landlock.scopes(6) == 3


def test_nobody_may_make_devices() -> None:
    """Neither of characters nor of blocks."""
    device = 1 << 6 | 1 << 11

    assert landlock.write_rights(7) & device == device
    assert not landlock.granted_write(7) & device


@pytest.mark.real
@needs_landlock
@pytest.mark.parametrize("abi", range(2, landlock.supported_abi() + 1))
def test_a_hidden_directory_is_hidden_and_all_else_is_read(tmp_path: Path, abi: int) -> None:
    """With every ABI that this kernel can speak, and no namespace."""
    for name in ("state/work", "state/other", "beside"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "link").symlink_to("state")
    (tmp_path / "back").symlink_to("..")
    confinement = Confinement(
        landlock=abi,
        write=(str(tmp_path / "state/work"),),
        hide=os.path.realpath(tmp_path / "state"),
    )

    def confined() -> list[str]:
        allow_no_new_privileges()
        enter_wrapper_domain(confinement, (), is_hidden=False)
        return [
            tried(lambda: (tmp_path / "state/other/file").read_text()),
            tried(lambda: (tmp_path / "link/other/file").read_text()),
            tried(lambda: (tmp_path / "beside/file").read_text()),
            tried(lambda: (tmp_path / "state/work/file").read_text()),
            tried(lambda: str((tmp_path / "beside/new").write_text("x"))),
            tried(lambda: str((tmp_path / "state/work/new").write_text("x"))),
            tried(lambda: ",".join(sorted(os.listdir(tmp_path)))),
            tried(lambda: str(Path("/dev/null").write_text("x"))),
        ]

    assert in_a_child(confined) == [
        "PermissionError",
        "PermissionError",
        "beside",
        "state/work",
        "PermissionError",
        "1",
        "back,beside,link,state",
        "1",
    ]


def tried(attempt: Callable[[], str]) -> str:
    """Return what came of it, or how it failed."""
    try:
        return attempt()
    except OSError as error:
        return type(error).__name__


def in_a_child(work: Callable[[], list[str]]) -> list[str]:
    """Do it in a child, as what is given up is given up for good."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, "\n".join(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answers:
        text = answers.read()
    os.waitpid(child, 0)
    return text.split("\n")
