"""As much of the OpenAI API as lines of batches rest on: each request has an answer that repeats it."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from gptoss_bento.access.authentication import owner_of
from gptoss_bento.http.paths import CHAT, COMPLETIONS

USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 2,
    "total_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
RESPONSES_USAGE = {
    "input_tokens": 3,
    "input_tokens_details": {"cached_tokens": 1},
    "output_tokens": 2,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 5,
}


@dataclass
class FakeOpenAIApi:
    """The application, and what a test decides. A request's text is its `prompt`, `input` or last message.

    Attributes:
        held: while it is closed, no request is answered.
        limit: after so many answers `held` is closed.
        refusals: texts that get these statuses first, one after another, and then an answer.
        answered: how often each text was answered.
        values: the Idempotency-Keys that came with each text.
        owners: whose the requests were.
    """

    held: asyncio.Event = field(default_factory=asyncio.Event)
    limit: int | None = None
    refusals: dict[str, list[int]] = field(default_factory=dict)
    answered: Counter[str] = field(default_factory=Counter)
    values: dict[str, list[str | None]] = field(default_factory=dict)
    owners: set[str] = field(default_factory=set)
    running: int = 0
    most: int = 0

    def __post_init__(self) -> None:
        self.held.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.owners.add(owner_of(scope))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            answer = await self._answer(Request(scope, receive))
        finally:
            self.running -= 1
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> JSONResponse:
        body = await request.json()
        text = _text(body)
        self.values.setdefault(text, []).append(request.headers.get("idempotency-key"))
        await asyncio.sleep(0)
        if self.limit is not None and self.answered.total() >= self.limit:
            self.held.clear()
        await self.held.wait()
        if statuses := self.refusals.get(text):
            status = statuses.pop(0)
            if status == 0:
                raise RuntimeError(text)
            return JSONResponse({"error": {"message": text, "code": status}}, status)
        self.answered[text] += 1
        is_of_chats = request.url.path in (CHAT, COMPLETIONS)
        return JSONResponse({"text": text, "usage": USAGE if is_of_chats else RESPONSES_USAGE})


def _text(body: dict[str, Any]) -> str:
    return str(body.get("prompt") or body.get("input") or body["messages"][-1]["content"])
