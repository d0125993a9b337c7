"""Launches wrappers as child processes: in a container where that was found to work, or bare.

Everything that depends on the node is decided before (`pilot.containers.ladder`), everything
about the command line is pure (`pilot.launching.bare`, `pilot.launching.contained`). What is
left is to make the directories and the pipes, and to start.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from actors.outputs import outputs_to_save
from actors.ports import LaunchedWrapper, LaunchOrder
from pilot.children import OWN_CHILDREN
from pilot.confinement.ladder import BareConfinement, BareLadder
from pilot.containers.ladder import Choice, ContainerPolicy, Ladder
from pilot.containers.mounts import make_mount_points
from pilot.images import FileLock, local_path
from pilot.job_files import JobFiles
from pilot.launching.bare import bare_check_command, bare_environment, bare_plan
from pilot.launching.child import ChildWrapper, abandon, spawned
from pilot.launching.contained import contained_mounts, contained_plan
from pilot.launching.plan import Attempt, LaunchPlan, is_own_state
from pilot.packages import packages_environment
from pilot.plain_files import is_plain_directory
from pilot.recovery import write_owner
from pilot.staging import LocalStager
from transport.errors import OperatorError, UserError
from transport.messages import JobDescription, Record, SavedFile
from transport.session import LinkOptions, Role
from transport.stdio import stdio_link


class LauncherOptions(Record, frozen=True, kw_only=True):
    """What the settings say about launching."""

    state: Path
    site: str = ""
    policy: ContainerPolicy = ContainerPolicy.PREFER
    image: str = ""
    """For jobs that name none."""
    image_digest: str = ""
    """That this image must have."""
    bare: BareConfinement = BareConfinement.PREFER
    packages_command: str = ""
    link: LinkOptions = msgspec.field(default_factory=LinkOptions)


class NodeLauncher:
    """Launches on this node; `actors.ports.WrapperLauncher`."""

    def __init__(
        self,
        options: LauncherOptions,
        host: Mapping[str, str],
        make_ladder: Callable[[], Awaitable[Ladder]],
    ) -> None:
        """``host`` is the agent's own environment; ``make_ladder`` is called once, when needed."""
        self._options = options
        self._host = dict(host)
        self._make_ladder = make_ladder
        self._ladder: Ladder | None = None
        self._bare_ladder = BareLadder(
            options.state,
            bare_check_command,
            make_nonce=partial(secrets.token_hex, 8),
            environment=bare_environment(self._host),
        )
        self._marks: dict[tuple[int, int], str] = {}
        self._images: dict[tuple[int, int], FileLock] = {}
        """Held in the cache for as long as an attempt runs in them."""
        self._ladder_lock = asyncio.Lock()

    async def prepare(self) -> tuple[str, ...]:
        """Try the node's own image before any job is asked for; return what was found wanting.

        Raises `OperatorError` or `UserError` where a container is required and none works: such
        a node must not take jobs.
        """
        options = self._options
        if not options.image or options.policy is ContainerPolicy.NEVER:
            return ()
        try:
            ladder = await self._made_ladder()
        except OperatorError as error:
            if options.policy is ContainerPolicy.REQUIRE:
                raise
            return (f"no containers on this node: {error}",)
        choice = await ladder.choose(options.image, options.policy, digest=options.image_digest)
        return choice.reasons

    async def launch(self, order: LaunchOrder) -> LaunchedWrapper:
        """Start a wrapper for ``order``; see `actors.ports.WrapperLauncher`."""
        files = self._files(order)
        await asyncio.to_thread(self._check_sources, order.description)
        await asyncio.to_thread(self._make_room, files)
        mark = secrets.token_hex(16)
        self._marks[order.job_id, order.attempt] = mark
        OWN_CHILDREN.add_mark(mark)
        attempt = Attempt(
            order=order, files=files, mark=mark, site=self._options.site, host=self._host
        )
        wanted = order.description
        image = wanted.container_image or self._options.image
        digest = wanted.container_image_digest
        if not wanted.container_image:
            digest = digest or self._options.image_digest
        if digest and not image:
            raise UserError("a container image's digest is required, and no image is named")
        if not image and self._options.policy is not ContainerPolicy.REQUIRE:
            plan = await self._bare(attempt, "bare: no container image is asked for")
        else:
            plan = await self._contained(attempt, image, digest)
        plan = await self._with_packages(order.description, plan)
        await asyncio.to_thread(write_owner, files, mark)
        child, read_fd, write_fd = await spawned(plan, files.log)
        try:
            link = await stdio_link(
                Role.AGENT,
                read_fd=read_fd,
                write_fd=write_fd,
                epoch=secrets.randbits(31) + 1,
                options=self._options.link,
            )
        except BaseException:
            abandon(child)  # Nobody will hold it; the descriptors are the link's to close.
            raise
        return ChildWrapper(child, link, plan, files, mark)

    async def rescue(self, order: LaunchOrder) -> tuple[SavedFile, ...]:
        """Save what a wrapper left that died before it could; as for a failed job."""
        files = self._files(order)
        if not (is_plain_directory(files.work) and is_plain_directory(files.output)):
            raise OperatorError(f"{files.root} was tampered with; nothing is saved from it")
        specs = outputs_to_save(order.description, job_id=order.job_id, has_failed=True)
        saved = await LocalStager().stage_out(specs, str(files.work), str(files.output))
        return saved.files

    async def clean(self, order: LaunchOrder) -> None:
        """Remove what the attempt left on the node's disk, but for its outputs and its log."""
        attempt = (order.job_id, order.attempt)
        OWN_CHILDREN.discard_mark(self._marks.pop(attempt, ""))
        if (image := self._images.pop(attempt, None)) is not None:
            image.close()
        await asyncio.to_thread(self._files(order).remove_transient)

    async def _with_packages(self, description: JobDescription, plan: LaunchPlan) -> LaunchPlan:
        """Add what the job's packages need to the payload's environment; its own values win."""
        if not description.packages:
            return plan
        command, own = self._options.packages_command, plan.paths.environment
        if not command:
            text = "Packages are named, but the setting packages_command is not: none is set up"
            return msgspec.structs.replace(plan, traces=(*plan.traces, text))
        found = await packages_environment(command, description.packages, path=own["PATH"])
        environment = {**found, **own, "PATH": found.get("PATH", own["PATH"])}
        paths = msgspec.structs.replace(plan.paths, environment=environment)
        text = f"packages: {', '.join(description.packages)} ({len(found)} variables)"
        return msgspec.structs.replace(plan, paths=paths, traces=(*plan.traces, text))

    def _check_sources(self, description: JobDescription) -> None:
        """Refuse to show a job the pilot's own state: keys, queue and other jobs' directories."""
        state = os.path.realpath(self._options.state)
        for file in (*description.inputs, *description.input_data):
            if is_own_state(os.path.realpath(file.source), state):
                raise UserError(f"input {file.name}: {file.source} is the pilot's own")
        if image := local_path(description.container_image):
            place = os.path.realpath(image).rstrip("/") + "/"
            if f"{state}/".startswith(place) or place.startswith(f"{state}/"):
                raise UserError(f"the container image {image} holds the pilot's own state")

    def _files(self, order: LaunchOrder) -> JobFiles:
        return JobFiles.of(self._options.state, order.job_id, order.attempt)

    def _make_room(self, files: JobFiles) -> None:
        files.remove_earlier_attempts()
        files.make()

    async def _contained(self, attempt: Attempt, reference: str, digest: str) -> LaunchPlan:
        # Who requires a digest wants this image, and no other way to run.
        policy = ContainerPolicy.REQUIRE if digest else self._options.policy
        if self._options.policy is ContainerPolicy.NEVER:
            if digest:
                raise UserError(
                    f"the container image must have the digest {digest}, and containers are "
                    "switched off on this node"
                )
            return await self._bare(attempt, "bare: containers are switched off")
        try:
            ladder = await self._made_ladder()
            choice = await ladder.choose(reference, policy, digest=digest)
            await self._hold(attempt.order, choice, ladder)
        except OperatorError as error:
            if policy is ContainerPolicy.REQUIRE:
                raise
            return await self._bare(attempt, f"bare: {error}")
        if choice.runtime is None:
            why = "no runtime works with the image" if choice.steps else "there is no container"
            return await self._bare(attempt, *choice.reasons, f"bare: {why}")
        mounts = await contained_mounts(attempt, choice, ladder.tools)
        await asyncio.to_thread(make_mount_points, mounts)
        plan = contained_plan(attempt, choice, ladder.tools, mounts)
        return msgspec.structs.replace(plan, launch_failed=partial(ladder.launch_failed, choice))

    async def _hold(self, order: LaunchOrder, choice: Choice, ladder: Ladder) -> None:
        if choice.image is not None:
            lock = await ladder.tools.images.hold(choice.image)
            self._images[order.job_id, order.attempt] = lock

    async def _bare(self, attempt: Attempt, *reasons: str) -> LaunchPlan:
        policy = self._options.bare
        choice = await self._bare_ladder.choose(policy)
        if policy is BareConfinement.NEVER:
            return bare_plan(attempt, (*reasons, *choice.reasons))
        return bare_plan(attempt, reasons, choice, str(self._options.state))

    async def _made_ladder(self) -> Ladder:
        async with self._ladder_lock:
            if self._ladder is None:
                self._ladder = await self._make_ladder()
            return self._ladder
