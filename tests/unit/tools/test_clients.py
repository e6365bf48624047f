"""The runner of clients: what its scripts print is read, and two runs are compared."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tools.clients.catalogue import CLIENTS, NODE, SCRIPTS, Client, named
from tools.clients.environments import variables
from tools.clients.results import Result, as_json, from_json, lost, merged, read_checks, table

SHARED = {"checks.py", "checks.mjs"}
BEFORE = Result("llm", "llm 0.36", {"text": None, "tool": "no call", "gone": None})
NOW = Result("llm", "llm 0.36", {"text": "no text: None", "tool": None, "new": "404"})


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_client_has_a_script_and_each_package_a_version(client: Client) -> None:
    pinned = re.compile(r".@\d[\w.]*$" if client.on_node else r".==\d[\w.]*$")

    assert (SCRIPTS / client.script).is_file()
    assert [package for package in client.packages if not pinned.search(package)] == []


def test_scripts_belong_to_a_client_each() -> None:
    files = {path.name for path in SCRIPTS.iterdir() if path.is_file()}

    assert files == {client.script for client in CLIENTS} | SHARED


def test_names_of_clients_differ() -> None:
    assert len({client.name for client in CLIENTS}) == len(CLIENTS)


@pytest.mark.parametrize(
    ("client", "version"),
    [
        (Client("a", "a.py", ("pydantic-ai-slim[openai]==2.68.0",)), "pydantic-ai-slim 2.68.0"),
        (Client("b", "b.mjs", ("@openai/agents@0.20.0", "zod@4")), "@openai/agents 0.20.0"),
    ],
)
def test_version_is_that_of_the_first_package(client: Client, version: str) -> None:
    assert client.version == version


def test_clients_are_all_or_those_named() -> None:
    assert named([]) == CLIENTS
    assert [client.name for client in named(["llm", "codex"])] == ["llm", "codex"]
    with pytest.raises(ValueError, match=r"no client curl; there are openai-chat, .*llm"):
        named(["curl"])


def test_checks_are_the_lines_that_a_script_prints_for_them() -> None:
    output = "warning: slow\nok text\nFAIL tool: AssertionError: no call\nok: not one\n1 of 2\n"

    assert read_checks(output) == {"text": None, "tool": "AssertionError: no call"}


@pytest.mark.parametrize(
    ("output", "reason"),
    [("ok text\nSegmentation fault\n", "did not end by itself: Segmentation fault"), ("", "no output")],
)
def test_checks_of_a_script_that_stopped_early_have_a_failed_end(output: str, reason: str) -> None:
    assert reason in (read_checks(output)["end"] or "")


def test_table_has_the_score_and_what_fails() -> None:
    assert table([NOW], {}).splitlines()[-1] == "| `llm` | llm 0.36 | 1 of 3 | text, new |"


def test_table_compares_with_an_earlier_run() -> None:
    other = Result("codex", "codex 1", {"text": None})

    assert table([NOW, other], {"llm": BEFORE}).splitlines() == [
        "| client | version | before | now | fails |",
        "| --- | --- | --- | --- | --- |",
        "| `llm` | llm 0.36 | 2 of 3 | 1 of 3 | text, new |",
        "| `codex` | codex 1 | – | 1 of 1 | – |",
    ]


def test_lost_checks_were_right_before_and_are_not_now() -> None:
    assert list(lost([NOW], {"llm": BEFORE})) == ["llm text: no text: None"]
    assert list(lost([NOW], {})) == []


def test_results_survive_a_file() -> None:
    assert from_json(json.loads(json.dumps(as_json([NOW])))) == {"llm": NOW}


def test_results_of_other_clients_stay_in_the_file() -> None:
    other = Result("codex", "codex 1", {"text": None})

    assert list(merged({"codex": other, "llm": BEFORE}, [NOW])) == [other, NOW]


def test_variables_of_a_client_have_no_key_of_the_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "the user's")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy")

    given = variables(Client("a", "a.mjs", ("a@1",), {"PROVIDER": "openai"}), tmp_path, tmp_path / "node")

    assert not {"OPENAI_API_KEY", "HTTPS_PROXY"} & given.keys()
    assert given["PROVIDER"] == "openai"
    assert given["PATH"].startswith(str(tmp_path / "node"))
    assert Path(given["HOME"]).is_relative_to(tmp_path)


def test_node_is_new_enough_for_every_client() -> None:
    assert int(NODE.partition("@")[2].split(".")[0]) >= 22
