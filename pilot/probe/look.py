"""A probe's looks at the node, in a process of their own that may hang.

Run as a script by an interpreter with ``-I -S``; it imports nothing but the standard library.

    look.py LOOK... [ARGUMENT]    print a line of JSON, {"look": ..., "facts": {...}}, for each

Each line is written as soon as its look is done. So when one hangs - a file system that is
dead, a device that doesn't answer - the agent that kills this process still has the others.
What can't be found out is null.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import sys
from collections.abc import Callable

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x10000000, 0x20000000
LANDLOCK_CREATE_RULESET = 444  # the same on every architecture
LANDLOCK_CREATE_RULESET_VERSION = 1
CVMFS_REPOSITORIES = ("alice.cern.ch", "oasis.opensciencegrid.org", "cvmfs-config.cern.ch")
PROC_FAILED = 100

Facts = dict[str, object]


def read(path: str, count: int = 1 << 20) -> str | None:
    """Return a file's text, None where it can't be read."""
    try:
        with open(path, errors="replace") as file:
            return file.read(count)
    except OSError:
        return None


def number(path: str) -> int | None:
    """Return the number that is a file's text, None where it is none."""
    with contextlib.suppress(ValueError):
        return int(read(path) or "")
    return None


def pairs(text: str, separator: str) -> dict[str, str]:
    """Return the first part of a text's lines by what stands before the separator."""
    split = (line.partition(separator) for line in text.splitlines())
    return {name.strip(): value.strip() for name, found, value in split if found}


def system(_: str) -> Facts:
    """Look at processors, memory and operating system."""
    first_cpu = (read("/proc/cpuinfo") or "").partition("\n\n")[0]
    release = read("/etc/os-release") or read("/usr/lib/os-release") or ""
    memory = pairs(read("/proc/meminfo") or "", ":")
    uname = os.uname()
    return {
        "cpu": pairs(first_cpu, ":"),
        "cores": len(os.sched_getaffinity(0)),
        "os_release": {k: v.strip("\"'") for k, v in pairs(release, "=").items() if k[0] != "#"},
        "memory_kb": {
            name: int(memory[name].split()[0])
            for name in ("MemTotal", "MemAvailable", "SwapTotal")
            if name in memory
        },
        "uname": " ".join(uname),
        "kernel": uname.release,
        "machine": uname.machine,
        "is_root": os.geteuid() == 0,
    }


def user(_: str) -> Facts:
    """Look up who runs this; it may ask a directory service."""
    import pwd

    try:
        return {"user": pwd.getpwuid(os.geteuid()).pw_name}
    except KeyError:
        return {"user": ""}


def kernel(_: str) -> Facts:
    """Look at what the kernel lets this user do, by doing it."""
    return {
        "max_user_namespaces": number("/proc/sys/user/max_user_namespaces"),
        "unprivileged_userns_clone": number("/proc/sys/kernel/unprivileged_userns_clone"),
        "apparmor_restricts_userns": number(
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"
        ),
        "user_namespace": in_child(lambda libc: unshare(libc, CLONE_NEWUSER)),
        "nested_pid_namespace": in_child(nested_pid_namespace),
        "landlock_abi": landlock_abi(),
        "has_fuse": os.access("/dev/fuse", os.R_OK | os.W_OK),
        "loop_devices": len([n for n in os.listdir("/dev") if n[:4] == "loop" and n[4:].isdigit()]),
    }


def in_child(what: Callable[[ctypes.CDLL], int]) -> str | None:
    """Return ``yes`` where a child could do it, or the error's name as its exit code says."""
    import errno

    libc = ctypes.CDLL(None, use_errno=True)
    child = os.fork()
    if child == 0:
        code = PROC_FAILED + 1
        try:
            code = what(libc)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == PROC_FAILED:
        return "no-proc"
    return "yes" if code == 0 else errno.errorcode.get(code)


def unshare(libc: ctypes.CDLL, flags: int) -> int:
    """Return 0, or the error's number."""
    return ctypes.get_errno() if libc.unshare(flags) else 0


