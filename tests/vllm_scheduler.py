"""vLLM's own scheduler for a GPT-OSS, without an engine: the n-th token of every answer is the same."""

from __future__ import annotations

import json
import logging
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

with warnings.catch_warnings(action="ignore"):  # of torch's own
    import torch
    from vllm.engine.arg_utils import EngineArgs
    from vllm.sampling_params import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec, SlidingWindowSpec
    from vllm.v1.outputs import ModelRunnerOutput
    from vllm.v1.request import Request, RequestStatus
    from vllm.v1.structured_output import StructuredOutputManager

from gptoss_bento.demo.checkpoint import CONFIG
from gptoss_bento.engine.vllm_plugin import block_bookkeeping, patches, token_bookkeeping

BLOCK_SIZE = 16
_STEPS_AHEAD = 2  # the engine schedules a step while the one before runs
END_TOKEN = 19
"""The model's own. It ends an answer of a request that does not ignore it."""


@contextmanager
def spared() -> Iterator[None]:
    """Inside, vLLM's scheduler is as the plugin makes it.

    Raises:
        RuntimeError: the plugin does not know this scheduler.
    """
    changed = (patches.ALLOCATE_SLOTS, patches.CACHE_BLOCKS, patches.UPDATE_REQUEST)
    alone = [(patch, patch.original()) for patch in changed]
    try:
        if not all(module.install(logging.getLogger("vllm")) for module in (block_bookkeeping, token_bookkeeping)):
            raise RuntimeError("The plugin does not know this vLLM's scheduler.")
        yield
    finally:
        for patch, original in alone:
            patch.replace(original)


@cache
def _configuration(max_batched_tokens: int, prefix_caching: bool) -> Any:
    folder = Path(mkdtemp(prefix="gpt-oss-"))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    arguments = EngineArgs(
        model=str(folder),
        skip_tokenizer_init=True,
        async_scheduling=True,
        max_model_len=4096,
        max_num_seqs=min(1024, max_batched_tokens),
        max_num_batched_tokens=max_batched_tokens,
        enable_prefix_caching=prefix_caching,
    )
    return arguments.create_engine_config()


@dataclass
class SimulatedEngine:
    """The scheduler, and steps that take no time.

    Attributes:
        blocks: the size of the KV cache, in blocks of 16 tokens.
        max_batched_tokens: the most tokens of a step.
        prefix_caching: whether complete blocks can be found by their prefix.
    """

    blocks: int
    max_batched_tokens: int = 2048
    prefix_caching: bool = True
    scheduler: Any = field(init=False)

    def __post_init__(self) -> None:

        config = _configuration(self.max_batched_tokens, self.prefix_caching)
        config.cache_config.num_gpu_blocks = self.blocks
        shape: dict[str, Any] = {"block_size": BLOCK_SIZE, "num_kv_heads": 4, "head_size": 32, "dtype": torch.bfloat16}
        groups = [
            KVCacheGroupSpec(["full"], FullAttentionSpec(**shape)),
            KVCacheGroupSpec(["sliding"], SlidingWindowSpec(**shape, sliding_window=128)),
        ]
        init_none_hash(sha256)
        self._hasher = get_request_block_hasher(BLOCK_SIZE, sha256)
        self.scheduler = AsyncScheduler(
            config,
            KVCacheConfig(num_blocks=self.blocks, kv_cache_tensors=[], kv_cache_groups=groups),
            StructuredOutputManager(config),
            block_size=BLOCK_SIZE,
            log_stats=True,
        )
        self._running: deque[tuple[Any, dict[str, bool]]] = deque()
        self._full = False

    def add(self, name: str, prompt: list[int], max_tokens: int, **others: Any) -> None:
        """A request that is answered with `max_tokens` tokens, unless one of its other parameters ends it before."""
        parameters = SamplingParams(max_tokens=max_tokens, **{"ignore_eos": True, **others})
        if not parameters.ignore_eos:
            parameters.update_from_generation_config({}, END_TOKEN)
        self.scheduler.add_request(Request(name, prompt, parameters, None, block_hasher=self._hasher))

    def abort(self, name: str) -> None:

        self.scheduler.finish_requests(name, RequestStatus.FINISHED_ABORTED)

    @property
    def busy(self) -> bool:
        return bool(self.scheduler.has_unfinished_requests() or self._running)

    def schedule(self) -> Any:
        """Begins a step, if there is something to do, and returns what the scheduler made of it."""
        output = self.scheduler.schedule()
        if output.total_num_scheduled_tokens:
            # A request in the middle of its prompt samples no token.
            samples = {name: not self.scheduler.requests[name].is_prefill_chunk for name in output.num_scheduled_tokens}
            self._running.append((output, samples))
        self._full = len(self._running) == _STEPS_AHEAD or not output.total_num_scheduled_tokens
        return output

    def ended(self) -> tuple[Any, Any] | None:
        """The step that ends before another begins, and the model's output; None: there is room for one more."""
        if not self._full or not self._running:
            return None
        output, samples = self._running.popleft()
        names = list(samples)
        tokens = [[self._token(name)] if samples[name] else [] for name in names]
        return output, ModelRunnerOutput(names, {n: i for i, n in enumerate(names)}, sampled_token_ids=tokens)

    def _token(self, name: str) -> int:
        """Counts upwards to 40, again and again; a request that has ended meanwhile gets any."""
        request = self.scheduler.requests.get(name)
        return request.num_output_tokens % 40 if request else 0

    def steps(self) -> Iterator[Any]:
        """Runs until nothing is left to do; gives what was scheduled, step by step."""
        while self.busy:
            yield self.schedule()
            if (ended := self.ended()) is not None:
                self.scheduler.update_from_output(*ended)

    def blocks_in_use(self) -> dict[str, Any]:
        """All that the scheduler knows of the blocks: whose they are, the order of the free ones, what can be found."""
        pool = self.scheduler.kv_cache_manager.block_pool
        managers = self.scheduler.kv_cache_manager.coordinator.single_type_managers
        return {
            "held": [{r: [b.block_id for b in held] for r, held in m.req_to_blocks.items()} for m in managers],
            "free": [block.block_id for block in pool.free_block_queue.get_all_free_blocks()],
            "cached": {block.block_id: block.block_hash for block in pool.blocks if block.block_hash is not None},
        }
