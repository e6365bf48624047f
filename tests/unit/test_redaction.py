from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.redaction import is_secret, redacted, redacted_words


@pytest.mark.parametrize(
    "name", ["hf_token", "--hf-token", "api_key", "API_KEY", "AWS_SECRET_ACCESS_KEY", "s3.password"]
)
def test_names_that_speak_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", ["max_num_batched_tokens", "tokenizer", "num_speculative_tokens", "keyboard", "seed"])
def test_names_that_only_look_so(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("hf_token", "s3cret", "***"),
        ("hf_token", None, None),
        ("seed", 5, 5),
        (
            "kv_transfer_config",
            {"role": "both", "login": {"token": "s3cret"}},
            {"role": "both", "login": {"token": "***"}},
        ),
        ("middleware", ["a", "https://u:s3cret@host/x"], ["a", "https://***@host/x"]),
        ("speculative_config", {"model": "a/b"}, {"model": "a/b"}),
    ],
)
def test_a_value_is_shown_without_secrets(name: str, value: Any, shown: Any) -> None:
    assert redacted(name, value) == shown


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--seed", "5"], ["--seed", "5"]),
        (["--hf-token", "s3cret", "--seed", "5"], ["--hf-token", "***", "--seed", "5"]),
        (["--hf-token=s3cret"], ["--hf-token=***"]),
        (["--api-key", "s3cret", "s4cret"], ["--api-key", "***", "***"]),
        (
            ['--kv-transfer-config={"password": "s3cret", "a": "b"}'],
            ['--kv-transfer-config={"password": "***", "a": "b"}'],
        ),
        (["--otlp-traces-endpoint=http://u:s3cret@h"], ["--otlp-traces-endpoint=http://***@h"]),
    ],
)
def test_words_are_shown_without_secrets(words: list[str], shown: list[str]) -> None:
    assert redacted_words(words) == shown
