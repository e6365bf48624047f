"""Events of stored responses that were made again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import pytest
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from gptoss_bento.http.errors import BrokenStreamError
from gptoss_bento.responses.replay import events_of as replayed
from tests.unit.responses.conftest import Api
from tests.unit.responses.test_routes import URL, created, events_of, found_as, kinds
from tests.waiting import until

MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "one two", "annotations": [], "logprobs": []}],
}
REASONING = {
    "id": "rs_1",
    "type": "reasoning",
    "status": "completed",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "Hm."}],
}
SEARCH = {
    "id": "ws_1",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "x"},
}


def check(events: Sequence[dict[str, Any]]) -> None:
    for event in events:
        TypeAdapter(ResponseStreamEvent).validate_python(event, strict=True)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


async def again(api: Api, response_id: str, query: str = "") -> list[dict[str, Any]]:
    answer = await api.client.get(f"{URL}/{response_id}?stream=true{query}")
    assert answer.status_code == 200, answer.text
    return events_of(answer)


@pytest.mark.parametrize("calls", [False, True])
@pytest.mark.parametrize("is_cut", [False, True])
async def test_events_of_a_stream_are_made_again_with_one_delta_of_each_text(
    api: Api, calls: bool, is_cut: bool
) -> None:
    api.vllm.calls, api.vllm.is_cut = calls, is_cut
    own = events_of(await api.client.post(URL, json={"input": "x", "stream": True}))
    events = await again(api, own[-1]["response"]["id"])

    check(events)
    once = [kind for i, kind in enumerate(kinds(own)) if kind not in kinds(own)[:i]]
    assert [kind for kind in kinds(events) if not kind.startswith("content_part")] == once
    assert events[-1]["response"] == own[-1]["response"]
    assert [event["delta"] for event in events if "delta" in event] == ["one two"]
    assert (events[2]["item"]["status"], events[0]["response"]["status"]) == ("in_progress", "in_progress")


async def test_events_are_the_same_each_time_and_go_on_after_any(api: Api) -> None:
    made = await created(api)
    events = await again(api, made["id"])

    for number in range(len(events)):
        assert await again(api, made["id"], f"&starting_after={number}") == events[number + 1 :]


async def test_items_of_all_kinds_have_their_events() -> None:
    made = {"id": "resp_1", "status": "completed", "output": [REASONING, SEARCH, MESSAGE]}
    events = list(replayed(made))

    assert kinds(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    of_items = [event for event in events if "response" not in event]  # the object is cut short here
    check([{**event, "sequence_number": number} for number, event in enumerate(of_items)])


@pytest.mark.parametrize("how", [{"background": True}, {"stream": True}])
async def test_events_of_a_response_that_runs_come_as_it_ends(api: Api, how: dict[str, bool]) -> None:
    api.vllm.held.clear()
    posted = asyncio.create_task(api.client.post(URL, json={"input": "x", "request_id": "resp_1", **how}))
    await until(lambda: api.vllm.bodies)
    await found_as(api, "resp_1", "in_progress")
    listed = asyncio.create_task(again(api, "resp_1"))
    api.vllm.held.set()
    await posted

    events = await listed
    check(events)
    assert events[-1]["type"] == "response.completed"
    assert events[2:] == (await again(api, "resp_1"))[2:]


async def test_events_of_a_response_that_failed_end_with_its_error(api: Api) -> None:
    api.vllm.breaks = BrokenStreamError(HTTPStatus.SERVICE_UNAVAILABLE, "The engine died.")
    made = await created(api, background=True)
    found = await found_as(api, made["id"], "failed")
    events = await again(api, made["id"])

    check(events)
    assert (events[-1]["type"], events[-1]["response"]) == ("response.failed", found)
    assert events[0]["response"]["error"] is None


async def test_events_of_a_response_that_was_cancelled_stop(api: Api) -> None:
    api.vllm.held.clear()
    made = await created(api, background=True)
    await api.client.post(f"{URL}/{made['id']}/cancel")

    assert kinds(await again(api, made["id"])) == ["created", "in_progress"]
    assert (await api.client.get(f"{URL}/resp_none?stream=true")).status_code == 404
