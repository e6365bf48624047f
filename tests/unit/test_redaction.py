from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.redaction import is_secret, redacted, redacted_arguments


@pytest.mark.parametrize(
    "name",
    [
        *("hf_token", "--hf-token", "api_key", "API_KEY", "AWS_SECRET_ACCESS_KEY", "S3_ACCESS_KEY_ID", "s3.password"),
        *("PGPASSWORD", "DOCKER_AUTH_CONFIG", "JOB_STORE_URL", "VLLM_EXTRA_ARGS", "VLLM_CONFIG_FILE: hf-token"),
    ],
)
def test_names_that_speak_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "max_num_batched_tokens",
            "tokenizer",
            "num_speculative_tokens",
            "keyboard",
            "seed",
            "",
            "TIKTOKEN_ENCODINGS_BASE",
        ),
        *("API_KEYS_FILE", "SSH_AUTH_SOCK", "HF_TOKEN_PATH"),  # where a secret is kept
        *("long_prefill_token_threshold", "return_tokens_as_token_ids", "allow_credentials"),
    ],
)
def test_names_that_only_resemble_secrets(name: str) -> None:
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
def test_value_is_shown_without_secrets(name: str, value: Any, shown: Any) -> None:
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
        (['--kv-transfer-config={"a": {"password": 12345}}'], ['--kv-transfer-config={"a": {"password": "***"}}']),
        (["--x", '{"a": "b=c", "token": "s3cret"}'], ["--x", '{"a": "b=c", "token": "***"}']),
        (["--x={not JSON}"], ["--x={not JSON}"]),
        (["--otlp-traces-endpoint=http://u:s3cret@h"], ["--otlp-traces-endpoint=http://***@h"]),
    ],
)
def test_arguments_are_shown_without_secrets(words: list[str], shown: list[str]) -> None:
    assert redacted_arguments(words) == shown


def test_settings_that_hold_secrets_have_secret_names() -> None:
    typed = {name for name, field in ServerSettings.model_fields.items() if "SecretStr" in str(field.annotation)}

    assert typed | {"vllm_extra_args"} == {name for name in ServerSettings.model_fields if is_secret(name)}
