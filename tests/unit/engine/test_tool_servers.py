from __future__ import annotations

from types import SimpleNamespace

import pytest

from gptoss_bento.engine.tool_servers import check_started, required
from gptoss_bento.errors import EngineStartError


def test_demo_with_python_has_started() -> None:
    check_started(SimpleNamespace(tools={"python": object()}), "demo")


@pytest.mark.parametrize("tools", [{}, {"browser": object()}])
def test_demo_without_python_is_refused(tools: dict[str, object]) -> None:
    with pytest.raises(EngineStartError, match="TOOL_SERVER=demo: the tool python did not start"):
        check_started(SimpleNamespace(tools=tools), "demo")


def test_servers_with_a_name_each_have_started() -> None:
    check_started(SimpleNamespace(urls={"a": "http://a:1/sse", "b": "http://b:1/sse"}), "a:1,b:1")


def test_servers_of_one_name_are_refused() -> None:
    with pytest.raises(EngineStartError, match="TOOL_SERVER names 2 servers, but they have one name: tools"):
        check_started(SimpleNamespace(urls={"tools": "http://a:1/sse"}), "a:1,b:1")


def test_application_without_tool_servers_is_not_checked() -> None:
    check_started(None, None)


def test_server_that_does_not_answer_is_named() -> None:
    group = ExceptionGroup("unhandled errors in a TaskGroup", [ConnectionError("All connection attempts failed")])

    answer = r"tool server a:1 \(TOOL_SERVER\) cannot be used: All connection attempts"
    with pytest.raises(EngineStartError, match=answer), required("a:1"):
        raise group


def test_failures_of_an_application_without_tools_stay_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), required(None):
        raise ZeroDivisionError
