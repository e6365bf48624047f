from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import Profile, fits, load_profile
from gptoss_bento.errors import ConfigurationError, HardwareError
from gptoss_bento.hardware.gpu_catalogue import known_cards
from gptoss_bento.hardware.probe import Gpu, Hardware, hardware_named
from gptoss_bento.planning.kernel_key import KERNEL_CACHES
from gptoss_bento.planning.plan import GPT_OSS_ARGUMENTS, PROCESS_ENVIRONMENT, EnginePlan, Planned, make_plan
from tests.fakes import A100, H100, H200, L4, T4, machine, nvidia

A4000 = nvidia("NVIDIA RTX A4000", 16376, "sm_86")
TIER = "tier of all machines"
START_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
PROFILE = Profile.model_validate(
    {
        "name": "p",
        "description": "d",
        "model": {"source": "org/model", "revision": "r1", "served_names": ["first", "second"]},
        "engine": {
            "arguments": {"max_num_seqs": 8, "max_model_len": 1024, "async_scheduling": False},
            "environment": {"FROM_PROFILE": "1", "FROM_BOTH": "profile", "VLLM_NO_USAGE_STATS": "0"},
        },
        "tiers": [
            {
                "name": "of all machines",
                "when": {},
                "arguments": {"max_model_len": 2048, "gpu_memory_utilization": 0.5},
                "environment": {"FROM_BOTH": "tier"},
            },
            {"name": "last", "when": {}, "arguments": {"gpu_memory_utilization": 0.6}},
            {"name": "of CPUs", "when": {"device": "cpu"}, "arguments": {"max_num_seqs": 2}},
        ],
    }
)


def planned(environ: Mapping[str, str], profile: Profile = PROFILE, hardware: Hardware | None = None) -> EnginePlan:
    return make_plan(load_settings(environ), profile, hardware or machine(H100))


# Precedence: one test per edge


def test_the_profile_wins_over_the_default_for_gpt_oss() -> None:
    assert planned({}).arguments["async_scheduling"] == Planned(False, "profile")


def test_a_tier_wins_over_the_profile() -> None:
    assert planned({}).arguments["max_model_len"] == Planned(2048, TIER)


def test_a_later_tier_wins_over_an_earlier_one() -> None:
    assert planned({}).arguments["gpu_memory_utilization"] == Planned(0.6, "tier last")


def test_a_variable_wins_over_a_tier() -> None:
    plan = planned({"GPU_MEMORY_UTILIZATION": "0.7"})

    assert plan.arguments["gpu_memory_utilization"] == Planned(0.7, "GPU_MEMORY_UTILIZATION")


def test_a_variable_wins_over_the_profile() -> None:
    assert planned({"MAX_NUM_SEQS": "3"}).arguments["max_num_seqs"] == Planned(3, "MAX_NUM_SEQS")


def test_a_variable_that_says_false_wins_over_the_default_for_gpt_oss() -> None:
    plan = planned({"ENABLE_AUTO_TOOL_CHOICE": "false"})

    assert plan.arguments["enable_auto_tool_choice"] == Planned(False, "ENABLE_AUTO_TOOL_CHOICE")
    assert "--no-enable-auto-tool-choice" in plan.argv("m")


def test_a_variable_wins_over_the_number_of_gpus() -> None:
    plan = planned({"TENSOR_PARALLEL_SIZE": "1"}, hardware=machine(H100, H100))

    assert plan.arguments["tensor_parallel_size"] == Planned(1, "TENSOR_PARALLEL_SIZE")


def test_a_profile_wins_over_the_number_of_gpus() -> None:
    plan = planned({}, load_profile("demo"), machine(H100, H100))

    assert plan.arguments["tensor_parallel_size"] == Planned(1, "profile")


def test_a_variable_equal_to_the_profile_is_still_the_variables() -> None:
    assert planned({"MAX_NUM_SEQS": "8"}).arguments["max_num_seqs"] == Planned(8, "MAX_NUM_SEQS")


def test_a_tier_for_other_machines_changes_nothing() -> None:
    assert planned({}, hardware=machine(H100)).arguments["max_num_seqs"] == Planned(8, "profile")
    assert planned({}, hardware=machine()).arguments["max_num_seqs"] == Planned(2, "tier of CPUs")


def test_the_defaults_for_gpt_oss_apply_where_nobody_says_else() -> None:
    plan = planned({})

    for name in GPT_OSS_ARGUMENTS.keys() - {"async_scheduling"}:
        assert plan.arguments[name] == Planned(GPT_OSS_ARGUMENTS[name], "default for GPT-OSS")


def test_the_model_of_the_profile_is_the_model() -> None:
    plan = planned({})

    assert plan.model == Planned("org/model", "profile")
    assert plan.revision == Planned("r1", "profile")


@pytest.mark.parametrize("variable", ["MODEL_NAME", "MODEL"])
def test_the_model_named_by_the_operator_wins_over_the_profile(variable: str) -> None:
    assert planned({variable: "mine/model"}).model == Planned("mine/model", variable)


@pytest.mark.parametrize("variable", ["MODEL_REVISION", "REVISION"])
def test_the_revision_named_by_the_operator_wins_over_the_profile(variable: str) -> None:
    assert planned({variable: "r2"}).revision == Planned("r2", variable)


def test_the_profile_names_the_model_for_clients() -> None:
    assert planned({}).served_names == Planned(("first", "second"), "profile")


def test_another_model_is_served_under_its_own_name() -> None:
    assert planned({"MODEL_NAME": "mine/model"}).served_names == Planned(("mine/model",), "MODEL_NAME")


def test_the_profiles_model_named_again_keeps_the_profiles_names() -> None:
    assert planned({"MODEL_NAME": "org/model"}).served_names == Planned(("first", "second"), "profile")


