"""The job API on the real engine: what RunPod's Python SDK gets, items, formats, counts, errors, and cancelled jobs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import httpx
import pytest
import runpod

from tests.integration.test_disconnect import LONGEST, generated_tokens, wait_for_running, wait_until_freed
from tests.server import MODEL, NO_TLS, ServedProcess
from tests.waiting import HANG_S

pytestmark = pytest.mark.engine

PROMPT: dict[str, Any] = {"prompt": "The capital of France is", "sampling_params": {"max_tokens": 10, "temperature": 0}}
CHAT: dict[str, Any] = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "sampling_params": {"max_tokens": 200, "temperature": 0},
}
STORY: dict[str, Any] = {
    "prompt": "Once upon a time",
    "stream": True,
    "sampling_params": {"max_tokens": 100, "temperature": 0, "ignore_eos": True},
}
ENDLESS: dict[str, Any] = {"prompt": "Once upon a time", "sampling_params": {"max_tokens": LONGEST, "ignore_eos": True}}
GET_WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather for a location.",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string", "description": "City name"}},
            "required": ["location"],
        },
    },
}
WEATHER = {
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
    "sampling_params": {"max_tokens": 200, "temperature": 0, "tools": [GET_WEATHER]},
}


@pytest.fixture(scope="module")
def http(server: ServedProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=HANG_S, verify=NO_TLS) as client:
        yield client


@pytest.fixture
async def waiting(server: ServedProcess) -> AsyncIterator[httpx.AsyncClient]:
    """A client for tests that watch the engine meanwhile."""
    async with httpx.AsyncClient(base_url=server.url, timeout=HANG_S, verify=NO_TLS) as client:
        yield client


def run(http: httpx.Client, job_input: dict[str, Any], **envelope: Any) -> dict[str, Any]:
    """The job, when it has ended."""
    response = http.post("/runsync", json={"input": job_input, **envelope})
    assert response.status_code == 200, response.text
    return dict(response.json())


def output_of(http: httpx.Client, job_input: dict[str, Any]) -> list[Any]:
    job = run(http, job_input)
    assert job["status"] == "COMPLETED", job
    return list(job["output"])


def streamed(job_input: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**job_input, "stream": True, **fields}


def entries(output: list[Any]) -> list[int]:
    """The entries of each item over all choices."""
    return [sum(len(choice["tokens"]) for choice in item["choices"]) for item in output]


def counts(output: list[Any]) -> list[int]:
    return [item["usage"]["output"] for item in output]


def joined(output: list[Any], name: str = "tokens", choice: int = 0) -> str:
    return "".join("".join(item["choices"][choice].get(name, "")) for item in output)


def asked_directly(http: httpx.Client, job_input: dict[str, Any]) -> dict[str, Any]:
    """The engine's own answer to what a job asks."""
    kind = "prompt" if "prompt" in job_input else "messages"
    path = "/v1/completions" if kind == "prompt" else "/v1/chat/completions"
    body = {"model": MODEL, kind: job_input[kind], **job_input["sampling_params"]}
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


# --- RunPod's Python SDK ---------------------------------------------------------------------------------------------


