"""What pydantic finds, in words: the field, its value, and what would be right."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gptoss_bento.jobs.input_problems import Must, checked, sentences, text_of, wrong


def _even(value: Any) -> Any:
    if value == 1:
        raise wrong("even", "{name} is odd: make it {words}")
    return value


class Inner(BaseModel):
    model_config = ConfigDict(strict=True)

    size: Annotated[int, Field(ge=0), Must("an integer of at least 0")] = 0


class Outer(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    inner: Inner | None = None
    rows: list[Inner] = []
    words: Annotated[str | list[str], Must("a string or a list of strings")] | None = None
    pair: Annotated[int, BeforeValidator(_even)] = 0
    plain: int = 0


def problems(given: dict[str, Any]) -> list[str]:
    return sentences(checked(Outer, given, lambda name, value: f"{name} is new, got {value}")[1])


def test_right_input_makes_a_model() -> None:
    model, found = checked(Outer, {"plain": 1})

    assert model == Outer(plain=1)
    assert not found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"inner": {"size": -1}}, "inner.size must be an integer of at least 0, got -1"),
        ({"rows": [{}, {"size": True}]}, "rows[1].size must be an integer of at least 0, got true"),
        ({"words": [1, "x"]}, 'words must be a string or a list of strings, got [1,"x"]'),
        ({"pair": 1}, "pair is odd: make it even"),
        ({"zzz": 5}, "zzz is new, got 5"),
    ],
)
def test_error_names_field_and_value_and_what_would_be_right(given: dict[str, Any], words: str) -> None:
    assert problems(given) == [words]


def test_error_of_pydantic_without_words_of_ours_names_field_and_value_too() -> None:
    assert problems({"plain": "x"}) == ['plain is wrong: Input should be a valid integer, got "x"']


def test_errors_are_all_found() -> None:
    model, found = checked(Outer, {"zzz": 1, "plain": "x", "inner": {"size": -1}, "pair": 1})

    assert model is None
    assert {each.field for each in found} == {"zzz", "plain", "inner", "pair"}


def test_name_that_is_no_unicode_is_unknown() -> None:
    assert problems({"\ud800": 5}) == ["\ud800 is new, got 5"]
    assert sentences(checked(Outer, {"\ud800": 5})[1]) == ["\\ud800 is not known, got 5"]


def test_text_that_is_no_unicode_is_called_so() -> None:
    class Short(BaseModel):
        text: Annotated[str, Field(pattern="a"), Must("an a")] = ""

    assert sentences(checked(Short, {"text": "\ud800"})[1]) == ['text must be valid Unicode, got "\\ud800"']


def test_braces_in_a_value_are_left_alone() -> None:
    assert problems({"words": {"{name}": "{value}"}}) == [
        'words must be a string or a list of strings, got {"{name}":"{value}"}'
    ]


def test_value_nested_deeply_is_named_without_being_shown() -> None:
    deep: Any = 0
    for _ in range(100_000):
        deep = [deep]

    assert problems({"words": [deep]}) == ["words must be a string or a list of strings, got a deeply nested value"]


def test_text_has_all_sentences_with_their_stops() -> None:
    assert text_of(["a is wrong", "b is wrong. Did you mean c?"]) == "a is wrong. b is wrong. Did you mean c?"


def test_words_describe_the_field() -> None:
    described = Inner.model_json_schema()["properties"]["size"]

    assert described == {
        "default": 0,
        "description": "an integer of at least 0",
        "minimum": 0,
        "title": "Size",
        "type": "integer",
    }