def test_names_given_by_the_operator_win_over_those_of_model_and_profile() -> None:
    plan = planned({"MODEL_NAME": "mine/model", "OPENAI_SERVED_MODEL_NAME_OVERRIDE": "a,b"})

    assert plan.served_names == Planned(("a", "b"), "OPENAI_SERVED_MODEL_NAME_OVERRIDE")


@pytest.mark.parametrize("variable", ["TOKENIZER_NAME", "TOKENIZER"])
def test_the_tokenizer_named_by_the_operator_is_planned(variable: str) -> None:
    assert planned({variable: "a/tokenizer"}).arguments["tokenizer"] == Planned("a/tokenizer", variable)


def test_no_tokenizer_is_planned_unasked() -> None:
    assert "tokenizer" not in planned({}).arguments


def test_the_profiles_variable_wins_over_the_default() -> None:
    plan = planned({})

    assert plan.environment["VLLM_NO_USAGE_STATS"] == Planned("0", "profile")
    assert plan.environment["FROM_PROFILE"] == Planned("1", "profile")


def test_a_tiers_variable_wins_over_the_profiles() -> None:
    assert planned({}).environment["FROM_BOTH"] == Planned("tier", TIER)


def test_the_default_variables_are_planned() -> None:
    plan = planned({"API_WORKERS": "1", "GPTOSS_BENTO_CACHE": "/c"}, load_profile("gpt-oss-20b"))

    caches = {variable: f"/c/kernels/{name}" for variable, name in KERNEL_CACHES.items()}
    defaults = {**PROCESS_ENVIRONMENT, **caches, "VLLM_ENABLE_STARTUP_PLAN": "1"}
    assert plan.environment == {
        **{name: Planned(value, "default") for name, value in defaults.items()},
        "VLLM_USE_FLASHINFER_SAMPLER": Planned("0", "profile"),
        "VLLM_ENGINE_READY_TIMEOUT_S": Planned("86400", "beyond VLLM_STARTUP_TIMEOUT"),
    }


@pytest.mark.parametrize(
    "name", ["VLLM_NO_USAGE_STATS", "FROM_PROFILE", "FROM_BOTH", "VLLM_ENABLE_RESPONSES_API_STORE"]
)
def test_a_variable_of_the_operators_own_wins_over_all(name: str) -> None:
    plan = planned({name: "mine"})

    assert plan.environment[name] == Planned("mine", "environment")
    assert plan.variables(Path("/v"))[name] == "mine"
    assert (name, "mine", "environment") in plan.rows()


def test_an_empty_variable_of_the_operators_own_is_a_value_too() -> None:
    assert planned({"FROM_PROFILE": ""}).environment["FROM_PROFILE"] == Planned("", "environment")


def test_other_variables_of_the_operator_are_not_planned() -> None:
    assert planned({"HOME": "/root", "HF_TOKEN": "s3cret"}).environment == planned({}).environment


def test_the_vocabulary_is_named_for_the_engines_processes() -> None:
    variables = planned({}).variables(Path("/v"))

    assert variables["TIKTOKEN_ENCODINGS_BASE"] == "/v"
    assert variables["FROM_BOTH"] == "tier"
    assert all(isinstance(value, str) for value in variables.values())


# What is compiled


def caches(plan: EnginePlan) -> dict[str, Planned]:
    return {name: plan.environment[name] for name in KERNEL_CACHES if name in plan.environment}


def test_what_is_compiled_is_kept_below_our_cache() -> None:
    plan = planned({"GPTOSS_BENTO_CACHE": "/c"})

    assert caches(plan) == {
        "VLLM_CACHE_ROOT": Planned("/c/kernels/vllm", "default"),
        "TRITON_CACHE_DIR": Planned("/c/kernels/triton", "default"),
        "FLASHINFER_WORKSPACE_BASE": Planned("/c/kernels/flashinfer", "default"),
        "CUDA_CACHE_PATH": Planned("/c/kernels/cuda", "default"),
    }
    assert plan.environment["VLLM_ENABLE_STARTUP_PLAN"] == Planned("1", "default")


def test_folder_of_kernels_that_was_said_is_used() -> None:
    plan = planned({"GPTOSS_BENTO_CACHE": "/c", "KERNEL_CACHE_DIR": "/k"})

    assert caches(plan) == {
        variable: Planned(f"/k/{name}", "KERNEL_CACHE_DIR") for variable, name in KERNEL_CACHES.items()
    }
    assert plan.environment["VLLM_ENABLE_STARTUP_PLAN"].origin == "default"


@pytest.mark.parametrize("variable", [*KERNEL_CACHES, "VLLM_ENABLE_STARTUP_PLAN"])
def test_folder_of_one_library_that_was_said_is_used_for_it_alone(variable: str) -> None:
    plan = planned({variable: "/mine", "KERNEL_CACHE_DIR": "/k"})

    assert plan.environment[variable] == Planned("/mine", "environment")
    assert {each.origin for name, each in caches(plan).items() if name != variable} == {"KERNEL_CACHE_DIR"}
    assert plan.variables(Path("/v"))[variable] == "/mine"


@pytest.mark.parametrize("environ", [{}, {"KERNEL_CACHE_DIR": "/k"}])
def test_without_a_gpu_nothing_is_kept(environ: dict[str, str]) -> None:
    plan = planned(environ, load_profile("demo"), machine())

    assert caches(plan) == {}
    assert "VLLM_ENABLE_STARTUP_PLAN" not in plan.environment


@pytest.mark.parametrize(
    ("environ", "hardware", "expected"),
    [
        ({}, machine(H100), Planned(True, "default with a GPU")),
        ({}, machine(), Planned(False, "default without a GPU")),
        ({"WARMUP": "0"}, machine(H100), Planned(False, "WARMUP")),
        ({"WARMUP": "true"}, machine(), Planned(True, "WARMUP")),
        ({"WARMUP": ""}, machine(H100), Planned(True, "default with a GPU")),
    ],
)
def test_warm_up_is_for_gpus_unless_something_else_was_said(
    environ: dict[str, str], hardware: Hardware, expected: Planned
) -> None:
    assert planned(environ, load_profile("demo"), hardware).warmup == expected


