"""Takes from the calling process, for ever, what code of the model must not have. It needs no privilege.

What runs afterwards is taken for machine code of an attacker, not for Python: each bound is the kernel's. Two of them
refuse files and processes of others, Landlock and the seccomp filter, so that a fault in one is not a way out.
docs/decisions/0073-python-in-a-confined-child.md has the reasons.

Only the standard library is imported here: the child starts in milliseconds.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import struct
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from gptoss_bento.tools.python import landlock, seccomp
from gptoss_bento.tools.python.syscalls import allowed

NICENESS: Final = 15
"""A thread of the model has 3 % of the CPU time that one of the service has, where both want it."""

OPEN_FILES: Final = 64
"""Descriptors of a child, its own five included. Imports need one at a time."""

_PDEATHSIG: Final = 1  # PR_SET_PDEATHSIG and so on: linux/prctl.h
_DUMPABLE: Final = 4
_SECCOMP: Final = 22
_NO_NEW_PRIVILEGES: Final = 38
_FILTER: Final = 2  # SECCOMP_MODE_FILTER
_SIGKILL: Final = 9
_CAPABILITIES_V3: Final = 0x20080522  # _LINUX_CAPABILITY_VERSION_3


def problem() -> str | None:
    """Why this machine cannot confine Python of the model; None if it can. Nothing is changed by asking."""
    if sys.platform != "linux":
        return f"{sys.platform} has no Landlock: Linux 5.13 or newer is needed"
    if (machine := os.uname().machine) not in seccomp.ARCHITECTURES:
        return f"no filter of system calls is known for {machine}, only for {' and '.join(seccomp.ARCHITECTURES)}"
    try:
        landlock.version()
    except OSError as error:
        return _landlock_problem(error)
    if _prctl(_SECCOMP, _FILTER, None) != errno.EFAULT:  # it would read the filter, so it knows filters
        return "the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)"
    return None


def _landlock_problem(error: OSError) -> str:
    if error.errno == errno.EOPNOTSUPP:
        return "the kernel was started without Landlock: add landlock to its lsm= option"
    if error.errno == errno.ENOSYS:
        return "the kernel has no Landlock: Linux 5.13 or newer is needed, and a container that lets its calls through"
    return f"the kernel refuses Landlock ({error.strerror}): the container's seccomp profile may forbid it"


def die_with_parent(parent_pid: int) -> None:
    """The kernel kills this process when its parent ends, by whatever cause; also if that was before this call."""
    _require(_prctl(_PDEATHSIG, _SIGKILL))
    if os.getppid() != parent_pid:
        os._exit(1)


def confine(readable: Iterable[str], memory_bytes: int, cpu_s: int) -> None:
    """Confines the process. It must have one thread.

    Args:
        readable: folders and files that may be read, for imports.
        memory_bytes: its address space.
        cpu_s: its CPU time until it is killed. Those who watch it have shorter bounds for each run.

    Raises:
        OSError: the kernel refuses a part of it. The process must not run code of the model then.
    """
    os.chdir("/")
    _yield_to_the_service()
    _limit_resources(memory_bytes, cpu_s)
    _require(_prctl(_DUMPABLE, 0))  # a crash starts no program of the machine's that collects core dumps
    _require(_prctl(_NO_NEW_PRIVILEGES, 1))
    _drop_capabilities()
    landlock.restrict(readable)
    _filter_system_calls()


def _yield_to_the_service() -> None:
    """The service comes first, in CPU time and where the machine's memory runs out."""
    os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _limit_resources(memory_bytes: int, cpu_s: int) -> None:
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for name, value in limits.items():
        _, hard = resource.getrlimit(name)
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (bound, bound))


def _drop_capabilities() -> None:
    """As root in a container the process has some, such as reading all files."""
    header, nothing = struct.pack("<Ii", _CAPABILITIES_V3, 0), bytes(24)
    _require(_errno_of(_libc().capset(header, nothing)))


def _filter_system_calls() -> None:
    code = seccomp.program(os.uname().machine, allowed(os.getpid()))
    filter_ = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(filter_))  # struct sock_fprog
    _require(_prctl(_SECCOMP, _FILTER, program))


def _prctl(option: int, *arguments: int | bytes | None) -> int:
    """The errno of the call, 0 if it succeeded."""
    words = [value if value is None or isinstance(value, bytes) else ctypes.c_ulong(value) for value in arguments]
    padding = [ctypes.c_ulong(0)] * (4 - len(words))  # PR_SET_NO_NEW_PRIVS wants zeros
    return _errno_of(_libc().prctl(option, *words, *padding))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _errno_of(result: int) -> int:
    return ctypes.get_errno() if result < 0 else 0


def _require(number: int) -> None:
    if number:
        raise OSError(number, os.strerror(number))
