"""Kinds of tools, encrypted reasoning, truncation and the schema of /v1/responses, on the real engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.published_schema import item_faults, response_faults, stream_faults
from tests.server import MODEL, NO_TLS, ServedProcess
from tests.waiting import HANG_S, wait_for

pytestmark = pytest.mark.engine

URL = "/v1/responses"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "get_weather", "description": "Gets the weather.", "parameters": CITY}
NOTE = {"type": "custom", "name": "write_note", "description": "Writes a note."}
WORLD = {"type": "namespace", "name": "world", "description": "Of the world.", "tools": [WEATHER]}
QUESTION = "What is the weather in Paris?"
DIGITS = {"type": "grammar", "syntax": "regex", "definition": "[0-9]{3}"}
REQUESTS: dict[str, dict[str, Any]] = {
    "plain": {"input": "Hello"},
    "reasoning": {"input": "Hello", "reasoning": {"effort": "high"}, "include": ["reasoning.encrypted_content"]},
    "function": {"input": QUESTION, "tools": [WEATHER], "tool_choice": "required"},
    "custom": {"input": QUESTION, "tools": [NOTE], "tool_choice": {"type": "custom", "name": "write_note"}},
    "namespace": {"input": QUESTION, "tools": [WORLD], "tool_choice": {"type": "function", "name": "get_weather"}},
    "cut": {"input": "Hello", "max_output_tokens": 3},
    "formatted": {
        "input": "Hello",
        "text": {"format": {"type": "json_schema", "name": "city", "schema": CITY}},
        "max_output_tokens": 60,
    },
}
WAYS: dict[str, dict[str, Any]] = {"stored": {}, "not stored": {"store": False}, "background": {"background": True}}


@pytest.fixture(scope="module")
def http(server: ServedProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=HANG_S, verify=NO_TLS) as client:
        yield client


def created(http: httpx.Client, **asked: Any) -> dict[str, Any]:
    limited = {"max_output_tokens": 120, **asked}
    answer = http.post(URL, json={"model": MODEL, "temperature": 0, **limited})
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


def streamed(http: httpx.Client, **asked: Any) -> list[dict[str, Any]]:
    limited = {"max_output_tokens": 120, **asked}
    answer = http.post(URL, json={"model": MODEL, "temperature": 0, "stream": True, **limited})
    return [json.loads(frame.partition("data: ")[2]) for frame in answer.text.split("\n\n") if frame]


def calls_of(made: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for item in made["output"] if item["type"].endswith("_call")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REQUESTS)
def test_objects_and_events_are_those_of_openais_schema(http: httpx.Client, name: str, way: str) -> None:
    asked = {**REQUESTS[name], **WAYS[way]}
    events, made = streamed(http, **asked), created(http, **asked)

    assert stream_faults(events) == []
    assert response_faults(made) == []
    if way != "not stored":
        url = f"{URL}/{made['id']}"
        wait_for(lambda: http.get(url).json()["status"] in ("completed", "incomplete"))
        assert response_faults(http.get(url).json()) == []
        listed = http.get(f"{url}/input_items").json()["data"]
        assert [fault for item in listed for fault in item_faults(item)] == []


def test_call_within_a_namespace_is_answered_in_the_next_turn(http: httpx.Client) -> None:
    asked: dict[str, Any] = {"tools": [WORLD]}
    one = created(http, input=QUESTION, tool_choice="required", **asked)
    (call,) = calls_of(one)
    assert (call["type"], call["namespace"], call["name"]) == ("function_call", "world", "get_weather")
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "Sunny, 21 degrees"}
    two = created(http, input=[output], previous_response_id=one["id"], **asked)

    assert two["status"] in ("completed", "incomplete")
    assert two["usage"]["input_tokens"] > one["usage"]["input_tokens"]


def test_custom_call_keeps_to_its_expression_and_is_streamed_as_it_is(http: httpx.Client) -> None:
    tools = [{**NOTE, "format": DIGITS}]
    asked: dict[str, Any] = {"input": QUESTION, "tools": tools, "tool_choice": "required"}
    (call,) = calls_of(created(http, **asked))
    events = streamed(http, **asked)
    pieces = [event["delta"] for event in events if event["type"] == "response.custom_tool_call_input.delta"]
    (done,) = [event["input"] for event in events if event["type"] == "response.custom_tool_call_input.done"]

    assert (call["type"], call["name"]) == ("custom_tool_call", "write_note")
    assert call["input"].isdecimal()
    assert len(call["input"]) == 3
    assert "".join(pieces) == done
    result = {
        "type": "custom_tool_call_output",
        "call_id": call["call_id"],
        "output": [{"type": "input_text", "text": "Written."}],
    }
    again = created(http, input=[{"role": "user", "content": QUESTION}, call, result], tools=tools, store=False)
    assert again["usage"]["input_tokens"] > 0


def test_encrypted_reasoning_makes_the_prompt_that_the_stored_response_makes(http: httpx.Client) -> None:
    asked: dict[str, Any] = {"tools": [WEATHER], "include": ["reasoning.encrypted_content"]}
    one = created(http, input=QUESTION, **asked)
    (call,) = calls_of(one)
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "Sunny, 21 degrees"}
    kept = [
        {name: value for name, value in item.items() if name not in ("content", "id", "status")}
        if item["type"] == "reasoning"
        else item
        for item in one["output"]
    ]
    assert kept[0]["encrypted_content"]
    tokens = [
        created(http, input=[output], previous_response_id=one["id"], tools=[WEATHER])["usage"]["input_tokens"],
        created(http, input=[{"role": "user", "content": QUESTION}, *kept, output], store=False, **asked)["usage"][
            "input_tokens"
        ],
    ]
    without = [{"role": "user", "content": QUESTION}, call, output]

    assert tokens[0] == tokens[1]
    assert created(http, input=without, store=False, **asked)["usage"]["input_tokens"] < tokens[0]


def test_conversation_that_is_too_long_is_truncated_in_its_middle(http: httpx.Client) -> None:
    long = " ".join(["word"] * 400)
    items = [{"role": role, "content": f"{number} {long}"} for number in range(10) for role in ("user", "assistant")]
    items.append({"role": "user", "content": "Hello"})
    made = created(http, input=items, truncation="auto", store=False)
    refused = http.post(URL, json={"model": MODEL, "input": items, "store": False})

    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert 1000 < made["usage"]["input_tokens"] <= 4096 - 120
    assert made["usage"]["output_tokens"] > 0


def test_cached_tokens_are_in_the_usage_of_chats(http: httpx.Client) -> None:
    messages = [{"role": "user", "content": " ".join(f"number{n}" for n in range(200))}]
    asked = {"model": MODEL, "messages": messages, "max_tokens": 4}
    http.post("/v1/chat/completions", json=asked)
    usage = http.post("/v1/chat/completions", json=asked).json()["usage"]

    assert usage["prompt_tokens_details"]["cached_tokens"] >= 128
