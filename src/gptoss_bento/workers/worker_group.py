"""The group of worker processes of one service, which answer HTTP over one engine, and their shared status.

The first worker owns the engine, all of them attach to it. They share one file in memory: each writes into its
own slot alone, so that nothing needs a lock, and the last state of a killed worker stays there.
"""

from __future__ import annotations

import asyncio
import mmap
import shutil
from array import array
from collections.abc import Awaitable, Callable
from enum import IntEnum
from pathlib import Path
from typing import TypeVar

import psutil

from gptoss_bento.errors import ConfigurationError, WorkerDiedError

_Result = TypeVar("_Result")

_POLL_INTERVAL_S = 0.25
_LONGEST_PATH = 90  # of the folder; Linux allows 107 for a socket in it, and ZMQ and we need some for its name
_SLOT = 8  # numbers of 8 bytes: each slot has a separate cache line
_PID, _STAGE, _CONNECTIONS, _JOBS, _FAILED, _ENGINE_CRASHED = range(6)


class Stage(IntEnum):
    """How far a worker is."""

    ABSENT = 0  # not started yet
    STARTING = 1
    PREPARED = 2  # weights and vocabulary are on disk
    READY = 3  # attached to the engine
    STOPPING = 4  # takes nothing new
    LEFT = 5  # ended as it should


