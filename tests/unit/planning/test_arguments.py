from __future__ import annotations

import json
from itertools import pairwise

import pytest

from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import load_profile
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.hardware.probe import Hardware, hardware_named
from gptoss_bento.planning.arguments import GPT_OSS_ARGUMENTS
from gptoss_bento.planning.plan import Planned
from tests.fakes import H100, H200, machine
from tests.unit.planning.plans import TIER, UP_TO_1024, UP_TO_2048, UP_TO_2304, planned

# Precedence: one test per edge


def test_profile_wins_over_the_default_for_gpt_oss() -> None:
    assert planned({}).arguments["async_scheduling"] == Planned(False, "profile")


def test_tier_wins_over_the_profile() -> None:
    assert planned({}).arguments["max_model_len"] == Planned(2048, TIER)


def test_later_tier_wins_over_an_earlier_one() -> None:
    assert planned({}).arguments["gpu_memory_utilization"] == Planned(0.6, "tier last")


def test_variable_wins_over_a_tier() -> None:
    plan = planned({"GPU_MEMORY_UTILIZATION": "0.7"})

    assert plan.arguments["gpu_memory_utilization"] == Planned(0.7, "GPU_MEMORY_UTILIZATION")


def test_variable_wins_over_the_profile() -> None:
    assert planned({"MAX_NUM_SEQS": "3"}).arguments["max_num_seqs"] == Planned(3, "MAX_NUM_SEQS")


def test_variable_set_to_false_wins_over_the_default_for_gpt_oss() -> None:
    plan = planned({"ENABLE_AUTO_TOOL_CHOICE": "false"})

    assert plan.arguments["enable_auto_tool_choice"] == Planned(False, "ENABLE_AUTO_TOOL_CHOICE")
    assert "--no-enable-auto-tool-choice" in plan.argv("m")


def test_variable_wins_over_the_number_of_gpus() -> None:
    plan = planned({"TENSOR_PARALLEL_SIZE": "1"}, hardware=machine(H100, H100))

    assert plan.arguments["tensor_parallel_size"] == Planned(1, "TENSOR_PARALLEL_SIZE")


def test_profile_wins_over_the_number_of_gpus() -> None:
    plan = planned({}, load_profile("demo"), machine(H100, H100))

    assert plan.arguments["tensor_parallel_size"] == Planned(1, "profile")


def test_variable_equal_to_the_profile_is_still_the_variables() -> None:
    assert planned({"MAX_NUM_SEQS": "8"}).arguments["max_num_seqs"] == Planned(8, "MAX_NUM_SEQS")


def test_tier_for_other_machines_changes_nothing() -> None:
    assert planned({}, hardware=machine(H100)).arguments["max_num_seqs"] == Planned(8, "profile")
    assert planned({}, hardware=machine()).arguments["max_num_seqs"] == Planned(2, "tier of CPUs")


def test_defaults_for_gpt_oss_apply_where_nothing_else_is_set() -> None:
    plan = planned({})

    for name in GPT_OSS_ARGUMENTS.keys() - {"async_scheduling"}:
        assert plan.arguments[name] == Planned(GPT_OSS_ARGUMENTS[name], "default for GPT-OSS")


@pytest.mark.parametrize(
    ("environ", "value"),
    [
        (
            {"REASONING_CONFIG": '{"reasoning_start_str": "a", "reasoning_end_str": "<|end|>"}'},
            {"reasoning_start_str": "a", "reasoning_end_str": "<|end|>"},
        ),
        ({"REASONING_CONFIG": "{}"}, {}),
        (
            {"VLLM_EXTRA_ARGS": "--reasoning-config.reasoning_end_str=x", "REASONING_PARSER": "qwen3"},
            {"reasoning_end_str": "x"},
        ),
    ],
)
def test_strings_of_reasoning_that_were_set_replace_the_whole_default(
    environ: dict[str, str], value: dict[str, str]
) -> None:
    assert planned(environ).arguments["reasoning_config"].value == value


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        ({"REASONING_CONFIG": '{"reasoning_end_str": "<|end|>"}'}, "reasoning_start_str"),
        ({"REASONING_CONFIG": '{"reasoning_start_str": "a", "reasoning_end_str": ""}'}, "reasoning_end_str"),
        ({"VLLM_EXTRA_ARGS": "--reasoning-config.reasoning_end_str=x"}, "reasoning_start_str"),
    ],
)
def test_one_string_of_reasoning_without_the_other_is_refused(environ: dict[str, str], missing: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"^reasoning_config \(.*\) has no {missing}, and budgets .* need both"
    ):
        planned(environ)


