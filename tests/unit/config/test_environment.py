from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gptoss_bento.config import environment
from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.settings import Settings
from gptoss_bento.config.variables import RESERVED
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.hardware.probe import VisibleDevices


def test_defaults_hold_without_variables() -> None:
    settings = load_settings({"HOME": "/root", "PATH": "/bin"})

    assert settings == Settings(cache_dir=Path("~/.cache/gptoss-bento").expanduser())
    assert settings.server.vllm_startup_timeout == 1200


# Values


@pytest.mark.parametrize("text", ["", " ", "none", "None", "NULL", "null", " null "])
def test_unset_is_also_the_hub_forms_word_for_nothing(text: str) -> None:
    names = ["MODEL_NAME", "PROFILE", "MAX_MODEL_LEN", "ENFORCE_EAGER", "SERVED_MODEL_NAME", "VLLM_STARTUP_TIMEOUT"]
    settings = load_settings({**dict.fromkeys(names, text), "HOME": "/root"})

    assert settings == load_settings({"HOME": "/root"})
    assert settings.origins == {}


@pytest.mark.parametrize("text", [",", " , ,", "[]"])
@pytest.mark.parametrize("variable", ["CUDAGRAPH_CAPTURE_SIZES", "MIDDLEWARE", "ALLOWED_MEDIA_DOMAINS"])
def test_list_without_items_is_unset(variable: str, text: str) -> None:
    settings = load_settings({variable: text})

    assert (settings.engine, settings.origins) == ({}, {})


def test_names_without_a_name_are_unset() -> None:
    settings = load_settings({"OPENAI_SERVED_MODEL_NAME_OVERRIDE": ",", "SERVED_MODEL_NAME": "mine"})

    assert settings.served_model_names == ("mine",)
    assert settings.origins["served_model_name"] == "SERVED_MODEL_NAME"
    assert load_settings({"OPENAI_SERVED_MODEL_NAME_OVERRIDE": " ,"}).origins == {}


def test_extra_args_that_are_empty_are_unset() -> None:
    settings = load_settings({"VLLM_EXTRA_ARGS": "null"})

    assert settings.origins == {}


def test_none_is_a_value_where_it_is_a_choice() -> None:
    settings = load_settings({"FINGERPRINT_MODE": "none"})

    assert settings.engine == {"fingerprint_mode": "none"}


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("Yes", True), ("ON", True)])
@pytest.mark.parametrize("variable", ["ENFORCE_EAGER", "DISABLE_LOG_STATS"])
def test_booleans_that_are_true(variable: str, text: str, value: bool) -> None:
    assert load_settings({variable: text}).engine == {variable.lower(): value}


@pytest.mark.parametrize("text", ["false", "0", "No", "OFF", " False "])
def test_booleans_that_are_false_are_kept_as_set(text: str) -> None:
    settings = load_settings({"ENABLE_PREFIX_CACHING": text})

    assert settings.engine == {"enable_prefix_caching": False}
    assert settings.origins == {"enable_prefix_caching": "ENABLE_PREFIX_CACHING"}


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("MAX_NUM_SEQS", "16", 16),
        ("GPU_MEMORY_UTILIZATION", "0.9", 0.9),
        ("DTYPE", "bfloat16", "bfloat16"),
        ("DTYPE", "BFloat16", "bfloat16"),
        ("MAX_MODEL_LEN", "4096", 4096),
        ("MAX_MODEL_LEN", "4k", "4k"),
        ("MAX_MODEL_LEN", "auto", "auto"),
        ("MAX_LORA_RANK", "16", 16),
        ("MIDDLEWARE", "a.b,c.d", ["a.b", "c.d"]),
        ("CUDAGRAPH_CAPTURE_SIZES", "1, 2,4", [1, 2, 4]),
        ("ALLOWED_MEDIA_DOMAINS", "a.org,b.org", ["a.org", "b.org"]),
        ("COMPILATION_CONFIG", '{"mode": 3}', {"mode": 3}),
    ],
)
def test_engine_option_gets_its_type(variable: str, text: str, value: Any) -> None:
    settings = load_settings({variable: text})

    assert settings.engine == {variable.lower(): value}
    assert settings.origins == {variable.lower(): variable}


def test_extra_args_are_split_as_a_shell_would() -> None:
    settings = load_settings({"VLLM_EXTRA_ARGS": """--seed 1 --chat-template "my file.jinja" """})

    assert settings.engine == {"seed": 1, "chat_template": "my file.jinja"}


def test_startup_timeout_is_in_seconds() -> None:
    assert load_settings({"VLLM_STARTUP_TIMEOUT": "90"}).server.vllm_startup_timeout == 90


def test_vocabulary_folder_may_start_with_the_home_folder() -> None:
    assert load_settings({"TIKTOKEN_ENCODINGS_BASE": "~/v"}).vocabulary_dir == Path.home() / "v"


@pytest.mark.parametrize(
    ("environ", "visible"),
    [
        ({}, VisibleDevices()),
        ({"CUDA_VISIBLE_DEVICES": ""}, VisibleDevices(cuda="")),
        ({"HIP_VISIBLE_DEVICES": "1", "ROCR_VISIBLE_DEVICES": "0,2"}, VisibleDevices(hip="1", rocr="0,2")),
    ],
)
def test_visible_devices_that_are_an_empty_list_differ_from_none(
    environ: Mapping[str, str], visible: VisibleDevices
) -> None:
    assert load_settings(environ).visible_devices == visible


