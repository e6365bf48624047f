"""Lines of a page: their width, their numbers, and how many the model sees."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.tools.browser.lines import WIDTH, end_of_view, numbered, wrapped


def test_lines_are_broken_between_words() -> None:
    assert wrapped("one two three", 8) == ["one two", "three"]


def test_lines_keep_paragraphs_and_empty_lines() -> None:
    assert wrapped("a\n\nb") == ["a", "", "b"]


def test_lines_break_a_word_that_is_longer_than_a_line() -> None:
    assert wrapped("x" * 20, 8) == ["x" * 8, "x" * 8, "x" * 4]


@given(st.text(alphabet="ab \n\t", max_size=400), st.integers(1, 20))
def test_lines_have_all_words_and_no_line_is_too_long(text: str, width: int) -> None:
    lines = wrapped(text, width)

    assert "".join("".join(lines).split()) == "".join(text.split())
    assert max(map(len, lines)) <= width


def test_lines_are_numbered_from_the_first_of_the_view() -> None:
    assert numbered(["a", "b"], 7) == "L7: a\nL8: b"


@pytest.mark.parametrize(("chars", "num_lines", "end"), [(10_000, 0, 100), (30, 0, 13), (10_000, 5, 15), (30, 50, 13)])
def test_lines_of_a_view_end_with_its_characters_or_its_number(chars: int, num_lines: int, end: int) -> None:
    assert end_of_view(["line"] * 100, 10, chars, num_lines) == end


def test_lines_of_a_view_are_one_at_least() -> None:
    assert end_of_view(["x" * WIDTH] * 3, 1, 1) == 2