@pytest.mark.parametrize("gpus", [[], [H100], [H100, H100]])
def test_engine_is_spawned_unless_its_preload_was_asked_for(gpus: list[Gpu]) -> None:
    demo = load_profile("demo")

    assert planned({}, demo, machine(*gpus)).preload == Planned(False, "default")
    assert planned({"ENGINE_PRELOAD": "0"}, demo, machine(*gpus)).preload == Planned(False, "default")
    if gpus:
        assert planned({"ENGINE_PRELOAD": "1"}, demo, machine(*gpus)).preload == Planned(True, "ENGINE_PRELOAD")


@pytest.mark.parametrize(
    ("environ", "hardware", "reason"),
    [
        ({}, machine(), "there is no GPU"),
        ({START_METHOD: "spawn"}, machine(H100), f"so is {START_METHOD}"),
        ({START_METHOD: "fork"}, machine(H100), f"so is {START_METHOD}"),
    ],
)
def test_preload_that_cannot_be_is_refused(environ: dict[str, str], hardware: Hardware, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"ENGINE_PRELOAD is set, .*{reason}"):
        planned({"ENGINE_PRELOAD": "1", **environ}, load_profile("demo"), hardware)

    assert planned(environ, load_profile("demo"), hardware).preload == Planned(False, "default")


def test_rows_show_what_a_start_does_besides() -> None:
    rows = list(planned({"WARMUP": "0", "ENGINE_PRELOAD": "1"}, load_profile("demo"), machine(H100)).rows())

    assert ("warm-up requests", "no", "WARMUP") in rows
    assert ("engine imports early", "yes", "ENGINE_PRELOAD") in rows


# Hardware


@pytest.mark.parametrize(("gpus", "size"), [(2, 2), (3, 2), (4, 4), (5, 4), (7, 4), (8, 8), (9, 8), (16, 8)])
def test_several_gpus_share_the_model_in_a_way_that_gpt_oss_allows(gpus: int, size: int) -> None:
    plan = planned({}, hardware=machine(*[H100] * gpus))

    assert plan.arguments["tensor_parallel_size"] == Planned(size, "number of GPUs")


@pytest.mark.parametrize("gpus", [0, 1])
def test_without_several_gpus_nothing_is_shared(gpus: int) -> None:
    assert "tensor_parallel_size" not in planned({}, hardware=machine(*[H100] * gpus)).arguments


@pytest.mark.parametrize(
    ("gpus", "environ", "size"),
    [
        (8, {"PIPELINE_PARALLEL_SIZE": "2"}, 4),
        (8, {"DATA_PARALLEL_SIZE": "2"}, 4),
        (8, {"DATA_PARALLEL_SIZE": "3"}, 2),
        (8, {"PIPELINE_PARALLEL_SIZE": "2", "DATA_PARALLEL_SIZE": "2"}, 2),
        (8, {"PIPELINE_PARALLEL_SIZE": "8"}, None),
        (4, {"DATA_PARALLEL_SIZE": "3"}, None),
        (4, {"DATA_PARALLEL_SIZE": "1"}, 4),
    ],
)
def test_gpus_that_the_operator_uses_otherwise_do_not_share_the_model(
    gpus: int, environ: dict[str, str], size: int | None
) -> None:
    arguments = planned(environ, hardware=machine(*[H100] * gpus)).arguments

    assert arguments.get("tensor_parallel_size") == (size and Planned(size, "number of GPUs"))
    assert {name.upper(): str(arguments[name.lower()].value) for name in environ} == environ


