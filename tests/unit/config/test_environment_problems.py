from __future__ import annotations

import re

import pytest

from gptoss_bento.config.environment import load_settings
from gptoss_bento.errors import ConfigurationError

# Problems


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("ENFORCE_EAGER", "maybe", "true or false"),
        ("MAX_NUM_SEQS", "many", "a whole number"),
        ("MAX_NUM_SEQS", "1.5", "a whole number"),
        ("GPU_MEMORY_UTILIZATION", "90%", "a number"),
        ("DTYPE", "int3", "bfloat16"),
        ("COMPILATION_CONFIG", "{mode: 3}", "valid JSON"),
        ("VLLM_STARTUP_TIMEOUT", "0", "at least 1"),
        ("VLLM_STARTUP_TIMEOUT", "-5", "at least 1"),
        ("VLLM_STARTUP_TIMEOUT", "soon", "at least 1"),
        ("CUDAGRAPH_CAPTURE_SIZES", "1,two", "a whole number"),
        ("MAX_LORA_RANK", "5", "one of 1, 8, 16"),
        ("VLLM_STARTUP_TIMEOUT", "²", "at least 1"),
    ],
)
def test_wrong_value_is_named_with_what_is_allowed(variable: str, text: str, allowed: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({variable: text})

    message = str(caught.value)
    assert variable in message
    assert repr(text) in message
    assert allowed in message


@pytest.mark.parametrize("text", ["s3cret", "s3cret,{0}", ",", "{0},s3cret"])
def test_key_that_is_too_short_to_encrypt_with_is_refused_and_not_shown(text: str) -> None:
    long_enough = "x" * 32
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"RESPONSES_ENCRYPTION_KEY": text.format(long_enough)})

    assert "RESPONSES_ENCRYPTION_KEY" in str(caught.value)
    assert "texts of 32 characters or more, with commas between them" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert load_settings({"RESPONSES_ENCRYPTION_KEY": long_enough}).server.responses_encryption_key


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        (
            "VLLM_STARTUP_TIMEOUT",
            "soon",
            "VLLM_STARTUP_TIMEOUT: the value 'soon' is not allowed; allowed: a whole number of at least 1",
        ),
        ("FINGERPRINT_MODE", "x", "FINGERPRINT_MODE: the value 'x' is not allowed; allowed: one of "),
        (
            "MAX_MODEL_LEN",
            "banana",
            "MAX_MODEL_LEN: the value 'banana' is not allowed; allowed: a whole number, which may end in k, m or g",
        ),
    ],
)
def test_problem_is_one_line_of_the_same_shape(variable: str, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({variable: text})

    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_unclosed_quote_in_the_further_arguments_is_refused_without_showing_them() -> None:
    with pytest.raises(ConfigurationError, match="VLLM_EXTRA_ARGS: its value is not allowed") as caught:
        load_settings({"VLLM_EXTRA_ARGS": "--chat-template 's3cret"})

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("--port 3000", "--port"),
        ("--port=3000", "--port"),
        ("--model some/model", "--model"),
        ("--api-key s3cret", "--api-key"),
        ("--api-key=s3cret", "--api-key"),
        ("--api_key=s3cret", "--api-key"),
    ],
)
def test_extra_args_that_this_server_decides_are_refused_without_the_value(text: str, flags: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"VLLM_EXTRA_ARGS": text})

    assert str(caught.value) == (
        f"VLLM_EXTRA_ARGS: its value is not allowed; allowed: vLLM options without {flags}, which this server decides"
    )


def test_extra_args_that_are_wrong_are_all_named() -> None:
    with pytest.raises(ConfigurationError, match=r"without --hf-token.*without --host") as caught:
        load_settings({"VLLM_EXTRA_ARGS": "--seed 1 --hf-token s3cret --host ::"})

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("text", ["--compilation-config.mode 3", "-cc.mode=3", "--compilation_config.mode=3"])
def test_further_arguments_win_over_the_options_own_variable(text: str) -> None:
    settings = load_settings({"VLLM_EXTRA_ARGS": text, "COMPILATION_CONFIG": '{"debug_dump_path": "x"}'})

    assert settings.engine == {"compilation_config": {"mode": 3}}
    assert settings.origins == {"compilation_config": "VLLM_EXTRA_ARGS"}


