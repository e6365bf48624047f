from __future__ import annotations

from gptoss_bento.responses.request import read_create, readable

ANSWER = {"type": "mcp_approval_response", "approval_request_id": "mcpr_1", "approve": True}


def test_history_without_what_says_nothing_to_a_model() -> None:
    kinds = [
        "message",
        "web_search_call",
        "code_interpreter_call",
        "mcp_list_tools",
        "mcp_call",
        "mcp_approval_request",
    ]

    left = [item["type"] for item in readable([{"type": kind} for kind in kinds])]

    assert left == ["message", "code_interpreter_call", "mcp_call", "mcp_approval_request"]


def test_approval_gets_an_id_and_no_status() -> None:
    (item,) = read_create({"input": [ANSWER]}).items({})

    assert item["id"].startswith("mcpa_")
    assert {name: value for name, value in item.items() if name != "id"} == ANSWER
