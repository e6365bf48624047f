"""Tools and schemas on every route of the real engine: what the model sees, may call, and is held to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest

from tests.server import MODEL, NO_TLS, ServedProcess
from tests.waiting import HANG_S

pytestmark = pytest.mark.engine

QUESTION = "What is the weather in Paris?"
CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
# More than the demo model was trained for, so that only a grammar makes it right.
TRIP: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"$ref": "#/$defs/Name"},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "place": {"anyOf": [{"$ref": "#/$defs/Place"}, {"type": "null"}]},
    },
    "required": ["city", "days", "unit", "place"],
    "$defs": {
        "Name": {"type": "string", "maxLength": 40},
        "Place": {
            "type": "object",
            "properties": {"lat": {"type": "number"}, "lon": {"type": "number"}},
            "required": ["lat", "lon"],
        },
    },
}
ANSWER = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}


@pytest.fixture
def http(server: ServedProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=HANG_S, verify=NO_TLS) as found:
        yield found


def chat(schema: Any = CITY, **more: Any) -> dict[str, Any]:
    function = {"name": "get_weather", "description": "Gets the weather.", "parameters": schema}
    given = {"model": MODEL, "temperature": 0, "max_tokens": 300, "messages": [{"role": "user", "content": QUESTION}]}
    return {**given, "tools": [{"type": "function", "function": function}], **more}


def responses(schema: Any = CITY, **more: Any) -> dict[str, Any]:
    tool = {"type": "function", "name": "get_weather", "description": "Gets the weather.", "parameters": schema}
    given = {"model": MODEL, "temperature": 0, "max_output_tokens": 300, "input": QUESTION}
    return {**given, "tools": [tool], **more}


def messages(schema: Any = CITY, **more: Any) -> dict[str, Any]:
    given = {"model": MODEL, "temperature": 0, "max_tokens": 300, "messages": [{"role": "user", "content": QUESTION}]}
    tool = {"name": "get_weather", "description": "Gets the weather.", "input_schema": schema}
    return {**given, "tools": [tool], **more}


def chat_answer(body: Any) -> tuple[str, list[Any]]:
    """Text and calls' arguments."""
    message = body["choices"][0]["message"]
    calls = [json.loads(call["function"]["arguments"]) for call in message.get("tool_calls") or []]
    return message["content"] or "", calls


