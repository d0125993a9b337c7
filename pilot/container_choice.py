"""Which container runtime a job gets on this node, if any: tried, and remembered.

Each runtime is tried in the job's own image, down a ladder: with a PID namespace of its own,
then without, then the next runtime. What came of it is remembered by what was tried (the
runtime's and the image's path and time, and the rung); a failure for some minutes only, as a
busy node may fail once.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from pilot.container import (
    BUNDLE_INSIDE,
    WORK_INSIDE,
    Bind,
    ContainerLaunch,
    Runtime,
    checked_image,
)
from pilot.container_check import Verification, verify
from pilot.container_search import inspect_file
from transport.errors import OperatorError, PilotError, UserError
from transport.messages import Record

_JOB_DIRECTORIES = ("work", "output", "private")
"""What of an attempt's directories a job is shown, as `pilot.launching` binds them."""
_FAILURE_KEPT_S = 300.0
_REMEMBERED_MAX = 64


class ContainerPolicy(StrEnum):
    """What the settings say about containers."""

    REQUIRE = "require"
    PREFER = "prefer"
    NEVER = "never"


class Choice(Record, frozen=True, kw_only=True):
    """What a job gets: a runtime and how to use it, or None for bare, and why."""

    runtime: Runtime | None = None
    own_pid_namespace: bool = False
    use_userns: bool = False
    reasons: tuple[str, ...] = ()
    """A sentence for everything that was tried and didn't work: for the job's trace."""


class ContainerChoice:
    """Chooses for each job, and remembers what works on this node.

    ``check_command`` is the wrapper's self-check as seen inside, up to the nonce;
    ``make_nonce`` returns another string each time. ``scratch_directory`` is a place on the
    node's own disk for the checks' work directories, ``host`` the pilot's own environment.
    ``site_binds`` (/cvmfs, say) are part of every launch.
    """

    def __init__(
        self,
        *,
        runtimes: Sequence[Runtime],
        bundle_root: Path,
        check_command: Sequence[str],
        make_nonce: Callable[[], str],
        scratch_directory: Path,
        host: Mapping[str, str],
        use_userns: bool,
        site_binds: tuple[Bind, ...] = (),
        timeout_s: float = 30.0,
    ) -> None:
        self._runtimes = tuple(runtimes)
        self._bundle_root = bundle_root
        self._check_command = tuple(check_command)
        self._make_nonce = make_nonce
        self._scratch_directory = scratch_directory
        self._host = host
        self._use_userns = use_userns
        self._site_binds = site_binds
        self._timeout_s = timeout_s
        self._remembered: dict[tuple[object, ...], tuple[Verification, float]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def choose(self, image: str, policy: ContainerPolicy) -> Choice:
        """Return what a job with this image gets.

        Waits for the checks that aren't remembered: each rung of each runtime has its own
        deadline. Where the policy is require, raises `UserError` for an image that can't be
        used and `OperatorError` when no runtime works; else the choice is bare, with reasons.
        """
        if policy is ContainerPolicy.NEVER:
            return Choice(reasons=("Containers are switched off in the settings.",))
        try:
            async with self._one_at_a_time:
                choice = await self._climb(image, await self._state_of_image(image))
        except PilotError as error:
            if policy is ContainerPolicy.REQUIRE:
                raise
            return Choice(reasons=(str(error),))
        if choice.runtime is None and policy is ContainerPolicy.REQUIRE:
            raise OperatorError(" ".join(choice.reasons))
        return choice

    async def _state_of_image(self, image: str) -> str:
        if not image:
            raise UserError("No container image is named, by the job or in the settings.")
        found = await inspect_file(checked_image(image))
        if found.problem:
            by_whom = OperatorError if found.is_hung else UserError
            raise by_whom(f"The container image {image} can't be used: {found.problem}.")
        return found.state

    async def _climb(self, image: str, image_state: str) -> Choice:
        reasons = [] if self._runtimes else ["No container runtime was found on this node."]
        for runtime in self._runtimes:
            runtime_state = (await inspect_file(runtime.path)).state
            for own_pid_namespace in (True, False):
                key = (runtime, runtime_state, image, image_state, own_pid_namespace)
                verification = await self._verified(key, runtime, image, own_pid_namespace)
                if verification.works:
                    return Choice(
                        runtime=runtime,
                        own_pid_namespace=own_pid_namespace,
                        use_userns=self._use_userns,
                        reasons=tuple(reasons),
                    )
                rung = "with" if own_pid_namespace else "without"
                reasons.append(
                    f"{runtime.path} {rung} a PID namespace doesn't work with {image}: "
                    f"{verification.reason}."
                )
        return Choice(reasons=tuple(reasons))

    async def _verified(
        self, key: tuple[object, ...], runtime: Runtime, image: str, own_pid_namespace: bool
    ) -> Verification:
        now = asyncio.get_running_loop().time()
        verification, kept_until = self._remembered.get(key, (None, 0.0))
        if verification is None or (not verification.works and now >= kept_until):
            verification = await self._try(runtime, image, own_pid_namespace)
            self._remembered.pop(key, None)
            self._remembered[key] = (verification, now + _FAILURE_KEPT_S)
            while len(self._remembered) > _REMEMBERED_MAX:
                del self._remembered[next(iter(self._remembered))]
        return verification

    async def _try(self, runtime: Runtime, image: str, own_pid_namespace: bool) -> Verification:
        with self._check_directories() as (root, scratch):
            binds = (
                *(
                    Bind(source=f"{root}/{name}", destination=f"{WORK_INSIDE}/{name}")
                    for name in _JOB_DIRECTORIES
                ),
                Bind(source=str(self._bundle_root), destination=BUNDLE_INSIDE, read_only=True),
            )
            launch = ContainerLaunch(
                runtime=runtime,
                image=image,
                binds=(*binds, *self._site_binds),
                working_directory=f"{WORK_INSIDE}/work",
                scratch_directory=scratch,
                own_pid_namespace=own_pid_namespace,
                use_userns=self._use_userns,
            )
            return await verify(
                launch,
                self._check_command,
                nonce=self._make_nonce(),
                host=self._host,
                timeout_s=self._timeout_s,
            )

    @contextmanager
    def _check_directories(self) -> Iterator[tuple[str, str]]:
        try:
            root = Path(tempfile.mkdtemp(prefix="check-", dir=self._scratch_directory))
            for name in (*_JOB_DIRECTORIES, "scratch"):
                (root / name).mkdir()
        except OSError as error:
            raise OperatorError(
                f"No container can be checked in {self._scratch_directory}: {error.strerror}."
            ) from error
        try:
            yield str(root), str(root / "scratch")
        finally:
            shutil.rmtree(root, ignore_errors=True)
