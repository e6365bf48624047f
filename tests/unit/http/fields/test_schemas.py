from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.fields.schemas import refuse_schemas

UNCLOSED: Any = {"type": "object", "properties": {"a": {"type": "string", "pattern": "["}}}
UNENFORCED: Any = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^a+$", "maxLength": 2}}}
NO_GRAMMAR: Any = {"type": "object", "properties": {"a": {"type": "string", "pattern": r"\ba"}}}
RIGHT: Any = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


def chat_format(schema: Any, **more: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, **more}}}


def response_format(schema: Any, **more: Any) -> dict[str, Any]:
    return {"text": {"format": {"type": "json_schema", "name": "n", "schema": schema, **more}}}


def message_format(schema: Any) -> dict[str, Any]:
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}


def chat_tool(schema: Any, **more: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema, **more}}]}


def response_tool(schema: Any, **more: Any) -> dict[str, Any]:
    return {"tools": [{"type": "web_search"}, {"type": "function", "name": "f", "parameters": schema, **more}]}


def message_tool(schema: Any, **more: Any) -> dict[str, Any]:
    return {"tools": [{"name": "f", "input_schema": schema, **more}]}


def constraint(schema: Any) -> dict[str, Any]:
    return {"structured_outputs": {"json": schema}}


def old_constraint(schema: Any) -> dict[str, Any]:
    return {"guided_json": schema}


FORMATS = [
    (chat_format, "response_format.json_schema.schema"),
    (response_format, "text.format.schema"),
    (message_format, "output_config.format.schema"),
    (constraint, "structured_outputs.json"),
    (old_constraint, "guided_json"),
]
TOOLS = [
    (chat_tool, "tools[0].function.parameters"),
    (response_tool, "tools[1].parameters"),
    (message_tool, "tools[0].input_schema"),
]


def refusal(body: dict[str, Any]) -> FieldError:
    with pytest.raises(FieldError) as refused:
        refuse_schemas(body)
    return refused.value


@pytest.mark.parametrize(("body", "place"), [*FORMATS, *TOOLS])
def test_schema_that_does_not_compile_names_its_place(body: Any, place: str) -> None:
    error = refusal(body(UNCLOSED))

    assert error.param == f"{place}.properties.a.pattern"
    assert str(error) == f"{place}.properties.a.pattern has an unclosed [ at position 0."


@pytest.mark.parametrize(("body", "place"), [*FORMATS, *TOOLS])
def test_schema_of_no_type_names_its_place(body: Any, place: str) -> None:
    assert refusal(body({"type": "strin"})).param == f"{place}.type"
    assert refusal(body("x")).param == place


@pytest.mark.parametrize(("body", "place"), FORMATS)
def test_schema_without_a_grammar_is_refused_as_the_form_of_an_answer(body: Any, place: str) -> None:
    assert refusal(body(NO_GRAMMAR)).param == f"{place}.properties.a.pattern"


@pytest.mark.parametrize(("body", "place"), TOOLS)
def test_schema_without_a_grammar_is_refused_of_strict_tools_alone(body: Any, place: str) -> None:
    refuse_schemas(body(NO_GRAMMAR))
    refuse_schemas(body(NO_GRAMMAR, strict=False))

    assert refusal(body(NO_GRAMMAR, strict=True)).param == f"{place}.properties.a.pattern"


@pytest.mark.parametrize(("body", "place"), [FORMATS[0], FORMATS[1], *TOOLS])
def test_words_that_cannot_be_enforced_are_refused_where_strict_asks_for_them(body: Any, place: str) -> None:
    refuse_schemas(body(UNENFORCED))
    refuse_schemas(body(UNENFORCED, strict=False))
    error = refusal(body(UNENFORCED, strict=True))

    assert error.param == f"{place}.properties.a.maxLength"
    assert str(error) == (
        f"{place}.properties.a.maxLength cannot be enforced beside pattern. "
        "`strict` asks for all of a schema; without it the rest is enforced."
    )


def test_words_that_cannot_be_enforced_are_all_named() -> None:
    schema = {"properties": {name: {"type": "string", "not": {}} for name in "abcdefghijkl"}}
    error = refusal(chat_format(schema, strict=True))

    assert "response_format.json_schema.schema.properties.a.not cannot be enforced; " in str(error)
    assert "properties.j.not cannot be enforced; and 2 more. `strict`" in str(error)


@pytest.mark.parametrize(("body", "_"), [*FORMATS, *TOOLS])
def test_schema_that_is_right_passes(body: Any, _: str) -> None:
    refuse_schemas(body(RIGHT))


def test_schema_as_text_is_read() -> None:
    refuse_schemas(constraint('{"type": "string"}'))

    assert refusal(constraint('{"type": "strin"}')).param == "structured_outputs.json.type"
    assert refusal(old_constraint("{")).param == "guided_json"


@pytest.mark.parametrize("name", ["structured_outputs.regex", "guided_regex"])
@pytest.mark.parametrize(
    ("pattern", "reason"),
    [("[", "has an unclosed ["), ("", "must not be empty"), ("(?!a)b", "has a lookahead"), (r"\bx", r"has \b")],
)
def test_regular_expression_that_cannot_be_enforced_is_refused(name: str, pattern: str, reason: str) -> None:
    body = {"guided_regex": pattern} if name == "guided_regex" else {"structured_outputs": {"regex": pattern}}
    error = refusal(body)

    assert error.param == name
    assert str(error).startswith(f"{name} {reason}")


@pytest.mark.parametrize("body", [{"structured_outputs": {"choice": []}}, {"guided_choice": []}])
def test_choice_of_nothing_is_refused(body: dict[str, Any]) -> None:
    assert "must have at least one choice" in str(refusal(body))


@pytest.mark.parametrize(
    "body",
    [
        {"response_format": {"type": "json_object"}},
        {"response_format": "json"},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
        {"tools": "x"},
        {"tools": [None, "x", {"type": "function", "function": "f"}, {"name": "f"}]},
        {"structured_outputs": "x"},
        {"text": {"format": {"type": "text"}}},
        {},
    ],
)
def test_request_without_a_schema_is_left_to_the_engine(body: dict[str, Any]) -> None:
    refuse_schemas(body)
