"""Real lack of room for what another process writes: a small file system that is full, or a limit of its files."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import pytest

_SIZE_MIB = 8


class Disk(Protocol):
    """Where a process writes."""

    def fill(self, pid: int) -> None:
        """From now on there is no room."""
        ...

    def free(self, pid: int) -> None:
        """There is room again."""
        ...


class _SmallFileSystem:
    def __init__(self, folder: Path) -> None:
        self._filler = folder / "filler"

    def fill(self, pid: int) -> None:  # noqa: ARG002  # all of them
        with self._filler.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"x" * 4096):
                pass
        assert not os.statvfs(self._filler).f_bavail

    def free(self, pid: int) -> None:  # noqa: ARG002
        self._filler.unlink()


class _FileLimit:
    def fill(self, pid: int) -> None:
        self._before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, self._before[1]))

    def free(self, pid: int) -> None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, self._before)


@contextmanager
def small_file_system(folder: Path) -> Iterator[Disk]:
    """A separate file system at this folder, which must be empty."""
    size = f"size={_SIZE_MIB}m"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("file systems may not be mounted here; the limit of files is tested all the same")
    try:
        yield _SmallFileSystem(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def file_limit(folder: Path) -> Iterator[Disk]:  # noqa: ARG001
    """As a quota: files of the process cannot grow, wherever they are. Needs no privileges."""
    yield _FileLimit()
