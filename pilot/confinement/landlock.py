"""Landlock: a process gives up rights for itself and all that descends from it, for good.

The rules that matter here (landlock(7), kernel 5.13 and later):

- A ruleset *handles* rights; what it handles is forbidden but where a rule grants it. A rule
  grants rights to one file, or to a directory and all below: there is no rule that takes away.
- Domains stack: a child's can only be narrower. A process can't trace one of a wider domain,
  nor read its memory, environment or descriptors in /proc.
- What is open already stays usable, so the link and the log need no rule.
- Each kernel knows its ABI's rights and no others: asking for less is how one ruleset fits all.
- ABI 1 is of no use: under it nothing can be moved from one directory to another, whatever
  the rules, and payloads do that.

The rights to ioctl on devices (ABI 5) and to the network (ABI 4) are not handled: a job may
compute on a GPU and read from its storage.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable

ABI_MIN = 2
ABI_MAX = 7
"""Later ones are used as if they were this one."""
ABI_SCOPES = 6

EXECUTE = 1 << 0
WRITE_FILE = 1 << 1
READ_FILE = 1 << 2
READ_DIRECTORY = 1 << 3
_REMOVE = 1 << 4 | 1 << 5
_MAKE_DEVICE = 1 << 6 | 1 << 11
_MAKE = 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 12
_REFER = 1 << 13
_TRUNCATE = 1 << 14
_TRUNCATE_ABI = 3

READ = EXECUTE | READ_FILE | READ_DIRECTORY
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | _TRUNCATE

_SCOPE_ABSTRACT_SOCKETS = 1 << 0
_SCOPE_SIGNALS = 1 << 1

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION = 1
_PATH_BENEATH = 1


class _RulesetAttributes(ctypes.Structure):
    _fields_ = (
        ("handled_files", ctypes.c_uint64),
        ("handled_network", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("descriptor", ctypes.c_int32))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def supported_abi() -> int:
    """Return the ABI to use here; 0 where there is no Landlock, or only one that is of no use."""
    try:
        abi = _syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    except OSError:
        return 0
    return min(abi, ABI_MAX) if abi >= ABI_MIN else 0


def write_rights(abi: int) -> int:
    """Return all rights to change files and directories that an ABI knows."""
    truncate = _TRUNCATE if abi >= _TRUNCATE_ABI else 0
    return WRITE_FILE | _REMOVE | _MAKE | _MAKE_DEVICE | _REFER | truncate


def granted_write(abi: int) -> int:
    """Return what a directory is granted that may be written: all but to make devices."""
    return write_rights(abi) & ~_MAKE_DEVICE


def scopes(abi: int) -> int:
    """Return what stays within the domain: signals, and connections to abstract sockets."""
    return _SCOPE_ABSTRACT_SOCKETS | _SCOPE_SIGNALS if abi >= ABI_SCOPES else 0


class Ruleset:
    """Rights to be given up; `restrict_self` does it. Closed by leaving the context."""

    def __init__(self, handled: int, scoped: int = 0) -> None:
        """Handle these rights to files; raises `OSError` where the kernel refuses."""
        attributes = _RulesetAttributes(handled, 0, scoped)
        self._handled = handled
        self.descriptor = _syscall(
            _CREATE_RULESET,
            ctypes.byref(attributes),
            ctypes.c_size_t(ctypes.sizeof(attributes)),
            ctypes.c_uint32(0),
        )

    def __enter__(self) -> Ruleset:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def allow(self, paths: Iterable[str], rights: int, *, follow: bool = True) -> None:
        """Grant rights to each path and all below it; one that isn't there needs none.

        With ``follow`` False a path that is a link stands for the link, not for where it leads.
        """
        flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        for path in paths:
            try:
                descriptor = os.open(path, flags)
            except OSError:
                continue
            try:
                self._allow(descriptor, rights & self._handled)
            finally:
                os.close(descriptor)

    def _allow(self, descriptor: int, rights: int) -> None:
        is_directory = os.fstat(descriptor).st_mode & 0o170000 == 0o040000
        rule = _PathBeneath(rights if is_directory else rights & _OF_FILES, descriptor)
        if rule.allowed:
            _syscall(
                _ADD_RULE,
                ctypes.c_int(self.descriptor),
                ctypes.c_int(_PATH_BENEATH),
                ctypes.byref(rule),
                ctypes.c_uint32(0),
            )


def restrict_self(descriptor: int) -> None:
    """Give up what the ruleset handles, in this thread; ``no_new_privs`` must be set.

    Fit to be called between fork and exec. Raises `OSError` where the kernel refuses.
    """
    _syscall(_RESTRICT_SELF, ctypes.c_int(descriptor), ctypes.c_uint32(0))


def _syscall(number: int, *arguments: object) -> int:
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(result)
