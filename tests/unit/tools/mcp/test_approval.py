"""Approvals: which calls need one, and what a later request says of them."""

from __future__ import annotations

from typing import Any

import pytest

from gptoss_bento.tools.mcp.approval import ApprovalError, decisions, needs_approval, new_request, unanswered
from gptoss_bento.tools.mcp.server import Approval, ApprovalFilter, McpTool, Server, ToolFilter

READ = McpTool("read", "", {}, annotations={"readOnlyHint": True})
WRITE = McpTool("write", "", {})
ONLY_READ, ONLY_WRITE = ToolFilter(frozenset({"read"})), ToolFilter(frozenset({"write"}))


@pytest.mark.parametrize(
    ("said", "needed"),
    [
        ((), {"read", "write"}),
        (("never",), set()),
        (("always",), {"read", "write"}),
        (("never", "always"), {"read", "write"}),
        (("always", "never"), {"read", "write"}),
        ((ApprovalFilter(),), {"read", "write"}),
        ((ApprovalFilter(never=ONLY_READ),), {"write"}),
        ((ApprovalFilter(always=ONLY_WRITE),), {"write"}),
        ((ApprovalFilter(always=ONLY_READ, never=ONLY_READ),), {"read", "write"}),
        ((ApprovalFilter(never=ToolFilter(read_only=True)),), {"write"}),
        (("never", ApprovalFilter(never=ONLY_READ)), {"write"}),
        ((ApprovalFilter(never=ONLY_READ), ApprovalFilter(never=ONLY_WRITE)), {"read", "write"}),
    ],
)
def test_approval_is_needed_if_operator_or_request_says_so_or_neither_says_anything(
    said: tuple[Approval, ...], needed: set[str]
) -> None:
    server = Server("files", "https://files.test", require_approval=said)

    assert {tool.name for tool in (READ, WRITE) if needs_approval(tool, server)} == needed


def asked(number: int = 1) -> dict[str, Any]:
    named = {"server_label": "files", "name": "write", "arguments": '{"n":1}'}
    return {"type": "mcp_approval_request", "id": f"mcpr_{number}", **named}


def answered(number: int = 1, approve: Any = True, **others: Any) -> dict[str, Any]:
    return {"type": "mcp_approval_response", "approval_request_id": f"mcpr_{number}", "approve": approve, **others}


def made(number: int = 1) -> dict[str, Any]:
    return {"type": "mcp_call", "id": "mcp_1", "approval_request_id": f"mcpr_{number}"}


def test_approval_request_is_an_item_with_an_id_of_its_own() -> None:
    first, second = (new_request("files", "write", '{"n":1}') for _ in range(2))

    assert first.item() == {**asked(), "id": first.id}
    assert first.id.startswith("mcpr_")
    assert first.id != second.id


def test_approved_call_is_the_one_that_was_asked_for() -> None:
    [decision] = decisions([{"type": "message"}, asked(), answered()])

    assert decision.is_approved
    assert decision.request.item() == asked()


def test_call_that_was_made_is_not_made_again() -> None:
    assert decisions([asked(), answered(), made(), asked(2), answered(2)])[0].request.id == "mcpr_2"
    assert decisions([asked(), answered(), made()]) == []


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ({"reason": "not today"}, "The user did not approve this call: not today"),
        ({}, "The user did not approve this call."),
        ({"reason": " "}, "The user did not approve this call."),
    ],
)
def test_refusal_is_for_the_model(reason: dict[str, Any], text: str) -> None:
    [decision] = decisions([asked(), answered(approve=False, **reason)])

    assert not decision.is_approved
    assert decision.refusal() == text


@pytest.mark.parametrize(
    ("items", "index", "name", "message"),
    [
        ([answered()], 0, "approval_request_id", '"mcpr_1" is no mcp_approval_request'),
        ([answered(), asked()], 0, "approval_request_id", '"mcpr_1" is no mcp_approval_request'),
        ([asked(), answered(2)], 1, "approval_request_id", '"mcpr_2" is no mcp_approval_request'),
        ([asked(), answered(), answered(approve=False)], 2, "approval_request_id", "has an answer already"),
        ([asked(), answered(approve="yes")], 1, "approve", 'must be true or false, got "yes"'),
        ([asked(), {"type": "mcp_approval_response"}], 1, "approval_request_id", "null is no mcp_approval_request"),
    ],
)
def test_answer_to_no_request_is_an_error_with_its_place(
    items: list[dict[str, Any]], index: int, name: str, message: str
) -> None:
    with pytest.raises(ApprovalError, match=message) as raised:
        decisions(items)

    assert (raised.value.index, raised.value.name) == (index, name)


def test_requests_without_an_answer_are_listed() -> None:
    items = [asked(1), answered(1), asked(2), made(3), asked(3)]

    assert [request.id for request in unanswered(items)] == ["mcpr_2"]
