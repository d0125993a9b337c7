"""Does a runtime truly work here, and what can it do? Tried with the wrapper's own self-check.

First the ladder that jobs climb, in a tiny image; then, by the way that held, what a class and
an administrator ask for: a mount point that the image lacks, the same with underlay asked for,
and an image file. The image is a directory with nothing in it. A bundle needs no more.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from pilot.bounded_process import run_bounded
from pilot.bundle import WRAPPER_VARIABLES
from pilot.containers.check import (
    COMMON_CAUSES,
    Asked,
    SelfCheck,
    Verification,
    judge,
    own_pid_namespace,
)
from pilot.containers.dialects import dialect_of
from pilot.containers.ladder import Choice, ContainerPolicy
from pilot.containers.mounts import TMP_BASE
from pilot.containers.runtime import Bind, ContainerLaunch, ImageForm, Reason, Rung, Runtime
from pilot.probe.conf_file import FoundConf, find_conf
from pilot.probe.facts import RuntimeFacts, StepFacts
from pilot.probe.workshop import Workshop, squashfs_of
from transport.errors import PilotError

_CONF_S = 2.0
_FAIR_S = 2.5  # one that was given this long and said nothing is told to hang
_INSIDE, _MISSING = "/tmp/job", "/pilot-probe/job"  # noqa: S108 - inside the container
_NO_MKSQUASHFS = "none could be made to try, as mksquashfs is not there"
_UNDERLAY = {"APPTAINER_UNDERLAY": "1"}


class RuntimeTrial:
    """Tries one runtime; what was seen by a deadline counts."""

    def __init__(
        self,
        runtime: Runtime,
        workshop: Workshop,
        *,
        make_nonce: Callable[[], str],
        deadline: float,
    ) -> None:
        """``deadline`` is the event loop's time; ``make_nonce`` gives another one each time."""
        self._runtime = runtime
        self._workshop = workshop
        self._make_nonce = make_nonce
        self._deadline = deadline

    async def run(self, facts: RuntimeFacts) -> RuntimeFacts:
        """Return ``facts`` with what was seen; wait until the deadline at most."""
        begun = asyncio.get_running_loop().time()
        image = await asyncio.to_thread(self._workshop.image, os.path.basename(self._runtime.path))
        choosing = self._choose(image)
        found, choice = await asyncio.gather(self._conf(), choosing)
        facts = msgspec.structs.replace(facts, conf=found.conf)
        waited = asyncio.get_running_loop().time() - begun
        if choice is None:
            return _hung(facts, waited) if waited >= _FAIR_S else facts
        if choice.runtime is None:
            steps = _steps(choice)
            was_hurried = waited < _FAIR_S and any(s.reason is Reason.NO_ANSWER for s in steps)
            return (
                facts if was_hurried else msgspec.structs.replace(facts, works=False, steps=steps)
            )
        facts = msgspec.structs.replace(
            facts, works=True, steps=_steps(choice), rung=str(choice.rung)
        )
        return await self._what_it_can(facts, choice.rung, image, found)

    async def _conf(self) -> FoundConf:
        return await find_conf(
            self._runtime, host=self._workshop.host, timeout_s=min(_CONF_S, self._left_s() / 2)
        )

    async def _choose(self, image: Path) -> Choice | None:
        # Half of what is left for a way, so that one that hangs leaves time for the next.
        ladder = self._workshop.ladder(
            (self._runtime,), self._make_nonce, timeout_s=self._left_s() / 2
        )
        try:
            async with asyncio.timeout_at(self._deadline):
                return await ladder.choose(str(image), ContainerPolicy.PREFER)
        except TimeoutError:
            return None

    async def _what_it_can(
        self, facts: RuntimeFacts, rung: Rung, image: Path, found: FoundConf
    ) -> RuntimeFacts:
        # The other kinds have no layers to ask about, and their part in the time is better saved.
        is_layered = facts.can_have_underlay
        plain, missing, underlay, squashfs = await asyncio.gather(
            self._launched(rung, image, _INSIDE),
            self._launched(rung, image, _MISSING) if is_layered else _none(),
            self._launched(rung, image, _MISSING, _UNDERLAY) if found.takes_underlay else _none(),
            self._squashfs(rung, image) if is_layered else _none(),
        )
        return msgspec.structs.replace(
            facts,
            mode=None if plain is None else _mode(plain.found),
            own_pid_namespace=None if plain is None else _has_own_pid(plain.found),
            makes_mount_points=_holds(missing),
            underlay_works=_underlay(found, missing, underlay),
            squashfs_works=None if _is_untried(squashfs) else _holds(squashfs),
            squashfs_detail="" if squashfs is None else squashfs.detail,
        )

    async def _squashfs(self, rung: Rung, image: Path) -> Verification | None:
        file = await squashfs_of(image, timeout_s=self._left_s())
        if file is None:
            return Verification(works=False, detail=_NO_MKSQUASHFS)
        return await self._launched(rung, file, _INSIDE)

    async def _launched(
        self, rung: Rung, image: Path, inside: str, more: Mapping[str, str] | None = None
    ) -> Verification | None:
        """Run the self-check with its directory bound at ``inside``; None: no time, no try."""
        timeout_s = self._left_s()
        if timeout_s <= 0:
            return None
        nonce, dialect = self._make_nonce(), dialect_of(self._runtime.kind)
        try:
            launch = await asyncio.to_thread(self._prepared, rung, image, inside, nonce)
            bundle = self._workshop.bundle.command(f"{TMP_BASE}/pilot")
            finished = await run_bounded(
                [*dialect.command(launch), *bundle, "check", nonce, inside],
                environment=dialect.environment(launch, self._workshop.host) | dict(more or {}),
                timeout_s=timeout_s,
            )
        except (PilotError, OSError):
            return None
        asked = Asked(nonce=nonce, writable=(inside,), own_pid_namespace=False)
        verification = judge(asked, finished, (*dialect.causes, *COMMON_CAUSES))
        return None if verification.reason is Reason.NO_ANSWER else verification

    def _prepared(self, rung: Rung, image: Path, inside: str, nonce: str) -> ContainerLaunch:
        root = Path(tempfile.mkdtemp(prefix="try-", dir=self._workshop.root))
        for name in ("job", "scratch"):
            (root / name).mkdir()
        (root / "job" / "nonce").write_text(nonce)
        return ContainerLaunch(
            runtime=self._runtime,
            image=str(image),
            image_form=ImageForm.DIRECTORY if image.is_dir() else ImageForm.SQUASHFS,
            binds=(
                Bind(
                    source=str(self._workshop.bundle.root),
                    destination=f"{TMP_BASE}/pilot",
                    read_only=True,
                ),
                Bind(source=str(root / "job"), destination=inside),
            ),
            working_directory=TMP_BASE,
            scratch_directory=str(root / "scratch"),
            rung=rung,
            environment=WRAPPER_VARIABLES,
        )

    def _left_s(self) -> float:
        return max(self._deadline - asyncio.get_running_loop().time(), 0.0)


