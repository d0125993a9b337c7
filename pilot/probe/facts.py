"""What a probe finds out about a node, before anyone judges it.

`None` always means "could not be found out", never "no": a look that hung or failed leaves it,
and names itself in `Facts.missing`.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pilot.containers.runtime import Reason, RuntimeKind
from pilot.probe.runtime_conf import RuntimeConf
from transport.messages import Record

Value = str | int | float | None
"""What a key may hold; a boolean is the text TRUE or FALSE, as in Site Sonar."""


class StepFacts(Record, frozen=True, kw_only=True):
    """A step of the ladder that didn't hold."""

    reason: Reason
    detail: str
    """Without a full stop."""
    how: str = ""
    """Which rung, for a person."""


class RuntimeFacts(Record, frozen=True, kw_only=True):
    """One container runtime: what it was seen to do."""

    name: RuntimeKind
    path: str
    version: str = ""
    in_cvmfs: bool = False
    works: bool | None = None
    """The wrapper's self-check ran in it as jobs will; None: no time was left to see it."""
    mode: str | None = None
    """``setuid`` or ``user-namespace``, by the uid map seen inside."""
    own_pid_namespace: bool | None = None
    makes_mount_points: bool | None = None
    """A bind at a place that the image doesn't have was seen to work."""
    underlay_works: bool | None = None
    """The same, with underlay asked for; None where this runtime can't be asked."""
    squashfs_works: bool | None = None
    squashfs_detail: str = ""
    steps: tuple[StepFacts, ...] = ()
    conf: RuntimeConf | None = None
    rung: str = ""

    @property
    def can_have_underlay(self) -> bool:
        """Return whether it is one of the two programs that know such layers."""
        return self.name in (RuntimeKind.APPTAINER, RuntimeKind.SINGULARITY)

    @property
    def has_underlay(self) -> bool | None:
        """Return whether underlay is enabled: as seen, else as configured."""
        if self.underlay_works is not None:
            return self.underlay_works
        if not self.can_have_underlay:
            return False
        return None if self.conf is None else self.conf.has_underlay

    @property
    def has_overlay(self) -> bool | None:
        """Return whether overlay is enabled, as configured."""
        if not self.can_have_underlay:
            return False
        return None if self.conf is None else self.conf.has_overlay


class HostFacts(Record, frozen=True, kw_only=True):
    """The node itself."""

    cpu: Mapping[str, str] = {}
    """The first processor's lines of /proc/cpuinfo."""
    cores: int | None = None
    os_release: Mapping[str, str] = {}
    memory_kb: Mapping[str, int] = {}
    uname: str | None = None
    kernel: str | None = None
    machine: str | None = None
    is_root: bool = False
    user: str | None = None
    """Empty: this uid has no entry in the passwd database."""
    max_user_namespaces: int | None = None
    unprivileged_userns_clone: int | None = None
    """Debian's own switch; None where the kernel has none, too."""
    apparmor_restricts_userns: int | None = None
    user_namespace: str | None = None
    """``yes``, or the name of the error (EPERM, ENOSPC, ...) with which the kernel refused."""
    nested_pid_namespace: str | None = None
    """``yes``, ``no-proc`` where /proc can't be mounted in it, or the name of the error."""
    landlock_abi: int | None = None
    """0: none."""
    cgroup_v2_available: bool | None = None
    cgroup_v2_running: bool | None = None
    cgroup_delegated: bool | None = None
    """A child of the pilot's own cgroup (v2) could be made."""
    cgroup_controllers: str | None = None
    running_in: str | None = None
    has_fuse: bool | None = None
    loop_devices: int | None = None
    temp_directory: str | None = None
    temp_free_bytes: int | None = None
    cvmfs_mounted: bool | None = None
    """None: it doesn't answer, or there was no time."""
    cvmfs_hung: bool = False
    cvmfs_version: str | None = None
    cvmfs_revision: int | None = None
    gpu: str | None = None
    """``none``, or what there is: ``nvidia x 2``."""


class Facts(Record, frozen=True, kw_only=True):
    """All of it."""

    host: HostFacts = msgspec.field(default_factory=HostFacts)
    runtimes: tuple[RuntimeFacts, ...] = ()
    missing: tuple[str, ...] = ()
    """A sentence for each look that gave nothing."""
