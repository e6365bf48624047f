"""Stored responses, with OpenAI's own SDK on the real server and the real engine."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.responses import FunctionToolParam, Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.server import MODEL
from tests.waiting import wait_for

pytestmark = pytest.mark.engine

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "Gets the current weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
LONG = " ".join(f"word{number}" for number in range(200))
BLOCK = 128  # tokens; the engine's cache on CPUs has whole ones


def events_of(client: openai.OpenAI, **asked: Any) -> list[Any]:
    return list(client.responses.create(model=MODEL, temperature=0, stream=True, **asked))


def test_tool_call_is_continued_by_its_output_alone(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "temperature": 0, "tools": [WEATHER], "instructions": "Be brief."}
    one = client.responses.create(input="What is the weather in Paris?", **asked)
    call = one.output[-1]
    assert call.type == "function_call"
    result: Any = [{"type": "input_text", "text": "Sunny, 21 degrees"}]
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": result}
    two = client.responses.create(input=[output], previous_response_id=one.id, **asked)

    assert "21" in two.output_text
    assert two.previous_response_id == one.id
    assert client.responses.retrieve(two.id) == two
    (listed,) = client.responses.input_items.list(two.id)
    assert listed.type == "function_call_output"


def test_continued_conversation_begins_with_the_tokens_of_the_turn_before(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": MODEL, "temperature": 0}
    developer: Any = [{"role": "developer", "content": f"Be brief. {LONG}"}, {"role": "user", "content": "Hello"}]
    for given in (f"Hello {LONG}", developer):
        one = client.responses.create(input=given, **asked)
        two = client.responses.create(input="Go on.", previous_response_id=one.id, **asked)
        assert one.usage
        assert two.usage
        assert two.usage.input_tokens_details.cached_tokens == one.usage.input_tokens // BLOCK * BLOCK > 0


def test_continued_conversation_has_the_new_instructions(client: openai.OpenAI) -> None:
    one = client.responses.create(model=MODEL, input="Hello", instructions=LONG)
    two = client.responses.create(model=MODEL, input="Hello", previous_response_id=one.id)

    assert one.usage
    assert two.usage
    assert two.usage.input_tokens < one.usage.input_tokens


def test_tokens_are_counted_as_the_engine_counts_them(client: openai.OpenAI) -> None:
    one = client.responses.create(model=MODEL, input="Hello", temperature=0, instructions="Be brief.")
    asked: dict[str, Any] = {"model": MODEL, "input": "Go on.", "previous_response_id": one.id, "tools": [WEATHER]}
    counted = client.responses.input_tokens.count(**asked)
    two = client.responses.create(**asked)

    assert two.usage
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", two.usage.input_tokens)
    with pytest.raises(openai.BadRequestError, match="input"):
        client.responses.input_tokens.count(model=MODEL)


def test_object_and_events_are_those_of_openais_schema(client: openai.OpenAI) -> None:
    for more in ({}, {"tools": [WEATHER]}, {"max_output_tokens": 6}):
        events = events_of(client, input="What is the weather in Paris?", **more)
        for event in events:
            TypeAdapter(ResponseStreamEvent).validate_python(event.to_dict(), strict=True)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        final = events[-1].response
        Response.model_validate(final.to_dict(), strict=True)
        assert client.responses.retrieve(final.id) == final
        done = [event.item for event in events if event.type == "response.output_item.done"]
        assert [item.to_dict() for item in done] == [item.to_dict() for item in final.output]


def test_answer_that_was_cut_ends_incomplete(client: openai.OpenAI) -> None:
    events = events_of(client, input="Tell me a story.", max_output_tokens=6)
    last = events[-1]

    assert last.type == "response.incomplete"
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert last.response.output[-1].status == "incomplete"
    assert last.response.max_output_tokens == 6


def test_background_stream_is_followed_again_from_any_event(client: openai.OpenAI) -> None:
    events = events_of(client, input="Hello", background=True)
    response_id = events[-1].response.id

    again = list(client.responses.retrieve(response_id, stream=True, starting_after=3))
    assert again == events[4:]


def test_events_of_any_stored_response_are_listed_again(client: openai.OpenAI) -> None:
    for more in ({}, {"tools": [WEATHER]}, {"max_output_tokens": 6}):
        asked: dict[str, Any] = {"input": "What is the weather in Paris?", **more}
        own = events_of(client, **asked)
        again: list[Any] = list(client.responses.retrieve(own[-1].response.id, stream=True))
        for event in again:
            TypeAdapter(ResponseStreamEvent).validate_python(event.to_dict(), strict=True)
        assert [event.sequence_number for event in again] == list(range(len(again)))
        assert again[-1].response == own[-1].response
        kinds = [event.type for event in again if not event.type.endswith(".delta")]
        assert kinds == [event.type for event in own if not event.type.endswith(".delta")]
        assert [e.text for e in again if e.type == "response.output_text.done"] == [
            e.text for e in own if e.type == "response.output_text.done"
        ]


def test_background_stream_ends_for_its_listeners_when_it_is_cancelled(client: openai.OpenAI) -> None:
    endless = {"ignore_eos": True}
    stream = client.responses.create(model=MODEL, input="Hello", background=True, stream=True, extra_body=endless)
    response_id = ""
    for seen, event in enumerate(stream):
        if event.type == "response.created":
            response_id = event.response.id
        if seen == 10:
            assert client.responses.cancel(response_id).status == "cancelled"

    assert list(client.responses.retrieve(response_id, stream=True))
    assert client.responses.retrieve(response_id).status == "cancelled"


def test_background_response_says_that_it_runs(client: openai.OpenAI) -> None:
    made = client.responses.create(model=MODEL, input="Hello", background=True, extra_body={"ignore_eos": True})
    assert made.status == "queued"

    wait_for(lambda: client.responses.retrieve(made.id).status == "in_progress")
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_stored_item_is_named_instead_of_sent(client: openai.OpenAI) -> None:
    one = client.responses.create(model=MODEL, input="Hello", temperature=0)
    named: Any = [{"type": "item_reference", "id": one.output[-1].id}, {"role": "user", "content": "Thanks"}]

    assert client.responses.create(model=MODEL, input=named, temperature=0).output_text


def test_reasoning_before_a_preamble_and_a_call_is_in_the_prompt(client: openai.OpenAI) -> None:
    reasoning: Any = {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": LONG}],
    }
    rest: Any = [
        {"role": "assistant", "content": "Let me look it up."},
        {"type": "function_call", "call_id": "1", "name": "get_weather", "arguments": '{"city":"Paris"}'},
        {"type": "function_call_output", "call_id": "1", "output": "Sunny, 21 degrees"},
    ]
    question: Any = {"role": "user", "content": "What is the weather in Paris?"}

    def tokens(items: list[Any]) -> int:
        return client.responses.input_tokens.count(model=MODEL, tools=[WEATHER], input=items).input_tokens

    assert tokens([question, reasoning, *rest]) > tokens([question, *rest]) + len(LONG.split())
