"""OpenAI's SDK for Python: chat and completions."""

from __future__ import annotations

import json
from typing import Any

import openai
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

CLIENT = openai.OpenAI(base_url=f"{BASE_URL}/v1", api_key=API_KEY, timeout=TIMEOUT_S, max_retries=0)
FUNCTION = {"name": "get_weather", "description": "Gets the current weather of a city.", "parameters": LOCATION}
TOOLS = [{"type": "function", "function": FUNCTION}]
NAMED = {"type": "function", "function": {"name": "get_weather"}}


class Person(BaseModel):
    name: str
    age: int


def chat(question: str = QUESTION, **fields: Any) -> Any:
    messages = fields.pop("messages", [{"role": "user", "content": question}])
    return CLIENT.chat.completions.create(model=MODEL, messages=messages, temperature=0, **fields)


def first_call(answer: Any) -> Any:
    calls = answer.choices[0].message.tool_calls
    assert calls, f"no call: {answer.choices[0].message}"
    return calls[0]


@check
def models() -> None:
    assert CLIENT.models.retrieve(CLIENT.models.list().data[0].id).id == MODEL


@check
def text() -> None:
    is_text(chat().choices[0].message.content, "Paris")


@check
def reasoning_at_each_effort() -> None:
    for effort in ("low", "medium", "high"):
        message = chat(reasoning_effort=effort).choices[0].message
        is_text(message.content, "Paris")
        is_text(message.model_extra["reasoning"])


@check
def stream_with_usage() -> None:
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    is_text("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices), "Paris")
    assert chunks[-1].usage.completion_tokens > 0


@check
def stream_helper() -> None:
    messages = [{"role": "user", "content": PERSON}]
    with CLIENT.chat.completions.stream(
        model=MODEL, messages=messages, temperature=0, response_format=Person
    ) as stream:
        kinds = {event.type for event in stream}
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert {"content.delta", "content.done"} <= kinds, kinds
    assert parsed == Person(name="Alice", age=30), parsed


@check
async def asynchronous_stream() -> None:
    async with openai.AsyncOpenAI(base_url=f"{BASE_URL}/v1", api_key=API_KEY, timeout=TIMEOUT_S) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": QUESTION}], temperature=0, stream=True
        )
        is_text("".join([chunk.choices[0].delta.content or "" async for chunk in stream]), "Paris")


@check
def several_answers() -> None:
    answer = chat(n=2)
    assert [bool(choice.message.content) for choice in answer.choices] == [True, True]


@check
def tool_and_its_result() -> None:
    answer = chat(WEATHER, tools=TOOLS)
    call = first_call(answer)
    is_location(call.function.arguments)
    assert answer.choices[0].finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 21, "condition": "sunny"}'}
    messages = [{"role": "user", "content": WEATHER}, answer.choices[0].message, result]
    is_text(chat(messages=messages, tools=TOOLS).choices[0].message.content, "21")


@check
def tool_streamed() -> None:
    chunks = chat(WEATHER, tools=TOOLS, stream=True)
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert calls[0].function.name == "get_weather"
    is_location("".join(call.function.arguments or "" for call in calls))


@check
def tool_choice_none() -> None:
    message = chat(WEATHER, tools=TOOLS, tool_choice="none").choices[0].message
    assert not message.tool_calls, message.tool_calls
    is_text(message.content)


@check
def tool_choice_required() -> None:
    is_location(first_call(chat(tools=TOOLS, tool_choice="required")).function.arguments)


@check
def tool_choice_named() -> None:
    is_location(first_call(chat(tools=TOOLS, tool_choice=NAMED)).function.arguments)


@check
def tool_with_arguments_held_to_its_schema() -> None:
    """The model would call it with a location of its own; the schema asks for another name and a number."""
    parameters = {
        "type": "object",
        "properties": {"unit": {"enum": ["c", "f"]}, "days": {"type": "integer"}},
        "required": ["unit", "days"],
        "additionalProperties": False,
    }
    tools = [{"type": "function", "function": {**FUNCTION, "parameters": parameters}}]
    arguments = json.loads(first_call(chat(WEATHER, tools=tools, tool_choice="required")).function.arguments)
    assert arguments.keys() == {"unit", "days"}, arguments
    assert arguments["unit"] in ("c", "f"), arguments


@check
def parse_helper() -> None:
    messages = [{"role": "user", "content": PERSON}]
    answer = CLIENT.chat.completions.parse(model=MODEL, messages=messages, response_format=Person, temperature=0)
    assert answer.choices[0].message.parsed == Person(name="Alice", age=30)


@check
def parse_helper_with_a_tool() -> None:
    tool = openai.pydantic_function_tool(Person, name="save_person")
    messages = [{"role": "user", "content": PERSON}]
    answer = CLIENT.chat.completions.parse(
        model=MODEL, messages=messages, tools=[tool], tool_choice="required", temperature=0
    )
    assert isinstance(first_call(answer).function.parsed_arguments, Person)


@check
def json_schema_beside_a_tool_that_is_called() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON_SCHEMA}}
    is_location(first_call(chat(WEATHER, tools=TOOLS, response_format=schema)).function.arguments)


@check
def json_object() -> None:
    content = chat("Give me a JSON object with name and age.", response_format={"type": "json_object"}).choices[0]
    assert isinstance(json.loads(content.message.content), dict)


@check
def stop() -> None:
    choice = chat(stop=[" is"]).choices[0]
    is_text(choice.message.content)
    assert " is" not in choice.message.content, choice.message.content
    assert choice.finish_reason == "stop", choice.finish_reason


@check
def stop_streamed() -> None:
    content = "".join(chunk.choices[0].delta.content or "" for chunk in chat(stop=[" is"], stream=True))
    is_text(content)
    assert " is" not in content, content


@check
def log_probabilities_of_the_answer_alone() -> None:
    choice = chat(logprobs=True, top_logprobs=2).choices[0]
    tokens = "".join(entry.token for entry in choice.logprobs.content)
    assert tokens == choice.message.content, tokens


@check
def length() -> None:
    assert chat(max_completion_tokens=3).choices[0].finish_reason == "length"


@check
def error_too_long() -> None:
    error = raises(openai.BadRequestError, lambda: chat(too_long()))
    assert error.code == "context_length_exceeded", error.body


@check
def error_names_the_field() -> None:
    error = raises(openai.BadRequestError, lambda: chat(max_completion_tokens=-1))
    assert error.param == "max_completion_tokens", error.body


@check
def error_of_an_image() -> None:
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    raises(openai.BadRequestError, lambda: chat(messages=[{"role": "user", "content": [image]}]))


@check
def error_of_a_pattern() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}, "required": ["a"]}
    fields = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    error = raises(openai.BadRequestError, lambda: chat(response_format=fields))
    assert "pattern" in f"{error.param} {error.message}", error.body


@check
def error_unknown_model() -> None:
    raises(openai.NotFoundError, lambda: CLIENT.chat.completions.create(model="none", messages=[]))


@check
def completion() -> None:
    answer = CLIENT.completions.create(model=MODEL, prompt="The capital of France is", max_tokens=5, temperature=0)
    is_text(answer.choices[0].text, "Paris")


@check
def completion_streamed() -> None:
    chunks = CLIENT.completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=5, temperature=0, stream=True
    )
    is_text("".join(chunk.choices[0].text for chunk in chunks), "Paris")


run()
