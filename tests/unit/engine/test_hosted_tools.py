from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from openai.types.responses import Tool
from pydantic import TypeAdapter

from gptoss_bento.engine.hosted_tools import problem, refused

FUNCTION = SimpleNamespace(type="function", name="f")
CODE = SimpleNamespace(type="code_interpreter")
SEARCH = SimpleNamespace(type="web_search_preview")
PYTHON = SimpleNamespace(has_tool=lambda name: name == "python")


def mcp(label: str) -> Any:
    return SimpleNamespace(type="mcp", server_label=label)


def request(*tools: Any, tool_choice: str = "auto") -> Any:
    return SimpleNamespace(tools=list(tools), tool_choice=tool_choice)


@pytest.mark.parametrize(
    ("asked", "server", "labels"),
    [
        (request(), None, ()),
        (request(FUNCTION), None, ()),
        (request(CODE), PYTHON, ()),
        (request(CODE, FUNCTION, tool_choice="required"), PYTHON, ()),
        (request(mcp("code_interpreter")), PYTHON, {"code_interpreter"}),
        (request(SimpleNamespace(type="file_search")), None, ()),  # vLLM refuses it
    ],
)
def test_tools_that_the_service_has_are_let_through(asked: Any, server: Any, labels: Any) -> None:
    assert problem(asked, server, labels) is None


@pytest.mark.parametrize(
    ("asked", "server", "labels", "place", "words"),
    [
        (request(CODE), None, (), "tools[0].type", '"code_interpreter" needs a tool server named python'),
        (request(FUNCTION, SEARCH), PYTHON, (), "tools[1].type", '"web_search_preview" needs a tool server named br'),
        (request(mcp("python")), PYTHON, (), "tools[0].server_label", '"python" is none that the operator lets in'),
        (request(mcp("container")), PYTHON, {"container"}, "tools[0].type", '"container" needs a tool server named'),
        (request(CODE, tool_choice="required"), PYTHON, (), "tool_choice", '"required" needs a function'),
    ],
)
def test_tools_that_the_service_has_not_are_refused_with_their_place(
    asked: Any, server: Any, labels: Any, place: str, words: str
) -> None:
    found = problem(asked, server, labels)

    assert found is not None
    assert found[0] == place
    assert words in found[1]


BROWSER = SimpleNamespace(has_tool=lambda name: name == "browser")


def tools_of(*tools: dict[str, Any]) -> Any:
    """As vLLM reads them: by the models of OpenAI's SDK."""
    return request(*map(TypeAdapter(Tool).validate_python, tools))


@pytest.mark.parametrize(
    ("tool", "server", "place"),
    [
        ({"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["f"]}}, PYTHON, ".container.file_ids"),
        (
            {"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "4g"}},
            PYTHON,
            ".container.memory_limit",
        ),
        ({"type": "code_interpreter", "container": "cntr_1"}, PYTHON, ".container"),
        (
            {"type": "web_search_preview", "user_location": {"type": "approximate", "city": "Rome"}},
            BROWSER,
            ".user_location",
        ),
        ({"type": "web_search_preview", "search_context_size": "high"}, BROWSER, ".search_context_size"),
    ],
)
def test_option_that_reaches_no_tool_server_is_refused(tool: dict[str, Any], server: Any, place: str) -> None:
    found = problem(tools_of(tool), server, ())

    assert found is not None
    assert found[0] == f"tools[0]{place}"


@pytest.mark.parametrize(
    ("tool", "server"),
    [
        ({"type": "code_interpreter", "container": {"type": "auto", "file_ids": []}}, PYTHON),
        ({"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "1g"}}, PYTHON),
        (
            {"type": "code_interpreter", "container": {"type": "auto", "network_policy": {"type": "disabled"}}},
            PYTHON,
        ),
        ({"type": "web_search_preview"}, BROWSER),
        (
            {
                "type": "web_search_preview",
                "user_location": {"type": "approximate"},
                "search_context_size": "medium",
                "search_content_types": ["text"],
            },
            BROWSER,
        ),
    ],
)
def test_options_with_openais_defaults_are_let_through(tool: dict[str, Any], server: Any) -> None:
    assert problem(tools_of(tool), server, ()) is None


def test_request_with_a_tool_that_is_missing_is_not_rendered() -> None:
    renderer = SimpleNamespace(create_error_response=lambda _, err_type, param: (err_type, param))

    def render(_: Any, asked: Any, **history: Any) -> Any:
        return asked, history

    rendered = refused(render, tuple)
    assert rendered(renderer, request(CODE), tool_server=None) == ("invalid_request_error", "tools[0].type")
    asked = request(CODE)
    assert rendered(renderer, asked, tool_server=PYTHON) == (asked, {"tool_server": PYTHON})
