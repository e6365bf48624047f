"""The YAML file of MCP servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.mcp_servers import McpServersError, read_servers
from gptoss_bento.config.tool_choices import McpServer
from gptoss_bento.errors import ConfigurationError

FILE = """
weather:
  url: https://weather.example.org/mcp
  headers: {Authorization: "Bearer ${WEATHER_TOKEN}"}
  allowed_tools: [forecast]
  require_approval: never
  description: Weather of the next week.
files:
  url: http://files:8001/sse
"""
SECRET = "a secret of the weather"


def problems(text: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(McpServersError) as refused:
        read_servers(text, environ)
    return refused.value.problems


def test_servers_are_read_with_their_secrets() -> None:
    weather, files = read_servers(FILE, {"WEATHER_TOKEN": SECRET})

    assert weather == McpServer(
        "weather",
        "https://weather.example.org/mcp",
        {"Authorization": f"Bearer {SECRET}"},
        ("forecast",),
        "never",
        "Weather of the next week.",
    )
    assert files == McpServer("files", "http://files:8001/sse")
    assert SECRET not in repr(weather)


def test_secret_of_a_header_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{SECRET}\n")
    text = f"a: {{url: 'http://a', headers: {{X-Key: '${{file:{tmp_path}/token}}'}}}}"

    assert read_servers(text, {})[0].headers == {"X-Key": SECRET}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it must have one entry a server"),
        ("[", "it is not YAML (line 1"),
        ("a: {url: 'http://a'}\na: {url: 'http://b'}", "a occurs twice"),
        ("python: {url: 'http://a'}", "python: this label means a tool that is no MCP server"),
        ("a b: {url: 'http://a'}", "a label must be of letters"),
        ("7: {url: 'http://a'}", "a label must be of letters"),
        ("a: http://a", "a: must have `url:` below it"),
        ("a: {headers: {}}", "a: url is missing"),
        ("a: {url: a:1}", "a: url must be an address such as https://"),
        ("a: {url: 'http://u:p@a'}", "a: url must be an address such as https://"),
        ("a: {url: 'http://a', alowed_tools: []}", "a: alowed_tools is unknown; did you mean allowed_tools?"),
        ("a: {url: 'http://a', allowed_tools: x}", "a: allowed_tools must be a list of names of tools"),
        ("a: {url: 'http://a', require_approval: maybe}", "a: require_approval must be always or never"),
        ("a: {url: 'http://a', headers: {X: '${NONE}'}}", "a: headers: ${NONE} is not set"),
        ("a: {url: 'http://a', headers: {X: '${file:/no/file}'}}", "a: headers: /no/file: No such file"),
        ("a: {url: 'http://a', headers: {'X Y': b}}", "a: headers: a name is none of a header"),
        ('a: {url: "http://a", headers: {X: "b\\nc"}}', "a: headers: a value must be of printable ASCII"),
    ],
)
def test_server_that_is_wrong_is_named_with_the_reason(text: str, problem: str) -> None:
    (found,) = problems(text)

    assert found.startswith(problem)


def test_problems_show_no_value_of_a_header() -> None:
    (found,) = problems(f"a: {{url: 'http://a', headers: {{X: ['{SECRET}']}}}}")

    assert found == "a: headers must be texts under names of headers"


def test_problems_of_the_file_are_named_together_with_its_variable(tmp_path: Path) -> None:
    (tmp_path / "servers.yaml").write_text("a: {}\nb: {}\n")

    with pytest.raises(ConfigurationError) as refused:
        load_settings({"MCP_SERVERS": str(tmp_path / "servers.yaml")})

    first, second = str(refused.value).splitlines()
    assert first.endswith("allowed: a file of MCP servers; a: url is missing")
    assert second.endswith("allowed: a file of MCP servers; b: url is missing")


def test_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"MCP_SERVERS: .*none.yaml: No such file or directory"):
        load_settings({"MCP_SERVERS": str(tmp_path / "none.yaml")})
