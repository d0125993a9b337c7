"""Namespaces around a runtime: for one that gives too few, or whose processes leave its tree.

``unshare`` (util-linux 2.32, 2018, or later) starts the runtime in namespaces of its own. In
its own PID namespace whatever the runtime starts, a monitor that goes into the background
included, stays below the launched process and dies with it: when ``unshare`` is killed the
kernel kills the namespace's first process, and with that all others. In its own mount
namespace whatever is mounted is gone when the last of them is.
"""

from __future__ import annotations

import shlex

from pilot.containers.runtime import Cause, Reason, Rung

CAUSES = (
    Cause(
        pattern=r"unshare: (unshare failed|write failed /proc/self/(uid_map|setgroups))",
        reason=Reason.NO_USER_NAMESPACE,
        meaning="this node has no namespaces for this user",
    ),
    Cause(
        pattern=r"unshare: (mount /proc failed|cannot mount /proc)",
        reason=Reason.NO_PID_NAMESPACE,
        meaning="the node doesn't let a container mount /proc",
    ),
    Cause(
        pattern=r"unshare: (unrecognized|invalid) option|unshare: not found",
        reason=Reason.MISSING_FILE,
        meaning="the node's util-linux has no unshare, or one of before 2018",
    ),
)
"""What ``unshare`` says when something is wrong."""


def start_in_own_namespaces(rung: Rung, inner: str, *arguments: str) -> str:
    """Return shell that becomes ``inner``, other shell, in namespaces; "$@" is handed on.

    ``arguments``, quoted already, come to ``inner`` before that.
    """
    flags = ["--mount", "--ipc"]
    flags += ["--user", "--map-root-user"] if rung.use_userns else []
    flags += ["--pid", "--fork", "--kill-child", "--mount-proc"] if rung.own_pid_namespace else []
    handed_on = " ".join((*arguments, '"$@"'))
    return f"exec unshare {' '.join(flags)} /bin/sh -c {shlex.quote(inner)} sh {handed_on}"
