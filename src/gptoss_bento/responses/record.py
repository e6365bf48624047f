"""One response in the store, from its request to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from gptoss_bento.background.store_retries import until_available
from gptoss_bento.background.tasks import WorkerTasks
from gptoss_bento.state.response import ResponseStatus, StoredItem
from gptoss_bento.state.response_store import ResponseStore
from gptoss_bento.strict_json import dumps

logger = logging.getLogger(__name__)

MISTAKE = "The server made a mistake."
"""Why a response failed of which only the log says more."""

_PATIENCE_S = 5.0
"""An answer waits so long for the store; then its client gets it, and what there is to store is stored later."""


class Record:
    """A response that is being generated. Its worker alone ends it, but for a cancellation.

    Args:
        store: of the responses.
        tasks: of this worker: what is written at the end is written also if the client has left.
        row: of the response.
        attempt: of its run in the background.
    """

    def __init__(self, store: ResponseStore, tasks: WorkerTasks, row: int, attempt: int = 0) -> None:
        self._store = store
        self._tasks = tasks
        self.row = row
        self.attempt = attempt
        self.is_ended = False

    async def finish(self, final: Mapping[str, Any], events: Sequence[str] = ()) -> None:
        """Stores the final object, whatever its state is. Waits for the store, but not for long.

        Args:
            final: the whole object.
            events: the last ones of its stream, if those are stored.
        """
        if self.is_ended:
            return
        self.is_ended = True
        await self._patiently(self._finished(final, events))

    async def _finished(self, final: Mapping[str, Any], events: Sequence[str]) -> None:
        try:
            await self._stored(final, events)
        except Exception:
            logger.exception("the end of a response was not stored")
            await until_available(lambda: self._store.fail(self.row, MISTAKE, self.attempt))

    async def _stored(self, final: Mapping[str, Any], events: Sequence[str]) -> None:
        text = dumps({name: value for name, value in final.items() if name != "output"})
        items = [StoredItem(str(item.get("id", "")), dumps(item)) for item in final["output"]]
        status = ResponseStatus(final["status"])
        await until_available(lambda: self._store.finish(self.row, status, text, items, events, self.attempt))

    async def discard(self) -> None:
        """There is no response after all: vLLM has refused the request."""
        if not self.is_ended:
            self.is_ended = True
            await self._patiently(until_available(lambda: self._store.discard(self.row)))

    async def _patiently(self, work: Coroutine[Any, Any, None]) -> None:
        """Waits for a write, but not for long; it goes on without its client."""
        writing = self._tasks.spawn(work)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(writing), _PATIENCE_S)
