"""Streams of stored responses: what is written of them, as it comes, for any number of clients of this worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from gptoss_bento.background.store_retries import until_available
from gptoss_bento.concurrency import wait_or_timeout
from gptoss_bento.responses.event_stream import frame
from gptoss_bento.state.response import ResponseStatus, StoredResponse
from gptoss_bento.state.response_queue import ResponseQueue
from gptoss_bento.state.response_store import ResponseStore
from gptoss_bento.strict_json import loads_stored

Key = tuple[str, str]
"""The owner and the id of a response."""

# How soon a client sees what another worker has written: the longer there was nothing, the later.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 1.0
_ENDS = ("response.completed", "response.incomplete", "response.failed")


@dataclass(frozen=True)
class Events:
    """Some of a response's events, as JSON; the first has the position `first`, `attempt` is the run that made them."""

    first: int
    texts: Sequence[str]
    attempt: int = 0


@dataclass
class _News:
    """What a follower learns from this worker: that there is something new, and the newest events."""

    has_come: asyncio.Event = field(default_factory=asyncio.Event)
    newest: Events | None = None

    async def after(self, position: int, attempt: int, limit_s: float) -> list[str]:
        """Waits so long at most. Returns a run's events from this position on; none: only the store may have more."""
        await wait_or_timeout(self.has_come, limit_s)
        self.has_come.clear()
        newest, self.newest = self.newest, None
        follows = newest and newest.first == position and newest.attempt == attempt
        return list(newest.texts) if newest and follows else []


class Following:
    """The followers of one worker.

    Args:
        store: of the responses.
        queue: of those in the background.
    """

    def __init__(self, store: ResponseStore, queue: ResponseQueue) -> None:
        self._store = store
        self._queue = queue
        self._followers: dict[Key, list[_News]] = {}
        self._left: frozenset[ResponseStatus] = frozenset()  # what this worker no longer waits for

    def tell(self, key: Key, events: Events | None = None) -> None:
        """Something of this response was written."""
        for news in self._followers.get(key, ()):
            news.newest = None if news.has_come.is_set() else events  # it has missed some: the store has them
            news.has_come.set()

    def leave(self, states: Collection[ResponseStatus]) -> None:
        """Ends the streams of responses in these states, as the service stops: clients resume them elsewhere."""
        self._left = frozenset(states)
        for key in self._followers:
            self.tell(key)

    def has_left(self, status: ResponseStatus) -> bool:
        """Whether responses in this state are no longer waited for."""
        return status in self._left

    @contextmanager
    def _follower(self, key: Key) -> Iterator[_News]:
        news = _News()
        self._followers.setdefault(key, []).append(news)
        try:
            yield news
        finally:
            self._followers[key] = [each for each in self._followers[key] if each is not news]
            if not self._followers[key]:
                del self._followers[key]

    async def events(self, key: Key, start: int, *, is_here: bool) -> AsyncIterator[bytes]:
        """The events of a response from the position `start` on, as they come, until it has ended.

        The answer has started: a store that is away is waited for, until the client leaves.

        Args:
            key: of the response.
            start: a position.
            is_here: whether this worker generates it.
        """
        position, newest, pause_s = start, "", _LONGEST_PAUSE_S if is_here else _SHORTEST_PAUSE_S
        with self._follower(key) as news:
            while found := await self._read(key, position):
                response, events = found
                is_over = response.status.is_terminal
                may_leave = is_over or response.is_followed
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S) if is_here or not events else _SHORTEST_PAUSE_S
                while True:
                    if events and not may_leave and not (may_leave := await self._mark(response)):
                        break  # this run is over, or was given up: what there is now is read
                    for newest in events:
                        yield _frame(newest)
                    position += len(events)
                    if is_over or not (events := await news.after(position, response.attempt, pause_s)):
                        break
                if is_over:
                    for last in await self._missing_end(key, response, position, newest):
                        yield last
                    return

    async def _mark(self, response: StoredResponse) -> bool:
        """Events of a run are about to leave: from now on the response is not generated again. False: it is over."""
        return await until_available(partial(self._queue.mark_followed, response.row, response.attempt))

    async def _read(self, key: Key, position: int) -> tuple[StoredResponse, list[str]] | None:
        """None: there is no such response, or this worker no longer waits for it."""
        found = await until_available(partial(self._store.events, *key, position))
        return None if found and self.has_left(found[0].status) else found

    async def _missing_end(self, key: Key, response: StoredResponse, position: int, newest: str) -> list[bytes]:
        """The last event of a response whose worker could not write it.

        Args:
            key: of the response.
            response: which has ended.
            position: of the event after the newest one.
            newest: the newest event, if this client has had any.
        """
        if response.status is not ResponseStatus.FAILED or position != response.event_count:
            return []
        if position and not newest:
            found = await self._read(key, position - 1)
            newest = found[1][-1] if found and found[1] else ""
        if newest and _kind(newest) in _ENDS:
            return []
        whole = loads_stored(response.body)
        return [frame({"type": "response.failed", "sequence_number": position, "response": whole})]


def _frame(event: str) -> bytes:
    return b"event: " + _kind(event).encode() + b"\ndata: " + event.encode() + b"\n\n"


def _kind(event: str) -> str:
    return str(loads_stored(event)["type"])