def nested_pid_namespace(libc: ctypes.CDLL) -> int:
    """Make a PID namespace and mount its /proc, which a container around us may forbid."""
    failed = unshare(libc, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID)
    if failed and os.geteuid() == 0:
        failed = unshare(libc, CLONE_NEWNS | CLONE_NEWPID)
    if failed:
        return failed
    child = os.fork()
    if child == 0:
        # Root's mounts would reach the node's own; those in a user namespace can't.
        libc.mount(b"none", b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE
        os._exit(PROC_FAILED if libc.mount(b"proc", b"/proc", b"proc", 0, None) else 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def landlock_abi() -> int | None:
    """Return the version of Landlock that the kernel offers, 0 where it has none."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_CREATE_RULESET_VERSION)
    return max(int(version), 0)


def cgroup(_: str) -> Facts:
    """Look for cgroup v2, and whether a child of our own can be made."""
    root = "/sys/fs/cgroup"
    mounted = [
        parts[4]
        for line in (read("/proc/self/mountinfo") or "").splitlines()
        if " - cgroup2 " in line and len(parts := line.split()) > 4
    ]
    facts: Facts = {
        "cgroup_v2_available": "cgroup2" in (read("/proc/filesystems") or "").split(),
        "cgroup_v2_running": root in mounted,
    }
    own = pairs(read("/proc/self/cgroup") or "", "::").get("0")
    if not mounted or own is None:
        return facts | {"cgroup_delegated": False, "cgroup_controllers": ""}
    place = mounted[0] + own.rstrip("/")
    child = f"{place}/pilot-probe-{os.getpid()}"
    try:
        os.mkdir(child)
        os.rmdir(child)
        delegated = True
    except OSError:
        delegated = False
    controllers = " ".join((read(f"{place}/cgroup.controllers") or "").split())
    return facts | {"cgroup_delegated": delegated, "cgroup_controllers": controllers}


def surroundings(_: str) -> Facts:
    """Look what this runs in; the names are Site Sonar's where it has one."""
    if "APPTAINER_CONTAINER" in os.environ or "SINGULARITY_CONTAINER" in os.environ:
        return {"running_in": "Singularity"}
    marks = (
        ("/.singularity.d", "Singularity"),
        ("/var/run/secrets/kubernetes.io", "Kubernetes"),
        ("/run/.containerenv", "Podman"),
        ("/.dockerenv", "Docker"),
    )
    for mark, name in marks:
        if os.path.exists(mark):
            return {"running_in": name}
    of_systemd = (read("/run/systemd/container") or "").strip()
    return {"running_in": of_systemd or "None"}


def temp(_: str) -> Facts:
    """Look at the directory for temporary files."""
    place = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - it is only told
    facts: Facts = {"temp_directory": place}
    try:
        status = os.statvfs(place)
    except OSError:
        return facts
    return facts | {"temp_free_bytes": status.f_bavail * status.f_frsize}


def cvmfs(root: str) -> Facts:
    """Look whether CVMFS is there, by going into a repository of it; it may hang for ever."""
    for name in CVMFS_REPOSITORIES:
        try:
            os.listdir(place := f"{root}/{name}")
        except OSError:
            continue
        version, revision = attribute(place, "version"), attribute(place, "revision")
        return {
            "cvmfs_mounted": True,
            "cvmfs_version": version,
            "cvmfs_revision": int(revision) if revision and revision.isdecimal() else None,
        }
    return {"cvmfs_mounted": False}


def attribute(place: str, name: str) -> str | None:
    """Return what CVMFS says of itself."""
    with contextlib.suppress(OSError):
        return os.getxattr(place, f"user.{name}").decode(errors="replace").strip()
    return None


def gpu(_: str) -> Facts:
    """Look for graphics processors, by their devices and by their drivers' own programs."""
    import shutil
    import subprocess

    devices = [name for name in os.listdir("/dev") if name[:6] == "nvidia" and name[6:].isdigit()]
    program = shutil.which("nvidia-smi")
    if program is not None:
        listed = subprocess.run([program, "-L"], capture_output=True, text=True, check=False)
        count = sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
        if listed.returncode == 0 and count:
            return {"gpu": f"nvidia x {count}"}
        if devices:
            return {"gpu": "nvidia, driver broken"}
    if devices:
        return {"gpu": f"nvidia x {len(devices)}, no nvidia-smi"}
    return {"gpu": "amd" if os.path.exists("/dev/kfd") else "none"}


LOOKS = {
    "system": system,
    "user": user,
    "kernel": kernel,
    "cgroup": cgroup,
    "surroundings": surroundings,
    "temp": temp,
    "cvmfs": cvmfs,
    "gpu": gpu,
}


def main() -> None:
    """Take the looks named by the first argument, with commas; the second is theirs."""
    argument = sys.argv[2] if len(sys.argv) > 2 else ""
    for name in sys.argv[1].split(","):
        try:
            facts = LOOKS[name](argument)
        except Exception as error:  # A look that fails must not take the others with it.
            line: Facts = {"look": name, "facts": {}, "problem": f"{type(error).__name__}: {error}"}
        else:
            line = {"look": name, "facts": facts}
        os.write(1, json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    main()
