"""Budgets of reasoning tokens on every route, with the real engine. Uncut, the demo model reasons for seven tokens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.server import MODEL, NO_TLS, ServedProcess
from tests.waiting import HANG_S

pytestmark = pytest.mark.engine

QUESTION = "What is the capital of France?"
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]
WHOLE = "The capital of France is Paris."
CUT: list[Any] = [(0, ""), (1, "The"), (3, "The capital of"), (100, WHOLE), (-1, WHOLE)]
SCHEMA = {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}
GET_WEATHER: dict[str, Any] = {"name": "get_weather", "description": "Gets the weather.", "parameters": SCHEMA}
WEATHER: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
GREEDY = {"temperature": 0}  # which Anthropic's SDK has no parameter for
WRONG: list[Any] = [-2, "3", 1.5, True, [1], 2**70]


@pytest.fixture(scope="module")
def http(server: ServedProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=HANG_S, verify=NO_TLS) as client:
        yield client


@pytest.fixture(scope="module")
def claude(server: ServedProcess) -> Iterator[anthropic.Anthropic]:
    """Anthropic's own SDK, pointed at the server."""
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=HANG_S) as sdk:
        yield sdk


def asked(path: str, **fields: Any) -> dict[str, Any]:
    """A request of this route for the question."""
    prompt: dict[str, Any] = {"input": QUESTION} if path == "/v1/responses" else {"messages": MESSAGES}
    return {"model": MODEL, "temperature": 0, **prompt, **fields}


# Chats


@pytest.mark.parametrize(("budget", "reasoning"), CUT)
def test_chat_reasons_no_longer_than_its_budget(client: openai.OpenAI, budget: int, reasoning: str) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, temperature=0, extra_body={"thinking_token_budget": budget}
    )

    message = answer.choices[0].message
    assert ((message.model_extra or {})["reasoning"] or "") == reasoning
    assert message.content == WHOLE


@pytest.mark.parametrize(("budget", "reasoning"), CUT)
def test_stream_of_a_chat_reasons_no_longer_than_its_budget(client: openai.OpenAI, budget: int, reasoning: str) -> None:
    chunks = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, temperature=0, stream=True, extra_body={"thinking_token_budget": budget}
    )

    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join((delta.model_extra or {}).get("reasoning") or "" for delta in deltas) == reasoning
    assert "".join(delta.content or "" for delta in deltas) == WHOLE


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize("budget", WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_budget_that_is_no_number_of_tokens_is_refused(
    http: httpx.Client, path: str, budget: Any, stream: bool
) -> None:
    response = http.post(path, json=asked(path, thinking_token_budget=budget, stream=stream))

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "thinking_token_budget"


def test_tool_can_be_called_once_the_budget_is_used_up(client: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "function": GET_WEATHER}]
    answer = client.chat.completions.create(
        model=MODEL,
        messages=WEATHER,
        temperature=0,
        tools=tools,
        tool_choice="required",
        extra_body={"thinking_token_budget": 3},
    )

    message: Any = answer.choices[0].message
    (call,) = message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"location": "Paris"})
    assert message.reasoning == "The user wants"


def test_budgets_of_requests_in_one_batch_are_their_own(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, temperature=0, n=3, extra_body={"thinking_token_budget": 2}
    )

    assert [(choice.message.model_extra or {})["reasoning"] for choice in answer.choices] == ["The capital"] * 3
    assert {choice.message.content for choice in answer.choices} == {WHOLE}


# The other routes


@pytest.mark.parametrize(("budget", "reasoning"), CUT)
def test_response_reasons_no_longer_than_its_budget(client: openai.OpenAI, budget: int, reasoning: str) -> None:
    response = client.responses.create(
        model=MODEL, input=QUESTION, temperature=0, extra_body={"thinking_token_budget": budget}
    )

    (thought,) = [item for item in response.output if item.type == "reasoning"]
    assert "".join(part.text for part in thought.content or []) == reasoning
    assert response.output_text == WHOLE


def test_stream_of_a_response_reasons_no_longer_than_its_budget(client: openai.OpenAI) -> None:
    events = client.responses.create(
        model=MODEL, input=QUESTION, temperature=0, stream=True, extra_body={"thinking_token_budget": 3}
    )

    found = list(events)
    reasoning = "".join(event.delta for event in found if event.type == "response.reasoning_text.delta")
    assert (reasoning, found[-1].type) == ("The capital of", "response.completed")


