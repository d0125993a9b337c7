"""Which container runtime a job gets on this node, if any: tried, and remembered.

Each runtime is tried in the job's own image, down a ladder: its rungs (with a PID namespace of
its own, then without, ...), then the next runtime; where an image lacks the mount points, the
same rung with the job mapped onto another of the image's directories. What came of it is
remembered by all that it depends on (the runtime's program and configuration, the kernel, the
image, the bundle); see `pilot.containers.memory`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from enum import StrEnum

from actors.ports import Clock
from pilot.bundle import Bundle
from pilot.containers.check import Verification
from pilot.containers.dialects import dialect_of
from pilot.containers.layouts import Layout, NoMountPoint, possible_layouts
from pilot.containers.memory import Memory
from pilot.containers.mounts import TMP_BASE, ImageTree
from pilot.containers.runtime import (
    Bind,
    ImageForm,
    NotExpressible,
    Reason,
    Rung,
    Runtime,
)
from pilot.containers.search import Glances
from pilot.containers.trial import Trial, Way
from pilot.images import ImageStore, LocalImage
from transport.errors import OperatorError, PilotError
from transport.messages import Record

_OTHER_BASE = frozenset({Reason.NO_MOUNT_POINT, Reason.NOT_MOUNTED, Reason.NOT_WRITABLE})
"""What another base may cure."""
_OTHER_RUNTIME = frozenset(
    {
        Reason.NO_ANSWER,
        Reason.FLOODED,
        Reason.ARCHITECTURE,
        Reason.IMAGE_FORMAT,
        Reason.IMAGE_FORBIDDEN,
        Reason.BINDS_FORBIDDEN,
        Reason.NOT_EXPRESSIBLE,
    }
)
"""What no other rung of the same runtime cures, or what would cost the whole deadline again."""


class ContainerPolicy(StrEnum):
    """What the settings say about containers."""

    REQUIRE = "require"
    PREFER = "prefer"
    NEVER = "never"


class Step(Record, frozen=True, kw_only=True):
    """A step of the ladder that was tried and didn't hold."""

    runtime: Runtime
    rung: Rung | None
    """None: the runtime can't be used at all."""
    image: str
    base: str
    reason: Reason
    detail: str

    def __str__(self) -> str:
        how = "" if self.rung is None else f" {self.rung}"
        what = f" with {self.image}" if self.image else ""
        mapped = f" on its {self.base}" if self.base not in ("", TMP_BASE) else ""
        return (
            f"{self.runtime.path}{how} doesn't work{what}{mapped} [{self.reason}]: {self.detail}."
        )


class Choice(Record, frozen=True, kw_only=True):
    """What a job gets: a runtime and how to use it, or None for bare, and why."""

    runtime: Runtime | None = None
    rung: Rung = Rung()
    image: LocalImage | None = None
    """In the form in which the runtime takes it."""
    tree: ImageTree = ImageTree()
    layout: Layout = Layout()
    """Of the mount plan."""
    key: str = ""
    """By which it is remembered that this works."""
    steps: tuple[Step, ...] = ()
    reasons: tuple[str, ...] = ()
    """A sentence for everything that was tried and didn't work: for the job's trace."""


class ContainerTools(Record, frozen=True, kw_only=True):
    """What a node has for containers, found once."""

    runtimes: tuple[Runtime, ...]
    images: ImageStore
    trial: Trial
    notes: tuple[str, ...] = ()
    """What the operator should know of how this was found."""

    @property
    def bundle(self) -> Bundle:
        """What wrappers run from."""
        return self.trial.bundle

    @property
    def site_binds(self) -> tuple[Bind, ...]:
        """Part of every launch (/cvmfs, say)."""
        return self.trial.site_binds


