"""Facts as a probe might have found them; only what a test is about has to be said."""

from __future__ import annotations

from typing import Any

import msgspec

from pilot.containers.runtime import Reason, RuntimeKind
from pilot.probe.facts import Facts, HostFacts, RuntimeFacts, StepFacts
from pilot.probe.runtime_conf import RuntimeConf, parse_conf

CONF = "/etc/apptainer/apptainer.conf"


def conf(*lines: str) -> RuntimeConf:
    """Make a configuration of these lines, the first being line 1."""
    return parse_conf(CONF, "\n".join(lines))


def runtime(**changes: Any) -> RuntimeFacts:
    """Make an Apptainer of the node's own that works in every way."""
    good = RuntimeFacts(
        name=RuntimeKind.APPTAINER,
        path="/usr/bin/apptainer",
        version="apptainer version 1.4.5",
        works=True,
        mode="user-namespace",
        own_pid_namespace=True,
        makes_mount_points=True,
        squashfs_works=True,
        conf=conf("enable underlay = yes"),
    )
    return msgspec.structs.replace(good, **changes)


def failed(reason: Reason, detail: str = "it said so", **changes: Any) -> RuntimeFacts:
    """Make one that doesn't work for this reason."""
    step = StepFacts(reason=reason, detail=detail)
    return runtime(
        works=False,
        steps=(step,),
        mode=None,
        own_pid_namespace=None,
        squashfs_works=None,
        **changes,
    )


def facts(*runtimes: RuntimeFacts, missing: tuple[str, ...] = (), **host: Any) -> Facts:
    """Make a node with these runtimes, on which nothing else is wrong."""
    good = HostFacts(user_namespace="yes", nested_pid_namespace="yes", cvmfs_mounted=False)
    return Facts(host=msgspec.structs.replace(good, **host), runtimes=runtimes, missing=missing)
