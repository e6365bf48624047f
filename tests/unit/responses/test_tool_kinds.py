"""Tools of other kinds than functions, as the model gets them and as they come back."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.http.errors import FieldError
from gptoss_bento.responses.tool_kinds import NO_KINDS, for_model, read_tools

FUNCTION = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
PATCH = {"type": "custom", "name": "patch", "description": "Applies a patch."}
AGENTS = {"type": "namespace", "name": "agents", "description": "Of agents.", "tools": [FUNCTION, PATCH]}


def functions(*tools: Any, **asked: Any) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = read_tools({"tools": list(tools), **asked}).changes["tools"]
    return made


def test_functions_alone_stay_as_they_are() -> None:
    for tools in ([FUNCTION], [{"type": "web_search_preview"}], [{"type": 5}, "x"], None, "x"):
        assert read_tools({"tools": tools}) is NO_KINDS


def test_functions_of_a_namespace_are_functions_with_its_name() -> None:
    look, patch = functions(AGENTS)

    assert (look["name"], look["parameters"]) == ("agents__look", FUNCTION["parameters"])
    assert look["description"] == "agents: Of agents.\n\n"
    assert (patch["name"], patch["description"]) == ("agents__patch", "Applies a patch.")


def test_custom_tool_is_a_function_with_one_text() -> None:
    (made,) = functions(PATCH)

    assert (made["type"], made["name"], made["description"]) == ("function", "patch", "Applies a patch.")
    assert made["parameters"]["properties"] == {"input": {"type": "string"}}
    assert (made["parameters"]["required"], made["parameters"]["additionalProperties"]) == (["input"], False)


def test_regular_expression_of_a_custom_tool_is_its_pattern() -> None:
    (made,) = functions({**PATCH, "format": {"type": "grammar", "syntax": "regex", "definition": "^[0-9]+$"}})

    assert made["parameters"]["properties"]["input"]["pattern"] == "^(?:[0-9]+)$"
    assert made["description"].endswith("\n\nThe input follows this regular expression:\n^[0-9]+$")


def test_grammar_that_nothing_enforces_is_described_and_named() -> None:
    form = {"type": "grammar", "syntax": "lark", "definition": "start: /a/"}
    kinds = read_tools({"tools": [FUNCTION, {**PATCH, "format": form}]})

    assert kinds.left_out == ("tools[1].format",)
    assert "Lark grammar:\nstart: /a/" in kinds.changes["tools"][1]["description"]


def test_option_of_a_search_without_effect_is_named() -> None:
    kinds = read_tools({"tools": [{"type": "web_search", "return_token_budget": 5, "filters": None}]}, can_search=True)

    assert kinds.left_out == ("tools[0].return_token_budget",)


def test_search_is_the_models_where_there_is_one() -> None:
    search = {"type": "web_search", "search_context_size": "low"}
    filters = {"allowed_domains": ["a.org"]}
    filtered = read_tools({"tools": [{**search, "filters": filters}]}, can_search=True).changes["tools"]
    assert filtered == [{"type": "web_search_preview", "search_context_size": "low", "filters": filters}]
    dated = read_tools({"tools": [{"type": "web_search_preview_2025_03_11"}]}, can_search=True)
    assert dated.changes["tools"] == [{"type": "web_search_preview"}]
    found = read_tools({"tools": [search]}, can_search=True)
    assert found.changes["tools"] == [{"type": "web_search_preview", "search_context_size": "low"}]
    assert found.left_out == ()

    for tool, can_search in ((search, False), ({**search, "external_web_access": False}, True)):
        kinds = read_tools({"tools": [FUNCTION, tool]}, can_search=can_search)
        assert (kinds.changes["tools"], kinds.left_out) == ([FUNCTION], ("tools[1]",))


@pytest.mark.parametrize(
    ("choice", "name"),
    [
        ({"type": "custom", "name": "patch"}, "patch"),
        ({"type": "function", "name": "look"}, "look"),
        ({"type": "function", "name": "walk"}, "agents__walk"),
        ({"type": "function", "name": "agents__walk"}, "agents__walk"),
        ({"type": "function", "name": "look", "namespace": "agents"}, "agents__look"),
        ({"type": "custom", "name": "patch", "namespace": "agents"}, "agents__patch"),
    ],
)
def test_choice_of_a_tool_is_that_of_its_function(choice: dict[str, str], name: str) -> None:
    walk = {"type": "function", "name": "walk"}
    agents = {**AGENTS, "tools": [FUNCTION, walk, PATCH]}
    kinds = read_tools({"tools": [FUNCTION, PATCH, agents], "tool_choice": choice})

    assert kinds.changes["tool_choice"] == {"type": "function", "name": name}


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"tools": [{"type": "local_shell"}]}, "tools[0].type"),
        ({"tools": [FUNCTION, {"type": "apply_patch"}]}, "tools[1].type"),
        ({"tools": [{"type": "computer_use_preview"}]}, "tools[0].type"),
        ({"tools": [{"type": "custom"}]}, "tools[0].name"),
        ({"tools": [{**PATCH, "format": {"type": "xml"}}]}, "tools[0].format.type"),
        ({"tools": [{**PATCH, "format": {"type": "grammar", "syntax": "bnf"}}]}, "tools[0].format.syntax"),
        ({"tools": [{**PATCH, "format": {"type": "grammar", "syntax": "lark"}}]}, "tools[0].format.definition"),
        (
            {"tools": [{**PATCH, "format": {"type": "grammar", "syntax": "regex", "definition": "(a"}}]},
            "tools[0].format.definition",
        ),
        ({"tools": [{"type": "namespace", "name": "a"}]}, "tools[0].tools"),
        ({"tools": [{"type": "namespace", "name": "a", "tools": [{"type": "mcp"}]}]}, "tools[0].tools[0].type"),
        ({"tools": [{**FUNCTION, "name": "agents__look"}, AGENTS]}, "tools[1].tools[0].name"),
        ({"tools": [PATCH, {**FUNCTION, "name": "patch"}]}, "tools[1].name"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "custom", "name": "look"}}, "tool_choice.name"),
        (
            {"tools": [AGENTS, {**AGENTS, "name": "others"}], "tool_choice": {"type": "function", "name": "look"}},
            "tool_choice.name",
        ),
        (
            {"tools": [{"type": "web_search", "external_web_access": False}], "tool_choice": "required"},
            "tool_choice",
        ),
    ],
)
def test_tool_that_the_model_cannot_get_is_refused_by_its_place(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(FieldError) as refused:
        read_tools(asked, can_search=True)

    assert refused.value.param == param
    assert str(refused.value).startswith(param)


def test_calls_come_back_in_the_kind_of_their_tool() -> None:
    kinds = read_tools({"tools": [FUNCTION, PATCH, AGENTS]})
    call = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "status": "completed"}
    custom = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_1", "status": "completed"}
    arguments = '{"input": "a\\nb"}'

    plain = {**call, "name": "look", "arguments": "{}"}
    assert kinds.returned(plain) is plain
    assert kinds.returned({**plain, "name": "agents__look"}) == {**plain, "namespace": "agents"}
    made = kinds.returned({**call, "name": "patch", "arguments": arguments})
    assert made == {**custom, "name": "patch", "input": "a\nb"}
    made = kinds.returned({**call, "name": "agents__patch", "arguments": arguments})
    assert made == {**custom, "name": "patch", "namespace": "agents", "input": "a\nb"}
    assert kinds.returned({**call, "name": "patch", "arguments": ""})["input"] == ""


def test_items_of_earlier_turns_are_what_the_model_called() -> None:
    call = {"type": "function_call", "call_id": "call_1", "name": "agents__look", "arguments": "{}"}
    given = {**call, "name": "look", "namespace": "agents"}
    assert for_model(given) == call

    custom = {"type": "custom_tool_call", "call_id": "call_1", "name": "patch", "input": "a\nb"}
    assert for_model(custom) == {**call, "name": "patch", "arguments": '{"input":"a\\nb"}'}
    assert for_model({**custom, "namespace": "agents"})["name"] == "agents__patch"

    output = {"type": "custom_tool_call_output", "call_id": "call_1", "output": "done"}
    assert for_model(output) == {**output, "type": "function_call_output"}
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    for kind in ("function_call_output", "custom_tool_call_output"):
        result: dict[str, Any] = {"type": kind, "call_id": "call_1", "output": parts}
        assert for_model(result) == {"type": "function_call_output", "call_id": "call_1", "output": "ab"}
        assert for_model({**result, "output": [5]})["output"] == [5]
    for item in ({"type": "message"}, "x", {"type": "custom_tool_call", "input": 5}):
        assert for_model(item) is item
