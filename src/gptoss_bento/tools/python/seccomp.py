"""A seccomp filter as a program of classic BPF: which system calls the kernel carries out for a process. Pure.

Formats: linux/seccomp.h (`struct seccomp_data`), linux/filter.h (`struct sock_filter`), linux/audit.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Sequence
from typing import Final

from gptoss_bento.tools.python.syscalls import Argument, Syscall

ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""AUDIT_ARCH_* by the name of `uname -m`. Both are little-endian: the lower half of an argument comes first."""

KILL_PROCESS: Final = 0x80000000
ERRNO: Final = 0x00050000
ALLOW: Final = 0x7FFF0000

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP_IF_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K

_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4
_ARGUMENTS_AT: Final = 16

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, constant."""


def program(machine: str, syscalls: Sequence[Syscall]) -> bytes:
    """The filter as `struct sock_filter[]`.

    A call by another architecture's table (32-bit code on x86_64) kills the process: its numbers mean something else.

    Raises:
        KeyError: no filter is known for this architecture.
    """
    instructions: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_IF_EQUAL, 1, 0, ARCHITECTURES[machine]),
        (_RETURN, 0, 0, KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    for syscall in syscalls:
        number = syscall.number(machine)
        if number is not None:
            answer = _answer(syscall)
            instructions += [(_JUMP_IF_EQUAL, 0, len(answer), number), *answer]
    instructions.append((_RETURN, 0, 0, ERRNO | errno.EPERM))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in instructions)


def _answer(syscall: Syscall) -> list[Instruction]:
    """What is done once the number has been found. It ends with a return, so the number need not be loaded again."""
    if not syscall.where:
        return [(_RETURN, 0, 0, ERRNO | syscall.answer if syscall.answer else ALLOW)]
    found = [instruction for group in syscall.where for instruction in _allowed_if(group)]
    return [*found, (_RETURN, 0, 0, ERRNO | errno.EPERM)]


def _allowed_if(group: Iterable[Argument]) -> list[Instruction]:
    """Allows the call if all bounds hold; else the next instruction after these is run."""
    checks = [check for argument in group for check in _checks(argument)]
    left = sum(map(len, checks)) + 1  # up to and with the return
    instructions: list[Instruction] = []
    for check in checks:
        left -= len(check)
        *load, (code, if_true, _, constant) = check
        instructions += [*load, (code, if_true, left, constant)]
    return [*instructions, (_RETURN, 0, 0, ALLOW)]


def _checks(argument: Argument) -> list[list[Instruction]]:
    """One for each half of an argument that matters: load, mask, compare."""
    checks = []
    for half in (0, 1):
        mask, value = (argument.mask >> 32 * half) & 0xFFFFFFFF, (argument.value >> 32 * half) & 0xFFFFFFFF
        if mask:
            load = (_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument.position + 4 * half)
            masked = [] if mask == 0xFFFFFFFF else [(_AND, 0, 0, mask)]
            checks.append([load, *masked, (_JUMP_IF_EQUAL, 0, 0, value)])
    return checks
