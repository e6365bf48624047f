from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gptoss_bento.config.config_file import read_options
from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.profile import load_profile
from gptoss_bento.planning.planner import make_plan
from tests import recipes
from tests.fakes import H100, machine


def test_negated_option_is_taken_as_vllm_takes_it() -> None:
    assert read_options({"no-enable-prefix-caching": True}, ()).values == {"enable_prefix_caching": False}
    assert read_options({"no_async_scheduling": "yes"}, ()).values == {"async_scheduling": False}


def test_negated_option_that_is_false_is_warned_about() -> None:
    found = read_options({"no-enable-prefix-caching": False}, ())

    assert found.values == {}
    assert found.warnings == [
        "no-enable-prefix-caching: false has no effect, as in vLLM; to say yes, write enable-prefix-caching: true"
    ]


def test_option_twice_is_warned_about() -> None:
    found = read_options({"max-num-seqs": 4, "max_num_seqs": 8}, ())

    assert found.values == {"max_num_seqs": 8}
    assert found.warnings == ["max_num_seqs: the option is there twice; the last one is used, as in vLLM"]


@pytest.mark.parametrize(
    ("content", "values"),
    [
        ({"max-model-len": [4096]}, {"max_model_len": 4096}),
        ({"gpu-memory-util": 0.5}, {"gpu_memory_utilization": 0.5}),
        (
            {"compilation-config.mode": 3, "compilation_config.a.b": [1]},
            {"compilation_config": {"mode": 3, "a": {"b": [1]}}},
        ),
        ({"max-model-len": None, "cudagraph-capture-sizes": []}, {}),
        ({"speculative-config": '{"method": "ngram"}'}, {"speculative_config": {"method": "ngram"}}),
    ],
)
def test_line_becomes_a_value(content: dict[str, Any], values: dict[str, Any]) -> None:
    assert read_options(content, ()).values == values


@pytest.mark.parametrize(
    ("content", "key", "allowed"),
    [
        ({"dtype": True}, "dtype", "a value; vLLM takes true and false for switches alone"),
        ({"download-dir": False}, "download-dir", "a value"),
        ({"max-model-len": [1, 2]}, "max-model-len", "a whole number"),
        ({"seed.x": 1}, "seed.x", "--seed without entries"),
        (
            {"compilation-config": {"mode": 3}, "compilation-config.mode": 3},
            "compilation-config.mode",
            "compilation-config as one value or entry by entry, not both",
        ),
    ],
)
def test_value_that_vllm_would_not_take_is_named(content: dict[str, Any], key: str, allowed: str) -> None:
    (wrong,) = read_options(content, ()).wrong

    assert wrong.key == key
    assert wrong.allowed.startswith(allowed)


def test_option_that_the_server_decides_is_named_in_each_spelling() -> None:
    found = read_options({"port": 8000, "api_key": "x", "hos": "::"}, ("port", "api_key", "host"))

    assert found.unknown == [f"{key}: this server decides it; leave it out" for key in ("port", "api_key", "hos")]


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_recipe_of_vllm_becomes_the_plan(tmp_path: Path, name: str) -> None:
    settings = load_settings({"VLLM_CONFIG_FILE": str(recipes.written(tmp_path, name))})

    plan = make_plan(settings, load_profile("gpt-oss-120b"), machine(H100))

    said = {each: planned.value for each, planned in plan.arguments.items() if planned.origin == "VLLM_CONFIG_FILE"}
    assert said.pop("kv_cache_dtype", None) == ("fp8" if "Blackwell" in name else None)
    assert said.pop("speculative_config", {}).get("num_speculative_tokens") == (7 if "EAGLE3" in name else None)
    assert said == {
        "enable_prefix_caching": False,
        "max_cudagraph_capture_size": 2048,
        "max_num_batched_tokens": 8192,
        "stream_interval": 20,
    }
    assert "cudagraph_capture_sizes" not in plan.arguments
