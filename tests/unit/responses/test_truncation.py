"""Conversations that are too long, and which turns of them the model gets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gptoss_bento.access.admission import Admission
from gptoss_bento.access.admission_middleware import AdmissionMiddleware
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.responses.truncation import fitted, room_for_answer, surely_fits
from tests.fakes import asgi_client
from tests.unit.responses.conftest import Api
from tests.unit.responses.test_routes import URL, created


def said(role: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": text}


def conversation(turns: int) -> list[dict[str, Any]]:
    return [each for n in range(turns) for each in (said("user", f"question {n}"), said("assistant", f"answer {n}"))]


async def lengths(items: Sequence[Any]) -> int | None:
    """As if each item were one token."""
    return len(items)


def texts(items: Sequence[Any]) -> list[str]:
    return [item.get("content") or item["type"] for item in items]


@pytest.mark.parametrize(("most", "kept"), [(8, [0, 1, 2, 3]), (7, [0, 2, 3]), (6, [0, 2, 3]), (4, [0, 3]), (2, [3])])
async def test_turns_of_the_middle_go_first(most: int, kept: list[int]) -> None:
    items = conversation(4)

    assert await fitted(items, most, lengths) == [item for n in kept for item in items[2 * n : 2 * n + 2]]


async def test_conversation_whose_last_turn_is_too_long_stays_for_the_engine_to_refuse() -> None:
    for items in (conversation(3), conversation(1), []):
        assert await fitted(items, 1, lengths) == items


async def test_instructions_stay_and_turns_go_as_a_whole() -> None:
    call = {"type": "function_call", "call_id": "1"}
    result = {"type": "function_call_output", "call_id": "1"}
    items = [said("developer", "a"), *conversation(1), said("user", "b"), said("user", "c"), call, result]
    items += [said("developer", "d"), said("assistant", "e"), said("user", "f")]

    assert texts(await fitted(items, 6, lengths)) == ["a", "question 0", "answer 0", "d", "f"]
    assert texts(await fitted(items, 4, lengths)) == ["a", "d", "f"]


async def test_approved_call_that_was_left_out_is_not_made_again() -> None:
    asked = {"type": "mcp_approval_request", "id": "mcpr_1"}
    answer = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}
    call = {"type": "mcp_call", "approval_request_id": "mcpr_1"}
    items = [said("user", "a"), asked, answer, said("user", "b"), call, said("assistant", "c"), said("user", "d")]

    assert await fitted(items, 7, lengths) == items
    assert texts(await fitted(items, 4, lengths)) == ["a", "mcp_approval_request", "d"]
    items = [said("user", "a"), asked, said("user", "b"), answer]
    assert texts(await fitted([*conversation(1), *items], 3, lengths)) == ["question 0", "answer 0", "b"]
    assert texts(await fitted(items, 4, lengths)) == ["a", "mcp_approval_request", "b", "mcp_approval_response"]


async def test_prompts_are_counted_a_few_times_alone() -> None:
    counted: list[int] = []

    async def count(items: Sequence[Any]) -> int | None:
        counted.append(len(items))
        return len(items) if len(items) < 900 else None

    assert len(await fitted(conversation(1000), 200, count)) == 200
    assert len(counted) < 15


async def test_prompt_that_is_far_too_long_is_not_counted() -> None:
    counted: list[int] = []

    async def by_four_characters(items: Sequence[Any]) -> int:
        counted.append(sum(len(item["content"]) for item in items) // 4)
        return counted[-1]

    long = [said(role, 1000 * "word ") for _ in range(200) for role in ("user", "assistant")]
    kept = await fitted(long, 30_000, by_four_characters)
    assert (kept[:2], kept[2:]) == (long[:2], long[-2 * (len(kept) // 2 - 1) :])
    assert len(kept) == 2 * (30_000 // 2500)
    assert max(counted) <= 4 * 30_000 + 2500
    assert len(counted) < 10


async def test_turns_that_instruct_or_hold_what_has_no_tokens_go_by_their_count_alone() -> None:
    reasoning = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "x" * 10_000}]}
    image = {"role": "user", "content": [{"type": "input_image", "image_url": "x" * 10_000}, {"type": "input_text"}]}
    items = [*conversation(2), reasoning, image, said("assistant", "y"), *conversation(1)]
    assert await fitted(items, 9, lengths) == items

    items = [*conversation(1), said("user", "q"), said("developer", "x" * 10_000), *conversation(2)]
    assert await fitted(items, 3, lengths) == [said("developer", "x" * 10_000), *conversation(2)[-2:]]


async def test_other_requests_have_a_turn_between_two_counts() -> None:
    seen: list[int] = []
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def count(items: Sequence[Any]) -> int:
        seen.append(turns)
        return len(items)

    task = asyncio.create_task(others())
    await fitted(conversation(100), 20, count)
    task.cancel()
    assert len(seen) == len(set(seen)) > 3


def test_room_for_an_answer_is_what_was_asked_within_half_of_the_context() -> None:
    assert room_for_answer(4096, 100) == 100
    assert room_for_answer(4096, 4096) == 2048
    assert room_for_answer(4096, None) == 1024
    assert room_for_answer(131072, None) == 4096


def test_short_request_is_not_counted() -> None:
    assert surely_fits(b"x" * 100, 1000)
    assert not surely_fits(b"x" * 900, 1000)


@pytest.mark.parametrize("store", [False, True])
async def test_conversation_that_is_too_long_is_truncated_for_a_client_that_lets_it(
    api: Api, monkeypatch: pytest.MonkeyPatch, store: bool
) -> None:
    monkeypatch.setattr(api.responses, "_context_tokens", 12)  # the fake counts items
    written: dict[str, Any] = {"input": conversation(8), "store": store, "max_output_tokens": 6}
    made = await created(api, **written, truncation="auto")

    assert len(api.vllm.bodies[-1]["input"]) == 6
    assert api.vllm.bodies[-1]["max_output_tokens"] == 6
    assert "max_output_tokens" not in api.vllm.bodies[0]
    assert (made["truncation"], made["status"]) == ("auto", "completed")
    await created(api, **written)
    assert len(api.vllm.bodies[-1]["input"]) == 16
    if store:
        listed = (await api.client.get(f"{URL}/{made['id']}/input_items?limit=100")).json()
        assert len(listed["data"]) == 16


async def test_conversation_that_is_too_long_is_counted_as_it_is_truncated(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.responses, "_context_tokens", 12)
    guarded = AdmissionMiddleware(lambda: api.app, Admission(), ServerSettings()).app()
    assert guarded
    for truncation, tokens in (("auto", 8), ("disabled", 16)):  # a quarter is kept free for the answer
        asked = {"input": conversation(8), "truncation": truncation}
        counted = (await asgi_client(guarded).post(f"{URL}/input_tokens", json=asked)).json()
        assert counted["input_tokens"] == tokens
