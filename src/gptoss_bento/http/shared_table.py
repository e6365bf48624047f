"""Numbers that all worker processes of one service see: a file in memory, one row a name.

Rates are kept once a row; what is in use is kept once a row and process, so that only its own process writes it and
the rest of a process that died does not count.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import psutil

PROCESSES = 64
ROWS = 4096
BUCKETS = 2
"""Token buckets a row: requests and tokens."""

_HEADER = 8 * PROCESSES  # their process ids
_ROW = 8 * (1 + 2 * BUCKETS + PROCESSES)  # the name's hash, level and time of each bucket, what each process uses
_TRIES = 100  # for the lock, some microseconds in all
_ALONE = nullcontext()


class SharedTable:
    """Rows by name. Whoever opens the same file sees the same rows.

    Args:
        path: the file; None keeps the numbers in this process alone.
    """

    def __init__(self, path: Path | None = None) -> None:
        size = _HEADER + ROWS * _ROW
        self._file: int | None = None
        if path is not None:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._file, size)  # sparse: only rows in use take room
        memory = memoryview(mmap.mmap(-1 if self._file is None else self._file, size))
        self._processes = memory[:_HEADER].cast("q")
        self._numbers = memory[_HEADER:].cast("q")
        self._levels = memory[_HEADER:].cast("d")
        self._rows: dict[str, Row] = {}
        with self.locked():
            self._process = self._enter()

    def locked(self) -> AbstractContextManager[None]:
        """No other process changes a rate meanwhile; within a process nothing may be awaited.

        Nobody waits for a process that was stopped while it held the lock: rather a count is off by one.
        """
        return _ALONE if self._file is None else self._flocked(self._file)

    @contextmanager
    def _flocked(self, file: int) -> Iterator[None]:
        held = self._lock(file)
        try:
            yield
        finally:
            if held:
                fcntl.flock(file, fcntl.LOCK_UN)

    @staticmethod
    def _lock(file: int) -> bool:
        for _ in range(_TRIES):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            return True
        return False

    def _enter(self) -> int:
        """Takes a place among the processes: a free one, or that of a process which is gone."""
        for place in range(PROCESSES):
            pid = self._processes[place]
            if pid in (0, os.getpid()) or not psutil.pid_exists(pid):
                self._processes[place] = os.getpid()
                for row in range(ROWS):
                    self._numbers[_in_use(row) + place] = 0
                return place
        raise RuntimeError(f"more than {PROCESSES} worker processes")

    def row(self, name: str) -> Row:
        """The row of this name, made when it is first asked for."""
        if (row := self._rows.get(name)) is None:
            with self.locked():
                processes = 1 if self._file is None else PROCESSES
                place = self._place_of(name)
                row = self._rows[name] = Row(self._levels, self._numbers, place, self._process, processes)
        return row

    def _place_of(self, name: str) -> int:
        hashed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True) or 1
        for probe in range(ROWS):
            row = (hashed + probe) % ROWS
            cell = row * _ROW // 8
            if self._numbers[cell] in (0, hashed):
                self._numbers[cell] = hashed
                return row
        raise RuntimeError(f"more than {ROWS} names")


class Row:
    """The numbers of one name, in a table of so many processes."""

    def __init__(
        self, levels: memoryview[float], numbers: memoryview[int], row: int, process: int, processes: int
    ) -> None:
        self._levels = levels
        self._numbers = numbers
        self._buckets = row * _ROW // 8 + 1
        self._all = slice(_in_use(row), _in_use(row) + processes)
        self._own = _in_use(row) + process

    def bucket(self, which: int) -> tuple[float, float]:
        """Level and the time it was written at; (0, 0) if never."""
        at = self._buckets + 2 * which
        return self._levels[at], self._levels[at + 1]

    def set_bucket(self, which: int, level: float, at: float) -> None:
        """Writes both."""
        place = self._buckets + 2 * which
        self._levels[place], self._levels[place + 1] = level, at

    @property
    def in_use(self) -> int:
        """By all processes."""
        return sum(self._numbers[self._all])

    def use(self, change: int) -> None:
        """This process uses so many more."""
        self._numbers[self._own] += change


def _in_use(row: int) -> int:
    return row * _ROW // 8 + 1 + 2 * BUCKETS
