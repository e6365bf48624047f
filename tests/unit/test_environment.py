from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from gptoss_bento import environment
from gptoss_bento.environment import RESERVED, Settings, load_settings
from gptoss_bento.errors import ConfigurationError


def test_nothing_said_means_defaults() -> None:
    settings = load_settings({"HOME": "/root", "PATH": "/bin"})

    assert settings == Settings(cache_dir=Path("~/.cache/gptoss-bento").expanduser())
    assert settings.startup_timeout_s == 1200


# Precedence: one test per edge


def test_model_name_wins_over_model() -> None:
    settings = load_settings({"MODEL_NAME": "a/b", "MODEL": "c/d"})

    assert settings.model_name == "a/b"
    assert settings.origins["model"] == "MODEL_NAME"


def test_model_alone_is_the_model() -> None:
    settings = load_settings({"MODEL": "c/d"})

    assert settings.model_name == "c/d"
    assert settings.origins["model"] == "MODEL"


def test_an_empty_model_name_gives_way_to_model() -> None:
    assert load_settings({"MODEL_NAME": "", "MODEL": "c/d"}).model_name == "c/d"


def test_model_revision_wins_over_revision() -> None:
    settings = load_settings({"MODEL_REVISION": "v1", "REVISION": "v2"})

    assert settings.model_revision == "v1"
    assert settings.origins["revision"] == "MODEL_REVISION"


def test_revision_alone_is_the_revision_and_no_engine_option() -> None:
    settings = load_settings({"REVISION": "v2"})

    assert (settings.model_revision, settings.origins["revision"]) == ("v2", "REVISION")
    assert settings.engine == {}


def test_the_served_name_override_wins_over_served_model_name() -> None:
    settings = load_settings({"OPENAI_SERVED_MODEL_NAME_OVERRIDE": "mine", "SERVED_MODEL_NAME": "other"})

    assert settings.served_model_names == ("mine",)
    assert settings.origins["served_model_name"] == "OPENAI_SERVED_MODEL_NAME_OVERRIDE"
    assert settings.engine == {}


def test_served_model_name_alone_gives_the_names() -> None:
    settings = load_settings({"SERVED_MODEL_NAME": "gpt-oss, mine,"})

    assert settings.served_model_names == ("gpt-oss", "mine")
    assert settings.origins["served_model_name"] == "SERVED_MODEL_NAME"


def test_tokenizer_name_wins_over_tokenizer() -> None:
    settings = load_settings({"TOKENIZER_NAME": "a/b", "TOKENIZER": "c/d"})

    assert (settings.tokenizer, settings.origins["tokenizer"]) == ("a/b", "TOKENIZER_NAME")
    assert settings.engine == {}


def test_tokenizer_alone_is_the_tokenizer() -> None:
    settings = load_settings({"TOKENIZER": "c/d"})

    assert (settings.tokenizer, settings.origins["tokenizer"]) == ("c/d", "TOKENIZER")


def test_the_own_cache_variable_wins_over_xdg() -> None:
    environ = {"GPTOSS_BENTO_CACHE": "/data/cache", "XDG_CACHE_HOME": "/xdg"}

    assert load_settings(environ).cache_dir == Path("/data/cache")


def test_xdg_wins_over_the_home_folder() -> None:
    assert load_settings({"XDG_CACHE_HOME": "/xdg"}).cache_dir == Path("/xdg/gptoss-bento")


# Values


@pytest.mark.parametrize("text", ["", " ", "none", "None", "NULL", "null", " null "])
def test_a_hub_forms_word_for_nothing_is_unset(text: str) -> None:
    names = ["MODEL_NAME", "PROFILE", "MAX_MODEL_LEN", "ENFORCE_EAGER", "SERVED_MODEL_NAME", "VLLM_STARTUP_TIMEOUT"]
    settings = load_settings({**dict.fromkeys(names, text), "HOME": "/root"})

    assert settings == load_settings({"HOME": "/root"})
    assert settings.origins == {}


@pytest.mark.parametrize("text", [",", " , ,", "[]"])
@pytest.mark.parametrize("variable", ["CUDAGRAPH_CAPTURE_SIZES", "MIDDLEWARE", "ALLOWED_MEDIA_DOMAINS"])
def test_a_list_without_items_is_unset(variable: str, text: str) -> None:
    settings = load_settings({variable: text})

    assert (settings.engine, settings.origins) == ({}, {})


