"""A choice of tools that is an object."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.fields.check import checked
from gptoss_bento.http.paths import CHAT, COMPLETIONS, RESPONSES

A, B = ({"type": "function", "name": name} for name in "ab")
CHAT_A, CHAT_B = ({"type": "function", "function": {"name": name}} for name in "ab")


def allowed(*tools: Any, mode: Any = "required") -> dict[str, Any]:
    return {"type": "allowed_tools", "mode": mode, "tools": list(tools)}


def of_chat(*tools: Any, mode: Any = "auto") -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


@pytest.mark.parametrize(
    ("path", "body", "engine"),
    [
        (RESPONSES, {"tools": [A, B], "tool_choice": allowed(B)}, {"tools": [B], "tool_choice": "required"}),
        (RESPONSES, {"tools": [A, B], "tool_choice": allowed(B, A)}, {"tools": [A, B], "tool_choice": "required"}),
        (CHAT, {"tools": [CHAT_A, CHAT_B], "tool_choice": of_chat(CHAT_A)}, {"tools": [CHAT_A], "tool_choice": "auto"}),
    ],
)
def test_allowed_tools_are_the_only_tools_of_the_request(
    path: str, body: dict[str, Any], engine: dict[str, Any]
) -> None:
    assert checked(path, body).body == engine


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RESPONSES, {"tools": [A], "tool_choice": "auto"}),
        (RESPONSES, {"tools": [A], "tool_choice": A}),
        (CHAT, {"tools": [CHAT_A], "tool_choice": CHAT_A}),
        (CHAT, {"tools": [CHAT_A], "tool_choice": {"type": "custom"}}),
    ],
)
def test_other_choices_pass(path: str, body: dict[str, Any]) -> None:
    assert checked(path, body).body is body


@pytest.mark.parametrize(
    ("path", "tools", "choice", "param"),
    [
        (RESPONSES, [A], {"type": "web_search_preview"}, "tool_choice.type"),
        (RESPONSES, [A], {"type": "mcp", "server_label": "x"}, "tool_choice.type"),
        (RESPONSES, [A], {}, "tool_choice.type"),
        (RESPONSES, [A], allowed(A, B), "tool_choice.tools[1]"),
        (RESPONSES, [A], allowed({"type": "mcp"}), "tool_choice.tools[0]"),
        (RESPONSES, [A], allowed(5), "tool_choice.tools[0]"),
        (RESPONSES, [A], allowed(), "tool_choice.tools"),
        (RESPONSES, "x", allowed(A), "tool_choice.tools[0]"),
        (RESPONSES, [A], allowed(A, mode="none"), "tool_choice.mode"),
        (RESPONSES, [A], allowed(A, mode=[]), "tool_choice.mode"),
        (CHAT, [CHAT_A], of_chat(CHAT_B), "tool_choice.allowed_tools.tools[0]"),
        (CHAT, [CHAT_A], {"type": "allowed_tools"}, "tool_choice.allowed_tools.mode"),
    ],
)
def test_choice_that_cannot_be_kept_is_refused(path: str, tools: Any, choice: dict[str, Any], param: str) -> None:
    with pytest.raises(FieldError) as refused:
        checked(path, {"tools": tools, "tool_choice": choice})

    assert refused.value.param == param
    assert str(refused.value).startswith(f"{param} must ")


def test_route_without_tools_refuses_the_field() -> None:
    with pytest.raises(FieldError, match="tool_choice is no field of /v1/completions"):
        checked(COMPLETIONS, {"tool_choice": allowed(A)})
