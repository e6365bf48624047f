from __future__ import annotations

from pathlib import Path

import pytest

from gptoss_bento.config.profile import load_profile
from gptoss_bento.planning.kernel_key import KERNEL_CACHES
from gptoss_bento.planning.plan import EnginePlan, Planned
from gptoss_bento.planning.process_variables import PROCESS_ENVIRONMENT
from tests.fakes import machine
from tests.unit.planning.plans import TIER, planned

# Precedence: one test per edge


def test_profiles_variable_wins_over_the_default() -> None:
    plan = planned({})

    assert plan.environment["VLLM_NO_USAGE_STATS"] == Planned("0", "profile")
    assert plan.environment["FROM_PROFILE"] == Planned("1", "profile")


def test_tiers_variable_wins_over_the_profiles() -> None:
    assert planned({}).environment["FROM_BOTH"] == Planned("tier", TIER)


def test_default_variables_are_planned() -> None:
    plan = planned({"API_WORKERS": "1", "GPTOSS_BENTO_CACHE": "/c"}, load_profile("gpt-oss-20b"))

    caches = {variable: f"/c/kernels/{name}" for variable, name in KERNEL_CACHES.items()}
    defaults = {**PROCESS_ENVIRONMENT, **caches}
    assert plan.environment == {
        **{name: Planned(value, "default") for name, value in defaults.items()},
        "VLLM_USE_FLASHINFER_SAMPLER": Planned("0", "profile"),
        "VLLM_ENGINE_READY_TIMEOUT_S": Planned("86400", "beyond VLLM_STARTUP_TIMEOUT"),
    }


@pytest.mark.parametrize("name", ["VLLM_NO_USAGE_STATS", "FROM_PROFILE", "FROM_BOTH", "VLLM_V1_OUTPUT_PROC_CHUNK_SIZE"])
def test_variable_set_by_the_operator_wins_over_all(name: str) -> None:
    plan = planned({name: "mine"})

    assert plan.environment[name] == Planned("mine", "environment")
    assert plan.variables(Path("/v"))[name] == "mine"
    assert (name, "mine", "environment") in plan.rows()


def test_variable_set_empty_by_the_operator_is_a_value_too() -> None:
    assert planned({"FROM_PROFILE": ""}).environment["FROM_PROFILE"] == Planned("", "environment")


def test_variables_of_other_programs_are_not_planned() -> None:
    assert planned({"HOME": "/root", "HF_TOKEN": "s3cret"}).environment == planned({}).environment


# What is compiled


def caches(plan: EnginePlan) -> dict[str, Planned]:
    return {name: plan.environment[name] for name in KERNEL_CACHES if name in plan.environment}


def test_kernels_are_kept_below_our_cache() -> None:
    plan = planned({"GPTOSS_BENTO_CACHE": "/c"})

    assert caches(plan) == {
        "VLLM_CACHE_ROOT": Planned("/c/kernels/vllm", "default"),
        "TRITON_CACHE_DIR": Planned("/c/kernels/triton", "default"),
        "FLASHINFER_WORKSPACE_BASE": Planned("/c/kernels/flashinfer", "default"),
        "CUDA_CACHE_PATH": Planned("/c/kernels/cuda", "default"),
    }


def test_folder_of_kernels_set_explicitly_is_used() -> None:
    plan = planned({"GPTOSS_BENTO_CACHE": "/c", "KERNEL_CACHE_DIR": "/k"})

    assert caches(plan) == {
        variable: Planned(f"/k/{name}", "KERNEL_CACHE_DIR") for variable, name in KERNEL_CACHES.items()
    }


@pytest.mark.parametrize("variable", KERNEL_CACHES)
def test_folder_of_one_library_set_explicitly_is_used_for_it_alone(variable: str) -> None:
    plan = planned({variable: "/mine", "KERNEL_CACHE_DIR": "/k"})

    assert plan.environment[variable] == Planned("/mine", "environment")
    assert {each.origin for name, each in caches(plan).items() if name != variable} == {"KERNEL_CACHE_DIR"}
    assert plan.variables(Path("/v"))[variable] == "/mine"


@pytest.mark.parametrize("environ", [{}, {"KERNEL_CACHE_DIR": "/k"}])
def test_kernels_are_not_kept_without_a_gpu(environ: dict[str, str]) -> None:
    plan = planned(environ, load_profile("demo"), machine())

    assert caches(plan) == {}


def test_vllms_start_plan_is_left_off() -> None:
    """vLLM 0.32 keys it without the share of memory: a start with another share would get this one's KV cache."""
    assert "VLLM_ENABLE_STARTUP_PLAN" not in planned({}, load_profile("gpt-oss-20b")).environment


def test_vllms_own_limit_of_a_start_is_beyond_ours_and_the_same_for_any_number_of_workers() -> None:
    name = "VLLM_ENGINE_READY_TIMEOUT_S"

    for environ in ({}, {"API_WORKERS": "2"}, {"VLLM_STARTUP_TIMEOUT": "1800"}):
        assert planned(environ).environment[name] == Planned("86400", "beyond VLLM_STARTUP_TIMEOUT")
    assert planned({"VLLM_STARTUP_TIMEOUT": "100000"}).environment[name].value == "100000"
    assert planned({name: "60"}).environment[name] == Planned("60", "environment")
