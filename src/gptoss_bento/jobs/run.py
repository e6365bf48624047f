"""One run of one job: from its input, through the engine, to items."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar

from gptoss_bento import strict_json
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.jobs.engine_client import Engine
from gptoss_bento.jobs.input import MODELS, TOKENIZE, EngineRequest, InputError, Models
from gptoss_bento.jobs.limits import JobLimits, limited_request
from gptoss_bento.jobs.output.readers import EngineError, EngineUnavailableError, error_text, reader
from gptoss_bento.state.database import StoreUnavailableError
from gptoss_bento.state.job import Claim, Job, Status
from gptoss_bento.state.store import JobStore

logger = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_MODELS_KEPT_S = 5.0
_LONGEST_PAUSE_S = 2.0
_SPECIAL_TOKENS = 8  # what a tokenizer may put around a prompt


class LostError(Exception):
    """The job was cancelled or taken over meanwhile: nothing more is written."""


class ModelList:
    """What the engine serves, asked again after some seconds: adapters come and go."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: tuple[float, Models] | None = None

    async def get(self) -> Models:
        now = time.monotonic()
        if self._known is None or now - self._known[0] > _MODELS_KEPT_S:
            self._known = (now, await self._ask())
        return self._known[1]

    async def _ask(self) -> Models:
        async with self._engine.call(EngineRequest("GET", MODELS)) as reply:
            body = await reply.read()
        if reply.status != 200:
            raise EngineError(f"The engine does not tell its models; it answered {reply.status}.")
        rows = strict_json.loads(body)["data"]
        adapters = frozenset(row["id"] for row in rows if row.get("parent"))
        names = tuple(row["id"] for row in rows if row["id"] not in adapters)
        lengths = [row["max_model_len"] for row in rows if row.get("max_model_len")]
        return Models(names, adapters, min(lengths, default=None))


async def request_of(
    claim: Claim, engine: Engine, models: ModelList, settings: ServerSettings, limits: JobLimits
) -> EngineRequest:
    """What a job asks of the engine.

    Raises:
        InputError: the input is wrong.
        EngineError: the engine does not tell what it serves.
    """
    known = await models.get()
    request = limited_request(strict_json.loads(claim.input), settings, known, limits.of(claim))
    if request.must_fit and known.context_length:
        await _refuse_too_long(request, engine, known.context_length)
    return request


async def items_of(claim: Claim, request: EngineRequest, engine: Engine) -> AsyncGenerator[tuple[str, bool], None]:
    """Runs a job and yields the JSON texts of its output as they come, each with whether the answer is over.

    Closing it aborts the generation.

    Raises:
        EngineError: the engine refused or failed.
    """
    async with engine.call(request, claim.id) as reply:
        if not 200 <= reply.status < 300:
            kind = EngineUnavailableError if reply.status == HTTPStatus.SERVICE_UNAVAILABLE else EngineError
            raise kind(error_text(request, reply.status, await reply.read()), reply.status)
        read = reader(request, engine.token_bytes, event_stream=reply.is_event_stream)
        async for piece in reply.pieces:
            for item in read.feed(piece):
                yield strict_json.dumps(item), False
        for item in read.finish():
            yield strict_json.dumps(item), True


async def _refuse_too_long(request: EngineRequest, engine: Engine, context_length: int) -> None:
    """A prompt job whose `max_tokens` do not fit beside the prompt fails (contract, D13).

    The prompt is counted only where that can matter: no token has less than a byte.
    """
    body = request.body or {}
    prompt, wanted = body["prompt"], body["max_tokens"]
    if len(prompt.encode(errors="replace")) + _SPECIAL_TOKENS + wanted <= context_length:
        return
    asked = {name: body[name] for name in ("model", "prompt", "add_special_tokens") if name in body}
    async with engine.call(EngineRequest("POST", TOKENIZE, body=asked)) as reply:
        answer = await reply.read()
    if reply.status == 200 and (tokens := strict_json.loads(answer)["count"]) + wanted > context_length:
        raise InputError(
            f"max_tokens must leave room for the prompt: it has {tokens} of the context's {context_length} tokens, "
            f"got {wanted}."
        )


async def until_available(operation: Callable[[], Awaitable[_Result]]) -> _Result:
    """Repeats a write until the store takes it: what was generated is not lost because a disk was full."""
    delay_s = 0.1
    while True:
        try:
            return await operation()
        except StoreUnavailableError as error:
            logger.warning("%s Trying again.", error)
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, _LONGEST_PAUSE_S)


class ItemWriter:
    """Writes the items of one run as they come; those that come during a write go together in the next."""

    def __init__(self, store: JobStore, claim: Claim, written: Callable[[], None]) -> None:
        self._store = store
        self._claim = claim
        self._written = written
        self._waiting: list[str] = []
        self._first = 0  # the place of the first that waits
        self._writing: asyncio.Task[None] | None = None
        self._lost = False

    def add(self, item: str, *, last: bool) -> None:
        """Takes an item without waiting for its write; the last ones are written together with the end.

        Raises:
            LostError: the job is not this run's any more.
        """
        if self._lost:
            raise LostError
        self._waiting.append(item)
        if not last and (self._writing is None or self._writing.done()):
            self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while self._waiting and not self._lost:
            first, items = self._first, self._waiting
            self._first, self._waiting = first + len(items), []
            self._lost = not await until_available(lambda: self._store.append(self._claim, first, items))  # noqa: B023
            self._written()

    async def end(
        self, status: Status, error: str | None = None, *, refused: bool = False
    ) -> tuple[Job, list[str]] | None:
        """Writes the end of the run together with what waits. Returns the job if that is its whole output."""
        if self._writing:
            await self._writing
        if self._lost:
            return None
        first, items = self._first, self._waiting
        job = await until_available(
            lambda: self._store.finish(self._claim, status, first, items, error, refused=refused)
        )
        return (job, items) if job and not first else None

    async def settle(self) -> None:
        """Waits for a write under way; what comes after it is dropped."""
        self._waiting = []
        if self._writing:
            await self._writing
