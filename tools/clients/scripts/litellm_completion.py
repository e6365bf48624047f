"""LiteLLM, with its providers openai, hosted_vllm and anthropic."""

from __future__ import annotations

import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it fetches a list of models when it is imported

import litellm
from checks import (
    API_KEY,
    BASE_URL,
    LOCATION,
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
from pydantic import BaseModel

litellm.suppress_debug_info = True
FUNCTION = {"name": "get_weather", "description": "Gets the current weather of a city.", "parameters": LOCATION}
TOOLS = [{"type": "function", "function": FUNCTION}]
PROVIDERS = {"openai": f"{BASE_URL}/v1", "hosted_vllm": f"{BASE_URL}/v1", "anthropic": BASE_URL}


class Person(BaseModel):
    name: str
    age: int


def server(provider: str = "hosted_vllm") -> dict[str, Any]:
    address = {"api_base": PROVIDERS[provider], "api_key": API_KEY}
    return {"model": f"{provider}/{MODEL}", "timeout": TIMEOUT_S, "max_retries": 0, "temperature": 0, **address}


def ask(question: str = QUESTION, provider: str = "hosted_vllm", **fields: Any) -> Any:
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": 300, **server(provider), **fields}
    return litellm.completion(**body)


def answer(*given: Any, **fields: Any) -> Any:
    return ask(*given, **fields).choices[0].message


def of_each(name: str) -> Any:
    """Decorates a check that takes a provider: one for each."""

    def decorate(function: Any) -> Any:
        for provider in PROVIDERS:

            def one(provider: str = provider) -> None:
                function(provider)

            one.__name__ = f"{provider}_{name}"
            check(one)
        return function

    return decorate


@of_each("text")
def text(provider: str) -> None:
    is_text(answer(provider=provider).content, "Paris")


@of_each("stream")
def stream(provider: str) -> None:
    chunks = list(ask(provider=provider, stream=True))
    is_text("".join(chunk.choices[0].delta.content or "" for chunk in chunks), "Paris")


@of_each("tool")
def tool(provider: str) -> None:
    is_location(answer(WEATHER, provider=provider, tools=TOOLS).tool_calls[0].function.arguments)


@of_each("error_too_long")
def error_too_long(provider: str) -> None:
    raises(litellm.ContextWindowExceededError, lambda: ask(too_long(), provider=provider))


@check
def reasoning() -> None:
    is_text(answer(reasoning_effort="low").reasoning_content)


@check
def tool_result() -> None:
    call = answer(WEATHER, tools=TOOLS)
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": '{"temperature": 21}'}
    turns = [{"role": "user", "content": WEATHER}, call.model_dump(exclude_none=True), result]
    is_text(answer(messages=turns, tools=TOOLS).content, "21")


@check
def tool_choice_none() -> None:
    message = answer(WEATHER, tools=TOOLS, tool_choice="none")
    assert not message.tool_calls, message.tool_calls
    is_text(message.content)


@check
def tool_choice_required() -> None:
    is_location(answer(tools=TOOLS, tool_choice="required").tool_calls[0].function.arguments)


@check
def response_format() -> None:
    content = answer(PERSON, response_format=Person).content
    assert Person.model_validate_json(content) == Person(name="Alice", age=30), content


@check
def stop() -> None:
    content = answer(stop=[" is"]).content
    is_text(content)
    assert " is" not in content, content


@check
def text_completion() -> None:
    fields = {**server("openai"), "model": f"text-completion-openai/{MODEL}", "max_tokens": 5}
    is_text(litellm.text_completion(prompt="The capital of France is", **fields).choices[0].text, "Paris")


@check
def responses() -> None:
    found = litellm.responses(input=QUESTION, **server("openai"))
    is_text("".join(part.text for item in found.output if item.type == "message" for part in item.content), "Paris")


@check
def responses_stream() -> None:
    events = list(litellm.responses(input=QUESTION, stream=True, **server("openai")))
    is_text("".join(event.delta for event in events if event.type == "response.output_text.delta"), "Paris")


@check
async def asynchronous() -> None:
    found = await litellm.acompletion(messages=[{"role": "user", "content": QUESTION}], **server())
    is_text(found.choices[0].message.content, "Paris")


run()
