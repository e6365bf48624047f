"""Followers of a response, over a store that counts what they read."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from gptoss_bento.responses.following import Events, Following
from gptoss_bento.state.response import ResponseStatus, StoredResponse
from gptoss_bento.state.response_store import ResponseStore
from tests.waiting import HANG_S

KEY = ("alice", "resp_1")


class FakeStore:
    """The events of one response."""

    def __init__(self) -> None:
        self.texts = [text(0)]
        self.status = ResponseStatus.IN_PROGRESS
        self.reads = 0

    async def events(self, owner: str, response_id: str, start: int) -> tuple[StoredResponse, list[str]]:
        assert (owner, response_id) == KEY
        self.reads += 1
        return StoredResponse(response_id, self.status, "{}", len(self.texts), True), self.texts[start:]


def text(number: int, kind: str = "response.x") -> str:
    return f'{{"type":"{kind}","sequence_number":{number}}}'


def frame(number: int, kind: str = "response.x") -> bytes:
    return f"event: {kind}\ndata: {text(number, kind)}\n\n".encode()


async def test_events_of_this_worker_come_without_the_store() -> None:
    store = FakeStore()
    following = Following(cast("ResponseStore", store))
    stream = following.events(KEY, 0, is_here=True)
    async with asyncio.timeout(HANG_S):
        assert await anext(stream) == frame(0)
        for number in range(1, 5):
            store.texts.append(text(number))
            following.tell(KEY, Events(number, [text(number)]))
            assert await anext(stream) == frame(number)
        assert store.reads == 1

        store.texts.append(text(5, "response.completed"))
        store.status = ResponseStatus.COMPLETED
        following.tell(KEY)
        assert [each async for each in stream] == [frame(5, "response.completed")]
    assert store.reads == 2
    assert following._followers == {}


async def test_follower_that_missed_events_reads_them() -> None:
    store = FakeStore()
    following = Following(cast("ResponseStore", store))
    stream: Any = following.events(KEY, 0, is_here=True)
    async with asyncio.timeout(HANG_S):
        await anext(stream)
        for number in (1, 2, 3):
            store.texts.append(text(number))
            following.tell(KEY, Events(number, [text(number)]))
        assert [await anext(stream) for _ in range(3)] == [frame(1), frame(2), frame(3)]
        await stream.aclose()
    assert store.reads == 2
    assert following._followers == {}


async def test_events_of_another_worker_are_read_from_the_store() -> None:
    store = FakeStore()
    stream = Following(cast("ResponseStore", store)).events(KEY, 0, is_here=False)
    async with asyncio.timeout(HANG_S):
        assert await anext(stream) == frame(0)
        store.texts.append(text(1))
        assert await anext(stream) == frame(1)
