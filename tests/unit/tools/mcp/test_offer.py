"""What of a server's tools a model gets."""

from __future__ import annotations

from typing import Any

import mcp_types as types
import pytest

from gptoss_bento.tools.mcp.offer import TooManyToolsError, offered
from gptoss_bento.tools.mcp.server import Limits, Server

SERVER = Server("docs", "https://docs.test/?key=s3cret-of-the-url", headers={"Authorization": "Bearer s3cret-token"})


def tool(name: str = "one", **others: Any) -> types.Tool:
    return types.Tool(name=name, input_schema=others.pop("schema", {"type": "object"}), **others)


def test_description_is_bounded_and_has_no_secret_of_the_server() -> None:
    [short, long, titled] = offered(
        [
            tool("short", description=" Use\x00 s3cret-token, s3cret-of-the-url. "),
            tool("long", description="x" * 5000),
            tool("titled", title="A title"),
        ],
        SERVER,
        Limits(),
    )

    assert short.description == "Use ***, ***."
    assert long.description == "x" * 1999 + "…"
    assert titled.description == "A title"


def test_annotations_are_the_hints_of_the_protocol_alone() -> None:
    hints = types.ToolAnnotations.model_validate({"title": "t" * 500, "readOnlyHint": True, "other": "x" * 10_000})

    [found] = offered([tool(annotations=hints)], SERVER, Limits())

    assert found.annotations == {"title": "t" * 199 + "…", "readOnlyHint": True}
    assert found.is_read_only


def test_schemas_and_annotations_have_no_secret_of_the_server() -> None:
    said = {"description": "Send s3cret-token.", "enum": ["s3cret-token"], "x-more": [{"s3cret-of-the-url": 1}]}
    schema = {"type": "object", "properties": {"s3cret-token": said}}
    titled = types.ToolAnnotations.model_validate({"title": "s3cret-token"})

    [found] = offered([tool(schema=schema, annotations=titled)], SERVER, Limits())

    assert "s3cret" not in f"{found.input_schema}{found.listed_schema}{found.annotations}"
    assert found.listed_schema["properties"]["***"]["x-more"] == [{"***": 1}]
    assert found.annotations == {"title": "***"}


def test_client_gets_the_schema_of_the_server_unless_it_is_too_long() -> None:
    titled = {"type": "object", "title": "Args", "properties": {"a": {"title": "A", "type": "string"}}}
    long = {"type": "object", "title": "x" * 9000}

    first, second = offered([tool("a", schema=titled), tool("b", schema=long)], SERVER, Limits())

    assert first.listed_schema == titled
    assert first.input_schema == {"type": "object", "properties": {"a": {"type": "string"}}}
    assert second.listed_schema == {"type": "object"}


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(tools=2), "it offers 3 tools, of which a response can have 2: name those that are needed"),
        (Limits(prompt_chars=50), "it offers tools of 60 characters, of which a response can have 50: name those"),
    ],
)
def test_tools_that_no_prompt_can_take_are_refused(limits: Limits, message: str) -> None:
    with pytest.raises(TooManyToolsError, match=message):
        offered([tool(name) for name in ("one", "two", "six")], SERVER, limits)
