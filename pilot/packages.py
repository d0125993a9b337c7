"""The environment of a job's Packages, as the site's package manager prints it.

On an ALICE site that is ``/cvmfs/alice.cern.ch/bin/alienv printenv``, which is given the packages
joined by commas and prints shell code. A shell evaluates it, in an environment of nothing but
a PATH, and what it then exports is what the packages add.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from pilot.bounded_process import run_bounded
from transport.errors import OperatorError, UserError

_EVALUATE = 'text=$("$@") || exit 3; eval "$text"; exec env -0'
_SHELLS_OWN = frozenset({"_", "OLDPWD", "PWD", "SHLVL", "PILOT_AGENT"})
OUTPUT_BYTES_MAX = 1024 * 1024


async def packages_environment(
    command: str, packages: Sequence[str], *, path: str, timeout_s: float = 60.0
) -> dict[str, str]:
    """Return the variables that ``packages`` need, PATH among them when they change it.

    ``command`` is the setting packages_command. Raises `UserError` for packages that can't be
    had, and `OperatorError` when the command hangs or can't be split into words.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise OperatorError(f"the setting packages_command can't be used: {error}") from error
    finished = await run_bounded(
        ("/bin/sh", "-c", _EVALUATE, "sh", *words, ",".join(packages)),
        environment={"PATH": path},
        timeout_s=timeout_s,
        output_bytes_max=OUTPUT_BYTES_MAX,
    )
    wanted = ", ".join(packages)
    if finished.is_timed_out or finished.is_flooded:
        raise OperatorError(f"packages {wanted}: {command} gave no answer in {timeout_s:g} s")
    if finished.exit_code != 0:
        said = finished.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1][:200] if said else f"{command} failed"
        raise UserError(f"packages {wanted} can't be had: {why}")
    return {
        name: value
        for name, value in _variables(finished.stdout).items()
        if name not in _SHELLS_OWN and (name, value) != ("PATH", path)
    }


def _variables(text: bytes) -> dict[str, str]:
    entries = (entry.decode(errors="surrogateescape") for entry in text.split(b"\0") if entry)
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}
