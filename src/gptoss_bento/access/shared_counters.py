"""Numbers that all worker processes of one service see: a file in memory, one row a name.

Rates are kept once a row; what is in use is kept once a row and process, so that only its own process writes it and
the rest of a process that died does not count. Names come and go with the keys, so when all rows are taken, one that
tells nothing any more is given to the next.
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
STAYING = 16
"""Rows beside those, for names that stay."""

BUCKETS = 2
"""Token buckets a row: requests and tokens."""

_HEADER = 8 * PROCESSES  # their process ids
_ROW = 8 * (2 + 2 * BUCKETS + PROCESSES)
"""The name's hash, when it was asked for, level and time of each bucket, what each process uses."""

_FULL_AGAIN_S = 60.0  # by then every bucket is, unless it is in debt
_DEBT_S = 3600.0  # no client is told to wait longer
_TRIES = 100  # for the lock, some microseconds in all
_ALONE = nullcontext()


class CountersFullError(Exception):
    """More names are in use than there are rows."""


class SharedCounters:
    """Rows by name. Whoever opens the same file sees the same rows.

    Args:
        path: the file; None keeps the numbers in this process alone.
        clock: seconds, the same in all processes.
    """

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        size = _HEADER + (ROWS + STAYING) * _ROW
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
                for row in range(ROWS + STAYING):
                    self._numbers[_in_use(row) + place] = 0
                return place
        raise RuntimeError(f"more than {PROCESSES} worker processes")

    def row(self, name: str, *, stays: bool = False) -> Row:
        """The row of this name, made when it is first asked for. It is another's once it has told nothing for a while,
        so it is asked for each time, within `locked`; only what it has in use can be given back later.

        Args:
            name: whose row it is.
            stays: it is one of few, whose rows are never given away.

        Raises:
            CountersFullError: there is none.
        """
        if (row := self._rows.get(name)) is None or not row.is_its_own:
            row = self._rows[name] = self._find(name, stays)
        row.asked_at = self._clock()
        return row

    def _find(self, name: str, stays: bool) -> Row:
        if len(self._rows) >= ROWS + STAYING:
            self._rows.clear()
        hashed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True) or 1
        rows = range(ROWS, ROWS + STAYING) if stays else range(ROWS)
        row = self._place_of(hashed, rows)
        if row is None and not stays:
            row = self._useless_row(self._clock())
        if row is None:
            raise CountersFullError(f"more than {len(rows)} names are in use")
        found = self._row(row, hashed)
        found.take()
        return found

    def _place_of(self, hashed: int, rows: range) -> int | None:
        """Where this name stands, or may: rows that were taken once are never empty again."""
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
        """Whether it tells what an empty one does: nothing is in use, and its buckets are full again."""
        in_debt = any(self.bucket(which)[0] < 0 for which in range(BUCKETS))
        return now - self.asked_at > (_DEBT_S if in_debt else _FULL_AGAIN_S) and not self.in_use

    def take(self) -> None:
        """From now on it belongs to its name; if it did not before, it is as good as new."""
        if not self.is_its_own:
            for which in range(BUCKETS):
                self.set_bucket(which, 0, 0)
            self._numbers[self._first] = self._hashed

    @property
    def asked_at(self) -> float:
        """When it was last asked for."""
        return self._levels[self._first + 1]

    @asked_at.setter
    def asked_at(self, now: float) -> None:
        self._levels[self._first + 1] = now

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
    return row * _ROW // 8 + 2 + 2 * BUCKETS
