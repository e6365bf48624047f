"""pydantic-ai on chat, Responses and Anthropic's messages."""

from __future__ import annotations

from typing import Any

from checks import API_KEY, BASE_URL, MODEL, PERSON, QUESTION, WEATHER, check, is_text, run, too_long
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider


class Person(BaseModel):
    name: str
    age: int


def get_weather(location: str) -> str:
    """Gets the current weather of a city."""
    return f"21 degrees Celsius and sunny in {location}"


def agent(api: str, **fields: Any) -> Agent[None, Any]:
    if api == "messages":
        model: Any = AnthropicModel(MODEL, provider=AnthropicProvider(base_url=BASE_URL, api_key=API_KEY))
    else:
        kind = OpenAIChatModel if api == "chat" else OpenAIResponsesModel
        model = kind(MODEL, provider=OpenAIProvider(base_url=f"{BASE_URL}/v1", api_key=API_KEY))
    return Agent(model, model_settings={"temperature": 0, "max_tokens": 500}, retries=0, **fields)


async def text(api: str) -> None:
    is_text((await agent(api).run(QUESTION)).output, "Paris")


async def instructions(api: str) -> None:
    is_text((await agent(api, instructions="Answer in French.").run(QUESTION)).output, "Paris")


async def stream(api: str) -> None:
    async with agent(api).run_stream(QUESTION) as result:
        is_text("".join([part async for part in result.stream_text(delta=True)]), "Paris")


async def tool(api: str) -> None:
    is_text((await agent(api, tools=[get_weather]).run(WEATHER)).output, "21")


async def second_turn(api: str) -> None:
    first = await agent(api).run("My name is Ada.")
    is_text((await agent(api).run("What is my name?", message_history=first.all_messages())).output, "Ada")


async def output_by_a_tool(api: str) -> None:
    assert isinstance((await agent(api, output_type=Person).run(PERSON)).output, Person)


async def native_output(api: str) -> None:
    found = (await agent(api, output_type=NativeOutput(Person)).run(PERSON)).output
    assert found == Person(name="Alice", age=30), found


async def error_too_long(api: str) -> None:
    try:
        await agent(api).run(too_long())
    except ModelHTTPError as error:
        sentence = "prompt is too long" if api == "messages" else "context_length_exceeded"
        assert sentence in str(error.body), error.body
    else:
        raise AssertionError("no error")


def named(function: Any, api: str) -> Any:
    async def one() -> None:
        await function(api)

    one.__name__ = f"{api}_{function.__name__}"
    return one


for name in ("chat", "responses", "messages"):
    for each in (text, instructions, stream, tool, second_turn, output_by_a_tool, error_too_long):
        check(named(each, name))
    if name != "messages":  # where it refuses by itself for a model that it does not know
        check(named(native_output, name))


run()