def responses_answer(body: Any) -> tuple[str, list[Any]]:
    texts = [part["text"] for item in body["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(texts), [json.loads(it["arguments"]) for it in body["output"] if it["type"] == "function_call"]


def messages_answer(body: Any) -> tuple[str, list[Any]]:
    texts = [block["text"] for block in body["content"] if block["type"] == "text"]
    return "".join(texts), [block["input"] for block in body["content"] if block["type"] == "tool_use"]


def job(schema: Any = CITY, **more: Any) -> dict[str, Any]:
    body = chat(schema, **more)
    parameters = {name: body.pop(name) for name in ("temperature", "max_tokens")}
    return {"input": {"messages": body["messages"], "tools": body["tools"], **more, "sampling_params": parameters}}


def job_answer(body: Any) -> tuple[str, list[Any]]:
    assert body["status"] == "COMPLETED", body
    (output,) = body["output"]
    choice = output["choices"][0]
    calls = [json.loads(call["function"]["arguments"]) for call in choice.get("tool_calls") or []]
    return "".join(choice.get("tokens") or []), calls


def openai_job(schema: Any = CITY, **more: Any) -> dict[str, Any]:
    return {"input": {"openai_route": "/v1/chat/completions", "openai_input": chat(schema, **more)}}


def openai_job_answer(body: Any) -> tuple[str, list[Any]]:
    assert body["status"] == "COMPLETED", body
    return chat_answer(body["output"][0])


CHAT = ("/v1/chat/completions", chat, chat_answer)
RESPONSES = ("/v1/responses", responses, responses_answer)
MESSAGES = ("/v1/messages", messages, messages_answer)
JOB = ("/runsync", job, job_answer)
OPENAI_JOB = ("/runsync", openai_job, openai_job_answer)
ROUTES = pytest.mark.parametrize(
    "route", [CHAT, RESPONSES, MESSAGES, JOB, OPENAI_JOB], ids=["chat", "responses", "messages", "job", "openai job"]
)
NONE: dict[Any, Any] = {MESSAGES: {"type": "none"}}
REQUIRED: dict[Any, Any] = {MESSAGES: {"type": "any"}}
NAMED: dict[Any, Any] = {
    RESPONSES: {"type": "function", "name": "get_weather"},
    MESSAGES: {"type": "tool", "name": "get_weather"},
}
NAMED_IN_CHATS = {"type": "function", "function": {"name": "get_weather"}}


def asked(http: httpx.Client, route: Any, schema: Any = CITY, **more: Any) -> tuple[str, list[Any]]:
    path, body, answer = route
    response = http.post(path, json=body(schema, **more))
    assert response.status_code == 200, response.text
    found: tuple[str, list[Any]] = answer(response.json())
    return found


@ROUTES
def test_tool_is_called_where_it_may_be(http: httpx.Client, route: Any) -> None:
    assert asked(http, route) == ("", [{"city": "Paris"}])


@ROUTES
def test_choice_of_none_is_answered_in_text(http: httpx.Client, route: Any) -> None:
    text, calls = asked(http, route, tool_choice=NONE.get(route, "none"))

    assert text
    assert calls == []


@pytest.mark.parametrize("route", [CHAT, RESPONSES], ids=["chat", "responses"])
def test_stream_of_a_choice_of_none_has_text_alone(http: httpx.Client, route: Any) -> None:
    path, body, _ = route
    response = http.post(path, json=body(tool_choice="none", stream=True))

    assert "get_weather" not in "".join(line for line in response.text.splitlines() if "delta" in line)
    assert '"content":' in response.text or "response.output_text.delta" in response.text
    assert "function_call_arguments" not in response.text


def test_choice_of_none_leaves_the_tools_out_of_the_prompt(http: httpx.Client) -> None:
    def prompt_tokens(body: dict[str, Any]) -> int:
        return int(http.post("/v1/chat/completions", json=body).json()["usage"]["prompt_tokens"])

    without = {name: value for name, value in chat(max_tokens=1).items() if name != "tools"}

    assert prompt_tokens(chat(tool_choice="none", max_tokens=1)) == prompt_tokens(without)
    assert prompt_tokens(chat(max_tokens=1)) > prompt_tokens(without)


def test_choice_of_none_of_a_response_leaves_the_tools_out_of_the_prompt_too(http: httpx.Client) -> None:
    def input_tokens(**more: Any) -> int:
        body = http.post("/v1/responses", json=responses(max_output_tokens=20, **more)).json()
        return int(body["usage"]["input_tokens"])

    assert input_tokens(tool_choice="none") == input_tokens(tools=[])
    assert input_tokens() > input_tokens(tools=[])


def test_response_shows_the_tools_and_the_choice_that_it_was_asked_with(http: httpx.Client) -> None:
    body = http.post("/v1/responses", json=responses(tool_choice="none")).json()

    assert body["tool_choice"] == "none"
    assert [tool["name"] for tool in body["tools"]] == ["get_weather"]


def test_tools_of_an_earlier_response_may_be_called_again_after_a_choice_of_none(http: httpx.Client) -> None:
    first = http.post("/v1/responses", json=responses(tool_choice="none")).json()
    text, calls = asked(http, RESPONSES, previous_response_id=first["id"], input="What is the weather in Rome?")

    assert (text, calls) == ("", [{"city": "Rome"}])


CALLED = [
    {"role": "user", "content": QUESTION},
    {
        "role": "assistant",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": "18 degrees, sunny"},
    {"role": "assistant", "content": "It is sunny in Paris."},
    {"role": "user", "content": "What is the weather in Rome?"},
]


@pytest.mark.parametrize("more", [{"tool_choice": "none"}, {"tools": None}], ids=["none", "no tools"])
def test_conversation_with_calls_is_answered_in_text(http: httpx.Client, more: dict[str, Any]) -> None:
    text, calls = asked(http, CHAT, messages=CALLED, **more)

    assert text
    assert calls == []


@ROUTES
@pytest.mark.parametrize("choice", ["required", "named"])
def test_call_that_is_asked_for_follows_the_schema_without_strict(http: httpx.Client, route: Any, choice: str) -> None:
    given = REQUIRED.get(route, "required") if choice == "required" else NAMED.get(route, NAMED_IN_CHATS)
    _, calls = asked(http, route, TRIP, tool_choice=given)

    assert len(calls) == 1
    jsonschema.validate(calls[0], TRIP)


def test_call_at_a_high_temperature_follows_the_schema(http: httpx.Client) -> None:
    for seed in range(8):
        _, calls = asked(http, CHAT, TRIP, tool_choice="required", temperature=1.5, seed=seed)

        jsonschema.validate(calls[0], TRIP)


def test_tool_whose_schema_has_no_grammar_can_be_called(http: httpx.Client) -> None:
    odd = {**CITY, "properties": {"city": {"type": "string", "pattern": r"\bParis\b"}}}

    assert asked(http, CHAT, odd, tool_choice="required")[1]
    assert asked(http, RESPONSES, odd)[1] == [{"city": "Paris"}]


FORMATS: dict[Any, dict[str, Any]] = {
    CHAT: {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": ANSWER}}},
    RESPONSES: {"text": {"format": {"type": "json_schema", "name": "a", "schema": ANSWER}}},
    MESSAGES: {"output_config": {"format": {"type": "json_schema", "schema": ANSWER}}},
}


@pytest.mark.parametrize("route", FORMATS, ids=["chat", "responses", "messages"])
def test_tool_beside_a_schema_of_the_answer_can_be_called(http: httpx.Client, route: Any) -> None:
    assert asked(http, route, **FORMATS[route]) == ("", [{"city": "Paris"}])


@pytest.mark.parametrize("route", FORMATS, ids=["chat", "responses", "messages"])
def test_answer_beside_tools_has_its_schema(http: httpx.Client, route: Any) -> None:
    asked_for = "input" if route is RESPONSES else "messages"
    question = "What is the capital of France?"
    given = {asked_for: question if route is RESPONSES else [{"role": "user", "content": question}]}
    text, calls = asked(http, route, **FORMATS[route], **given)

    assert calls == []
    jsonschema.validate(json.loads(text), ANSWER)


def test_types_of_parameters_are_in_the_prompt(http: httpx.Client) -> None:
    tokens = http.post("/tokenize", json={"model": MODEL, **{k: chat(TRIP)[k] for k in ("messages", "tools")}}).json()
    prompt = http.post("/detokenize", json={"model": MODEL, "tokens": tokens["tokens"]}).json()["prompt"]

    assert 'city: string,\ndays: number,\nunit: "celsius" | "fahrenheit",\n' in prompt
    assert "place:\n     | {\n       lat: number,\n       lon: number,\n       }\n     | null\n,\n" in prompt


UNCLOSED = {"type": "object", "properties": {"a": {"type": "string", "pattern": "["}}}


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        (CHAT[0], chat(UNCLOSED), "tools[0].function.parameters.properties.a.pattern"),
        (RESPONSES[0], responses(UNCLOSED), "tools[0].parameters.properties.a.pattern"),
        (
            CHAT[0],
            chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": UNCLOSED}}),
            "response_format.json_schema.schema.properties.a.pattern",
        ),
        (
            RESPONSES[0],
            responses(text={"format": {"type": "json_schema", "name": "a", "schema": UNCLOSED}}),
            "text.format.schema.properties.a.pattern",
        ),
        ("/v1/completions", {"prompt": "x", "guided_json": UNCLOSED}, "guided_json.properties.a.pattern"),
        ("/v1/completions", {"prompt": "x", "structured_outputs": {"regex": "["}}, "structured_outputs.regex"),
    ],
)
def test_schema_that_does_not_compile_is_refused_with_its_place(
    http: httpx.Client, path: str, body: dict[str, Any], place: str
) -> None:
    response = http.post(path, json=body)

    assert response.status_code == 400
    assert response.json()["error"]["param"] == place
    assert response.json()["error"]["message"] == f"{place} has an unclosed [ at position 0."


def test_schema_of_a_message_and_of_a_job_is_refused_with_its_place(http: httpx.Client) -> None:
    message = http.post("/v1/messages", json=messages(UNCLOSED))
    failed = http.post("/runsync", json=openai_job(UNCLOSED)).json()

    assert message.status_code == 400
    assert message.json()["error"]["message"].startswith("tools[0].input_schema.properties.a.pattern has")
    assert failed["status"] == "FAILED"
    assert "openai_input.tools[0].function.parameters.properties.a.pattern has an unclosed [" in failed["error"]


def test_grammar_that_does_not_compile_is_refused_with_the_reason(http: httpx.Client) -> None:
    body = {**chat(structured_outputs={"grammar": "root ::= ("}), "tools": None}
    error = http.post("/v1/chat/completions", json=body)

    assert error.status_code == 400
    assert "triggers" not in error.text
    assert ".cc" not in error.text
