from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import load_profile
from gptoss_bento.hardware.probe import hardware_named
from gptoss_bento.planning.plan import Planned
from tests.unit.planning.plans import UP_TO_2048, planned

PROMPTS_TOO = [*(1, 2, 4, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768)]
PROMPTS_TOO += [1024, 1280, 1536, 1792, 2048]


def test_goal_of_the_operator_is_planned_with_its_origin() -> None:
    assert planned({"GOAL": "latency"}, load_profile("gpt-oss-20b")).goal == Planned(Goal.LATENCY, "GOAL")
    assert planned({}).goal == Planned(Goal.BALANCED, "default")


@pytest.mark.parametrize(
    ("profile", "card", "goal", "expected"),
    [
        ("gpt-oss-20b", "h100", "latency", {"stream_interval": 1, "max_num_seqs": 8}),
        ("gpt-oss-20b", "a100-80", "latency", {"max_cudagraph_capture_size": 64}),
        ("gpt-oss-20b", "h100", "latency", {"cudagraph_capture_sizes": PROMPTS_TOO, "moe_backend": "marlin"}),
        ("gpt-oss-120b", "h200", "latency", {"cudagraph_capture_sizes": PROMPTS_TOO, "moe_backend": "marlin"}),
        ("gpt-oss-20b", "h100", "throughput", {"stream_interval": 20, "max_num_seqs": 1024}),
        ("gpt-oss-20b", "h100", "throughput", {"cudagraph_capture_sizes": UP_TO_2048}),
        ("gpt-oss-20b", "h100", "benchmark", {"enable_prefix_caching": False, "stream_interval": 20}),
        ("gpt-oss-120b", "h200", "benchmark", {"max_num_batched_tokens": 8192, "cudagraph_capture_sizes": UP_TO_2048}),
        ("gpt-oss-120b", "h100", "throughput", {"max_num_batched_tokens": 1024, "max_num_seqs": 256}),
        ("gpt-oss-120b", "a100-80", "benchmark", {"max_num_batched_tokens": 1024, "enable_prefix_caching": False}),
        ("gpt-oss-20b", "l4", "throughput", {"stream_interval": 20}),
    ],
)
def test_goal_wins_over_tiers(profile: str, card: str, goal: str, expected: Mapping[str, Any]) -> None:
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


def test_goal_leaves_small_cards_their_small_batches() -> None:
    plan = planned({"GOAL": "throughput"}, load_profile("gpt-oss-20b"), hardware_named("a4000"))

    assert plan.arguments["max_num_seqs"] == Planned(16, "tier 16 GB")


@pytest.mark.parametrize("goal", ["latency", "balanced", "throughput"])
def test_prefix_caching_is_on_except_for_benchmarks(goal: str) -> None:
    plan = planned({"GOAL": goal}, load_profile("gpt-oss-120b"))

    assert plan.arguments["enable_prefix_caching"].value is True


@pytest.mark.parametrize("goal", list(Goal))
def test_variable_wins_over_a_goal(goal: Goal) -> None:
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
def test_goal_latency_alone_speculates_and_only_where_it_pays(
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


def test_goal_that_the_profile_does_not_know_is_not_ignored_in_silence() -> None:
    assert planned({"GOAL": "latency"}).warnings[0] == (
        "profile 'p' has no settings for the goal latency (GOAL); it changes nothing"
    )
    assert planned({"GOAL": "balanced"}, load_profile("gpt-oss-20b")).warnings == ()
