from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gptoss_bento.engine.tool_calls import enforced, enforced_format, in_text, out_of_sight


def request(**fields: Any) -> Any:
    given = {"tool_choice": "none", "tools": [], "messages": [], "structured_outputs": None, **fields}
    found = SimpleNamespace(**given)
    found.extract_structured_outputs = lambda: found.structured_outputs
    return found


def held_to_text(asked: Any, parser: Any = "parser") -> bool:
    in_text(lambda *_: None, lambda: "text")(SimpleNamespace(parser=parser), asked)
    return bool(asked.structured_outputs == "text")


@pytest.mark.parametrize(
    ("fields", "held"),
    [
        ({"tools": ["f"]}, True),
        ({"tools": ["f"], "tool_choice": "auto"}, False),
        ({"tools": ["f"], "tool_choice": "required"}, False),
        ({"tools": ["f"], "structured_outputs": "mine"}, False),
        ({"tools": ["f"], "use_beam_search": True}, False),
        ({}, False),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, True),
        ({"messages": [{"role": "assistant", "tool_calls": []}]}, False),
        ({"messages": None, "input": [SimpleNamespace(type="function_call")]}, True),
        ({"messages": None, "input": "text"}, False),
        ({"previous_response_id": "resp_1"}, True),
    ],
)
def test_request_is_held_to_text_where_it_may_not_call_what_it_knows(fields: dict[str, Any], held: bool) -> None:
    assert held_to_text(request(**fields)) is held


def test_request_without_a_parser_is_left_as_it_is() -> None:
    assert not held_to_text(request(tools=["f"]), parser=None)


def test_parameters_of_a_call_without_a_schema_stay() -> None:
    assert enforced(lambda _: True, str)(None) is True


def test_parameters_of_a_call_are_those_that_have_a_grammar() -> None:
    assert enforced(lambda _: {"type": "string", "pattern": r"\b"}, str)(None) == {"type": "string"}


def test_parameters_without_a_grammar_are_any_object() -> None:
    def compile_schema(_: str) -> None:
        raise RuntimeError

    assert enforced(lambda _: {"type": "string"}, compile_schema)(None) == {"type": "object"}


def test_format_without_a_schema_stays() -> None:
    regex = SimpleNamespace(pattern="a")

    assert enforced_format(lambda _: regex)(None) is regex
    assert enforced_format(lambda _: None)(None) is None


def test_error_of_the_renderer_passes() -> None:
    error = SimpleNamespace(error="wrong")

    assert out_of_sight(lambda *_: error)(None, request()) is error
