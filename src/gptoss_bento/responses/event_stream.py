"""The events of one streamed response, made whole on their way. A delta is passed on as it is, without being parsed.

vLLM's application sends each event as one message. What is done to its events:

- objects and items are whole (responses/objects.py);
- the `done` of an item of the model's waits for the event after it, which says whether the answer was cut within it;
- the last event of an answer that was cut is `response.incomplete`;
- the final object has the items that were streamed;
- calls are of the kind of their tool (responses/tool_kinds.py), each event in the place of vLLM's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from gptoss_bento.responses.custom_input import StreamedInput, input_of
from gptoss_bento.responses.objects import ENDS_WITH_MODEL, incomplete_item, whole_item, whole_part
from gptoss_bento.responses.tool_kinds import NO_KINDS, ToolKinds, custom_id
from gptoss_bento.strict_json import dumps

DELTAS = (
    b"event: response.output_text.delta",
    b"event: response.reasoning_text.delta",
    b"event: response.function_call_arguments.delta",
    b"event: response.code_interpreter_call_code.delta",
    b"event: response.mcp_call_arguments.delta",
)
"""How the events begin of which there is one a token."""

_ADDED, _DONE = "response.output_item.added", "response.output_item.done"
_ARGUMENTS, _ALL_ARGUMENTS = "response.function_call_arguments.delta", "response.function_call_arguments.done"
_CUSTOM_INPUT = "response.custom_tool_call_input"
_ENDS = ("response.completed", "response.incomplete")
_DATA = b"data: "
Fields = dict[str, Any]


class EventStream:
    """One stream of vLLM's.

    Args:
        whole: makes an object whole.
        kinds: of the request's tools.
        returned: makes what a client gets of an item that is complete.
    """

    def __init__(
        self,
        whole: Callable[[Mapping[str, Any]], Fields],
        kinds: ToolKinds = NO_KINDS,
        returned: Callable[[Fields], Mapping[str, Any]] = dict,
    ) -> None:
        self._whole = whole
        self._returned = returned
        self._kinds = kinds
        self._input: StreamedInput | None = None
        self._held: Fields | None = None
        self._output: dict[int, Fields] = {}
        self.newest = b""
        """The newest event that was passed on unread."""
        self.started: Fields | None = None
        """The object of the first event."""
        self.final: Fields | None = None
        """The object of the last event, once that has come."""

    def passes(self, event: bytes) -> bool:
        """Whether an event of vLLM's is a delta that the client gets as it is; it counts as the newest then."""
        if not event.startswith(DELTAS) or self._input is not None:
            return False
        self.newest = event
        return True

    @property
    def output(self) -> list[Fields]:
        """The items that are complete."""
        held = {self._held["output_index"]: self._held["item"]} if self._held else {}
        return [item for _, item in sorted((self._output | held).items())]

    def feed(self, event: bytes) -> list[bytes]:
        """What is sent for an event of vLLM's that is not passed on as it is."""
        fields = parsed(event)
        if fields is None:
            return [event]
        self.newest = event
        sent = self._released(fields)
        changed = self._changed(fields)
        return sent if changed is None else [*sent, frame(changed)]

    def failed(self, error: Fields) -> list[bytes]:
        """The last events of a stream that broke; `final` is its object.

        Args:
            error: of the object.
        """
        number = (parsed(self.newest) or {}).get("sequence_number", -1) + 1
        released = self._released({"type": "response.failed"})
        self.final = {**(self.started or {}), "status": "failed", "error": error, "output": self.output}
        return [*released, frame({"type": "response.failed", "sequence_number": number, "response": self.final})]

    def _released(self, following: Mapping[str, Any]) -> list[bytes]:
        """The `done` that was held, now that the event after it is known."""
        held, self._held = self._held, None
        if held is None:
            return []
        if following["type"] in _ENDS and following["response"]["status"] == "incomplete":
            held["item"] = incomplete_item(held["item"])
        self._output[held["output_index"]] = held["item"]
        return [frame(held)]

    def _changed(self, fields: Fields) -> Fields | None:
        kind = fields["type"]
        if "response" in fields:
            return self._with_object(kind, fields)
        if "item" in fields:
            self._input = StreamedInput() if self._kinds.is_custom(fields["item"]) and kind == _ADDED else None
            fields["item"] = whole_item(self._kinds.returned(fields["item"]))
            if kind == _DONE:
                fields = {**fields, "item": dict(self._returned(fields["item"]))}
                if fields["item"].get("type") in ENDS_WITH_MODEL:
                    self._held = fields
                    return None
                self._output[fields["output_index"]] = fields["item"]
        elif kind in (_ARGUMENTS, _ALL_ARGUMENTS):
            return self._with_arguments(kind, fields)
        elif isinstance(fields.get("part"), dict):
            fields["part"] = whole_part(fields["part"])
        return fields

    def _with_arguments(self, kind: str, fields: Fields) -> Fields:
        """An event of a call's arguments, as one of the kind of its tool."""
        if self._input is None:
            tool = self._kinds.called.get(fields.get("name", ""))
            return {**fields, "name": tool.name} if tool else fields
        place = {name: fields[name] for name in ("sequence_number", "output_index")}
        made = {"item_id": custom_id(fields["item_id"]), **place}
        if kind == _ARGUMENTS:
            return {"type": f"{_CUSTOM_INPUT}.delta", **made, "delta": self._input.add(fields["delta"])}
        return {"type": f"{_CUSTOM_INPUT}.done", **made, "input": input_of(fields["arguments"])}

    def _with_object(self, kind: str, fields: Fields) -> Fields:
        made = self._whole(fields["response"])
        if kind not in _ENDS:
            self.started = self.started or made
            return {**fields, "response": made}
        made["output"] = self.output
        self.final = made
        name = "response.incomplete" if made["status"] == "incomplete" else kind  # vLLM 0.33 says so itself
        return {**fields, "type": name, "response": made}


def frame(fields: Mapping[str, Any]) -> bytes:
    """An event as it is sent."""
    return f"event: {fields['type']}\n".encode() + _DATA + dumps(fields).encode() + b"\n\n"


def data_of(event: bytes) -> str:
    """The JSON of an event as it is sent."""
    return event.partition(_DATA)[2].rstrip(b"\n").decode()


def parsed(event: bytes) -> Fields | None:
    """The fields of an event; None: it is none of /v1/responses."""
    _, found, data = event.partition(_DATA)
    try:
        fields = json.loads(data) if found else None
    except ValueError:
        return None
    return fields if isinstance(fields, dict) and isinstance(fields.get("type"), str) else None
