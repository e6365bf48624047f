"""`sampling_params`: what passes, what is refused with which words, and what the engine gets."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.jobs.sampling import engine_parameters


def parameters(given: dict[str, Any], *, chat: bool = False, stream: bool = False) -> dict[str, Any]:
    return engine_parameters(given, chat=chat, stream=stream, default_max_tokens=100)


def refusal(given: dict[str, Any], *, chat: bool = False, stream: bool = False) -> str:
    with pytest.raises(ValueError, match=r".") as caught:
        parameters(given, chat=chat, stream=stream)
    return str(caught.value)


@pytest.mark.parametrize(("chat", "name"), [(True, "repetition_detection"), (False, "structured_outputs")])
def test_large_integer_within_an_object_is_refused(chat: bool, name: str) -> None:
    found = refusal({name: {"json": [{"maximum": 2**70}]}}, chat=chat)

    assert found == f"{name}.json[0].maximum must be a number of at most 64 bits, got {2**70}."


def test_max_tokens_has_a_default() -> None:
    assert parameters({}) == {"max_tokens": 100}
    assert parameters({"max_tokens": None}) == {"max_tokens": 100}
    assert parameters({"max_completion_tokens": 7}, chat=True) == {"max_completion_tokens": 7}


@pytest.mark.parametrize(
    "given",
    [
        {"n": 3, "temperature": 0.5},
        {"presence_penalty": -2, "frequency_penalty": 2.0},
        {"repetition_penalty": 0.01},
        {"temperature": 0, "n": 1},
        {"temperature": 2, "top_p": 1, "min_p": 0},
        {"top_k": 0},
        {"top_k": -1},
        {"top_k": 40},
        {"stop": "x"},
        {"stop": []},
        {"stop": ["a", "b"], "stop_token_ids": [0, 200002], "include_stop_str_in_output": True},
        {"ignore_eos": True, "min_tokens": 5, "max_tokens": 5},
        {"skip_special_tokens": False, "spaces_between_special_tokens": False},
        {"truncate_prompt_tokens": -1},
        {"seed": -1},
        {"seed": -(2**63)},
        {"logprobs": 0, "prompt_logprobs": 20},
        {"logit_bias": {"17": -100, "18": 2.5}},
        {"bad_words": ["x"], "allowed_token_ids": [1], "structured_outputs": {"json": {}}},
        {"thinking_token_budget": -1, "echo": True, "user": "me"},
        {"use_beam_search": True, "n": 2, "temperature": 0, "length_penalty": 0.7},
    ],
)
def test_good_values_reach_the_engine_as_they_are(given: dict[str, Any]) -> None:
    assert parameters(given) == {"max_tokens": 100, **given}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"n": 0}, "n must be an integer of at least 1, got 0."),
        ({"n": True}, "n must be an integer of at least 1, got true."),
        ({"n": "2"}, 'n must be an integer of at least 1, got "2".'),
        ({"n": 1.5}, "n must be an integer of at least 1, got 1.5."),
        ({"temperature": -1}, "temperature must be a number from 0 to 2, got -1."),
        ({"temperature": 2.1}, "temperature must be a number from 0 to 2, got 2.1."),
        ({"temperature": float("inf")}, "temperature must be a number from 0 to 2, got Infinity."),
        ({"top_p": 0}, "top_p must be a number above 0 and up to 1, got 0."),
        ({"top_k": -2}, "top_k must be an integer of at least 1, or 0 or -1 for off, got -2."),
        ({"min_p": 1.1}, "min_p must be a number from 0 to 1, got 1.1."),
        ({"repetition_penalty": 0}, "repetition_penalty must be a number above 0, got 0."),
        ({"presence_penalty": 3}, "presence_penalty must be a number from -2 to 2, got 3."),
        ({"stop": ""}, 'stop must be a string or a list of strings, none of them empty, got "".'),
        ({"stop": [""]}, 'stop must be a string or a list of strings, none of them empty, got [""].'),
        ({"stop_token_ids": [-1]}, "stop_token_ids must be a list of token ids, got [-1]."),
        ({"max_tokens": 0}, "max_tokens must be an integer of at least 1, got 0."),
        ({"min_tokens": 101}, "min_tokens must be at most max_tokens, which is 100, got 101."),
        ({"min_tokens": -1}, "min_tokens must be an integer of at least 0, got -1."),
        ({"seed": 2**63}, f"seed must be a 64-bit integer, got {2**63}."),
        ({"logit_bias": {"a": 1}}, 'logit_bias must be an object of numbers by token id, got {"a":1}.'),
        ({"logprobs": -1}, "logprobs must be an integer of at least 0, got -1."),
        ({"best_of": 2}, "best_of was removed from vLLM; leave it out, got 2."),
        ({"early_stopping": "never"}, 'early_stopping was removed from vLLM; leave it out, got "never".'),
        ({"detokenize": False}, "detokenize must be true, a job's output is text, got false."),
        ({"temprature": 1}, "temprature is not a sampling parameter, got 1. Did you mean temperature?"),
        ({"tools": []}, "tools is for messages jobs only, got []."),
        (
            {"guided_json": {}, "guided_regex": "a"},
            'Only one of guided_json, guided_regex may be given, got guided_json {}, guided_regex "a".',
        ),
    ],
)
def test_bad_value_is_named_with_what_would_be_right(given: dict[str, Any], words: str) -> None:
    assert refusal(given) == words


def test_problems_are_reported_together() -> None:
    text = refusal({"n": 0, "temperature": "hot", "nonsense": 1})

    assert text.count("got") == 3


def test_beams_cannot_be_streamed() -> None:
    assert refusal({"use_beam_search": True}, stream=True) == (
        "use_beam_search must be false when stream is true, got true."
    )


def test_beams_are_not_searched_for_stop_strings() -> None:
    assert refusal({"use_beam_search": True, "stop": ["a"]}) == (
        'stop must be left out when use_beam_search is true, got ["a"].'
    )
    assert parameters({"use_beam_search": True, "stop": []})["stop"] == []


def test_parameter_that_was_removed_is_accepted_with_its_neutral_value() -> None:
    given = {"best_of": 1, "early_stopping": False, "detokenize": True, "n": None}

    assert parameters(given) == {"max_tokens": 100}
    assert parameters({"n": 2, "best_of": 2}) == {"max_tokens": 100, "n": 2}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("guided_json", {"type": "object"}),
        ("guided_regex", "a+"),
        ("guided_choice", ["a", "b"]),
        ("guided_grammar", "root ::= 'a'"),
    ],
)
def test_old_names_of_constraints_stay_for_the_table_of_fields(name: str, value: Any) -> None:
    assert parameters({name: value})[name] == value


def test_extra_args_have_another_name_in_the_engine() -> None:
    assert parameters({"extra_args": {"a": 1}})["vllm_xargs"] == {"a": 1}


def test_chat_has_a_switch_for_logprobs_and_a_number_beside_it() -> None:
    assert parameters({"logprobs": 3}, chat=True) == {"max_tokens": 100, "logprobs": True, "top_logprobs": 3}
    assert parameters({"logprobs": False}, chat=True)["logprobs"] is False


def test_chat_knows_what_openai_knows() -> None:
    given = {"tools": [{}], "tool_choice": "auto", "reasoning_effort": "low", "response_format": {"type": "text"}}

    assert parameters(given, chat=True) == {"max_tokens": 100, **given}


def test_integer_may_be_written_as_5_point_0() -> None:
    value = parameters({"max_tokens": 5.0})["max_tokens"]

    assert value == 5
    assert isinstance(value, int)
