"""The estimate against what vLLM printed, elsewhere and before: each figure with its source."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gptoss_bento.config.profile import Shape, load_profile
from gptoss_bento.config.vllm_options import known_options
from gptoss_bento.hardware.probe import Gpu, hardware_named
from gptoss_bento.planning.memory_estimate import (
    MEMORY_ARGUMENTS,
    Estimate,
    NotEstimableError,
    estimate,
)
from tests.fakes import A100, H100, L4

_MIB = 1024**2


def shape_of(profile: str) -> Shape:
    shape = load_profile(profile).model.shape
    assert shape is not None
    return shape


SMALL, LARGE, DEMO = shape_of("gpt-oss-20b"), shape_of("gpt-oss-120b"), shape_of("demo")


def split(shape: Shape = SMALL, gpu: Gpu | None = H100, **arguments: Any) -> Estimate:
    return estimate(shape, gpu, {"async_scheduling": True, **arguments})


# Against published logs


@pytest.mark.parametrize(
    ("shape", "gpu", "gib", "within"),
    [
        (SMALL, H100, 13.4, 0.03),  # vLLM logs 13.4 to 14
        (SMALL, A100, 13.72, 0.01),  # vLLM 0.19: "Model loading took 13.72 GiB"
        (LARGE, H100, 64.38, 0.01),  # vLLM 0.14, issue 33155
        (LARGE, A100, 65.97, 0.01),  # Marlin's layout; vLLM 0.10, issue 23278
    ],
)
def test_weights_are_as_vllm_logs_them(shape: Shape, gpu: Gpu, gib: float, within: float) -> None:
    assert split(shape, gpu).weights_gib == pytest.approx(gib, rel=within)


@pytest.mark.parametrize(("shape", "low", "high"), [(SMALL, 12.5, 14), (LARGE, 61, 65)])
def test_weights_are_about_the_size_of_the_checkpoint(shape: Shape, low: float, high: float) -> None:
    assert low < split(shape, H100).weights_gib < high


def test_kv_tokens_on_an_h100_are_as_vllm_reported_them() -> None:
    """vLLM 0.26, gpt-oss-20b, 0.92 of 80 GB, 8192 tokens: 1,225,067.

    That figure is 153,283 blocks for requests of 8192 tokens to the last digit, which no other usual length gives.
    """
    found = split(gpu_memory_utilization=0.92, max_num_batched_tokens=8192, max_model_len=8192)

    assert found.kv_tokens == pytest.approx(1_225_067, rel=0.02)


def test_vllms_own_arithmetic_is_followed_to_the_token() -> None:
    blocks, block_bytes = 153_283, 12 * 2 * 16 * 8 * 64 * 2

    assert split(kv_cache_memory_bytes=blocks * block_bytes, max_model_len=8192).kv_tokens == 1_225_067


def test_kv_cache_of_an_a100_is_as_vllm_logged_it() -> None:
    """vLLM 0.19, gpt-oss-20b, --gpu-memory-utilization 0.65: "Available KV cache memory: 36.56 GiB"."""
    assert split(gpu=A100, gpu_memory_utilization=0.65).kv_cache_gib == pytest.approx(36.56, rel=0.03)


def test_parts_make_up_the_whole() -> None:
    found = split()

    parts = found.weights_gib + found.activations_gib + found.graphs_gib + found.kv_cache_gib
    assert parts == pytest.approx(found.usable_gib)
    assert found.usable_gib == pytest.approx(0.92 * 79.19, rel=0.001)  # 79.19 GiB: what CUDA sees of an H100


# How the cache is shared out


@pytest.mark.parametrize(
    ("length", "batched", "asynchronous", "blocks"),
    [
        (131072, 8192, True, 8192 + math.ceil((127 + 2 * 8192) / 16) + 1),
        (131072, 8192, False, 8192 + math.ceil((127 + 8192) / 16) + 1),
        (131072, 1024, True, 8192 + math.ceil((127 + 2 * 1024) / 16) + 1),
        (100, 8192, True, 7 + 7 + 1),
    ],
)
def test_request_holds_all_in_full_attention_and_a_window_in_the_rest(
    length: int, batched: int, asynchronous: bool, blocks: int
) -> None:
    found = split(max_model_len=length, max_num_batched_tokens=batched, async_scheduling=asynchronous)

    assert found.request_gib * 1024**3 == pytest.approx(blocks * 12 * 2 * 16 * 8 * 64 * 2)


def test_concurrency_and_tokens_belong_together() -> None:
    found = split(max_model_len=65536)

    assert found.kv_tokens == int(found.concurrency * 65536)


def test_cache_in_fp8_holds_twice_as_much() -> None:
    assert split(kv_cache_dtype="fp8").kv_tokens == pytest.approx(2 * split().kv_tokens, rel=1e-4)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_tensor_parallel_gpus_share_weights_and_cache(size: int) -> None:
    found = split(LARGE, tensor_parallel_size=size)

    assert 1 / size < found.weights_gib / split(LARGE).weights_gib < 1.15 / size  # padded in each
    assert found.request_gib == pytest.approx(split(LARGE).request_gib / size)


def test_pipeline_shares_layers() -> None:
    found = split(LARGE, pipeline_parallel_size=2)

    assert found.weights_gib == pytest.approx(split(LARGE).weights_gib / 2, rel=0.02)
    assert found.request_gib < split(LARGE).request_gib * 0.6


def test_draft_model_takes_weights_and_a_padded_group() -> None:
    config = {"method": "eagle3", "model": "a/draft", "num_speculative_tokens": 3}
    found, plain = split(speculative_config=config), split()

    assert found.weights_gib - plain.weights_gib == pytest.approx(750e6 * 2 / 1024**3)
    assert found.request_gib == pytest.approx(plain.request_gib * 13 / 12)  # 13 full and 12 sliding layers: 13 and 13


def test_cache_is_larger_without_graphs() -> None:
    assert split(enforce_eager=True).graphs_gib == 0
    assert split(max_cudagraph_capture_size=16).graphs_gib < split().graphs_gib < 1


def test_graphs_of_listed_sizes_count_one_by_one() -> None:
    named = split(cudagraph_capture_sizes=[1, 2, 4, 8, 16])

    assert named.graphs_gib == split(max_cudagraph_capture_size=16).graphs_gib
    assert split(cudagraph_capture_sizes=[1, 2]).graphs_gib == pytest.approx(named.graphs_gib * 2 / 5)
    assert named.kv_cache_gib > split().kv_cache_gib


def test_vllm_captures_each_size_once_and_none_that_no_batch_has() -> None:
    listed = split(cudagraph_capture_sizes=[1, 2, 2, 512, 1024], max_num_batched_tokens=512)

    assert listed.graphs_gib == split(cudagraph_capture_sizes=[1, 2, 512], max_num_batched_tokens=512).graphs_gib
    assert split(cudagraph_capture_sizes=[1, 2], enforce_eager=True).graphs_gib == 0


def test_activations_take_less_for_fewer_tokens_and_sequences() -> None:
    small = split(max_num_batched_tokens=1024, max_num_seqs=16)

    assert small.activations_gib < split().activations_gib - 1


@pytest.mark.parametrize(
    ("gpu", "same_as"),
    [
        (L4, {"max_num_batched_tokens": 2048, "max_num_seqs": 256}),
        (A100, {"max_num_batched_tokens": 2048, "max_num_seqs": 256}),
        (H100, {"max_num_batched_tokens": 8192, "max_num_seqs": 1024}),
        (hardware_named("b200").gpus[0], {"max_num_batched_tokens": 16384, "max_num_seqs": 1024}),
    ],
)
def test_options_that_are_not_set_have_vllms_defaults(gpu: Gpu, same_as: dict[str, Any]) -> None:
    stated: dict[str, Any] = {
        "max_model_len": 131072,
        "gpu_memory_utilization": 0.92,
        "max_cudagraph_capture_size": 1024,
        "block_size": 16,
    }

    assert split(gpu=gpu) == split(gpu=gpu, **stated, **same_as)


@pytest.mark.parametrize(("text", "number"), [("64k", 64000), ("64K", 65536), ("65536", 65536), ("1.5k", 1500)])
def test_lengths_are_read_as_vllm_reads_them(text: str, number: int) -> None:
    assert split(max_model_len=text).max_model_len == number


@pytest.mark.parametrize("auto", [-1, "auto", "-1"])
def test_length_left_to_vllm_is_the_longest_that_fits(auto: Any) -> None:
    found = split(gpu=L4, max_model_len=auto, gpu_memory_utilization=0.75)

    assert found.max_model_len == found.longest < 131072
    assert found.fits


# What fits


@pytest.mark.parametrize(
    ("shape", "gpu", "arguments", "fits"),
    [
        (SMALL, L4, {}, True),
        (SMALL, L4, {"gpu_memory_utilization": 0.7}, False),
        (LARGE, H100, {"gpu_memory_utilization": 0.95, "max_num_batched_tokens": 1024}, True),
        (LARGE, H100, {"gpu_memory_utilization": 0.9}, False),  # issue 23278
        (LARGE, L4, {"tensor_parallel_size": 4, "max_num_seqs": 64}, True),
        (LARGE, L4, {}, False),
    ],
)
def test_request_of_full_length_fits_or_not(shape: Shape, gpu: Gpu, arguments: dict[str, Any], fits: bool) -> None:
    assert split(shape, gpu, **arguments).fits is fits


def test_longest_that_fits_does_fit_and_one_block_more_does_not() -> None:
    arguments: dict[str, Any] = {"gpu_memory_utilization": 0.75}
    longest = split(gpu=L4, **arguments).longest

    assert split(gpu=L4, max_model_len=longest, **arguments).fits
    assert not split(gpu=L4, max_model_len=longest + 16, **arguments).fits


def test_weights_larger_than_the_card_leave_nothing() -> None:
    found = split(LARGE, L4)

    assert found.kv_cache_gib < 0
    assert (found.longest, found.kv_tokens, found.concurrency) == (0, 0, 0)


# On a CPU


def test_cache_on_a_cpu_is_as_large_as_set() -> None:
    """docs/performance.md and configs/demo.yaml: 1 GiB holds some 520,000 tokens of the demo."""
    found = estimate(DEMO, None, {"dtype": "float32", "max_model_len": 4096, "max_num_batched_tokens": 4096}, 1.0)

    assert found.kv_cache_gib == 1
    assert found.kv_tokens == pytest.approx(520_000, rel=0.01)
    assert found.graphs_gib == 0


def test_cache_on_a_cpu_without_a_setting_is_not_estimated() -> None:
    with pytest.raises(NotEstimableError, match="VLLM_CPU_KVCACHE_SPACE"):
        estimate(DEMO, None, {})


# What is beyond it


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"quantization": "fp8"}, "quantization"),
        ({"data_parallel_size": 2}, "data_parallel_size"),
        ({"enable_lora": True}, "enable_lora"),
        ({"kv_cache_dtype": "nvfp4"}, "kv_cache_dtype"),
        ({"dtype": "strange"}, "dtype"),
        ({"gpu_memory_utilization": 0.0}, "gpu_memory_utilization"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization"),
        ({"gpu_memory_utilization": "much"}, "gpu_memory_utilization"),
        ({"block_size": -1}, "block_size"),
        ({"max_num_seqs": 0}, "max_num_seqs"),
        ({"max_model_len": "long"}, "max_model_len"),
        ({"speculative_config": {"method": "ngram"}}, "speculative_config"),
        ({"compilation_config": {"cudagraph_mode": "NONE"}}, "compilation_config"),
    ],
)
def test_arguments_beyond_the_estimate_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(NotEstimableError, match=named):
        split(**arguments)


def test_mxfp4_of_weights_that_are_stored_otherwise_is_beyond_the_estimate() -> None:
    with pytest.raises(NotEstimableError, match="quantization"):
        split(SMALL.model_copy(update={"expert_bits": None}), quantization="mxfp4")


@pytest.mark.parametrize(
    "arguments",
    [
        {"data_parallel_size": 1},
        {"enable_lora": False},
        {"quantization": "mxfp4"},
        {"quantization": "gpt_oss_mxfp4"},
        {"compilation_config": {"pass_config": {}}},
        {"speculative_config": {}},
    ],
)
def test_arguments_that_change_nothing_are_not(arguments: dict[str, Any]) -> None:
    assert split(**arguments) == split()


def test_arguments_it_knows_are_vllms() -> None:
    assert set(known_options()) >= MEMORY_ARGUMENTS