@pytest.mark.parametrize("end", ["<|end|><|start|>assistant<|channel|>final<|message|>", "Enough.<|end|>", "</think>"])
def test_string_that_ends_no_reasoning_of_gpt_oss_is_refused(end: str) -> None:
    strings = {"reasoning_start_str": "<|channel|>analysis<|message|>", "reasoning_end_str": end}
    with pytest.raises(ConfigurationError, match=r"^reasoning_config .* has the reasoning_end_str .* be '<\|end"):
        planned({"REASONING_CONFIG": json.dumps(strings)})


# Known limits


@pytest.mark.parametrize("text", ["0.95", "0.98"])
def test_limit_of_two_h100s_names_the_variable_and_the_reason(text: str) -> None:
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
def test_limit_is_that_of_two_h100s_only(profile: str, hardware: Hardware, environ: dict[str, str]) -> None:
    plan = planned(environ, load_profile(profile), hardware)

    assert plan.arguments["gpu_memory_utilization"].value == float(environ["GPU_MEMORY_UTILIZATION"])


# Sizes of CUDA graphs


SIZES, LARGEST = "cudagraph_capture_sizes", "max_cudagraph_capture_size"


@pytest.mark.parametrize(
    ("card", "sizes", "tier"),
    [
        ("h100", UP_TO_1024, "80 GB"),
        ("a100-80", UP_TO_1024, "80 GB"),
        ("rtx-pro-6000", UP_TO_1024, "80 GB"),
        ("h200", UP_TO_2304, "Hopper, 141 GB"),
        ("b200", UP_TO_2048, "141 GB and up"),
        ("mi300x", UP_TO_2048, "141 GB and up"),
    ],
)
def test_graphs_of_large_cards_are_listed(card: str, sizes: list[int], tier: str) -> None:
    arguments = planned({}, load_profile("gpt-oss-20b"), hardware_named(card)).arguments

    assert arguments[SIZES] == Planned(sizes, f"tier {tier}")
    assert LARGEST not in arguments


@pytest.mark.parametrize("sizes", [UP_TO_1024, UP_TO_2048, UP_TO_2304])
def test_graphs_pad_a_batch_by_a_quarter_at_most(sizes: list[int]) -> None:
    """What _gpt-oss.yaml promises; of small batches it is few rows."""
    steps = [(below, above) for below, above in pairwise(sizes) if below >= 16]

    assert all(above - below <= below / 4 for below, above in steps)
    assert (len(UP_TO_1024), len(UP_TO_2048)) == (30, 34)


@pytest.mark.parametrize("goal", [Goal.BALANCED, Goal.THROUGHPUT])
def test_largest_graph_set_explicitly_replaces_the_list(goal: Goal) -> None:
    """vLLM refuses both together."""
    environ = {"GOAL": goal, "MAX_CUDAGRAPH_CAPTURE_SIZE": "512"}
    plan = planned(environ, load_profile("gpt-oss-20b"), hardware_named("h200"))

    assert plan.arguments[LARGEST] == Planned(512, "MAX_CUDAGRAPH_CAPTURE_SIZE")
    assert SIZES not in plan.arguments
    assert not [word for word in plan.argv("m") if word.startswith("--cudagraph-capture-sizes")]


