"""A probe of this node: everything side by side, in processes with deadlines, within seconds.

    0 s     looks at the host   search in PATH   search in CVMFS   directory and bundle
            |                   +----------------+-- trial of each runtime found
    D s     what isn't there by now is missing, and said by name

A probe is always fresh: it reads and writes nothing of an agent's but the bundle.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from actors.ports import Clock
from pilot.bundle import Bundle
from pilot.containers.apptainer import APPTAINER, CVMFS_PROGRAMS
from pilot.containers.dialects import DIALECTS
from pilot.containers.ladder import ContainerPolicy
from pilot.containers.runtime import Bind, Dialect, Runtime, RuntimeKind
from pilot.containers.search import find_runtimes, inspect_file
from pilot.images import ImageStore, StoreOptions
from pilot.probe.conf_file import WITH_CONF, find_conf
from pilot.probe.facts import Facts, RuntimeFacts
from pilot.probe.host import HostLook, look_at_host
from pilot.probe.report import ImageLine, Report, image_line, make_report
from pilot.probe.trial import RuntimeTrial
from pilot.probe.workshop import NoWorkshop, Workshop, bundle_in, directory
from transport.errors import OperatorError, PilotError
from transport.messages import Record

_LOOK_SHARE = 0.65  # of the deadline: what looks and searches may take, so that trials may follow
_VERSION_S = 2.0  # for a program of the node's own to say its version
_LAUNCH_S = 30.0  # for one launch in an image that was asked for
_SPARE_S = 0.5  # of the deadline: for what is in the way of being done
_NO_PROCESS = (OSError, RuntimeError)  # none can be started, nor a thread to follow it
_RUNTIMES_MAX = 8
_CVMFS = "/cvmfs"
Search = Coroutine[None, None, tuple[Runtime, ...]]


class ProbeOptions(Record, frozen=True, kw_only=True):
    """What to probe, and with what."""

    node: str = ""
    site: str = ""
    host: Mapping[str, str] = {}
    """The pilot's own environment."""
    places: tuple[str, ...] = ("/tmp",)  # noqa: S108 - only where the caller names no better
    """Where a directory for trying things may be made; the first that can be written."""
    bundle_place: str = ""
    """Where the wrapper's bundle is kept; empty: it is made for this probe alone."""
    published: str = ""
    """Where published bundles are; empty: nowhere."""
    runtimes: tuple[RuntimeKind, ...] = tuple(DIALECTS)
    """The kinds to look for, in order."""
    runtime_arguments: tuple[str, ...] = ()
    """For Apptainer and Singularity, before any command: ``-c FILE``."""
    image: str = ""
    """Run the full check in this image, too."""
    image_cache: str = ""
    """Where images that are fetched are kept; empty: only as long as the probe runs."""
    image_cache_bytes: int = 20_000_000_000
    binds: tuple[str, ...] = ()
    """Directories that jobs see at the same place, where they are there: for that check."""
    cvmfs: str = _CVMFS
    deadline_s: float = 6.0
    """After it at most two more seconds are taken to end what hangs."""
    image_deadline_s: float = 120.0
    """For the check in an image, which may have to be fetched."""


