"""`truncation: "auto"`: turns in the middle of a conversation that is too long are left out, each as a whole.

The first turn says what it is about, and the last is the question; so the second turn goes first, then the third. What
instructs the model stays. vLLM would cut tokens, those of the instructions first, and leave no room for the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import httpx
from starlette.types import ASGIApp

from gptoss_bento.http.paths import INPUT_TOKENS
from gptoss_bento.strict_json import loads_stored

_INSTRUCTING = ("system", "developer")
_ROOM = 4096
"""For an answer without `max_output_tokens`: its reasoning comes first."""
_LARGEST_PART = 2  # half of the context is the most that is kept free for an answer that names a length
_LARGEST_PART_UNASKED = 4
_OF_FORMAT = 256  # tokens of a prompt that no byte of the request is for, such as the system message

_LONGEST_TOKEN = 16
"""Characters of a token, on average, in texts that are longest for their tokens: prose has 4 to 5, code fewer."""

_ENGINE = "http://engine"  # the application is called directly

Count = Callable[[Sequence[Any]], Awaitable[int | None]]


def room_for_answer(context_tokens: int, asked: Any) -> int:
    """How many tokens of the context are kept free.

    Args:
        context_tokens: of prompt and answer.
        asked: `max_output_tokens` of the request.
    """
    if isinstance(asked, int) and asked > 0:
        return min(asked, context_tokens // _LARGEST_PART)
    return min(_ROOM, context_tokens // _LARGEST_PART_UNASKED)


def surely_fits(body: bytes, tokens: int) -> bool:
    """Whether a request has no more tokens than this, whatever they are: each is one byte or more."""
    return len(body) + _OF_FORMAT <= tokens


async def fitted(items: Sequence[Any], tokens: int, count: Count) -> Sequence[Any]:
    """The items without as few turns as have to go.

    Args:
        items: of the whole input.
        tokens: that the prompt may have.
        count: how many a prompt of these items has; None: too many, or it is no prompt.

    Returns:
        The same items if even the last turn does not fit alone: the engine says so.
    """
    head, turns = _turns(items)
    made = _approvals(items, "mcp_call", "approval_request_id")

    def without(number: int) -> list[Any]:
        return _with_whole_approvals(_without(head, turns, number), made)

    async def fits(number: int) -> bool:
        await asyncio.sleep(0)  # other requests' turn: a whole prompt is rendered for each count
        counted = await count(without(number))
        return counted is not None and counted <= tokens

    least = _fewest(head, turns, tokens)
    if len(turns) < 2 or (least == 0 and await fits(0)):
        return items
    too_few, enough = max(least - 1, 0), len(turns) - 1
    if not await fits(enough):
        return items
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if await fits(middle):
            enough = middle
        else:
            too_few = middle
    return without(enough)


def _with_whole_approvals(items: list[Any], made: frozenset[str]) -> list[Any]:
    """The items without answers to requests of MCP calls that were left out, and to those whose calls were.

    Such a call would be made a second time.

    Args:
        items: that are kept.
        made: the ids of all requests whose calls were made.
    """
    gone = made - _approvals(items, "mcp_call", "approval_request_id")
    known = _approvals(items, "mcp_approval_request", "id") - gone
    return [item for item in items if _approvals([item], "mcp_approval_response", "approval_request_id") <= known]


def _approvals(items: Sequence[Any], kind: str, name: str) -> frozenset[str]:
    """The ids of requests for approvals that items of a type have in a field."""
    found = (item.get(name) for item in items if isinstance(item, dict) and item.get("type") == kind)
    return frozenset(each for each in found if isinstance(each, str))


def _fewest(head: list[Any], turns: list[list[Any]], tokens: int) -> int:
    """How many turns have to go at least, by the length of their texts: a prompt far too long is not counted."""
    excess = sum(_shortest(item) for part in (head, *turns) for item in part) - tokens
    number = 0
    for turn in turns[1:]:
        if excess <= 0:
            break
        excess -= sum(_shortest(item) for item in turn if not _has_role(item, *_INSTRUCTING))
        number += 1
    return number


def _shortest(item: Any) -> int:
    """The tokens that an item has at least."""
    length = sum(map(len, _texts(item)))
    return length // _LONGEST_TOKEN + (length > 0)


def _texts(item: Any) -> Iterator[str]:
    """The texts of an item that the model reads in any case; earlier reasoning is left out of a prompt."""
    if not isinstance(item, dict) or item.get("type") == "reasoning":
        return
    for value in (item.get("content"), item.get("output")):
        for part in value if isinstance(value, list) else [value]:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text


def _turns(items: Sequence[Any]) -> tuple[list[Any], list[list[Any]]]:
    """What comes before the first message of a user, and the turns, each from a user's messages to the next's."""
    starts = [
        number
        for number, item in enumerate(items)
        if _has_role(item, "user") and (number == 0 or not _has_role(items[number - 1], "user"))
    ]
    turns = [list(items[start:end]) for start, end in pairwise([*starts, len(items)])]
    return list(items[: starts[0]] if starts else items), turns


def _without(head: list[Any], turns: list[list[Any]], number: int) -> list[Any]:
    """All items but those of so many turns: the second and those after it; last of all the first."""
    first = 0 if number == len(turns) - 1 else 1
    gone = [item for turn in turns[first : first + number] for item in turn if _has_role(item, *_INSTRUCTING)]
    kept = [item for turn in turns[:first] for item in turn]
    return [*head, *kept, *gone, *(item for turn in turns[first + number :] for item in turn)]


def _has_role(item: Any, *roles: str) -> bool:
    return isinstance(item, dict) and item.get("role") in roles


async def tokens_of(app: ASGIApp, body: bytes) -> int | None:
    """How many tokens vLLM makes of a request; None if it refuses it.

    Args:
        app: vLLM's application.
        body: of the request.
    """
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=_ENGINE, trust_env=False) as client:
        headers = {"content-type": "application/json"}
        answer = await client.post(INPUT_TOKENS, content=body, headers=headers, timeout=None)
    counted: int | None = loads_stored(answer.text).get("input_tokens") if answer.is_success else None
    return counted
