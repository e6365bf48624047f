"""vLLM's executor without a model: answers each step immediately with random tokens. For `gptoss-bento bench frontend`.

vLLM imports this module by the name that `--distributed-executor-backend` gives, and we never do. So it may import vLLM
at the top, the only module outside engine/ that does. Scheduler, KV cache manager, engine process and all before them
are vLLM's own; model, sampler and weights are left out. Written against vLLM 0.32.0 (v1/executor/abstract.py).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from vllm.tokenizers.registry import cached_tokenizer_from_config
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.executor.abstract import Executor
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheSpec, SlidingWindowSpec
from vllm.v1.outputs import ModelRunnerOutput

from gptoss_bento.bench.pace import Pace
from gptoss_bento.bench.random_answers import RandomAnswers, vocabulary

_KV_TOKENS = 2**20
"""How many tokens the KV cache holds, of which there is only the bookkeeping: 1024 streams of 1024."""


class InstantExecutor(Executor):  # type: ignore[misc]  # vLLM's classes are untyped here
    """Keeps account of requests, so that each gets a token a step once its prompt is through."""

    supported_tasks = ("generate",)

    def _init_executor(self) -> None:
        self._answers = RandomAnswers(vocabulary(cached_tokenizer_from_config(self.model_config)))
        self._output = _output([], [])
        self._pace = Pace.of(self.vllm_config.additional_config)

    @classmethod
    def supports_async_scheduling(cls) -> bool:
        """As on a GPU; vLLM schedules synchronously on a CPU whatever the executor says."""
        return True

    def get_kv_cache_specs(self) -> list[dict[str, KVCacheSpec]]:
        """Those of the model's layers, full and sliding, so that the KV cache manager has its usual work."""
        config = self.model_config.hf_text_config
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
        return [{f"layers.{number}.attention": self._spec(kind) for number, kind in enumerate(kinds)}]

    def _spec(self, kind: str) -> KVCacheSpec:
        shape = {
            "block_size": self.cache_config.block_size,
            "num_kv_heads": self.model_config.get_num_kv_heads(self.parallel_config),
            "head_size": self.model_config.get_head_size(),
            "dtype": self.model_config.dtype,
        }
        if kind == "sliding_attention":
            return SlidingWindowSpec(**shape, sliding_window=self.model_config.hf_text_config.sliding_window)
        return FullAttentionSpec(**shape)

    def determine_available_memory(self) -> list[int]:
        """In bytes; nothing is allocated."""
        blocks = -(-_KV_TOKENS // self.cache_config.block_size)
        return [blocks * sum(spec.page_size_bytes for spec in specs.values()) for specs in self.get_kv_cache_specs()]

    def get_supported_kv_cache_layouts(self) -> list[list[str]]:
        return [["LBNHC"]]

    def initialize_from_config(self, kv_cache_configs: list[KVCacheConfig]) -> None:
        """There is no cache."""

    def compile_or_warm_up_model(self) -> None:
        """There is no model."""

    def execute_model(self, scheduler_output: SchedulerOutput, non_block: bool = False) -> Any:
        """Returns the tokens already here, so that vLLM need not ask for a sampling step."""
        self._answers.forget(scheduler_output.finished_req_ids)
        for request in scheduler_output.scheduled_new_reqs:
            length = request.sampling_params.max_tokens if request.sampling_params else None
            self._answers.begin(request.req_id, request.prompt_token_ids or (), length)
        scheduled = scheduler_output.num_scheduled_tokens
        if scheduled:
            self._pace.keep()
        sampled = [
            self._answers.tokens(request_id, computed + scheduled[request_id])
            for request_id, computed in _computed(scheduler_output)
        ]
        self._output = _output([request_id for request_id, _ in _computed(scheduler_output)], sampled)
        return _answer(self._output, non_block)

    def sample_tokens(self, grammar_output: GrammarOutput | None, non_block: bool = False) -> Any:  # noqa: ARG002
        """The tokens of the step before, for vLLM's asynchronous scheduling, which always asks."""
        return _answer(self._output, non_block)

    def collective_rpc(  # noqa: PLR0913, RUF100  # vLLM's signature
        self,
        method: str | Callable[..., Any],  # noqa: ARG002
        timeout: float | None = None,  # noqa: ARG002
        args: tuple[Any, ...] = (),  # noqa: ARG002
        kwargs: dict[str, Any] | None = None,  # noqa: ARG002
        non_block: bool = False,
    ) -> Any:
        """Without a model the engine's other calls of its workers have nothing to do."""
        return _answer([None], non_block)

    def check_health(self) -> None:
        """Always well."""


def _computed(scheduler_output: SchedulerOutput) -> list[tuple[str, int]]:
    """The requests of a step, and how many of their tokens were in the KV cache before it."""
    cached = scheduler_output.scheduled_cached_reqs
    return [
        *((request.req_id, request.num_computed_tokens) for request in scheduler_output.scheduled_new_reqs),
        *zip(cached.req_ids, cached.num_computed_tokens, strict=True),
    ]


def _output(request_ids: list[str], sampled: list[list[int]]) -> ModelRunnerOutput:
    places = {request_id: place for place, request_id in enumerate(request_ids)}
    return ModelRunnerOutput(req_ids=request_ids, req_id_to_index=places, sampled_token_ids=sampled)


def _answer(value: Any, non_block: bool) -> Any:
    if not non_block:
        return value
    future: Future[Any] = Future()
    future.set_result(value)
    return future
