"""A server of completions and chats that runs no model, for the tests of the benchmarks' clients."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route as Path


class Server:
    """Answers on a free port, in a thread, as vLLM does; keeps what it was asked."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.connections: set[tuple[str, int]] = set()
        self.keys: list[str | None] = []
        self.status = 200
        self.breaks_off = False
        self.says_done = True
        self.short_by = 0
        paths = ("/v1/completions", "/v1/chat/completions")
        app = Starlette(routes=[Path(path, self._answer, methods=["POST"]) for path in paths])
        self._uvicorn = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", ws="none"))
        self._thread = threading.Thread(target=self._uvicorn.run)

    def __enter__(self) -> str:
        self._thread.start()
        while not self._uvicorn.started:
            assert self._thread.is_alive(), "the server ended"
        return f"http://127.0.0.1:{self._uvicorn.servers[0].sockets[0].getsockname()[1]}/v1"

    def __exit__(self, *_: object) -> None:
        self._uvicorn.should_exit = True
        self._thread.join()

    def tokens(self) -> list[int]:
        """What each request asked for, and got."""
        return [body["max_tokens"] for body in self.bodies]

    async def _answer(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.bodies.append({**body, "path": request.url.path, "query": request.url.query})
        self.keys.append(request.headers.get("authorization"))
        self.connections.add(cast(tuple[str, int], tuple(request.scope["client"])))
        tokens = body["max_tokens"] - self.short_by
        usage = {"prompt_tokens": 50, "completion_tokens": tokens}
        if self.status != 200:
            return JSONResponse({"error": {"message": "no room"}}, self.status)
        if not body.get("stream"):
            return Response(json.dumps({"choices": [], "usage": usage}, separators=(",", ":")))
        return StreamingResponse(self._events(tokens, usage))

    async def _events(self, tokens: int, usage: dict[str, int]) -> AsyncIterator[str]:
        for _ in range(tokens):
            await asyncio.sleep(0.002)
            yield 'data: {"choices":[{"text":"a"}],"usage":null}\n\n'
        if not self.breaks_off:
            yield f"data: {json.dumps({'choices': [], 'usage': usage}, separators=(',', ':'))}\n\n"
        if self.says_done:
            yield "data: [DONE]\n\n"