async def _none() -> None:
    await asyncio.sleep(0)


def _steps(choice: Choice) -> tuple[StepFacts, ...]:
    steps = tuple(
        StepFacts(
            reason=step.reason, detail=step.detail, how="" if step.rung is None else str(step.rung)
        )
        for step in choice.steps
    )
    if steps or choice.runtime is not None:
        return steps
    said = " ".join(choice.reasons).rstrip(".")
    return (StepFacts(reason=Reason.UNKNOWN, detail=said),)


def _hung(facts: RuntimeFacts, waited_s: float) -> RuntimeFacts:
    step = StepFacts(reason=Reason.NO_ANSWER, detail=f"no answer in {waited_s:.0f} s")
    return msgspec.structs.replace(facts, works=False, steps=(step,))


def _holds(verification: Verification | None) -> bool | None:
    return None if verification is None else verification.works


def _is_untried(squashfs: Verification | None) -> bool:
    return squashfs is not None and squashfs.detail == _NO_MKSQUASHFS


def _underlay(
    found: FoundConf, missing: Verification | None, underlay: Verification | None
) -> bool | None:
    """Return whether underlay was seen to work; None where that can't be told apart."""
    if underlay is not None:
        return underlay.works
    if found.conf is not None and not found.conf.has_overlay:
        return _holds(missing)
    return None


def _mode(found: SelfCheck | None) -> str | None:
    """Return how it comes to its rights: whether it is in a user namespace of its own."""
    if found is None or "user" not in found.namespaces:
        return None
    if found.namespaces["user"] != Path("/proc/self/ns/user").stat().st_ino:
        return "user-namespace"
    return "root" if os.geteuid() == 0 else "setuid"


def _has_own_pid(found: SelfCheck | None) -> bool | None:
    if found is None or "pid" not in found.namespaces:
        return None
    return found.namespaces["pid"] != own_pid_namespace()
