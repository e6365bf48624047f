from __future__ import annotations

import re
from pathlib import Path

import pytest

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.key_sources import KeySources, key_sources
from gptoss_bento.errors import ConfigurationError

ALICE = "alice: {key: s3cret, jobs: 2}"


def test_keys_come_from_variables_and_from_a_file_together(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text("bob: {key: other}")

    sources = key_sources({"API_KEY": "a,b", "API_KEYS": ALICE, "API_KEYS_FILE": str(file)})

    assert [key.name for key in sources.fixed] == ["key-1", "key-2", "alice"]
    assert (sources.file, sources.problems) == (file, ())
    assert key_sources({"API_KEY": "", "API_KEYS_FILE": "none"}) == KeySources()


def test_keys_of_vllms_own_variable_are_used_without_api_key() -> None:
    assert [key.name for key in key_sources({"VLLM_API_KEY": "b", "API_KEYS": ALICE}).fixed] == [
        "key-1",
        "alice",
    ]


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"API_KEY": "a,sha256:12"}, "API_KEY: key 2 must have 64 hex digits after `sha256:`"),
        ({"VLLM_API_KEY": "s3cret key"}, "VLLM_API_KEY: key 1 must be of printable ASCII"),
        ({"API_KEYS": "s3cret"}, "API_KEYS: it must have one entry a key"),
        ({"API_KEYS": "alice: {key: s3cret, job: 2}"}, "API_KEYS: alice: job is unknown; did you mean jobs?"),
        ({"API_KEYS_FILE": "/nowhere/keys"}, "API_KEYS_FILE: No such file or directory"),
        ({"API_KEY": "s3cret", "API_KEYS": ALICE}, "API_KEYS: alice: its key is also that of key-1"),
    ],
)
def test_keys_that_are_wrong_stop_the_start_and_are_not_shown(variables: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(problem)) as caught:
        load_settings(variables)

    assert "s3cret" not in str(caught.value)


def test_keys_are_not_shown_by_settings() -> None:
    settings = load_settings({"API_KEY": "s3cret-1", "API_KEYS": "alice: {key: s3cret-2}"})

    assert "s3cret" not in repr(settings)
    assert "s3cret" not in settings.server.model_dump_json()