@pytest.mark.parametrize(
    ("opened", "budget", "text"),
    [
        ("", 0, "<|channel|>analysis<|message|><|end|><|start|>assistant<|channel|>final<|message|>"),
        ("", 3, "<|channel|>analysis<|message|>The capital of<|end|><|start|>assistant<|channel|>final<|message|>"),
        ("<|channel|>analysis<|message|>", 0, "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ],
)
def test_completion_counts_its_budget_from_the_beginning_of_the_analysis(
    http: httpx.Client, opened: str, budget: int, text: str
) -> None:
    prompt = f"<|start|>user<|message|>{QUESTION}<|end|><|start|>assistant{opened}"
    body = {"prompt": prompt, "max_tokens": 60, "temperature": 0, "skip_special_tokens": False}
    response = http.post("/v1/completions", json={**body, "thinking_token_budget": budget})

    assert response.json()["choices"][0]["text"] == text + WHOLE


@pytest.mark.parametrize(
    "job_input",
    [
        {"messages": MESSAGES, "sampling_params": {"temperature": 0, "thinking_token_budget": 3}},
        {"messages": MESSAGES, "sampling_params": {"temperature": 0}, "thinking_token_budget": 3},
        {"messages": MESSAGES, "stream": True, "sampling_params": {"temperature": 0, "thinking_token_budget": 3}},
    ],
)
def test_job_reasons_no_longer_than_its_budget(http: httpx.Client, job_input: dict[str, Any]) -> None:
    job = http.post("/runsync", json={"input": job_input}).json()

    assert job["status"] == "COMPLETED", job
    reasoning = "".join(choice.get("reasoning") or "" for item in job["output"] for choice in item["choices"])
    assert reasoning == "The capital of"


def test_job_with_several_answers_at_temperature_0_has_the_likeliest_twice(http: httpx.Client) -> None:
    job = http.post("/runsync", json={"input": {"messages": MESSAGES, "sampling_params": {"n": 2, "temperature": 0}}})

    assert [choice["tokens"] for choice in job.json()["output"][0]["choices"]] == [[WHOLE]] * 2


# Anthropic's API, whose least budget is longer than the demo model reasons


@pytest.mark.parametrize("thinking", [{"type": "enabled", "budget_tokens": 1024}, {"type": "adaptive"}])
def test_message_with_thinking_has_a_thinking_block(claude: anthropic.Anthropic, thinking: Any) -> None:
    message = claude.messages.create(
        model=MODEL, max_tokens=2000, messages=MESSAGES, extra_body=GREEDY, thinking=thinking
    )

    assert [block.type for block in message.content] == ["thinking", "text"]


def test_stream_of_a_message_with_thinking_joins_to_the_same_blocks(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(
        model=MODEL, max_tokens=2000, messages=MESSAGES, thinking={"type": "enabled", "budget_tokens": 1024}
    ) as stream:
        message = stream.get_final_message()

    assert [block.type for block in message.content] == ["thinking", "text"]


def test_message_with_thinking_disabled_has_no_thinking_block(claude: anthropic.Anthropic) -> None:
    disabled: Any = {"type": "disabled"}
    tool: Any = {"name": "get_weather", "input_schema": SCHEMA}
    text = claude.messages.create(model=MODEL, max_tokens=2000, messages=MESSAGES, extra_body=GREEDY, thinking=disabled)
    called = claude.messages.create(
        model=MODEL, max_tokens=2000, messages=WEATHER, extra_body=GREEDY, thinking=disabled, tools=[tool]
    )
    with claude.messages.stream(model=MODEL, max_tokens=2000, messages=MESSAGES, thinking=disabled) as stream:
        streamed = stream.get_final_message()

    assert [block.type for block in text.content] == ["text"]
    assert [block.type for block in called.content] == ["tool_use"]
    assert [block.type for block in streamed.content] == ["text"]


@pytest.mark.parametrize(
    ("thinking", "words"),
    [
        ({"type": "enabled", "budget_tokens": 0}, "thinking.enabled.budget_tokens: Input should be greater than or"),
        ({"type": "enabled", "budget_tokens": -1}, "thinking.enabled.budget_tokens: Input should be greater than or"),
        ({"type": "enabled", "budget_tokens": "many"}, "thinking.enabled.budget_tokens: Input should be a valid int"),
        ({"type": "enabled"}, "thinking.enabled.budget_tokens: Field required"),
        ({"type": "enabled", "budget_tokens": 2000}, "thinking.budget_tokens must be less than max_tokens"),
        ({"type": "enabled", "budget_tokens": 2**70}, "thinking.budget_tokens must be a number of at most 64 bits"),
        ({"type": "off"}, "thinking: Input tag 'off' found using 'type' does not match"),
    ],
)
def test_thinking_that_is_wrong_is_an_error_of_anthropics_kind(
    claude: anthropic.Anthropic, thinking: Any, words: str
) -> None:
    with pytest.raises(anthropic.BadRequestError) as refused:
        claude.messages.create(model=MODEL, max_tokens=2000, messages=MESSAGES, thinking=thinking)

    body: Any = refused.value.body
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["message"].startswith(words)


# verbosity


@pytest.mark.parametrize(("path", "name"), [("/v1/chat/completions", "messages"), ("/v1/responses", "input")])
def test_verbosity_makes_the_prompt_longer_by_a_sentence(http: httpx.Client, path: str, name: str) -> None:
    field = {"verbosity": "low"} if name == "messages" else {"text": {"verbosity": "low"}}
    plain, short = (http.post(path, json=asked(path, **each)).json()["usage"] for each in ({}, field))

    counted = "prompt_tokens" if name == "messages" else "input_tokens"
    assert 10 < short[counted] - plain[counted] < 40
