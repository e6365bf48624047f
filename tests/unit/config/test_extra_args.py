from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.config.extra_args import parse
from gptoss_bento.config.vllm_options import Option, known_options

_OPTIONS = list(known_options().values())
_FLAGS = st.sampled_from([(option, flag) for option in _OPTIONS for flag in option.flags])
_STRUCTURED = st.sampled_from(["compilation_config", "hf_overrides", "kernel_config", "speculative_config"])
_KEYS = st.text("abcxyz_", min_size=1, max_size=5)
_JSON = st.none() | st.booleans() | st.integers() | st.text("abc .=", max_size=5) | st.lists(st.integers(), max_size=3)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("--max-model-len 8192", {"max_model_len": 8192}),
        ("--max-model-len=8k", {"max_model_len": "8k"}),
        ("--max_model_len=8192", {"max_model_len": 8192}),
        ("-tp 2 --enforce-eager", {"tensor_parallel_size": 2, "enforce_eager": True}),
        ("--numa-bind", {"numa_bind": True}),
        ("--numa_bind", {"numa_bind": True}),
        ("--no-numa_bind", {"numa_bind": False}),
        ("--numa_bind --no_numa_bind", {"numa_bind": False}),
        ("--no-enable-prefix-caching", {"enable_prefix_caching": False}),
        ("--served-model-name a b", {"served_model_name": ["a", "b"]}),
        ("--middleware a.B --middleware c.D", {"middleware": ["a.B", "c.D"]}),
        ("--gpu-memory-util 0.5", {"gpu_memory_utilization": 0.5}),
        ("--max-model-len -1", {"max_model_len": -1}),
        ("--seed 1 --seed 2", {"seed": 2}),
    ],
)
def test_arguments_become_values(text: str, values: dict[str, Any]) -> None:
    assert parse(text.split()) == values


@pytest.mark.parametrize("text", ["-O3", "-O=3", "-O 3", "--optimization-level 3", "--optimization_level=3"])
def test_optimization_level_is_read_as_compilers_take_it(text: str) -> None:
    assert parse(text.split()) == {"optimization_level": "3"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("--compilation-config.mode 3", {"mode": 3}),
        ("--compilation_config.mode=3", {"mode": 3}),
        ("-cc.mode=3", {"mode": 3}),
        ("--compilation-config.pass_config.fuse_norm_quant true", {"pass_config": {"fuse_norm_quant": True}}),
        ("-cc.mode 3 --compilation-config.a.b 1 -cc.a.c x", {"mode": 3, "a": {"b": 1, "c": "x"}}),
        ('-cc.a.b 1 -cc.a={"c":2}', {"a": {"b": 1, "c": 2}}),
        ("-cc.mode 2 -cc.mode 3", {"mode": 3}),
        ("-cc.sizes+ 1,2 -cc.sizes+=3", {"sizes": ["1", "2", "3"]}),
        ("-cc.size 4k", {"size": 4000}),
        ("-cc.size 4K", {"size": 4096}),
        ("-cc.size 1.5K", {"size": "1.5K"}),
        ("-cc.size 25.6k", {"size": 25600}),
        ("-cc.size 007", {"size": 7}),
        ("-cc.size=+5", {"size": 5}),
        ("-cc.size 1_000", {"size": 1000}),
        ("-cc.size=", {"size": ""}),
        ("-cc.path a=b.c", {"path": "a=b.c"}),
        ("-cc.size -1", {"size": -1}),
    ],
)
def test_entries_become_one_structured_value(text: str, value: dict[str, Any]) -> None:
    assert parse(text.split()) == {"compilation_config": value}


def test_json_is_one_argument() -> None:
    assert parse(["--speculative-config", '{"method": "ngram"}']) == {"speculative_config": {"method": "ngram"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--max-modle-len 1", "--max-modle-len is none, did you mean --max-model-len?"),
        ("--port 3000", "without --port, which this server decides"),
        ("--port.x 3000", "without --port, which this server decides"),
        ("--max-model-len", "--max-model-len with one value"),
        ("--max-model-len 1 2", "--max-model-len with one value"),
        ("--enforce-eager yes", "--enforce-eager without a value"),
        ("--max-num-seqs many", "--max-num-seqs with a whole number"),
        ("8192", "arguments that start with an option"),
        ("--max", "--max is none"),
        ("-O --seed 1", "--optimization-level with one value"),
        ("--compilation-confg.mode 3", "--compilation-confg is none, did you mean --compilation-config?"),
        ("--max-model-len.x 3", "--max-model-len without entries"),
        ("--enforce-eager.x 3", "--enforce-eager without entries"),
        ("--compilation-config.a.b --seed 1", "--compilation-config.a.b with one value"),
        ("-cc.a+ 1 2", r"-cc.a\+ with one value"),
        ("-cc.mode 3 -cc {}", "--compilation-config as one value or entry by entry, not both"),
    ],
)
def test_argument_that_is_wrong_is_refused_with_what_is_right(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        parse(text.split(), {"port"})


def test_problems_are_named_together_without_the_values() -> None:
    with pytest.raises(ValueError, match=r"--api-key.*--max-num-seqs.*--seed without entries") as caught:
        parse(["--api-key", "s3cret", "--max-num-seqs", "s3cret", "--seed.a", "s3cret"], {"api_key"})

    assert "s3cret" not in str(caught.value)


# However it is spelled


def _spelled(flag: str) -> list[str]:
    """Of long flags also the one with underscores; vLLM reads short ones as they are."""
    return [flag, f"--{flag[2:].replace('-', '_')}"] if flag.startswith("--") else [flag]


def _example(option: Option) -> str:
    if option.choices:
        return option.choices[0]
    return {"int": "3", "float": "0.5", "count": "4k", "json": '{"a": "b=c.d"}', "text": "a_b-c.d=e"}[option.kind]


@given(_FLAGS)
def test_spelling_of_a_flag_changes_nothing(pair: tuple[Option, str]) -> None:
    option, flag = pair
    for spelled in _spelled(flag):
        if option.kind in ("switch", "flag"):
            assert parse([spelled]) == {option.name: True}
            continue
        text = _example(option)
        value = option.parse_arguments([text]) if option.many else option.parse(text)
        assert parse([spelled, text]) == parse([f"{spelled}={text}"]) == {option.name: value}


@given(_STRUCTURED, st.lists(_KEYS, min_size=1, max_size=3), _JSON)
def test_entry_is_the_structured_value_of_the_same_content(name: str, path: list[str], value: Any) -> None:
    option, nested = known_options()[name], value
    for key in reversed(path):
        nested = {key: nested}
    entry = ".".join((option.flag, *path))

    for words in ([entry, json.dumps(value)], [f"{entry}={json.dumps(value)}"]):
        assert parse(words) == parse([option.flag, json.dumps(nested)])


@given(st.dictionaries(_STRUCTURED, st.dictionaries(_KEYS, _JSON, min_size=1, max_size=3), max_size=3))
def test_words_that_vllm_would_get_for_the_values_are_read_as_the_values(values: dict[str, Any]) -> None:
    words = [word for name, value in values.items() for word in known_options()[name].argv(value)]

    assert parse(words) == values


@given(
    st.lists(st.sampled_from(["--seed", "-cc.a", "-cc", "-O", "-O3", "--no-", "-", "=", ".", "{}", "+", "1", "-x."]))
)
def test_nonsense_is_read_or_refused_in_words(words: list[str]) -> None:
    with suppress(ValueError):
        assert parse(words).keys() <= known_options().keys()
