"""What asyncio lacks here: threads that do not hold up the end of the process, bounded waits, errors of groups."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_daemon_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like asyncio.to_thread, whose threads Python joins at exit: a model that loads would delay it by a minute."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(set_outcome: Callable[[Any], None], outcome: Any) -> None:
        if not future.done():
            set_outcome(outcome)

    def work() -> None:
        try:
            outcome: Any = function(*args, **kwargs)
            set_outcome: Callable[[Any], None] = future.set_result
        except SystemExit as error:  # asyncio takes it for the end of the whole program
            outcome, set_outcome = RuntimeError(f"exited with {error.code}"), future.set_exception
        except BaseException as error:
            outcome, set_outcome = error, future.set_exception
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, set_outcome, outcome)

    threading.Thread(target=work, name=getattr(function, "__name__", None), daemon=True).start()
    return await future


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Awaits work that must not be interrupted: a cancellation takes effect when it has ended."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


async def wait_or_timeout(event: asyncio.Event, limit_s: float) -> bool:
    """Waits for an event, at most so many seconds. Returns whether it is set."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), limit_s)
    return event.is_set()


def first_of(error: BaseException) -> BaseException:
    """The first of the errors that a group of tasks reports together."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
