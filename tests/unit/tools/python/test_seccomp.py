"""The filter of system calls, run by a small interpreter of BPF: on both architectures, without their kernels."""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.tools.python.seccomp import ALLOW, ARCHITECTURES, ERRNO, KILL_PROCESS, program
from gptoss_bento.tools.python.syscalls import Syscall, allowed

PID = 4321
SYSCALLS = {syscall.name: syscall for syscall in allowed(PID)}
REFUSED = ERRNO | errno.EPERM
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def answered(code: bytes, machine: str, number: int, *arguments: int) -> int:
    """What the kernel does, by the filter."""
    words = [value & 0xFFFFFFFFFFFFFFFF for value in (*arguments, *[0] * (6 - len(arguments)))]
    data = struct.pack("<iIQ6Q", number, ARCHITECTURES[machine], 0, *words)
    instructions = list(struct.iter_unpack("<HBBI", code))
    position, register = 0, 0
    while True:
        operation, if_true, if_false, constant = instructions[position]
        position += 1
        if operation == 0x20:
            (register,) = struct.unpack_from("<I", data, constant)
        elif operation == 0x54:
            register &= constant
        elif operation == 0x15:
            position += if_true if register == constant else if_false
        else:
            return int(constant)


def call(machine: str, name: str, *arguments: int) -> int:
    number = SYSCALLS[name].number(machine)
    assert number is not None
    return answered(program(machine, allowed(PID)), machine, number, *arguments)


CALLS = [
    ("read", (5,), ALLOW),
    ("openat", (-100, 0, 0o2000000), ALLOW),  # O_CLOEXEC
    ("openat", (-100, 0, 0o1), REFUSED),  # O_WRONLY
    ("openat", (-100, 0, 0o2), REFUSED),
    ("openat", (-100, 0, 0o100), REFUSED),  # O_CREAT
    ("openat", (-100, 0, 0o1000), REFUSED),  # O_TRUNC
    ("openat", (-100, 0, 0x200000), REFUSED),  # O_PATH
    ("futex", (0, 128 | 256 | 9), ALLOW),  # FUTEX_WAIT_BITSET, private, by the clock of the day
    ("futex", (0, 128 | 6), REFUSED),  # FUTEX_LOCK_PI
    ("pipe2", (0, 0o2004000), ALLOW),
    ("pipe2", (0, 0x80), REFUSED),  # O_NOTIFICATION_PIPE
    ("mmap", (0, 4096, 3, 0x22, -1), ALLOW),
    ("mmap", (0, 4096, 3, 0x40022, -1), REFUSED),  # MAP_HUGETLB
    ("mmap", (0, 4096, 1, 0x01, 5), ALLOW),  # MAP_SHARED of a file, which can only be read
    ("mmap", (0, 4096, 3, 0x21, -1), REFUSED),  # MAP_SHARED without a file
    ("mmap", (0, 4096, 3, 0x23, -1), REFUSED),  # MAP_SHARED_VALIDATE
    ("mmap", (0, 4096, 3, 0x40001, 5), REFUSED),
    ("clone", (0x3D0F00,), ALLOW),
    ("clone", (17,), REFUSED),
    ("clone", (0x3D0F00 | 0x10000000,), REFUSED),  # CLONE_NEWUSER
    ("clone", (1 << 32 | 0x3D0F00,), REFUSED),
    ("clone3", (), ERRNO | errno.ENOSYS),
    ("kill", (PID, 15), ALLOW),
    ("kill", (PID + 1, 15), REFUSED),
    ("kill", (0, 15), REFUSED),
    ("kill", (-1, 15), REFUSED),
    ("kill", (-PID, 15), REFUSED),
    ("tgkill", (PID, PID, 6), ALLOW),
    ("tgkill", (1, 1, 6), REFUSED),
    ("fcntl", (1, 3), ALLOW),
    ("fcntl", (1, 8, 1), REFUSED),  # F_SETOWN
    ("fcntl", (1, 1 << 32 | 8, 1), REFUSED),
    ("ioctl", (1, 0x5401), ALLOW),
    ("ioctl", (0, 0x5412), REFUSED),  # TIOCSTI
    ("prctl", (15,), ALLOW),
    ("prctl", (1,), REFUSED),
    ("prlimit64", (0, 7, 0, 1), ALLOW),
    ("prlimit64", (0, 7, 1, 0), REFUSED),
    ("prlimit64", (0, 7, 1 << 40, 0), REFUSED),
    ("prlimit64", (1, 7, 0, 1), REFUSED),
    ("madvise", (0, 0, 4), ALLOW),
    ("madvise", (0, 0, 12), REFUSED),  # MADV_MERGEABLE
    ("close_range", (3, 9, 0), ALLOW),
    ("close_range", (3, 9, 2), REFUSED),
]


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize(("name", "arguments", "expected"), CALLS)
def test_filter_decides_by_number_and_arguments(
    machine: str, name: str, arguments: tuple[int, ...], expected: int
) -> None:
    assert call(machine, name, *arguments) == expected


def test_filter_kills_at_calls_of_another_architecture() -> None:
    assert answered(program("x86_64", allowed(PID)), "aarch64", 0) == KILL_PROCESS


@given(st.sampled_from(sorted(ARCHITECTURES)), st.integers(-(2**31), 2**31 - 1), st.lists(st.integers(0, 2**64 - 1)))
def test_filter_refuses_each_number_that_is_not_listed(machine: str, number: int, arguments: list[int]) -> None:
    listed = {syscall.number(machine) for syscall in SYSCALLS.values()}

    if number not in listed:
        assert answered(program(machine, allowed(PID)), machine, number, *arguments[:6]) == REFUSED


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_filter_is_short_enough_for_the_kernel(machine: str) -> None:
    assert len(program(machine, allowed(PID))) // 8 < 4096


def numbers(header: Path) -> Iterator[tuple[str, int]]:
    text = header.read_text()
    for name, number in re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)$", text, re.MULTILINE):
        yield {"fstatat": "newfstatat"}.get(name, name), int(number)


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip(f"no headers of {machine} here")
    known = dict(numbers(HEADERS[machine]))
    listed = {name: syscall.number(machine) for name, syscall in SYSCALLS.items() if name in known}

    assert listed == {name: known[name] for name in listed}
    assert len(listed) > 60


@pytest.mark.parametrize(
    "name",
    ["socket", "connect", "execve", "fork", "vfork", "ptrace", "bpf", "io_uring_setup", "userfaultfd", "memfd_create",
     "unshare", "setns", "mount", "keyctl", "perf_event_open", "process_vm_readv", "pidfd_open", "readlink", "sendmsg"],
)  # fmt: skip
def test_list_has_no_call_that_reaches_outside(name: str) -> None:
    assert name not in SYSCALLS


def test_names_are_listed_once() -> None:
    assert len(SYSCALLS) == len(allowed(PID))
    assert all(isinstance(syscall, Syscall) for syscall in SYSCALLS.values())
