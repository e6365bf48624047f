from __future__ import annotations

import json
from typing import Any, Literal

import pytest

from gptoss_bento.config.vllm_options import Kind, Option, known_options, parse_bool

Many = Literal["", "words", "repeat"]


def option(kind: Kind, *, many: Many = "", choices: tuple[str, ...] = ()) -> Option:
    return Option("some_option", "--some-option", kind, many, choices, "")


# Text to value


@pytest.mark.parametrize("text", ["true", "TRUE", "1", "yes", "on", " on "])
def test_boolean_true_has_these_spellings(text: str) -> None:
    assert parse_bool(text) is True


@pytest.mark.parametrize("text", ["false", "False", "0", "no", "off"])
def test_boolean_false_has_these_spellings(text: str) -> None:
    assert parse_bool(text) is False


@pytest.mark.parametrize("text", ["", "2", "maybe", "truee"])
def test_boolean_with_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="true or false"):
        parse_bool(text)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("switch", "off", False),
        ("flag", "yes", True),
        ("int", "-1", -1),
        ("float", "1e-3", 0.001),
        ("float", "2", 2.0),
        ("json", '{"a": [1]}', {"a": [1]}),
        ("json", "[1, 2]", [1, 2]),
        ("json", "a/path", "a/path"),
        ("text", "as it is", "as it is"),
        ("count", "4096", 4096),
        ("count", " 4096 ", 4096),
        ("count", "-1", -1),
        ("count", "4k", "4k"),
        ("count", "4K", "4K"),
        ("count", "1.5M", "1.5M"),
        ("count", " 2g ", "2g"),
        ("count", "auto", "auto"),
    ],
)
def test_text_becomes_a_value_of_its_kind(kind: Kind, text: str, value: Any) -> None:
    parsed = option(kind).parse(text)

    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "allowed"),
    [
        ("switch", "perhaps", "true or false"),
        ("int", "1.5", "a whole number"),
        ("float", "x", "a number"),
        ("json", "{", "valid JSON"),
        ("json", "[1,", "valid JSON"),
        ("count", "banana", "a whole number, which may end in k, m or g"),
        ("count", "4kk", "a whole number"),
        ("count", "4 k", "a whole number"),
        ("count", "k", "a whole number"),
        ("count", "autos", "a whole number"),
        ("count", "0x10", "a whole number"),
        ("count", "1_000", "a whole number"),
    ],
)
def test_text_of_another_kind_is_refused(kind: Kind, text: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=allowed):
        option(kind).parse(text)


def test_choice_must_be_one_of_the_choices() -> None:
    level = option("text", choices=("low", "high"))

    assert level.parse("high") == "high"
    with pytest.raises(ValueError, match="one of low, high"):
        level.parse("medium")


@pytest.mark.parametrize(
    ("choices", "text", "value"),
    [
        (("low", "high"), "HIGH", "high"),
        (("low", "high"), " Low ", "low"),
        (("FLASH_ATTN", "TRITON_ATTN"), "flash_attn", "FLASH_ATTN"),
    ],
)
def test_choice_may_be_written_in_any_letter_case(choices: tuple[str, ...], text: str, value: str) -> None:
    assert option("text", choices=choices).parse(text) == value


def test_number_may_have_to_be_one_of_the_choices() -> None:
    rank = option("int", choices=("1", "8", "16"))

    assert rank.parse(" 16") == 16
    for text in ["5", "sixteen", "1.0"]:
        with pytest.raises(ValueError, match="one of 1, 8, 16"):
            rank.parse(text)


def test_items_of_a_list_must_be_among_the_choices() -> None:
    modules = option("text", many="words", choices=("model", "worker"))

    assert modules.parse("Model,worker") == ["model", "worker"]
    with pytest.raises(ValueError, match="one of model, worker"):
        modules.parse("model,engine")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("text", "a", ["a"]),
        ("text", "a, b,,c ", ["a", "b", "c"]),
        ("text", '["a,b", "c"]', ["a,b", "c"]),
        ("text", '[{"name": "x"}]', [{"name": "x"}]),
        ("text", '{"name": "x", "path": "a,b"}', [{"name": "x", "path": "a,b"}]),
        ("text", " , ", []),
        ("json", '{"a": 1}', [{"a": 1}]),
        ("json", '[{"a": 1}, {"b": 2}]', [{"a": 1}, {"b": 2}]),
        ("int", "1,2", [1, 2]),
        ("int", '["1", 2]', [1, 2]),
    ],
)
@pytest.mark.parametrize("many", ["words", "repeat"])
def test_list_is_written_with_commas_or_as_json(kind: Kind, text: str, value: list[Any], many: Many) -> None:
    assert option(kind, many=many).parse(text) == value


@pytest.mark.parametrize("text", ["1,x", '["x"]'])
def test_items_of_a_list_are_checked(text: str) -> None:
    with pytest.raises(ValueError, match="a whole number"):
        option("int", many="words").parse(text)


# Value to words


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("switch", True, ["--some-option"]),
        ("switch", False, ["--no-some-option"]),
        ("flag", True, ["--some-option"]),
        ("flag", False, []),
        ("int", 5, ["--some-option=5"]),
        ("int", -1, ["--some-option=-1"]),
        ("float", 0.95, ["--some-option=0.95"]),
        ("count", 4096, ["--some-option=4096"]),
        ("count", "4k", ["--some-option=4k"]),
        ("text", "-starts with a dash", ["--some-option=-starts with a dash"]),
        ("json", {"a": [1, True]}, ['--some-option={"a": [1, true]}']),
        ("json", "a/path", ["--some-option=a/path"]),
    ],
)
def test_value_becomes_command_line_arguments(kind: Kind, value: Any, words: list[str]) -> None:
    assert option(kind).argv(value) == words


def test_list_becomes_one_argument_per_item() -> None:
    assert option("text", many="words").argv(["a", {"b": 1}]) == ["--some-option", "a", '{"b": 1}']


def test_list_may_have_to_repeat_the_flag() -> None:
    assert option("text", many="repeat").argv(["a", "b"]) == ["--some-option=a", "--some-option=b"]


@pytest.mark.parametrize("kind", ["int", "float", "json", "text"])
def test_arguments_read_back_are_the_value(kind: Kind) -> None:
    some = option(kind)
    texts: dict[Kind, str] = {"int": "7", "float": "0.5", "json": '{"a": null}', "text": "x y"}
    value = some.parse(texts[kind])

    (word,) = some.argv(value)

    assert some.parse(word.removeprefix("--some-option=")) == value


# The recording


def test_variable_is_the_name_in_upper_case() -> None:
    assert known_options()["max_model_len"].variable == "MAX_MODEL_LEN"


@pytest.mark.parametrize(
    ("name", "kind", "many"),
    [
        ("max_model_len", "count", ""),
        ("gpu_memory_utilization", "float", ""),
        ("tensor_parallel_size", "int", ""),
        ("enable_prefix_caching", "switch", ""),
        ("compilation_config", "json", ""),
        ("served_model_name", "text", "words"),
        ("middleware", "text", "repeat"),
    ],
)
def test_options_that_operators_use_are_known(name: str, kind: Kind, many: Many) -> None:
    known = known_options()[name]

    assert (known.kind, known.many, known.flag) == (kind, many, f"--{name.replace('_', '-')}")


def test_recorded_options_are_complete() -> None:
    for name, known in known_options().items():
        assert name == known.name
        assert known.flag.startswith("--")
        assert known.many in ("", "words", "repeat")
        json.dumps(known.help)
    assert len(known_options()) > 200
