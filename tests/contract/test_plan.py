"""What plans and estimates take for granted of vLLM: that it takes the words, and that it divides the cache so."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import fits, load_profile, profile_names
from gptoss_bento.engine.vllm_parser import serve_parser
from gptoss_bento.hardware.gpu_catalogue import known_cards
from gptoss_bento.hardware.probe import hardware_named
from gptoss_bento.planning.memory_estimate import estimate
from gptoss_bento.planning.planner import make_plan

# vLLM's own warnings at import are not ours to fix.
pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]


def distinct_argvs() -> set[tuple[str, ...]]:
    """vLLM's words for every profile, goal and card, alone and eightfold."""
    machines = [hardware_named(f"{card}x{count}") for card in known_cards() for count in (1, 8)]
    plans = [
        make_plan(load_settings({"GOAL": goal}), profile, machine)
        for profile in map(load_profile, profile_names())
        for goal in Goal
        for machine in machines
        if fits(profile, machine)
    ]
    return {tuple(plan.argv(plan.model.value)) for plan in plans}


def test_vllm_takes_every_argument_that_a_plan_can_have() -> None:
    engine_args = importlib.import_module("vllm.engine.arg_utils").AsyncEngineArgs
    parser = serve_parser()

    argvs = distinct_argvs()
    for argv in argvs:
        engine_args.from_cli_args(parser.parse_args(list(argv)))

    assert len(argvs) > 20


def test_vllm_selects_mxfp8_activations_by_the_arguments_for_blackwell() -> None:
    resolve = importlib.import_module("vllm.config.quantization").resolve_quantization_config
    plan = make_plan(load_settings({}), load_profile("gpt-oss-120b"), hardware_named("b200"))

    found = resolve(None, plan.arguments["quantization_config"].value)

    keys = importlib.import_module("vllm.model_executor.layers.quantization.utils.quant_utils")
    assert found.moe.activation == keys.kMxfp8Dynamic


@pytest.mark.parametrize(
    "name", ["VLLM_ROCM_USE_AITER", "VLLM_ROCM_QUICK_REDUCE_QUANTIZATION", "VLLM_CPU_KVCACHE_SPACE"]
)
def test_vllm_reads_the_variables_that_tiers_set(name: str) -> None:
    assert name in importlib.import_module("vllm.envs").environment_variables


@pytest.mark.parametrize("name", ["VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8", "VLLM_MXFP4_USE_MARLIN"])
def test_vllm_no_longer_reads_what_moe_backend_replaces(name: str) -> None:
    assert name not in importlib.import_module("vllm.envs").environment_variables


@pytest.mark.parametrize(("profile", "layers"), [("gpt-oss-20b", 24), ("gpt-oss-120b", 36)])
@pytest.mark.parametrize("length", [1000, 8192, 131072])
@pytest.mark.parametrize("tensor_parallel", [1, 2, 8])
@pytest.mark.parametrize("draft_layers", [0, 1])
def test_vllm_counts_the_same_tokens(
    profile: str, layers: int, length: int, tensor_parallel: int, draft_layers: int
) -> None:
    blocks, batched = 100_000, 4096
    shape = load_profile(profile).model.shape
    assert shape is not None
    groups = _groups(layers, draft_layers, shape.kv_heads // tensor_parallel)
    config: Any = SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=length),
        parallel_config=SimpleNamespace(decode_context_parallel_size=1),
        max_in_flight_tokens=2 * batched,
    )
    cache: Any = SimpleNamespace(kv_cache_groups=groups, num_blocks=blocks)
    utils = importlib.import_module("vllm.v1.core.kv_cache_utils")
    tokens, concurrency = utils.get_kv_cache_capacity(config, cache)
    block_bytes = max(len(group.layer_names) for group in groups) * groups[0].kv_cache_spec.page_size_bytes
    arguments = {
        "max_model_len": length,
        "max_num_batched_tokens": batched,
        "tensor_parallel_size": tensor_parallel,
        "kv_cache_memory_bytes": blocks * block_bytes,
        "speculative_config": {"num_speculative_tokens": 3} if draft_layers else None,
    }

    found = estimate(shape, hardware_named("h100").gpus[0], arguments)

    assert found.kv_tokens == tokens
    assert found.concurrency == pytest.approx(concurrency)


def _groups(layers: int, draft_layers: int, kv_heads: int) -> list[Any]:
    """vLLM's groups for layers that alternate between a window of 128 and full attention, as GPT-OSS's do."""
    interface = importlib.import_module("vllm.v1.kv_cache_interface")
    utils = importlib.import_module("vllm.v1.core.kv_cache_utils")
    shape = {
        "block_size": 16,
        "num_kv_heads": kv_heads,
        "head_size": 64,
        "dtype": importlib.import_module("torch").bfloat16,
    }
    full = interface.FullAttentionSpec(**shape)
    sliding = interface.SlidingWindowSpec(**shape, sliding_window=128)
    specs = {f"layer.{index}": full if index % 2 else sliding for index in range(layers)}
    specs |= {f"draft.{index}": full for index in range(draft_layers)}
    return list(utils._get_kv_cache_groups_uniform_page_size(specs))
