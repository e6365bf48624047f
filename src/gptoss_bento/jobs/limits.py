"""The limits of keys, applied to jobs: whether one may be submitted now, what it may ask for, and what it cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.types import Scope

from gptoss_bento.access.admission import Admission, Grant, RefusedError, Rule, key_rules
from gptoss_bento.access.authentication import key_of
from gptoss_bento.access.generation_count import generations_of, refuse_more_than
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.access.request_caps import GENERATING, CapError, capped, caps_need_body
from gptoss_bento.access.stored_limits import present_limits
from gptoss_bento.config.api_keys import KeyLimits
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.http.paths import MESSAGES, RESPONSES
from gptoss_bento.jobs.input import TOKENIZE, EngineRequest, InputError, Models, engine_request
from gptoss_bento.state.database import StoreUnavailableError
from gptoss_bento.state.job import Claim, Job

_POLL_INTERVAL_S = 0.01  # one job of each worker does
_FIRST = Rule("first in the line of jobs", "Jobs", concurrent=1)
_SECOND = Rule("second in the line of jobs", "Jobs", concurrent=1)
_RATES = "gptoss_bento.rates"

_HARMLESS = frozenset({TOKENIZE, "/detokenize", f"{MESSAGES}/count_tokens"})


@dataclass(frozen=True)
class JobLimits:
    """The limits of the keys that jobs came with. A job stores its key's owner; the key's present limits hold.

    It also stores the limits themselves, where every worker finds them after any restart: those of
    a key that was removed meanwhile are known from nowhere else, and its jobs must not run without.
    """

    keys: KeyStore = field(default_factory=KeyStore)
    admission: Admission = field(default_factory=Admission)
    _line: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    @contextmanager
    def admitted(self, scope: Scope) -> Iterator[None]:
        """Within it a request starts a job. It costs nothing if there is no room for that, or no store.

        The scope then has the rate headers for the answer, success or not: `rates_of`.

        Raises:
            RefusedError: the key has made as many requests as it may.
        """
        grant = self.admission.enter(key_rules(key_of(scope), streams=False))
        scope[_RATES] = grant.headers
        try:
            yield
        except (RefusedError, StoreUnavailableError):
            scope[_RATES] = grant.refund()
            raise
        finally:
            grant.leave()

    @asynccontextmanager
    async def room_for(self, request: EngineRequest, most: int) -> AsyncIterator[None]:
        """Holds the engine slots of a job. A job of several generations waits until there are slots for all of them.

        The jobs of a worker wait in a queue. The first ones of several workers take turns.

        Args:
            request: of the job.
            most: generations of all such jobs together.
        """
        generations = generations_of(request.path, request.body or {})
        if generations == 1:  # it runs in the job's own slot, of `MAX_CONCURRENCY`
            yield
            return
        async with self._line:
            grant = await self._entered_in_turn(Rule("generations of jobs", "Jobs", concurrent=most), generations)
        try:
            yield
        finally:
            grant.leave()

    async def _entered_in_turn(self, rule: Rule, slots: int) -> Grant:
        """A lock in two stages, so that no worker starves: only the holder of the second lock may take the first.

        A worker that releases the first lock queues for the second one again, behind a worker that already waits there.
        """
        second = await self._entered(_SECOND, 1)
        try:
            first = await self._entered(_FIRST, 1)
        finally:
            second.leave()
        try:
            return await self._entered(rule, slots)
        finally:
            first.leave()

    async def _entered(self, rule: Rule, slots: int) -> Grant:
        while True:
            try:
                return self.admission.enter((rule,), slots)
            except RefusedError:
                await asyncio.sleep(_POLL_INTERVAL_S)

    def of(self, job: Job | Claim) -> KeyLimits:
        """What a job may have; nothing bounds it where there are no keys any more."""
        return present_limits(self.keys, job.owner, job.key_limits)

    def charge(self, owner: str | None, tokens: int) -> None:
        """A job of this owner has cost so many tokens."""
        key = self.keys.of_owner(owner) if owner else None
        if rules := key_rules(key, streams=False):
            self.admission.charge(rules, tokens)


def rates_of(scope: Scope) -> Mapping[str, str]:
    """Headers with what is left of a key's rates; none where it has none, or the request names no job."""
    rates: Mapping[str, str] = scope.get(_RATES, {})
    return rates


def limited_request(
    given: Mapping[str, Any], settings: ServerSettings, models: Models, limits: KeyLimits
) -> EngineRequest:
    """What `input` asks for, within the limits of its key.

    Raises:
        InputError: no shape matches, a field is wrong, or it asks for more than the key or any request may have.
    """
    if limits.max_tokens:
        default = min(settings.native_default_max_tokens, limits.max_tokens)
        settings = settings.model_copy(update={"native_default_max_tokens": default})
    request = engine_request(given, settings, models)
    if request.path == RESPONSES and request.body and request.body.get("background"):
        raise InputError("background is not available to jobs: what is generated would outlive its job.")
    if request.body is None:
        return request
    try:
        refuse_more_than(settings.max_openai_requests, "This server", generations_of(request.path, request.body))
        return _within(request, request.body, limits)
    except CapError as error:
        raise InputError(str(error)) from None


def _within(request: EngineRequest, body: Mapping[str, Any], limits: KeyLimits) -> EngineRequest:
    if not caps_need_body(limits):
        return request
    if request.path not in GENERATING | _HARMLESS:  # vLLM has more routes, and of those nothing is known here
        raise InputError(f"Invalid route: {request.path} is not available to this key.")
    return replace(request, body=capped(request.path, body, limits))
