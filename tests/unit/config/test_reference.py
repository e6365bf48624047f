from __future__ import annotations

import json

import jsonschema

from gptoss_bento.config import reference
from gptoss_bento.config.variables import catalogue, known_names
from tests.server import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "configuration.md"
SECRETS = {"API_KEY", "API_KEYS", "VLLM_API_KEY", "HF_TOKEN", "EXA_API_KEY", "OPENAI_API_KEY", "JOB_STORE_URL"}


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
    assert len({field["key"] for field in fields}) == len(fields) > 300
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
