"""Followers of a response, over a store that counts what they read."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from gptoss_bento.responses.following import Events, Following
from gptoss_bento.state.response import ResponseStatus, StoredResponse
from gptoss_bento.state.response_queue import ResponseQueue
from gptoss_bento.state.response_store import ResponseStore
from tests.waiting import HANG_S, until

KEY = ("alice", "resp_1")


class FakeStore:
    """The events of one response."""

    def __init__(self) -> None:
        self.texts = [text(0)]
        self.status = ResponseStatus.IN_PROGRESS
        self.reads = 0
        self.attempt = 0
        self.marks: list[int] = []
        self.is_given_up = False

    async def events(self, owner: str, response_id: str, start: int) -> tuple[StoredResponse, list[str]]:
        assert (owner, response_id) == KEY
        self.reads += 1
        marked = self.attempt in self.marks
        found = StoredResponse(
            response_id,
            self.status,
            "{}",
            len(self.texts),
            keeps_events=True,
            attempt=self.attempt,
            is_followed=marked,
        )
        return found, self.texts[start:]

    async def mark_followed(self, row: int, attempt: int) -> bool:
        """As ResponseQueue does."""
        assert row == 0
        if self.is_given_up:  # its worker ended: another generates it again
            self.is_given_up, self.attempt, self.texts = False, self.attempt + 2, [text(0, "response.again")]
        self.marks += [attempt] if attempt == self.attempt else []
        return attempt == self.attempt


def following_of(store: FakeStore) -> Following:
    return Following(cast("ResponseStore", store), cast("ResponseQueue", store))


def text(number: int, kind: str = "response.x") -> str:
    return f'{{"type":"{kind}","sequence_number":{number}}}'


def frame(number: int, kind: str = "response.x") -> bytes:
    return f"event: {kind}\ndata: {text(number, kind)}\n\n".encode()


async def test_events_of_this_worker_come_without_the_store() -> None:
    store = FakeStore()
    following = following_of(store)
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
    following = following_of(store)
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
    stream = following_of(store).events(KEY, 0, is_here=False)
    async with asyncio.timeout(HANG_S):
        assert await anext(stream) == frame(0)
        store.texts.append(text(1))
        assert await anext(stream) == frame(1)


async def test_run_is_marked_once_before_its_first_event_leaves() -> None:
    store = FakeStore()
    stream = following_of(store).events(KEY, 0, is_here=False)
    async with asyncio.timeout(HANG_S):
        assert await anext(stream) == frame(0)
        assert store.marks == [0]
        store.texts.append(text(1))
        assert await anext(stream) == frame(1)
    assert store.marks == [0]


async def test_events_of_a_run_that_was_given_up_do_not_leave() -> None:
    store = FakeStore()
    store.is_given_up = True
    stream = following_of(store).events(KEY, 0, is_here=False)
    async with asyncio.timeout(HANG_S):
        assert await anext(stream) == frame(0, "response.again")
    assert store.marks == [2]


async def test_events_of_an_earlier_run_in_this_worker_are_left_out() -> None:
    store = FakeStore()
    store.texts, store.attempt = [], 3
    following = following_of(store)
    stream = following.events(KEY, 0, is_here=True)
    reading = asyncio.ensure_future(anext(stream))
    async with asyncio.timeout(HANG_S):
        await until(lambda: store.reads)
        following.tell(KEY, Events(0, [text(0, "response.earlier")], 1))
        store.texts.append(text(0))
        assert await reading == frame(0)


async def test_end_of_a_response_is_no_mark() -> None:
    store = FakeStore()
    store.status = ResponseStatus.COMPLETED
    assert [each async for each in following_of(store).events(KEY, 0, is_here=False)] == [frame(0)]
    assert store.marks == []
