from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.engine import warmup
from gptoss_bento.engine.warmup import prefills, requests, warm_up

# What is asked

_GRAPHS = st.integers(0, 4096)  # no graphs at all is 0
_BATCHES = st.integers(1, 65536)


@given(graph=_GRAPHS, batch=_BATCHES)
def test_sizes_beyond_the_largest_graph_are_all_warmed_up(graph: int, batch: int) -> None:
    """Of 2^n to 2^(n+1) tokens, where the kernels choose one tile size; from 16 tokens on, features ask for fewer."""
    met = {tokens.bit_length() for tokens in prefills(graph, batch)}
    beyond = {(1 << power).bit_length() for power in range(4, 17) if graph < 1 << power <= batch}

    assert beyond <= met


@given(graph=_GRAPHS, batch=_BATCHES)
def test_prefill_is_never_within_a_graph_or_beyond_a_batch(graph: int, batch: int) -> None:
    found = prefills(graph, batch)

    assert all(graph < tokens <= batch for tokens in found)
    assert found == sorted(set(found))


@given(graph=_GRAPHS, batch=_BATCHES)
def test_largest_batch_is_met_where_there_is_no_graph_for_it(graph: int, batch: int) -> None:
    assert (batch in prefills(graph, batch)) is (batch > graph)


@pytest.mark.parametrize(
    ("graph", "batch", "expected"),
    [
        (2048, 8192, [2561, 3072, 4096, 5121, 6144, 8192]),
        (8192, 8192, []),
        (0, 40, [16, 21, 24, 32, 40]),
        (0, 8, [8]),
    ],
)
def test_prefills_of_some_plans(graph: int, batch: int, expected: list[int]) -> None:
    assert prefills(graph, batch) == expected


@pytest.mark.parametrize("graph", [16, 64, 128, 256, 1024, 2048])
def test_size_that_is_no_multiple_is_among_those_of_each_range(graph: int) -> None:
    """Of sizes that are divisible by 16 alone, Triton would compile for these."""
    for power in range(graph.bit_length() - 1, 13):
        found = [tokens for tokens in prefills(graph, 8192) if 1 << power <= tokens < 2 << power]
        assert any(tokens % 2 for tokens in found), power


@given(graph=_GRAPHS, batch=_BATCHES, longest=st.integers(1024, 131072))
def test_request_is_never_longer_than_the_model(graph: int, batch: int, longest: int) -> None:
    assert all(request.prompt_tokens + warmup._ANSWER <= longest for request in requests(graph, batch, longest, 1024))


def test_prompts_that_a_model_can_take_are_asked() -> None:
    found = [request.prompt_tokens for request in requests(0, 2048, 1024, 1024) if request.what.startswith("prefill")]

    assert found == [tokens for tokens in prefills(0, 2048) if tokens < 1021]


def batches(what: str, most_sequences: int = 1024) -> set[int]:
    return {request.copies for request in requests(2048, 8192, 131072, most_sequences) if request.what == what}


@pytest.mark.parametrize("what", warmup._FEATURES)
def test_features_are_all_used_alone_and_in_a_batch(what: str) -> None:
    assert batches(what) == {1, warmup._BATCH}


def test_temperature_that_changes_the_logits_is_among_the_features() -> None:
    """vLLM's kernel of temperatures runs for others than 0 and 1, and its own warm-up is off with ENFORCE_EAGER."""
    assert any(each.get("temperature", 1) not in (0, 1) for each in warmup._FEATURES.values())


def test_minimum_of_tokens_is_asked_beside_a_grammar() -> None:
    assert any({"min_tokens", "structured_outputs"} <= each.keys() for each in warmup._FEATURES.values())


@pytest.mark.parametrize("what", warmup._SPLIT)
def test_top_p_is_used_with_every_number_of_rows_that_splits_it_otherwise(what: str) -> None:
    assert batches(what) == {1, 2, 4, 8, 16, 32, 64, 80}


@pytest.mark.parametrize(("most_sequences", "expected"), [(1, {1}), (8, {1, 2, 4, 8}), (12, {1, 2, 4, 8, 12})])
def test_no_batch_is_larger_than_a_step_of_the_engine(most_sequences: int, expected: set[int]) -> None:
    """With 8 sequences, 80 copies of a request of 80 tokens would take 800 steps, for kernels that no step can need."""
    assert batches("top_p", most_sequences) == expected
    assert max(batches("greedy", most_sequences)) == min(warmup._BATCH, most_sequences)


# Sending


@dataclass
class Asked:
    """One call of the engine."""

    request_id: str
    prompt: list[int]
    sampling: dict[str, Any]
    measured: bool


@dataclass
class FakeClient:
    """As much of vLLM's AsyncLLM as a warm-up uses."""

    sizes: list[int] | None = field(default_factory=lambda: [1, 2, 4096])
    vocabulary: int = 201_088
    refuses: Callable[[dict[str, Any]], bool] = lambda _: False
    error: Exception = field(default_factory=lambda: ValueError("not beside speculation\nwith details"))
    errored: bool = False
    manager: object = field(default_factory=object)
    asked: list[Asked] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    resets: int = 0

    @property
    def vllm_config(self) -> Any:
        return SimpleNamespace(
            compilation_config=SimpleNamespace(cudagraph_capture_sizes=self.sizes),
            scheduler_config=SimpleNamespace(max_num_batched_tokens=8192, max_num_seqs=1024),
            model_config=SimpleNamespace(max_model_len=131072, get_vocab_size=lambda: self.vocabulary),
        )

    def _run_output_handler(self) -> None:
        self._logger_ref = [self.manager]

    async def generate(self, prompt: Any, parameters: Any, request_id: str) -> AsyncIterator[None]:
        sampling = vars(parameters)
        self.asked.append(Asked(request_id, prompt["prompt_token_ids"], sampling, bool(self._logger_ref[0])))
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        if self.refuses(sampling):
            raise self.error
        yield None

    async def reset_prefix_cache(self) -> None:
        assert self.running == 0
        self.resets += 1


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of vLLM's classes of parameters."""
    module: Any = ModuleType("vllm")
    module.SamplingParams = SimpleNamespace
    sampling: Any = ModuleType("vllm.sampling_params")
    sampling.StructuredOutputsParams = SimpleNamespace
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setitem(sys.modules, "vllm.sampling_params", sampling)


async def warmed_up(client: FakeClient) -> FakeClient:
    await warm_up(client)
    return client


def grammar(sampling: dict[str, Any]) -> bool:
    return "structured_outputs" in sampling


async def test_requests_reach_the_engine_as_often_as_planned() -> None:
    client = await warmed_up(FakeClient())

    expected = requests(4096, 8192, 131072, 1024)
    assert Counter(len(asked.prompt) for asked in client.asked) == Counter(
        request.prompt_tokens for request in expected for _ in range(request.copies)
    )
    assert len({asked.request_id for asked in client.asked}) == len(client.asked)
    assert client.most_running == max(request.copies for request in expected)


async def test_answers_all_decode_and_none_ends_early() -> None:
    client = await warmed_up(FakeClient())

    assert {asked.sampling["ignore_eos"] for asked in client.asked} == {True}
    assert min(asked.sampling["max_tokens"] for asked in client.asked) == 3


def test_first_of_a_batch_still_runs_when_the_last_has_come() -> None:
    """Or the kernels for 64 rows and more would be compiled by chance alone."""
    assert all(request.answer_tokens >= request.copies for request in requests(2048, 8192, 131072, 1024))


async def test_prompts_have_no_common_beginning() -> None:
    """Or the second would come from the prefix cache."""
    client = await warmed_up(FakeClient())

    beginnings = Counter(tuple(asked.prompt[:16]) for asked in client.asked)
    assert beginnings.most_common(1)[0][1] == 1
    assert client.resets == 1, "and nothing is left in it"


@pytest.mark.parametrize("vocabulary", [32_000, 128_256, 201_088])
async def test_prompts_have_ordinary_tokens_of_the_models_vocabulary(vocabulary: int) -> None:
    """Models of another architecture, which ALLOW_OTHER_ARCHITECTURES lets in, have smaller ones than GPT-OSS."""
    client = await warmed_up(FakeClient(vocabulary=vocabulary))

    tokens = [token for asked in client.asked for token in asked.prompt]
    assert vocabulary // 4 <= min(tokens) <= max(tokens) < vocabulary * 3 // 4


async def test_grammars_are_in_vllms_form() -> None:
    client = await warmed_up(FakeClient())

    given = [asked.sampling["structured_outputs"] for asked in client.asked if grammar(asked.sampling)]
    assert {tuple(vars(each)) for each in given} == {("json",), ("regex",)}


@pytest.mark.parametrize("sizes", [None, []])
async def test_engine_without_graphs_is_asked_for_all_sizes(sizes: list[int] | None) -> None:
    client = await warmed_up(FakeClient(sizes))

    assert {16, 21, 24, 8192} <= {len(asked.prompt) for asked in client.asked}


async def test_metrics_are_off_during_the_warm_up_and_on_afterwards() -> None:
    client = await warmed_up(FakeClient())

    assert {asked.measured for asked in client.asked} == {False}
    assert client._logger_ref == [client.manager]


async def test_request_that_the_engine_refuses_is_skipped_with_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    client = await warmed_up(FakeClient(refuses=grammar))

    lines = [record.getMessage() for record in caplog.records if record.name == "gptoss_bento.engine.warmup"]
    assert lines.pop().startswith("warm-up: ")
    assert lines == [
        f"warm-up: {what} is left out: not beside speculation"
        for what in ("JSON schema", "regular expression", "minimum of tokens beside a grammar")
        for _ in (1, warmup._BATCH)
    ]
    assert client.asked[-1].sampling["top_k"] == 20, "the rest is asked"
    assert {record.levelno for record in caplog.records} == {logging.INFO}


async def test_slowest_requests_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await warmed_up(FakeClient())

    last = caplog.messages[-1]
    assert "kinds of requests; the slowest: " in last
    assert last.count(" s") >= warmup._SHOWN


async def test_engine_that_died_ends_the_start() -> None:
    client = FakeClient(refuses=grammar, errored=True)

    with pytest.raises(ValueError, match="not beside speculation"):
        await warm_up(client)

    assert len([asked for asked in client.asked if grammar(asked.sampling)]) == 1
    assert client._logger_ref == [client.manager], "what comes after an error is measured again"


# The application of a worker


class Routes:
    """An ASGI application that notes what it was asked, and answers with `status`."""

    def __init__(self, status: int = 200) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._status = status

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = json.loads((await receive())["body"])
        self.asked.append((scope["path"], body))
        await send({"type": "http.response.start", "status": self._status, "headers": []})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def test_routes_are_asked_once_before_a_client_does() -> None:
    app, client = Routes(), FakeClient()

    await warmup.warm_up_routes(app, client, "gpt")

    assert [path for path, _ in app.asked] == ["/v1/completions", "/v1/chat/completions"]
    assert {(body["model"], body["max_tokens"]) for _, body in app.asked} == {("gpt", 1)}
    assert client._logger_ref == [client.manager], "what clients ask is measured again"


async def test_route_that_refuses_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    await warmup.warm_up_routes(Routes(404), FakeClient(), "gpt")

    assert "warm-up: /v1/completions was answered with 404." in caplog.messages
