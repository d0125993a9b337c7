"""The launch of a wrapper without a container: this very interpreter, isolated and confined."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

import actors
import pilot
import transport
from actors.ports import WrapperPaths
from pilot.confinement.ladder import BareChoice
from pilot.confinement.plan import Confinement, below
from pilot.job_files import PATH_INSIDE, batch_trace
from pilot.launching.plan import Attempt, LaunchPlan
from pilot.procfs import MARK_VARIABLE

_WRAPPER_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "TZ")
"""What a bare wrapper keeps of the agent's environment: what its interpreter may need."""


def bare_plan(
    attempt: Attempt, reasons: Sequence[str], choice: BareChoice | None = None, state: str = ""
) -> LaunchPlan:
    """Return the launch of a bare wrapper, and why it is bare.

    Given a choice, the wrapper is confined like that, and can't read ``state``.
    """
    host, files, description = attempt.host, attempt.files, attempt.order.description
    work = str(files.work)
    inputs = (*description.inputs, *description.input_data)
    confinement = None
    if choice is not None:
        sources = [file.source for file in inputs if file.is_staged]
        writable = (work, str(files.output), str(files.private))
        confinement = confinement_of(choice, state, writable, sources)
        reasons = (*reasons, *choice.reasons)
    return LaunchPlan(
        command=bare_command(sys.executable, confinement),
        environment={
            **bare_environment(host),
            MARK_VARIABLE: attempt.mark,
        },
        container=None,
        traces=(*batch_trace(host), *reasons),
        paths=WrapperPaths(
            work_directory=work,
            output_directory=str(files.output),
            private_directory=str(files.private),
            inputs=inputs,
            environment=attempt.payload_environment(work, host.get("PATH", PATH_INSIDE)),
        ),
    )


def bare_environment(host: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a bare wrapper, given the agent's own."""
    return {name: host[name] for name in _WRAPPER_VARIABLES if name in host} | {"LANG": "C.UTF-8"}


def confinement_of(
    choice: BareChoice, state: str, writable: Sequence[str], sources: Sequence[str]
) -> Confinement:
    """Return what one attempt is confined to.

    In the state directory it sees its own directories, its inputs, and, where the pilot itself
    is installed there, that. This looks the paths' links up.
    """
    hidden = os.path.realpath(state)
    write = tuple(map(os.path.realpath, writable))
    seen = (os.path.realpath(path) for path in (*_own_places(), *sources))
    return Confinement(
        namespaces=choice.namespaces,
        landlock=choice.landlock,
        write=write,
        hide=hidden,
        read=below((path for path in seen if path not in write), hidden),
    )


def bare_check_command(confinement: Confinement) -> tuple[str, ...]:
    """Return the self-check of a wrapper that is confined like this."""
    seen = below(map(os.path.realpath, _own_places()), confinement.hide)
    return bare_command(sys.executable, confinement._replace(read=seen), what="check")


def bare_command(
    executable: str, confinement: Confinement | None = None, what: str = "run"
) -> tuple[str, ...]:
    """Return the command line of a bare wrapper: this interpreter, isolated, without site.

    ``-I -S`` keeps the user's own modules and .pth files out; the directories that the
    third-party modules are in are named instead. ``what`` is ``check`` for the self-check, whose
    arguments are to be appended.
    """
    boot = str(Path(pilot.__file__).with_name("wrapper_boot.py"))
    confined = () if confinement is None else ("confined", *confinement.arguments())
    modules = _module_directories() if what == "run" else ()
    return (executable, "-I", "-S", boot, *confined, what, *modules)


def _own_places() -> tuple[str, ...]:
    """Return where the interpreter and all modules are, if somebody keeps the state above them."""
    ours = (module.__path__[0] for module in (pilot, actors, transport))
    return (sys.prefix, sys.base_prefix, *ours, *_module_directories())


def _module_directories() -> tuple[str, ...]:
    import cryptography

    files = (msgspec.__file__, cryptography.__file__)
    return tuple(dict.fromkeys(str(Path(file).parent.parent) for file in files if file))