@pytest.mark.parametrize(
    ("environ", "gpus", "message"),
    [
        (
            {"TENSOR_PARALLEL_SIZE": "4"},
            2,
            "tensor_parallel_size 4 (TENSOR_PARALLEL_SIZE) need 4 GPUs, but this process sees 2.",
        ),
        (
            {"PIPELINE_PARALLEL_SIZE": "2"},
            1,
            "pipeline_parallel_size 2 (PIPELINE_PARALLEL_SIZE) need 2 GPUs, but this process sees 1.",
        ),
        (
            {"TENSOR_PARALLEL_SIZE": "2", "PIPELINE_PARALLEL_SIZE": "2"},
            2,
            "tensor_parallel_size 2 (TENSOR_PARALLEL_SIZE) and pipeline_parallel_size 2 (PIPELINE_PARALLEL_SIZE) "
            "need 4 GPUs, but this process sees 2.",
        ),
        (
            {"TENSOR_PARALLEL_SIZE": "2", "PIPELINE_PARALLEL_SIZE": "2", "DATA_PARALLEL_SIZE": "3"},
            8,
            "tensor_parallel_size 2 (TENSOR_PARALLEL_SIZE) and pipeline_parallel_size 2 (PIPELINE_PARALLEL_SIZE) and "
            "data_parallel_size 3 (DATA_PARALLEL_SIZE) need 12 GPUs, but this process sees 8.",
        ),
    ],
)
def test_sizes_that_need_more_gpus_than_there_are_are_refused_with_their_origins(
    environ: dict[str, str], gpus: int, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        planned(environ, hardware=machine(*[H100] * gpus))

    assert str(caught.value) == message


def test_a_size_of_the_profile_counts_with_that_of_the_operator() -> None:
    with pytest.raises(ConfigurationError, match=r"^tensor_parallel_size 1 \(profile\) and data_parallel_size 3 \("):
        planned({"DATA_PARALLEL_SIZE": "3"}, load_profile("demo"), machine(H100, H100))


def test_all_gpus_may_be_used_in_several_ways_at_once() -> None:
    environ = {"TENSOR_PARALLEL_SIZE": "2", "PIPELINE_PARALLEL_SIZE": "2", "DATA_PARALLEL_SIZE": "2"}
    arguments = planned(environ, hardware=machine(*[H100] * 8)).arguments

    assert {name: str(arguments[name.lower()].value) for name in environ} == environ


def test_a_cpu_may_share_the_model_as_the_operator_likes() -> None:
    assert planned({"TENSOR_PARALLEL_SIZE": "2"}, hardware=machine()).arguments["tensor_parallel_size"].value == 2


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
def test_a_profile_on_a_machine(profile: str, hardware: Hardware, expected: Mapping[str, Any]) -> None:
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
def test_a_profile_leaves_to_vllm_what_it_has_no_reason_to_set(
    profile: str, hardware: Hardware, left_to_vllm: list[str]
) -> None:
    plan = planned({}, load_profile(profile), hardware)

    assert not plan.arguments.keys() & set(left_to_vllm)


def test_the_demo_on_a_cpu_gets_a_small_cache() -> None:
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
def test_too_little_hardware_is_refused_with_need_and_find(profile: str, hardware: Hardware, found: str) -> None:
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


# Words for vLLM


def test_the_words_begin_with_the_prepared_model_and_its_names() -> None:
    words = planned({}).argv("/models/prepared")

    assert words[:4] == ["--model=/models/prepared", "--served-model-name", "first", "second"]


def test_a_revision_goes_with_the_hub_id_it_belongs_to() -> None:
    assert "--revision=r1" in planned({}).argv("org/model")


def test_a_revision_does_not_go_with_a_prepared_folder() -> None:
    assert not [word for word in planned({}).argv("/models/prepared") if word.startswith("--revision")]


def test_code_of_a_models_repository_runs_only_if_asked() -> None:
    assert not [word for word in planned({}).argv("m") if "trust" in word]
    assert "--trust-remote-code" in planned({"TRUST_REMOTE_CODE": "1"}).argv("m")


def test_further_arguments_come_last() -> None:
    words = planned({"VLLM_EXTRA_ARGS": "--seed 5 --compilation-config.mode 3", "SEED": "4"}).argv("m")

    assert words[-2:] == ["--compilation-config.mode", "3"]
    assert "--seed=5" in words
    assert "--seed=4" not in words


def test_planned_values_become_words() -> None:
    environ = {
        "ENFORCE_EAGER": "true",
        "ENABLE_PREFIX_CACHING": "false",
        "DISABLE_LOG_STATS": "false",
        "CUDAGRAPH_CAPTURE_SIZES": "1,2",
        "COMPILATION_CONFIG": '{"mode": 3}',
    }
    words = planned(environ).argv("m")

    assert {"--enforce-eager", "--no-enable-prefix-caching", '--compilation-config={"mode": 3}'} <= set(words)
    assert "--disable-log-stats" not in words
    at = words.index("--cudagraph-capture-sizes")
    assert words[at + 1 : at + 3] == ["1", "2"]


# For people


def test_rows_show_every_value_with_its_origin() -> None:
    rows = list(planned({"MAX_NUM_SEQS": "3", "VLLM_EXTRA_ARGS": "--seed 5 -O3"}).rows())

    assert ("profile", "p", "") in rows
    assert ("hardware", "1 x NVIDIA H100 80GB HBM3 (80 GiB)", "probed") in rows
    assert ("model", "org/model", "profile") in rows
    assert ("revision", "r1", "profile") in rows
    assert ("served names", "first, second", "profile") in rows
    assert ("--max-num-seqs", "3", "MAX_NUM_SEQS") in rows
    assert ("FROM_BOTH", "tier", TIER) in rows
    assert ("--seed", "5", "VLLM_EXTRA_ARGS") in rows
    assert ("further arguments", "-O3", "VLLM_EXTRA_ARGS") in rows
    assert ("goal", "balanced", "default") in rows


def test_rows_leave_out_what_is_not_planned() -> None:
    names = [name for name, _, _ in planned({}, load_profile("gpt-oss-20b")).rows()]

    assert "revision" not in names
    assert "further arguments" not in names


def test_rows_show_the_memory_split_as_an_estimate() -> None:
    (row,) = [row for row in planned({}, load_profile("gpt-oss-20b")).rows() if row[0] == "memory"]

    assert row[2] == "estimate"
    assert "weights 13.4" in row[1]
    assert "requests of 131,072" in row[1]


def test_rows_show_warnings() -> None:
    plan = planned({"GOAL": "latency"})

    assert ("warning", plan.warnings[0], "") in plan.rows()


def test_rows_show_no_secrets() -> None:
    environ = {
        "KV_TRANSFER_CONFIG": '{"password": "s3cret"}',
        "VLLM_EXTRA_ARGS": "--kv-transfer-config.token s3cret --otlp-traces-endpoint=http://me:s3cret@host",
    }

    assert "s3cret" not in str(list(planned(environ).rows()))


# Speculation


@pytest.mark.parametrize(
    ("environ", "draft"),
    [
        ({}, None),
        ({"SPECULATIVE_CONFIG": '{"method": "ngram", "num_speculative_tokens": 2}'}, None),
        ({"SPECULATIVE_MODEL": "a/draft", "NUM_SPECULATIVE_TOKENS": "3"}, "a/draft"),
        ({"GOAL": "latency"}, "RedHatAI/gpt-oss-20b-speculator.eagle3"),
    ],
)
def test_the_plan_names_the_model_that_speculates(environ: dict[str, str], draft: str | None) -> None:
    assert planned(environ, load_profile("gpt-oss-20b")).draft == draft


# Architectures


UP_TO_1024 = [
    *(1, 2, 4),
    *range(8, 128, 8),
    *range(128, 256, 16),
    *range(256, 512, 32),
    *range(512, 1025, 64),
]
UP_TO_2048 = [*UP_TO_1024, *range(1152, 2049, 128)]


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
        ("gpt-oss-20b", "h100", {"max_num_batched_tokens": 8192, "enable_flashinfer_autotune": False}),
        ("gpt-oss-120b", "h200", {"max_num_batched_tokens": 8192, "enable_flashinfer_autotune": False}),
        ("gpt-oss-120b", "b200", {"kv_cache_dtype": "fp8", "moe_backend": "flashinfer_trtllm"}),
        ("gpt-oss-120b", "b300x8", {"kv_cache_dtype": "fp8", "tensor_parallel_size": 8}),
        ("gpt-oss-120b", "gb200", {"quantization_config": {"moe": {"activation": "mxfp8"}}}),
        ("gpt-oss-120b", "mi300x", {"attention_backend": "ROCM_AITER_UNIFIED_ATTN", "block_size": 64}),
        ("gpt-oss-120b", "mi355xx8", {"gpu_memory_utilization": 0.95, "tensor_parallel_size": 8}),
        ("gpt-oss-120b", "h100-nvl", {"gpu_memory_utilization": 0.92, "max_num_batched_tokens": 8192}),
        ("gpt-oss-120b", "a100-40x2", {"gpu_memory_utilization": 0.95, "max_model_len": 65536}),
        ("gpt-oss-120b", "l40sx2", {"tensor_parallel_size": 2, "max_model_len": 131072}),
    ],
)
def test_a_profile_on_a_card(profile: str, card: str, expected: Mapping[str, Any]) -> None:
    plan = planned({}, load_profile(profile), hardware_named(card))

    assert {name: plan.arguments[name].value for name in expected} == expected
    assert plan.memory
    assert plan.memory.fits
    assert plan.warnings == ()


