"""Where a probe tries things: a directory of its own, the wrapper's bundle, and tiny images.

It is a new directory, removed afterwards, so that a probe meets neither a running agent nor
another probe in the same state directory. Only the bundle may be shared: it is made once a
node, under a lock, and never changes (`pilot.bundle`). Everything that touches a disk which may
hang is a process with a deadline.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from pilot.bounded_process import run_bounded
from pilot.bundle import Bundle
from pilot.clock import SystemClock
from pilot.containers.ladder import ContainerTools, Ladder
from pilot.containers.memory import Memory
from pilot.containers.runtime import Bind, Runtime, host_environment
from pilot.containers.trial import Trial
from pilot.images import ImageStore
from transport.errors import OperatorError
from transport.messages import Record

BUNDLING_PROGRAM = Path(__file__).with_name("bundling.py")
_LOCAL_S = 2.0  # for what a local disk does at once
IMAGE_DIRECTORIES = (
    "bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "srv", "sys", "tmp", "usr",
    "var/tmp",
)  # fmt: skip
"""An image needs no more: the bundle brings interpreter, libraries and loader."""
_MAKE_DIRECTORY = """
[ -d "$1" ] && [ -w "$1" ] && [ -x "$1" ] && exec mktemp -d "$1/pilot-probe-XXXXXXXX"
exit 1
"""
TOOLS = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin", "LC_ALL": "C"}
"""The environment of the probe's own scripts, whatever the pilot's PATH is."""
_REMOVE = 'chmod -R u+rwX "$1"; exec rm -rf "$1"'


class Workshop(Record, frozen=True, kw_only=True):
    """What runtimes are tried with."""

    root: Path
    bundle: Bundle
    host: Mapping[str, str]
    """The pilot's own environment."""

    def ladder(
        self,
        runtimes: tuple[Runtime, ...],
        make_nonce: Callable[[], str],
        *,
        timeout_s: float,
        site_binds: tuple[Bind, ...] = (),
        images: ImageStore | None = None,
    ) -> Ladder:
        """Return the ladder that jobs climb, over these runtimes; it remembers nothing."""
        trial = Trial(
            bundle=self.bundle,
            scratch_directory=self.root,
            make_nonce=make_nonce,
            host=self.host,
            site_binds=site_binds,
            timeout_s=timeout_s,
        )
        tools = ContainerTools(runtimes=runtimes, images=images or ImageStore(), trial=trial)
        return Ladder(tools, Memory(), SystemClock())

    def image(self, name: str) -> Path:
        """Make a tiny image for one runtime; it blocks as long as a local disk does."""
        image = self.root / f"image-{name}"
        for directory in IMAGE_DIRECTORIES:
            (image / directory).mkdir(parents=True, exist_ok=True)
        for file in ("passwd", "group", "hosts", "resolv.conf", "localtime"):
            (image / "etc" / file).touch()
        return image


class NoWorkshop(OperatorError):
    """Raised when there is no place or no bundle to try runtimes with: a clause says why."""


@asynccontextmanager
async def directory(places: Sequence[str]) -> AsyncIterator[Path]:
    """Give a new directory in the first of these places that has room for one.

    Raises `NoWorkshop` where none has.
    """
    root = await _made(places)
    try:
        yield root
    finally:
        await run_bounded(
            ("/bin/sh", "-c", _REMOVE, "sh", str(root)),
            environment=TOOLS,
            timeout_s=_LOCAL_S,
        )


async def _made(places: Sequence[str]) -> Path:
    for place in dict.fromkeys(places):
        finished = await run_bounded(
            ("/bin/sh", "-c", _MAKE_DIRECTORY, "sh", place),
            environment=TOOLS,
            timeout_s=_LOCAL_S,
        )
        if finished.exit_code == 0:
            return Path(finished.stdout.decode(errors="surrogateescape").removesuffix("\n"))
    raise NoWorkshop(f"no directory can be made in {', nor in '.join(dict.fromkeys(places))}")


async def bundle_in(
    place: Path, published: str, host: Mapping[str, str], *, timeout_s: float
) -> Bundle:
    """Return the wrapper's bundle: a published one, else from ``place``, built where it must be.

    Raises `NoWorkshop` when it can't be built in ``timeout_s``.
    """
    command = (sys.executable, "-I", "-S", str(BUNDLING_PROGRAM), str(place), published)
    finished = await run_bounded(
        (*command, f"{timeout_s:g}", *filter(None, sys.path)),
        environment=host_environment(host),
        timeout_s=timeout_s,
    )
    paths = finished.stdout.decode(errors="surrogateescape").splitlines()
    if finished.exit_code != 0 or len(paths) != 5:
        said = finished.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"no answer in {timeout_s:.0f} s"
        raise NoWorkshop(f"the wrapper's bundle can't be made: {why}")
    root, python, loader, library_path, boot = map(Path, paths)
    return Bundle(root=root, python=python, loader=loader, library_path=library_path, boot=boot)


async def squashfs_of(image: Path, *, timeout_s: float) -> Path | None:
    """Make an image file of a tiny image; None where this node can't (no mksquashfs)."""
    target = image.with_suffix(".sqfs")
    finished = await run_bounded(
        ("mksquashfs", str(image), str(target), "-quiet", "-no-progress", "-processors", "1"),
        environment=TOOLS,
        timeout_s=timeout_s,
    )
    exists = await asyncio.to_thread(target.is_file)
    return target if finished.exit_code == 0 and exists else None
