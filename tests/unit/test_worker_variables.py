"""Every variable that the documents, forms and code of worker-vllm name, one by one: worker_variables.csv.

`becomes` says what the variable is here, `target` the vLLM option or the setting it sets, `good` a value that arrives
there as `arrives` (JSON), and `bad` one that is refused. That options arrive on vLLM's own parsed arguments is tested
in tests/contract/test_worker_variables.py, on the same rows.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.variables import known_names
from gptoss_bento.config.vllm_options import known_options
from gptoss_bento.errors import ConfigurationError

WITHOUT_EFFECT_ALONE = {
    "PYTHON_EXECUTION_BACKEND": ("PYTHON_EXECUTION_BACKEND has no effect; PYTHON_TOOL says whether code runs here.",)
}
REFUSABLE = ("option", "setting", "library", "refused")
ROWS = list(csv.DictReader(Path(__file__).with_name("worker_variables.csv").read_text().splitlines()))


def rows(becomes: str, column: str = "name") -> list[Any]:
    return [pytest.param(row, id=row["name"]) for row in ROWS if row["becomes"] == becomes and row[column]]


def test_variables_of_the_table_are_all_known() -> None:
    assert len(ROWS) == 292
    assert {row["name"] for row in ROWS} <= known_names()


@pytest.mark.parametrize("row", rows("option"))
def test_option_is_set_by_its_variable_alone(row: dict[str, str]) -> None:
    settings = load_settings({row["name"]: row["good"]})

    assert settings.origins == {row["target"]: row["name"]}


@pytest.mark.parametrize("row", rows("setting"))
def test_setting_arrives(row: dict[str, str]) -> None:
    value = getattr(load_settings({row["name"]: row["good"]}).server, row["target"])

    assert plain(value) == json.loads(row["arrives"])


def plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return list(value)
    return value if value is None or isinstance(value, bool | int | float) else str(value)


@pytest.mark.parametrize("row", [each for kind in REFUSABLE for each in rows(kind, "bad")])
def test_wrong_value_is_refused_by_name(row: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=f"^{row['name']}: .* is not allowed; allowed: \\S+"):
        load_settings({row["name"]: row["bad"]})


@pytest.mark.parametrize("row", rows("removed"))
def test_removed_variable_is_a_warning_and_the_start_continues(row: dict[str, str]) -> None:
    settings = load_settings({row["name"]: row["good"]})

    (warning,) = settings.warnings
    assert warning.startswith(f"{row['name']} is gone from vLLM")
    assert (json.loads(row["arrives"]) or "no replacement") in warning
    assert settings.engine == {}


@pytest.mark.parametrize("row", rows("library"))
def test_librarys_variable_stays_for_the_library(row: dict[str, str]) -> None:
    settings = load_settings({row["name"]: row["good"]})

    assert settings.process[row["name"]] == row["good"]
    assert settings.engine == {}
    assert settings.warnings == WITHOUT_EFFECT_ALONE.get(row["name"], ())


@pytest.mark.parametrize("row", rows("ignored"))
def test_variable_without_meaning_here_changes_nothing(row: dict[str, str]) -> None:
    assert load_settings({row["name"]: row["good"]}) == load_settings({})


@pytest.mark.parametrize("row", rows("option") + rows("setting"))
@pytest.mark.parametrize("text", ["", "None", "null"])
def test_empty_none_and_null_mean_unset(row: dict[str, str], text: str) -> None:
    option = known_options().get(row["target"])
    if option and text.lower() in option.choices:  # a value with that name, such as CONVERT=none
        assert load_settings({row["name"]: text}).engine == {option.name: text.lower()}
    else:
        assert load_settings({row["name"]: text}) == load_settings({})