@pytest.mark.parametrize("profile", ["gpt-oss-20b", "gpt-oss-120b"])
@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize("goal", list(Goal))
def test_every_card_that_meets_the_requirements_is_planned_without_a_warning(
    profile: str, count: int, goal: Goal
) -> None:
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


# Known limits


@pytest.mark.parametrize("text", ["0.95", "0.98"])
def test_the_limit_of_two_h100s_names_the_variable_and_the_reason(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        planned({"GPU_MEMORY_UTILIZATION": text}, load_profile("gpt-oss-120b"), machine(H100, H100))

    assert str(caught.value) == (
        f"gpu_memory_utilization is {text} (GPU_MEMORY_UTILIZATION); allowed here: below 0.95. On two H100s the model "
        "runs out of memory from there on (known limitation in vLLM's GPT-OSS guide)."
    )


@pytest.mark.parametrize(
    ("profile", "hardware", "environ"),
    [
        ("gpt-oss-120b", machine(H100, H100), {"GPU_MEMORY_UTILIZATION": "0.94"}),
        ("gpt-oss-120b", machine(*[H100] * 4), {"GPU_MEMORY_UTILIZATION": "0.95"}),
        ("gpt-oss-120b", machine(H100, H100), {"GPU_MEMORY_UTILIZATION": "0.96", "TENSOR_PARALLEL_SIZE": "1"}),
        ("gpt-oss-120b", machine(H200, H200), {"GPU_MEMORY_UTILIZATION": "0.95"}),
        ("gpt-oss-20b", machine(H100, H100), {"GPU_MEMORY_UTILIZATION": "0.95"}),
        ("gpt-oss-120b", machine(H100, H100), {"GPU_MEMORY_UTILIZATION": "0.95", "MODEL_NAME": "a/small-one"}),
    ],
)
def test_the_limit_is_that_of_two_h100s_only(profile: str, hardware: Hardware, environ: dict[str, str]) -> None:
    plan = planned(environ, load_profile(profile), hardware)

    assert plan.arguments["gpu_memory_utilization"].value == float(environ["GPU_MEMORY_UTILIZATION"])


def test_one_gpu_of_several_is_planned_like_one_gpu() -> None:
    plan = planned({"TENSOR_PARALLEL_SIZE": "1"}, load_profile("gpt-oss-120b"), machine(H100, H100))

    assert plan.arguments["gpu_memory_utilization"] == Planned(0.95, "tier one 80 GB GPU")
    assert plan.arguments["max_num_batched_tokens"] == Planned(1024, "tier one 80 GB GPU")


# Goals


def test_the_goal_of_the_operator_is_planned_with_its_origin() -> None:
    assert planned({"GOAL": "latency"}, load_profile("gpt-oss-20b")).goal == Planned(Goal.LATENCY, "GOAL")
    assert planned({}).goal == Planned(Goal.BALANCED, "default")


@pytest.mark.parametrize(
    ("profile", "card", "goal", "expected"),
    [
        ("gpt-oss-20b", "h100", "latency", {"stream_interval": 1, "max_num_seqs": 8}),
        ("gpt-oss-20b", "h100", "latency", {"max_cudagraph_capture_size": 64, "moe_backend": "marlin"}),
        ("gpt-oss-120b", "h200", "latency", {"max_cudagraph_capture_size": 64, "moe_backend": "marlin"}),
        ("gpt-oss-20b", "h100", "throughput", {"stream_interval": 20, "max_num_seqs": 1024}),
        ("gpt-oss-20b", "h100", "throughput", {"cudagraph_capture_sizes": UP_TO_2048}),
        ("gpt-oss-20b", "h100", "benchmark", {"enable_prefix_caching": False, "stream_interval": 20}),
        ("gpt-oss-120b", "h200", "benchmark", {"max_num_batched_tokens": 8192, "cudagraph_capture_sizes": UP_TO_2048}),
        ("gpt-oss-120b", "h100", "throughput", {"max_num_batched_tokens": 1024, "max_num_seqs": 256}),
        ("gpt-oss-120b", "a100-80", "benchmark", {"max_num_batched_tokens": 1024, "enable_prefix_caching": False}),
        ("gpt-oss-20b", "l4", "throughput", {"stream_interval": 20}),
    ],
)
def test_a_goal_wins_over_tiers(profile: str, card: str, goal: str, expected: Mapping[str, Any]) -> None:
    plan = planned({"GOAL": goal}, load_profile(profile), hardware_named(card))

    assert {name: plan.arguments[name] for name in expected} == {
        name: Planned(value, f"goal {goal}") for name, value in expected.items()
    }


@pytest.mark.parametrize("card", ["b200", "mi300x", "a100-80", "l40s"])
def test_latency_changes_the_kernels_of_experts_on_hopper_alone(card: str) -> None:
    profile, hardware = load_profile("gpt-oss-20b"), hardware_named(card)
    plans = [planned({"GOAL": goal}, profile, hardware) for goal in (Goal.LATENCY, Goal.BALANCED)]

    first, second = (plan.arguments.get("moe_backend") for plan in plans)
    assert first == second


def test_a_goal_leaves_small_cards_their_small_batches() -> None:
    plan = planned({"GOAL": "throughput"}, load_profile("gpt-oss-20b"), hardware_named("a4000"))

    assert plan.arguments["max_num_seqs"] == Planned(16, "tier 16 GB")


# Sizes of CUDA graphs

SIZES, LARGEST = "cudagraph_capture_sizes", "max_cudagraph_capture_size"


@pytest.mark.parametrize(
    ("card", "sizes", "tier"),
    [
        ("h100", UP_TO_1024, "80 GB"),
        ("a100-80", UP_TO_1024, "80 GB"),
        ("rtx-pro-6000", UP_TO_1024, "80 GB"),
        ("h200", UP_TO_2048, "141 GB and up"),
        ("b200", UP_TO_2048, "141 GB and up"),
        ("mi300x", UP_TO_2048, "141 GB and up"),
    ],
)
def test_graphs_of_large_cards_are_listed(card: str, sizes: list[int], tier: str) -> None:
    arguments = planned({}, load_profile("gpt-oss-20b"), hardware_named(card)).arguments

    assert arguments[SIZES] == Planned(sizes, f"tier {tier}")
    assert LARGEST not in arguments


@pytest.mark.parametrize("sizes", [UP_TO_1024, UP_TO_2048])
def test_graphs_pad_a_batch_by_an_eighth_at_most(sizes: list[int]) -> None:
    """What _gpt-oss.yaml promises; the sizes below 64 are vLLM's own."""
    steps = [(below, above) for below, above in pairwise(sizes) if below >= 64]

    assert all(above - below <= below / 8 for below, above in steps)
    assert (len(UP_TO_1024), len(UP_TO_2048)) == (43, 51)


@pytest.mark.parametrize("goal", [Goal.BALANCED, Goal.THROUGHPUT])
def test_largest_graph_that_was_said_takes_the_place_of_the_list(goal: Goal) -> None:
    """vLLM refuses both together."""
    environ = {"GOAL": goal, "MAX_CUDAGRAPH_CAPTURE_SIZE": "512"}
    plan = planned(environ, load_profile("gpt-oss-20b"), hardware_named("h200"))

    assert plan.arguments[LARGEST] == Planned(512, "MAX_CUDAGRAPH_CAPTURE_SIZE")
    assert SIZES not in plan.arguments
    assert not [word for word in plan.argv("m") if word.startswith("--cudagraph-capture-sizes")]


@pytest.mark.parametrize("card", ["l4", "l40s", "h100", "h200"])
@pytest.mark.parametrize("goal", [Goal.BALANCED, Goal.LATENCY, Goal.THROUGHPUT])
def test_sizes_of_graphs_that_were_said_take_the_place_of_the_largest_and_of_the_list(card: str, goal: Goal) -> None:
    environ = {"GOAL": goal, "CUDAGRAPH_CAPTURE_SIZES": "1,2,3"}
    arguments = planned(environ, load_profile("gpt-oss-20b"), hardware_named(card)).arguments

    assert arguments[SIZES] == Planned([1, 2, 3], "CUDAGRAPH_CAPTURE_SIZES")
    assert LARGEST not in arguments


@pytest.mark.parametrize("card", ["h100", "h200"])
def test_largest_graph_of_a_goal_takes_the_place_of_the_tiers_list(card: str) -> None:
    arguments = planned({"GOAL": "latency"}, load_profile("gpt-oss-20b"), hardware_named(card)).arguments

    assert arguments[LARGEST] == Planned(64, "goal latency")
    assert SIZES not in arguments


@pytest.mark.parametrize(
    ("card", "goal", "environ", "left_out"),
    [
        ("h200", "balanced", {"COMPILATION_CONFIG": '{"cudagraph_capture_sizes": [1, 2]}'}, SIZES),
        ("h200", "balanced", {"COMPILATION_CONFIG": '{"max_cudagraph_capture_size": 512}'}, SIZES),
        ("l4", "latency", {"COMPILATION_CONFIG": '{"cudagraph_capture_sizes": [1, 2]}'}, LARGEST),
        ("h200", "balanced", {"VLLM_EXTRA_ARGS": "--compilation-config.cudagraph_capture_sizes [1,2]"}, SIZES),
        ("h200", "balanced", {"VLLM_EXTRA_ARGS": "--compilation_config.max_cudagraph_capture_size=512"}, SIZES),
        ("h200", "balanced", {"KERNEL_CONFIG": '{"enable_flashinfer_autotune": true}'}, "enable_flashinfer_autotune"),
        ("h200", "latency", {"KERNEL_CONFIG": '{"moe_backend": "triton"}'}, "moe_backend"),
        ("mi300x", "balanced", {"ATTENTION_CONFIG": '{"backend": "TRITON_ATTN"}'}, "attention_backend"),
    ],
)
def test_entry_of_an_option_that_was_said_takes_the_place_of_the_option_that_says_the_same(
    card: str, goal: str, environ: dict[str, str], left_out: str
) -> None:
    """vLLM would refuse both together, or go by the one that nobody asked for."""
    profile, hardware = load_profile("gpt-oss-20b"), hardware_named(card)
    assert left_out in planned({"GOAL": goal}, profile, hardware).arguments

    assert left_out not in planned({"GOAL": goal, **environ}, profile, hardware).arguments


def test_other_entries_leave_the_options_of_tiers() -> None:
    environ = {"COMPILATION_CONFIG": '{"mode": 3}', "KERNEL_CONFIG": '{"enable_cutedsl_warmup": false}'}
    arguments = planned(environ, load_profile("gpt-oss-20b"), hardware_named("h200")).arguments

    assert {SIZES, "enable_flashinfer_autotune"} <= arguments.keys()


def test_both_are_passed_on_when_both_were_said() -> None:
    """vLLM says what is wrong with them, or takes them if they agree."""
    environ = {"CUDAGRAPH_CAPTURE_SIZES": "1,2", "MAX_CUDAGRAPH_CAPTURE_SIZE": "2"}
    arguments = planned(environ, load_profile("gpt-oss-20b")).arguments

    assert (arguments[SIZES].value, arguments[LARGEST].value) == ([1, 2], 2)


@pytest.mark.parametrize("goal", ["latency", "balanced", "throughput"])
def test_prefix_caching_is_on_except_for_benchmarks(goal: str) -> None:
    plan = planned({"GOAL": goal}, load_profile("gpt-oss-120b"))

    assert plan.arguments["enable_prefix_caching"].value is True


@pytest.mark.parametrize("goal", list(Goal))
def test_a_variable_wins_over_a_goal(goal: Goal) -> None:
    environ = {"GOAL": goal, "MAX_NUM_SEQS": "3", "STREAM_INTERVAL": "7", "ENABLE_PREFIX_CACHING": "true"}
    plan = planned(environ, load_profile("gpt-oss-20b"))

    assert plan.arguments["max_num_seqs"] == Planned(3, "MAX_NUM_SEQS")
    assert plan.arguments["stream_interval"] == Planned(7, "STREAM_INTERVAL")
    assert plan.arguments["enable_prefix_caching"] == Planned(True, "ENABLE_PREFIX_CACHING")


@pytest.mark.parametrize(
    ("profile", "card", "environ", "draft"),
    [
        ("gpt-oss-20b", "h100", {}, "RedHatAI/gpt-oss-20b-speculator.eagle3"),
        ("gpt-oss-120b", "h200", {}, "nvidia/gpt-oss-120b-Eagle3-v3"),
        ("gpt-oss-120b", "h100x2", {}, "nvidia/gpt-oss-120b-Eagle3-v3"),
        ("gpt-oss-120b", "b200", {}, "nvidia/gpt-oss-120b-Eagle3-v3"),
        ("gpt-oss-120b", "h100", {}, None),
        ("gpt-oss-120b", "mi300x", {}, None),
        ("gpt-oss-20b", "l4", {}, None),
        ("gpt-oss-120b", "h100x4", {"PIPELINE_PARALLEL_SIZE": "2"}, None),
        ("gpt-oss-120b", "h200", {"MODEL_NAME": "a/finetune"}, None),
    ],
)
def test_only_latency_speculates_and_only_where_it_pays(
    profile: str, card: str, environ: dict[str, str], draft: str | None
) -> None:
    plans = {
        goal: planned({"GOAL": goal, **environ}, load_profile(profile), hardware_named(card)) for goal in list(Goal)
    }
    drafts = {
        goal: plan.arguments["speculative_config"].value["model"]
        for goal, plan in plans.items()
        if "speculative_config" in plan.arguments
    }

    assert drafts == ({Goal.LATENCY: draft} if draft else {})


def test_a_goal_that_the_profile_does_not_know_is_not_ignored_in_silence() -> None:
    assert planned({"GOAL": "latency"}).warnings[0] == (
        "profile 'p' has no settings for the goal latency (GOAL); it changes nothing"
    )
    assert planned({"GOAL": "balanced"}, load_profile("gpt-oss-20b")).warnings == ()


# Memory


SMALL_PROFILE = load_profile("gpt-oss-20b")


def test_an_explicit_length_that_does_not_fit_is_refused_with_one_that_does() -> None:
    with pytest.raises(ConfigurationError) as caught:
        planned({"MAX_MODEL_LEN": "131072"}, SMALL_PROFILE, machine(A4000))

    message = str(caught.value)
    assert "max_model_len 131072 does not fit" in message
    assert "estimated" in message
    assert "MAX_MODEL_LEN=131072" in message
    fitting = re.search(r"A value that would fit: (\d+)\.", message)
    assert fitting
    plan = planned({"MAX_MODEL_LEN": fitting[1]}, SMALL_PROFILE, machine(A4000))
    assert plan.arguments["max_model_len"] == Planned(int(fitting[1]), "MAX_MODEL_LEN")


def test_a_length_that_nobody_asked_for_is_shortened_and_said_so() -> None:
    plan = planned({"GPU_MEMORY_UTILIZATION": "0.75"}, SMALL_PROFILE, machine(L4))

    length = plan.arguments["max_model_len"]
    assert length.origin == "estimate of what fits"
    assert 1024 <= length.value < 131072
    assert plan.memory
    assert plan.memory.fits
    assert plan.warnings[0].startswith(f"max_model_len is {length.value}, not 131072 (profile): by estimate")
    assert plan.arguments["gpu_memory_utilization"] == Planned(0.75, "GPU_MEMORY_UTILIZATION")


def test_weights_that_do_not_fit_are_refused() -> None:
    small = nvidia("NVIDIA some slice", 15600, "sm_90")

    with pytest.raises(HardwareError, match=r"^Profile 'gpt-oss-20b' does not fit: 0\.\d GiB are left"):
        planned({}, SMALL_PROFILE, machine(small))


def test_weights_that_do_not_fit_because_of_the_operator_are_refused_with_the_variable() -> None:
    environ = {"GPU_MEMORY_UTILIZATION": "0.15", "SEED": "1"}

    with pytest.raises(ConfigurationError, match=r"does not fit: .* Set were GPU_MEMORY_UTILIZATION=0\.15\.$"):
        planned(environ, SMALL_PROFILE, machine(H100))


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"MODEL_NAME": "a/finetune"}, "MODEL_NAME names a model that the profile does not describe"),
        ({"VLLM_EXTRA_ARGS": "--speculative-config.method ngram"}, "VLLM_EXTRA_ARGS sets speculative_config"),
        ({"QUANTIZATION": "fp8"}, "quantization is beyond this estimate"),
    ],
)
def test_what_cannot_be_estimated_is_planned_with_a_warning(environ: dict[str, str], reason: str) -> None:
    plan = planned(environ, SMALL_PROFILE)

    assert plan.memory is None
    assert plan.warnings == (f"memory is not estimated: {reason}",)