@pytest.mark.parametrize("card", ["l4", "l40s", "h100", "h200"])
@pytest.mark.parametrize("goal", [Goal.BALANCED, Goal.LATENCY, Goal.THROUGHPUT])
def test_graph_sizes_set_explicitly_replace_the_largest_and_the_list(card: str, goal: Goal) -> None:
    environ = {"GOAL": goal, "CUDAGRAPH_CAPTURE_SIZES": "1,2,3"}
    arguments = planned(environ, load_profile("gpt-oss-20b"), hardware_named(card)).arguments

    assert arguments[SIZES] == Planned([1, 2, 3], "CUDAGRAPH_CAPTURE_SIZES")
    assert LARGEST not in arguments


@pytest.mark.parametrize("card", ["a100-80", "b200"])
def test_largest_graph_of_a_goal_replaces_the_tiers_list(card: str) -> None:
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
        ("h200", "balanced", {"VLLM_EXTRA_ARGS": "-cc.cudagraph_capture_sizes+ 1,2"}, SIZES),
        ("h200", "balanced", {"STRUCTURED_OUTPUTS_CONFIG": '{"reasoning_parser": "qwen3"}'}, "reasoning_parser"),
        ("h200", "balanced", {"KERNEL_CONFIG": '{"enable_flashinfer_autotune": true}'}, "enable_flashinfer_autotune"),
        ("h200", "latency", {"KERNEL_CONFIG": '{"moe_backend": "triton"}'}, "moe_backend"),
        ("mi300x", "balanced", {"ATTENTION_CONFIG": '{"backend": "TRITON_ATTN"}'}, "attention_backend"),
    ],
)
def test_entry_set_explicitly_replaces_the_option_of_the_same_meaning(
    card: str, goal: str, environ: dict[str, str], left_out: str
) -> None:
    """vLLM would refuse both together, or go by the one that was not set."""
    profile, hardware = load_profile("gpt-oss-20b"), hardware_named(card)
    assert left_out in planned({"GOAL": goal}, profile, hardware).arguments

    assert left_out not in planned({"GOAL": goal, **environ}, profile, hardware).arguments


def test_entries_of_other_meanings_leave_the_options_of_tiers() -> None:
    environ = {"COMPILATION_CONFIG": '{"mode": 3}', "KERNEL_CONFIG": '{"enable_cutedsl_warmup": false}'}
    arguments = planned(environ, load_profile("gpt-oss-20b"), hardware_named("h200")).arguments

    assert {SIZES, "enable_flashinfer_autotune"} <= arguments.keys()


def test_options_that_were_both_set_are_both_passed_on() -> None:
    """vLLM says what is wrong with them, or takes them if they agree."""
    environ = {"CUDAGRAPH_CAPTURE_SIZES": "1,2", "MAX_CUDAGRAPH_CAPTURE_SIZE": "2"}
    arguments = planned(environ, load_profile("gpt-oss-20b")).arguments

    assert (arguments[SIZES].value, arguments[LARGEST].value) == ([1, 2], 2)


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
def test_engine_finishes_what_it_has_for_as_long_as_the_service_waits(
    environ: dict[str, str], timeout: Planned
) -> None:
    assert planned(environ).arguments["shutdown_timeout"] == timeout


# Adapters

_ADAPTER = {"LORA_MODULES": "sql=/loras/sql"}


def test_adapters_with_lora_on_are_planned() -> None:
    assert planned({**_ADAPTER, "ENABLE_LORA": "true"}).arguments["lora_modules"].value == ["sql=/loras/sql"]


@pytest.mark.parametrize(
    ("environ", "why"),
    [({}, "vLLM's LoRA is off"), ({"ENABLE_LORA": "false"}, r"enable_lora is false \(ENABLE_LORA\)")],
)
def test_adapters_without_lora_are_refused(environ: dict[str, str], why: str) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"lora_modules is set \(LORA_MODULES\), but {why}; set ENABLE_LORA=true"
    ):
        planned({**_ADAPTER, **environ})
