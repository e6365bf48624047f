"""What a confined child may ask of the kernel: its system calls, by name, with their numbers and bounds. Pure.

All others fail with EPERM, so this list is the way to the kernel for code that the model wrote, in Python or in machine
code. Left out are those that reach a file by its path for anything but reading, a network, another process, or parts of
the kernel with a history of faults (io_uring, bpf, userfaultfd, keyrings, namespaces, perf events).

Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux. Their order is that of
the filter, which is read from the top: frequent ones are first.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final, NamedTuple

LOW_32: Final = 0xFFFFFFFF
"""The kernel reads an `int` from the lower half of its register. What is in the upper half is of no effect."""
ALL_64: Final = 0xFFFFFFFFFFFFFFFF


class Argument(NamedTuple):
    """A bound of one argument: its bits of `mask` are those of `value`."""

    position: int
    value: int
    mask: int = LOW_32


class Syscall(NamedTuple):
    """A system call that is allowed, or answered with an error other than EPERM.

    Attributes:
        x86_64: its number; None where the architecture has none.
        aarch64: the same.
        where: alternatives, each a group of bounds that hold together; without any, each call is allowed.
        answer: the errno instead; 0 allows it.
    """

    name: str
    x86_64: int | None
    aarch64: int | None
    where: tuple[tuple[Argument, ...], ...] = ()
    answer: int = 0

    def number(self, machine: str) -> int | None:
        """Its number on an architecture, by the name of `uname -m`."""
        return self.x86_64 if machine == "x86_64" else self.aarch64


_PLAIN: Final[Mapping[str, tuple[int | None, int | None]]] = {
    # descriptors that are open
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "pipe": (22, None),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_create": (213, None),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
    # what Landlock does not cover: whether a path exists, its size and times. glibc before 2.39 calls newfstatat for
    # open descriptors as well, so it cannot be left out
    "newfstatat": (262, 79),
    "stat": (4, None),
    "lstat": (6, None),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    # memory
    "munmap": (11, 215),
    "mremap": (25, 216),
    "mprotect": (10, 226),
    "brk": (12, 214),
    # threads
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "set_tid_address": (218, 96),
    "gettid": (186, 178),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "sched_get_priority_max": (146, 125),
    "sched_get_priority_min": (147, 126),
    "getcpu": (309, 168),
    # its own signals and clocks
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigsuspend": (130, 133),
    "rt_sigtimedwait": (128, 137),
    "rt_sigpending": (127, 136),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "alarm": (37, None),
    "setitimer": (38, 103),
    "getitimer": (36, 102),
    "pause": (34, None),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    # what it is, and the end
    "getpid": (39, 172),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getgroups": (115, 158),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "getpgrp": (111, None),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "uname": (63, 160),
    "getrandom": (318, 278),
    "exit": (60, 93),
    "exit_group": (231, 94),
}

_ABSENT: Final[Mapping[str, tuple[int, int]]] = {
    # libraries try these first, and do without where the kernel has none
    "clone3": (435, 435),  # its flags are in memory, where no filter sees them; glibc then calls clone
    "membarrier": (324, 283),
    "statx": (332, 291),
    "openat2": (437, 437),
    "futex_waitv": (449, 449),
    "mseal": (462, 462),
}

_READ_ONLY: Final = 0o3 | 0o100 | 0o1000 | 0x200000 | 0x400000  # O_ACCMODE, O_CREAT, O_TRUNC, O_PATH, __O_TMPFILE
_NEW_THREAD: Final = 0x3D0F00  # what pthread_create of glibc passes: all is shared, CLONE_THREAD included
_FCNTL: Final = (
    0,
    1,
    2,
    3,
    4,
    1030,
    1032,
)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_GETPIPE_SZ
_IOCTL: Final = (
    0x5401,
    0x5413,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
_PRCTL: Final = (15, 16)  # PR_SET_NAME, PR_GET_NAME
_PIPE_FLAGS: Final = 0o2000000 | 0o4000  # O_CLOEXEC, O_NONBLOCK; O_NOTIFICATION_PIPE makes a queue of kernel events
_MMAP_REFUSED: Final = 0x40000 | 0x2000 | 0x100  # MAP_HUGETLB, MAP_LOCKED, MAP_GROWSDOWN
_SHARED, _ANONYMOUS = 0x1, 0x20  # MAP_SHARED, which is a bit of MAP_SHARED_VALIDATE as well; MAP_ANONYMOUS
_FUTEX_OPERATION: Final = 0x7F  # FUTEX_CMD_MASK, without the bits above it
_FUTEX: Final = (0, 1, 3, 4, 5, 9, 10)  # waits and wakes; not those with priority inheritance


_CLOSE_RANGE_UNSHARE: Final = 2  # a table of descriptors for each thread would be as many more pipes
_MADVISE: Final = (0, 1, 2, 3, 4, 8, 14, 15, 16, 17, 18, 19, 102, 103)
"""Without MADV_MERGEABLE: merged pages show what others have in memory. The last two are guards of stacks."""


def _one_of(position: int, values: tuple[int, ...], mask: int = LOW_32) -> tuple[tuple[Argument, ...], ...]:
    return tuple((Argument(position, value, mask),) for value in values)


def _bounded(own_pid: int) -> tuple[Syscall, ...]:
    return (
        Syscall("futex", 202, 98, _one_of(1, _FUTEX, _FUTEX_OPERATION)),
        # shared memory of no file stays whole while one page of it is mapped, and no bound of memory counts the rest
        Syscall("mmap", 9, 222, tuple((Argument(3, 0, _MMAP_REFUSED | part),) for part in (_SHARED, _ANONYMOUS))),
        Syscall("pipe2", 293, 59, ((Argument(1, 0, LOW_32 & ~_PIPE_FLAGS),),)),
        Syscall("openat", 257, 56, ((Argument(2, 0, _READ_ONLY),),)),
        Syscall("open", 2, None, ((Argument(1, 0, _READ_ONLY),),)),
        Syscall("clone", 56, 220, ((Argument(0, _NEW_THREAD, ALL_64),),)),
        Syscall("madvise", 28, 233, _one_of(2, _MADVISE)),
        Syscall("close_range", 436, 436, ((Argument(2, 0, _CLOSE_RANGE_UNSHARE),),)),
        Syscall("fcntl", 72, 25, _one_of(1, _FCNTL)),  # F_SETOWN would send signals to others
        Syscall("ioctl", 16, 29, _one_of(1, _IOCTL)),
        Syscall("prctl", 157, 167, _one_of(0, _PRCTL)),
        Syscall("tgkill", 234, 131, ((Argument(0, own_pid),),)),
        Syscall("kill", 62, 129, ((Argument(0, own_pid),),)),
        Syscall("prlimit64", 302, 261, ((Argument(0, 0), Argument(2, 0, ALL_64)),)),  # reads its own limits
    )


def allowed(own_pid: int) -> tuple[Syscall, ...]:
    """All that are not refused with EPERM.

    Args:
        own_pid: the child's id: signals may go to itself.
    """
    plain = tuple(Syscall(name, *numbers) for name, numbers in _PLAIN.items())
    absent = tuple(Syscall(name, *numbers, answer=errno.ENOSYS) for name, numbers in _ABSENT.items())
    return plain + _bounded(own_pid) + absent
