from __future__ import annotations

import pytest

from gptoss_bento.config import tool_server
from gptoss_bento.config.environment import load_settings
from gptoss_bento.errors import ConfigurationError


@pytest.mark.parametrize("text", ["localhost:8001", "a:1,b:2", "a:1,b:2/path", "[::1]:8001"])
def test_servers_of_the_operator_are_taken(text: str) -> None:
    assert load_settings({"TOOL_SERVER": text}).engine == {"tool_server": text}


@pytest.mark.parametrize("text", ["a:1, b:2", " a:1 ,b:2,", "a:1,,b:2"])
def test_tool_servers_are_listed_as_vllm_reads_them(text: str) -> None:
    assert load_settings({"TOOL_SERVER": text}).engine == {"tool_server": "a:1,b:2"}


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("localhost", "'localhost'"),
        ("http://localhost:8001", "'http://localhost:8001'"),
        ("localhost:8001,demo", "'demo'"),
        ("localhost:99999", "'localhost:99999'"),
        (":8001", "':8001'"),
        (" , ", "' , '"),
    ],
)
def test_tool_server_that_is_no_address_is_refused(text: str, wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=f"TOOL_SERVER: .* {wrong} is not host:port"):
        load_settings({"TOOL_SERVER": text})


def test_demo_means_the_tools_of_this_server_and_is_not_given_to_vllm() -> None:
    settings = load_settings({"TOOL_SERVER": "demo", "EXA_API_KEY": "a-key-of-exa"})

    assert (settings.tools.python, settings.tools.python_origin) == ("on", "TOOL_SERVER=demo")
    assert (settings.tools.search, settings.tools.search_origin) == ("exa", "TOOL_SERVER=demo and EXA_API_KEY")
    assert settings.tools.search_key
    assert settings.tools.opens
    assert (settings.engine, settings.warnings) == ({}, ())


def test_demo_without_a_key_has_no_browser() -> None:
    settings = load_settings({"TOOL_SERVER": "demo"})

    assert (settings.tools.search, settings.tools.opens) == (None, False)
    assert settings.warnings == ("TOOL_SERVER=demo: the tool browser is off without EXA_API_KEY or SEARCH_BACKEND.",)


def test_demo_with_a_setting_of_the_tool_itself_leaves_it_the_choice() -> None:
    tools = load_settings({"TOOL_SERVER": "demo", "PYTHON_TOOL": "auto"}).tools

    assert (tools.python, tools.python_origin) == ("auto", "PYTHON_TOOL")


def test_demo_with_python_that_is_off_is_refused() -> None:
    with pytest.raises(
        ConfigurationError, match=r"PYTHON_TOOL: the value 'off' .* allowed: on or auto with TOOL_SERVER"
    ):
        load_settings({"TOOL_SERVER": "demo", "PYTHON_TOOL": "off"})


@pytest.mark.parametrize("text", ["dangerously_use_uv", "dangerously_use_local_jupyter", "podman", "Docker"])
def test_python_that_is_not_confined_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"PYTHON_EXECUTION_BACKEND: .* allowed: nothing; PYTHON_TOOL says"):
        load_settings({"PYTHON_EXECUTION_BACKEND": text})


def test_docker_is_refused_where_the_demo_would_have_used_it() -> None:
    with pytest.raises(ConfigurationError, match=r"PYTHON_EXECUTION_BACKEND: .* the kernel confines, not in Docker"):
        load_settings({"TOOL_SERVER": "demo", "PYTHON_EXECUTION_BACKEND": "docker"})


def test_name_of_a_tool_server_is_one_that_requests_can_ask_for() -> None:
    assert [tool_server.name_problem(name) for name in ("python", "browser", "container")] == [None, None, None]
    assert tool_server.name_problem("weather") == (
        "its name is 'weather'; vLLM uses servers named python, browser or container alone for GPT-OSS"
    )


def test_reason_is_the_first_of_a_group_of_errors() -> None:
    group = ExceptionGroup("all", [ExceptionGroup("some", [ConnectionError("no way there\nand more")]), KeyError()])

    assert tool_server.reason(group) == "no way there"
    assert tool_server.reason(TimeoutError()) == "TimeoutError"


@pytest.mark.parametrize(("name", "needs"), [("python", "code_interpreter"), ("container", "mcp and the label")])
def test_server_is_asked_for_by_a_type_or_a_label(name: str, needs: str) -> None:
    assert tool_server.asked_for_by(name).startswith(needs)
