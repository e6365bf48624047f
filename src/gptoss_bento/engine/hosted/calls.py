"""A call of a tool that runs on the server, as an item of a response and its events, by OpenAI's schema. Pure.

An item has all that is known of the call, results included; responses/ leaves out what the client did not ask for.
"""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gptoss_bento.strict_json import dumps, loads

Fields = dict[str, Any]

ADDED, DONE = "response.output_item.added", "response.output_item.done"


class Event:
    """An event of a stream, as vLLM's code sends it on: with a number that is set later."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.fields = dict(fields)
        self.type: str = self.fields["type"]
        self.sequence_number = -1

    def model_dump_json(self, **_: Any) -> str:
        """The event as JSON."""
        return dumps({**self.fields, "sequence_number": self.sequence_number})


@dataclass(frozen=True)
class Result:
    """What a call has come to.

    Attributes:
        text: what the model reads.
        failed: whether the tool could not do what it was called for.
        action: what a browser has done, as its item has it.
        was_made: False: the tool has not been called, or was stopped.
        error: of an MCP server, as its item has it.
    """

    text: str
    failed: bool = False
    action: Mapping[str, Any] | None = None
    was_made: bool = True
    error: Mapping[str, Any] | None = None


class Call(ABC):
    """One call, from the first token of its arguments on.

    Attributes:
        id: of its item.
        text: what the model wrote for the tool.
        result: once there is one.
        is_complete: whether the model has ended its message.
    """

    prefix = ""

    def __init__(self) -> None:
        self.id = f"{self.prefix}_{uuid.uuid4().hex}"
        self.text = ""
        self.result: Result | None = None
        self.is_complete = False
        self._is_announced = False

    def write(self, text: str) -> None:
        """The model has written this."""
        self.text = text

    def end(self, result: Result) -> None:
        """It has been made, or will not be."""
        self.result = result

    def delta(self, text: str) -> list[Fields]:
        """Events of a piece of what the model writes, without their place."""
        return [*self._announcement(), *self.delta_events(text)]

    def complete(self, text: str, *, will_run: bool = True) -> list[Fields]:
        """Events of the end of the model's message, up to where the tool runs.

        Args:
            text: of the message.
            will_run: False: no bound lets it run.
        """
        self.text, self.is_complete = text, True
        return [*self._announcement(), *self.written_events(), *(self.running_events() if will_run else ())]

    def settle(self) -> list[Fields]:
        """Events of its end, with a result or without."""
        ended = self.end_events() if self.result is not None and self.result.was_made else []
        return [*ended, {"type": DONE, "item": self.item}]

    @property
    def status(self) -> str:
        """Of its item once it has ended."""
        if self.result is None or not self.result.was_made:
            return "incomplete"
        return "failed" if self.result.failed else "completed"

    def _announcement(self) -> list[Fields]:
        if self._is_announced:
            return []
        self._is_announced = True
        return [{"type": ADDED, "item": self.first_item}, *self.first_events()]

    @property
    @abstractmethod
    def first_item(self) -> Fields:
        """Its item before it has run."""

    @property
    @abstractmethod
    def item(self) -> Fields:
        """Its item once it has ended."""

    @abstractmethod
    def first_events(self) -> list[Fields]:
        """Events after the first item."""

    def delta_events(self, text: str) -> list[Fields]:
        """Events of a piece of text; none where the item does not show it."""
        del text
        return []

    def written_events(self) -> list[Fields]:
        """Events of the whole of what the model wrote; none where the item does not show it."""
        return []

    def running_events(self) -> list[Fields]:
        """Events before the tool runs."""
        return []

    @abstractmethod
    def end_events(self) -> list[Fields]:
        """Events after it has run."""

    @property
    def named(self) -> Fields:
        """The field by which events name the item."""
        return {"item_id": self.id}


class PythonCall(Call):
    """Code that the model runs.

    Args:
        container_id: where.
    """

    prefix = "ci"

    def __init__(self, container_id: str) -> None:
        super().__init__()
        self.container_id = container_id

    @property
    def first_item(self) -> Fields:
        return {**self._own, "status": "in_progress", "code": "", "outputs": []}

    @property
    def item(self) -> Fields:
        logs = [{"type": "logs", "logs": self.result.text}] if self.result and self.result.was_made else []
        return {**self._own, "status": self.status, "code": self.text, "outputs": logs}

    @property
    def _own(self) -> Fields:
        return {"id": self.id, "type": "code_interpreter_call", "container_id": self.container_id}

    def first_events(self) -> list[Fields]:
        return [{"type": "response.code_interpreter_call.in_progress", **self.named}]

    def delta_events(self, text: str) -> list[Fields]:
        return [{"type": "response.code_interpreter_call_code.delta", **self.named, "delta": text}]

    def written_events(self) -> list[Fields]:
        return [{"type": "response.code_interpreter_call_code.done", **self.named, "code": self.text}]

    def running_events(self) -> list[Fields]:
        return [{"type": "response.code_interpreter_call.interpreting", **self.named}]

    def end_events(self) -> list[Fields]:
        return [{"type": "response.code_interpreter_call.completed", **self.named}]


class BrowserCall(Call):
    """A search, a page, or a text within a page. Its item begins with the whole call, whose arguments it shows.

    Args:
        function: `search`, `open` or `find`.
    """

    prefix = "ws"

    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = function

    def delta(self, text: str) -> list[Fields]:
        """None: see the class."""
        del text
        return []

    @property
    def first_item(self) -> Fields:
        return {**self._own, "status": "in_progress", "action": self._asked_action()}

    @property
    def item(self) -> Fields:
        action = self.result.action if self.result else None
        return {**self._own, "status": self.status, "action": dict(action or self._asked_action())}

    @property
    def _own(self) -> Fields:
        return {"id": self.id, "type": "web_search_call"}

    def _asked_action(self) -> Fields:
        """What the model has asked for, which has no addresses of pages but those that it wrote."""
        asked = arguments_of(self.text) or {}
        if self.function == "open":
            address = asked.get("id")
            return {"type": "open_page", "url": address if isinstance(address, str) else ""}
        if self.function == "find":
            return {"type": "find_in_page", "pattern": str(asked.get("pattern", "")), "url": ""}
        query = str(asked.get("query", ""))
        return {"type": "search", "query": query, "queries": [query]}

    def first_events(self) -> list[Fields]:
        return [{"type": "response.web_search_call.in_progress", **self.named}]

    def running_events(self) -> list[Fields]:
        return [{"type": "response.web_search_call.searching", **self.named}]

    def end_events(self) -> list[Fields]:
        return [{"type": "response.web_search_call.completed", **self.named}]


class McpCall(Call):
    """A call of a tool of an MCP server.

    Args:
        label: of the server.
        name: of the tool.
        approval_id: of the request for approval that the client has answered, if there was one.
    """

    prefix = "mcp"

    def __init__(self, label: str, name: str, approval_id: str | None = None) -> None:
        super().__init__()
        self.label = label
        self.name = name
        self.approval_id = approval_id

    @property
    def first_item(self) -> Fields:
        return {**self._own, "status": "in_progress", "arguments": ""}

    @property
    def item(self) -> Fields:
        made = {**self._own, "status": self.status, "arguments": self.text}
        if self.result is None:
            return made
        if self.result.failed or not self.result.was_made:
            content = [{"type": "text", "text": self.result.text}]
            return {**made, "error": self.result.error or {"type": "mcp_tool_execution_error", "content": content}}
        return {**made, "output": self.result.text}

    @property
    def _own(self) -> Fields:
        own = {"id": self.id, "type": "mcp_call", "server_label": self.label, "name": self.name}
        return own | ({"approval_request_id": self.approval_id} if self.approval_id else {})

    def first_events(self) -> list[Fields]:
        return [{"type": "response.mcp_call.in_progress", **self.named}]

    def delta_events(self, text: str) -> list[Fields]:
        return [{"type": "response.mcp_call_arguments.delta", **self.named, "delta": text}]

    def written_events(self) -> list[Fields]:
        return [{"type": "response.mcp_call_arguments.done", **self.named, "arguments": self.text}]

    def end_events(self) -> list[Fields]:
        ended = "failed" if self.result is None or self.result.failed else "completed"
        return [{"type": f"response.mcp_call.{ended}", **self.named}]


class ApprovalCall(Call):
    """A call of a tool of an MCP server that the client must approve first: the response ends with the question."""

    prefix = "mcpr"

    def __init__(self, label: str, name: str) -> None:
        super().__init__()
        self.label = label
        self.name = name

    def delta(self, text: str) -> list[Fields]:
        """None: the question has no parts."""
        del text
        return []

    @property
    def first_item(self) -> Fields:
        return self.item

    @property
    def item(self) -> Fields:
        own = {"id": self.id, "type": "mcp_approval_request", "server_label": self.label}
        return {**own, "name": self.name, "arguments": self.text}

    def first_events(self) -> list[Fields]:
        return []

    def end_events(self) -> list[Fields]:
        return []


def listed(item: Fields) -> list[Fields]:
    """The events of an item `mcp_list_tools`, without their place."""
    named, ended = {"item_id": item["id"]}, "failed" if item.get("error") else "completed"
    return [
        {"type": ADDED, "item": {**item, "tools": []}},
        {"type": "response.mcp_list_tools.in_progress", **named},
        {"type": f"response.mcp_list_tools.{ended}", **named},
        {"type": DONE, "item": item},
    ]


def arguments_of(text: str) -> Fields | None:
    """The arguments that the model wrote; None: they are no object of JSON."""
    try:
        asked = loads(text or "{}")
    except ValueError:
        return None
    return asked if isinstance(asked, dict) else None
