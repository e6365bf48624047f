"""prometheus_client's files, through which any worker can add up the counts of all.

The library writes each count into its file immediately, vLLM's for each token included: a fifth of an API server's CPU
time. Here counts stay in the process, and what has changed is written twice a second.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

from gptoss_bento.workers import patches

logger = logging.getLogger(__name__)

_WRITE_S = 0.5


@asynccontextmanager
async def written_later() -> AsyncIterator[None]:
    """Until the end of the block. No effect where there are no files (prometheus_client 0.26, values.py)."""
    from prometheus_client import values

    kind: Any = values.ValueClass
    if not kind._multiprocess:
        yield
        return
    lock = inspect.getclosurevars(kind.inc).nonlocals["lock"]
    with _delayed(lock) as write:
        writing = asyncio.create_task(_every(_WRITE_S, write))
        try:
            yield
        finally:
            writing.cancel()


@contextmanager
def _delayed(lock: AbstractContextManager[Any]) -> Iterator[Callable[[], None]]:
    """Returns the function that writes, and calls it once more at the end.

    No count checks for a fork, as the library's do: workers are new programs.
    """
    changed: set[Any] = set()

    def inc(value: Any, amount: float) -> None:
        with lock:
            value._value += amount
            value._timestamp = 0.0
            changed.add(value)

    def set_to(value: Any, number: float, timestamp: float | None = None) -> None:
        with lock:
            value._value = number
            value._timestamp = timestamp or 0.0
            changed.add(value)

    def write() -> None:
        with lock:
            for value in changed:
                value._file.write_value(value._key, value._value, value._timestamp)
            changed.clear()

    try:
        with patches.INCREMENT.replaced(inc), patches.SET.replaced(set_to):
            yield write
    finally:
        write()


async def _every(seconds: float, act: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            act()
        except Exception:
            logger.exception("writing metrics")
