"""The events of a response whose tools this process runs. What is no call of theirs has vLLM's own events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gptoss_bento.engine.hosted.calls import DONE, Call, Event, Fields, listed
from gptoss_bento.engine.hosted.citations import StreamedCitations, citations_in
from gptoss_bento.engine.hosted.messages import text_of
from gptoss_bento.engine.hosted.turn import ToolTurn

_TEXT = "response.output_text"
_TEXT_CHANNELS = ("final", "commentary")


@dataclass(frozen=True)
class VllmEvents:
    """vLLM's functions that make events, and its state of a stream.

    Attributes:
        new_state: makes the state.
        delta: events of a piece of a message: gets the segment, the state, and the names of functions.
        done: events of the end of a message: gets it, the state, and the names.
        action: events of a call of a server of TOOL_SERVER's: gets the message, the state, and the server.
    """

    new_state: Callable[[], Any]
    delta: Callable[..., Iterable[Any]]
    done: Callable[..., Iterable[Any]]
    action: Callable[..., Iterable[Any]]


class HostedStream:
    """One stream.

    Args:
        turn: the tools of the response.
        vllm: how vLLM makes events.
        functions: the names of the request's functions.
        server: the tool server of vLLM's application.
    """

    def __init__(self, turn: ToolTurn, vllm: VllmEvents, functions: frozenset[str], server: Any) -> None:
        self._turn = turn
        self._vllm = vllm
        self._functions = functions
        self._server = server
        self._state = vllm.new_state()
        self._call: Call | None = None  # whose message is not complete
        self._citations = StreamedCitations(turn.cited)

    def lists(self) -> Iterator[Event]:
        """What comes first: the tools of MCP servers."""
        for item in self._turn.lists:
            yield from self._placed(listed(item))

    def read(self, segments: Iterable[Any], finish_reason: str | None) -> Iterator[Any]:
        """The events of what vLLM has read of the model's output, and of a call that has ended before it.

        Args:
            segments: of this chunk; those without a text and a message are of tokens between two messages.
            finish_reason: of the model's output, if it has ended with this chunk.
        """
        yield from self._settled(is_over=False)
        for segment in segments:
            if segment.delta:
                yield from self._settled(is_over=True)
                yield from self._delta(segment)
            elif segment.completed_message is not None:
                yield from self._settled(is_over=True)
                yield from self._complete(segment.completed_message, finish_reason)

    def end(self) -> Iterator[Event]:
        """The events of a call that has no result when the response ends."""
        yield from self._settled(is_over=True)

    def _settled(self, *, is_over: bool) -> Iterator[Event]:
        call = self._turn.current
        if call is None:
            return
        if not call.is_complete:  # approved by the client: the model wrote it in an earlier response
            yield from self._placed(call.complete(call.text))
        elif call.result is not None or is_over:
            self._turn.show(None)
            yield from self._placed(call.settle())

    def _delta(self, segment: Any) -> Iterator[Any]:
        if self._turn.handles(segment.recipient):
            self._call = self._call or self._turn.new_call(segment.recipient)
            yield from self._placed(self._call.delta(segment.delta))
            return
        yield from self._vllm.delta(segment, self._state, self._functions)
        if segment.recipient is None and segment.channel in _TEXT_CHANNELS:
            for number, annotation in self._citations.add(segment.delta):
                yield self._annotation(number, annotation)

    def _complete(self, message: Any, finish_reason: str | None) -> Iterator[Any]:
        if self._turn.handles(message.recipient):
            call, self._call = self._turn.completed(message, self._call, finish_reason), None
            will_run = self._turn.will_run(message, finish_reason)
            yield from self._placed(call.complete(text_of(message), will_run=will_run))
            self._turn.show(call)
            return
        cited = citations_in(text_of(message), self._turn.cited) if message.recipient is None else []
        place = self._state.current_output_index
        ends = [*self._vllm.done(message, self._state, self._functions)]
        ends += self._vllm.action(message, self._state, self._server)
        for event in ends:
            yield _with_annotations(event, cited) if cited else event
        self._citations = StreamedCitations(self._turn.cited)
        self._state.reset_for_new_item()
        if not ends:  # a message without a text has no events, and so no place in the output
            self._state.current_output_index = place

    def _placed(self, events: Iterable[Fields]) -> Iterator[Event]:
        """Events with their place in the output, which ends with an item."""
        for fields in events:
            yield Event({**fields, "output_index": self._state.current_output_index})
            if fields["type"] == DONE:
                self._state.reset_for_new_item()

    def _annotation(self, number: int, annotation: Fields) -> Event:
        state = self._state
        place = {"output_index": state.current_output_index, "content_index": state.current_content_index}
        named = {"item_id": state.current_item_id, "annotation_index": number, "annotation": annotation}
        return Event({"type": f"{_TEXT}.annotation.added", **place, **named})


def _with_annotations(event: Any, cited: list[Fields]) -> Any:
    """An event of vLLM's of the end of a text, with the citations of that."""
    fields = event.model_dump(mode="json", by_alias=True)
    for holder in (fields, *((fields.get("item") or {}).get("content") or ())):
        part = holder.get("part", holder)
        if part.get("type") == "output_text":
            part["annotations"] = cited
    return Event(fields)


def cited_item(item: Any, turn: ToolTurn) -> Any:
    """An item of vLLM's of a text, with its citations.

    Args:
        item: an object of OpenAI's SDK.
        turn: the tools of the response.
    """
    if item.type != "message":
        return item
    fields = item.model_dump(mode="json", by_alias=True)
    for part in fields["content"]:
        part["annotations"] = citations_in(part.get("text") or "", turn.cited)
    return fields
