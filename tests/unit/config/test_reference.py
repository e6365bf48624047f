from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from gptoss_bento.config import reference
from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import Profile, fits, load_profile
from gptoss_bento.config.settings import Settings
from gptoss_bento.config.variables import catalogue, known_names, own_variables
from gptoss_bento.errors import HardwareError
from gptoss_bento.hardware.gpu_catalogue import known_cards
from gptoss_bento.hardware.probe import Hardware, hardware_named
from gptoss_bento.planning.plan import EnginePlan
from gptoss_bento.planning.planner import make_plan
from tests.fakes import machine
from tests.server import REPOSITORY

OUT_OF_REACH = {"gpt-oss-120b": {"one 16 GB GPU"}}
"""Tiers that a profile shares with another one and cannot have itself."""
DOCUMENT = REPOSITORY / "docs" / "configuration.md"
SECRETS = {
    "RESPONSES_ENCRYPTION_KEY",
    "API_KEY",
    "API_KEYS",
    "VLLM_API_KEY",
    "HF_TOKEN",
    "EXA_API_KEY",
    "YDC_API_KEY",
    "BRAVE_API_KEY",
    "TAVILY_API_KEY",
    "SEARCH_API_KEY",
    "OPENAI_API_KEY",
    "JOB_STORE_URL",
}


def test_document_is_fresh() -> None:
    text = DOCUMENT.read_text()

    assert reference.fill(text) == text, "run `gptoss-bento schema --fill docs/configuration.md`"


def test_schema_is_valid_and_knows_every_variable_that_does_something() -> None:
    schema = reference.json_schema()

    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) <= known_names()
    assert {"MODEL_NAME", "MAX_MODEL_LEN", "DEFAULT_BATCH_SIZE", "SWAP_SPACE", "HF_TOKEN"} <= set(schema["properties"])


def test_schema_takes_good_values_and_refuses_bad_ones() -> None:
    validator = jsonschema.Draft202012Validator(reference.json_schema())

    assert validator.is_valid({"GPU_MEMORY_UTILIZATION": 0.9, "DTYPE": "bfloat16", "MAX_CONCURRENCY": 30})
    for bad in ({"GPU_MEMORY_UTILIZATION": 1.5}, {"DTYPE": "int3"}, {"MAX_CONCURRENCY": 0}, {"ENFORCE_EAGER": "maybe"}):
        assert not validator.is_valid(bad)


def test_secrets_are_written_never_read() -> None:
    properties = reference.json_schema()["properties"]

    assert {name for name, each in properties.items() if each.get("writeOnly")} == SECRETS
    assert not any(properties[name].get("default") for name in SECRETS)


def test_removed_variables_are_marked_with_their_replacement() -> None:
    properties = reference.json_schema()["properties"]

    for name, replacement in catalogue().removed.items():
        assert properties[name]["deprecated"]
        assert (replacement or "without replacement") in properties[name]["description"]


def test_hub_form_has_a_field_a_setting_the_usual_ones_first() -> None:
    form = reference.hub_form()
    fields = form["config"]["env"]

    assert [field["key"] for field in fields[:3]] == ["MODEL_NAME", "PROFILE", "GOAL"]
    assert len({field["key"] for field in fields}) == len(fields) > 290
    for field in fields:
        assert field["input"]["type"] in ("string", "number", "boolean")
        assert field["input"]["name"]
    dtype = next(field["input"] for field in fields if field["key"] == "DTYPE")
    assert {"label": "bfloat16", "value": "bfloat16"} in dtype["options"]
    assert dtype["advanced"] is True


def test_hub_form_shows_nothing_removed_and_no_secret() -> None:
    text = json.dumps(reference.hub_form())

    assert "SWAP_SPACE" not in text
    assert "writeOnly" not in text


def test_hub_form_has_defaults_only_where_they_are_ours() -> None:
    with_default = {field["key"] for field in reference.hub_form()["config"]["env"] if "default" in field["input"]}

    assert with_default <= {name for names in own_variables().values() for name in names}
    assert {"MAX_CONCURRENCY", "NATIVE_DEFAULT_MAX_TOKENS", "RATE_LIMIT"} <= with_default


def test_hub_form_leaves_out_what_vllm_suppresses_and_what_is_refused() -> None:
    keys = {field["key"] for field in reference.hub_form()["config"]["env"]}

    assert not keys & {"LOG_LEVEL", "LOGGING_CONFIG", "LOG_CONFIG_FILE", "ALLOWED_ORIGINS", "ALLOW_CREDENTIALS"}
    assert "SUPPRESS" not in json.dumps([reference.hub_form(), reference.json_schema()])
    assert "SUPPRESS" not in DOCUMENT.read_text()


# The hub's form, sent back as it came


def unchanged(form: dict[str, Any]) -> dict[str, str]:
    """What the hub sets where nobody touched the form: defaults as text, the first choice of a list, else nothing."""
    sent = {}
    for field in form["config"]["env"]:
        asked = field["input"]
        first = asked["options"][0]["value"] if "options" in asked else ""
        default = asked.get("default", False if asked["type"] == "boolean" else first)
        sent[field["key"]] = json.dumps(default) if isinstance(default, bool) else str(default)
    return sent


def machines_of_every_tier(profile: Profile) -> list[Hardware]:
    """Each known card alone, by two and by eight, and a machine without one, as far as the model fits there."""
    names = [f"{card}{count}" for card in known_cards() for count in ("", "x2", "x8")]
    hardware = [machine(), *(hardware_named(name) for name in names)]
    return [each for each in hardware if fits(profile, each)]


@pytest.mark.parametrize("goal", ["", *Goal])
@pytest.mark.parametrize("name", ["gpt-oss-20b", "gpt-oss-120b", "demo"])
def test_hub_form_sent_back_gives_the_very_same_plan_on_every_tier(name: str, goal: str) -> None:
    profile, plain = load_profile(name), load_settings({"GOAL": goal})
    sent = load_settings({**unchanged(reference.hub_form()), "GOAL": goal})
    assert (sent, sent.origins) == (plain, plain.origins)

    for hardware in machines_of_every_tier(profile):
        assert _plan_or_reason(sent, profile, hardware) == _plan_or_reason(plain, profile, hardware)


@pytest.mark.parametrize("name", ["gpt-oss-20b", "gpt-oss-120b", "demo"])
def test_machines_of_these_tests_meet_every_tier(name: str) -> None:
    profile = load_profile(name)
    plans = [str(_plan_or_reason(load_settings({}), profile, each)) for each in machines_of_every_tier(profile)]

    met = {tier.name for tier in profile.tiers if any(f"tier {tier.name}'" in plan for plan in plans)}

    assert met == {tier.name for tier in profile.tiers} - OUT_OF_REACH.get(name, set())


def _plan_or_reason(settings: Settings, profile: Profile, hardware: Hardware) -> EnginePlan | str:
    try:
        return make_plan(settings, profile, hardware)
    except HardwareError as error:
        return str(error)


def test_hub_form_sent_back_unchanged_describes_the_same_service() -> None:
    server = load_settings(unchanged(reference.hub_form())).server

    assert "request_timeout" not in server.model_fields_set
