"""LangChain's ChatOpenAI and OpenAI."""

from __future__ import annotations

from typing import Any

import openai
from checks import (
    API_KEY,
    BASE_URL,
    MODEL,
    PERSON,
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
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

SERVER = {"base_url": f"{BASE_URL}/v1", "api_key": API_KEY, "model": MODEL, "temperature": 0}
CHAT = ChatOpenAI(timeout=TIMEOUT_S, max_retries=0, **SERVER)
RESPONSES = ChatOpenAI(timeout=TIMEOUT_S, max_retries=0, use_responses_api=True, **SERVER)


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@tool
def get_weather(location: str) -> str:
    """Gets the current weather of a city."""
    return f"21 degrees Celsius and sunny in {location}"


def is_alice(value: Any) -> None:
    assert value == Person(name="Alice", age=30), value


def calls_once(answer: Any) -> None:
    assert answer.tool_calls, f"no call: {answer}"
    is_location(answer.tool_calls[0]["args"])


def answers_from_a_result(model: ChatOpenAI) -> None:
    bound = model.bind_tools([get_weather])
    turns: list[Any] = [HumanMessage(WEATHER)]
    turns.append(bound.invoke(turns))
    calls_once(turns[-1])
    call = turns[-1].tool_calls[0]
    turns.append(ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]))
    is_text(bound.invoke(turns).text, "21")


@check
def chat() -> None:
    answer = CHAT.invoke(QUESTION)
    is_text(answer.text, "Paris")
    assert answer.usage_metadata["output_tokens"] > 0


@check
def chat_system() -> None:
    is_text(CHAT.invoke([("system", "Answer in French."), ("human", QUESTION)]).text, "Paris")


@check
def chat_stream() -> None:
    is_text("".join(chunk.text for chunk in CHAT.stream(QUESTION)), "Paris")


@check
def chat_batch() -> None:
    for answer in CHAT.batch([QUESTION, QUESTION]):
        is_text(answer.text, "Paris")


@check
def chat_tool_and_its_result() -> None:
    answers_from_a_result(CHAT)


@check
def chat_tool_choice_none() -> None:
    answer = CHAT.bind_tools([get_weather], tool_choice="none").invoke(WEATHER)
    assert not answer.tool_calls, answer.tool_calls
    is_text(answer.text)


@check
def chat_tool_choice_required() -> None:
    calls_once(CHAT.bind_tools([get_weather], tool_choice="required").invoke(QUESTION))


@check
def chat_tool_choice_named() -> None:
    calls_once(CHAT.bind_tools([get_weather], tool_choice="get_weather").invoke(QUESTION))


@check
def chat_structured_output_json_schema() -> None:
    is_alice(CHAT.with_structured_output(Person).invoke(PERSON))


@check
def chat_structured_output_function_calling() -> None:
    assert isinstance(CHAT.with_structured_output(Person, method="function_calling").invoke(PERSON), Person)


@check
def chat_structured_output_json_mode() -> None:
    found = CHAT.with_structured_output(None, method="json_mode").invoke("Give me a JSON object with name and age.")
    assert isinstance(found, dict), found


@check
def chat_stop() -> None:
    text = CHAT.invoke(QUESTION, stop=[" is"]).text
    is_text(text)
    assert " is" not in text, text


@check
def chat_error_too_long() -> None:
    error = raises(openai.BadRequestError, lambda: CHAT.invoke(too_long()))
    assert error.code == "context_length_exceeded", error.body


@check
def responses() -> None:
    is_text(RESPONSES.invoke(QUESTION).text, "Paris")


@check
def responses_stream() -> None:
    is_text("".join(chunk.text for chunk in RESPONSES.stream(QUESTION)), "Paris")


@check
def responses_tool_and_its_result() -> None:
    answers_from_a_result(RESPONSES)


@check
def responses_tool_choice_none() -> None:
    answer = RESPONSES.bind_tools([get_weather], tool_choice="none").invoke(WEATHER)
    assert not answer.tool_calls, answer.tool_calls
    is_text(answer.text)


@check
def responses_structured_output() -> None:
    is_alice(RESPONSES.with_structured_output(Person).invoke(PERSON))


@check
def responses_previous_response() -> None:
    model = ChatOpenAI(timeout=TIMEOUT_S, use_responses_api=True, use_previous_response_id=True, **SERVER)
    turns: list[Any] = [HumanMessage("My name is Ada.")]
    turns += [model.invoke(turns), HumanMessage("What is my name?")]
    is_text(model.invoke(turns).text, "Ada")


@check
def completion() -> None:
    is_text(OpenAI(max_tokens=5, **SERVER).invoke("The capital of France is"), "Paris")


run()