@pytest.fixture
def endpoint(server: ServedProcess, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(runpod, "endpoint_url_base", f"{server.url}/v2")
    monkeypatch.setattr(runpod, "api_key", "none")
    return runpod.Endpoint("local")


def test_sdk_run_status_output(endpoint: Any) -> None:
    job = endpoint.run({"input": PROMPT})

    assert job.output(timeout=HANG_S)[0]["choices"][0]["tokens"] == [" Paris."]
    assert job.status() == "COMPLETED"


def test_sdk_run_sync(endpoint: Any) -> None:
    [item] = endpoint.run_sync(CHAT, timeout=HANG_S)
    assert item["choices"][0]["tokens"] == ["The capital of France is Paris."]


def test_sdk_stream(endpoint: Any) -> None:
    items = list(endpoint.run(STORY).stream())
    assert entries(items) == [1, 3, 9, 27, 50, 10]


def test_sdk_stream_of_a_failed_job_ends_with_its_error(endpoint: Any) -> None:
    job = endpoint.run({"prompt": "hi", "stream": True, "sampling_params": {"max_tokens": 999_999}})

    [item] = job.stream()
    assert "max_tokens must leave room for the prompt" in item["error"]
    assert job.status() == "FAILED"


def test_sdk_cancel_of_a_running_job(endpoint: Any) -> None:
    job = endpoint.run({"input": ENDLESS})
    while job.status() != "IN_PROGRESS":
        time.sleep(0.01)

    assert job.cancel() == {"id": job.job_id, "status": "CANCELLED"}
    assert job.status() == "CANCELLED"
    assert job.output() is None


def test_sdk_purge_queue_leaves_alone_what_runs(endpoint: Any) -> None:
    """MAX_CONCURRENCY is 30, and 33 jobs are more."""
    with ThreadPoolExecutor(11) as clients:
        jobs = list(clients.map(endpoint.run, [ENDLESS] * 33))
    while (health := endpoint.health())["jobs"]["inProgress"] < 30:
        time.sleep(0.05)
    assert health["jobs"]["inQueue"] == 3
    assert health["workers"] == {
        "idle": 0, "initializing": 0, "ready": 1, "running": 1, "throttled": 0, "unhealthy": 0
    }  # fmt: skip

    assert endpoint.purge_queue() == {"removed": 3, "status": "completed"}
    assert sorted(job.status() for job in jobs) == ["CANCELLED"] * 3 + ["IN_PROGRESS"] * 30
    for job in jobs:
        assert job.cancel()["status"] == "CANCELLED"


async def test_sdk_asyncio(endpoint: Any) -> None:
    assert endpoint
    async with aiohttp.ClientSession() as session:
        remote = runpod.AsyncioEndpoint("local", session)
        job = await remote.run(PROMPT)
        usage = (await job.output(timeout=HANG_S))[0]["usage"]
        assert (usage["input"], usage["output"], usage["total_tokens"]) == (5, 3, 8)
        assert await job.status() == "COMPLETED"
        items = [item async for item in (await remote.run(STORY)).stream()]
        assert entries(items) == [1, 3, 9, 27, 50, 10]

        endless = await remote.run(ENDLESS)
        assert (await endless.cancel())["status"] == "CANCELLED"
        assert await endless.status() == "CANCELLED"
        assert (await remote.health())["workers"]["ready"] == 1
        assert (await remote.purge_queue()) == {"removed": 0, "status": "completed"}


# --- items and counts ------------------------------------------------------------------------------------------------


def test_stream_has_one_entry_for_each_token_and_exact_counts(http: httpx.Client) -> None:
    output = output_of(http, STORY)
    direct = asked_directly(http, STORY)

    assert entries(output) == [1, 3, 9, 27, 50, 10]
    assert counts(output) == [1, 4, 13, 40, 90, 100]
    assert {item["usage"]["input"] for item in output} == {direct["usage"]["prompt_tokens"]}
    assert direct["usage"]["completion_tokens"] == 100
    assert joined(output) == direct["choices"][0]["text"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"min_batch_size": 1, "batch_size_growth_factor": 1.5, "max_batch_size": 10}, [1, 2, 3, 4, 6, 8, 10, 6]),
        ({"min_batch_size": 4, "max_batch_size": 16}, [4, 12, 16, 8]),
        ({"batch_size_growth_factor": 1, "max_batch_size": 15}, [15, 15, 10]),
        ({"min_batch_size": None, "max_batch_size": "20"}, [1, 3, 9, 20, 7]),
    ],
)
def test_batches_are_chosen_by_the_request(http: httpx.Client, fields: dict[str, Any], expected: list[int]) -> None:
    parameters = {**STORY["sampling_params"], "max_tokens": 40}
    assert entries(output_of(http, {**STORY, **fields, "sampling_params": parameters})) == expected


def test_batches_run_over_all_sequences(http: httpx.Client) -> None:
    parameters = {"n": 2, "max_tokens": 30, "ignore_eos": True, "seed": 1, "temperature": 2}
    output = output_of(http, {**STORY, "sampling_params": parameters})

    assert entries(output) == [1, 3, 9, 27, 20]
    assert counts(output)[-1] == 60
    assert {len(item["choices"]) for item in output} == {2}
    assert joined(output, choice=0) != joined(output, choice=1)