class Ladder:
    """Chooses for each job, and remembers what works on this node."""

    def __init__(
        self,
        tools: ContainerTools,
        memory: Memory,
        clock: Clock,
    ) -> None:
        self._tools = tools
        self._memory = memory
        self._clock = clock
        self._glances = Glances()
        self._one_at_a_time = asyncio.Lock()

    @property
    def tools(self) -> ContainerTools:
        """What the node has for containers."""
        return self._tools

    async def choose(self, reference: str, policy: ContainerPolicy, *, digest: str = "") -> Choice:
        """Return what a job with this image gets.

        Waits for the checks that aren't remembered: each has its own deadline. Where the policy
        is require, raises `UserError` for an image that can't be used and `OperatorError` when
        no runtime works; else the choice is bare, with reasons.
        """
        if policy is ContainerPolicy.NEVER:
            return Choice(reasons=("Containers are switched off in the settings.",))
        try:
            image = await self._tools.images.get(reference, digest=digest)
            choice = await self._climb(image)
        except PilotError as error:
            if policy is ContainerPolicy.REQUIRE:
                raise
            return Choice(reasons=(str(error),))
        if choice.runtime is None and policy is ContainerPolicy.REQUIRE:
            raise OperatorError(" ".join(choice.reasons))
        return choice

    async def _climb(self, image: LocalImage) -> Choice:
        steps: list[Step] = []
        for runtime in self._tools.runtimes:
            found = await self._climb_runtime(runtime, image, steps)
            if found is not None:
                return found
        none = (
            ()
            if self._tools.runtimes
            else ("No container runtime that the settings allow was found on this node.",)
        )
        return Choice(steps=tuple(steps), reasons=(*none, *map(str, steps)))

    async def _climb_runtime(
        self, runtime: Runtime, image: LocalImage, steps: list[Step]
    ) -> Choice | None:
        """Try a runtime with the image as it is, then with its files unpacked."""
        forms = dialect_of(runtime.kind).image_forms
        if image.form in forms:
            choice = await self._climb_rungs(runtime, image, steps)
            is_file = image.form is not ImageForm.DIRECTORY
            if choice is not None or not is_file or not _is_unmountable(steps):
                return choice
        try:
            unpacked = await self._tools.images.as_directory(image)
        except PilotError as error:
            steps.append(_unusable(runtime, Reason.IMAGE_FORM, error))
            return None
        return await self._climb_rungs(runtime, unpacked, steps)

    async def _climb_rungs(
        self, runtime: Runtime, image: LocalImage, steps: list[Step]
    ) -> Choice | None:
        dialect, site = dialect_of(runtime.kind), self._tools.site_binds
        tree = await self._tools.images.tree(image, [bind.destination for bind in site])
        try:
            layouts = possible_layouts(tree, dialect.layers, site)
        except NoMountPoint as error:
            steps.append(_unusable(runtime, Reason.NO_MOUNT_POINT, error))
            return None
        state = await self._state_of(runtime)
        lacking: set[tuple[bool, Layout]] = set()
        unmountable: set[bool] = set()
        for rung in dialect.rungs(runtime, is_root=os.geteuid() == 0):
            if rung.use_userns in unmountable:
                continue  # Nor does a PID namespace more or less mount an image.
            for layout in layouts:
                if (rung.use_userns, layout) in lacking:
                    continue  # A PID namespace more or less makes no mount point.
                way = Way(
                    runtime=runtime,
                    runtime_state=state,
                    rung=rung,
                    image=image,
                    tree=tree,
                    layout=layout,
                )
                verification = await self._verified(way)
                if verification.works:
                    return _choice(way, self._tools.trial.key(way), steps)
                steps.append(_failed(way, verification))
                if verification.reason is Reason.NO_MOUNT_POINT:
                    lacking.add((rung.use_userns, layout))
                if verification.reason is Reason.IMAGE_UNMOUNTABLE:
                    unmountable.add(rung.use_userns)
                if verification.reason not in _OTHER_BASE:
                    break
            if steps[-1].reason in _OTHER_RUNTIME:
                break
        return None

    async def _state_of(self, runtime: Runtime) -> str:
        """Return what changes when the runtime, or how a site configured it, does."""
        paths = (runtime.path, *dialect_of(runtime.kind).configuration(runtime))
        return " ".join([await self._glances.state(path) for path in paths])

    def launch_failed(self, choice: Choice, why: str) -> bool:
        """Take that a launch failed which was verified; return whether there is another way.

        It is not gone again for as long as a failure is remembered.
        """
        if choice.key:
            failed = Verification(works=False, reason=Reason.BROKE_LATER, detail=why)
            self._memory.put(choice.key, failed, self._clock.now())
        return bool(choice.key)

    async def _verified(self, way: Way) -> Verification:
        key = self._tools.trial.key(way)
        verification = self._memory.get(key, self._clock.now())
        if verification is not None:
            return verification
        async with self._one_at_a_time:  # Many jobs may want to know the same.
            verification = self._memory.get(key, self._clock.now())
            if verification is None:
                verification = await self._tried(way)
                self._memory.put(key, verification, self._clock.now())
            return verification

    async def _tried(self, way: Way) -> Verification:
        """Run a trial; what this runtime can't be told is a reason to try the next."""
        try:
            return await self._tools.trial.run(way)
        except NotExpressible as error:
            detail = str(error).rstrip(".")
            return Verification(works=False, reason=Reason.NOT_EXPRESSIBLE, detail=detail)


def _is_unmountable(steps: Sequence[Step]) -> bool:
    return bool(steps) and steps[-1].reason is Reason.IMAGE_UNMOUNTABLE


def _choice(way: Way, key: str, steps: Sequence[Step]) -> Choice:
    return Choice(
        runtime=way.runtime,
        rung=way.rung,
        image=way.image,
        tree=way.tree,
        layout=way.layout,
        key=key,
        steps=tuple(steps),
        reasons=tuple(map(str, steps)),
    )


def _failed(way: Way, verification: Verification) -> Step:
    assert verification.reason is not None, "what doesn't work has a reason"
    return Step(
        runtime=way.runtime,
        rung=way.rung,
        image=way.image.reference,
        base=way.layout.base,
        reason=verification.reason,
        detail=verification.detail,
    )


def _unusable(runtime: Runtime, reason: Reason, error: PilotError) -> Step:
    return Step(
        runtime=runtime, rung=None, image="", base="", reason=reason, detail=str(error).rstrip(".")
    )
