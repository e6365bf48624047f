"""Kinds of values that settings of the tools have."""

from __future__ import annotations

import pytest

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.errors import ConfigurationError


def refusal(**variables: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(variables)
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "value"), [("on", "on"), ("OFF", "off"), ("Auto", "auto"), ("true", "on"), ("0", "off")]
)
def test_python_tool_is_on_off_or_auto_in_the_words_of_other_switches(text: str, value: str) -> None:
    assert load_settings({"PYTHON_TOOL": text}).server.python_tool == value


def test_python_tool_in_other_words_is_refused() -> None:
    assert refusal(PYTHON_TOOL="docker") == (
        "PYTHON_TOOL: the value 'docker' is not allowed; allowed: 'on', 'off' or 'auto'"
    )


@pytest.mark.parametrize(
    ("text", "domains"),
    [
        ("example.org, Sub.Example.COM.,", ("example.org", "sub.example.com")),
        (".example.org", ("example.org",)),
        ("bücher.example", ("xn--bcher-kva.example",)),
    ],
)
def test_domains_are_compared_in_ascii_and_small_letters(text: str, domains: tuple[str, ...]) -> None:
    assert load_settings({"BROWSER_BLOCKED_DOMAINS": text}).server.browser_blocked_domains == domains


@pytest.mark.parametrize(
    "text", ["https://example.org", "example.org/path", "a..b", "*.example.org", "-a.org", "x" * 64]
)
def test_domain_with_a_scheme_path_or_pattern_is_refused(text: str) -> None:
    assert "BROWSER_ALLOWED_DOMAINS: " in refusal(BROWSER_ALLOWED_DOMAINS=text)
    assert refusal(BROWSER_ALLOWED_DOMAINS=text).endswith("without scheme and path, with commas between them")


@pytest.mark.parametrize(
    "text", ["search.example.org", "ftp://a.b", "http://", "http://u:p@a.b", "http://a:0", "http://["]
)
def test_search_address_that_is_none_of_http_is_refused(text: str) -> None:
    assert "SEARCH_URL: " in refusal(SEARCH_URL=text)


def test_tools_that_call_others_or_run_code_are_off_by_default() -> None:
    server = ServerSettings()

    assert (server.python_tool, server.search_backend, server.browser_open) == (None, None, None)
    assert [server.mcp_request_servers, server.tools_private_addresses, server.mcp_servers] == [False, False, None]
