"""JSON as it travels."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.strict_json import dumps, loads, shown

ANY_TEXT = st.text(st.characters(codec=None))  # lone surrogates as well
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_values_of_any_kind_survive_in_one_line_of_utf8(value: object) -> None:
    text = dumps(value)

    assert "\n" not in text
    assert loads(text.encode()) == value


@pytest.mark.parametrize("text", ["NaN", '{"a": Infinity}', "-Infinity", "{", "", "[" * 100_000, "9" * 5000, b"\xff"])
def test_text_that_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


def test_value_in_an_error_is_short() -> None:
    assert shown("é") == '"é"'
    assert shown("x" * 500) == '"' + "x" * 99 + "…"
    assert shown("\ud800") == json.dumps("\ud800")
