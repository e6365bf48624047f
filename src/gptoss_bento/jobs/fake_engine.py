"""A fake of vLLM's HTTP API where the real engine is too heavy: it echoes the prompt, token by token.

It speaks the part of vLLM 0.32's wire format that jobs rest on: completions and chat with Harmony's tokens, whole and
streamed, token ids, usage, errors, and the end of a generation when its client leaves. A word is a token.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gptoss_bento.engine.harmony_tokens import CHANNEL, END, FINAL, MESSAGE, RETURN, START
from gptoss_bento.engine.usage import current_meter
from gptoss_bento.http.fields.served_model import GPT_OSS, ServedModel
from gptoss_bento.jobs.engine_client import AsgiEngine

MODEL = "fake-model"
ADAPTER = "fake-adapter"
CONTEXT_LENGTH = 4096

_ANALYSIS, _ASSISTANT = 35644, 173781
_FIRST_WORD = 1000
_MOST_CHOICES = 64  # vLLM has such a limit too, a higher one


@dataclass(frozen=True)
class _Token:
    id: int
    piece: bytes = b""
    channel: str = ""  # "content", "reasoning" or none


@dataclass
class FakeEngine:
    """The engine and the knobs of a test.

    Attributes:
        answer: the tokens of every answer; None repeats the prompt's words until `max_tokens`.
        reasoning: the tokens of the analysis channel before a chat's answer.
        per_event: how many tokens an event of a stream holds.
        delay_s: the time one event takes.
        gate: closed, an answer stops before an event until the gate opens: its first, or the one after `gate_after`.
        gate_after: how many events of an answer the gate lets through.
        break_after: the number of events after which a stream ends in an error; whole answers are errors immediately.
        abort: every answer ends as an aborted one.
    """

    answer: Sequence[bytes] | None = None
    reasoning: Sequence[bytes] = (b"I", b" think")
    per_event: int = 1
    delay_s: float = 0.0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    gate_after: int = 0
    break_after: int | None = None
    abort: bool = False
    dead: bool = False
    served_model: ServedModel = GPT_OSS
    requests: list[dict[str, Any]] = field(default_factory=list)
    request_ids: list[str] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    aborted: int = 0

    def __post_init__(self) -> None:
        self.gate.set()
        self._vocabulary: dict[bytes, int] = {}
        self._pieces: dict[int, bytes] = {}

    def engine(self) -> AsgiEngine:
        """This engine as the runner calls it."""
        return AsgiEngine(self.app(), lambda: self.dead, self.token_bytes, self.served_model)

    def token_bytes(self, token_ids: Sequence[int]) -> list[bytes]:
        return [self._pieces.get(token, b"") for token in token_ids]

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/tokenize", self._tokenize, methods=["POST"]),
                Route("/v1/completions", self._generate, methods=["POST"]),
                Route("/v1/chat/completions", self._generate, methods=["POST"]),
            ]
        )

    async def _models(self, _: Request) -> Response:
        model = {"id": MODEL, "object": "model", "parent": None, "max_model_len": CONTEXT_LENGTH}
        rows = [model, {"id": ADAPTER, "object": "model", "parent": MODEL}]
        return JSONResponse({"object": "list", "data": rows})

    async def _tokenize(self, request: Request) -> Response:
        return JSONResponse({"count": len(_prompt(await request.json()))})

    async def _generate(self, request: Request) -> Response:
        body = await request.json()
        self.requests.append(body)
        self.request_ids.append(request.headers.get("x-request-id", ""))
        if (model := body.get("model") or MODEL) not in (MODEL, ADAPTER):
            return _refusal(404, f"The model `{model}` does not exist.", "model")
        if body.get("n", 1) > _MOST_CHOICES:
            return _refusal(400, f"n must be at most {_MOST_CHOICES}.", "n")
        if (wanted := body.get("max_tokens", 16)) > CONTEXT_LENGTH:
            message = f"max_tokens={wanted} cannot be greater than max_model_len={CONTEXT_LENGTH}."
            return _refusal(400, message, "max_tokens")
        self._meter(body)
        if body.get("stream"):
            return StreamingResponse(self._stream(body), media_type="text/event-stream")
        if self.break_after is not None and not self.abort:
            return _refusal(500, "the engine stumbled")
        listening = asyncio.create_task(_client_left(request))
        work = asyncio.create_task(self._whole(body))
        await asyncio.wait([listening, work], return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        work.cancel()
        return JSONResponse(await work) if work.done() else Response(status_code=499)

    def _meter(self, body: dict[str, Any]) -> None:
        if meter := current_meter():
            tokens = len(_prompt(body)) + body.get("n", 1) * len(self._tokens(body))
            meter.add(lambda: tokens)

    async def _whole(self, body: dict[str, Any]) -> dict[str, Any]:
        tokens = self._tokens(body)
        async for _ in self._events(tokens):
            pass
        chat, n = "messages" in body, body.get("n", 1)
        text = _joined(tokens, "content")
        if chat:
            message = {"role": "assistant", "content": text, "reasoning": _joined(tokens, "reasoning")}
            choice: dict[str, Any] = {"message": message}
        else:
            choice = {"text": text}
        if body.get("return_token_ids"):
            choice["token_ids"] = [token.id for token in tokens]
        counts = _usage(len(_prompt(body)), n * len(tokens))
        end = "abort" if self.abort else "stop"
        choices = [{"index": i, "finish_reason": end, "stop_reason": None, **choice} for i in range(n)]
        return {"object": "chat.completion" if chat else "text_completion", "choices": choices, "usage": counts}

    async def _stream(self, body: dict[str, Any]) -> AsyncIterator[str]:
        tokens, events = self._tokens(body), 0
        prompt = list(range(len(_prompt(body))))
        async for start, end in self._events(tokens):
            if self.break_after is not None and events == self.break_after:
                yield _frame({"error": {"message": "the engine stumbled", "type": "InternalServerError", "code": 500}})
                break
            events += 1
            for i in range(body.get("n", 1)):
                chunk = _chunk(body, i, tokens, start, end, prompt if start == 0 else None)
                if self.abort:
                    chunk["choices"][0]["finish_reason"] = "abort"
                yield _frame(chunk)
        yield "data: [DONE]\n\n"

    async def _events(self, tokens: Sequence[_Token]) -> AsyncIterator[tuple[int, int]]:
        """The borders of the events; counts an abort where its client leaves before the last."""
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            for number, start in enumerate(range(0, len(tokens), self.per_event)):
                if number == self.gate_after:
                    await self.gate.wait()
                await asyncio.sleep(self.delay_s)
                yield start, min(start + self.per_event, len(tokens))
        except (asyncio.CancelledError, GeneratorExit):
            self.aborted += 1
            raise
        finally:
            self.running -= 1

    def _tokens(self, body: dict[str, Any]) -> list[_Token]:
        limit = body.get("max_tokens", 16)
        words = list(self.answer) if self.answer is not None else [b" " + word for word in _repeated(body, limit)]
        if "messages" not in body:
            return [self._token(word, "content") for word in words][:limit]
        analysis = [_Token(CHANNEL), _Token(_ANALYSIS), _Token(MESSAGE)]
        analysis += [self._token(piece, "reasoning") for piece in self.reasoning]
        header = [_Token(END), _Token(START), _Token(_ASSISTANT), _Token(CHANNEL), _Token(FINAL), _Token(MESSAGE)]
        return [*analysis, *header, *(self._token(word, "content") for word in words), _Token(RETURN)][:limit]

    def _token(self, piece: bytes, channel: str) -> _Token:
        token = self._vocabulary.setdefault(piece, _FIRST_WORD + len(self._vocabulary))
        self._pieces[token] = piece
        return _Token(token, piece, channel)


async def _client_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _prompt(body: dict[str, Any]) -> list[str]:
    text = body["prompt"] if "prompt" in body else str(body["messages"][-1].get("content"))
    return str(text).split()


def _repeated(body: dict[str, Any], limit: int) -> Iterator[bytes]:
    words = _prompt(body) or ["nothing"]
    return (words[i % len(words)].encode("utf-8", "replace") for i in range(limit))


def _joined(tokens: Sequence[_Token], channel: str, start: int = 0, end: int | None = None) -> str:
    """The text that tokens `start` to `end` add to a channel; a character comes with its last byte."""

    def text(upto: int | None) -> str:
        return b"".join(token.piece for token in tokens[:upto] if token.channel == channel).decode("utf-8", "ignore")

    return text(end)[len(text(start)) :]


def _chunk(
    body: dict[str, Any], index: int, tokens: Sequence[_Token], start: int, end: int, prompt: list[int] | None
) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": index, "finish_reason": "stop" if end == len(tokens) else None}
    if body.get("return_token_ids"):
        choice["token_ids"] = [token.id for token in tokens[start:end]]
    text = _joined(tokens, "content", start, end)
    chunk: dict[str, Any] = {"id": "fake", "model": MODEL, "choices": [choice]}
    if "messages" not in body:
        choice |= {"text": text} | ({"prompt_token_ids": prompt} if prompt is not None else {})
        return chunk
    delta = {"content": text, "reasoning": _joined(tokens, "reasoning", start, end)}
    choice["delta"] = {name: value for name, value in delta.items() if value}
    return chunk | ({"prompt_token_ids": prompt} if prompt is not None else {})


def _usage(prompt: int, output: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def _frame(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _refusal(status: int, message: str, param: str | None = None) -> Response:
    error = {"message": message, "type": "BadRequestError", "param": param, "code": status}
    return JSONResponse({"error": error}, status)
