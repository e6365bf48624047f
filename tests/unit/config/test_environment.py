from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gptoss_bento.config import environment
from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.profile import load_profile
from gptoss_bento.config.settings import Settings
from gptoss_bento.config.variables import RESERVED
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.hardware.probe import VisibleDevices
from gptoss_bento.planning.plan import Planned, make_plan
from tests.fakes import machine


def written(folder: Path, text: str) -> str:
    path = folder / "vllm.yaml"
    path.write_text(text)
    return str(path)


def test_nothing_said_means_defaults() -> None:
    settings = load_settings({"HOME": "/root", "PATH": "/bin"})

    assert settings == Settings(cache_dir=Path("~/.cache/gptoss-bento").expanduser())
    assert settings.server.vllm_startup_timeout == 1200


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

    assert settings.engine == {"seed": 1, "chat_template": "my file.jinja"}


def test_the_startup_timeout_is_in_seconds() -> None:
    assert load_settings({"VLLM_STARTUP_TIMEOUT": "90"}).server.vllm_startup_timeout == 90


def test_the_vocabulary_folder_may_start_with_the_home_folder() -> None:
    assert load_settings({"TIKTOKEN_ENCODINGS_BASE": "~/v"}).vocabulary_dir == Path.home() / "v"


@pytest.mark.parametrize(
    ("environ", "visible"),
    [
        ({}, VisibleDevices()),
        ({"CUDA_VISIBLE_DEVICES": ""}, VisibleDevices(cuda="")),
        ({"HIP_VISIBLE_DEVICES": "1", "ROCR_VISIBLE_DEVICES": "0,2"}, VisibleDevices(hip="1", rocr="0,2")),
    ],
)
def test_an_empty_list_of_visible_devices_differs_from_none_given(
    environ: Mapping[str, str], visible: VisibleDevices
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
        ("--api_key=s3cret", "--api-key"),
    ],
)
def test_what_this_server_decides_is_refused_in_the_further_arguments_without_its_value(text: str, flags: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"VLLM_EXTRA_ARGS": text})

    assert str(caught.value) == (
        f"VLLM_EXTRA_ARGS: its value is not allowed; allowed: vLLM options without {flags}, which this server decides"
    )


def test_all_that_is_wrong_in_the_further_arguments_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"without --hf-token.*without --host") as caught:
        load_settings({"VLLM_EXTRA_ARGS": "--seed 1 --hf-token s3cret --host ::"})

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("text", ["-O3", "--compilation-config.mode 3", "-cc.mode=3"])
def test_words_that_only_vllm_can_read_are_left_to_it(text: str) -> None:
    settings = load_settings({"VLLM_EXTRA_ARGS": text})

    assert settings.extra_arguments == tuple(text.split())
    assert settings.origins == {"extra_arguments": "VLLM_EXTRA_ARGS"}


def test_all_problems_are_reported_at_once_one_a_line() -> None:
    environ = {"ENFORCE_EAGER": "maybe", "MAX_NUM_SEQS": "many", "DTYPE": "int3", "VLLM_STARTUP_TIMEOUT": "soon"}

    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ)

    lines = str(caught.value).splitlines()
    assert sorted(line.split(":")[0] for line in lines) == sorted(environ)


# Precedence between the sources of an option


def test_further_arguments_win_over_another_name() -> None:
    settings = load_settings({"VLLM_EXTRA_ARGS": "--tokenizer=x/y", "TOKENIZER_NAME": "a/b", "TOKENIZER": "c/d"})

    assert (settings.tokenizer, settings.origins["tokenizer"]) == ("x/y", "VLLM_EXTRA_ARGS")


def test_further_arguments_win_over_the_plain_name() -> None:
    settings = load_settings({"VLLM_EXTRA_ARGS": "--max-model-len 4096", "MAX_MODEL_LEN": "8192"})

    assert (settings.engine["max_model_len"], settings.origins["max_model_len"]) == (4096, "VLLM_EXTRA_ARGS")