def test_batches_are_exact_on_a_busy_server(http: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as clients:
        outputs = list(clients.map(lambda _: output_of(http, STORY), range(8)))
    for output in outputs:
        assert entries(output) == [1, 3, 9, 27, 50, 10]
        assert counts(output)[-1] == 100


def test_stream_has_a_character_of_several_tokens_where_it_is_complete(http: httpx.Client) -> None:
    text = " Grüße 🧿 ꙮ"
    job = {"prompt": "Hello", "stream": True, "sampling_params": {"guided_choice": [text], "max_tokens": 40}}
    output = output_of(http, job)
    tokens = [token for item in output for token in item["choices"][0]["tokens"]]

    assert joined(output) == text
    assert counts(output)[-1] == len(tokens)
    assert "" in tokens[:-1], "a token that ends inside a character has no text"
    assert not any("�" in token for token in tokens)


def test_stream_of_a_chat_has_its_reasoning_apart(http: httpx.Client) -> None:
    output = output_of(http, streamed(CHAT))
    direct = asked_directly(http, CHAT)
    message = direct["choices"][0]["message"]

    assert joined(output) == message["content"] == "The capital of France is Paris."
    assert joined(output, "reasoning") == message["reasoning"]
    assert output[-1]["usage"] == {
        "input": direct["usage"]["prompt_tokens"], "output": direct["usage"]["completion_tokens"]
    }  # fmt: skip
    assert entries(output) == [1, 3, 4], "seven tokens of text and the one that ends it"


@pytest.mark.parametrize("job_input", [PROMPT, CHAT, WEATHER], ids=["prompt", "chat", "tool"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_usage_is_the_engines_own(http: httpx.Client, job_input: dict[str, Any], stream: bool) -> None:
    usage = output_of(http, {**job_input, "stream": stream})[-1]["usage"]
    own = asked_directly(http, job_input)["usage"]

    assert (usage["input"], usage["output"]) == (own["prompt_tokens"], own["completion_tokens"])
    if not stream:
        assert {name: usage[name] for name in own} == own


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_tool_call_is_no_text(http: httpx.Client, stream: bool) -> None:
    output = output_of(http, {**WEATHER, "stream": stream})

    [call] = output[-1]["choices"][0]["tool_calls"]
    assert call["type"] == "function"
    assert call["id"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"location": "Paris"}
    assert joined(output) == ""


def test_sampling_parameters_beside_messages_or_a_prompt_count(http: httpx.Client) -> None:
    parameters = WEATHER["sampling_params"]
    beside = {"messages": WEATHER["messages"], "tool_choice": "auto", **parameters}  # type: ignore[dict-item]

    [call] = output_of(http, beside)[-1]["choices"][0]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    [item] = output_of(http, {"prompt": "Once upon a time", "max_tokens": 3, "ignore_eos": True})
    assert item["usage"]["output"] == 3


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_stop_string_ends_a_chat_before_itself(http: httpx.Client, stream: bool) -> None:
    messages = [{"role": "user", "content": "Count to five"}]
    parameters = {"max_tokens": 200, "temperature": 0, "stop": [", 3", "never"]}
    output = output_of(http, {"messages": messages, "stream": stream, "sampling_params": parameters})
    assert joined(output) == "1, 2"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_reasoning_can_be_left_out(http: httpx.Client, stream: bool) -> None:
    parameters = {**CHAT["sampling_params"], "include_reasoning": False}
    output = output_of(http, {**CHAT, "stream": stream, "sampling_params": parameters})

    assert joined(output, "reasoning") == ""
    assert joined(output) == "The capital of France is Paris."
    assert output[-1]["usage"]["output"] == asked_directly(http, CHAT)["usage"]["completion_tokens"]


@pytest.mark.parametrize("max_tokens", range(1, 12))
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_chat_that_ends_before_its_answer_has_none(http: httpx.Client, stream: bool, max_tokens: int) -> None:
    """Wherever the limit falls, in the reasoning or in a header of Harmony, no markup gets into the text."""
    parameters = {"max_tokens": max_tokens, "temperature": 0}
    output = output_of(http, {**CHAT, "stream": stream, "sampling_params": parameters})

    assert "<|" not in json.dumps(output)
    assert "The capital of France is Paris.".startswith(joined(output))
    assert counts(output)[-1] == max_tokens


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_echo_comes_before_the_answer(http: httpx.Client, stream: bool) -> None:
    parameters = {**PROMPT["sampling_params"], "echo": True}
    output = output_of(http, {**PROMPT, "stream": stream, "sampling_params": parameters})
    assert joined(output) == "The capital of France is Paris."


def test_stream_can_be_read_while_the_job_runs(http: httpx.Client) -> None:
    job_id = http.post("/run", json={"input": streamed(ENDLESS)}).json()["id"]
    items: list[Any] = []
    while len(items) < 5:
        answer = http.get(f"/stream/{job_id}").json()
        assert answer["status"] in ("IN_QUEUE", "IN_PROGRESS")
        items += [item["output"] for item in answer["stream"]]
    http.post(f"/cancel/{job_id}")

    assert entries(items)[:5] == [1, 3, 9, 27, 50]
    assert http.get(f"/stream/{job_id}?wait=0").json()["status"] == "CANCELLED"


# --- OpenAI's format -------------------------------------------------------------------------------------------------

OPENAI_CHAT = {"messages": CHAT["messages"], "temperature": 0}


def sse_chunks(output: list[str]) -> list[Any]:
    """The chunks of a streamed job's strings, which joined are the engine's body."""
    assert all(piece.endswith("\n\n") for piece in output), "whole frames only"
    *frames, last, rest = "".join(output).split("\n\n")
    assert (last, rest) == ("data: [DONE]", "")
    return [json.loads(frame.removeprefix("data: ")) for frame in frames]


@pytest.mark.parametrize(
    "fields",
    [
        {"openai_route": "/v1/chat/completions"},
        {"openai_route": "/openai/v1/chat/completions"},
        {},
    ],
)
def test_openai_input_is_answered_in_openais_format(http: httpx.Client, fields: dict[str, Any]) -> None:
    [answer] = output_of(http, {"openai_input": OPENAI_CHAT, **fields})

    assert (answer["object"], answer["model"]) == ("chat.completion", MODEL)
    assert answer["choices"] == asked_directly(http, {**CHAT, "sampling_params": {"temperature": 0}})["choices"]


def test_openai_input_streamed_is_the_engines_body(http: httpx.Client) -> None:
    body = {**OPENAI_CHAT, "stream": True, "stream_options": {"include_usage": True}}
    output = output_of(http, {"openai_route": "/v1/chat/completions", "openai_input": body})
    chunks = sse_chunks(output)

    frames = [piece.count("data: ") for piece in output]
    assert frames[:3] == [1, 3, 9]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks if chunk["choices"])
    assert text == "The capital of France is Paris."
    own = asked_directly(http, CHAT)["usage"]
    streamed = chunks[-1]["usage"]
    for usage in (own, streamed):  # what the cache has of a prompt depends on what came before
        usage.pop("prompt_tokens_details", None)
    assert streamed == {name: count for name, count in own.items() if count is not None}


def test_openai_completion_streamed(http: httpx.Client) -> None:
    body = {"model": MODEL, "prompt": PROMPT["prompt"], "temperature": 0, "max_tokens": 10, "stream": True}
    chunks = sse_chunks(output_of(http, {"openai_route": "/v1/completions", "openai_input": body}))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == " Paris."


def test_openai_responses_and_messages(http: httpx.Client) -> None:
    question = "What is the capital of France?"
    given = {"input": question, "temperature": 0}
    [response] = output_of(http, {"openai_route": "/v1/responses", "openai_input": given})
    body = {"messages": CHAT["messages"], "max_tokens": 100, "temperature": 0}
    [message] = output_of(http, {"openai_route": "/v1/messages", "openai_input": body})

    assert response["object"] == "response"
    assert response["status"] == "completed"
    assert "Paris" in json.dumps(response["output"])
    assert message["type"] == "message"
    assert "Paris" in json.dumps(message["content"])


@pytest.mark.parametrize("route", ["responses", "messages"])
def test_openai_responses_and_messages_streamed(http: httpx.Client, route: str) -> None:
    given = {"input": "What is the capital of France?"} if route == "responses" else {**CHAT, "max_tokens": 100}
    given.pop("sampling_params", None)
    job = {"openai_route": f"/v1/{route}", "openai_input": {**given, "temperature": 0, "stream": True}}
    body = "".join(output_of(http, job))

    assert "Paris" in body
    assert body.startswith("event: ")
    assert ("response.completed" if route == "responses" else "message_stop") in body


def test_models_are_listed_whatever_the_method(http: httpx.Client) -> None:
    extras: list[dict[str, Any]] = [{}, {"openai_input": {}}, {"openai_input": None}]
    for extra in extras:
        [models] = output_of(http, {"openai_route": "/v1/models", **extra})
        assert [model["id"] for model in models["data"]] == [MODEL]
        assert models["data"][0]["root"] == MODEL, "not the path of the weights"


# --- routes ----------------------------------------------------------------------------------------------------------


def test_route_jobs(http: httpx.Client) -> None:
    [tokenized] = output_of(http, {"route": "/tokenize", "body": {"prompt": "Hello world"}})
    [text] = output_of(http, {"route": "/detokenize", "body": {"tokens": tokenized["tokens"]}, "method": "post"})
    [version] = output_of(http, {"route": "/version"})
    [health] = output_of(http, {"route": "/health", "method": "get"})

    assert tokenized["count"] == 2
    assert text["prompt"] == "Hello world"
    assert version["version"].startswith("0.32")
    assert health == ""


def test_route_job_streamed(http: httpx.Client) -> None:
    body = {"prompt": PROMPT["prompt"], "temperature": 0, "max_tokens": 10, "stream": True}
    chunks = sse_chunks(output_of(http, {"route": "/v1/completions", "body": body}))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == " Paris."


@pytest.mark.parametrize(
    "route",
    ["/metrics", "/scale_elastic_ep", "/v1/../metrics", "//host/v1/models", "http://host/v1/models", "v1/models"],
)
def test_route_that_is_not_permitted_fails_the_job(http: httpx.Client, route: str) -> None:
    for job_input in ({"route": route}, {"openai_route": route, "openai_input": OPENAI_CHAT}):
        job = run(http, job_input)
        assert job["status"] == "FAILED"
        assert job["error"].startswith("Invalid route")


# --- what is wrong ---------------------------------------------------------------------------------------------------


def sampled(**parameters: Any) -> dict[str, Any]:
    return {"prompt": "Hi", "sampling_params": parameters}


@pytest.mark.parametrize(
    ("job_input", "words"),
    [
        ({}, ["prompt", "messages", "openai_route"]),
        ({"input": {}}, ["prompt", '"input"']),
        ({"prompt": ""}, ["prompt", '""']),
        ({"prompt": 5}, ["prompt", "5"]),
        ({"messages": []}, ["messages", "[]"]),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, ["messages[0].role", '"robot"']),
        ({"prompt": "Hi", "stream": "yes"}, ["stream", '"yes"']),
        ({"prompt": "Hi", "max_batch_size": -1}, ["max_batch_size", "-1"]),
        ({"prompt": "Hi", "sampling_params": [1]}, ["sampling_params", "[1]"]),
        (sampled(temperature=-1), ["temperature", "-1"]),
        (sampled(temperature=3, top_p=2), ["temperature", "3", "top_p", "2"]),
        (sampled(max_tokens=0), ["max_tokens", "0"]),
        (sampled(max_tokens=5000), ["max_tokens", "5000"]),
        (sampled(max_tokens=4096), ["max_tokens", "4096"]),
        (sampled(min_tokens=200), ["min_tokens", "200", "max_tokens"]),
        (sampled(logprobs=21), ["logprobs", "21"]),
        (sampled(temprature=1), ["temprature", "temperature"]),
        (sampled(tools=[]), ["tools", "messages"]),
        (sampled(stop=[""]), ["stop"]),
        (sampled(stop_token_ids=["x"]), ["stop_token_ids", '"x"']),
        (sampled(logit_bias={"999999": 5}), ["logit_bias", "999999"]),
        (sampled(allowed_token_ids=[999999]), ["allowed_token_ids", "999999"]),
        (sampled(structured_outputs={"regex": "("}), ["structured_outputs"]),
        (sampled(truncate_prompt_tokens=5000), ["truncate_prompt_tokens", "5000"]),
        ({**CHAT, "sampling_params": {"reasoning_effort": "maximal"}}, ["reasoning_effort", "maximal"]),
        ({**CHAT, "sampling_params": {"top_logprobs": 21, "logprobs": True}}, ["logprobs", "21"]),
        ({"openai_input": {"messages": CHAT["messages"], "temperature": -1}}, ["temperature", "-1"]),
        ({"openai_input": {"model": "other", **OPENAI_CHAT}}, ["other", "does not exist"]),
        ({"openai_input": "Hi"}, ["openai_input", '"Hi"']),
        ({"prompt": "Hi", "samplng_params": {"max_tokens": 3}}, ["samplng_params", "Did you mean sampling_params?"]),
        ({"prompt": "Hi", "max_tokens": 3, "sampling_params": {"max_tokens": 4}}, ["max_tokens is 3", "4 in sampling"]),
        ({"openai_input": OPENAI_CHAT, "max_tokens": 3}, ["max_tokens belongs into openai_input"]),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, ["messages[0].content[0].type"]),
        ({"openai_input": {"messages": [{"role": "user", "content": [{"type": "file"}]}]}}, ["content[0].type"]),
        ({"route": "/v1/completions", "body": {"prompt": "Hi", "n": 0}}, ["n ", "0"]),
        ({"route": "/v1/unknown"}, ["Not Found"]),
        ({"route": "/version", "method": "DELETE"}, ["method", '"DELETE"']),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_input_that_is_wrong_fails_the_job(
    http: httpx.Client, job_input: dict[str, Any], words: list[str], stream: bool
) -> None:
    job = run(http, {"stream": stream, **job_input})

    assert job["status"] == "FAILED", job
    assert "output" not in job
    assert all(word in job["error"] for word in words), job["error"]
    assert "Traceback" not in job["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"input": {"prompt": "Hi", "temperature": 1e999}}', "temperature must be a number from 0 to 2"),
        (b'{"input": {"openai_input": {"prompt": "Hi", "top_p": -1e999}}}', "openai_input.top_p must be a number"),
    ],
)
def test_number_that_no_float_holds_is_named(http: httpx.Client, body: bytes, words: str) -> None:
    job = http.post("/runsync", content=body).json()

    assert job["status"] == "FAILED"
    assert job["error"].startswith(words)


def test_engine_continues_after_wrong_inputs(http: httpx.Client) -> None:
    assert joined(output_of(http, PROMPT)) == " Paris."


def test_max_tokens_of_a_chat_beyond_the_context_is_lowered(http: httpx.Client) -> None:
    parameters = {"max_tokens": 4090, "temperature": 0}
    assert joined(output_of(http, {**CHAT, "sampling_params": parameters})) == "The capital of France is Paris."


def test_context_can_be_filled_to_its_last_token(http: httpx.Client) -> None:
    prompt = " the" * 4086
    output = output_of(http, {"prompt": prompt, "sampling_params": {"max_tokens": 10, "ignore_eos": True}})
    assert output[0]["usage"]["total_tokens"] == 4096

    job = run(http, {"prompt": prompt, "sampling_params": {"max_tokens": 11, "ignore_eos": True}})
    assert job["status"] == "FAILED"
    assert "max_tokens" in job["error"]
    assert "11" in job["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"[1]", "object"),
        (b'{"prompt":"Hi"}', "'input'"),
        (b'{"input":null}', "'input'"),
        (b'{"input":"Hi"}', "'input'"),
        (b'{"input":{},"policy":5}', "policy"),
        (b'{"input":{},"policy":{"ttl":"soon"}}', "policy.ttl"),
        (b'{"input":{},"webhook":"ftp://host"}', "webhook"),
        (b'{"input":{},"webhook":"http://127.0.0.1/"}', "webhook"),
        (b'{"input":{},"s3Config":1}', "s3Config"),
    ],
)
@pytest.mark.parametrize("path", ["/run", "/v2/local/runsync"])
def test_envelope_that_is_wrong_is_a_400(http: httpx.Client, path: str, body: bytes, words: str) -> None:
    response = http.post(path, content=body)
    assert response.status_code == 400
    assert words in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/status/unknown-u1", 404),
        ("POST", "/cancel/unknown-u1", 404),
        ("POST", "/retry/unknown-u1", 404),
        ("GET", "/v2/local/stream/unknown-u1", 404),
        ("GET", "/v2/local/nothing", 404),
        ("POST", "/v2/not%20an%20id/run", 404),
        ("GET", "/run", 405),
        ("GET", "/v2/local/cancel/unknown-u1", 405),
        ("POST", "/health", 405),
    ],
)
def test_route_that_does_not_exist_is_an_error(http: httpx.Client, method: str, path: str, status: int) -> None:
    response = http.request(method, path)

    assert response.status_code == status
    assert isinstance(response.json()["error"], str)
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(("path", "limit"), [("/run", 10_485_760), ("/v2/local/runsync", 20_971_520)])
def test_body_that_is_too_large_is_a_413(http: httpx.Client, path: str, limit: int) -> None:
    response = http.post(path, content=b'{"input":{"prompt":"' + b"a" * limit + b'"}}')
    assert response.status_code == 413
    assert str(limit) in response.json()["error"]


