"""The submission of a job that a client may repeat: by its Idempotency-Key the second request has the first's job."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Scope

from gptoss_bento.access.authentication import key_of
from gptoss_bento.http.idempotency import (
    REPLAYED,
    answer_is_gone,
    fingerprint,
    idempotency_key,
    refuse_other_request,
)
from gptoss_bento.http.json_body import json_object
from gptoss_bento.jobs.input import Envelope
from gptoss_bento.jobs.runner import Runner
from gptoss_bento.state.idempotency import IdempotentUse, KeyUsedError
from gptoss_bento.state.job import Job

_REPLAYED = "gptoss_bento.replayed"


class RepeatableSubmission:
    """One request that submits a job.

    Args:
        runner: that takes it.
        scope: of the request.
        route: its name.
        body: its body, a JSON object.

    Raises:
        HttpRefusalError: its Idempotency-Key is no value that can be kept.
    """

    def __init__(self, runner: Runner, scope: Scope, route: str, body: bytes) -> None:
        self._runner = runner
        self._scope = scope
        self._key = key_of(scope)
        value = idempotency_key(scope)
        self._use = IdempotentUse(value, fingerprint(route, json_object(body))) if value else None

    async def earlier(self) -> Job | None:
        """The job of the first request with the same Idempotency-Key; None: this is the first.

        Raises:
            HttpRefusalError: the first was another request, or its job is not kept any more.
        """
        if self._use is None:
            return None
        owner = self._key.owner if self._key else ""
        if (found := await self._runner.idempotency.find(owner, self._use.key)) is None:
            return None
        refuse_other_request(found.fingerprint, self._use.fingerprint)
        if (job := await self._runner.store.get(found.target)) is None:
            raise answer_is_gone("The job")
        self._scope[_REPLAYED] = REPLAYED
        return job

    async def submit(self, envelope: Envelope, *, sync: bool, wait_ms: int | None = None) -> Job:
        """Submits the job, unless another request with the same Idempotency-Key did so a moment ago.

        Raises:
            HttpRefusalError: as `earlier` and `Runner.submit` raise it.
        """
        try:
            return await self._runner.submit(envelope, sync=sync, wait_ms=wait_ms, key=self._key, use=self._use)
        except KeyUsedError:
            return await self.earlier() or await self.submit(envelope, sync=sync, wait_ms=wait_ms)


def replayed(scope: Scope) -> Mapping[str, str]:
    """The header of an answer to a request that has come before; none for another."""
    found: Mapping[str, str] = scope.get(_REPLAYED, {})
    return found
