"""docs/migrating-from-worker-vllm.md against the code: every row is true, and no default that differs lacks one."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

import pytest

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.profile import load_profile
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.config.variables import catalogue, own_variables
from gptoss_bento.config.vllm_options import known_options
from gptoss_bento.hardware.probe import hardware_named
from gptoss_bento.planning.kernel_key import KERNEL_CACHES
from gptoss_bento.planning.plan import EnginePlan
from gptoss_bento.planning.planner import make_plan
from tests.server import REPOSITORY

_TABLE = re.compile(r"<!-- compared with the code -->\n\|.*\n\| ---.*\n((?:\|.*\n)+)<!-- end -->")
DOCUMENT = REPOSITORY / "docs" / "migrating-from-worker-vllm.md"


def rows() -> list[list[str]]:
    """setting, worker-vllm, vllm serve, here, why, as before."""
    found = _TABLE.search(DOCUMENT.read_text())
    assert found
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in found[1].splitlines()]


ROWS = rows()
NAMES = {row[0].strip("`") for row in ROWS}


def of_code(cell: str) -> str | None:
    """What stands in backticks, which is compared; other cells are words for readers."""
    found = re.fullmatch(r"`(.+)`", cell)
    return found[1] if found else None


def each(column: int) -> list[Any]:
    return [pytest.param(row[0].strip("`"), text, id=row[0]) for row in ROWS if (text := of_code(row[column]))]


def planned(environ: Mapping[str, str]) -> EnginePlan:
    return make_plan(load_settings({"HOME": "/root", **environ}), load_profile("gpt-oss-20b"), hardware_named("h100"))


def shown(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool | int | float) else str(value)


def here(name: str) -> str:
    """What this server has where nobody set the variable, as it is shown in the table."""
    plan, option = planned({}), name.lower()
    apart = {
        "MODEL_NAME": plan.model,
        "API_WORKERS": plan.api_workers,
        "WARMUP": plan.warmup,
        "ENGINE_PRELOAD": plan.preload,
    }
    if name in apart:
        return shown(apart[name].value)
    if name == "KERNEL_CACHE_DIR":
        return str(plan.kernel_folder and plan.kernel_folder.value).replace("/root", "~")
    if option in ServerSettings.model_fields:
        return shown(ServerSettings.model_fields[option].default)
    found = plan.arguments.get(option) or plan.environment.get(name)
    return shown(found.value) if found else "vLLM's"


def test_rows_have_all_columns() -> None:
    assert [row for row in ROWS if len(row) != 6] == []


@pytest.mark.parametrize(("name", "text"), each(3))
def test_defaults_of_this_server_are_as_documented(name: str, text: str) -> None:
    assert here(name) == text


@pytest.mark.parametrize("name", [row[0].strip("`") for row in ROWS if row[3] == "vLLM's" and row[0].startswith("`")])
def test_options_left_to_vllm_are_not_planned(name: str) -> None:
    assert name.lower() not in planned({}).arguments


@pytest.mark.parametrize(("name", "text"), [pair for pair in each(2) if pair.values[0].lower() in known_options()])
def test_defaults_of_vllm_are_as_documented(name: str, text: str) -> None:
    assert known_options()[name.lower()].default == text


@pytest.mark.parametrize("text", [pytest.param(pair.values[1], id=pair.id) for pair in each(5)])
def test_variables_for_the_old_behaviour_have_an_effect(text: str) -> None:
    environ = dict(word.split("=", 1) for word in shlex.split(text.replace('"', '\\"')))
    settings, plan = load_settings(environ), planned(environ)
    variables = {known for known in environ if known in catalogue().library}

    assert not any("not used" in warning for warning in settings.warnings)
    changed = (settings.server, plan.arguments, plan.environment, plan.model, plan.api_workers)
    plain = planned({})
    as_it_is = (ServerSettings(), plain.arguments, plain.environment, plain.model, plain.api_workers)
    assert changed != as_it_is or variables


def test_defaults_that_the_plan_sets_have_a_row() -> None:
    plan = planned({})
    set_here = {name.upper() for name, value in plan.arguments.items() if differs(name, value.value)}

    assert set_here - NAMES == set()
    assert set(plan.environment) - set(KERNEL_CACHES) - NAMES == set()


def differs(name: str, value: Any) -> bool:
    return bool(known_options()[name].default != json.dumps(value))


def test_names_of_the_table_are_known() -> None:
    known = {
        *(name for names in own_variables().values() for name in names),
        *catalogue().library,
        *catalogue().aliases,
    }
    options = {option.variable for option in known_options().values()}

    assert {name for name in NAMES - known - options if not name.startswith("VLLM_")} == {"temperature"}
