"""Calls of tools of other kinds than functions: answered, streamed, stored and given back."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.unit.responses.conftest import Api
from tests.unit.responses.test_routes import URL, created, events_of, found_as, kinds

PATCH = {"type": "custom", "name": "patch"}
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
AGENTS = {"type": "namespace", "name": "agents", "description": "Of agents.", "tools": [LOOK, PATCH]}


def calls(api: Api, function: str, *words: str) -> None:
    """The model calls this function with arguments that come in these pieces."""
    api.vllm.calls, api.vllm.function, api.vllm.words = True, function, list(words)


def calls_patch(api: Api, function: str = "patch") -> None:
    calls(api, function, '{"in', 'put": "a', "\\", "nb", '"}')


async def streamed(api: Api, **fields: Any) -> list[dict[str, Any]]:
    return events_of(await api.client.post(URL, json={"input": "x", "stream": True, **fields}))


async def test_custom_call_is_an_item_of_its_kind_and_stored_so(api: Api) -> None:
    calls_patch(api)
    made = await created(api, tools=[PATCH])

    expected = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_1", "name": "patch", "input": "a\nb"}
    assert made["output"] == [{**expected, "status": "completed"}]
    assert (await api.client.get(f"{URL}/{made['id']}")).json() == made
    assert made["tools"] == [PATCH]
    assert api.vllm.bodies[0]["tools"][0]["type"] == "function"
    Response.model_validate(made, strict=True)


@pytest.mark.parametrize("function", ["patch", "agents__patch"])
async def test_stream_of_a_custom_call_has_its_events(api: Api, function: str) -> None:
    calls_patch(api, function)
    events = await streamed(api, tools=[PATCH, AGENTS])

    pieces = [event for event in events if event["type"] == "response.custom_tool_call_input.delta"]
    assert [piece["delta"] for piece in pieces] == ["", "a", "", "\nb", ""]
    assert {piece["item_id"] for piece in pieces} == {"ctc_1"}
    assert kinds(events)[-3:] == ["custom_tool_call_input.done", "output_item.done", "completed"]
    assert events[-3]["input"] == "a\nb"
    assert events[2]["item"].get("namespace") == ("agents" if "__" in function else None)
    assert (events[2]["item"]["input"], events[2]["item"]["status"]) == ("", "in_progress")
    assert events[-1]["response"]["output"] == [events[-2]["item"]]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        TypeAdapter(ResponseStreamEvent).validate_python(event, strict=True)


async def test_call_within_a_namespace_says_so(api: Api) -> None:
    calls(api, "agents__look", "{}")
    events = await streamed(api, tools=[AGENTS])

    assert kinds(events)[3] == "function_call_arguments.delta"
    assert events[4]["name"] == "look"
    for item in (events[2]["item"], events[-2]["item"], events[-1]["response"]["output"][0]):
        assert (item["name"], item["namespace"]) == ("look", "agents")


async def test_custom_call_that_was_cut_has_the_input_that_came(api: Api) -> None:
    calls(api, "patch", '{"input": "a')
    api.vllm.is_cut = True
    events = await streamed(api, tools=[PATCH])

    assert kinds(events)[-1] == "incomplete"
    (item,) = events[-1]["response"]["output"]
    assert (item["status"], item["input"]) == ("incomplete", "a")


async def test_custom_call_of_the_background_is_followed(api: Api) -> None:
    calls_patch(api)
    asked = {"background": True, "request_id": "resp_1", "tools": [PATCH]}
    events = await streamed(api, **asked)
    await found_as(api, "resp_1", "completed")

    assert "custom_tool_call_input.delta" in kinds(events)
    assert events_of(await api.client.get(f"{URL}/resp_1?stream=true")) == events


async def test_calls_of_earlier_turns_are_what_the_model_called(api: Api) -> None:
    calls_patch(api, "agents__patch")
    made = await created(api, tools=[AGENTS])
    output = {"type": "custom_tool_call_output", "call_id": "call_1", "output": "done"}
    continued = await created(api, previous_response_id=made["id"], input=[output], tools=[AGENTS])
    again = await created(api, input=[*made["output"], output], store=False)

    for body in api.vllm.bodies[1:]:
        call, result = body["input"][-2:]
        assert (call["type"], call["name"]) == ("function_call", "agents__patch")
        assert call["arguments"] == '{"input":"a\\nb"}'
        assert (result["type"], result["output"]) == ("function_call_output", "done")
    listed = (await api.client.get(f"{URL}/{continued['id']}/input_items")).json()["data"]
    assert listed == [{**output, "id": listed[0]["id"], "status": "completed"}]
    assert again["status"] == "completed"


async def test_tool_that_is_left_out_is_named_in_a_header(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = [LOOK, {"type": "web_search"}]
    for fields in ({}, {"stream": True}, {"background": True}):
        answer = await api.client.post(URL, json={"input": "x", "tools": tools, **fields})
        assert answer.headers["x-ignored-fields"] == "tools[1]"
    assert api.vllm.bodies[0]["tools"] == [LOOK]
    counted = await api.client.post(f"{URL}/input_tokens", json={"input": "x", "tools": tools})
    assert counted.headers["x-ignored-fields"] == "tools[1]"

    monkeypatch.setattr(api.app, "_refuses_unknown", True)
    refused = await api.client.post(URL, json={"input": "x", "tools": tools})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "tools[1]")


async def test_tool_of_an_unknown_kind_is_refused_by_name(api: Api) -> None:
    answer = await api.client.post(URL, json={"input": "x", "tools": [{"type": "local_shell"}]})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "tools[0].type")
    assert '"local_shell"' in answer.json()["error"]["message"]


async def test_include_reaches_the_engine_only_for_what_is_its_own(api: Api) -> None:
    include = ["reasoning.encrypted_content", "message.output_text.logprobs", "code_interpreter_call.outputs"]
    answer = await api.client.post(URL, json={"input": "x", "include": include})

    assert api.vllm.bodies[-1]["include"] == ["message.output_text.logprobs"]
    assert answer.headers["x-ignored-fields"] == "include[2]"
    await created(api, include=include[:1])
    assert "include" not in api.vllm.bodies[-1]


@pytest.mark.parametrize("background", [False, True])
async def test_summary_of_reasoning_is_named_as_without_effect_and_not_refused(
    api: Api, monkeypatch: pytest.MonkeyPatch, background: bool
) -> None:
    monkeypatch.setattr(api.app, "_refuses_unknown", True)
    for reasoning, named in (
        ({"summary": "auto", "effort": "low"}, "reasoning.summary"),
        ({"generate_summary": "concise"}, "reasoning.generate_summary"),
        ({"summary": None}, None),
        (None, None),
    ):
        answer = await api.client.post(URL, json={"input": "x", "background": background, "reasoning": reasoning})
        assert (answer.status_code, answer.headers.get("x-ignored-fields")) == (200, named)
    counted = await api.client.post(f"{URL}/input_tokens", json={"input": "x", "reasoning": {"summary": "auto"}})
    assert counted.headers["x-ignored-fields"] == "reasoning.summary"


async def test_result_of_several_parts_is_one_text_for_the_model_and_listed_as_it_is(api: Api) -> None:
    calls(api, "look", "{}")
    one = await created(api, tools=[LOOK])
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    result = {"type": "function_call_output", "call_id": "call_1", "output": parts}
    two = await created(api, previous_response_id=one["id"], input=[result], tools=[LOOK])

    assert api.vllm.bodies[-1]["input"][-1]["output"] == "ab"
    (listed,) = (await api.client.get(f"{URL}/{two['id']}/input_items")).json()["data"]
    assert listed["output"] == parts
    conversation = await api.client.post("/v1/conversations", json={"items": [*one["output"], result]})
    assert conversation.status_code == 200