def test_a_profile_without_shape_has_no_estimate() -> None:
    assert planned({}).warnings == ("memory is not estimated: profile 'p' has no model.shape",)


def test_the_smallest_gpu_is_the_one_estimated() -> None:
    plan = planned({}, SMALL_PROFILE, machine(H200, L4))

    assert plan.memory
    assert plan.memory.usable_gib < 23


def test_the_demo_on_a_cpu_is_estimated_from_its_cache() -> None:
    demo = load_profile("demo")

    assert planned({}, demo, machine()).memory == planned({"VLLM_CPU_KVCACHE_SPACE": "1"}, demo, machine()).memory
    assert planned({"VLLM_CPU_KVCACHE_SPACE": "much"}, demo, machine()).warnings == (
        "memory is not estimated: VLLM_CPU_KVCACHE_SPACE is not a number",
    )


# API workers


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("l4", Planned(1, "default")),
        ("l40s", Planned(2, "tier 40 and 48 GB")),
        ("h100", Planned(4, "tier 80 GB")),
        ("h200", Planned(4, "tier 141 GB and up")),
    ],
)
def test_fast_cards_get_several_api_workers(card: str, expected: Planned) -> None:
    assert planned({}, load_profile("gpt-oss-20b"), hardware_named(card)).api_workers == expected


