"""A body that is read before anything is done with it."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from gptoss_bento.http import body
from gptoss_bento.http.body import (
    Arrival,
    BodyMemoryExhaustedError,
    BodyTooLargeError,
    BodyTooSlowError,
    read_body,
    with_body,
)
from gptoss_bento.http.body_memory import BodyMemory


def arriving(*pieces: bytes, end: bool = True) -> Receive:
    """Pieces as uvicorn gives them; without an end, nothing comes any more."""
    left = list(pieces)

    async def receive() -> Message:
        if not left:
            if end:
                return {"type": "http.disconnect"}
            await asyncio.Event().wait()
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left) or not end}

    return receive


@pytest.mark.parametrize("pieces", [[b""], [b"one"], [b"", b"one"], [b"o", b"", b"ne"], [b"one", b""]])
async def test_body_is_put_together(pieces: list[bytes]) -> None:
    assert await read_body(arriving(*pieces), 3, 1) == b"".join(pieces)


@pytest.mark.parametrize("pieces", [[b"four"], [b"thr", b"ee"], [b"a", b"b", b"c", b"d"]])
async def test_body_that_is_too_large_is_counted_as_it_comes(pieces: list[bytes]) -> None:
    with pytest.raises(BodyTooLargeError, match="at most 3 bytes") as refused:
        await read_body(arriving(*pieces), 3, 1)
    assert refused.value.headers is None  # the connection can be used again


async def test_body_without_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "DISCARDED_BYTES", 1000)
    got = 0

    async def receive() -> Message:
        nonlocal got
        got += 100
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    with pytest.raises(BodyTooLargeError) as refused:
        await read_body(receive, 10, 1)
    assert got == 1100
    assert refused.value.headers == {"Connection": "close"}


async def test_body_that_never_ends_times_out() -> None:
    with pytest.raises(BodyTooSlowError, match=r"within 0.01 s"):
        await read_body(arriving(b"a", end=False), 3, 0.01)


def hold_none(monkeypatch: pytest.MonkeyPatch, but_for: float = 8) -> BodyMemory:
    """But for so many bodies of the largest."""
    held = BodyMemory(0, but_for)
    monkeypatch.setattr(body, "bodies", held)
    return held


async def test_body_that_is_oldest_is_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    held = hold_none(monkeypatch)
    slow = [asyncio.create_task(read_body(arriving(b"a" * 10, end=False), 10, 60)) for _ in range(8)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in slow)

    assert await read_body(arriving(b"quick", b"quick"), 10, 60) == b"quickquick"
    assert await read_body(arriving(b"quick", b"quick"), 10, 60) == b"quickquick"
    await asyncio.sleep(0.01)

    gone = [task for task in slow if task.done()]
    assert gone == slow[:1]
    refusal = gone[0].exception()
    assert isinstance(refusal, BodyMemoryExhaustedError)
    assert refusal.headers == {"Retry-After": "5", "Connection": "close"}
    for task in slow:
        task.cancel()
    await asyncio.gather(*slow, return_exceptions=True)
    assert held.all == 0


async def test_body_that_was_evicted_but_is_complete_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    held = hold_none(monkeypatch, 0.5)
    assert await read_body(arriving(b"abc", b"def", b"gh", b"i"), 10, 60) == b"abcdefghi"
    assert held.all == 0


async def test_body_that_is_small_evicts_no_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    hold_none(monkeypatch)
    large = asyncio.create_task(read_body(arriving(b"a" * 50, end=False), 50, 60))
    await asyncio.sleep(0.01)
    assert await read_body(arriving(b"b", b"c"), 5, 60) == b"bc"
    await asyncio.sleep(0.01)
    assert not large.done()
    large.cancel()
    await asyncio.gather(large, return_exceptions=True)


async def test_body_that_is_discarded_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    hold_none(monkeypatch)
    with pytest.raises(BodyTooLargeError):
        await read_body(arriving(*[b"a" * 10] * 50), 10, 60)


async def test_body_that_has_arrived_is_read_without_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "timeout", None)
    arrival = Arrival()
    arrival.is_complete = True

    assert await read_body(arriving(b"all"), 3, 60, arrival) == b"all"
    with pytest.raises(BodyTooLargeError):
        await read_body(arriving(b"more"), 3, 60, arrival)


async def test_disconnect_is_noticed() -> None:
    with pytest.raises(ClientDisconnect):
        await read_body(arriving(), 3, 1)


async def test_body_is_passed_on_and_then_the_disconnect() -> None:
    receive = with_body(b"one", arriving())
    assert await receive() == {"type": "http.request", "body": b"one", "more_body": False}
    assert await receive() == {"type": "http.disconnect"}
