"""How a person is told what a wrapper is confined to."""

from __future__ import annotations

import msgspec
import pytest

from actors.wrapper_words import told_confinement
from transport.messages import ConfinementReported

REPORT = ConfinementReported(
    namespaces={"pid": 2, "mnt": 1},
    uid_map="1000 1000 1",
    mounts=("/", "/proc"),
    cgroup="0::/job",
    no_new_privileges=True,
)


def test_a_wrapper_that_cannot_know_says_nothing_of_its_own() -> None:
    """In a container the runtime made the namespaces."""
    assert told_confinement(REPORT) == (
        "confinement: namespaces mnt:1 pid:2; uid map 1000 1000 1; 2 mounts; cgroup 0::/job; "
        "no_new_privs yes"
    )


@pytest.mark.parametrize(
    ("own", "landlock", "said"),
    [
        (
            ("user", "mnt", "pid"),
            7,
            "own PID namespace yes; own user namespace yes; own mount namespace yes; "
            "Landlock ABI 7, the payload's own ABI 7",
        ),
        (
            (),
            0,
            "own PID namespace no; own user namespace no; own mount namespace no; Landlock no",
        ),
    ],
)
def test_a_bare_wrapper_says_what_held(own: tuple[str, ...], landlock: int, said: str) -> None:
    """Each of it, yes or no."""
    report = msgspec.structs.replace(
        REPORT, own_namespaces=own, landlock=landlock, payload_landlock=landlock
    )

    assert told_confinement(report).endswith(f"no_new_privs yes; {said}")
