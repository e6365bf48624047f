from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.config.extra_args import parse


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("--max-model-len 8192", {"max_model_len": 8192}),
        ("--max-model-len=8k", {"max_model_len": "8k"}),
        ("--max_model_len=8192", {"max_model_len": 8192}),
        ("-tp 2 --enforce-eager", {"tensor_parallel_size": 2, "enforce_eager": True}),
        ("--no-enable-prefix-caching", {"enable_prefix_caching": False}),
        ("--served-model-name a b", {"served_model_name": ["a", "b"]}),
        ("--middleware a.B --middleware c.D", {"middleware": ["a.B", "c.D"]}),
        ("--gpu-memory-util 0.5", {"gpu_memory_utilization": 0.5}),
        ("--max-model-len -1", {"max_model_len": -1}),
    ],
)
def test_words_become_values(text: str, values: dict[str, Any]) -> None:
    assert parse(text.split()) == (values, ())


@pytest.mark.parametrize("words", [["-O3"], ["--compilation-config.mode", "3"], ["-cc.mode=3"]])
def test_what_only_vllm_can_read_is_left_to_it(words: list[str]) -> None:
    assert parse(words) == ({}, tuple(words))


def test_json_is_one_word() -> None:
    assert parse(["--speculative-config", '{"method": "ngram"}']) == ({"speculative_config": {"method": "ngram"}}, ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--max-modle-len 1", "--max-modle-len is none, did you mean --max-model-len?"),
        ("--port 3000", "without --port, which this server decides"),
        ("--max-model-len", "--max-model-len with one value"),
        ("--max-model-len 1 2", "--max-model-len with one value"),
        ("--enforce-eager yes", "--enforce-eager without a value"),
        ("--max-num-seqs many", "--max-num-seqs with a whole number"),
        ("8192", "words that begin with an option"),
        ("--max", "--max is none"),
    ],
)
def test_a_wrong_word_is_refused_with_what_is_right(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        parse(text.split(), {"port"})
