"""What bare wrappers are confined to on this node: tried once, and remembered.

A ladder of namespaces is climbed down - user, mount and PID; user and mount, where /proc can't
be mounted (in docker, say); none - and with each comes Landlock where the kernel has it. A rung
holds when the wrapper's self-check, run through the very launch line, finds its namespaces, reads
and writes what it should, and can't what it shouldn't. What doesn't hold is a step with a code
and a sentence, for the trace of each job.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from pilot.bounded_process import run_bounded
from pilot.confinement.landlock import ABI_SCOPES, supported_abi
from pilot.confinement.plan import Confinement
from pilot.containers.check import COMMON_CAUSES, Asked, Verification, judge, own_pid_namespace
from pilot.containers.runtime import Cause, Reason
from transport.errors import OperatorError
from transport.messages import Record

RUNGS: tuple[tuple[str, ...], ...] = (("user", "mnt", "pid"), ("user", "mnt"), ())
_NAMES = {"user": "user", "mnt": "mount", "pid": "PID"}
_ELSEWHERE = "/var/tmp"  # noqa: S108 - where a job must not be able to write

CAUSES = (
    Cause(
        pattern=r"^confinement: (unshare|/proc/self/(uid_map|gid_map|setgroups)): ",
        reason=Reason.NO_USER_NAMESPACE,
        meaning="this node has no user namespaces for ordinary users (sysctl "
        "user.max_user_namespaces, kernel.unprivileged_userns_clone or "
        "kernel.apparmor_restrict_unprivileged_userns)",
    ),
    Cause(
        pattern=r"^confinement: mount /proc: ",
        reason=Reason.NO_PID_NAMESPACE,
        meaning="/proc of a new PID namespace can't be mounted: the pilot itself seems to be in a "
        "container that masks parts of it",
    ),
    Cause(
        pattern=r"^confinement: (mount|capset)",
        reason=Reason.NO_USER_NAMESPACE,
        meaning="a user namespace doesn't give the right to mount here",
    ),
    Cause(
        pattern=r"^confinement: ",
        reason=Reason.NO_LANDLOCK,
        meaning="Landlock can't be used",
    ),
)
"""What the stage says when a step is refused."""


class BareConfinement(StrEnum):
    """What the settings say about confining wrappers without a container."""

    REQUIRE = "require"
    PREFER = "prefer"
    NEVER = "never"


class BareChoice(Record, frozen=True, kw_only=True):
    """What a bare wrapper gets on this node, and why not more."""

    namespaces: tuple[str, ...] = ()
    landlock: int = 0
    reasons: tuple[str, ...] = ()
    """A sentence for everything that doesn't hold: for the job's trace."""

    @property
    def is_complete(self) -> bool:
        """Tell whether it is all that there is."""
        return self.namespaces == RUNGS[0] and self.landlock > 0


class CheckCommand(Protocol):
    """The wrapper's self-check as a command line, as the wrapper itself is launched."""

    def __call__(self, confinement: Confinement) -> tuple[str, ...]:
        """Return it without the check's own arguments."""
        ...