def test_a_cpu_gets_one_api_worker() -> None:
    assert planned({}, load_profile("demo"), machine()).api_workers == Planned(1, "default")


def test_a_goal_that_runs_few_requests_needs_one_api_worker() -> None:
    plan = planned({"GOAL": "latency"}, load_profile("gpt-oss-20b"), hardware_named("h100"))

    assert plan.api_workers == Planned(1, "goal latency")


def test_no_more_api_workers_are_planned_than_the_cores_carry() -> None:
    plan = planned({}, load_profile("gpt-oss-20b"), replace(machine(H100), cpu_cores=4))

    assert plan.api_workers == Planned(2, "4 CPU cores; tier 80 GB has 4")


@pytest.mark.parametrize("variable", ["API_WORKERS", "API_SERVER_COUNT"])
def test_api_workers_that_were_said_are_used_whatever_the_cores(variable: str) -> None:
    plan = planned({variable: "3"}, load_profile("demo"), replace(machine(), cpu_cores=2))

    assert plan.api_workers == Planned(3, variable)
    assert "--api-server-count=3" in plan.argv("m")


def test_vllms_own_limit_of_a_start_is_beyond_ours_and_the_same_for_any_number_of_workers() -> None:
    name = "VLLM_ENGINE_READY_TIMEOUT_S"

    for environ in ({}, {"API_WORKERS": "2"}, {"VLLM_STARTUP_TIMEOUT": "1800"}):
        assert planned(environ).environment[name] == Planned("86400", "beyond VLLM_STARTUP_TIMEOUT")
    assert planned({"VLLM_STARTUP_TIMEOUT": "100000"}).environment[name].value == "100000"
    assert planned({name: "60"}).environment[name] == Planned("60", "environment")


