"""Namespaces of one's own, as an ordinary user gets them: user, mount and PID.

A user namespace comes first: in it this process has what the mounts need, and nothing outside.
Every user keeps its number, so files keep their owners. The mounts follow the host's (slave),
so what is mounted there later, by an automounter say, is seen here, too; not the other way.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable

_FLAGS = {"mnt": 0x00020000, "user": 0x10000000, "pid": 0x20000000}
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SLAVE = 32, 4096, 16384, 1 << 19
_SYS_MOUNT_SETATTR = 442  # on every architecture
_AT_FDCWD, _AT_RECURSIVE, _ATTR_RDONLY = -100, 0x8000, 1
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38
_CAPABILITY_VERSION_3 = 0x20080522
_ROOTS_CAPABILITIES = range(8)
"""CHOWN to SETUID: files of any owner, and other users. What root loses is the machine."""
_HIDDEN_MODE = 0o755

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(kinds: Iterable[str]) -> None:
    """Enter new namespaces; of a new PID namespace, this process's children are the first.

    Raises `OSError` whose filename says which step the kernel refused.
    """
    uid, gid = os.geteuid(), os.getegid()
    mapper = _Mapper() if uid == 0 else None
    _checked(_libc.unshare(sum(_FLAGS[kind] for kind in kinds)), "unshare")
    if mapper is None or not mapper.map_all():
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")


class _Mapper:
    """A child that stays outside and maps every user and group to itself.

    Root has to read the files of others, and only who is outside may map them.
    """

    def __init__(self) -> None:
        waiting, self._go = os.pipe()
        target = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            os._exit(_map_from_outside(target, waiting, self._go))
        os.close(waiting)

    def map_all(self) -> bool:
        """Have it done; False where it may not."""
        os.write(self._go, b".")
        os.close(self._go)
        return os.waitpid(self._pid, 0)[1] == 0


def _map_from_outside(target: int, waiting: int, other_end: int) -> int:
    try:
        os.close(other_end)
        if os.read(waiting, 1):
            for name in ("uid_map", "gid_map"):
                with open(f"/proc/self/{name}") as file:
                    extents = [line.split() for line in file]
                _write(
                    f"/proc/{target}/{name}",
                    "".join(f"{inside} {inside} {count}\n" for inside, _, count in extents),
                )
            return 0
    except (OSError, ValueError):
        return 1
    return 1


def follow_the_hosts_mounts() -> None:
    """Keep what is mounted from here on to this namespace."""
    _mount("none", "/", "", _MS_SLAVE | _MS_REC)


def mount_proc() -> None:
    """Mount /proc of the own PID namespace; refused where the present one is masked (docker)."""
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def mount_shared_memory(place: str) -> tuple[str, ...]:
    """Mount the job's own, where the node has such; return what may be written then."""
    if not os.path.isdir(place):
        return ()
    _mount("tmpfs", place, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=1777")
    return (place,)


def mount_terminals(place: str, multiplexer: str) -> tuple[str, ...]:
    """Mount pseudo-terminals of the job's own; return what may be written, nothing if refused."""
    try:
        options = "newinstance,ptmxmode=0666,mode=620"
        _mount("devpts", place, "devpts", _MS_NOSUID | _MS_NOEXEC, options)
        _mount(f"{place}/ptmx", multiplexer, "", _MS_BIND)
    except OSError:
        return ()
    return (place, multiplexer)


def hide(directory: str, kept: Iterable[str] = ()) -> None:
    """Mount an empty, read-only directory over this one; ``kept``, in it, stays where it is."""
    there = filter(os.path.exists, kept)
    opened = [(path, os.open(path, os.O_PATH | os.O_CLOEXEC)) for path in there]
    _mount("tmpfs", directory, "tmpfs", _MS_NOSUID | _MS_NODEV, "size=1m,mode=755")
    for path, descriptor in opened:
        source = f"/proc/self/fd/{descriptor}"
        if os.path.isdir(source):
            os.makedirs(path, _HIDDEN_MODE)
        else:
            os.makedirs(os.path.dirname(path), _HIDDEN_MODE, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        _mount(source, path, "", _MS_BIND | _MS_REC)
        os.close(descriptor)
    flags = _MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    _mount("none", directory, "", flags)


def make_read_only(kept: Iterable[str]) -> None:
    """Make every mount read-only, but for those at ``kept``: modes, owners and times stay, too.

    Landlock has no say in those. Before Linux 5.12 nothing is done: mounts one by one, with
    the flags that each is locked to, are not worth their risk.
    """
    try:
        _set_mount_attributes("/", _AT_RECURSIVE, to_set=_ATTR_RDONLY)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return
    for place in kept:
        if not os.path.ismount(place):
            _mount(place, place, "", _MS_BIND)
        _set_mount_attributes(place, 0, to_clear=_ATTR_RDONLY)


def drop_capabilities() -> None:
    """Give up what the user namespace gave; root keeps what it needs for files and users."""
    kept = sum(1 << number for number in _ROOTS_CAPABILITIES) if os.geteuid() == 0 else 0
    for number in range(64):
        is_kept = kept >> number & 1
        if not is_kept and _libc.prctl(_PR_CAPBSET_DROP, _long(number), 0, 0, 0) != 0:
            break  # The kernel's last one was before.
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)
    _checked(_libc.capset(header, data), "capset")


def allow_no_new_privileges() -> None:
    """Let no exec give more than this process has: no setuid programs (Linux 3.5)."""
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, _long(1), _long(0), _long(0), _long(0)), "prctl")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    result = _libc.mount(
        source.encode(),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _checked(result, f"mount {target}")


def _set_mount_attributes(place: str, flags: int, *, to_set: int = 0, to_clear: int = 0) -> None:
    attributes = (ctypes.c_uint64 * 4)(to_set, to_clear, 0, 0)
    result = _libc.syscall(
        _long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(place),
        ctypes.c_uint(flags),
        attributes,
        _long(ctypes.sizeof(attributes)),
    )
    _checked(result, f"mount_setattr {place}")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        os.close(descriptor)


def _checked(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)


_long = ctypes.c_ulong
