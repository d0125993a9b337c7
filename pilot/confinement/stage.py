"""The stage before a bare wrapper: the same process, a moment earlier.

The interpreter that will be the wrapper enters the namespaces, forks, and goes on as PID 1 of
its own PID namespace; nothing is loaded twice. Who forked stays outside
(`pilot.confinement.outside`). When PID 1 dies, the kernel ends every process of its namespace:
nothing of a job outlives its wrapper, however it forks. And PID 1 can't be killed from within.

A step that is refused is a line on stderr and exit code 71: what to do instead was decided
before (`pilot.confinement.ladder`), by trying this very stage.
"""

from __future__ import annotations

import os
import sys

from pilot.confinement import domains, namespaces, outside
from pilot.confinement.plan import Confinement, Held, below

EXIT_REFUSED = 71
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a directory of that name, nothing is put into it
_TERMINALS, _MULTIPLEXER = "/dev/pts", "/dev/ptmx"
_SESSIONS = "/run/user"
"""The user's sessions: sockets of services that would do for a job what it may not do itself."""


def enter(confinement: Confinement, descriptors: tuple[int, ...]) -> Held:
    """Confine this process and all it will start; to be called while it has one thread.

    Where there is a PID namespace it returns in a child; the caller itself stays outside until
    that has ended, and then ends like it. ``descriptors`` are for the child alone.
    """
    try:
        return _enter(confinement, descriptors)
    except OSError as error:
        step = error.filename or "landlock"
        sys.stderr.write(f"confinement: {step}: {error.strerror}\n")
        sys.stderr.flush()
        os._exit(EXIT_REFUSED)


def _enter(confinement: Confinement, descriptors: tuple[int, ...]) -> Held:
    kinds = confinement.namespaces
    devices: tuple[str, ...] = ()
    if kinds:
        watch = outside.Watch()
        namespaces.unshare(kinds)
        if "pid" in kinds:
            outside.go_inside(watch, descriptors)
        watch.close()
        devices = _arrange(confinement)
    namespaces.allow_no_new_privileges()
    if confinement.landlock:
        own = devices if kinds else (_SHARED_MEMORY,)
        domains.enter_wrapper_domain(confinement, own, is_hidden=bool(kinds))
    return Held(kinds, confinement.landlock, devices or (_SHARED_MEMORY,))


def _arrange(confinement: Confinement) -> tuple[str, ...]:
    """Mount what is the job's own, over what isn't; return the devices that it may write."""
    namespaces.follow_the_hosts_mounts()
    if "pid" in confinement.namespaces:
        namespaces.mount_proc()
    own = (
        *namespaces.mount_shared_memory(_SHARED_MEMORY),
        *namespaces.mount_terminals(_TERMINALS, _MULTIPLEXER),
    )
    kept = below((*confinement.write, *confinement.read), confinement.hide)
    namespaces.hide(confinement.hide, kept)
    if os.path.isdir(_SESSIONS):
        namespaces.hide(_SESSIONS)
    own_proc = ("/proc",) if "pid" in confinement.namespaces else ()
    namespaces.make_read_only((*filter(os.path.isdir, confinement.write), *own, *own_proc))
    namespaces.drop_capabilities()
    return own
