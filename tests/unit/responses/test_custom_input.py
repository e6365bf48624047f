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
