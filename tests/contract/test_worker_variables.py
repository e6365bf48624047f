"""Each variable of worker_variables.csv that sets a vLLM option arrives on the arguments that vLLM parses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.profile import load_profile
from gptoss_bento.engine import vllm_parser
from gptoss_bento.hardware.probe import Hardware
from gptoss_bento.planning.planner import make_plan
from tests.unit.test_worker_variables import rows

pytestmark = [
    pytest.mark.contract,
    pytest.mark.filterwarnings("default"),  # vLLM's imports and its deprecated options warn, which is not ours to judge
]

COMPANIONS = {"LORA_MODULES": {"ENABLE_LORA": "true"}}
"""What a variable needs beside it."""

CPU = Hardware(gpus=(), cpu_cores=2, memory_bytes=24 * 2**30)


@pytest.fixture(scope="module")
def parse() -> Callable[[list[str]], Any]:
    return vllm_parser.serve_parser().parse_args


@pytest.mark.parametrize("row", rows("option"))
def test_variable_reaches_vllms_arguments(row: dict[str, str], parse: Callable[[list[str]], Any]) -> None:
    settings = load_settings({row["name"]: row["good"], **COMPANIONS.get(row["name"], {})})
    plan = make_plan(settings, load_profile("demo"), CPU)

    arguments = parse(plan.argv(plan.model.value))

    assert holds(getattr(arguments, row["target"]), json.loads(row["arrives"]))


def holds(value: Any, expected: Any) -> bool:
    """Whether vLLM's value is the expected one; of its configuration objects the expected entries count."""
    if isinstance(expected, dict) and not isinstance(value, dict):
        return all(plain(getattr(value, key)) == each for key, each in expected.items())
    if isinstance(expected, list):
        return len(value) == len(expected) and all(holds(*pair) for pair in zip(value, expected, strict=True))
    return bool(plain(value) == expected)


def plain(value: Any) -> Any:
    return getattr(value, "value", value)