def test_the_plain_name_wins_over_the_file(tmp_path: Path) -> None:
    settings = load_settings({"VLLM_CONFIG_FILE": written(tmp_path, "max-model-len: 4096"), "MAX_MODEL_LEN": "8192"})

    assert (settings.engine["max_model_len"], settings.origins["max_model_len"]) == (8192, "MAX_MODEL_LEN")


def test_another_name_wins_over_the_file(tmp_path: Path) -> None:
    settings = load_settings({"VLLM_CONFIG_FILE": written(tmp_path, "model: a/b"), "MODEL_NAME": "c/d"})

    assert (settings.model_name, settings.origins["model"]) == ("c/d", "MODEL_NAME")


def test_the_file_alone_gives_options_the_model_and_its_names(tmp_path: Path) -> None:
    text = """
    model: a/b
    served-model-name: [one, two]
    max_num_seqs: 16
    enforce-eager: true
    compilation-config: {mode: 0}
    """

    settings = load_settings({"VLLM_CONFIG_FILE": written(tmp_path, textwrap.dedent(text))})

    assert settings.model_name == "a/b"
    assert settings.served_model_names == ("one", "two")
    assert settings.engine == {"max_num_seqs": 16, "enforce_eager": True, "compilation_config": {"mode": 0}}
    assert set(settings.origins.values()) == {"VLLM_CONFIG_FILE"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max-modle-len: 1", "VLLM_CONFIG_FILE: max-modle-len: vLLM has no such option; did you mean max_model_len"),
        ("max-model-len: banana", "VLLM_CONFIG_FILE: max-model-len: the value 'banana' is not allowed"),
        ("port: 8000", "VLLM_CONFIG_FILE: port: this server decides it"),
        ("[a, b]", "a YAML file with one `option: value` a line"),
        ("{", "a YAML file that can be read"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        load_settings({"VLLM_CONFIG_FILE": written(tmp_path, text)})


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"VLLM_CONFIG_FILE.*No such file"):
        load_settings({"VLLM_CONFIG_FILE": "/nowhere.yaml"})


def test_the_file_wins_over_profile_tier_and_the_defaults_for_gpt_oss(tmp_path: Path) -> None:
    text = "tool-call-parser: hermes\nmax-model-len: 512\ndtype: bfloat16\n"  # a default, the demo's, its tier's
    settings = load_settings({"VLLM_CONFIG_FILE": written(tmp_path, text)})

    arguments = make_plan(settings, load_profile("demo"), machine()).arguments

    assert {name: arguments[name] for name in ("tool_call_parser", "max_model_len", "dtype")} == {
        "tool_call_parser": Planned("hermes", "VLLM_CONFIG_FILE"),
        "max_model_len": Planned(512, "VLLM_CONFIG_FILE"),
        "dtype": Planned("bfloat16", "VLLM_CONFIG_FILE"),
    }


@pytest.mark.parametrize("inverted", ["DISABLE_LOG_REQUESTS", "DISABLE_LOGGING_REQUEST"])
def test_an_inverted_name_yields_to_the_straight_one(inverted: str) -> None:
    assert load_settings({inverted: "true"}).engine["enable_log_requests"] is False
    assert load_settings({inverted: "true", "ENABLE_LOG_REQUESTS": "true"}).engine["enable_log_requests"] is True


def test_the_inverted_switch_of_the_prefix_cache_yields_to_the_straight_one() -> None:
    assert load_settings({"NO_ENABLE_PREFIX_CACHING": "1"}).engine["enable_prefix_caching"] is False
    both = {"NO_ENABLE_PREFIX_CACHING": "1", "ENABLE_PREFIX_CACHING": "1"}
    assert load_settings(both).engine["enable_prefix_caching"] is True


def test_the_whole_speculative_configuration_wins_over_its_parts() -> None:
    whole = '{"method": "ngram", "num_speculative_tokens": 2}'

    settings = load_settings({"SPECULATIVE_CONFIG": whole, "NUM_SPECULATIVE_TOKENS": "5"})

    assert settings.engine["speculative_config"]["num_speculative_tokens"] == 2
    assert settings.warnings == ("SPECULATIVE_CONFIG is set, so NUM_SPECULATIVE_TOKENS is not used.",)


def test_the_parts_make_a_speculative_configuration() -> None:
    parts = {"SPECULATIVE_MODEL": "[ngram]", "NUM_SPECULATIVE_TOKENS": "3", "NGRAM_PROMPT_LOOKUP_MAX": "4"}

    settings = load_settings(parts)

    assert settings.engine["speculative_config"] == {
        "method": "ngram",
        "num_speculative_tokens": 3,
        "prompt_lookup_max": 4,
    }
    assert settings.origins["speculative_config"] == " and ".join(parts)


@pytest.mark.parametrize(
    ("documented", "other", "field"),
    [
        ("DEFAULT_MIN_BATCH_SIZE", "MIN_BATCH_SIZE", "default_min_batch_size"),
        ("DEFAULT_BATCH_SIZE_GROWTH_FACTOR", "BATCH_SIZE_GROWTH_FACTOR", "default_batch_size_growth_factor"),
    ],
)
def test_the_documented_name_wins_over_the_one_that_worker_code_read(documented: str, other: str, field: str) -> None:
    assert getattr(load_settings({documented: "2", other: "7"}).server, field) == 2
    assert getattr(load_settings({other: "7"}).server, field) == 7


# Values that mean something else than they say


@pytest.mark.parametrize(
    "variable",
    ["MAX_NUM_BATCHED_TOKENS", "MAX_PARALLEL_LOADING_WORKERS", "NUM_GPU_BLOCKS_OVERRIDE", "MAX_CPU_LORAS"],
)
def test_zero_is_unset_where_older_workers_sent_it(variable: str) -> None:
    assert load_settings({variable: "0"}).engine == {}


def test_the_slow_tokenizer_is_called_hf_now() -> None:
    settings = load_settings({"TOKENIZER_MODE": "slow"})

    assert settings.engine == {"tokenizer_mode": "hf"}
    assert "slow is called hf now" in settings.warnings[0]


def test_the_old_spelling_of_media_limits() -> None:
    assert load_settings({"LIMIT_MM_PER_PROMPT": "image=1,video=2"}).engine == {
        "limit_mm_per_prompt": {"image": 1, "video": 2}
    }


@pytest.mark.parametrize("text", ['[{"name": "a", "path": "/a"}]', '{"name": "a", "path": "/a"}'])
def test_lora_modules_are_a_list_or_one_object(text: str) -> None:
    assert load_settings({"LORA_MODULES": text}).engine == {"lora_modules": [{"name": "a", "path": "/a"}]}


@pytest.mark.parametrize(
    ("variable", "text", "allowed"),
    [
        ("SKIP_TOKENIZER_INIT", "true", "without a tokenizer no text route works"),
        ("QUANTIZATION", "bitsandbytes", "bitsandbytes is gone"),
        ("GPU_MEMORY_UTILIZATION", "1.5", "above 0 and at most 1"),
        ("TENSOR_PARALLEL_SIZE", "0", "at least 1"),
        ("VLLM_USE_DEEP_GEMM", "true", "0 or 1"),
        ("PYTHON_EXECUTION_BACKEND", "dangerously_use_uv", "would run Python that the model wrote"),
        ("NUM_SPECULATIVE_TOKENS", "none of it", "a whole number of at least 1"),
        ("MAX_CONCURRENCY", "0", "at least 1"),
        ("NATIVE_OUTPUT_FORMAT", "xml", "'tokens' or 'openai'"),
        ("GOAL", "latenzy", "latency, balanced, throughput, benchmark; did you mean 'latency'?"),
    ],
)
def test_a_value_that_cannot_work_is_refused(variable: str, text: str, allowed: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{variable}: the value '.*' is not allowed.*{re.escape(allowed)}"):
        load_settings({variable: text})


def test_an_address_that_is_none_is_not_used_because_shells_set_such() -> None:
    settings = load_settings({"HOST": "x86_64-conda-linux-gnu"})

    assert settings.server.host is None
    assert "HOST is not an IP address" in settings.warnings[0]


def test_code_of_a_models_repository_is_warned_of() -> None:
    (warning,) = load_settings({"TRUST_REMOTE_CODE": "1"}).warnings

    assert "code of the model's repository runs here" in warning


def test_a_switch_of_ours_warns_of_nothing() -> None:
    assert load_settings({"RATE_LIMIT": "1"}).warnings == ()


# Where models are kept


def test_base_path_gives_the_hub_cache_its_place() -> None:
    assert load_settings({"BASE_PATH": "/data"}).derived == {"HF_HOME": ("/data/huggingface-cache/hub", "BASE_PATH")}


@pytest.mark.parametrize("name", ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"])
def test_an_explicit_hub_cache_wins_over_base_path(name: str) -> None:
    assert load_settings({"BASE_PATH": "/data", name: "/mine"}).derived == {}


# Names that nobody reads


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
def test_a_typo_is_met_with_the_nearest_name(typo: str, meant: str) -> None:
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
    assert environment.server_settings({"PROFILE": text}).profile == name


def test_no_profile_is_selected_without_the_variable() -> None:
    assert environment.server_settings({}).profile is None


def test_what_is_wrong_does_not_hide_the_rest_from_the_service() -> None:
    settings = environment.server_settings({"PORT": "http", "PROFILE": "demo"})

    assert (settings.port, settings.profile) == (None, "demo")


@pytest.mark.parametrize("text", ["", " ", "null", "None", " none "])
def test_a_cache_folder_that_is_not_named_is_below_the_users(text: str) -> None:
    environ = {"GPTOSS_BENTO_CACHE": text, "XDG_CACHE_HOME": "/xdg"}

    assert environment.cache_dir(environ) == Path("/xdg/gptoss-bento")


@pytest.mark.parametrize(
    ("text", "ids"),
    [("", set()), ("abc", {"abc"}), ("a, b,,", {"a", "b"}), (",", set()), ("null", set()), (" None", set())],
)
def test_endpoint_ids(text: str, ids: set[str]) -> None:
    assert set(environment.server_settings({"ENDPOINT_IDS": text}).endpoint_ids) == ids


@pytest.mark.parametrize("function", ["cache_dir", "server_settings", "load_settings"])
def test_the_process_environment_is_the_default(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"GPTOSS_BENTO_CACHE": "/c", "PROFILE": "demo", "ENDPOINT_IDS": "a"}
    monkeypatch.setattr(os, "environ", variables)
    read = getattr(environment, function)

    assert read() == read(variables)
    assert read() != read({"HOME": "/root"})


def test_vllms_names_of_tls_become_bentomls() -> None:
    variables = {"SSL_CERTFILE": "/c.pem", "SSL_KEYFILE": "/k.pem", "SSL_CERT_REQS": "2", "SSL_CA_CERTS": "None"}

    assert environment.tls_settings(variables) == {"certfile": "/c.pem", "keyfile": "/k.pem", "cert_reqs": 2}
    assert environment.tls_settings({}) == {}


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


def test_the_port_of_worker_vllm_is_hidden_from_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"VLLM_PORT": "tcp://10.0.0.1:8000"})

    environment.apply({})

    assert os.environ == {}


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


def test_what_follows_from_the_settings_reaches_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"BASE_PATH": "/data"})

    environment.apply_derived(load_settings())

    assert os.environ["HF_HOME"] == "/data/huggingface-cache/hub"