ALONE = {"DATA_PARALLEL_SIZE": "2", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}


@pytest.mark.parametrize("variable", ALONE)
def test_what_needs_one_api_worker_gets_it(variable: str) -> None:
    plan = planned({variable: ALONE[variable]}, load_profile("gpt-oss-20b"), machine(H100, H100))

    assert plan.api_workers.value == 1
    assert variable in plan.api_workers.origin
    assert "tier 80 GB has 4" in plan.api_workers.origin


@pytest.mark.parametrize("variable", ALONE)
def test_what_needs_one_api_worker_is_refused_beside_several(variable: str) -> None:
    environ = {variable: ALONE[variable], "API_WORKERS": "2"}

    with pytest.raises(ConfigurationError, match=f"API_WORKERS is 2, but .*{variable}.* needs 1"):
        planned(environ, load_profile("gpt-oss-20b"), machine(H100, H100))


# The end


@pytest.mark.parametrize(
    ("environ", "timeout"),
    [
        ({}, Planned(5, "DRAIN_TIMEOUT")),
        ({"DRAIN_TIMEOUT": "7.5"}, Planned(8, "DRAIN_TIMEOUT")),
        ({"DRAIN_TIMEOUT": "0"}, Planned(0, "DRAIN_TIMEOUT")),
        ({"DRAIN_TIMEOUT": "60", "SHUTDOWN_TIMEOUT": "3"}, Planned(3, "SHUTDOWN_TIMEOUT")),
    ],
)
def test_the_engine_finishes_what_it_has_for_as_long_as_the_service_waits(
    environ: dict[str, str], timeout: Planned
) -> None:
    assert planned(environ).arguments["shutdown_timeout"] == timeout
