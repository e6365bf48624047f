"""The whole service but for vLLM: `bentoml serve tests.engineless_service:GptOss` is ready in seconds.

BentoML's supervisor, the workers, their supervision, the job API and every middleware are the real ones; the engine is
the fake one of each worker, beside a process of the first that is as hard to end as vLLM's is while it loads.

tests/holds.py starts it, and lets a test decide when the engine has loaded and when an answer goes on.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from http import HTTPStatus
from typing import Any

import psutil
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.engine import launcher
from gptoss_bento.http.errors import BrokenStreamError
from gptoss_bento.http.fields.served_model import GPT_OSS
from gptoss_bento.http.paths import RESPONSES
from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.responses.fake_vllm import FakeVllm
from gptoss_bento.server import worker
from gptoss_bento.workers.readiness import Readiness
from gptoss_bento.workers.worker_group import WorkerGroup
from tests import holds

_TOKEN_S = 0.01
_POLL_INTERVAL_S = 0.01
_ENGINE = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(3600)"


class HeldEngine(FakeEngine):
    """Its answers stay at their first token while a test holds them."""

    async def _events(self, tokens: Sequence[Any]) -> AsyncIterator[tuple[int, int]]:
        async with aclosing(super()._events(tokens)) as events:  # type: ignore[type-var]  # an iterator that can be closed
            async for start, end in events:
                yield start, end
                await holds.released(holds.ANSWERS)


class EnginelessEngine:
    """What server/worker.py asks of `gptoss_bento.engine.client.Engine`."""

    served_model = GPT_OSS
    can_search = False
    context_tokens = 4096
    sequences = 64

    def __init__(self, process: subprocess.Popen[bytes] | None) -> None:
        self._process = process
        self._fake = HeldEngine(delay_s=_TOKEN_S)
        self._answers: set[asyncio.Task[None]] = set()
        self._last_word: str | None = None
        self._is_over = False
        self._app = self._fake.app()
        self._responses = FakeVllm(pause=self._paused, on_end=holds.note_end)
        if count := os.environ.get(holds.WORDS):
            self._responses.words = [f"{number} " for number in range(int(count))]

    @property
    def app(self) -> ASGIApp:
        return self._answer

    @property
    def unfinished_requests(self) -> int:
        return self._fake.running + self._responses.running

    @property
    def dead(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    @property
    def exit_signal(self) -> int | None:
        return -(self._process.returncode or 0) or None if self._process else None

    @property
    def crashed(self) -> bool:
        return self.dead

    async def answer(self) -> None:
        """Immediately, unless the process beside it is stopped."""
        while self._process and psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(_POLL_INTERVAL_S)

    async def _paused(self) -> None:
        await holds.released(holds.ANSWERS)
        if holds.WORDS in os.environ:
            await asyncio.sleep(_TOKEN_S)

    def token_bytes(self, token_ids: Sequence[int]) -> list[bytes]:
        return self._fake.token_bytes(token_ids)

    def abort_all(self, message: str) -> None:
        self._last_word = message
        for answer in self._answers:
            answer.cancel()

    def end(self) -> None:
        """vLLM's application loses its state with its lifespan: an error that comes later finds no words."""
        self._is_over = True

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        app: ASGIApp = self._responses if scope["path"].startswith(RESPONSES) else self._app
        answer = asyncio.ensure_future(app(scope, receive, send))
        self._answers.add(answer)
        try:
            await answer
        except asyncio.CancelledError:
            if self._last_word is None:
                raise
            if self._is_over:
                raise RuntimeError("the application is over") from None
            raise BrokenStreamError(HTTPStatus.SERVICE_UNAVAILABLE, self._last_word) from None
        finally:
            self._answers.discard(answer)


def _start_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _ENGINE, "EngineCore"])


@asynccontextmanager
async def running(
    _: Sequence[str], startup: Readiness, __: float, group: WorkerGroup, ___: object = None
) -> AsyncIterator[EnginelessEngine]:
    """In place of `gptoss_bento.engine.launcher.running`."""
    process = _start_process() if group.is_first else None
    try:
        with startup.timed("engine: weights and KV cache"):
            await holds.released(holds.LOADING)
        made = EnginelessEngine(process)
        try:
            yield made
        finally:
            made.end()
    finally:
        if process:
            process.kill()
            process.wait()


worker._FAILURE_REPORT_S = float(os.environ.get(holds.CAUSE_SHOWN_S, worker._FAILURE_REPORT_S))
launcher.running = running  # type: ignore[assignment]  # before service.py imports server/worker.py's worker

from service import GptOss  # noqa: E402

__all__ = ["GptOss"]
