from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.profile import load_profile
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.planning.plan import Planned
from gptoss_bento.planning.planner import make_plan
from tests.fakes import machine


def written(folder: Path, text: str) -> str:
    path = folder / "vllm.yaml"
    path.write_text(text)
    return str(path)


# Precedence: one test per edge


def test_model_name_wins_over_model() -> None:
    settings = load_settings({"MODEL_NAME": "a/b", "MODEL": "c/d"})

    assert settings.model_name == "a/b"
    assert settings.origins["model"] == "MODEL_NAME"


def test_model_alone_is_the_model() -> None:
    settings = load_settings({"MODEL": "c/d"})

    assert settings.model_name == "c/d"
    assert settings.origins["model"] == "MODEL"


def test_model_is_used_if_model_name_is_empty() -> None:
    assert load_settings({"MODEL_NAME": "", "MODEL": "c/d"}).model_name == "c/d"


def test_model_revision_wins_over_revision() -> None:
    settings = load_settings({"MODEL_REVISION": "v1", "REVISION": "v2"})

    assert settings.model_revision == "v1"
    assert settings.origins["revision"] == "MODEL_REVISION"


def test_revision_alone_is_the_revision_and_no_engine_option() -> None:
    settings = load_settings({"REVISION": "v2"})

    assert (settings.model_revision, settings.origins["revision"]) == ("v2", "REVISION")
    assert settings.engine == {}


def test_served_name_override_wins_over_served_model_name() -> None:
    settings = load_settings({"OPENAI_SERVED_MODEL_NAME_OVERRIDE": "mine", "SERVED_MODEL_NAME": "other"})

    assert settings.served_model_names == ("mine",)
    assert settings.origins["served_model_name"] == "OPENAI_SERVED_MODEL_NAME_OVERRIDE"
    assert settings.engine == {}


def test_served_model_name_alone_sets_the_names() -> None:
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


def test_cache_variable_of_ours_wins_over_xdg() -> None:
    environ = {"GPTOSS_BENTO_CACHE": "/data/cache", "XDG_CACHE_HOME": "/xdg"}

    assert load_settings(environ).cache_dir == Path("/data/cache")


def test_xdg_wins_over_the_home_folder() -> None:
    assert load_settings({"XDG_CACHE_HOME": "/xdg"}).cache_dir == Path("/xdg/gptoss-bento")


# Precedence between the sources of an option


def test_extra_args_win_over_another_name() -> None:
    settings = load_settings({"VLLM_EXTRA_ARGS": "--tokenizer=x/y", "TOKENIZER_NAME": "a/b", "TOKENIZER": "c/d"})

    assert (settings.tokenizer, settings.origins["tokenizer"]) == ("x/y", "VLLM_EXTRA_ARGS")


def test_extra_args_win_over_the_plain_name() -> None:
    settings = load_settings({"VLLM_EXTRA_ARGS": "--max-model-len 4096", "MAX_MODEL_LEN": "8192"})

    assert (settings.engine["max_model_len"], settings.origins["max_model_len"]) == (4096, "VLLM_EXTRA_ARGS")


def test_plain_name_wins_over_the_file(tmp_path: Path) -> None:
    settings = load_settings({"VLLM_CONFIG_FILE": written(tmp_path, "max-model-len: 4096"), "MAX_MODEL_LEN": "8192"})

    assert (settings.engine["max_model_len"], settings.origins["max_model_len"]) == (8192, "MAX_MODEL_LEN")


def test_alias_wins_over_the_file(tmp_path: Path) -> None:
    settings = load_settings({"VLLM_CONFIG_FILE": written(tmp_path, "model: a/b"), "MODEL_NAME": "c/d"})

    assert (settings.model_name, settings.origins["model"]) == ("c/d", "MODEL_NAME")


def test_file_alone_sets_options_the_model_and_its_names(tmp_path: Path) -> None:
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
def test_wrong_file_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        load_settings({"VLLM_CONFIG_FILE": written(tmp_path, text)})


def test_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"VLLM_CONFIG_FILE.*No such file"):
        load_settings({"VLLM_CONFIG_FILE": "/nowhere.yaml"})


def test_file_wins_over_profile_tier_and_the_defaults_for_gpt_oss(tmp_path: Path) -> None:
    text = "tool-call-parser: hermes\nmax-model-len: 512\ndtype: bfloat16\n"  # a default, the demo's, its tier's
    settings = load_settings({"VLLM_CONFIG_FILE": written(tmp_path, text)})

    arguments = make_plan(settings, load_profile("demo"), machine()).arguments

    assert {name: arguments[name] for name in ("tool_call_parser", "max_model_len", "dtype")} == {
        "tool_call_parser": Planned("hermes", "VLLM_CONFIG_FILE"),
        "max_model_len": Planned(512, "VLLM_CONFIG_FILE"),
        "dtype": Planned("bfloat16", "VLLM_CONFIG_FILE"),
    }


@pytest.mark.parametrize("inverted", ["DISABLE_LOG_REQUESTS", "DISABLE_LOGGING_REQUEST"])
def test_inverted_name_yields_to_the_straight_one(inverted: str) -> None:
    assert load_settings({inverted: "true"}).engine["enable_log_requests"] is False
    assert load_settings({inverted: "true", "ENABLE_LOG_REQUESTS": "true"}).engine["enable_log_requests"] is True


def test_inverted_switch_of_the_prefix_cache_yields_to_the_straight_one() -> None:
    assert load_settings({"NO_ENABLE_PREFIX_CACHING": "1"}).engine["enable_prefix_caching"] is False
    both = {"NO_ENABLE_PREFIX_CACHING": "1", "ENABLE_PREFIX_CACHING": "1"}
    assert load_settings(both).engine["enable_prefix_caching"] is True


def test_whole_speculative_configuration_wins_over_its_parts() -> None:
    whole = '{"method": "ngram", "num_speculative_tokens": 2}'

    settings = load_settings({"SPECULATIVE_CONFIG": whole, "NUM_SPECULATIVE_TOKENS": "5"})

    assert settings.engine["speculative_config"]["num_speculative_tokens"] == 2
    assert settings.warnings == ("SPECULATIVE_CONFIG is set, so NUM_SPECULATIVE_TOKENS is not used.",)


def test_parts_make_a_speculative_configuration() -> None:
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
def test_documented_name_wins_over_the_one_that_worker_code_read(documented: str, other: str, field: str) -> None:
    assert getattr(load_settings({documented: "2", other: "7"}).server, field) == 2
    assert getattr(load_settings({other: "7"}).server, field) == 7
