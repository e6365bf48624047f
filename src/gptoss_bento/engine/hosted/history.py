"""Earlier calls of tools that run on the server, among the items of an input, as the model reads them again.

A turn that has come to its answer has no reasoning in a later prompt, and what GPT-OSS calls while it reasons (Python
and the browser) goes with it; so their items are left out, as Harmony itself does. Where the turn is open, code is
there with its output, if the item has that. Calls of MCP servers are in the channel of functions, and stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gptoss_bento.engine.hosted.calls import McpCall
from gptoss_bento.engine.hosted.messages import call_message, mcp_call_message, result_message
from gptoss_bento.engine.hosted.options import is_container
from gptoss_bento.engine.hosted.turn import Pending
from gptoss_bento.strict_json import shown
from gptoss_bento.tools.interfaces import Decision, ToolRefusedError

KINDS = frozenset(
    {
        "code_interpreter_call",
        "web_search_call",
        "mcp_call",
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
    }
)
"""Types of items that vLLM reads nowhere."""
_MARK = "<|"  # of Harmony's format, whose encoding refuses it in a name
_NO_RESULT = "There is no result of this call."

Fields = Mapping[str, Any]


def is_hosted(item: Any) -> bool:
    """Whether an item, as vLLM's request has it, is of one of these types."""
    kind = item.get("type") if isinstance(item, dict) else getattr(item, "type", None)
    return kind in KINDS


def as_fields(item: Any) -> Fields:
    """An item as its fields; vLLM has some as objects of OpenAI's SDK."""
    return item if isinstance(item, dict) else item.model_dump(mode="json")


def container_in(items: Sequence[Fields]) -> str | None:
    """The container of the newest code among the items, which are the client's: another text is no id."""
    named = (item.get("container_id") for item in reversed(items) if item.get("type") == "code_interpreter_call")
    return next((name for name in named if is_container(name)), None)


class History:
    """The items of an input with those of hosted tools as messages.

    Args:
        items: of the request.
        decisions: of the client, on calls that wait.

    Raises:
        ToolRefusedError: the name of an earlier call cannot be written.

    Attributes:
        items: for vLLM.
        pending: calls that were approved.
    """

    def __init__(self, items: Sequence[Any], decisions: Sequence[Decision] = ()) -> None:
        self._decisions = {each.request.id: each for each in decisions}
        self.pending: list[Pending] = []
        self.items = [made for item in items for made in self._read(item)]

    def _read(self, item: Any) -> Iterator[Any]:
        if not is_hosted(item):
            yield item
            return
        fields = as_fields(item)
        if fields["type"] == "mcp_call":
            call = _mcp_message(fields)
            yield from (call, result_message(call, _result_of(fields)))
        elif fields["type"] == "code_interpreter_call" and (logs := _logs_of(fields)):
            call = call_message("python", str(fields.get("code") or ""), "analysis", "code")
            yield from (call, result_message(call, logs))
        elif (decision := self._decisions.get(str(fields.get("id")))) and fields["type"] == "mcp_approval_request":
            yield from self._decided(fields, decision)

    def _decided(self, fields: Fields, decision: Decision) -> Iterator[Any]:
        message = _mcp_message(fields)
        yield message
        if decision.is_approved:
            asked = decision.request
            call = McpCall(asked.server_label, asked.name, asked.id)
            self.pending.append(Pending(message, call))
        else:
            yield result_message(message, decision.refusal())


def _mcp_message(fields: Fields) -> Any:
    """The call of an item.

    Raises:
        ToolRefusedError: a name of it cannot be written in Harmony's format.
    """
    for name in ("server_label", "name"):
        if _MARK in str(fields.get(name)):
            where = f"input: {name} of the {fields['type']} {shown(fields.get('id'))}"
            raise ToolRefusedError("input", f"{where} must have no {_MARK}, got {shown(fields[name])}.")
    return mcp_call_message(*(str(fields.get(name) or "") for name in ("server_label", "name", "arguments")))


def _result_of(call: Fields) -> str:
    if isinstance(output := call.get("output"), str):
        return output
    error = call.get("error")
    if isinstance(error, str):
        return error
    said = error if isinstance(error, dict) else {}
    content = said.get("content")
    texts = (
        [str(part.get("text", "")) for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    )
    return "\n".join(texts) or str(said.get("message") or _NO_RESULT)


def _logs_of(call: Fields) -> str:
    outputs = call.get("outputs")
    parts = outputs if isinstance(outputs, list) else []
    return "\n".join(str(part["logs"]) for part in parts if isinstance(part, dict) and part.get("type") == "logs")
