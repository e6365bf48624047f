from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import fits, load_profile
from gptoss_bento.errors import HardwareError
from gptoss_bento.hardware.gpu_catalogue import known_cards
from gptoss_bento.hardware.probe import Hardware, hardware_named
from gptoss_bento.planning.plan import Planned
from tests.fakes import A100, H100, H200, L4, T4, machine, nvidia
from tests.unit.planning.plans import planned

A4000 = nvidia("NVIDIA RTX A4000", 16376, "sm_86")


# Hardware


@pytest.mark.parametrize(
    ("profile", "hardware", "expected"),
    [
        ("demo", machine(), {"max_model_len": 4096, "enforce_eager": True}),
        ("demo", machine(T4), {"gpu_memory_utilization": 0.2, "tensor_parallel_size": 1}),
        ("demo", machine(H100), {"gpu_memory_utilization": 0.2, "tensor_parallel_size": 1}),
        ("demo", machine(*[H100] * 8), {"gpu_memory_utilization": 0.2, "tensor_parallel_size": 1}),
        ("gpt-oss-20b", machine(A4000), {"max_model_len": 16384, "max_num_seqs": 16, "gpu_memory_utilization": 0.95}),
        ("gpt-oss-20b", machine(A4000, A4000), {"max_model_len": 131072, "tensor_parallel_size": 2}),
        ("gpt-oss-20b", machine(L4), {"max_model_len": 131072, "max_num_seqs": 64, "gpu_memory_utilization": 0.92}),
        ("gpt-oss-20b", machine(A100), {"max_model_len": 131072}),
        ("gpt-oss-20b", machine(H100), {"max_model_len": 131072}),
        ("gpt-oss-20b", machine(H100, H100), {"max_model_len": 131072, "tensor_parallel_size": 2}),
        ("gpt-oss-20b", machine(*[H100] * 8), {"max_model_len": 131072, "tensor_parallel_size": 8}),
        ("gpt-oss-20b", machine(H200), {"max_model_len": 131072}),
        ("gpt-oss-120b", machine(A100), {"gpu_memory_utilization": 0.95, "max_num_batched_tokens": 1024}),
        ("gpt-oss-120b", machine(H100), {"gpu_memory_utilization": 0.95, "max_num_batched_tokens": 1024}),
        ("gpt-oss-120b", machine(H100, H100), {"max_model_len": 131072, "tensor_parallel_size": 2}),
        ("gpt-oss-120b", machine(*[H100] * 8), {"max_model_len": 131072, "tensor_parallel_size": 8}),
        ("gpt-oss-120b", machine(H200), {"max_model_len": 131072}),
        ("gpt-oss-120b", machine(*[L4] * 4), {"max_model_len": 131072, "tensor_parallel_size": 4}),
    ],
)
def test_profile_on_a_machine(profile: str, hardware: Hardware, expected: Mapping[str, Any]) -> None:
    plan = planned({}, load_profile(profile), hardware)

    assert {name: plan.arguments[name].value for name in expected} == expected


@pytest.mark.parametrize(
    ("profile", "hardware", "left_to_vllm"),
    [
        ("demo", machine(), ["gpu_memory_utilization", "enable_prefix_caching"]),
        ("gpt-oss-20b", machine(H100), ["max_num_seqs", "tensor_parallel_size", "moe_backend", "kv_cache_dtype"]),
        ("gpt-oss-20b", machine(A100), ["max_num_batched_tokens", "kv_cache_dtype", "speculative_config"]),
        ("gpt-oss-120b", machine(H100, H100), ["max_num_seqs", "speculative_config", "stream_interval"]),
        ("gpt-oss-120b", machine(H200), ["max_num_seqs", "tensor_parallel_size", "block_size"]),
    ],
)
def test_profile_leaves_to_vllm_what_it_has_no_reason_to_set(
    profile: str, hardware: Hardware, left_to_vllm: list[str]
) -> None:
    plan = planned({}, load_profile(profile), hardware)

    assert not plan.arguments.keys() & set(left_to_vllm)


def test_demo_on_a_cpu_gets_a_small_cache() -> None:
    demo = load_profile("demo")

    assert planned({}, demo, machine()).environment["VLLM_CPU_KVCACHE_SPACE"] == Planned("1", "tier cpu")
    assert "VLLM_CPU_KVCACHE_SPACE" not in planned({}, demo, machine(T4)).environment


@pytest.mark.parametrize(
    ("profile", "hardware", "found"),
    [
        ("gpt-oss-20b", machine(), "no GPU"),
        ("gpt-oss-20b", machine(T4), "1 x Tesla T4 (15 GiB)"),
        ("gpt-oss-20b", machine(*[T4] * 4), "4 x Tesla T4"),
        ("gpt-oss-120b", machine(), "no GPU"),
        ("gpt-oss-120b", machine(*[L4] * 3), "3 x NVIDIA L4"),
        ("gpt-oss-120b", machine(T4), "Tesla T4"),
        ("gpt-oss-120b", machine(L4), "NVIDIA L4"),
        ("gpt-oss-120b", machine(L4, L4), "2 x NVIDIA L4"),
    ],
)
def test_hardware_below_the_needs_is_refused_with_both(profile: str, hardware: Hardware, found: str) -> None:
    with pytest.raises(HardwareError) as caught:
        planned({}, load_profile(profile), hardware)

    message = str(caught.value)
    assert profile in message
    assert "GiB of MXFP4 weights" in message
    assert "compute capability 8.0" in message
    assert found in message
    assert "PROFILE" in message


