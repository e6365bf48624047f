"""Anthropic's SDK for Python."""

from __future__ import annotations

from typing import Any

import anthropic
from checks import (
    API_KEY,
    BASE_URL,
    LOCATION,
    MODEL,
    PERSON,
    PERSON_SCHEMA,
    PIXEL,
    QUESTION,
    TIMEOUT_S,
    WEATHER,
    check,
    is_location,
    is_text,
    raises,
    run,
    too_long,
)
from pydantic import BaseModel

CLIENT = anthropic.Anthropic(base_url=BASE_URL, api_key=API_KEY, timeout=TIMEOUT_S, max_retries=0)
TOOL = {"name": "get_weather", "description": "Gets the weather of a city.", "input_schema": LOCATION}
THINKING = {"type": "enabled", "budget_tokens": 1024}


class Person(BaseModel):
    name: str
    age: int


def fields(question: str = QUESTION, **more: Any) -> dict[str, Any]:
    body = {"model": MODEL, "max_tokens": 300, "messages": [{"role": "user", "content": question}]}
    # The SDK has no parameter for the temperature any more; the service takes it.
    return {**body, "extra_body": {"temperature": 0}, **more}


def message(question: str = QUESTION, **more: Any) -> Any:
    return CLIENT.messages.create(**fields(question, **more))


def text_of(answer: Any) -> str:
    return "".join(block.text for block in answer.content if block.type == "text")


def first_call(answer: Any) -> Any:
    found = [block for block in answer.content if block.type == "tool_use"]
    assert found, f"no call: {answer.content}"
    return found[0]


@check
def text() -> None:
    answer = message()
    is_text(text_of(answer), "Paris")
    assert answer.stop_reason == "end_turn"


@check
def system() -> None:
    is_text(text_of(message(system="Answer in French.")))


@check
def stream() -> None:
    with CLIENT.messages.stream(**fields()) as stream:
        joined = "".join(stream.text_stream)
        final = stream.get_final_message()
    is_text(joined, "Paris")
    assert final.usage.output_tokens > 0


@check
async def asynchronous_stream() -> None:
    client = anthropic.AsyncAnthropic(base_url=BASE_URL, api_key=API_KEY, timeout=TIMEOUT_S)
    async with client, client.messages.stream(**fields()) as stream:
        is_text("".join([part async for part in stream.text_stream]), "Paris")


@check
def tool_and_its_result() -> None:
    answer = message(WEATHER, tools=[TOOL])
    call = first_call(answer)
    is_location(call.input)
    assert answer.stop_reason == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": '{"temperature": 21, "condition": "sunny"}'}
    turns = [
        {"role": "user", "content": WEATHER},
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [result]},
    ]
    is_text(text_of(message(tools=[TOOL], messages=turns)), "21")


@check
def tool_streamed() -> None:
    with CLIENT.messages.stream(**fields(WEATHER, tools=[TOOL])) as stream:
        is_location(first_call(stream.get_final_message()).input)


@check
def tool_choice_none() -> None:
    answer = message(WEATHER, tools=[TOOL], tool_choice={"type": "none"})
    assert all(block.type != "tool_use" for block in answer.content), answer.content
    is_text(text_of(answer))


@check
def tool_choice_any() -> None:
    is_location(first_call(message(tools=[TOOL], tool_choice={"type": "any"})).input)


@check
def tool_choice_named() -> None:
    is_location(first_call(message(tools=[TOOL], tool_choice={"type": "tool", "name": "get_weather"})).input)


@check
def thinking_with_a_budget() -> None:
    answer = message(max_tokens=2000, thinking=THINKING)
    assert answer.content[0].type == "thinking", answer.content
    is_text(text_of(answer), "Paris")


@check
def thinking_with_a_budget_streamed() -> None:
    with CLIENT.messages.stream(**fields(max_tokens=2000, thinking=THINKING)) as stream:
        kinds = {event.type for event in stream}
        answer = stream.get_final_message()
    assert "thinking" in kinds, kinds
    is_text(text_of(answer), "Paris")


@check
def thinking_adaptive() -> None:
    is_text(text_of(message(max_tokens=2000, thinking={"type": "adaptive"})), "Paris")


@check
def parse_helper() -> None:
    answer = CLIENT.messages.parse(**fields(PERSON), output_format=Person)
    assert answer.parsed_output == Person(name="Alice", age=30)


@check
def json_schema() -> None:
    schema = {"format": {"type": "json_schema", "schema": PERSON_SCHEMA}}
    assert Person.model_validate_json(text_of(message(PERSON, output_config=schema))) == Person(name="Alice", age=30)


@check
def stop_sequences() -> None:
    answer = message(stop_sequences=[" is"])
    is_text(text_of(answer))
    assert " is" not in text_of(answer), text_of(answer)
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", " is"), answer.stop_reason


@check
def length() -> None:
    assert message(max_tokens=3).stop_reason == "max_tokens"


@check
def count_tokens() -> None:
    count = CLIENT.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": QUESTION}])
    assert count.input_tokens > 0


@check
def models() -> None:
    assert MODEL in [model.id for model in CLIENT.models.list()]


@check
def error_too_long() -> None:
    error = raises(anthropic.BadRequestError, lambda: message(too_long()))
    assert error.body["error"]["type"] == "invalid_request_error", error.body
    assert "prompt is too long" in error.body["error"]["message"], error.body


@check
def error_of_a_field() -> None:
    error = raises(anthropic.BadRequestError, lambda: message(max_tokens=-1))
    assert error.body["type"] == "error", error.body
    assert error.body["error"]["type"] == "invalid_request_error", error.body


@check
def error_of_an_image() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    raises(anthropic.BadRequestError, lambda: message(messages=[{"role": "user", "content": [image]}]))


@check
def error_of_batches() -> None:
    """They are not served, in Anthropic's shape."""
    error = raises(anthropic.NotFoundError, lambda: CLIENT.messages.batches.list())
    assert error.body["error"]["type"] == "not_found_error", error.body


@check
def error_unknown_model() -> None:
    error = raises(anthropic.NotFoundError, lambda: message(model="none"))
    assert error.body["error"]["type"] == "not_found_error", error.body


run()
