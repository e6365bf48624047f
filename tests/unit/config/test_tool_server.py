from __future__ import annotations

from importlib import metadata

import pytest
from packaging.version import Version

from gptoss_bento.config import tool_server
from gptoss_bento.config.environment import load_settings
from gptoss_bento.errors import ConfigurationError


def with_gpt_oss(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    monkeypatch.setattr(tool_server, "gpt_oss_version", lambda: version and Version(version))


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


@pytest.mark.parametrize(("version", "found"), [(None, "it is not installed"), ("0.0.6", "0.0.6 is installed")])
def test_demo_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch, version: str | None, found: str) -> None:
    with_gpt_oss(monkeypatch, version)

    with pytest.raises(
        ConfigurationError, match=rf"TOOL_SERVER: .*gpt-oss 0\.0\.7 or newer \({found}\): pip install gpt-oss"
    ):
        load_settings({"TOOL_SERVER": "demo"})


@pytest.mark.parametrize(
    ("environ", "browser"), [({}, "is off without EXA_API_KEY"), ({"EXA_API_KEY": "k"}, "searches through Exa")]
)
def test_demo_says_what_the_model_gets(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], browser: str) -> None:
    with_gpt_oss(monkeypatch, "0.0.9")

    python, found = load_settings({"TOOL_SERVER": "demo", **environ}).warnings

    assert python == "TOOL_SERVER: demo gives the model the tool python, which runs code that it wrote, in Docker."
    assert found == f"TOOL_SERVER: the tool browser {browser}."


@pytest.mark.parametrize("text", ["dangerously_use_uv", "dangerously_use_local_jupyter", "podman", "Docker"])
def test_python_outside_of_docker_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"PYTHON_EXECUTION_BACKEND: .* allowed: docker; the others would run"):
        load_settings({"PYTHON_EXECUTION_BACKEND": text})


def test_installed_package_is_found_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", {"gpt_oss": "0.0.8"}.__getitem__)

    assert tool_server.gpt_oss_version() == Version("0.0.8")


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
