"""The row of a new response: it does not stay when the call that makes it ends before the database has answered.

A cancellation (the client's time is over, a job is stopped) ends the wait for a write, and not the write.
"""

from __future__ import annotations

import asyncio
from functools import partial

from gptoss_bento.background.store_retries import until_available
from gptoss_bento.background.tasks import WorkerTasks
from gptoss_bento.state.database import StoreUnavailableError
from gptoss_bento.state.response import NewResponse
from gptoss_bento.state.response_store import ResponseStore


async def stored_row(store: ResponseStore, tasks: WorkerTasks, new: NewResponse, ttl_ms: int) -> int:
    """Stores a new response. Returns its row; if there is none to return, there is no such response later either.

    Args:
        store: of the responses.
        tasks: of this worker: the write goes on in them, also if the caller is cancelled.
        new: the response.
        ttl_ms: how long it is kept.

    Raises:
        StoreUnavailableError: the database does not answer; and what else `ResponseStore.create` raises.
    """
    writing = tasks.spawn(store.create(new, ttl_ms))
    try:
        return await asyncio.shield(writing)
    except StoreUnavailableError:
        tasks.spawn(until_available(partial(store.forget, new)))
        raise
    except asyncio.CancelledError:
        tasks.spawn(_undone(store, writing, new))
        raise


async def _undone(store: ResponseStore, writing: asyncio.Task[int], new: NewResponse) -> None:
    """Waits for the write and takes it back."""
    await asyncio.wait([writing])
    if writing.cancelled():  # the worker ends, and its lease with it
        return
    error = writing.exception()
    if error is None:
        await until_available(partial(store.discard, writing.result()))
    elif isinstance(error, StoreUnavailableError):
        await until_available(partial(store.forget, new))
