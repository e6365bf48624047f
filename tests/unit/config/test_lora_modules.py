from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.config import lora_modules
from gptoss_bento.config.environment import load_settings
from gptoss_bento.errors import ConfigurationError


@pytest.mark.parametrize(
    "text",
    [
        "sql=/loras/sql",
        "sql=/loras/sql,chat=owner/adapter",
        '[{"name": "sql", "path": "/loras/sql", "base_model_name": "gpt-oss"}]',
        '{"name": "sql", "path": "/loras/sql"}',
    ],
)
def test_adapters_with_name_and_path_are_taken(text: str) -> None:
    assert load_settings({"LORA_MODULES": text}).engine["lora_modules"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (["sql"], "sql has no path"),
        (["sql="], "sql has no path"),
        (["=/loras/sql"], "=/loras/sql has no name"),
        ([{"name": "sql"}], "sql has no path"),
        ([{"name": "sql", "path": " "}], "sql has no path"),
        ([{"name": "sql", "path": 3}], "sql has no path"),
        ([{"path": "/loras/sql"}], "an adapter has no name"),
        ([{"name": "a", "path": "/b", "rank": 8}], "a has unknown fields: rank; known: name, path,"),
        (['{"name": '], "is not valid JSON"),
        ([7], "7 is no adapter"),
        (["a=/a", "b", "c"], "b has no path; c has no path"),
    ],
)
def test_adapter_that_lacks_something_is_named(value: list[Any], told: str) -> None:
    assert told in str(lora_modules.problem("lora_modules", value))


def test_variable_with_an_adapter_without_a_path_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"LORA_MODULES: .* is not allowed; allowed: adapters as name=path"):
        load_settings({"LORA_MODULES": "sql"})
