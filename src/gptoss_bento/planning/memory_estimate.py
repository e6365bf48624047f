"""A model's shape + a GPU + vLLM's arguments → how one GPU's memory will be split. Pure, and an estimate.

What the KV cache holds follows vLLM's own computation to the block (vllm/v1/core/kv_cache_utils.py). What comes off
before it, weights, activations and graphs, is computed from the shape with a few constants, each of which was read off
published logs; tests/unit/test_estimate.py holds them against those logs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from gptoss_bento.config.profile import Shape
from gptoss_bento.hardware.probe import GIB, Gpu
from gptoss_bento.planning.model_config import MXFP4

# What the NVIDIA driver keeps of what it reports: 79.19 of 79.65 GiB reach CUDA on an H100, 22.03 of 22.49 on an L4.
_DRIVER_GIB = {"nvidia": 0.46, "amd": 0.0}
# Workspaces of cuBLAS, attention and MoE kernels beside what is counted below, and NCCL's buffers on several GPUs.
# Set so that an H100 (vLLM 0.26) and an A100 (vLLM 0.19) come out as logged.
_WORKSPACE_GIB = 0.4
_COMMUNICATION_GIB = 0.5
# vLLM profiles the sampler with max_num_seqs rows: logits in bf16, in fp32, and the sampler's copy.
_BYTES_PER_LOGIT = 10
# One captured size: the piecewise graph and the one of whole decode steps.
_GRAPH_GIB = 8 / 1024
# vLLM 0.32, EngineArgs.get_batch_defaults: (memory from GiB, tokens, sequences) of an API server, largest first.
_BATCH_DEFAULTS = ((160, 8192 * 2, 1024), (70, 8192, 1024), (0, 2048, 256))
DEFAULT_UTILIZATION = 0.92  # vLLM's gpu_memory_utilization
_GRAPH_SIZE = 1024  # vLLM's default for GPT-OSS
_BLOCK_SIZE = 16  # vLLM's default on GPUs

_CACHE_BYTES = {"bfloat16": 2, "float16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}
_WEIGHT_BYTES = {"auto": 2, "bfloat16": 2, "half": 2, "float16": 2, "float": 4, "float32": 4}

_READ = (
    "max_model_len",
    "gpu_memory_utilization",
    "max_num_batched_tokens",
    "max_num_seqs",
    "max_cudagraph_capture_size",
    "cudagraph_capture_sizes",
    "kv_cache_dtype",
    "kv_cache_memory_bytes",
    "block_size",
    "dtype",
    "speculative_config",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "enforce_eager",
    "async_scheduling",
)
_BEYOND = (
    "compilation_config",
    "cpu_offload_gb",
    "data_parallel_size",
    "decode_context_parallel_size",
    "disable_hybrid_kv_cache_manager",
    "disable_sliding_window",
    "enable_expert_parallel",
    "enable_lora",
    "hf_overrides",
    "kv_offloading_size",
    "num_gpu_blocks_override",
    "prefill_context_parallel_size",
    "quantization",
)

MEMORY_ARGUMENTS = frozenset(_READ + _BEYOND)
"""The arguments that change how memory is split."""


class NotEstimableError(ValueError):
    """These arguments are beyond the estimate; the message says which and why."""


class _Padding(NamedTuple):
    """How a MoE kernel lays out expert matrices: multiples of rows and columns, and a factor on top."""

    intermediate: int
    hidden: int
    factor: float = 1.0


# vLLM 0.32, mxfp4_round_up_hidden_size_and_intermediate_size: Marlin and TRT-LLM pad to 128 x 256, AITER to 256 x 256.
# Hopper's Triton kernel swizzles weights and scales instead; 64.4 GiB for gpt-oss-120b (vLLM 0.14, issue 33155) show
# how much that takes.
_PADDING = {"hopper": _Padding(64, 1, 1.065), "cdna3": _Padding(256, 256), "cdna4": _Padding(256, 256)}
_DEFAULT_PADDING = _Padding(128, 256)


@dataclass(frozen=True)
class Estimate:
    """One GPU's share, in GiB, and what its KV cache holds. `usable` is what vLLM takes of the card.

    `concurrency` counts requests of `max_model_len` tokens; `longest` is the longest request that fits, 0 if none.
    """

    usable_gib: float
    weights_gib: float
    activations_gib: float
    graphs_gib: float
    kv_cache_gib: float
    max_model_len: int
    kv_tokens: int
    concurrency: float
    longest: int
    request_gib: float

    @property
    def fits(self) -> bool:
        """Whether one request of full length fits, which vLLM insists on."""
        return self.longest >= self.max_model_len

    def __str__(self) -> str:
        return (
            f"{self.usable_gib:.1f} GiB of each GPU: weights {self.weights_gib:.1f}, activations "
            f"{self.activations_gib:.1f}, graphs {self.graphs_gib:.1f}, KV cache {self.kv_cache_gib:.1f}; "
            f"{self.kv_tokens:,} tokens, {self.concurrency:.1f} requests of {self.max_model_len:,}"
        )


def estimate(
    shape: Shape, gpu: Gpu | None, arguments: Mapping[str, Any], cpu_cache_gib: float | None = None
) -> Estimate:
    """Splits the memory of one GPU (of each, in a tensor-parallel group).

    Args:
        gpu: the smallest of the GPUs; None for vLLM's CPU backend.
        arguments: vLLM's, by option name; what is missing has vLLM's default.
        cpu_cache_gib: VLLM_CPU_KVCACHE_SPACE, which decides on a CPU.

    Raises:
        NotEstimableError: the arguments use something that this does not model, or are no sizes at all.
    """
    return _Split(shape, gpu, arguments, cpu_cache_gib).estimate()


@dataclass(frozen=True)
class _Split:
    shape: Shape
    gpu: Gpu | None
    arguments: Mapping[str, Any]
    cpu_cache_gib: float | None

    def estimate(self) -> Estimate:
        self._check()
        kv_cache = self._kv_cache_gib
        blocks = max(0, int(kv_cache * GIB / self._block_bytes))
        longest = self._longest(blocks - 1)  # vLLM keeps one block for itself
        length = self._max_model_len or longest
        needed = self._blocks(length)
        concurrency = blocks / needed if length else 0.0
        return Estimate(
            usable_gib=self._usable_gib,
            weights_gib=self._weights_gib,
            activations_gib=self._activations_gib,
            graphs_gib=self._graphs_gib,
            kv_cache_gib=kv_cache,
            max_model_len=length,
            kv_tokens=int(concurrency * length),
            concurrency=concurrency,
            longest=longest,
            request_gib=needed * self._block_bytes / GIB,
        )

    def _check(self) -> None:
        for name in _BEYOND:
            value = self.arguments.get(name)
            if value and not self._is_harmless(name, value) and (name != "compilation_config" or self._changes_graphs):
                raise NotEstimableError(f"{name} is beyond this estimate")
        if not 0 < self._number("gpu_memory_utilization", DEFAULT_UTILIZATION) <= 1:
            raise NotEstimableError("gpu_memory_utilization is not between 0 and 1")

    def _is_harmless(self, name: str, value: Any) -> bool:
        """Whether the argument says only what is so anyway."""
        if name == "quantization":
            return value in MXFP4 and self.shape.expert_bits is not None
        return name.endswith("_parallel_size") and value == 1

    @property
    def _changes_graphs(self) -> bool:
        config = self.arguments.get("compilation_config")
        return not isinstance(config, dict) or any("cudagraph" in str(key) for key in config)

    # What comes before the KV cache

    @property
    def _usable_gib(self) -> float:
        if self.gpu is None:
            return self._weights_gib + self._activations_gib + self._kv_cache_gib
        visible = self.gpu.memory_gib - _DRIVER_GIB[self.gpu.vendor]
        return visible * self._number("gpu_memory_utilization", DEFAULT_UTILIZATION)

    @cached_property
    def _weights_gib(self) -> float:
        shape, tensor, stages = self.shape, self._tensor_parallel, self._pipeline_parallel
        layers = math.ceil(shape.layers / stages)
        heads = shape.heads / tensor + self._kv_heads
        attention = 2 * layers * shape.hidden * shape.head_dim * heads * self._weight_bytes
        vocabulary = (2 if stages == 1 else 1) * shape.vocabulary * shape.hidden * self._weight_bytes / tensor
        drafted = shape.draft_parameters * self._weight_bytes if self._speculated else 0
        return (attention + vocabulary + drafted + layers * self._expert_bytes) / GIB

    @property
    def _expert_bytes(self) -> float:
        """The experts of one layer on one GPU."""
        shape = self.shape
        intermediate: float = shape.intermediate / self._tensor_parallel
        if shape.expert_bits is None:
            return 3 * shape.experts * intermediate * shape.hidden * self._weight_bytes
        padding = _PADDING.get(self.gpu.family if self.gpu else "", _DEFAULT_PADDING)
        elements: int = _rounded_up(intermediate, padding.intermediate) * _rounded_up(shape.hidden, padding.hidden)
        return float(3 * shape.experts * elements * padding.factor * shape.expert_bits / 8)

    @cached_property
    def _activations_gib(self) -> float:
        """The larger of vLLM's two peaks in its profiling run: the sampler's, and the MoE's over a full batch."""
        shape, tokens = self.shape, self._batched_tokens
        rows = min(self._sequences * (1 + self._speculated), tokens)
        per_expert = shape.hidden * 2 + shape.intermediate * 2 / self._tensor_parallel
        moe = tokens * 2 * (4 * shape.hidden + shape.experts_per_token * per_expert)
        peak: float = max(rows * shape.vocabulary * _BYTES_PER_LOGIT, moe) / GIB
        return peak + _WORKSPACE_GIB + (_COMMUNICATION_GIB if self._tensor_parallel > 1 else 0)

    @cached_property
    def _graphs_gib(self) -> float:
        """Unless sizes are named, vLLM captures 1, 2, 4, every 8th size up to 256 and every 16th beyond."""
        if self.gpu is None or self.arguments.get("enforce_eager"):
            return 0.0
        if named := self.arguments.get("cudagraph_capture_sizes"):
            return _GRAPH_GIB * len({size for size in named if size <= self._batched_tokens})
        largest = min(self._size("max_cudagraph_capture_size", _GRAPH_SIZE), self._batched_tokens)
        sizes = [1, 2, 4, *range(8, 256, 8), *range(256, max(largest, 256) + 1, 16)]
        return _GRAPH_GIB * len([size for size in sizes if size <= largest])

    @cached_property
    def _kv_cache_gib(self) -> float:
        if stated := self.arguments.get("kv_cache_memory_bytes"):
            return read_count("kv_cache_memory_bytes", stated) / GIB
        if self.gpu is None:
            if self.cpu_cache_gib is None:
                raise NotEstimableError("without VLLM_CPU_KVCACHE_SPACE vLLM takes what the machine has free")
            return self.cpu_cache_gib
        return self._usable_gib - self._weights_gib - self._activations_gib - self._graphs_gib

    # The KV cache, as vLLM's hybrid manager divides it

    @cached_property
    def _groups(self) -> tuple[int, int, int]:
        """(full-attention groups, sliding-window groups, layers in each), for the layers of one pipeline stage."""
        full = math.ceil((self.shape.layers - self.shape.sliding_layers) / self._pipeline_parallel)
        full += 1 if self._speculated else 0  # EAGLE3's draft is one layer with full attention
        sliding = math.ceil(self.shape.sliding_layers / self._pipeline_parallel)
        least, most = sorted((full, sliding))
        size = most if most < least * 1.5 or not least else least
        return math.ceil(full / size), math.ceil(sliding / size), size

    @cached_property
    def _block_bytes(self) -> int:
        """One block: keys and values of `block_size` tokens in all layers of a group."""
        _, _, layers = self._groups
        return layers * 2 * self._block_size * self._kv_heads * self.shape.head_dim * self._cache_bytes

    def _blocks(self, length: int) -> int:
        """What a request of this length may hold: in full attention all of it, else window and what is in flight."""
        full, sliding, _ = self._groups
        kept = min(self.shape.sliding_window - 1 + self._tokens_in_flight, length)
        return full * math.ceil(length / self._block_size) + sliding * (math.ceil(kept / self._block_size) + 1)

    def _longest(self, blocks: int) -> int:
        """The longest request that these blocks hold, by bisection; 0 if none."""
        low, high = 0, max(self.shape.max_length, self._max_model_len or 0)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self._blocks(middle) <= blocks else (low, middle - 1)
        return low

    @property
    def _tokens_in_flight(self) -> int:
        """Asynchronous scheduling plans one batch ahead; a pipeline has one in every stage."""
        batches = self._pipeline_parallel + (1 if self.arguments.get("async_scheduling", True) else 0)
        return batches * self._batched_tokens

    # Arguments, with vLLM's defaults

    @property
    def _max_model_len(self) -> int | None:
        """None: vLLM finds the longest that fits."""
        value = self.arguments.get("max_model_len", self.shape.max_length)
        return None if value in (-1, "-1", "auto") else read_count("max_model_len", value)

    @cached_property
    def _batched_tokens(self) -> int:
        return self._size("max_num_batched_tokens", self._batch_defaults[0])

    @property
    def _sequences(self) -> int:
        return self._size("max_num_seqs", self._batch_defaults[1])

    @property
    def _batch_defaults(self) -> tuple[int, int]:
        if self.gpu is None:
            return 2048, 128
        memory = 0.0 if "a100" in self.gpu.name.lower() else self.gpu.memory_gib
        return next((tokens, seqs) for least, tokens, seqs in _BATCH_DEFAULTS if memory >= least)

    @property
    def _speculated(self) -> int:
        """Tokens that a draft model proposes in each step."""
        config = self.arguments.get("speculative_config")
        if not config:
            return 0
        if not isinstance(config, dict) or not isinstance(config.get("num_speculative_tokens"), int):
            raise NotEstimableError("speculative_config has no num_speculative_tokens")
        return max(0, int(config["num_speculative_tokens"]))

    @property
    def _tensor_parallel(self) -> int:
        return self._size("tensor_parallel_size", 1)

    @property
    def _pipeline_parallel(self) -> int:
        return self._size("pipeline_parallel_size", 1)

    @property
    def _kv_heads(self) -> int:
        """On one GPU; more GPUs than heads hold copies."""
        return max(1, math.ceil(self.shape.kv_heads / self._tensor_parallel))

    @property
    def _block_size(self) -> int:
        return self._size("block_size", _BLOCK_SIZE)

    @property
    def _weight_bytes(self) -> int:
        return self._bytes("dtype", _WEIGHT_BYTES, "auto")

    @property
    def _cache_bytes(self) -> int:
        return self._bytes("kv_cache_dtype", {**_CACHE_BYTES, "auto": self._weight_bytes}, "auto")

    def _bytes(self, name: str, sizes: Mapping[str, int], default: str) -> int:
        value = str(self.arguments.get(name, default))
        if value not in sizes:
            raise NotEstimableError(f"{name} {value} is beyond this estimate")
        return sizes[value]

    def _size(self, name: str, default: int) -> int:
        return read_count(name, self.arguments.get(name, default))

    def _number(self, name: str, default: float) -> float:
        value = self.arguments.get(name, default)
        if not isinstance(value, (int, float)):
            raise NotEstimableError(f"{name} is not a number")
        return float(value)


_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def read_count(name: str, value: Any) -> int:
    """A whole number of at least 1, also written as vLLM reads them: 4k is 4000, 4K is 4096.

    Raises:
        NotEstimableError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgGtT]?)", str(value))
    count = int(float(match[1]) * _SUFFIXES[match[2]]) if match else 0
    if count < 1:
        raise NotEstimableError(f"{name} is not a size of at least 1")
    return count


def _rounded_up(value: float, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple
