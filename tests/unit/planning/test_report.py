from __future__ import annotations

import json
from io import StringIO

import pytest
from rich.console import Console

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.profile import load_profile
from gptoss_bento.hardware.probe import Hardware, hardware_named
from gptoss_bento.planning.plan import EnginePlan, with_kernels
from gptoss_bento.planning.planner import make_plan
from gptoss_bento.planning.report import as_json, print_plan, shown_arguments
from tests.fakes import H100, machine
from tests.unit.planning.test_kernel_key import kernels


def plan_of(profile: str, hardware: Hardware, environ: dict[str, str] | None = None) -> EnginePlan:
    return make_plan(load_settings(environ or {}), load_profile(profile), hardware)


def printed(plan: EnginePlan, width: int = 200) -> str:
    stream = StringIO()
    print_plan(plan, Console(file=stream, width=width))
    return stream.getvalue()


@pytest.mark.parametrize("width", [20, 80, 200])
def test_values_and_arguments_are_whole_on_any_terminal(width: int) -> None:
    plan = plan_of("gpt-oss-120b", hardware_named("b200"))
    text = printed(plan, width)

    assert "--cudagraph-capture-sizes" in text
    assert str(plan.arguments["cudagraph_capture_sizes"].value) in text
    assert "VLLM_V1_OUTPUT_PROC_CHUNK_SIZE" in text
    assert '\'--quantization-config={"moe": {"activation": "mxfp8"}}\'' in text


def test_columns_are_aligned() -> None:
    lines = printed(plan_of("gpt-oss-20b", hardware_named("h100"))).splitlines()
    rows = [
        line for line in lines if line.endswith("default for GPT-OSS") and not line.startswith("--reasoning-config ")
    ]

    assert len({line.index("default for GPT-OSS") for line in rows}) == 1


def test_value_longer_than_a_column_pushes_its_own_origin_alone() -> None:
    lines = printed(plan_of("gpt-oss-20b", hardware_named("h100"))).splitlines()
    long = next(line for line in lines if line.startswith("--reasoning-config "))

    assert "'reasoning_end_str': '<|end|>'}  default for GPT-OSS" in long


def test_memory_of_a_cpu_is_not_that_of_a_gpu() -> None:
    assert "\nMemory\n" in printed(plan_of("demo", machine()))
    assert "\nMemory of each GPU\n" in printed(plan_of("demo", hardware_named("l4")))


def test_memory_that_cannot_be_estimated_is_reported_with_the_reason() -> None:
    plan = plan_of("gpt-oss-20b", hardware_named("h100"), {"MODEL_NAME": "a/b"})
    text = printed(plan)

    assert "KV tokens" not in text
    assert "warning: memory is not estimated: MODEL_NAME names a model" in text
    assert as_json(plan)["memory"] is None


def test_model_size_is_in_the_json_with_its_source() -> None:
    known = as_json(plan_of("gpt-oss-20b", hardware_named("h100")))["model_size"]
    unknown = as_json(plan_of("gpt-oss-20b", hardware_named("h100"), {"MODEL_NAME": "a/b"}))["model_size"]

    assert (known["value"]["layers"], known["origin"]) == (24, "profile gpt-oss-20b")
    assert unknown == {"value": None, "origin": "MODEL_NAME names a model that the profile does not describe"}


def test_kernel_caches_are_in_the_json_with_their_state() -> None:
    plan = plan_of("gpt-oss-20b", machine(H100), {"KERNEL_CACHE_DIR": "/kernels"})

    named = as_json(plan)["kernel_caches"]
    warm = as_json(with_kernels(plan, kernels()))["kernel_caches"]
    cold = as_json(with_kernels(plan, kernels(None, reason="nothing is there yet")))["kernel_caches"]

    assert named == {"folder": "/kernels", "origin": "KERNEL_CACHE_DIR", "state": None}
    assert (warm["state"], warm["filled"]["seconds"], warm["key"]["arguments"]) == ("warm", 200.0, "1a2b3c4d")
    assert (cold["state"], cold["filled"], cold["reason"]) == ("cold", None, "nothing is there yet")
    assert as_json(plan_of("demo", machine()))["kernel_caches"] is None


def test_brackets_in_values_are_not_taken_for_markup() -> None:
    environ = {"COMPILATION_CONFIG": '{"splitting_ops": ["[red]"]}'}

    assert "[red]" in printed(plan_of("gpt-oss-20b", hardware_named("h100"), environ))


def test_json_can_be_written_and_read_back() -> None:
    content = as_json(plan_of("gpt-oss-120b", hardware_named("h200x8"), {"GOAL": "latency"}))

    read = json.loads(json.dumps(content))

    assert read["served_names"]["value"] == ["openai/gpt-oss-120b", "gpt-oss-120b"]
    assert {**read, "served_names": None} == {**content, "served_names": None}


def test_arguments_are_those_that_vllm_gets_but_for_secrets() -> None:
    plan = plan_of(
        "gpt-oss-20b", hardware_named("h100"), {"VLLM_EXTRA_ARGS": "--seed 5 --kv-transfer-config.token s3cret"}
    )

    assert shown_arguments(plan)[-2:] == ["--seed=5", '--kv-transfer-config={"token": "***"}']
    assert plan.argv("openai/gpt-oss-20b")[-1] == '--kv-transfer-config={"token": "s3cret"}'
