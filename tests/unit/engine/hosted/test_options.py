from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from openai.types.responses import Tool
from pydantic import TypeAdapter

from gptoss_bento.engine import hosted_tools
from gptoss_bento.engine.fake_tools import FakeBrowser, FakeMcp, FakePython
from gptoss_bento.engine.hosted.options import domains_of, location_of, results_of
from gptoss_bento.engine.hosted.server import HostedServer
from gptoss_bento.errors import EngineStartError
from gptoss_bento.tools.interfaces import HostedTools

SERVER = HostedServer(HostedTools(python=FakePython(), browser=FakeBrowser(), mcp=FakeMcp()))
SEARCH = "web_search_preview"
CONTAINER = "cntr_0123456789abcdef0123456789abcdef"


def tool(**fields: Any) -> Any:
    """As vLLM reads it: by the models of OpenAI's SDK."""
    return TypeAdapter(Tool).validate_python(fields)


def code(container: Any) -> Any:
    return tool(type="code_interpreter", container=container)


def problem_of(asked: Any) -> tuple[str, str] | None:
    return hosted_tools.problem(SimpleNamespace(tools=[asked], tool_choice="auto"), SERVER, ())


@pytest.mark.parametrize(
    "asked",
    [
        code({"type": "auto"}),
        code({"type": "auto", "file_ids": [], "memory_limit": "1g", "network_policy": {"type": "disabled"}}),
        code(CONTAINER),
        tool(type=SEARCH),
        tool(type=SEARCH, search_context_size="high", user_location={"type": "approximate", "city": "Rome"}),
        tool(type=SEARCH, filters={"allowed_domains": ["a.org"], "blocked_domains": None}),
        tool(type="mcp", server_label="weather", server_url="https://example.com"),
    ],
)
def test_tool_that_runs_here_is_let_through(asked: Any) -> None:
    assert problem_of(asked) is None


@pytest.mark.parametrize(
    ("asked", "place", "words"),
    [
        (code("cntr_1"), ".container", "is no id of a container"),
        (code({"type": "auto", "file_ids": ["f"]}), ".container.file_ids", "have no files"),
        (code({"type": "auto", "memory_limit": "4g"}), ".container.memory_limit", "PYTHON_TOOL_MEMORY_MB"),
        (
            code({"type": "auto", "network_policy": {"type": "allowlist", "allowed_domains": ["a.org"]}}),
            ".container.network_policy",
            "no network",
        ),
        (tool(type=SEARCH, search_content_types=["image"]), ".search_content_types", 'must be ["text"]'),
        (tool(type=SEARCH, filters="a.org"), ".filters", "must be an object"),
        (tool(type=SEARCH, filters={"allowed": []}), ".filters.allowed", "is none of allowed_domains"),
        (tool(type=SEARCH, filters={"allowed_domains": "a.org"}), ".filters.allowed_domains", "must be a list"),
        (tool(type=SEARCH, filters={"blocked_domains": ["https://a.org/"]}), ".filters.blocked_domains", "such as"),
        (tool(type=SEARCH, filters={"blocked_domains": ["b.org", "a.org:443"]}), ".filters.blocked_domains", "a.org:"),
        (tool(type="mcp", server_label="functions"), ".server_label", "a name of the model's own"),
        (tool(type="mcp", server_label="a b"), ".server_label", "must be 1 to 64 letters"),
        (tool(type="mcp", server_label="unknown"), ".server_label", "There is no such server."),
    ],
)
def test_option_that_cannot_be_had_is_refused_with_its_place(asked: Any, place: str, words: str) -> None:
    found = problem_of(asked)

    assert found is not None
    assert found[0] == f"tools[0]{place}"
    assert words in found[1]


def test_options_of_a_search_are_read() -> None:
    asked = tool(
        type=SEARCH,
        search_context_size="low",
        user_location={"type": "approximate", "city": "Rome", "timezone": "Europe/Rome"},
        filters={"allowed_domains": ["a.org"]},
    )

    assert results_of(asked) == 5
    assert location_of(asked) == "The user is near Rome, Europe/Rome."
    assert domains_of(asked) == {"allowed_domains": ("a.org",), "blocked_domains": ()}
    assert (results_of(tool(type=SEARCH)), location_of(tool(type=SEARCH))) == (10, None)


OTHERS = SimpleNamespace(has_tool=lambda name: name == "python", get_tool_description=lambda *_: "theirs")


def test_tool_of_both_ends_the_start_unless_it_gives_way() -> None:
    with pytest.raises(EngineStartError, match="The tool python is on, and TOOL_SERVER names a server of this name"):
        HostedServer(HostedTools(python=FakePython()), OTHERS)

    server = HostedServer(HostedTools(python=FakePython(), gives_way=frozenset({"python"})), OTHERS)
    assert server.has_tool("python")
    assert not server.own
    assert server.get_tool_description("python") == "theirs"


def test_tools_are_described_in_the_words_of_harmony() -> None:
    assert SERVER.get_tool_description("python").name == "python"
    assert [each.name for each in SERVER.get_tool_description("browser").tools] == ["search", "open", "find"]
    assert SERVER.get_tool_description("container") is None


def test_function_that_the_browser_has_not_is_not_described() -> None:
    server = HostedServer(HostedTools(browser=FakeBrowser(missing=frozenset({"search"}))))

    assert [each.name for each in server.get_tool_description("browser").tools] == ["open", "find"]
