from __future__ import annotations

from dataclasses import replace

import pytest

from gptoss_bento.config.profile import load_profile
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.hardware.probe import hardware_named
from gptoss_bento.planning.plan import Planned
from tests.fakes import H100, machine
from tests.unit.planning.plans import planned


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


def test_cpu_gets_one_api_worker() -> None:
    assert planned({}, load_profile("demo"), machine()).api_workers == Planned(1, "default")


def test_goal_that_runs_few_requests_needs_one_api_worker() -> None:
    plan = planned({"GOAL": "latency"}, load_profile("gpt-oss-20b"), hardware_named("h100"))

    assert plan.api_workers == Planned(1, "goal latency")


def test_api_workers_are_no_more_than_the_cores_carry() -> None:
    plan = planned({}, load_profile("gpt-oss-20b"), replace(machine(H100), cpu_cores=4))

    assert plan.api_workers == Planned(2, "4 CPU cores; tier 80 GB has 4")


@pytest.mark.parametrize("variable", ["API_WORKERS", "API_SERVER_COUNT"])
def test_api_workers_set_explicitly_are_used_whatever_the_cores(variable: str) -> None:
    plan = planned({variable: "3"}, load_profile("demo"), replace(machine(), cpu_cores=2))

    assert plan.api_workers == Planned(3, variable)
    assert "--api-server-count=3" in plan.argv("m")


ALONE = {"DATA_PARALLEL_SIZE": "2", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}


@pytest.mark.parametrize("variable", ALONE)
def test_api_workers_are_one_where_a_setting_needs_it(variable: str) -> None:
    plan = planned({variable: ALONE[variable]}, load_profile("gpt-oss-20b"), machine(H100, H100))

    assert plan.api_workers.value == 1
    assert variable in plan.api_workers.origin
    assert "tier 80 GB has 4" in plan.api_workers.origin


@pytest.mark.parametrize("variable", ALONE)
def test_api_workers_set_to_several_are_refused_where_a_setting_needs_one(variable: str) -> None:
    environ = {variable: ALONE[variable], "API_WORKERS": "2"}

    with pytest.raises(ConfigurationError, match=f"API_WORKERS is 2, but .*{variable}.* needs 1"):
        planned(environ, load_profile("gpt-oss-20b"), machine(H100, H100))
