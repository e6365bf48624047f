"""One line of a batch as a call of the OpenAI API in the same process, tried again while the server has no room."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.access.authentication import with_key
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.access.stored_limits import stored_limits
from gptoss_bento.batches.lines import Line
from gptoss_bento.batches.slots import Slot
from gptoss_bento.config.api_keys import Key
from gptoss_bento.http.errors import openai_error, reshaped
from gptoss_bento.http.paths import RESPONSES
from gptoss_bento.jobs.engine_client import AsgiEngine
from gptoss_bento.jobs.input import EngineRequest
from gptoss_bento.state.batch import StoredBatch
from gptoss_bento.strict_json import loads

_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.5, 5.0
_TRIES = 6  # of a line that the server cannot serve now; one that others keep waiting is tried without end

_LATER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.CONFLICT)  # 409: another request is at work in the conversation
_ONCE = {"request_id", "conversation"}


@dataclass(frozen=True)
class LineCalls:
    """Calls the OpenAI API for batches.

    Args:
        app: returns the API behind its bounds and without authentication; None: there is no engine.
        keys: that are valid now.
        timeout_s: for one call.
        pause: is awaited between two tries.
    """

    app: Callable[[], ASGIApp | None]
    keys: KeyStore
    timeout_s: float
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def answer(self, batch: StoredBatch, line: Line, slot: Slot) -> dict[str, Any]:
        """The `response` of a line's record: its status, and its body. Between two tries others have the slot."""
        delay_s, tries = _FIRST_DELAY_S, 1
        while True:
            request_id = f"req_{uuid.uuid4().hex}"
            status, body = await self._called(batch, line, request_id)
            is_full = status in _LATER
            if not is_full and (status != HTTPStatus.SERVICE_UNAVAILABLE or tries == _TRIES):
                return {"status_code": status, "request_id": request_id, "body": body}
            tries += not is_full
            await slot.pause(self.pause(delay_s))
            delay_s = min(2 * delay_s, _LONGEST_DELAY_S)

    async def _called(self, batch: StoredBatch, line: Line, request_id: str) -> tuple[int, Any]:
        try:
            async with asyncio.timeout(self.timeout_s):
                status, content = await self._sent(batch, line, request_id)
        except TimeoutError:
            message = f"The line took longer than {self.timeout_s:g} s (REQUEST_TIMEOUT)."
            return _error(HTTPStatus.GATEWAY_TIMEOUT, message)
        except ConnectionError as error:
            return _error(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}.")
        if status >= HTTPStatus.BAD_REQUEST:
            better = reshaped(batch.endpoint, HTTPStatus(status), content, {}, line.body.keys())
            content = bytes(better.body) if better else content
        return status, loads(content)

    async def _sent(self, batch: StoredBatch, line: Line, request_id: str) -> tuple[int, bytes]:
        app = self.app()
        if app is None:
            raise ConnectionError("the engine is not ready")
        engine = AsgiEngine(_as_client(app, self.key_of(batch), _headers(batch, line)))
        request = EngineRequest("POST", batch.endpoint, body=line.body)
        async with engine.call(request, request_id, batch.owner) as reply:
            return reply.status, await reply.read()

    def most_lines(self, batch: StoredBatch) -> int | None:
        """Lines of the batch's key at the same time: one of its `streams` is left to live requests, if it has two."""
        key = self.key_of(batch)
        streams = key.limits.streams if key else None
        return streams and max(1, streams - 1)

    def key_of(self, batch: StoredBatch) -> Key | None:
        """The key of a batch with its present limits; one that was removed has those of the batch's creation."""
        if not batch.owner or self.keys.is_open:
            return None
        return self.keys.of_owner(batch.owner) or Key(batch.owner, (), stored_limits(batch.key_limits))


def _as_client(app: ASGIApp, key: Key | None, headers: Sequence[tuple[bytes, bytes]]) -> ASGIApp:
    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        await app(with_key({**scope, "headers": [*scope["headers"], *headers]}, key), receive, send)

    return called


def _headers(batch: StoredBatch, line: Line) -> list[tuple[bytes, bytes]]:
    """An Idempotency-Key of a line that would be refused, or change a conversation again, if it ran a second time.

    The worker may be killed between the response and the line of the output. Other lines have none: the values of a
    key are bounded, and its clients have them too.
    """
    if batch.endpoint != RESPONSES or not line.body.keys() & _ONCE:
        return []
    line_id = hashlib.sha256(line.custom_id.encode(errors="surrogatepass")).hexdigest()
    return [(b"idempotency-key", f"{batch.id}:{line_id}".encode())]


def _error(status: HTTPStatus, message: str) -> tuple[int, Any]:
    return status.value, loads(bytes(openai_error(status, message).body))
