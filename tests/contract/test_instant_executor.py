"""That vLLM accepts the executor without a model."""

from __future__ import annotations

import importlib
import inspect
import time
from types import SimpleNamespace
from typing import Any

import pytest

from gptoss_bento.bench.frontend import EXECUTOR
from gptoss_bento.bench.pace import STEP_MS, Pace
from gptoss_bento.bench.random_answers import RandomAnswers, Vocabulary

# Their own warnings at import are not ours to fix.
pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def executors() -> Any:
    return importlib.import_module("vllm.v1.executor.abstract")


@pytest.fixture
def executor(executors: Any) -> Any:
    """As vLLM makes one, without the configuration that it would read."""
    config = SimpleNamespace(parallel_config=SimpleNamespace(distributed_executor_backend=EXECUTOR))
    found = object.__new__(executors.Executor.get_class(config))
    found._answers = RandomAnswers(Vocabulary((7, 8, 9)))
    found._pace = Pace()
    return found


def test_vllm_finds_it_by_its_name_and_misses_nothing(executor: Any, executors: Any) -> None:
    assert isinstance(executor, executors.Executor)
    assert type(executor).supports_async_scheduling()


@pytest.mark.parametrize("name", ["execute_model", "sample_tokens", "collective_rpc", "initialize_from_config"])
def test_executor_takes_what_vllms_own_take(executor: Any, executors: Any, name: str) -> None:
    taken = inspect.signature(getattr(type(executor), name)).parameters

    assert list(taken) == list(inspect.signature(getattr(executors.Executor, name)).parameters)


def new_request(outputs: Any, request_id: str, tokens: int) -> Any:
    return outputs.NewRequestData(request_id, [1] * tokens, [], None, None, (), 0, None)


def test_step_returns_a_token_for_each_request_whose_prompt_is_through(executor: Any) -> None:
    outputs = importlib.import_module("vllm.v1.core.sched.output")
    step = outputs.SchedulerOutput.make_empty()
    step.scheduled_new_reqs = [new_request(outputs, "whole", 4), new_request(outputs, "half", 8)]
    step.num_scheduled_tokens = {"whole": 4, "half": 4}

    first = executor.execute_model(step)

    assert (first.req_ids, first.req_id_to_index) == (["whole", "half"], {"whole": 0, "half": 1})
    assert [len(tokens) for tokens in first.sampled_token_ids] == [1, 0]
    step = outputs.SchedulerOutput.make_empty()
    cached = step.scheduled_cached_reqs
    cached.req_ids, cached.num_computed_tokens = ["whole", "half"], [4, 4]
    step.num_scheduled_tokens = {"whole": 1, "half": 4}
    second = executor.execute_model(step, non_block=True).result()
    assert [len(tokens) for tokens in second.sampled_token_ids] == [1, 1]
    assert executor.sample_tokens(None, non_block=True).result() is second
    assert executor.sample_tokens(None) is second


def test_step_without_requests_returns_nothing(executor: Any) -> None:
    outputs = importlib.import_module("vllm.v1.core.sched.output")

    assert executor.execute_model(outputs.SchedulerOutput.make_empty()).req_ids == []


def test_executor_gets_its_pace_from_vllms_configuration(executor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry of `additional_config`, which vLLM's own platforms use for what its options do not know."""
    module = importlib.import_module(type(executor).__module__)
    monkeypatch.setattr(module, "cached_tokenizer_from_config", lambda _: None)
    monkeypatch.setattr(module, "vocabulary", lambda _: Vocabulary((7,)))
    config = importlib.import_module("vllm.config").VllmConfig(additional_config={STEP_MS: 20})
    executor.vllm_config, executor.model_config = config, None
    executor._init_executor()
    outputs = importlib.import_module("vllm.v1.core.sched.output")
    step = outputs.SchedulerOutput.make_empty()
    step.scheduled_new_reqs = [new_request(outputs, "one", 4)]
    step.num_scheduled_tokens = {"one": 4}

    started = time.monotonic()
    for _ in range(3):
        executor.execute_model(step)

    assert time.monotonic() - started >= 0.04


def test_executor_answers_other_calls_immediately(executor: Any) -> None:
    assert executor.collective_rpc("reset_mm_cache") == [None]
    assert executor.collective_rpc("reset_mm_cache", non_block=True).result() == [None]
    assert executor.supported_tasks == ("generate",)
