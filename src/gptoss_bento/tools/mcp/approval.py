"""Which calls need an approval of the client's, and what it has answered. Pure.

A call that needs one is not made: the response ends with an `mcp_approval_request`, and a later request brings an
`mcp_approval_response` that names it. Source: OpenAI's guide to the tool `mcp`; where it says nothing, the reason for
the choice is here.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from gptoss_bento.strict_json import shown
from gptoss_bento.tools.mcp.server import Approval, McpTool, Server

REQUEST, RESPONSE, CALL = "mcp_approval_request", "mcp_approval_response", "mcp_call"
_ANSWERS = "approval_request_id"
_ID_PREFIX = "mcpr_"

Item = Mapping[str, Any]


class ApprovalError(ValueError):
    """An item of the input answers no approval request that there is.

    Attributes:
        index: of the item.
        name: of the field that is wrong.
    """

    def __init__(self, index: int, name: str, message: str) -> None:
        super().__init__(message)
        self.index = index
        self.name = name


@dataclass(frozen=True)
class ApprovalRequest:
    """A call that waits for an approval.

    Attributes:
        arguments: as JSON, which is what will be called with.
    """

    id: str
    server_label: str
    name: str
    arguments: str

    def item(self) -> dict[str, Any]:
        """As an item of a response."""
        named = {"id": self.id, "type": REQUEST, "server_label": self.server_label}
        return {**named, "name": self.name, "arguments": self.arguments}


@dataclass(frozen=True)
class Decision:
    """What the client has answered to a request.

    Attributes:
        request: the call.
        reason: why not, in the client's words.
    """

    request: ApprovalRequest
    is_approved: bool
    reason: str | None = None

    def refusal(self) -> str:
        """What the model reads in place of a result, of a call that is not approved."""
        because = f": {self.reason}" if self.reason else "."
        return f"The user did not approve this call{because}"


def new_request(server_label: str, name: str, arguments: str) -> ApprovalRequest:
    """A request for the approval of a call, with a new id."""
    return ApprovalRequest(f"{_ID_PREFIX}{uuid4().hex}", server_label, name, arguments)


def needs_approval(tool: McpTool, server: Server) -> bool:
    """Whether a call needs an approval: if the operator or the request says so, and where neither says anything."""
    return any(_needs(tool, each) for each in server.require_approval) or not server.require_approval


def _needs(tool: McpTool, said: Approval) -> bool:
    """By one side. A tool that is on both lists needs one.

    A tool that is on none needs one unless there is only a list of those that do, which would mean nothing else.
    """
    if isinstance(said, str):
        return said == "always"
    if said.always is not None and said.always.matches(tool):
        return True
    if said.never is not None:
        return not said.never.matches(tool)
    return said.always is None


def decisions(items: Sequence[Item]) -> list[Decision]:
    """The answers in a conversation, in their order, without those whose calls were made.

    What is not approved stays among them: the model reads the refusal where the result would be, in each turn.

    Args:
        items: of the whole conversation, the request's input last.

    Raises:
        ApprovalError: an answer names no request before it, is the second one, or does not say which.
    """
    requests: dict[str, ApprovalRequest] = {}
    found: dict[str, Decision] = {}
    for index, item in enumerate(items):
        if item.get("type") == REQUEST:
            requests[str(item.get("id"))] = _request(item)
        elif item.get("type") == RESPONSE:
            decision = _decision(index, item, requests, found)
            found[decision.request.id] = decision
    made = {item.get(_ANSWERS) for item in items if item.get("type") == CALL}
    return [decision for decision in found.values() if decision.request.id not in made]


def unanswered(items: Sequence[Item]) -> list[ApprovalRequest]:
    """The requests that have no answer; the model cannot go on with them."""
    answered = {item.get(_ANSWERS) for item in items if item.get("type") in (RESPONSE, CALL)}
    return [_request(item) for item in items if item.get("type") == REQUEST and item.get("id") not in answered]


def _request(item: Item) -> ApprovalRequest:
    return ApprovalRequest(*(str(item.get(name) or "") for name in ("id", "server_label", "name", "arguments")))


def _decision(index: int, item: Item, requests: Mapping[str, ApprovalRequest], found: Container[str]) -> Decision:
    request_id = item.get(_ANSWERS)
    request = requests.get(request_id) if isinstance(request_id, str) else None
    if request is None:
        raise ApprovalError(
            index, _ANSWERS, f"{shown(request_id)} is no {REQUEST} of the input or of what it continues."
        )
    if request.id in found:
        raise ApprovalError(index, _ANSWERS, f"{shown(request_id)} has an answer already.")
    if not isinstance(approve := item.get("approve"), bool):
        raise ApprovalError(
            index, "approve", f"of the answer to {shown(request_id)} must be true or false, got {shown(approve)}."
        )
    reason = item.get("reason")
    return Decision(request, approve, reason if isinstance(reason, str) and reason.strip() else None)
