"""Errors of vLLM's application, with the places of tools that the client knows."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.responses.error_places import places_of, with_own_places
from gptoss_bento.responses.request import CreateRequest, read_create

FUNCTION = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
AGENTS = {"type": "namespace", "name": "agents", "tools": [FUNCTION, {**FUNCTION, "name": "ask"}]}
SEARCH = {"type": "web_search"}
CODE = {"type": "code_interpreter", "container": {"type": "auto"}}


def request(*tools: Any) -> CreateRequest:
    return read_create({"input": "Hi", "tools": list(tools)})


def refusing(place: str, status: int = 400) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        error = {"message": f"{place}.type is off.", "param": f"{place}.type", "code": status}
        await JSONResponse({"error": error}, status)(scope, receive, send)

    return app


async def answer(app: ASGIApp) -> Any:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as client:
        return (await client.post("/")).json()["error"]


@pytest.mark.parametrize(
    ("tools", "places"),
    [
        ([FUNCTION, CODE], ["tools[0]", "tools[1]"]),
        ([SEARCH, CODE, SEARCH, FUNCTION], ["tools[1]", "tools[3]"]),
        ([AGENTS, CODE], ["tools[0].tools[0]", "tools[0].tools[1]", "tools[1]"]),
    ],
)
def test_places_of_tools_are_those_of_the_client(tools: list[Any], places: list[str]) -> None:
    assert places_of(request(*tools)) == places
    assert len(request(*tools).for_engine(None)["tools"]) == len(places)


async def test_error_names_the_tool_behind_one_that_was_left_out() -> None:
    error = await answer(with_own_places(refusing("tools[0]"), request(SEARCH, CODE)))

    assert (error["message"], error["param"]) == ("tools[1].type is off.", "tools[1].type")


async def test_answer_is_passed_on_as_it_is() -> None:
    error = await answer(with_own_places(refusing("tools[0]", 200), request(SEARCH, CODE)))

    assert error["param"] == "tools[0].type"


async def test_error_of_no_tool_is_passed_on() -> None:
    error = await answer(with_own_places(refusing("input"), request(SEARCH, CODE)))

    assert error["param"] == "input.type"


def test_application_is_called_directly_where_no_place_differs() -> None:
    app = refusing("tools[0]")

    assert with_own_places(app, request(FUNCTION, CODE)) is app