def test_problems_are_reported_together_one_a_line() -> None:
    environ = {"ENFORCE_EAGER": "maybe", "MAX_NUM_SEQS": "many", "DTYPE": "int3", "VLLM_STARTUP_TIMEOUT": "soon"}

    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ)

    lines = str(caught.value).splitlines()
    assert sorted(line.split(":")[0] for line in lines) == sorted(environ)


# Values that mean something else than they say


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("SKIP_TOKENIZER_INIT", "true", "without a tokenizer no text route works"),
        ("QUANTIZATION", "bitsandbytes", "bitsandbytes is gone"),
        ("GPU_MEMORY_UTILIZATION", "1.5", "above 0 and at most 1"),
        ("TENSOR_PARALLEL_SIZE", "0", "at least 1"),
        ("VLLM_USE_DEEP_GEMM", "true", "0 or 1"),
        ("PYTHON_EXECUTION_BACKEND", "dangerously_use_uv", "it always is confined"),
        ("NUM_SPECULATIVE_TOKENS", "none of it", "a whole number of at least 1"),
        ("MAX_CONCURRENCY", "0", "at least 1"),
        ("NATIVE_OUTPUT_FORMAT", "xml", "'tokens' or 'openai'"),
        ("GOAL", "latenzy", "latency, balanced, throughput, benchmark; did you mean 'latency'?"),
    ],
)
def test_value_that_cannot_work_is_refused(variable: str, text: str, allowed: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{variable}: the value '.*' is not allowed.*{re.escape(allowed)}"):
        load_settings({variable: text})


def test_address_that_is_none_is_not_used_because_shells_set_such() -> None:
    settings = load_settings({"HOST": "x86_64-conda-linux-gnu"})

    assert settings.server.host is None
    assert "HOST is not an IP address" in settings.warnings[0]


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CUSTOM_CHAT_TEMPLATE", "/no/such.jinja"),
        ("CHAT_TEMPLATE", "/no/such.jinja"),
        ("DEFAULT_CHAT_TEMPLATE_KWARGS", '{"reasoning_effort": "high"}'),
        ("CHAT_TEMPLATE_CONTENT_FORMAT", "string"),
        ("TRUST_REQUEST_CHAT_TEMPLATE", "1"),
    ],
)
def test_templates_without_effect_are_warned_about(variable: str, text: str) -> None:
    (warning,) = load_settings({variable: text}).warnings

    assert warning.startswith(f"{variable}: ")
    assert "Harmony" in warning or "no effect" in warning


def test_code_of_a_models_repository_is_warned_of() -> None:
    (warning,) = load_settings({"TRUST_REMOTE_CODE": "1"}).warnings

    assert "code of the model's repository runs here" in warning


def test_switch_of_ours_warns_of_nothing() -> None:
    assert load_settings({"RATE_LIMIT": "1"}).warnings == ()


# Names without a reader


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("MAX_MODEL_LENGHT", "MAX_MODEL_LEN"),
        ("TENSOR_PARALELL_SIZE", "TENSOR_PARALLEL_SIZE"),
        ("DEFAULT_BATCHSIZE", "DEFAULT_BATCH_SIZE"),
        ("MAX_CONCURENCY", "MAX_CONCURRENCY"),
        ("VLLM_STARTUP_TIMOUT", "VLLM_STARTUP_TIMEOUT"),
        ("OPENAI_SERVED_MODEL_NAME_OVERIDE", "OPENAI_SERVED_MODEL_NAME_OVERRIDE"),
    ],
)
def test_typo_is_met_with_the_nearest_name(typo: str, meant: str) -> None:
    assert load_settings({typo: "8"}).warnings == (f"{typo} is unknown; did you mean {meant}? It is not used.",)


@pytest.mark.parametrize(
    "name",
    [
        "SSL_CERT_FILE",
        "HOSTNAME",
        "PATH",
        "LANG",
        "VLLM_SERVICE_HOST",
        "VLLM_PORT_8000_TCP_ADDR",
        "PYTHONPATH",
        "LIBRARY_PATH",
    ],
)
def test_names_of_other_programs_are_no_typos(name: str) -> None:
    assert load_settings({name: "x"}).warnings == ()