class Probe:
    """One probe of one node."""

    def __init__(
        self, options: ProbeOptions, *, clock: Clock, make_nonce: Callable[[], str]
    ) -> None:
        """``make_nonce`` returns another string each time."""
        self._options = options
        self._clock = clock
        self._make_nonce = make_nonce
        self._missing: list[str] = []

    async def run(self) -> Report:
        """Probe, and judge what was found; what goes wrong is in the report.

        Raises `OperatorError` when not even the looks at the node can be started.
        """
        options, at, begun = self._options, self._clock.now(), self._clock.monotonic()
        deadline = begun + options.deadline_s
        look_s = options.deadline_s * _LOOK_SHARE
        async with AsyncExitStack() as stack:
            async with asyncio.TaskGroup() as group:
                looking = group.create_task(self._look(look_s))
                workshop = group.create_task(self._workshop(stack, deadline))
                trying = [
                    group.create_task(self._try_all(search, workshop, deadline))
                    for search in self._searches(look_s)
                ]
            tried = [found for task in trying for found in task.result()]
            image = await self._try_image([runtime for runtime, _ in tried], workshop.result())
        look = looking.result()
        if look is None:
            raise OperatorError(f"This node can't be probed: {'; '.join(self._missing)}.")
        facts = Facts(
            host=look.host,
            runtimes=tuple(facts for _, facts in tried),
            missing=(*look.missing, *self._missing),
        )
        seconds = self._clock.monotonic() - begun
        return make_report(
            facts, node=options.node, site=options.site, at=at, seconds=seconds, image=image
        )

    async def _look(self, look_s: float) -> HostLook | None:
        try:
            return await look_at_host(
                self._options.host, cvmfs=self._options.cvmfs, timeout_s=look_s
            )
        except _NO_PROCESS as error:
            self._missing.append(f"the node itself: {error}")
            return None

    async def _workshop(self, stack: AsyncExitStack, deadline: float) -> Workshop | None:
        options = self._options
        try:
            root = await stack.enter_async_context(directory(options.places))
            bundle = await self._bundle(root, deadline)
        except (NoWorkshop, *_NO_PROCESS) as error:
            self._missing.append(f"whether any runtime works: {error}".rstrip("."))
            return None
        return Workshop(root=root, bundle=bundle, host=options.host)

    async def _bundle(self, root: Path, deadline: float) -> Bundle:
        """Return the bundle that is kept; where it can't be, one for this probe alone."""
        place, host = Path(self._options.bundle_place or root), self._options.host
        published = self._options.published
        try:
            return await bundle_in(place, published, host, timeout_s=self._left_s(deadline))
        except NoWorkshop:
            if place == root or self._left_s(deadline) <= 0:
                raise
            return await bundle_in(root, "", host, timeout_s=self._left_s(deadline))

    def _left_s(self, deadline: float) -> float:
        return max(deadline - self._clock.monotonic() - _SPARE_S, 0.0)

    def _searches(self, look_s: float) -> tuple[Search, ...]:
        """Return the searches, apart: what is in CVMFS may hang, and hold up nothing else."""
        path = self._options.host.get("PATH", os.defpath).split(":")
        cvmfs = self._options.cvmfs
        inside = [place for place in path if _is_below(place, cvmfs)]
        outside = [place for place in path if not _is_below(place, cvmfs)]
        dialects = tuple(DIALECTS[kind] for kind in self._options.runtimes)
        # Apptainer alone is looked for at places in CVMFS.
        local = (_named(dialect, _names(dialect)) for dialect in dialects)
        programs = tuple(place.replace(_CVMFS, cvmfs, 1) for place in CVMFS_PROGRAMS)
        in_cvmfs = (_named(dialect, programs) for dialect in dialects if dialect is APPTAINER)
        return (
            find_runtimes(":".join(outside), tuple(local), timeout_s=_VERSION_S),
            find_runtimes(
                ":".join(inside), (*(dialects if inside else ()), *in_cvmfs), timeout_s=look_s
            ),
        )

    async def _try_all(
        self, search: Search, workshop: asyncio.Task[Workshop | None], deadline: float
    ) -> list[tuple[Runtime, RuntimeFacts]]:
        try:
            found = [self._with_arguments(runtime) for runtime in await search]
        except _NO_PROCESS as error:
            self._missing.append(f"which runtimes there are: {error}")
            return []
        for runtime in found[_RUNTIMES_MAX:]:
            self._missing.append(f"{runtime.path}: there are more than {_RUNTIMES_MAX} runtimes")
        found = found[:_RUNTIMES_MAX]
        shop = await workshop
        facts = await asyncio.gather(*(self._try(runtime, shop, deadline) for runtime in found))
        return list(zip(found, facts, strict=True))

    async def _try(
        self, runtime: Runtime, workshop: Workshop | None, deadline: float
    ) -> RuntimeFacts:
        facts = RuntimeFacts(
            name=runtime.kind,
            path=runtime.path,
            version=runtime.version,
            in_cvmfs=_is_below(runtime.path, self._options.cvmfs),
        )
        try:
            if workshop is None:
                found = await find_conf(runtime, host=self._options.host, timeout_s=_VERSION_S)
                return msgspec.structs.replace(facts, conf=found.conf)
            trial = RuntimeTrial(runtime, workshop, make_nonce=self._make_nonce, deadline=deadline)
            return await trial.run(facts)
        except (PilotError, ValueError, *_NO_PROCESS) as error:
            self._missing.append(f"whether {runtime.path} works: {error}".rstrip("."))
            return facts

    def _with_arguments(self, runtime: Runtime) -> Runtime:
        if runtime.kind not in WITH_CONF:
            return runtime
        return msgspec.structs.replace(runtime, arguments=self._options.runtime_arguments)

    async def _try_image(
        self, runtimes: Sequence[Runtime], workshop: Workshop | None
    ) -> ImageLine | None:
        """Climb the ladder in the image that was asked for, as a job would."""
        options = self._options
        if not options.image or workshop is None:
            return image_line(options.image, None) if options.image else None
        ladder = workshop.ladder(
            tuple(runtimes),
            self._make_nonce,
            timeout_s=_LAUNCH_S,
            site_binds=await _site_binds(options.binds),
            images=ImageStore(
                Path(options.image_cache or workshop.root / "images"),
                StoreOptions(bytes_max=options.image_cache_bytes),
            ),
        )
        try:
            async with asyncio.timeout(options.image_deadline_s):
                return image_line(
                    options.image, await ladder.choose(options.image, ContainerPolicy.PREFER)
                )
        except TimeoutError:
            return image_line(options.image, None)


def _is_below(path: str, root: str) -> bool:
    return path == root or path.startswith(f"{root}/")


def _names(dialect: Dialect) -> tuple[str, ...]:
    return tuple(program for program in dialect.programs if not program.startswith("/"))


def _named(dialect: Dialect, programs: tuple[str, ...]) -> Dialect:
    """Return Apptainer's dialect with other programs; the others have none but names."""
    return (
        msgspec.structs.replace(APPTAINER, programs=programs) if dialect is APPTAINER else dialect
    )


async def _site_binds(paths: Sequence[str]) -> tuple[Bind, ...]:
    """Return those that are there; a dead mount is none, and is not waited for."""
    looks = await asyncio.gather(*(inspect_file(path, timeout_s=_VERSION_S) for path in paths))
    return tuple(
        Bind(source=path, destination=path, read_only=True)
        for path, look in zip(paths, looks, strict=True)
        if not look.problem
    )
