"""Checks of the tools that are on."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.settings import Settings
from gptoss_bento.doctor.finding import Finding, Severity, exit_code
from gptoss_bento.doctor.tools import check_mcp_server, check_python, check_search, compute_confined
from gptoss_bento.tools.browser.fake_search import WRONG_KEY, FakeSearch
from gptoss_bento.tools.mcp.server import Server
from gptoss_bento.tools.python import confinement
from tests.mcp_server import mcp_server
from tests.waiting import HANG_S

KEY = "a-key-of-a-search-backend"
OLD_KERNEL = "the kernel has no Landlock"


def settings(**variables: str) -> Settings:
    return load_settings(variables)


def python(problem: str | None, answer: str, **variables: str) -> list[Finding]:
    return list(check_python(settings(**variables), lambda: problem, lambda _: answer))


def test_python_that_is_off_is_not_checked() -> None:
    assert python(OLD_KERNEL, "") == []


def test_python_that_computes_is_fine() -> None:
    (finding,) = python(None, "62\n", PYTHON_TOOL="on")

    assert finding.severity is Severity.OK
    assert finding.found.endswith("print(2**200 % 97) is 62")


def test_python_that_computes_something_else_is_a_warning() -> None:
    (finding,) = python(None, "[Python could not be started: no process]", PYTHON_TOOL="on")

    assert finding.severity is Severity.WARNING
    assert "no process" in finding.found


@pytest.mark.parametrize(("name", "value"), [("PYTHON_TOOL", "on"), ("TOOL_SERVER", "demo")])
def test_python_that_cannot_be_confined_is_an_error_where_it_was_asked_for(name: str, value: str) -> None:
    (finding,) = python(OLD_KERNEL, "", **{name: value})

    assert finding.found.startswith(name)
    assert finding.found.endswith(OLD_KERNEL)
    assert exit_code([finding]) == 78


def test_python_that_cannot_be_confined_is_a_note_where_it_was_left_to_the_kernel() -> None:
    (finding,) = python(OLD_KERNEL, "", PYTHON_TOOL="auto")

    assert (finding.severity, finding.found) == (Severity.NOTE, f"off: {OLD_KERNEL}")


@pytest.mark.skipif(confinement.problem() is not None, reason=f"cannot confine here: {confinement.problem()}")
def test_python_computes_in_a_confined_child() -> None:
    asked = settings(PYTHON_TOOL="on")

    (finding,) = check_python(asked, confinement.problem, compute_confined(asked, HANG_S))

    assert finding.severity is Severity.OK


def search(url: str, network: bool = True, search: bool = False) -> list[Finding]:
    asked = settings(SEARCH_BACKEND="exa", EXA_API_KEY=KEY, SEARCH_URL=url)
    return list(check_search(asked, HANG_S, network, search))


def test_search_that_is_off_is_not_checked() -> None:
    assert list(check_search(settings(), HANG_S, True, True)) == []


def test_search_backend_that_is_reached_is_not_sent_a_search() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        (finding,) = search(f"http://127.0.0.1:{listener.getsockname()[1]}")

    assert finding.severity is Severity.OK
    assert finding.found.endswith("its key was not tried (--search)")


def test_search_backend_that_is_away_is_a_warning_without_its_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    (finding,) = search(f"http://127.0.0.1:{port}", search=True)

    assert finding.severity is Severity.WARNING
    assert "cannot be reached" in finding.found
    assert KEY not in finding.found


def test_search_backend_is_not_asked_without_network() -> None:
    (finding,) = search("http://no.such.host", network=False)

    assert (finding.severity, finding.found) == (Severity.NOTE, "exa not asked (--offline)")


@pytest.mark.parametrize(
    ("key", "severity", "found"),
    [(KEY, Severity.OK, "exa gave 1 results for one search"), (WRONG_KEY, Severity.WARNING, "exa did not search")],
)
def test_search_backend_that_is_sent_a_search_shows_whether_the_key_is_right(
    key: str, severity: Severity, found: str
) -> None:
    with FakeSearch() as fake:
        asked = settings(SEARCH_BACKEND="exa", EXA_API_KEY=key, SEARCH_URL=f"{fake.url}/exa")
        (finding,) = check_search(asked, HANG_S, network=True, search=True)

    assert (finding.severity, finding.found[: len(found)]) == (severity, found)
    assert key not in finding.found


def configured(tmp_path: Path, text: str) -> Server:
    file = tmp_path / "servers.yaml"
    file.write_text(text)
    (server,) = settings(MCP_SERVERS=str(file)).tools.mcp_servers
    return server


@pytest.mark.parametrize(
    ("allowed", "severity", "found"),
    [
        ("[python]", Severity.OK, "calculator offers python"),
        ("[divide]", Severity.WARNING, "calculator offers no tool"),
    ],
)
def test_mcp_server_is_named_with_the_tools_that_it_offers(
    tmp_path: Path, allowed: str, severity: Severity, found: str
) -> None:
    with mcp_server(tmp_path) as running:
        place = f"url: 'http://{running.address}/sse', private: true"
        server = configured(tmp_path, f"calculator: {{{place}, allowed_tools: {allowed}}}")

        (finding,) = check_mcp_server(server, HANG_S, network=True)

    assert (finding.severity, finding.found) == (severity, found)


def test_mcp_server_that_is_away_is_a_warning(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = configured(tmp_path, f"weather: {{url: 'http://127.0.0.1:{port}/mcp', private: true}}")

    (finding,) = check_mcp_server(server, HANG_S, network=True)
    (unasked,) = check_mcp_server(server, HANG_S, network=False)

    assert finding.severity is Severity.WARNING
    assert finding.found.startswith("weather: ")
    assert unasked.found == "weather not asked (--offline)"
