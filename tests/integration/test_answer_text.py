"""What is in the text of an answer, on the real engine: stop strings cut it off, control tokens are never in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from gptoss_bento.jobs.output.readers import frame_data
from tests.integration.test_disconnect import LONGEST, generated_tokens, wait_until_freed
from tests.integration.test_native_api import GET_WEATHER, joined, output_of
from tests.server import MODEL, NO_TLS, ServedProcess
from tests.waiting import HANG_S

pytestmark = pytest.mark.engine

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
WHOLE = "The capital of France is Paris."  # the demo's reasoning says "The capital of France is Paris" as well
STOPS = [
    pytest.param(["Paris"], "The capital of France is ", id="a word"),
    pytest.param(["rance is Par"], "The capital of F", id="over several tokens, from within one to within one"),
    pytest.param(["The"], "", id="the first word"),
    pytest.param(["is Paris!", "."], "The capital of France is Paris", id="the second of two"),
]

HARD_STOPS = STOPS[1:3]


@pytest.fixture(scope="module")
def http(server: ServedProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=HANG_S, verify=NO_TLS) as client:
        yield client


@pytest.fixture(scope="module")
def claude(server: ServedProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0, timeout=HANG_S) as sdk:
        yield sdk


def post(http: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    response = http.post(path, json={"model": MODEL, "temperature": 0, **body})
    assert response.status_code == 200, response.text
    return dict(response.json())


def chat(http: httpx.Client, **body: Any) -> dict[str, Any]:
    return post(http, "/v1/chat/completions", **{"messages": QUESTION, **body})


def streamed_chat(http: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    """The choices of a stream, joined: content, reasoning, logprobs, and how it ended."""
    body = {"messages": QUESTION, "model": MODEL, "temperature": 0, "stream": True, **body}
    choices: dict[int, dict[str, Any]] = {}
    with http.stream("POST", "/v1/chat/completions", json=body) as response:
        events = response.read().decode().split("\n\n")
    for data in filter(None, map(frame_data, events)):
        for part in [] if data == "[DONE]" else json.loads(data)["choices"]:
            choice = choices.setdefault(part["index"], {"content": "", "reasoning": "", "logprobs": []})
            for name in ("content", "reasoning"):
                choice[name] += part["delta"].get(name) or ""
            choice["logprobs"] += (part.get("logprobs") or {}).get("content") or []
            choice.update({name: part[name] for name in ("finish_reason", "stop_reason") if part.get(name)})
    return [choices[index] for index in sorted(choices)]


# --- stop strings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stop", "content"), STOPS)
def test_stop_string_ends_the_answer_and_not_the_reasoning(http: httpx.Client, stop: list[str], content: str) -> None:
    whole, stopped = chat(http), chat(http, stop=stop)
    choice = stopped["choices"][0]

    assert whole["choices"][0]["message"]["content"] == WHOLE
    assert choice["message"]["content"] == content
    assert choice["message"]["reasoning"] == whole["choices"][0]["message"]["reasoning"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop[-1])
    assert stopped["usage"]["completion_tokens"] < whole["usage"]["completion_tokens"]


@pytest.mark.parametrize(("stop", "content"), STOPS)
def test_stop_string_ends_a_streamed_answer(http: httpx.Client, stop: list[str], content: str) -> None:
    [choice] = streamed_chat(http, stop=stop)

    assert choice["content"] == content
    assert "Paris" in choice["reasoning"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop[-1])


def test_stop_string_that_never_comes_changes_nothing(http: httpx.Client) -> None:
    without, held = chat(http), chat(http, stop=["Paris. And", "Berlin"])

    assert held["choices"][0]["message"] == without["choices"][0]["message"]
    assert held["usage"]["completion_tokens"] == without["usage"]["completion_tokens"]
    [choice] = streamed_chat(http, stop=["Paris. And", "Berlin"])
    assert choice["content"] == WHOLE, "what was held back comes at the end"


def test_stop_string_can_be_included(http: httpx.Client) -> None:
    asked: dict[str, Any] = {"stop": "France is P", "include_stop_str_in_output": True}

    assert chat(http, **asked)["choices"][0]["message"]["content"] == "The capital of France is P"
    assert streamed_chat(http, **asked)[0]["content"] == "The capital of France is P"


def test_stop_string_ends_each_of_several_choices(http: httpx.Client) -> None:
    choices = chat(http, n=3, stop=["France"])["choices"]

    assert [choice["message"]["content"] for choice in choices] == ["The capital of "] * 3
    assert [choice["content"] for choice in streamed_chat(http, n=3, stop=["France"])] == ["The capital of "] * 3


def test_stop_string_within_the_least_number_of_tokens_is_text(http: httpx.Client) -> None:
    least = chat(http, stop=[" is"])["usage"]["completion_tokens"]

    assert chat(http, stop=[" is"], min_tokens=least)["choices"][0]["message"]["content"] == WHOLE


def test_stop_token_still_ends_all_that_is_generated(http: httpx.Client) -> None:
    first = chat(http, return_token_ids=True)["choices"][0]["token_ids"][5]
    choice = chat(http, stop_token_ids=[first])["choices"][0]

    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", first)


async def test_stop_string_ends_the_generation_in_the_engine(server: ServedProcess) -> None:
    body = {"model": MODEL, "messages": QUESTION, "temperature": 0, "ignore_eos": True, "max_tokens": LONGEST}
    async with httpx.AsyncClient(base_url=server.url, timeout=HANG_S, verify=NO_TLS) as client:
        before = await generated_tokens(client)
        answer = (await client.post("/v1/chat/completions", json={**body, "stop": "Paris"})).json()
        await wait_until_freed(client, before)

    assert answer["choices"][0]["message"]["content"] == "The capital of France is "


@pytest.mark.parametrize(("stop", "content"), HARD_STOPS)
def test_stop_sequence_ends_a_message(claude: anthropic.Anthropic, stop: list[str], content: str) -> None:
    asked: Any = {"model": MODEL, "messages": QUESTION, "max_tokens": 200, "stop_sequences": stop}
    asked["extra_body"] = {"temperature": 0}
    whole = claude.messages.create(**asked)
    with claude.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    answers: list[Any] = [whole, streamed]
    for message in answers:
        assert "".join(part.text for part in message.content if part.type == "text") == content
        assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop[-1])


@pytest.mark.parametrize(("stop", "content"), HARD_STOPS)
def test_stop_string_ends_a_response(client: openai.OpenAI, stop: list[str], content: str) -> None:
    asked: Any = {"model": MODEL, "input": QUESTION, "temperature": 0, "extra_body": {"stop": stop}}
    whole = client.responses.create(**asked)
    events = list(client.responses.create(**asked, stream=True))
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")

    assert (whole.output_text, whole.status) == (content, "completed")
    assert deltas == content
    assert [event.response.output_text for event in events if event.type == "response.completed"] == [content]
    assert all("Paris" in item.content[0].text for item in whole.output if item.type == "reasoning" and item.content)


def test_stop_string_of_a_completion_counts_in_the_raw_text(http: httpx.Client) -> None:
    asked: dict[str, Any] = {"prompt": "The capital of France is", "max_tokens": 10}
    text = post(http, "/v1/completions", **asked)["choices"][0]["text"]
    choice = post(http, "/v1/completions", **asked, stop=["Par"])["choices"][0]

    assert choice["text"] == text.partition("Par")[0]
    assert choice["stop_reason"] == "Par"


@pytest.mark.parametrize(("stop", "content"), HARD_STOPS)
@pytest.mark.parametrize("stream", [False, True])
def test_stop_string_ends_the_answer_of_a_job(http: httpx.Client, stop: list[str], content: str, stream: bool) -> None:
    parameters = {"max_tokens": 200, "temperature": 0, "stop": stop}
    output = output_of(http, {"messages": QUESTION, "stream": stream, "sampling_params": parameters})

    assert joined(output) == content
    assert "Paris" in joined(output, "reasoning")


def test_stop_string_ends_the_answer_of_a_job_of_openais_routes(http: httpx.Client) -> None:
    body = {"model": MODEL, "messages": QUESTION, "temperature": 0, "stop": ["Paris"]}
    [answer] = output_of(http, {"openai_route": "/v1/chat/completions", "openai_input": body})

    assert answer["choices"][0]["message"]["content"] == "The capital of France is "
    assert answer["choices"][0]["stop_reason"] == "Paris"


# --- control tokens --------------------------------------------------------------------------------------------------

CONSTRAINTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"choice": ["positive", "negative"]}, ["positive", "negative"]),
    ({"regex": "positive|negative"}, ["positive", "negative"]),
    ({"grammar": 'root ::= "yes" | "no"'}, ["yes", "no"]),
]


def repairs(http: httpx.Client) -> float:
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("gptoss_bento_harmony_repairs_total"))


@pytest.mark.parametrize("temperature", [0, 1])
@pytest.mark.parametrize(("constraint", "allowed"), CONSTRAINTS)
def test_constrained_answer_is_exactly_one_that_is_allowed(
    http: httpx.Client, constraint: dict[str, Any], allowed: list[str], temperature: float
) -> None:
    before, asked = repairs(http), {"structured_outputs": constraint, "temperature": temperature}

    assert chat(http, **asked)["choices"][0]["message"]["content"] in allowed
    assert streamed_chat(http, **asked)[0]["content"] in allowed
    assert repairs(http) == before


def test_constrained_text_has_no_end_after_it(http: httpx.Client) -> None:
    asked = {"structured_outputs": {"regex": "[A-Z]{4}"}, "messages": [{"role": "user", "content": "Hello"}]}
    for content in (
        chat(http, **asked)["choices"][0]["message"]["content"],
        streamed_chat(http, **asked)[0]["content"],
    ):
        assert len(content) == 4
        assert content.isupper()


@pytest.mark.parametrize(("constraint", "allowed"), CONSTRAINTS)
def test_constrained_response_is_one_message(
    client: openai.OpenAI, constraint: dict[str, Any], allowed: list[str]
) -> None:
    extra: Any = {"structured_outputs": constraint}
    response = client.responses.create(model=MODEL, input="Is it good?", temperature=0, extra_body=extra)

    assert response.output_text in allowed
    assert [item.type for item in response.output].count("message") == 1


@pytest.mark.parametrize("stream", [False, True])
def test_constrained_job_is_exactly_one_that_is_allowed(http: httpx.Client, stream: bool) -> None:
    parameters = {"max_tokens": 200, "guided_choice": ["red", "blue"]}
    output = output_of(http, {"messages": QUESTION, "stream": stream, "sampling_params": parameters})

    assert joined(output) in ("red", "blue")


def test_special_tokens_are_in_no_text_where_the_end_is_ignored(http: httpx.Client) -> None:
    """The model then goes on behind its end, with what it likes."""
    asked: dict[str, Any] = {"ignore_eos": True, "max_tokens": 120, "temperature": 1, "seed": 1}
    for body in (asked, {**asked, "skip_special_tokens": False}):
        assert "<|" not in json.dumps(chat(http, **body)["choices"][0]["message"])
        assert "<|" not in json.dumps(streamed_chat(http, **body))
    text = post(http, "/v1/completions", prompt="Once", **asked)["choices"][0]["text"]
    assert "<|" not in text


def test_answer_by_a_schema_is_content_with_stop_strings_and_log_probabilities(http: httpx.Client) -> None:
    """The grammar lets the model write `final json` or `final <|constrain|>json`."""
    schema = {"type": "object", "properties": {"city": {"const": "Paris"}}, "required": ["city"]}
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    asked: dict[str, Any] = {"response_format": form, "logprobs": True}

    answer = chat(http, **asked)["choices"][0]
    assert json.loads(answer["message"]["content"]) == {"city": "Paris"}
    assert not answer["message"].get("tool_calls")
    assert "".join(entry["token"] for entry in answer["logprobs"]["content"]) == answer["message"]["content"]
    stopped = chat(http, **asked, stop=["Par"])["choices"][0]
    assert stopped["message"]["content"] == answer["message"]["content"].partition("Par")[0]
    assert (stopped["finish_reason"], stopped["stop_reason"]) == ("stop", "Par")
    [streamed] = streamed_chat(http, **asked, stop=["Par"])
    assert (streamed["content"], streamed["stop_reason"]) == (stopped["message"]["content"], "Par")


# --- what is counted, and log probabilities --------------------------------------------------------------------------


def test_reasoning_tokens_are_without_the_arguments_of_functions(http: httpx.Client, client: openai.OpenAI) -> None:
    weather = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = chat(http, messages=weather, tools=[GET_WEATHER])
    message = answer["choices"][0]["message"]
    assert message["tool_calls"]
    thought = post(http, "/tokenize", prompt=message["reasoning"], add_special_tokens=False)["count"]
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == thought

    tool: Any = {"type": "function", **GET_WEATHER["function"]}  # type: ignore[dict-item]
    response = client.responses.create(model=MODEL, input=weather, tools=[tool], temperature=0)  # type: ignore[arg-type]
    assert response.usage
    assert response.usage.output_tokens_details.reasoning_tokens == thought


@pytest.mark.parametrize("stop", [None, ["Paris"], ["Paris. And"]])
def test_log_probabilities_are_those_of_the_content(http: httpx.Client, stop: list[str] | None) -> None:
    asked = {"logprobs": True, "top_logprobs": 2, **({"stop": stop} if stop else {})}
    whole, [streamed] = chat(http, **asked)["choices"][0], streamed_chat(http, **asked)
    entries = whole["logprobs"]["content"]
    tokens = [entry["token"] for entry in entries]

    assert streamed["logprobs"] == entries
    assert all(len(entry["top_logprobs"]) == 2 for entry in entries)
    content = whole["message"]["content"]
    assert "".join(tokens).startswith(content)
    assert "".join(tokens[:-1]) != content, "no token beyond the text"
    assert len("".join(tokens)) - len(content) < len(tokens[-1])


@pytest.mark.parametrize("asked", [{}, {"stop": ["Paris"]}, {"n": 2}, {"top_logprobs": 2, "max_tokens": 5}])
def test_log_probabilities_remain_where_the_reasoning_is_hidden(http: httpx.Client, asked: dict[str, Any]) -> None:
    asked = {"logprobs": True, **asked}
    shown = chat(http, **asked)["choices"]
    hidden = chat(http, **asked, include_reasoning=False)["choices"]
    streamed = streamed_chat(http, **asked, include_reasoning=False)

    assert [tokens_of(choice["logprobs"]["content"]) for choice in hidden] == [
        tokens_of(choice["logprobs"]["content"]) for choice in shown
    ]
    assert [tokens_of(choice["logprobs"]) for choice in streamed] == [
        tokens_of(choice["logprobs"]["content"]) for choice in shown
    ]
    assert [choice["message"]["content"] for choice in hidden] == [choice["message"]["content"] for choice in shown]
    assert all(choice["message"]["reasoning"] for choice in shown)
    assert not any(choice["message"].get("reasoning") for choice in hidden)
    assert not any(choice["reasoning"] for choice in streamed)


def tokens_of(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["token"] for entry in entries]


@pytest.mark.parametrize("stream", [False, True])
def test_token_ids_of_hidden_reasoning_are_refused(http: httpx.Client, stream: bool) -> None:
    body = {"messages": QUESTION, "include_reasoning": False, "return_token_ids": True, "stream": stream}
    refused = http.post("/v1/chat/completions", json=body)

    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "return_token_ids"
