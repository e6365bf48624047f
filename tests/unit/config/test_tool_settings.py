"""Which tools settings ask for together, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.tool_choices import ToolChoices
from gptoss_bento.errors import ConfigurationError

KEY = "a-key-of-a-search-backend"


def tools(**variables: str) -> ToolChoices:
    return load_settings(variables).tools


def refusal(**variables: str) -> str:
    with pytest.raises(ConfigurationError) as refused:
        load_settings(variables)
    return str(refused.value)


def key_of(choices: ToolChoices) -> str | None:
    return choices.search_key.get_secret_value() if choices.search_key else None


def test_tools_are_all_off_by_default() -> None:
    assert tools() == ToolChoices()


@pytest.mark.parametrize(
    ("backend", "variable"),
    [("exa", "EXA_API_KEY"), ("you", "YDC_API_KEY"), ("brave", "BRAVE_API_KEY"), ("tavily", "TAVILY_API_KEY")],
)
def test_search_backend_takes_the_key_of_its_own_variable(backend: str, variable: str) -> None:
    found = tools(SEARCH_BACKEND=backend, **{variable: KEY})

    assert (found.search, found.search_origin, key_of(found)) == (backend, "SEARCH_BACKEND", KEY)
    assert (found.opens, found.opens_origin) == (True, "SEARCH_BACKEND")
    assert KEY not in repr(found)


def test_search_key_wins_over_that_of_the_backend() -> None:
    assert key_of(tools(SEARCH_BACKEND="exa", SEARCH_API_KEY=KEY, EXA_API_KEY="another one")) == KEY


def test_search_key_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")

    assert key_of(tools(SEARCH_BACKEND="brave", SEARCH_API_KEY_FILE=str(file))) == KEY


@pytest.mark.parametrize("backend", ["exa", "you", "brave", "tavily"])
def test_search_backend_without_its_key_is_refused(backend: str) -> None:
    other = "EXA_API_KEY" if backend != "exa" else "BRAVE_API_KEY"
    found = refusal(SEARCH_BACKEND=backend, **{other: KEY})

    assert f"SEARCH_BACKEND: the value '{backend}' is not allowed; allowed: {backend} with its key in" in found


@pytest.mark.parametrize("text", ["two words", "two\nlines", "schlüssel"])
def test_search_key_that_no_header_carries_is_refused_without_it(text: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(text)

    for found in (
        refusal(SEARCH_BACKEND="exa", EXA_API_KEY=text),
        refusal(SEARCH_BACKEND="exa", SEARCH_API_KEY_FILE=str(file)),
    ):
        assert "its value is not allowed; allowed: printable ASCII characters without spaces" in found
        assert text not in found


def test_searxng_needs_an_address_and_no_key() -> None:
    assert "allowed: searxng with its address in SEARCH_URL" in refusal(SEARCH_BACKEND="searxng")
    assert tools(SEARCH_BACKEND="searxng", SEARCH_URL="http://searxng:8080").search_key is None


def test_search_key_in_two_places_is_refused(tmp_path: Path) -> None:
    found = refusal(SEARCH_BACKEND="exa", SEARCH_API_KEY=KEY, SEARCH_API_KEY_FILE=str(tmp_path))

    assert found.endswith("allowed: one of SEARCH_API_KEY and SEARCH_API_KEY_FILE, not both")
    assert KEY not in found


def test_search_key_file_that_cannot_be_read_is_refused_once(tmp_path: Path) -> None:
    found = refusal(SEARCH_BACKEND="exa", SEARCH_API_KEY_FILE=str(tmp_path / "none"))

    assert found.endswith("none: No such file or directory)")
    assert found.count("\n") == 0


@pytest.mark.parametrize(
    ("variables", "warning"),
    [
        ({"EXA_API_KEY": KEY}, "EXA_API_KEY has no effect without SEARCH_BACKEND=exa."),
        ({"SEARCH_API_KEY": KEY}, "SEARCH_API_KEY has no effect without SEARCH_BACKEND."),
        ({"SEARCH_URL": "https://a.example"}, "SEARCH_URL has no effect without SEARCH_BACKEND."),
        (
            {"BROWSER_BLOCKED_DOMAINS": "a.example"},
            "BROWSER_BLOCKED_DOMAINS has no effect without SEARCH_BACKEND or BROWSER_OPEN.",
        ),
    ],
)
def test_setting_without_the_tool_it_belongs_to_is_a_warning(variables: dict[str, str], warning: str) -> None:
    assert load_settings(variables).warnings == (warning,)


def test_pages_can_be_opened_without_a_search_and_not_with_one() -> None:
    alone = tools(BROWSER_OPEN="1")

    assert (alone.search, alone.opens, alone.opens_origin) == (None, True, "BROWSER_OPEN")
    assert not tools(SEARCH_BACKEND="exa", EXA_API_KEY=KEY, BROWSER_OPEN="0").opens


def test_mcp_servers_are_read_from_their_file(tmp_path: Path) -> None:
    file = tmp_path / "servers.yaml"
    file.write_text("weather: {url: 'https://a.example/mcp', headers: {Authorization: 'Bearer ${WEATHER_TOKEN}'}}\n")

    (server,) = tools(MCP_SERVERS=str(file), WEATHER_TOKEN=KEY).mcp_servers

    assert (server.label, server.headers["Authorization"]) == ("weather", f"Bearer {KEY}")


def test_problems_of_the_file_of_mcp_servers_are_named_together_with_its_variable(tmp_path: Path) -> None:
    file = tmp_path / "servers.yaml"
    file.write_text("a: {}\nb: {url: 'https://b.example/mcp', headers: {X: '${NO_SUCH}'}}\n")

    first, second = refusal(MCP_SERVERS=str(file)).splitlines()

    assert first.startswith(f"MCP_SERVERS: the value '{file}' is not allowed; allowed: a file of MCP servers; a")
    assert "NO_SUCH" in second


def test_file_of_mcp_servers_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "none.yaml: No such file or directory" in refusal(MCP_SERVERS=str(tmp_path / "none.yaml"))
