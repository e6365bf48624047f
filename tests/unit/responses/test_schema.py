"""Every object and event of a set of requests against OpenAI's published schema."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import pytest

from gptoss_bento.http.errors import BrokenStreamError
from tests.published_schema import item_faults, response_faults, stream_faults
from tests.unit.responses.conftest import Api
from tests.unit.responses.test_routes import URL, created, events_of, found_as
from tests.waiting import until

LOOK = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
PATCH = {"type": "custom", "name": "patch"}
AGENTS = {"type": "namespace", "name": "agents", "description": "Of agents.", "tools": [LOOK, PATCH]}
FORM = {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}, "verbosity": "low"}
REQUESTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "instructed": ({}, {"instructions": "Be brief.", "metadata": {"a": "b"}, "user": "u", "text": FORM}),
    "of parts": ({}, {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x"}]}]}),
    "reasoning": ({"reasons": True}, {"reasoning": {"effort": "low", "summary": "auto"}}),
    "encrypted": ({"reasons": True}, {"include": ["reasoning.encrypted_content"]}),
    "function": ({"calls": True, "function": "look", "words": ["{}"]}, {"tools": [LOOK], "tool_choice": "required"}),
    "custom": ({"calls": True, "function": "patch", "words": ['{"input": "', 'a"}']}, {"tools": [PATCH]}),
    "namespace": ({"calls": True, "function": "agents__look", "words": ["{}"]}, {"tools": [AGENTS]}),
    "cut": ({"is_cut": True}, {"max_output_tokens": 20}),
    "cut call": ({"is_cut": True, "calls": True, "function": "look", "words": ["{"]}, {"tools": [LOOK]}),
}
WAYS: dict[str, dict[str, Any]] = {
    "stored": {},
    "not stored": {"store": False},
    "background": {"background": True, "request_id": "resp_1"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REQUESTS)
async def test_stream_is_that_of_the_schema(api: Api, name: str, way: str) -> None:
    answers, asked = REQUESTS[name]
    vars(api.vllm).update(answers)
    answer = await api.client.post(URL, json={"input": "x", "stream": True, **asked, **WAYS[way]})

    assert stream_faults(events_of(answer)) == []


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REQUESTS)
async def test_object_is_that_of_the_schema(api: Api, name: str, way: str) -> None:
    answers, asked = REQUESTS[name]
    vars(api.vllm).update(answers)
    made = await created(api, **asked, **WAYS[way])

    assert response_faults(made) == []
    if way == "stored":
        assert stream_faults(events_of(await api.client.get(f"{URL}/{made['id']}?stream=true"))) == []
    if way == "background":
        made = await found_as(api, "resp_1", "incomplete" if "cut" in name else "completed")
        assert response_faults(made) == []


async def test_turn_of_a_conversation_is_of_the_schema(api: Api) -> None:
    conversation = (await api.client.post("/v1/conversations", json={})).json()["id"]
    api.vllm.calls, api.vllm.function, api.vllm.words = True, "agents__patch", ['{"input": "', 'a"}']
    await created(api, conversation=conversation, tools=[AGENTS])
    api.vllm.calls = False
    result = {"type": "custom_tool_call_output", "call_id": "call_1", "output": "done"}
    made = await created(api, conversation=conversation, tools=[AGENTS], input=[result])
    listed = (await api.client.get(f"/v1/conversations/{conversation}/items?order=asc")).json()["data"]

    assert response_faults(made) == []
    assert [fault for item in listed for fault in item_faults(item)] == []
    kinds = ["message", "custom_tool_call", "custom_tool_call_output", "message"]
    assert [item["type"] for item in listed] == kinds
    assert [item["type"] for item in api.vllm.bodies[-1]["input"]] == [
        "message",
        "function_call",
        "function_call_output",
    ]


async def test_failed_and_cancelled_responses_are_of_the_schema(api: Api) -> None:
    api.vllm.breaks = BrokenStreamError(HTTPStatus.SERVICE_UNAVAILABLE, "The engine died.")
    answer = await api.client.post(URL, json={"input": "x", "background": True, "stream": True, "request_id": "one"})
    events = events_of(answer)
    api.vllm.breaks = None
    api.vllm.held.clear()
    before = len(api.vllm.bodies)  # the first may have run twice
    await created(api, background=True, request_id="two")
    await until(lambda: len(api.vllm.bodies) > before)
    cancelled = await api.client.post(f"{URL}/two/cancel")

    assert [fault for event in events if "response" in event for fault in response_faults(event["response"])] == []
    assert response_faults((await api.client.get(f"{URL}/one")).json()) == []
    assert response_faults(cancelled.json()) == []


async def test_listed_items_are_of_the_schema(api: Api) -> None:
    api.vllm.calls, api.vllm.function = True, "patch"
    one = await created(api, tools=[PATCH])
    result = {"type": "custom_tool_call_output", "call_id": "call_1", "output": "done"}
    said = [{"role": role, "content": "a"} for role in ("developer", "user", "assistant")]
    part = {"type": "output_text", "text": "b"}
    items = [*said, {"role": "assistant", "content": [part]}, *one["output"], result]
    two = await created(api, input=items)
    listed = (await api.client.get(f"{URL}/{two['id']}/input_items")).json()

    assert listed.keys() == {"object", "data", "first_id", "last_id", "has_more"}
    assert [fault for item in listed["data"] for fault in item_faults(item)] == []
    assert len(listed["data"]) == len(items)
