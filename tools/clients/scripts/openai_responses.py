"""OpenAI's SDK for Python: Responses."""

from __future__ import annotations

import json
import time
import urllib.request
from typing import Any

import openai
from checks import (
    API_KEY,
    BASE_URL,
    LOCATION,
    MODEL,
    PERSON,
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
TOOL = {"type": "function", "name": "get_weather", "description": "Gets the weather of a city.", "parameters": LOCATION}
STORY = "Write a short story about a robot."


class Person(BaseModel):
    name: str
    age: int


def respond(question: Any = QUESTION, **fields: Any) -> Any:
    return CLIENT.responses.create(model=MODEL, input=question, temperature=0, **fields)


def calls(response: Any) -> list[Any]:
    return [item for item in response.output if item.type == "function_call"]


def first_call(response: Any) -> Any:
    assert calls(response), f"no call: {response.output}"
    return calls(response)[0]


@check
def text() -> None:
    response = respond()
    is_text(response.output_text, "Paris")
    assert response.status == "completed"


@check
def reasoning_at_each_effort() -> None:
    for effort in ("low", "medium", "high"):
        response = respond(reasoning={"effort": effort})
        reasoning = next(item for item in response.output if item.type == "reasoning")
        is_text(reasoning.content[0].text)


@check
def stream() -> None:
    events = list(respond(stream=True))
    is_text("".join(event.delta for event in events if event.type == "response.output_text.delta"), "Paris")
    assert events[-1].type == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))


@check
def stream_helper() -> None:
    with CLIENT.responses.stream(model=MODEL, input=PERSON, temperature=0, text_format=Person) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_parsed == Person(name="Alice", age=30)


@check
def parse_helper() -> None:
    response = CLIENT.responses.parse(model=MODEL, input=PERSON, text_format=Person, temperature=0)
    assert response.output_parsed == Person(name="Alice", age=30)


@check
async def asynchronous() -> None:
    async with openai.AsyncOpenAI(base_url=f"{BASE_URL}/v1", api_key=API_KEY, timeout=TIMEOUT_S) as client:
        is_text((await client.responses.create(model=MODEL, input=QUESTION, temperature=0)).output_text, "Paris")


@check
def tool_and_its_result() -> None:
    call = first_call(respond(WEATHER, tools=[TOOL]))
    is_location(call.arguments)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": '{"temperature": 21}'}
    turns = [{"role": "user", "content": WEATHER}, call.model_dump(exclude_none=True), result]
    is_text(respond(turns, tools=[TOOL]).output_text, "21")


@check
def tool_result_after_previous_response() -> None:
    response = respond(WEATHER, tools=[TOOL])
    result = {"type": "function_call_output", "call_id": first_call(response).call_id, "output": "21 degrees, sunny"}
    is_text(respond([result], tools=[TOOL], previous_response_id=response.id).output_text, "21")


@check
def tool_result_as_a_list_of_text() -> None:
    call = first_call(respond(WEATHER, tools=[TOOL]))
    output = [{"type": "input_text", "text": "21 degrees, sunny"}]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": output}
    turns = [{"role": "user", "content": WEATHER}, call.model_dump(exclude_none=True), result]
    is_text(respond(turns, tools=[TOOL]).output_text, "21")


@check
def tool_streamed() -> None:
    events = list(respond(WEATHER, tools=[TOOL], stream=True))
    is_location("".join(event.delta for event in events if event.type == "response.function_call_arguments.delta"))
    done = [e for e in events if e.type == "response.output_item.done" and e.item.type == "function_call"]
    assert done[0].output_index >= 0, f"output_index {done[0].output_index}"


@check
def tool_choice_none() -> None:
    response = respond(WEATHER, tools=[TOOL], tool_choice="none")
    assert not calls(response), calls(response)
    is_text(response.output_text)


@check
def tool_choice_required() -> None:
    is_location(first_call(respond(tools=[TOOL], tool_choice="required")).arguments)


@check
def tool_choice_named() -> None:
    choice = {"type": "function", "name": "get_weather"}
    is_location(first_call(respond(tools=[TOOL], tool_choice=choice)).arguments)


