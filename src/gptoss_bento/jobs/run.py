"""One run of one job: from its input, through the engine, to its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus

from gptoss_bento import strict_json
from gptoss_bento.background.store_retries import until_available
from gptoss_bento.background.tasks import logged
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.engine.usage import Meter
from gptoss_bento.http.fields.unknown import UnknownFields
from gptoss_bento.jobs.engine_client import Engine
from gptoss_bento.jobs.input import MODELS, TOKENIZE, EngineRequest, InputError, Models
from gptoss_bento.jobs.item_writer import ItemWriter, LostError
from gptoss_bento.jobs.limits import JobLimits, limited_request
from gptoss_bento.jobs.output.readers import EngineError, EngineUnavailableError, error_text, reader
from gptoss_bento.state.clock import Clock
from gptoss_bento.state.job import Claim, Job, Status
from gptoss_bento.state.store import JobStore

logger = logging.getLogger(__name__)

ABORT_GRACE_S = 0.5
"""How long a failing engine is given to turn out to be a stop: it receives SIGTERM too, perhaps before this worker."""

_MODELS_KEPT_S = 5.0
_SPECIAL_TOKENS = 8  # that a tokenizer may put around a prompt
_FAULT = "The server could not run the job; its log says why."


class AbortReason(Enum):
    """Why a run is aborted."""

    NOT_NEEDED = auto()  # cancelled, or taken over by another worker: nothing is written
    SHUTDOWN = auto()  # this worker stops: the job is requeued


@dataclass(eq=False)
class Run:
    """A run of a claimed job in this worker."""

    claim: Claim
    task: asyncio.Task[None] | None = None
    abort_reason: AbortReason | None = None
    ending: bool = False  # its end is being written, which must not be interrupted

    def abort(self, reason: AbortReason) -> None:
        """Cancels the run, unless it is ending or aborted already."""
        if self.task and not self.ending and self.abort_reason is None:
            self.abort_reason = reason
            self.task.cancel()


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Status | None  # None: no end is to be written
    error: str | None = None
    interrupted: bool = False  # the job is requeued
    refused: bool = False
    counts: bool = True  # as an interruption: the job had reached the engine


class JobExecutor:
    """Executes runs on the engine, once there is one.

    Args:
        store: where the jobs are.
        settings: of the server.
        limits: of the keys that submitted the jobs.
        clock: the time in milliseconds since 1970.
    """

    def __init__(self, store: JobStore, settings: ServerSettings, limits: JobLimits, clock: Clock) -> None:
        self.engine: Engine | None = None
        self.is_paused = False
        self._unknown = UnknownFields()
        self._models: ModelList | None = None
        self._store = store
        self._settings = settings
        self._limits = limits
        self._clock = clock

    def attach(self, engine: Engine) -> None:
        """The engine is ready."""
        self.engine, self._models = engine, ModelList(engine)

    @property
    def is_ready(self) -> bool:
        """Whether a run may start now."""
        return self.engine is not None and not self.engine.dead and not self.is_paused

    async def execute(self, run: Run, writer: ItemWriter) -> Outcome:
        """Runs a job. Every run has an outcome, whatever error it meets."""
        try:
            return await self._metered(run, writer)
        except asyncio.CancelledError:
            return Outcome(None, interrupted=run.abort_reason is not AbortReason.NOT_NEEDED)
        except Exception:
            logger.exception("job %s", run.claim.id)
            return Outcome(Status.FAILED, _FAULT)

    async def _metered(self, run: Run, writer: ItemWriter) -> Outcome:
        """Runs the engine, and charges the tokens to the job's owner if it has a limit of them."""
        if not self._limits.of(run.claim).tokens_per_minute:
            return await self._generate(run, writer)
        with Meter() as meter:
            try:
                return await self._generate(run, writer)
            finally:
                with logged(f"charging job {run.claim.id}"):  # an error here must not lose what was generated
                    self._limits.charge(run.claim.owner, meter.tokens)

    async def _generate(self, run: Run, writer: ItemWriter) -> Outcome:
        """Runs the engine until an expected end. Raises any other error."""
        engine, models = self.engine, self._models
        if engine is None or models is None:
            return Outcome(None, interrupted=True)
        to_live = asyncio.timeout(max(0, run.claim.expires_at - self._clock()) / 1000)
        try:
            async with to_live:
                return await self._in_time(run.claim, engine, models, writer)
        except LostError:
            return Outcome(None)
        except TimeoutError:
            return Outcome(Status.TIMED_OUT, _timeout_text(run.claim, to_live.expired()))
        except (InputError, EngineError, ConnectionError) as error:
            return await self._failure(engine, error)

    async def _in_time(self, claim: Claim, engine: Engine, models: ModelList, writer: ItemWriter) -> Outcome:
        """Runs the engine for at most the execution time, which does not pass while the job waits for room.

        Raises:
            TimeoutError: the execution time is over.
        """
        limit_s, started = claim.execution_timeout_ms / 1000, time.monotonic()
        async with asyncio.timeout(limit_s):
            request = await request_of(claim, engine, models, self._settings, self._limits)
        self._unknown.log(request.path, request.ignored)
        left_s = max(0.0, limit_s - (time.monotonic() - started))
        async with self._limits.room_for(request, self._settings.max_openai_requests):
            if engine.dead:
                return Outcome(None, interrupted=True, counts=False)
            async with asyncio.timeout(left_s), aclosing(items_of(claim, request, engine)) as items:
                async for item, last in items:
                    writer.add(item, last=last)
        return Outcome(Status.COMPLETED)

    async def _failure(self, engine: Engine, error: Exception) -> Outcome:
        """FAILED, unless the run failed because this process or its engine stops."""
        if isinstance(error, (EngineUnavailableError, ConnectionError)) and not (engine.dead or self.is_paused):
            await asyncio.sleep(ABORT_GRACE_S)
        if engine.dead or (self.is_paused and not isinstance(error, InputError)):
            return Outcome(None, interrupted=True)
        refused = isinstance(error, InputError) or (isinstance(error, EngineError) and error.refused)
        return Outcome(Status.FAILED, str(error), refused=refused)

    async def record(self, run: Run, writer: ItemWriter, outcome: Outcome) -> tuple[Job, list[str]] | None:
        """Writes the outcome of a run. Returns the job with its output if that was all in one write."""
        ended: tuple[Job, list[str]] | None = None
        try:
            if outcome.status is not None:
                ended = await writer.end(outcome.status, outcome.error, refused=outcome.refused)
            else:
                await writer.settle()
            if outcome.interrupted:
                counts = outcome.counts and not self.is_paused  # a requeued job may be interrupted once more
                await until_available(lambda: self._store.interrupt(run.claim, counts=counts))
        except Exception:  # of the database, which is available: the job must end all the same
            logger.exception("job %s", run.claim.id)
            await until_available(lambda: self._store.finish(run.claim, Status.FAILED, error=_FAULT))
        return ended