def test_names_without_a_name_are_unset() -> None:
    settings = load_settings({"OPENAI_SERVED_MODEL_NAME_OVERRIDE": ",", "SERVED_MODEL_NAME": "mine"})

    assert settings.served_model_names == ("mine",)
    assert settings.origins["served_model_name"] == "SERVED_MODEL_NAME"
    assert load_settings({"OPENAI_SERVED_MODEL_NAME_OVERRIDE": " ,"}).origins == {}


def test_no_further_arguments_are_unset() -> None:
    settings = load_settings({"VLLM_EXTRA_ARGS": "null"})

    assert (settings.extra_arguments, settings.origins) == ((), {})


def test_none_is_a_value_where_it_is_a_choice() -> None:
    settings = load_settings({"FINGERPRINT_MODE": "none"})

    assert settings.engine == {"fingerprint_mode": "none"}


@pytest.mark.parametrize(("text", "value"), [("true", True), ("1", True), ("Yes", True), ("ON", True)])
@pytest.mark.parametrize("variable", ["ENFORCE_EAGER", "DISABLE_LOG_STATS"])
def test_booleans_that_are_true(variable: str, text: str, value: bool) -> None:
    assert load_settings({variable: text}).engine == {variable.lower(): value}


@pytest.mark.parametrize("text", ["false", "0", "No", "OFF", " False "])
def test_booleans_that_are_false_are_kept_as_said(text: str) -> None:
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
def test_an_engine_option_gets_its_type(variable: str, text: str, value: Any) -> None:
    settings = load_settings({variable: text})

    assert settings.engine == {variable.lower(): value}
    assert settings.origins == {variable.lower(): variable}


def test_further_arguments_are_split_as_a_shell_would() -> None:
    settings = load_settings({"VLLM_EXTRA_ARGS": """--seed 1 --chat-template "my file.jinja" """})

    assert settings.extra_arguments == ("--seed", "1", "--chat-template", "my file.jinja")


def test_the_startup_timeout_is_in_seconds() -> None:
    assert load_settings({"VLLM_STARTUP_TIMEOUT": "90"}).startup_timeout_s == 90


def test_the_vocabulary_folder_may_start_with_the_home_folder() -> None:
    assert load_settings({"TIKTOKEN_ENCODINGS_BASE": "~/v"}).vocabulary_dir == Path.home() / "v"


@pytest.mark.parametrize(("environ", "visible"), [({}, None), ({"CUDA_VISIBLE_DEVICES": ""}, "")])
def test_an_empty_list_of_visible_devices_differs_from_none_given(
    environ: Mapping[str, str], visible: str | None
) -> None:
    assert load_settings(environ).visible_devices == visible


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
def test_a_wrong_value_is_named_with_what_is_allowed(variable: str, text: str, allowed: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({variable: text})

    message = str(caught.value)
    assert variable in message
    assert repr(text) in message
    assert allowed in message


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
def test_a_problem_is_one_line_of_the_same_shape(variable: str, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({variable: text})

    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_unclosed_quote_in_the_further_arguments_is_refused_without_showing_them() -> None:
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
        ("--api_key=s3cret", "--api_key"),
        ("--seed 1 --hf-token s3cret --host ::", "--hf-token, --host"),
    ],
)
def test_what_this_server_decides_is_refused_in_the_further_arguments_without_its_value(text: str, flags: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"VLLM_EXTRA_ARGS": text})

    assert str(caught.value) == (
        f"VLLM_EXTRA_ARGS: its value is not allowed; allowed: vLLM options without {flags}, which this server decides"
    )


@pytest.mark.parametrize("text", ["--seed 1", "-O3", "--port-of-call x", "port", "--model-impl auto"])
def test_other_further_arguments_are_taken_as_they_are(text: str) -> None:
    assert load_settings({"VLLM_EXTRA_ARGS": text}).extra_arguments == tuple(text.split())


def test_all_problems_are_reported_at_once_one_a_line() -> None:
    environ = {"ENFORCE_EAGER": "maybe", "MAX_NUM_SEQS": "many", "DTYPE": "int3", "VLLM_STARTUP_TIMEOUT": "soon"}

    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ)

    lines = str(caught.value).splitlines()
    assert sorted(line.split(":")[0] for line in lines) == sorted(environ)