@check
def json_schema_beside_a_tool_that_is_called() -> None:
    schema = {"type": "json_schema", "name": "person", "schema": Person.model_json_schema()}
    is_location(first_call(respond(WEATHER, tools=[TOOL], text={"format": schema})).arguments)


@check
def previous_response() -> None:
    first = respond("My name is Ada.")
    is_text(respond("What is my name?", previous_response_id=first.id).output_text, "Ada")


@check
def instructions_of_the_next_turn() -> None:
    first = respond()
    fields = {"previous_response_id": first.id, "instructions": "Answer in French."}
    french = respond("What is the capital of Japan?", instructions="Answer in French.").output_text
    again = respond("What is the capital of Japan?", **fields).output_text
    assert again == french, f"{again!r} is not {french!r}"


@check
def item_reference() -> None:
    first = respond()
    message = next(item for item in first.output if item.type == "message")
    turns = [{"role": "user", "content": QUESTION}, {"type": "item_reference", "id": message.id}]
    is_text(respond([*turns, {"role": "user", "content": "And of Japan?"}]).output_text, "Tokyo")


@check
def length_in_a_stream_is_incomplete() -> None:
    events = list(respond(STORY, max_output_tokens=20, stream=True))
    assert events[-1].type == "response.incomplete", events[-1].type


@check
def reasoning_tokens_without_the_arguments_of_a_call() -> None:
    response = respond(WEATHER, tools=[TOOL])
    reasoning = next(item for item in response.output if item.type == "reasoning").content[0].text
    body = json.dumps({"model": MODEL, "prompt": reasoning, "add_special_tokens": False}).encode()
    headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{BASE_URL}/tokenize", data=body, headers=headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        tokens = json.load(answer)["count"]
    counted = response.usage.output_tokens_details.reasoning_tokens
    assert counted <= tokens + 2, f"{counted} of {tokens}"


@check
def background_and_retrieve() -> None:
    response = respond(background=True)
    while response.status in ("queued", "in_progress"):
        time.sleep(0.2)
        response = CLIENT.responses.retrieve(response.id)
    is_text(response.output_text, "Paris")


@check
def background_cancelled() -> None:
    response = respond(STORY, background=True, extra_body={"ignore_eos": True}, max_output_tokens=2000)
    assert CLIENT.responses.cancel(response.id).status == "cancelled"


@check
def retrieve_as_a_stream() -> None:
    events = list(CLIENT.responses.retrieve(respond().id, stream=True))
    assert events[-1].type == "response.completed", events[-1]


@check
def delete() -> None:
    response = respond()
    CLIENT.responses.delete(response.id)
    raises(openai.NotFoundError, lambda: CLIENT.responses.retrieve(response.id))


@check
def input_items() -> None:
    assert CLIENT.responses.input_items.list(respond().id).data[0].type == "message"


@check
def input_tokens() -> None:
    assert CLIENT.responses.input_tokens.count(model=MODEL, input=QUESTION).input_tokens > 0


@check
def conversation() -> None:
    conversation = CLIENT.conversations.create()
    respond("My name is Ada.", conversation=conversation.id)
    is_text(respond("What is my name?", conversation=conversation.id).output_text, "Ada")


@check
def error_too_long() -> None:
    error = raises(openai.BadRequestError, lambda: respond(too_long()))
    assert error.code == "context_length_exceeded", error.body


@check
def error_too_long_with_truncation() -> None:
    """Refused, or cut so that an answer has room."""
    try:
        is_text(respond(too_long(), truncation="auto").output_text)
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded", error.body


@check
def error_names_the_field() -> None:
    error = raises(openai.BadRequestError, lambda: respond(reasoning={"effort": "huge"}))
    assert error.param == "reasoning.effort", error.body
    unknown = raises(openai.NotFoundError, lambda: respond(previous_response_id="resp_none"))
    assert unknown.param == "previous_response_id", unknown.body


@check
def error_of_an_image() -> None:
    image = {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"}
    raises(openai.BadRequestError, lambda: respond([{"role": "user", "content": [image]}]))


@check
def include_reasoning_is_refused_or_honoured() -> None:
    try:
        response = respond(extra_body={"include_reasoning": False})
    except openai.BadRequestError as error:
        assert error.param == "include_reasoning", error.body
    else:
        assert all(item.type != "reasoning" for item in response.output), "the reasoning is there"


run()
