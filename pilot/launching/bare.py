"""The launch of a wrapper without a container: this very interpreter, isolated."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

import pilot
from actors.ports import WrapperPaths
from pilot.job_files import PATH_INSIDE, batch_trace
from pilot.launching.plan import Attempt, LaunchPlan
from pilot.procfs import MARK_VARIABLE

_WRAPPER_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "TZ")
"""What a bare wrapper keeps of the agent's environment: what its interpreter may need."""


def bare_plan(attempt: Attempt, reasons: Sequence[str]) -> LaunchPlan:
    """Return the launch of a bare wrapper, and why it is bare."""
    host, files, description = attempt.host, attempt.files, attempt.order.description
    kept = {name: host[name] for name in _WRAPPER_VARIABLES if name in host}
    work = str(files.work)
    return LaunchPlan(
        command=bare_command(sys.executable),
        environment={**kept, "LANG": "C.UTF-8", MARK_VARIABLE: attempt.mark},
        container=None,
        traces=(*batch_trace(host), *reasons),
        paths=WrapperPaths(
            work_directory=work,
            output_directory=str(files.output),
            private_directory=str(files.private),
            inputs=(*description.inputs, *description.input_data),
            environment=attempt.payload_environment(work, host.get("PATH", PATH_INSIDE)),
        ),
    )


def bare_command(executable: str) -> tuple[str, ...]:
    """Return the command line of a bare wrapper: this interpreter, isolated, without site.

    ``-I -S`` keeps the user's own modules and .pth files out; the directories that the
    third-party modules are in are named instead.
    """
    boot = Path(pilot.__file__).with_name("wrapper_boot.py")
    return (executable, "-I", "-S", str(boot), "run", *_module_directories())


def _module_directories() -> tuple[str, ...]:
    import cryptography

    files = (msgspec.__file__, cryptography.__file__)
    return tuple(dict.fromkeys(str(Path(file).parent.parent) for file in files if file))
