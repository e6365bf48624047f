"""Tokens of one request, also beside other requests."""

from __future__ import annotations

import asyncio

from gptoss_bento.engine.usage import Meter, current_meter


async def generate(tokens: list[int]) -> None:
    if meter := current_meter():
        meter.add(lambda: tokens[0])


async def test_usage_counts_generations_also_of_tasks_and_after_their_end() -> None:
    first, second = [0], [5]
    with Meter() as meter:
        await generate(first)
        await asyncio.create_task(generate(second))
    await generate([1000])
    first[0] = 7

    assert meter.tokens == 12
    assert current_meter() is None


async def test_requests_beside_each_other_do_not_mix() -> None:
    async def request(tokens: int) -> int:
        with Meter() as meter:
            await asyncio.sleep(0)
            await generate([tokens])
            return meter.tokens

    assert await asyncio.gather(*(request(n) for n in range(5))) == list(range(5))
