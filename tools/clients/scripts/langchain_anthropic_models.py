"""LangChain's ChatAnthropic."""

from __future__ import annotations

from typing import Any

import anthropic
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
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel


def model(**fields: Any) -> ChatAnthropic:
    given = {"max_tokens": 300, "timeout": TIMEOUT_S, "max_retries": 0, **fields}
    return ChatAnthropic(base_url=BASE_URL, api_key=API_KEY, model=MODEL, **given)


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@tool
def get_weather(location: str) -> str:
    """Gets the current weather of a city."""
    return f"21 degrees Celsius and sunny in {location}"


@check
def text() -> None:
    is_text(model().invoke(QUESTION).text, "Paris")


@check
def stream() -> None:
    is_text("".join(chunk.text for chunk in model().stream(QUESTION)), "Paris")


@check
def tool_and_its_result() -> None:
    bound = model().bind_tools([get_weather])
    turns: list[Any] = [HumanMessage(WEATHER)]
    turns.append(bound.invoke(turns))
    call = turns[-1].tool_calls[0]
    is_location(call["args"])
    turns.append(ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]))
    is_text(bound.invoke(turns).text, "21")


@check
def tool_choice_any() -> None:
    is_location(model().bind_tools([get_weather], tool_choice="any").invoke(QUESTION).tool_calls[0]["args"])


@check
def structured_output_function_calling() -> None:
    assert isinstance(model().with_structured_output(Person, method="function_calling").invoke(PERSON), Person)


@check
def structured_output_json_schema() -> None:
    found = model().with_structured_output(Person, method="json_schema").invoke(PERSON)
    assert found == Person(name="Alice", age=30), found


@check
def thinking_with_a_budget() -> None:
    answer = model(max_tokens=2000, thinking={"type": "enabled", "budget_tokens": 1024}).invoke(QUESTION)
    assert answer.content[0]["type"] == "thinking", answer.content
    is_text(answer.text, "Paris")


@check
def stop() -> None:
    text = model().invoke(QUESTION, stop=[" is"]).text
    is_text(text)
    assert " is" not in text, text


@check
def error_too_long() -> None:
    error = raises(anthropic.BadRequestError, lambda: model().invoke(too_long()))
    assert "prompt is too long" in str(error), error


run()
