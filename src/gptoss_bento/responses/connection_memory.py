"""What one WebSocket connection remembers: the newest response that is not stored, so that the next turn continues it.

As the Open Responses specification has it: the newest alone, and none that a failed turn has tried to continue.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.types import Scope

from gptoss_bento.responses.encryption import plain
from gptoss_bento.responses.request import CreateRequest, readable, without_repeats
from gptoss_bento.strict_json import dumps, loads_stored

_CONNECTION = "gptoss_bento.connection"
_GENERATES = "gptoss_bento.generates"
_KEPT = ("completed", "incomplete")


class ConnectionMemory:
    """Of one connection. Nothing of it is written anywhere.

    Args:
        limit: bytes of JSON that the items of a conversation may have; a longer one is not kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._id = ""
        self._items = b""  # a text may take four bytes for each of its characters

    def has(self, response_id: str | None) -> bool:
        """Whether this is the response that it remembers."""
        return bool(response_id) and response_id == self._id

    def items_of(self, response_id: str | None) -> list[Any] | None:
        """All items of a conversation up to this response; None: it is not here."""
        if not self.has(response_id):
            return None
        items: list[Any] = loads_stored(self._items.decode())
        return items

    def keep(self, response_id: str, items: Sequence[Any]) -> None:
        """Remembers a response in place of the one before.

        Args:
            response_id: of the response.
            items: that it has read, and those of its output.
        """
        encoded = dumps(list(items)).encode()
        fits = len(encoded) <= self._limit
        self._id, self._items = (response_id, encoded) if fits else ("", b"")

    def forget(self, response_id: str | None) -> None:
        """The turn that was to continue this response has failed."""
        if self.has(response_id):
            self._id, self._items = "", b""


async def remembering(
    request: CreateRequest, memory: ConnectionMemory | None, history: Callable[[str], Awaitable[list[Any]]]
) -> CreateRequest:
    """A request as the connection that it comes over needs it.

    What it continues is in its input where the connection has it, and where the connection is to keep the response.

    Args:
        request: any.
        memory: of the connection; None: it comes over HTTP, and stays as it is.
        history: reads the items of a stored response and of those before it.

    Raises:
        HttpRefusalError: what it continues is not there.
    """
    if memory is None or not request.has_input:
        return request
    earlier = memory.items_of(request.previous)
    if earlier is None:
        if request.stores:
            return request
        earlier = await history(request.previous) if request.previous is not None else []
    return _with_earlier(request, earlier)


def _with_earlier(request: CreateRequest, earlier: Sequence[Any]) -> CreateRequest:
    if not earlier:
        return replace(request, is_kept=True, previous=None, continues=request.previous)
    given = request.asked["input"]
    new = given if isinstance(given, list) else request.items({})
    read = map(plain, readable(without_repeats(earlier, request.references)))  # else it would pass for the client's
    items = [*read, *new]
    asked = {**request.asked, "input": items}
    return replace(request, asked=asked, previous=None, continues=request.previous, is_kept=True)


class KeptResponse:
    """One response on its way into the memory, in place of a record of the store.

    Args:
        memory: of the connection.
        read: the items that the response reads, with its history.
    """

    def __init__(self, memory: ConnectionMemory, read: Sequence[Any]) -> None:
        self._memory = memory
        self._read = read
        self.is_ended = False

    async def finish(self, final: Mapping[str, Any]) -> None:
        """Keeps what can be continued."""
        if not self.is_ended and final["status"] in _KEPT:
            self._memory.keep(final["id"], [*self._read, *final["output"]])
        self.is_ended = True

    async def discard(self) -> None:
        """There is no response after all."""
        self.is_ended = True


def with_memory(scope: Scope, memory: ConnectionMemory, *, generates: bool = True) -> Scope:
    """The scope of a request that comes over the connection of this memory.

    Args:
        scope: of the request.
        memory: of the connection.
        generates: False: the response only holds items, for the one that continues it.
    """
    return {**scope, _CONNECTION: memory, _GENERATES: generates}


def generates(scope: Scope) -> bool:
    """Whether the response of a request has an output."""
    return bool(scope.get(_GENERATES, True))


def kept_response(scope: Scope, read: Sequence[Any]) -> KeptResponse | None:
    """What keeps the response of a request that is not stored; None: nothing does, it comes over HTTP.

    Args:
        scope: of the request.
        read: the items that the response reads, with its history.
    """
    memory = memory_of(scope)
    return None if memory is None else KeptResponse(memory, read)


def memory_of(scope: Scope) -> ConnectionMemory | None:
    """The memory of the connection that a request comes over; None: it is HTTP."""
    memory = scope.get(_CONNECTION)
    return memory if isinstance(memory, ConnectionMemory) else None
