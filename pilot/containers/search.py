"""Is it there? Container runtimes and images, looked for without trusting file systems.

A runtime in CVMFS and an image may lie on a network file system, and a dead mount hangs
whoever touches it, for ever. So each is looked at by a helper process with a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pilot.bounded_process import run_bounded
from pilot.containers.dialects import DIALECTS
from pilot.containers.runtime import Dialect, Runtime, RuntimeKind
from transport.messages import Record

_ALIASES = {
    RuntimeKind.APPTAINER: RuntimeKind.SINGULARITY,
    RuntimeKind.SINGULARITY: RuntimeKind.APPTAINER,
}
_TIMEOUT_S = 5.0
GLANCE_KEPT_S = 5.0
_GLANCES_MAX = 256
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
# Prints the path, the path without links, and at last, as it may hang, the version.
_LOOK_FOR_RUNTIME = f"""
found=$(command -v "$1") && [ -f "$found" ] && [ -x "$found" ] || exit 1
PATH=$PATH:{_SYSTEM_PATH}
printf '%s\\n%s\\n' "$found" "$(readlink -f "$found")"
exec "$found" --version
"""
# Exits with what is wrong, or prints what changes when the file becomes another one.
_LOOK_AT_FILE = """
[ -e "$1" ] || exit 10
[ -r "$1" ] || exit 11
[ ! -d "$1" ] || [ -x "$1" ] || exit 11
exec stat -L -c '%Y %i %s' "$1"
"""
_PROBLEMS = {10: "there is no such file or directory", 11: "it may not be read"}


class FileState(Record, frozen=True, kw_only=True):
    """What a look at a file found; ``state`` changes when the file becomes another one."""

    state: str = ""
    problem: str = ""
    is_hung: bool = False


async def find_runtimes(
    search_path: str,
    dialects: Sequence[Dialect] = tuple(DIALECTS.values()),
    *,
    timeout_s: float = _TIMEOUT_S,
) -> tuple[Runtime, ...]:
    """Return the runtimes on this node, in the dialects' order.

    Each is looked at on its own, at the same time as the others; one that doesn't answer in
    ``timeout_s`` is taken for absent, or, if only its version is missing, left without.
    """
    wanted = [(dialect, name) for dialect in dialects for name in dialect.programs]
    answers = await asyncio.gather(
        *(_look_for_runtime(dialect, name, search_path, timeout_s) for dialect, name in wanted)
    )
    by_real_path: dict[str, Runtime] = {}
    for answer in answers:
        if answer is not None:
            by_real_path.setdefault(*answer)
    return tuple(by_real_path.values())


async def _look_for_runtime(
    dialect: Dialect, name: str, search_path: str, timeout_s: float
) -> tuple[str, Runtime] | None:
    finished = await run_bounded(
        ("/bin/sh", "-c", _LOOK_FOR_RUNTIME, "sh", name),
        environment={"PATH": search_path},
        timeout_s=timeout_s,
    )
    path, _, rest = finished.stdout.decode(errors="surrogateescape").partition("\n")
    real_path, _, version = rest.partition("\n")
    if not path.startswith("/") or not real_path:
        return None
    kind = dialect.kind
    # Apptainer and Singularity each install a link of the other's name.
    told = (version or real_path).lower()
    if kind in _ALIASES and _ALIASES[kind].value in told and kind.value not in told:
        kind = _ALIASES[kind]
    return real_path, Runtime(path=path, kind=kind, version=version.partition("\n")[0].strip())


async def inspect_file(path: str, *, timeout_s: float = _TIMEOUT_S) -> FileState:
    """Look whether a file or directory is there and may be read; wait ``timeout_s`` at most."""
    finished = await run_bounded(
        ("/bin/sh", "-c", _LOOK_AT_FILE, "sh", path),
        environment={"PATH": _SYSTEM_PATH},
        timeout_s=timeout_s,
    )
    if finished.exit_code is None:
        problem = f"its file system doesn't answer in {timeout_s:g} s"
        return FileState(problem=problem, is_hung=True)
    problem = _PROBLEMS.get(finished.exit_code, "")
    return FileState(problem=problem, state=finished.stdout.decode(errors="replace"))


class Glances:
    """Looks at files now and then: many jobs a second don't each pay for a helper process.

    A look counts for `GLANCE_KEPT_S`.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[FileState, float]] = {}

    async def state(self, path: str) -> str:
        """Return what changes when the file becomes another one; empty where there is none."""
        return (await self.look(path)).state

    async def look(self, path: str) -> FileState:
        """Return what was found at ``path`` lately, or look."""
        now = asyncio.get_running_loop().time()
        found, until = self._seen.get(path, (None, 0.0))
        if found is None or now >= until:
            found = await inspect_file(path)
            while len(self._seen) >= _GLANCES_MAX:
                del self._seen[next(iter(self._seen))]
            self._seen[path] = (found, now + GLANCE_KEPT_S)
        return found