# Values that mean something else than they say


@pytest.mark.parametrize(
    "variable",
    ["MAX_NUM_BATCHED_TOKENS", "MAX_PARALLEL_LOADING_WORKERS", "NUM_GPU_BLOCKS_OVERRIDE", "MAX_CPU_LORAS"],
)
def test_zero_is_unset_where_older_workers_sent_it(variable: str) -> None:
    assert load_settings({variable: "0"}).engine == {}


def test_slow_tokenizer_is_called_hf_now() -> None:
    settings = load_settings({"TOKENIZER_MODE": "slow"})

    assert settings.engine == {"tokenizer_mode": "hf"}
    assert "slow is called hf now" in settings.warnings[0]


def test_old_spelling_of_media_limits() -> None:
    assert load_settings({"LIMIT_MM_PER_PROMPT": "image=1,video=2"}).engine == {
        "limit_mm_per_prompt": {"image": 1, "video": 2}
    }


@pytest.mark.parametrize("text", ['[{"name": "a", "path": "/a"}]', '{"name": "a", "path": "/a"}'])
def test_lora_modules_are_a_list_or_one_object(text: str) -> None:
    assert load_settings({"LORA_MODULES": text}).engine == {"lora_modules": [{"name": "a", "path": "/a"}]}


# What is not ours to take


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_reserved_name_never_becomes_an_engine_option(name: str) -> None:
    assert load_settings({name.upper(): "1"}).engine == {}


@pytest.mark.parametrize("variable", ["HF_TOKEN", "API_KEY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY"])
def test_secrets_do_not_show_in_the_settings(variable: str) -> None:
    assert "s3cret" not in repr(load_settings({variable: "s3cret"}))


def test_plan_can_see_the_whole_environment() -> None:
    assert load_settings({"OTHER": "x"}).process == {"OTHER": "x"}


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        load_settings({}).profile = "demo"  # type: ignore[misc]


# Variables read alone


@pytest.mark.parametrize(
    ("text", "name"),
    [("demo", "demo"), (" demo ", "demo"), ("", None), ("  ", None), ("null", None), (" None ", None)],
)
def test_selected_profile(text: str, name: str | None) -> None:
    assert environment.server_settings({"PROFILE": text}).profile == name


def test_profile_is_unset_without_the_variable() -> None:
    assert environment.server_settings({}).profile is None


def test_problems_do_not_hide_the_other_settings_from_the_service() -> None:
    settings = environment.server_settings({"PORT": "http", "PROFILE": "demo"})

    assert (settings.port, settings.profile) == (None, "demo")


@pytest.mark.parametrize("text", ["", " ", "null", "None", " none "])
def test_cache_folder_that_is_not_named_is_below_the_users(text: str) -> None:
    environ = {"GPTOSS_BENTO_CACHE": text, "XDG_CACHE_HOME": "/xdg"}

    assert environment.cache_dir(environ) == Path("/xdg/gptoss-bento")


@pytest.mark.parametrize(
    ("text", "ids"),
    [("", set()), ("abc", {"abc"}), ("a, b,,", {"a", "b"}), (",", set()), ("null", set()), (" None", set())],
)
def test_endpoint_ids(text: str, ids: set[str]) -> None:
    assert set(environment.server_settings({"ENDPOINT_IDS": text}).endpoint_ids) == ids


@pytest.mark.parametrize("function", ["cache_dir", "server_settings", "load_settings"])
def test_process_environment_is_the_default(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"GPTOSS_BENTO_CACHE": "/c", "PROFILE": "demo", "ENDPOINT_IDS": "a"}
    monkeypatch.setattr(os, "environ", variables)
    read = getattr(environment, function)

    assert read() == read(variables)
    assert read() != read({"HOME": "/root"})


def test_vllms_names_of_tls_become_bentomls() -> None:
    variables = {"SSL_CERTFILE": "/c.pem", "SSL_KEYFILE": "/k.pem", "SSL_CERT_REQS": "2", "SSL_CA_CERTS": "None"}

    assert environment.tls_settings(variables) == {"certfile": "/c.pem", "keyfile": "/k.pem", "cert_reqs": 2}
    assert environment.tls_settings({}) == {}


# The start


@pytest.mark.parametrize(
    ("environ", "warmup", "folder"),
    [
        ({}, None, None),
        ({"WARMUP": "off"}, False, None),
        ({"WARMUP": "1", "KERNEL_CACHE_DIR": "/k"}, True, Path("/k")),
        ({"WARMUP": "none", "KERNEL_CACHE_DIR": "null"}, None, None),
        ({"KERNEL_CACHE_DIR": "~/kernels"}, None, Path.home() / "kernels"),
    ],
)
def test_compilation_variables_are_settings(environ: dict[str, str], warmup: bool | None, folder: Path | None) -> None:
    server = load_settings(environ).server

    assert (server.warmup, server.kernel_cache_dir) == (warmup, folder)


def test_warm_up_takes_words_for_yes_and_no() -> None:
    with pytest.raises(ConfigurationError, match="WARMUP"):
        load_settings({"WARMUP": "maybe"})