# --- a job that is cancelled -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "job_input",
    [
        ENDLESS,
        streamed(ENDLESS),
        {"messages": CHAT["messages"], "sampling_params": ENDLESS["sampling_params"]},
        {"messages": CHAT["messages"], "stream": True, "sampling_params": ENDLESS["sampling_params"]},
        {"openai_route": "/v1/completions", "openai_input": {"prompt": "Hello", **ENDLESS["sampling_params"]}},
        {"route": "/v1/completions", "body": {"prompt": "Hi", "stream": True, **ENDLESS["sampling_params"]}},
    ],
    ids=["prompt", "streamed prompt", "chat", "streamed chat", "openai", "streamed route"],
)
async def test_cancel_of_a_job_frees_the_engine(waiting: httpx.AsyncClient, job_input: dict[str, Any]) -> None:
    await wait_for_running(waiting, 0)
    before = await generated_tokens(waiting)
    job_id = (await waiting.post("/run", json={"input": job_input})).json()["id"]
    await wait_for_running(waiting, 1)

    assert (await waiting.post(f"/cancel/{job_id}")).json() == {"id": job_id, "status": "CANCELLED"}
    await wait_until_freed(waiting, before)
    assert (await waiting.get(f"/status/{job_id}")).json()["status"] == "CANCELLED"


