"""A Landlock ruleset: which files a process may open, and whom it may connect to or signal. The kernel enforces it.

Format: include/uapi/linux/landlock.h. A right that is handled and granted by no rule is refused for ever, to the
process and to all threads that it starts later.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

_CREATE_RULESET: Final = 444  # the numbers are those of each architecture
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_VERSION: Final = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH: Final = 1  # LANDLOCK_RULE_PATH_BENEATH

_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3


def handled_files(abi: int) -> int:
    """All rights to files that a version of Landlock knows, as bits."""
    rights = 13  # of the first version: LANDLOCK_ACCESS_FS_EXECUTE to _MAKE_SYM
    rights += abi >= 2  # _REFER
    rights += abi >= 3  # _TRUNCATE
    rights += abi >= 5  # _IOCTL_DEV
    return (1 << rights) - 1


def ruleset(abi: int) -> bytes:
    """`struct landlock_ruleset_attr`: everything that a version can refuse is refused, unless a rule grants it."""
    attributes = struct.pack("<Q", handled_files(abi))
    if abi >= 4:
        attributes += struct.pack("<Q", 0b11)  # bind and connect of TCP
    if abi >= 6:
        attributes += struct.pack("<Q", 0b11)  # abstract Unix sockets and signals of other processes
    return attributes


def version() -> int:
    """The kernel's version of Landlock's interface, from 1.

    Raises:
        OSError: it has none: ENOSYS, it is too old or forbids the call; EOPNOTSUPP, it was started without Landlock.
    """
    return _checked(_libc().syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION))


def restrict(readable: Iterable[str]) -> None:
    """Confines the calling thread: files below `readable` can be read, all others not opened, and none executed.

    It needs PR_SET_NO_NEW_PRIVS. A path that does not exist is left out.

    Raises:
        OSError: the kernel refuses.
    """
    attributes = ruleset(version())
    rules = _checked(_libc().syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    for path in readable:
        with suppress(FileNotFoundError, NotADirectoryError):
            _grant(rules, path)
    _checked(_libc().syscall(_RESTRICT_SELF, rules, 0))
    os.close(rules)


def _grant(rules: int, path: str) -> None:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    rights = _READ_FILE | _READ_DIR if is_folder else _READ_FILE
    _checked(_libc().syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("<Qi", rights, descriptor), 0))
    os.close(descriptor)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno() or errno.EIO
        raise OSError(number, os.strerror(number))
    return result
