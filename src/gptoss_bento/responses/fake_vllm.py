"""As much of vLLM's /v1/responses as this package rests on: an answer of one item, whole or in events.

The events, their order and their faults are those of vLLM 0.32.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from gptoss_bento.engine.owner import current_owner
from gptoss_bento.http.paths import INPUT_TOKENS

TURNS = {"input_tokens_per_turn": [3], "cached_tokens_per_turn": [0]}
OUTPUT_TURNS = {"output_tokens_per_turn": [2], "tool_output_tokens_per_turn": [0]}
USAGE = {
    "input_tokens": 3,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, **TURNS},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 0, "tool_output_tokens": 0, **OUTPUT_TURNS},
    "total_tokens": 5,
}


@dataclass
class FakeVllm:
    """The application, and what a test decides.

    Attributes:
        words: the deltas of every answer.
        calls: whether the answer is a call of a function.
        function: its name.
        reasons: whether it is an item of reasoning instead.
        is_cut: whether it ends at a limit of tokens.
        breaks: raised after the first delta.
        held: while it is closed, an answer stops after its first delta.
        pause: is awaited there, too.
        on_end: is called with the id of each response before its last event.
        item_id: of every answer's item.
        unread: a type of items that it refuses.
        owners: of the requests.
    """

    words: list[str] = field(default_factory=lambda: ["one", " two"])
    calls: bool = False
    function: str = "f"
    reasons: bool = False
    is_cut: bool = False
    breaks: Exception | None = None
    held: asyncio.Event = field(default_factory=asyncio.Event)
    pause: Callable[[], Awaitable[None]] | None = None
    on_end: Callable[[str], None] = lambda _: None
    item_id: str = "msg_1"
    unread: str | None = None
    bodies: list[dict[str, Any]] = field(default_factory=list)
    owners: list[str] = field(default_factory=list)
    running: int = 0
    aborted: int = 0

    def __post_init__(self) -> None:
        self.held.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = await self._answer(Request(scope, receive))
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.owners.append(current_owner())
        if self.unread and self.unread in [
            item.get("type") for item in body.get("input", ()) if isinstance(item, dict)
        ]:
            return JSONResponse({"error": {"message": f"Unknown input type: {self.unread}", "param": "input"}}, 400)
        if request.url.path == INPUT_TOKENS:
            return JSONResponse({"object": "response.input_tokens", "input_tokens": len(body["input"])})
        if "input" not in body:
            return JSONResponse({"error": {"message": "input is missing", "code": 400}}, 400)
        if body.get("stream"):
            return StreamingResponse(self._events(body), media_type="text/event-stream")
        await self._paused()
        return JSONResponse(self.object(body, [self.item()]))

    async def _paused(self) -> None:
        await self.held.wait()
        if self.pause:
            await self.pause()

    def item(self, status: str = "completed") -> dict[str, Any]:
        text = "" if status == "in_progress" else "".join(self.words)
        if self.calls:
            left = {"output_index": 0, "sequence_number": -1} if status == "completed" else {}
            call = {"call_id": "call_1", "name": self.function, "arguments": text, "namespace": None}
            return {"id": "fc_1", "type": "function_call", "status": status, **call, **left}
        if self.reasons:
            parts = [{"type": "reasoning_text", "text": text}] if text else None
            return {"id": "rs_1", "type": "reasoning", "summary": [], "content": parts, "status": None}
        part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": [], "logprobs": None}
        content = [part] if text else []
        return {"id": self.item_id, "type": "message", "role": "assistant", "status": status, "content": content}

    def object(self, body: dict[str, Any], output: list[Any], usage: Any = USAGE) -> dict[str, Any]:
        status = "in_progress" if usage is None else "incomplete" if self.is_cut else "completed"
        details = {"reason": "max_output_tokens"} if status == "incomplete" else None
        made = {"id": body["request_id"], "object": "response", "created_at": 1, "status": status, "model": "m"}
        fixed = {"temperature": 1.0, "top_p": 1.0, "max_output_tokens": 4096, "top_logprobs": None}
        return {**made, **fixed, "incomplete_details": details, "output": output, "usage": usage}

    async def _events(self, body: dict[str, Any]) -> AsyncIterator[str]:
        number = 0

        def frame(kind: str, **fields: Any) -> str:
            nonlocal number
            event = {"type": f"response.{kind}", "sequence_number": number, **fields}
            number += 1
            return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"

        place: dict[str, Any] = {"output_index": 0, "item_id": self.item()["id"]}
        text, delta, end = "".join(self.words), "function_call_arguments", {"name": self.function}
        if not self.calls:
            delta, end = ("reasoning_text" if self.reasons else "output_text"), {}
            place |= {"content_index": 0} if self.reasons else {"content_index": 0, "logprobs": []}
        self.running += 1
        try:
            yield frame("created", response=self.object(body, [], None))
            yield frame("in_progress", response=self.object(body, [], None))
            yield frame("output_item.added", output_index=0, item=self.item("in_progress"))
            for word in self.words:
                yield frame(f"{delta}.delta", **place, delta=word)
                if self.breaks:
                    raise self.breaks
                await self._paused()
            yield frame(f"{delta}.done", **place, **end, **{"arguments" if self.calls else "text": text})
            yield frame("output_item.done", output_index=0, item=self.item())
            self.on_end(body["request_id"])
            yield frame("completed", response=self.object(body, [self.item()]))
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted += 1
            raise
        finally:
            self.running -= 1