def test_requirements_that_some_of_the_gpus_meet_name_those() -> None:
    with pytest.raises(HardwareError) as caught:
        planned({}, load_profile("gpt-oss-20b"), machine(T4, H100, H100))

    assert "found: 1 x Tesla T4 (15 GiB) and 2 x NVIDIA H100 80GB HBM3 (80 GiB)." in str(caught.value)
    assert str(caught.value).endswith(
        " 2 x NVIDIA H100 80GB HBM3 (80 GiB) alone would do: name no others in CUDA_VISIBLE_DEVICES"
        " (`nvidia-smi -L` has the UUIDs)."
    )


def test_requirements_hold_also_for_the_profiles_model_named_again() -> None:
    with pytest.raises(HardwareError, match="'gpt-oss-120b' needs"):
        planned({"MODEL_NAME": "openai/gpt-oss-120b"}, load_profile("gpt-oss-120b"), machine(L4))


def test_requirements_are_those_of_the_profiles_model_only() -> None:
    plan = planned({"MODEL_NAME": "a/small-one"}, load_profile("gpt-oss-120b"), machine(T4))

    assert plan.model.value == "a/small-one"


# Architectures


@pytest.mark.parametrize(
    ("profile", "card", "expected"),
    [
        ("gpt-oss-20b", "a10g", {"moe_backend": "marlin", "max_num_seqs": 64}),
        ("gpt-oss-20b", "a100-40", {"moe_backend": "marlin", "max_num_seqs": 128}),
        ("gpt-oss-20b", "l40s", {"moe_backend": "marlin", "max_num_seqs": 128}),
        ("gpt-oss-20b", "rtx5090", {"moe_backend": "marlin", "max_num_seqs": 64}),
        ("gpt-oss-20b", "rtx5080", {"moe_backend": "marlin", "max_model_len": 16384}),
        ("gpt-oss-20b", "rtx-pro-6000", {"moe_backend": "marlin", "max_model_len": 131072}),
        ("gpt-oss-120b", "rtx-pro-6000", {"moe_backend": "marlin", "max_model_len": 131072}),
        ("gpt-oss-20b", "h100", {"max_num_batched_tokens": 2048, "enable_flashinfer_autotune": False}),
        ("gpt-oss-120b", "h200", {"max_num_batched_tokens": 2304, "enable_flashinfer_autotune": False}),
        ("gpt-oss-120b", "b200", {"kv_cache_dtype": "fp8", "moe_backend": "flashinfer_trtllm"}),
        ("gpt-oss-120b", "b300x8", {"kv_cache_dtype": "fp8", "tensor_parallel_size": 8}),
        ("gpt-oss-120b", "gb200", {"quantization_config": {"moe": {"activation": "mxfp8"}}}),
        ("gpt-oss-120b", "mi300x", {"attention_backend": "ROCM_AITER_UNIFIED_ATTN", "block_size": 64}),
        ("gpt-oss-120b", "mi355xx8", {"gpu_memory_utilization": 0.95, "tensor_parallel_size": 8}),
        ("gpt-oss-120b", "h100-nvl", {"gpu_memory_utilization": 0.92, "max_num_batched_tokens": 2048}),
        ("gpt-oss-120b", "a100-40x2", {"gpu_memory_utilization": 0.95, "max_model_len": 65536}),
        ("gpt-oss-120b", "l40sx2", {"tensor_parallel_size": 2, "max_model_len": 131072}),
    ],
)
def test_profile_on_a_card(profile: str, card: str, expected: Mapping[str, Any]) -> None:
    plan = planned({}, load_profile(profile), hardware_named(card))

    assert {name: plan.arguments[name].value for name in expected} == expected
    assert plan.memory
    assert plan.memory.fits
    assert plan.warnings == ()


@pytest.mark.parametrize("profile", ["gpt-oss-20b", "gpt-oss-120b"])
@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize("goal", list(Goal))
def test_cards_that_meet_the_requirements_are_planned_without_a_warning(profile: str, count: int, goal: Goal) -> None:
    chosen = load_profile(profile)
    machines = [hardware_named(f"{card}x{count}") for card in known_cards()]
    fitting = [machine for machine in machines if fits(chosen, machine)]

    plans = [planned({"GOAL": goal}, chosen, machine) for machine in fitting]

    assert len(plans) > 10
    assert {str(plan.hardware): plan.warnings for plan in plans if plan.warnings or not plan.memory} == {}


@pytest.mark.parametrize(
    ("card", "more"),
    [
        ("mi300x", {}),
        ("mi325xx2", {"VLLM_ROCM_QUICK_REDUCE_QUANTIZATION": "INT4"}),
        ("mi355xx8", {"VLLM_ROCM_QUICK_REDUCE_QUANTIZATION": "INT4"}),
    ],
)
def test_amd_cards_get_the_environment_of_the_guide(card: str, more: dict[str, str]) -> None:
    plan = planned({}, load_profile("gpt-oss-120b"), hardware_named(card))

    own = {name: planned.value for name, planned in plan.environment.items() if planned.origin.startswith("tier")}
    assert own == {"VLLM_ROCM_USE_AITER": "1", "HSA_NO_SCRATCH_RECLAIM": "1", "AMDGCN_USE_BUFFER_OPS": "0", **more}


@pytest.mark.parametrize("card", ["t4", "t4x8", "v100-32x4"])
def test_cards_that_are_too_old_are_refused_with_the_reason(card: str) -> None:
    with pytest.raises(HardwareError, match=r"compute capability 8\.0 or newer.*; found: \d x "):
        planned({}, load_profile("gpt-oss-20b"), hardware_named(card))