class BareLadder:
    """Finds out once what holds."""

    def __init__(
        self,
        state: Path,
        check_command: CheckCommand,
        *,
        make_nonce: Callable[[], str],
        environment: Mapping[str, str],
        find_abi: Callable[[], int] = supported_abi,
        timeout_s: float = 20.0,
    ) -> None:
        """``environment`` is a bare wrapper's own; ``make_nonce`` returns another text each time.

        ``find_abi`` tells the Landlock ABI to use, 0 for none.
        """
        self._state = state
        self._check_command = check_command
        self._make_nonce = make_nonce
        self._environment = environment
        self._find_abi = find_abi
        self._timeout_s = timeout_s
        self._choice: BareChoice | None = None
        self._one_at_a_time = asyncio.Lock()

    async def choose(self, policy: BareConfinement) -> BareChoice:
        """Return what holds here; the first call waits for the checks, each with a deadline.

        Raises `OperatorError` where the policy is require and not everything holds.
        """
        if policy is BareConfinement.NEVER:
            return BareChoice(reasons=("bare confinement is switched off",))
        async with self._one_at_a_time:
            if self._choice is None:
                self._choice = await self._climb()
        if policy is BareConfinement.REQUIRE and not self._choice.is_complete:
            raise OperatorError(
                "bare_confinement is require, and this node doesn't have all of it: "
                + " ".join(self._choice.reasons)
            )
        return self._choice

    async def _climb(self) -> BareChoice:
        abi = self._find_abi()
        steps = [] if abi >= ABI_SCOPES else [_too_old(abi)]
        refused: set[Reason | None] = set()
        for landlock in dict.fromkeys((abi, 0)):
            for namespaces in RUNGS:
                has_no_chance = namespaces and Reason.NO_USER_NAMESPACE in refused
                if has_no_chance or not (namespaces or landlock):
                    continue
                verification = await self._try(namespaces, landlock)
                if verification.works:
                    return BareChoice(
                        namespaces=namespaces, landlock=landlock, reasons=tuple(steps)
                    )
                refused.add(verification.reason)
                steps.append(_failed(namespaces, landlock, verification))
        return BareChoice(reasons=tuple(steps))

    async def _try(self, namespaces: tuple[str, ...], landlock: int) -> Verification:
        nonce = self._make_nonce()
        with self._check_directories(nonce) as root:
            writable = tuple(f"{root}/{name}" for name in ("work", "output", "private"))
            forbidden = (f"{root}/forbidden", *((_ELSEWHERE,) if landlock else ()))
            asked = Asked(
                nonce=nonce,
                writable=writable,
                read_only=forbidden,
                own_pid_namespace="pid" in namespaces,
                host_pid_namespace=own_pid_namespace(),
                uid=os.geteuid(),
            )
            confinement = Confinement(
                namespaces=namespaces,
                landlock=landlock,
                write=writable,
                hide=os.path.dirname(root),
            )
            finished = await run_bounded(
                [*self._check_command(confinement), nonce, *asked.directories],
                environment=self._environment,
                timeout_s=self._timeout_s,
            )
        return unread(judge(asked, finished, (*CAUSES, *COMMON_CAUSES)), forbidden)

    @contextmanager
    def _check_directories(self, nonce: str) -> Iterator[str]:
        try:
            root = Path(tempfile.mkdtemp(prefix="bare-check-", dir=os.path.realpath(self._state)))
            for name in ("work", "output", "private", "forbidden"):
                (root / name).mkdir()
                (root / name / "nonce").write_text(nonce)
        except OSError as error:
            raise OperatorError(
                f"Bare confinement can't be checked in {self._state}: {error.strerror}."
            ) from error
        try:
            yield str(root)
        finally:
            shutil.rmtree(root, ignore_errors=True)


def unread(verification: Verification, forbidden: tuple[str, ...]) -> Verification:
    """Return the verification, failed where the self-check read what it must not read."""
    seen = verification.found.directories if verification.found is not None else ()
    read = [place.path for place in seen if place.path in forbidden and place.nonce]
    if not verification.works or not read:
        return verification
    return Verification(
        works=False,
        reason=Reason.NOT_CONFINED,
        detail=f"{read[0]} was to be hidden, and was read",
        seconds=verification.seconds,
        found=verification.found,
    )


def _too_old(abi: int) -> str:
    if abi == 0:
        return (
            f"bare without Landlock [{Reason.NO_LANDLOCK}]: the kernel has none, or only its first "
            "form (Linux 5.19 or later has more, where it is among the lsm= of the command line)."
        )
    return (
        f"bare with Landlock ABI {abi} [{Reason.NO_LANDLOCK}]: it doesn't confine signals "
        "(Linux 6.12 does)."
    )


def _failed(namespaces: tuple[str, ...], landlock: int, verification: Verification) -> str:
    own = " and ".join(_NAMES[kind] for kind in namespaces)
    what = f"with {own} namespaces" if own else "without namespaces"
    also = f" and Landlock ABI {landlock}" if landlock else ""
    return f"bare {what}{also} doesn't work [{verification.reason}]: {verification.detail}."