def test_the_folder_for_metrics_is_the_operators_or_none(tmp_path: Path) -> None:
    (tmp_path / "gauge_livesum_1.db").touch()

    assert environment.metrics_folder({}) is None
    assert environment.metrics_folder({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}) == tmp_path
    assert environment.metrics_folder({"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "new")}) == tmp_path / "new"


@pytest.mark.parametrize("name", ["", "thesis.txt"])
def test_a_folder_that_holds_anything_else_is_not_emptied(tmp_path: Path, name: str) -> None:
    (tmp_path / "thesis.txt").touch()
    folder = tmp_path if name == "" else tmp_path / name
    with pytest.raises(ConfigurationError, match=r"PROMETHEUS_MULTIPROC_DIR must be .*, got .*(thesis.txt|a file)"):
        environment.metrics_folder({"PROMETHEUS_MULTIPROC_DIR": str(folder)})


ALICE = "alice: {key: s3cret, jobs: 2}"


def test_keys_come_from_variables_and_from_a_file_together(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text("bob: {key: other}")

    sources = environment.key_sources({"API_KEY": "a,b", "API_KEYS": ALICE, "API_KEYS_FILE": str(file)})

    assert [key.name for key in sources.fixed] == ["key-1", "key-2", "alice"]
    assert (sources.file, sources.problems) == (file, ())
    assert environment.key_sources({"API_KEY": "", "API_KEYS_FILE": "none"}) == environment.KeySources()


def test_vllms_own_variable_is_the_second_name_of_the_list_alone() -> None:
    assert [key.name for key in environment.key_sources({"VLLM_API_KEY": "b", "API_KEYS": ALICE}).fixed] == [
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
def test_wrong_keys_stop_the_start_and_are_not_shown(variables: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(problem)) as caught:
        load_settings(variables)

    assert "s3cret" not in str(caught.value)


def test_settings_show_no_key() -> None:
    settings = load_settings({"API_KEY": "s3cret-1", "API_KEYS": "alice: {key: s3cret-2}"})

    assert "s3cret" not in repr(settings)
    assert "s3cret" not in settings.server.model_dump_json()


# A process that begins with the variables of another one


def test_variables_become_those_of_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"SAME": "1", "OTHER": "here", "GONE": "1"})
    kept = environment.snapshot()
    assert kept == os.environ
    assert kept is not os.environ

    environment.restore({"SAME": "1", "OTHER": "there", "NEW": ""})
    assert os.environ == {"SAME": "1", "OTHER": "there", "NEW": ""}

    environment.restore(kept)
    assert os.environ == kept


def test_variables_that_stay_are_not_set_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting one moves it away from where the process began, and with all of them moved `ps` shows no title."""
    written: list[str] = []

    class Written(dict[str, str]):
        def update(self, variables: dict[str, str]) -> None:  # type: ignore[override]
            written.extend(variables)
            super().update(variables)

    monkeypatch.setattr(os, "environ", Written({"SAME": "1", "OTHER": "here"}))
    environment.restore({"SAME": "1", "OTHER": "there", "NEW": "1"})

    assert written == ["OTHER", "NEW"]


@pytest.mark.parametrize("before", [{}, {"PYTHONPATH": "/operators"}])
def test_import_path_is_that_of_this_process_only_meanwhile(
    monkeypatch: pytest.MonkeyPatch, before: dict[str, str]
) -> None:
    monkeypatch.setattr(os, "environ", dict(before))

    with suppress(ValueError), environment.with_import_path(["", "/here", "/there"]):
        assert os.environ["PYTHONPATH"] == "/here:/there", "empty is the folder in which it starts"
        raise ValueError("no server")

    assert os.environ == before


def test_record_of_compilations_goes_with_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    assert environment.compilations_file() is None

    note = environment.set_exit_note_path()
    record = environment.compilations_file()
    assert record == note.with_suffix(".compilations"), "beside the note, with which the supervisor removes it"


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
def test_what_is_compiled_and_when_can_be_said(
    environ: dict[str, str], warmup: bool | None, folder: Path | None
) -> None:
    server = load_settings(environ).server

    assert (server.warmup, server.kernel_cache_dir) == (warmup, folder)


def test_warm_up_is_said_in_words_for_yes_and_no() -> None:
    with pytest.raises(ConfigurationError, match="WARMUP"):
        load_settings({"WARMUP": "maybe"})
