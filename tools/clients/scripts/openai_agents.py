"""OpenAI's Agents SDK for Python, on Responses and on chat."""

from __future__ import annotations

from typing import Any

import openai
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from checks import API_KEY, BASE_URL, MODEL, PERSON, QUESTION, TIMEOUT_S, WEATHER, check, is_text, run, too_long
from pydantic import BaseModel

set_tracing_disabled(True)


class Person(BaseModel):
    name: str
    age: int


@function_tool
def get_weather(location: str) -> str:
    """Gets the current weather of a city."""
    return f"21 degrees Celsius and sunny in {location}"


def agent(api: str, choice: str | None = None, **fields: Any) -> Agent[None]:
    """A new client each time: each check runs in an event loop of its own."""
    client = openai.AsyncOpenAI(base_url=f"{BASE_URL}/v1", api_key=API_KEY, timeout=TIMEOUT_S, max_retries=0)
    kind = OpenAIResponsesModel if api == "responses" else OpenAIChatCompletionsModel
    settings = ModelSettings(temperature=0, tool_choice=choice)
    return Agent(name="helper", model=kind(MODEL, client), model_settings=settings, **fields)


async def text(api: str) -> None:
    is_text((await Runner.run(agent(api), QUESTION)).final_output, "Paris")


async def instructions(api: str) -> None:
    is_text((await Runner.run(agent(api, instructions="Answer in French."), QUESTION)).final_output, "Paris")


async def tool(api: str) -> None:
    is_text((await Runner.run(agent(api, tools=[get_weather]), WEATHER)).final_output, "21")


async def stream(api: str) -> None:
    result = Runner.run_streamed(agent(api), QUESTION)
    events = [event async for event in result.stream_events()]
    assert any(event.type == "raw_response_event" for event in events)
    is_text(result.final_output, "Paris")


async def stream_with_a_tool(api: str) -> None:
    result = Runner.run_streamed(agent(api, tools=[get_weather]), WEATHER)
    events = [event async for event in result.stream_events()]
    assert any(getattr(event, "name", "") == "tool_called" for event in events)
    is_text(result.final_output, "21")


async def output_type(api: str) -> None:
    result = await Runner.run(agent(api, output_type=Person), PERSON)
    assert result.final_output == Person(name="Alice", age=30), result.final_output


def called(result: Any) -> bool:
    return any(item.type == "tool_call_item" for item in result.new_items)


async def output_type_beside_a_tool(api: str) -> None:
    result = await Runner.run(agent(api, output_type=Person, tools=[get_weather]), WEATHER)
    assert called(result), "no call"


async def tool_choice_none(api: str) -> None:
    result = await Runner.run(agent(api, "none", tools=[get_weather]), WEATHER)
    assert not called(result), "a call"
    is_text(result.final_output)


async def tool_choice_required(api: str) -> None:
    assert called(await Runner.run(agent(api, "required", tools=[get_weather]), WEATHER)), "no call"


async def session(api: str) -> None:
    session = SQLiteSession("one")
    await Runner.run(agent(api), "My name is Ada.", session=session)
    is_text((await Runner.run(agent(api), "What is my name?", session=session)).final_output, "Ada")


async def handoff(api: str) -> None:
    """The demo model hands nothing over; the request with the function of the hand-off must be answered."""
    french = Agent(name="French", handoff_description="Answers in French.", model=agent(api).model)
    is_text((await Runner.run(agent(api, handoffs=[french]), QUESTION)).final_output)


async def error_too_long(api: str) -> None:
    try:
        await Runner.run(agent(api), too_long())
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded", error.body
    else:
        raise AssertionError("no error")


def named(function: Any, api: str) -> Any:
    async def one() -> None:
        await function(api)

    one.__name__ = f"{api}_{function.__name__}"
    return one


TURNS = (text, instructions, tool, stream, stream_with_a_tool, session, handoff)
REST = (output_type, output_type_beside_a_tool, tool_choice_none, tool_choice_required, error_too_long)
for name in ("responses", "chat"):
    for each in (*TURNS, *REST):
        check(named(each, name))


@check
async def responses_next_turn_with_other_instructions() -> None:
    first = await Runner.run(agent("responses"), QUESTION)
    french = {"instructions": "Answer in French."}
    question = "What is the capital of Japan?"
    alone = await Runner.run(agent("responses", **french), question)
    again = await Runner.run(agent("responses", **french), question, previous_response_id=first.last_response_id)
    assert again.final_output == alone.final_output, f"{again.final_output!r} is not {alone.final_output!r}"


run()
