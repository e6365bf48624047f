"""Numbers that all worker processes of one service see: a file in memory, one row a name.

Rates are kept once a row; what is in use is kept once a row and process, so that only its own process writes it and
the counts of a dead process are ignored. Names come and go with the keys, so when all rows are taken, an
idle one is evicted for the next name.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import psutil

PROCESSES = 64
ROWS = 4096
PINNED = 16
"""Further rows, for pinned names."""

BUCKETS = 2
"""Token buckets a row: requests and tokens."""

_HEADER = 8 * PROCESSES  # their process ids
_ROW = 8 * (2 + 2 * BUCKETS + PROCESSES)
"""The name's hash, time of the last use, level and time of each bucket, count in use of each process."""

_FULL_AGAIN_S = 60.0  # by then every bucket is, unless it is in debt
_DEBT_S = 3600.0  # the longest Retry-After
_TRIES = 100  # for the lock, some microseconds in all
_ALONE = nullcontext()


class CountersFullError(Exception):
    """More names are in use than there are rows."""


class SharedCounters:
    """Rows by name. All processes that open the same file see the same rows.

    Args:
        path: the file; None keeps the numbers in this process alone.
        clock: seconds, the same in all processes.
    """

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        size = _HEADER + (ROWS + PINNED) * _ROW
        self._file: int | None = None
        if path is not None:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._file, size)  # sparse: only rows in use take room
        memory = memoryview(mmap.mmap(-1 if self._file is None else self._file, size))
        self._processes = memory[:_HEADER].cast("q")
        self._numbers = memory[_HEADER:].cast("q")
        self._levels = memory[_HEADER:].cast("d")
        self._clock = clock
        self._rows: dict[str, Row] = {}
        with self.locked():
            self._process = self._enter()

    def locked(self) -> AbstractContextManager[None]:
        """No other process changes a rate meanwhile; within a process nothing may be awaited.

        After some tries the caller goes on without the lock, since a stopped process may hold it: a count may be off.
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
        """Takes a slot among the processes: a free one, or that of a process which is gone."""
        for slot in range(PROCESSES):
            pid = self._processes[slot]
            if pid in (0, os.getpid()) or not psutil.pid_exists(pid):
                self._processes[slot] = os.getpid()
                for row in range(ROWS + PINNED):
                    self._numbers[_in_use(row) + slot] = 0
                return slot
        raise RuntimeError(f"more than {PROCESSES} worker processes")

    def row(self, name: str, *, pinned: bool = False) -> Row:
        """The row of this name, made at first use. Idle rows are evicted: look it up per request, under the lock.
        Later only the count of what is in use may be lowered.

        Args:
            name: whose row it is.
            pinned: the row is never evicted.

        Raises:
            CountersFullError: there is none.
        """
        if (row := self._rows.get(name)) is None or not row.is_its_own:
            row = self._rows[name] = self._find(name, pinned)
        row.used_at = self._clock()
        return row

    def _find(self, name: str, pinned: bool) -> Row:
        if len(self._rows) >= ROWS + PINNED:
            self._rows.clear()
        hashed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True) or 1
        rows = range(ROWS, ROWS + PINNED) if pinned else range(ROWS)
        row = self._index_of(hashed, rows)
        if row is None and not pinned:
            row = self._useless_row(self._clock())
        if row is None:
            raise CountersFullError(f"more than {len(rows)} names are in use")
        found = self._row(row, hashed)
        found.take()
        return found

    def _index_of(self, hashed: int, rows: range) -> int | None:
        """The index of this name's row, or of one that it may take: a row that was taken once is never empty again."""
        for probe in range(len(rows)):
            row = rows[(hashed + probe) % len(rows)]
            if self._numbers[row * _ROW // 8] in (0, hashed):
                return row
        return None

    def _useless_row(self, now: float) -> int | None:
        return next((row for row in range(ROWS) if self._row(row).is_useless(now)), None)

    def _row(self, row: int, hashed: int = 0) -> Row:
        return Row(self._levels, self._numbers, row, hashed, self._process, 1 if self._file is None else PROCESSES)


class Row:
    """The numbers of one name, in a table of so many processes."""

    __slots__ = ("_all", "_buckets", "_first", "_hashed", "_levels", "_numbers", "_own")

    def __init__(
        self, levels: memoryview[float], numbers: memoryview[int], row: int, hashed: int, process: int, processes: int
    ) -> None:
        self._levels = levels
        self._numbers = numbers
        self._hashed = hashed
        self._first = row * _ROW // 8
        self._buckets = self._first + 2
        self._all = slice(_in_use(row), _in_use(row) + processes)
        self._own = _in_use(row) + process

    @property
    def is_its_own(self) -> bool:
        """Whether it belongs to the name that it was made for."""
        return self._numbers[self._first] == self._hashed

    def is_useless(self, now: float) -> bool:
        """Whether it is like an empty one: nothing is in use, and its buckets are full again."""
        in_debt = any(self.bucket(which)[0] < 0 for which in range(BUCKETS))
        return now - self.used_at > (_DEBT_S if in_debt else _FULL_AGAIN_S) and not self.in_use

    def take(self) -> None:
        """Assigns the row to its name, and resets it if it belonged to another."""
        if not self.is_its_own:
            for which in range(BUCKETS):
                self.set_bucket(which, 0, 0)
            self._numbers[self._first] = self._hashed

    @property
    def used_at(self) -> float:
        """Time of its last use."""
        return self._levels[self._first + 1]

    @used_at.setter
    def used_at(self, now: float) -> None:
        self._levels[self._first + 1] = now

    def bucket(self, which: int) -> tuple[float, float]:
        """Level and the time it was written at; (0, 0) if never."""
        at = self._buckets + 2 * which
        return self._levels[at], self._levels[at + 1]

    def set_bucket(self, which: int, level: float, at: float) -> None:
        """Writes level and time."""
        place = self._buckets + 2 * which
        self._levels[place], self._levels[place + 1] = level, at

    @property
    def in_use(self) -> int:
        """What all processes use."""
        return sum(self._numbers[self._all])

    def use(self, change: int) -> None:
        """This process uses so many more."""
        self._numbers[self._own] += change


def _in_use(row: int) -> int:
    return row * _ROW // 8 + 2 + 2 * BUCKETS