async def test_cancel_of_thirty_jobs_frees_the_engine(waiting: httpx.AsyncClient) -> None:
    await wait_for_running(waiting, 0)
    before = await generated_tokens(waiting)
    accepted = await asyncio.gather(*(waiting.post("/run", json={"input": streamed(ENDLESS)}) for _ in range(30)))
    await wait_for_running(waiting, 30)

    answers = await asyncio.gather(*(waiting.post(f"/cancel/{job.json()['id']}") for job in accepted))
    assert {answer.json()["status"] for answer in answers} == {"CANCELLED"}
    await wait_until_freed(waiting, before, requests=30)


async def test_disconnect_of_a_client_leaves_its_job_running(waiting: httpx.AsyncClient) -> None:
    """And the OpenAI routes differ from it: there a client that leaves ends the generation."""
    await wait_for_running(waiting, 0)
    parameters = {"max_tokens": 200, "ignore_eos": True}
    before = await generated_tokens(waiting)
    completed = (await waiting.get("/health")).json()["jobs"]["completed"]
    request = asyncio.create_task(waiting.post("/runsync", json={"input": {**PROMPT, "sampling_params": parameters}}))
    async with asyncio.timeout(HANG_S):
        while await generated_tokens(waiting) == before:  # noqa: ASYNC110  # another process says so
            await asyncio.sleep(0.05)
    request.cancel()
    await asyncio.gather(request, return_exceptions=True)
    async with asyncio.timeout(HANG_S):
        while (await waiting.get("/health")).json()["jobs"]["completed"] == completed:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await wait_for_running(waiting, 0)