# What is not ours to take


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_reserved_name_never_becomes_an_engine_option(name: str) -> None:
    assert load_settings({name.upper(): "1"}).engine == {}


@pytest.mark.parametrize("variable", ["HF_TOKEN", "API_KEY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY"])
def test_secrets_do_not_show_in_the_settings(variable: str) -> None:
    assert "s3cret" not in repr(load_settings({variable: "s3cret"}))


def test_the_plan_can_see_the_whole_environment() -> None:
    assert load_settings({"OTHER": "x"}).process == {"OTHER": "x"}


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        load_settings({}).profile = "demo"  # type: ignore[misc]


# Variables read alone


@pytest.mark.parametrize(
    ("text", "name"),
    [("demo", "demo"), (" demo ", "demo"), ("", None), ("  ", None), ("null", None), (" None ", None)],
)
def test_the_selected_profile(text: str, name: str | None) -> None:
    assert environment.selected_profile({"PROFILE": text}) == name


def test_no_profile_is_selected_without_the_variable() -> None:
    assert environment.selected_profile({}) is None


@pytest.mark.parametrize("text", ["", " ", "null", "None", " none "])
def test_a_cache_folder_that_is_not_named_is_below_the_users(text: str) -> None:
    environ = {"GPTOSS_BENTO_CACHE": text, "XDG_CACHE_HOME": "/xdg"}

    assert environment.cache_dir(environ) == Path("/xdg/gptoss-bento")


@pytest.mark.parametrize(
    ("text", "ids"),
    [("", set()), ("abc", {"abc"}), ("a, b,,", {"a", "b"}), (",", set()), ("null", set()), (" None", set())],
)
def test_endpoint_ids(text: str, ids: set[str]) -> None:
    assert environment.endpoint_ids({"ENDPOINT_IDS": text}) == ids


@pytest.mark.parametrize("function", ["cache_dir", "selected_profile", "endpoint_ids", "load_settings"])
def test_the_process_environment_is_the_default(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"GPTOSS_BENTO_CACHE": "/c", "PROFILE": "demo", "ENDPOINT_IDS": "a"}
    monkeypatch.setattr(os, "environ", variables)
    read = getattr(environment, function)

    assert read() == read(variables)
    assert read() != read({"HOME": "/root"})


# The process environment


def test_the_exit_note_is_named_for_workers_and_not_created(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    assert environment.exit_note_path() is None

    path = environment.set_exit_note_path()

    assert environment.exit_note_path() == path
    assert not path.exists()


def test_two_supervisors_have_two_exit_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})

    assert environment.set_exit_note_path() != environment.set_exit_note_path()


# The plan already holds the operator's own values, so it wins over what stands here by accident.


def test_applied_variables_win_over_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"SAID": "operator", "OTHER": "operator"})

    environment.apply({"SAID": "plan", "PLANNED": "plan"})

    assert os.environ == {"SAID": "plan", "PLANNED": "plan", "OTHER": "operator"}


def test_extended_variables_win_over_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"SAID": "operator", "OTHER": "operator"})

    extended = environment.extended({"SAID": "plan", "PLANNED": "plan"})

    assert extended == {"SAID": "plan", "PLANNED": "plan", "OTHER": "operator"}
    assert os.environ == {"SAID": "operator", "OTHER": "operator"}


@pytest.mark.parametrize(
    ("variables", "keys"),
    [
        ({}, ()),
        ({"API_KEY": ""}, ()),
        ({"API_KEY": "null", "VLLM_API_KEY": "b"}, ("b",)),
        ({"API_KEY": "a"}, ("a",)),
        ({"API_KEY": "a, b"}, ("a", "b")),
        ({"VLLM_API_KEY": "b"}, ("b",)),
        ({"API_KEY": "a", "VLLM_API_KEY": "b"}, ("a",)),
    ],
)
def test_keys_are_taken_from_either_variable_and_hidden_from_vllm(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], keys: tuple[str, ...]
) -> None:
    for name in ("API_KEY", "VLLM_API_KEY"):
        monkeypatch.setenv(name, "")  # so that the end of the test restores it
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment.take_api_keys() == keys
    assert "VLLM_API_KEY" not in os.environ
    assert environment.take_api_keys() == keys  # a worker reads what its supervisor left
