"""A node's keys: those of ALICE's Site Sonar under its names and values, and some of ours.

Site Sonar writes what a configuration file says as ``yes`` or ``no``, and what a test found as
``TRUE`` or ``FALSE``; so do ours. Its CPU_ and OS_ keys are the lines of /proc/cpuinfo and of
/etc/os-release with blanks as underscores, and are text. None: could not be found out.
"""

from __future__ import annotations

from collections.abc import Iterable

from pilot.containers.runtime import RuntimeKind
from pilot.probe.facts import Facts, HostFacts, RuntimeFacts, Value
from pilot.probe.verdict import best_runtime

_SINGULARITY = (RuntimeKind.APPTAINER, RuntimeKind.SINGULARITY)


def keys_of(facts: Facts) -> dict[str, Value]:
    """Return every key, in the order in which they are shown."""
    host = facts.host
    return {
        "SINGULARITY_LOCAL_SUPPORTED": _supported(facts, in_cvmfs=False),
        "SINGULARITY_CVMFS_SUPPORTED": _supported(facts, in_cvmfs=True),
        **_configured(_reference(facts)),
        **_seen(best_runtime(facts)),
        "MAX_NAMESPACES": host.max_user_namespaces,
        "USER_NAMESPACES": host.user_namespace,
        "NESTED_PID_NAMESPACE": host.nested_pid_namespace,
        "LANDLOCK_ABI": host.landlock_abi,
        "CGROUPSv2_AVAILABLE": _truth(host.cgroup_v2_available),
        "CGROUPSv2_RUNNING": _truth(host.cgroup_v2_running),
        "CGROUP_DELEGATED": _truth(host.cgroup_delegated),
        "CGROUP_CONTROLLERS": host.cgroup_controllers,
        "RUNNING_IN": host.running_in,
        "CVMFS_MOUNTED": "HUNG" if host.cvmfs_hung else _truth(host.cvmfs_mounted),
        "CVMFS_VERSION": host.cvmfs_version,
        "CVMFS_REVISION": host.cvmfs_revision,
        "TEMP_DIR": host.temp_directory,
        "TEMP_DIR_FREE_BYTES": host.temp_free_bytes,
        "GPU": host.gpu,
        **_system(host),
    }


def _supported(facts: Facts, *, in_cvmfs: bool) -> Value:
    """Return whether Apptainer or Singularity works, of the node's own or from CVMFS."""
    if in_cvmfs and facts.host.cvmfs_hung:
        return None
    works = [r.works for r in facts.runtimes if r.name in _SINGULARITY and r.in_cvmfs == in_cvmfs]
    if True in works:
        return "TRUE"
    return None if None in works else "FALSE"


def _reference(facts: Facts) -> RuntimeFacts | None:
    """Return the runtime whose configuration counts: the best, else the first that has one."""
    best = best_runtime(facts)
    if best is not None and best.conf is not None:
        return best
    return next((runtime for runtime in facts.runtimes if runtime.conf is not None), None)


def _configured(runtime: RuntimeFacts | None) -> dict[str, Value]:
    conf = None if runtime is None else runtime.conf
    return {
        "UNDERLAY_ENABLED": None if runtime is None else _yes(runtime.has_underlay),
        "OVERLAY_ENABLED": None if runtime is None else _yes(runtime.has_overlay),
        "shared_loop_devices": None if conf is None else conf.value("shared loop devices"),
        "max_loop_devices": None if conf is None else conf.number("max loop devices"),
    }


def _seen(runtime: RuntimeFacts | None) -> dict[str, Value]:
    """Return what the best runtime was seen to do."""
    return {
        "RUNTIME": None if runtime is None else runtime.name.value,
        "RUNTIME_PATH": None if runtime is None else runtime.path,
        "RUNTIME_VERSION": None if runtime is None else runtime.version or None,
        "RUNTIME_MODE": None if runtime is None else runtime.mode,
        "PID_NAMESPACE": None if runtime is None else _truth(runtime.own_pid_namespace),
        "MOUNT_POINTS": None if runtime is None else _truth(runtime.makes_mount_points),
        "IMAGE_SQUASHFS": None if runtime is None else _truth(runtime.squashfs_works),
    }


def _system(host: HostFacts) -> dict[str, Value]:
    return {
        "ARCH": host.machine,
        "CORES": host.cores,
        "KERNEL": host.kernel,
        "UNAME": host.uname,
        **_prefixed("OS_", host.os_release.items()),
        **_prefixed("CPU_", host.cpu.items()),
        **_prefixed("RAM_kB_", host.memory_kb.items()),
    }


def _prefixed(prefix: str, items: Iterable[tuple[str, str | int]]) -> dict[str, Value]:
    return {f"{prefix}{'_'.join(name.split())}": value for name, value in items}


def _truth(value: bool | None) -> str | None:
    return None if value is None else str(value).upper()


def _yes(value: bool | None) -> str | None:
    return None if value is None else ("yes" if value else "no")
