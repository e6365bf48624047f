"""The input of a custom tool in the arguments of a function."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.responses.custom_input import StreamedInput, arguments_of, input_of


@given(st.text(), st.booleans(), st.lists(st.integers(0, 60)))
def test_input_comes_in_pieces_that_joined_are_the_whole(text: str, is_ascii: bool, cuts: list[int]) -> None:
    arguments = json.dumps({"input": text}, ensure_ascii=is_ascii)
    streamed, pieces, start = StreamedInput(), [], 0
    for end in (*sorted(cuts), len(arguments)):
        pieces.append(streamed.add(arguments[start:end]))
        start = max(start, end)

    assert "".join(pieces) == text == input_of(arguments)


@given(st.text())
def test_arguments_have_their_input(text: str) -> None:
    assert input_of(arguments_of(text)) == text


def test_input_of_a_call_that_was_cut_is_what_is_whole() -> None:
    assert input_of('{"input": "a\\nb\\u00e') == "a\nb"
    assert input_of('{"input') == '{"input'


def test_arguments_without_an_input_are_the_input() -> None:
    for arguments in ("plain words", '{"code": "x"}', '{"input": 5}', "[]"):
        assert input_of(arguments) == arguments


@given(st.lists(st.sampled_from([" ", "\n ", "{", '"input"', '"in', 'put"', ":", '"', "x", "\\", "5"]), max_size=12))
def test_input_of_any_pieces_is_how_the_whole_begins(pieces: list[str]) -> None:
    arguments, streamed = "".join(pieces), StreamedInput()
    text = "".join(map(streamed.add, pieces))

    assert text == StreamedInput().add(arguments)
    assert input_of(arguments).startswith(text)


def test_input_after_white_space_keeps_none_of_it() -> None:
    """Else each piece costs as much as all before it."""
    streamed = StreamedInput()
    for start in ("", "{", '"input"', ":"):
        streamed.add(start)
        for _ in range(100):
            assert streamed.add(" \n") == ""
        assert streamed._waiting == ""

    assert streamed.add(' "a') == "a"


def test_arguments_without_an_input_are_not_kept() -> None:
    streamed = StreamedInput()
    assert [streamed.add(piece) for piece in ('{"code"', ': "x', '"input": "y' * 100)] == [""] * 3
    assert streamed._waiting == "-"