class WorkerGroup:
    """All workers, as one of them sees them.

    Args:
        index: which worker this process is, from 0.
        count: how many there are.
        folder: where their shared file and their sockets are; None: there are no others.
    """

    def __init__(self, index: int = 0, count: int = 1, folder: Path | None = None) -> None:
        self.index = index
        self.count = count
        self._folder = folder
        self._status = _open(folder, count) if folder else memoryview(array("q", bytes(8 * _SLOT * count)))

    @property
    def is_alone(self) -> bool:
        return self.count == 1

    @property
    def is_first(self) -> bool:
        """Whether this worker owns the engine."""
        return self.index == 0

    def share(self, limit: int) -> int:
        """This worker's share of a limit for all workers together."""
        return limit // self.count + (self.index < limit % self.count)

    def addresses(self, kind: str) -> list[str]:
        """ZMQ's addresses for each worker's traffic with the engine, `input` or `output`: sockets in the folder."""
        return [f"ipc://{self._folder}/{kind}-{index}" for index in range(self.count)]

    def own_socket(self, kind: str) -> Path | None:
        """The socket at which the others reach this worker."""
        return self._folder and self._folder / f"{kind}-{self.index}"

    def other_sockets(self, kind: str) -> list[Path]:
        """The sockets of the other workers."""
        others = (index for index in range(self.count) if index != self.index)
        return [self._folder / f"{kind}-{index}" for index in others] if self._folder else []

    # the shared file

    def enter(self, pid: int) -> None:
        """This worker starts."""
        self._set(_PID, pid)
        self._set(_STAGE, Stage.STARTING)

    def reach(self, stage: Stage) -> None:
        """Shows the others how far this worker is; a state never goes back."""
        self._set(_STAGE, max(stage, self._get(self.index, _STAGE)))

    def fail(self) -> None:
        """This worker has noted why the service ends. The note stays visible when it has left."""
        self._set(_FAILED, 1)
        self.reach(Stage.STOPPING)

    def lose_engine(self) -> None:
        """The engine of this worker crashed. The others have no other source of this."""
        self._set(_ENGINE_CRASHED, 1)

    @property
    def has_lost_engine(self) -> bool:
        """Whether the engine of all workers crashed."""
        return bool(self._get(0, _ENGINE_CRASHED))

    @property
    def all_ready(self) -> bool:
        return all(self._get(index, _STAGE) == Stage.READY for index in range(self.count))

    async def prepared(self) -> None:
        """Waits until the first worker has fetched what all of them need."""
        while self._get(0, _STAGE) < Stage.PREPARED:  # noqa: ASYNC110  # another process says so
            await asyncio.sleep(_POLL_INTERVAL_S)

    async def first_ready(self) -> None:
        """Waits until the first worker serves; the first itself does not wait."""
        while not self.is_first and self._get(0, _STAGE) < Stage.READY:  # noqa: ASYNC110  # another process says so
            await asyncio.sleep(_POLL_INTERVAL_S)

    def report_connections(self, number: int) -> None:
        """How many clients this worker serves now."""
        self._set(_CONNECTIONS, number)

    @property
    def is_least_loaded(self) -> bool:
        """Whether no other worker that accepts connections has fewer."""
        others = (index for index in range(self.count) if self._get(index, _STAGE) in _SERVING)
        return self._get(self.index, _CONNECTIONS) <= min((self._get(i, _CONNECTIONS) for i in others), default=0)

    def report_jobs(self, number: int) -> None:
        """How many jobs this worker runs now."""
        self._set(_JOBS, number)

    @property
    def jobs(self) -> int:
        """How many jobs all workers run now."""
        return sum(self._get(index, _JOBS) for index in range(self.count))

    # the failure of another

    def has(self, pid: int) -> bool:
        """Whether that process is, or was, one of these workers."""
        return any(self._get(index, _PID) == pid for index in range(self.count))

    @property
    def is_ending(self) -> bool:
        """Whether a worker is ending. What it requeues must not be started by another one that is about to end."""
        return any(self._get(index, _STAGE) >= Stage.STOPPING for index in range(self.count))

    def trouble(self) -> str | None:
        """Why the service must end, if another worker has died or failed."""
        for index in range(self.count):
            stage = self._get(index, _STAGE)
            if index == self.index:
                continue
            if self._get(index, _FAILED):
                return f"API worker {index + 1} cannot go on."
            if stage in _SERVING and not _is_running(self._get(index, _PID)):
                return f"API worker {index + 1} died without a message (killed, or out of memory)."
        return None

    async def together(self, work: Awaitable[_Result], on_trouble: Callable[[WorkerDiedError], None]) -> _Result:
        """Does the work, and cancels it when another worker dies or fails.

        A single one cannot come back: the engine says only once that it is ready.

        Args:
            work: is cancelled and ends gracefully.
            on_trouble: is called immediately, before the work ends.

        Raises:
            WorkerDiedError: another worker died or failed first.
        """
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                if trouble := self.trouble():
                    error = WorkerDiedError(trouble)
                    on_trouble(error)
                    raise error
                await asyncio.wait((task,), timeout=None if self.is_alone else _POLL_INTERVAL_S)
            return task.result()
        finally:
            task.cancel()
            await asyncio.wait((task,))

    async def others_left(self, meanwhile: Callable[[], None]) -> None:
        """Waits until this worker is the last, for as long as the others need to end what they do.

        Args:
            meanwhile: is called again and again.
        """
        while any(self._is_there(index) for index in range(self.count) if index != self.index):
            meanwhile()
            await asyncio.sleep(_POLL_INTERVAL_S)

    def leave(self) -> None:
        """This worker has ended as it should; the last one that has removes what they shared."""
        self.reach(Stage.LEFT)
        if self._folder and not any(self._is_there(index) for index in range(self.count)):
            shutil.rmtree(self._folder, ignore_errors=True)

    def _is_there(self, index: int) -> bool:
        return self._get(index, _STAGE) not in (Stage.ABSENT, Stage.LEFT) and _is_running(self._get(index, _PID))

    def _get(self, index: int, field: int) -> int:
        return int(self._status[_SLOT * index + field])

    def _set(self, field: int, value: int) -> None:
        self._status[_SLOT * self.index + field] = value


_SERVING = (Stage.STARTING, Stage.PREPARED, Stage.READY)


def make_shared_folder(folder: Path, count: int) -> None:
    """Makes what the workers of a service share, before they start. Only the service's user may read it.

    Raises:
        ConfigurationError: the path is too long for the names of sockets.
    """
    if len(str(folder)) > _LONGEST_PATH:
        raise ConfigurationError(
            f"TMPDIR is {str(folder.parent)!r}, too long for the sockets of several API workers. "
            "Name a shorter folder, or set API_WORKERS=1."
        )
    folder.mkdir(mode=0o700)
    _status_file(folder).write_bytes(bytes(8 * _SLOT * count))


def _status_file(folder: Path) -> Path:
    return folder / "status"


def _open(folder: Path, count: int) -> memoryview:
    with _status_file(folder).open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 8 * _SLOT * count)).cast("q")


def _is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