def _timeout_text(claim: Claim, to_live: bool) -> str:
    if to_live:
        return "The job's time to live (policy.ttl) was over before it ended."
    return f"The job ran longer than policy.executionTimeout, {claim.execution_timeout_ms} ms."


class ModelList:
    """The models that the engine serves, read again after some seconds: adapters can be loaded and unloaded."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: tuple[float, Models] | None = None

    async def get(self) -> Models:
        """The models, at most _MODELS_KEPT_S old.

        Raises:
            EngineError: the engine does not return them.
        """
        now = time.monotonic()
        if self._known is None or now - self._known[0] > _MODELS_KEPT_S:
            self._known = (now, await self._fetched_models())
        return self._known[1]

    async def _fetched_models(self) -> Models:
        async with self._engine.call(EngineRequest("GET", MODELS)) as reply:
            body = await reply.read()
        if reply.status != 200:
            raise EngineError(f"The engine does not list its models; it answered {reply.status}.")
        rows = strict_json.loads(body)["data"]
        adapters = frozenset(row["id"] for row in rows if row.get("parent"))
        names = tuple(row["id"] for row in rows if row["id"] not in adapters)
        lengths = [row["max_model_len"] for row in rows if row.get("max_model_len")]
        return Models(names, adapters, min(lengths, default=None), self._engine.served_model)


async def request_of(
    claim: Claim, engine: Engine, models: ModelList, settings: ServerSettings, limits: JobLimits
) -> EngineRequest:
    """The request to the engine that a job makes.

    Raises:
        InputError: the input is wrong.
        EngineError: the engine does not return its models.
    """
    known = await models.get()
    request = limited_request(strict_json.loads_stored(claim.input), settings, known, limits.of(claim))
    if request.must_fit and known.context_length:
        await _refuse_too_long(request, engine, known.context_length)
    return request


async def items_of(claim: Claim, request: EngineRequest, engine: Engine) -> AsyncGenerator[tuple[str, bool], None]:
    """Runs a job and yields the JSON texts of its output as they arrive, each with whether the answer is complete.

    Closing it aborts the generation.

    Raises:
        EngineError: the engine refused or failed.
    """
    async with engine.call(request, claim.id, claim.owner) as reply:
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
    """Refuses a prompt job whose `max_tokens` do not fit into the context beside the prompt.

    The tokens of the prompt are counted only if its bytes do not fit: no token has less than a byte.
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
