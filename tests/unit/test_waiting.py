from __future__ import annotations

import asyncio

import pytest

from gptoss_bento.waiting import wait_or_timeout


async def test_wait_ends_with_the_event() -> None:
    event = asyncio.Event()
    asyncio.get_running_loop().call_soon(event.set)

    assert await wait_or_timeout(event, 3600)


async def test_wait_times_out_without_the_event() -> None:
    assert not await wait_or_timeout(asyncio.Event(), 0.001)


async def test_wait_can_be_cancelled() -> None:
    task = asyncio.create_task(wait_or_timeout(asyncio.Event(), 3600))
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
