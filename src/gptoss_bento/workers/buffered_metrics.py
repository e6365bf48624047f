"""prometheus_client's files, through which any worker can add up the counts of all.

It writes every count into its file at once, vLLM's for each token included: a fifth of an API server's CPU time. Here
counts stay in the process, and what has changed is written twice a second.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

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
    own = {name: getattr(kind, name) for name in ("inc", "set")}
    write = _delay(kind, inspect.getclosurevars(kind.inc).nonlocals["lock"])
    writing = asyncio.create_task(_every(_WRITE_S, write))
    try:
        yield
    finally:
        writing.cancel()
        for name, method in own.items():
            setattr(kind, name, method)
        write()


def _delay(kind: Any, lock: AbstractContextManager[Any]) -> Callable[[], None]:
    """Gives what writes. Without the look for a fork at each count: nothing forks here, workers are new programs."""
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

    kind.inc, kind.set = inc, set_to
    return write


async def _every(seconds: float, act: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            act()
        except Exception:
            logger.exception("writing metrics")
