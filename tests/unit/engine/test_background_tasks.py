"""Tasks that outlive the requests that made them."""

from __future__ import annotations

import asyncio

from gptoss_bento.engine.background_tasks import LeftBehind, after, leave_behind


async def test_background_tasks_are_separate_for_each_request() -> None:
    async def request(name: str) -> list[str]:
        with LeftBehind() as own:
            leave_behind(asyncio.create_task(asyncio.sleep(0, name)))
            await asyncio.sleep(0)
        return [await task for task in own]

    assert list(await asyncio.gather(request("a"), request("b"))) == [["a"], ["b"]]
    of_no_request = asyncio.create_task(asyncio.sleep(0, "c"))
    leave_behind(of_no_request)
    assert await of_no_request == "c"


async def test_background_tasks_are_all_awaited() -> None:
    done: list[str] = []
    after([], lambda: done.append("none"))
    assert done == ["none"]

    first, second = asyncio.create_task(asyncio.sleep(0)), asyncio.create_task(asyncio.Event().wait())
    after([first, second], lambda: done.append("both"))
    await first
    await asyncio.sleep(0)
    assert done == ["none"]
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert done == ["none", "both"]
