"""The events of a stored response whose own ones were not stored: made again from its object.

They are those of a stream that had each item in one piece, with numbers of their own: the deltas of the response's own
stream, which its numbers count, are not known. They are the same each time, so a client can go on after any of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import Any

from gptoss_bento.background.store_retries import until_available
from gptoss_bento.responses.event_stream import frame
from gptoss_bento.state.response import ResponseStatus
from gptoss_bento.state.response_store import ResponseStore
from gptoss_bento.strict_json import loads_stored

Fields = dict[str, Any]

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 1.0  # between two looks at a response that runs
_UNSTARTED: Fields = {"completed_at": None, "error": None, "incomplete_details": None, "usage": None, "output": []}
_EMPTY: Mapping[str, Fields] = {
    "message": {"content": []},
    "reasoning": {"content": []},
    "function_call": {"arguments": ""},
    "custom_tool_call": {"input": ""},
}
_ENDS = (ResponseStatus.COMPLETED, ResponseStatus.INCOMPLETE, ResponseStatus.FAILED)  # none says that it was cancelled


async def replay(
    store: ResponseStore,
    owner: str,
    response_id: str,
    start: int,
    is_left: Callable[[ResponseStatus], bool] = lambda _: False,
) -> AsyncIterator[bytes]:
    """The events of a response from the position `start` on; one that runs is waited for.

    The answer has started: a store that is away is waited for, until the client leaves.

    Args:
        store: of the responses.
        owner: of the response.
        response_id: its id.
        start: a position.
        is_left: whether a response in this state is no longer waited for, as the service stops.
    """
    position, pause_s = start, _SHORTEST_PAUSE_S
    while found := await until_available(partial(store.get, owner, response_id)):
        if found.status is not ResponseStatus.QUEUED:
            events = list(events_of(loads_stored(found.body)))
            for event in events[position:]:
                yield frame(event)
            position = max(position, len(events))
        if found.status.is_terminal or is_left(found.status):
            return
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def events_of(made: Mapping[str, Any]) -> Iterator[Fields]:
    """The events that lead to a response's object, as far as it has come.

    Args:
        made: the whole object.
    """
    for number, event in enumerate(_events(made)):
        yield {**event, "sequence_number": number}


def _events(made: Mapping[str, Any]) -> Iterator[Fields]:
    started = {**made, **_UNSTARTED, "status": "in_progress"}
    yield {"type": "response.created", "response": started}
    yield {"type": "response.in_progress", "response": started}
    for index, item in enumerate(made["output"]):
        yield from _item(item, index)
    if made["status"] in _ENDS:
        yield {"type": f"response.{made['status']}", "response": made}


def _item(item: Mapping[str, Any], index: int) -> Iterator[Fields]:
    yield {"type": "response.output_item.added", "output_index": index, "item": _begun(item)}
    place = {"item_id": item.get("id", ""), "output_index": index}
    if item.get("type") == "function_call":
        yield from _pieces("response.function_call_arguments", place, "arguments", item, {"name": item["name"]})
    if item.get("type") == "custom_tool_call":
        yield from _pieces("response.custom_tool_call_input", place, "input", item, {})
    content = item.get("content") if item.get("type") in ("message", "reasoning") else None
    for number, part in enumerate(content or ()):
        yield from _part(part, {**place, "content_index": number})
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _begun(item: Mapping[str, Any]) -> Fields:
    """An item of which nothing has come yet."""
    started = {"status": "in_progress"} if "status" in item else {}
    kept = {name: value for name, value in item.items() if name != "encrypted_content"}
    return {**kept, **_EMPTY.get(str(item.get("type")), {}), **started}


def _part(part: Mapping[str, Any], place: Fields) -> Iterator[Fields]:
    kind = part.get("type")
    more = {"logprobs": part.get("logprobs") or []} if kind == "output_text" else {}
    empty = {**part, "text": "", **({"annotations": [], "logprobs": []} if kind == "output_text" else {})}
    yield {"type": "response.content_part.added", **place, "part": empty}
    yield from _pieces(f"response.{kind}", place | more, "text", part, {})
    yield {"type": "response.content_part.done", **place, "part": part}


def _pieces(kind: str, place: Fields, field: str, of: Mapping[str, Any], more: Fields) -> Iterator[Fields]:
    """A text in one delta, and its end."""
    if of[field]:
        yield {"type": f"{kind}.delta", **place, "delta": of[field]}
    yield {"type": f"{kind}.done", **place, **more, field: of[field]}
