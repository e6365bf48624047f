from __future__ import annotations

import pytest

from gptoss_bento.config import quotes
from gptoss_bento.config.environment import load_settings
from gptoss_bento.errors import ConfigurationError

_NAMES = [
    "API_KEY", "API_KEYS", "API_KEYS_FILE", "CORS_ORIGINS", "CUSTOM_CHAT_TEMPLATE", "DEFAULT_ENDPOINT_ID",
    "DOWNLOAD_DIR", "ENDPOINT_IDS", "ENFORCE_EAGER", "GOAL", "GPTOSS_BENTO_CACHE", "HF_ENDPOINT", "HF_HOME",
    "HF_HUB_OFFLINE", "HF_TOKEN", "HOST", "HTTPS_PROXY", "JOB_STORE_URL", "KERNEL_CACHE_DIR", "LORA_MODULES",
    "MAX_MODEL_LEN", "MODEL_NAME", "MODEL_REVISION", "OPENAI_SERVED_MODEL_NAME_OVERRIDE", "OTLP_TRACES_ENDPOINT",
    "PORT", "PROFILE", "PUBLIC_ROUTES", "SPECULATIVE_CONFIG", "SPECULATIVE_MODEL", "SSL_CERTFILE",
    "TIKTOKEN_ENCODINGS_BASE", "TOKENIZER", "VLLM_API_KEY", "VLLM_CONFIG_FILE", "VLLM_LOGGING_LEVEL",
]  # fmt: skip


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("pair", ['""', "''", "“”"])
def test_value_in_quotes_is_named_once_and_refused(name: str, pair: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({name: f" {pair[0]}secret-1{pair[1]}"})

    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{name}: ")
    assert line.endswith(quotes.ALLOWED)


@pytest.mark.parametrize("name", ["API_KEY", "HF_TOKEN", "JOB_STORE_URL", "API_KEYS"])
def test_secret_in_quotes_is_not_shown(name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({name: '"s3cret"'})

    assert "s3cret" not in str(caught.value)
    assert f"{name}: its value is not allowed" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("API_KEY", '""'),
        ("API_KEY", 'one,"two"'),
        ("CORS_ORIGINS", "'https://a.example',https://b.example"),
        ("OPENAI_SERVED_MODEL_NAME_OVERRIDE", 'a, "b"'),
        ("SERVED_MODEL_NAME", 'a, "b"'),
        ("ENDPOINT_IDS", "a,'b'"),
        ("VLLM_EXTRA_ARGS", '"--max-model-len 8192"'),
    ],
)
def test_quotes_around_nothing_an_item_or_all_words_are_found(name: str, text: str) -> None:
    assert quotes.quoted_variables({name: text}) == [name]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("VLLM_EXTRA_ARGS", "'--served-model-name' \"a b\""),
        ("CORS_ORIGINS", '["https://a.example"]'),
        ("LORA_MODULES", '[{"name": "sql", "path": "/loras/sql"}]'),
        ("API_KEY", '"'),
        ("API_KEY", 'half"'),
        ("ROPE_SCALING", '"gone"'),
        ("PS1", '"not ours"'),
    ],
)
def test_quotes_of_other_kinds_are_left_alone(name: str, text: str) -> None:
    assert quotes.quoted_variables({name: text}) == []


def test_quoted_variables_are_named_together_and_other_problems_beside_them() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"API_KEY": '"a"', "CORS_ORIGINS": "'b'", "MAX_NUM_SEQS": "many"})

    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "API_KEY",
        "CORS_ORIGINS",
        "MAX_NUM_SEQS",
    ]


def test_list_of_ours_may_be_json() -> None:
    settings = load_settings({"CORS_ORIGINS": '["https://a.example", "https://b.example"]'}).server

    assert settings.cors_origins == ("https://a.example", "https://b.example")


@pytest.mark.parametrize("text", ["[1]", '["a"', "[{}]"])
def test_list_of_ours_that_is_no_list_of_texts_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"CORS_ORIGINS: .* a JSON list of texts"):
        load_settings({"CORS_ORIGINS": text})
