"""Composition root: one worker's start, its ASGI application and its end."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette

from gptoss_bento import artifacts, death, engine, environment, hardware, supervision
from gptoss_bento.daemon_thread import in_daemon_thread
from gptoss_bento.drain import Drain
from gptoss_bento.engine import Engine
from gptoss_bento.engine_errors import ABORTED
from gptoss_bento.errors import EngineDiedError, EngineStartError, GptOssBentoError, JobStoreError
from gptoss_bento.hardware import Hardware
from gptoss_bento.heartbeat import Heartbeat
from gptoss_bento.http.errors import not_found
from gptoss_bento.http.openai import OpenAIRoutes
from gptoss_bento.native.inference import AsgiEngine
from gptoss_bento.native.routes import NativeRoutes
from gptoss_bento.native.runner import Runner, running_jobs
from gptoss_bento.native.store import StoreUnavailableError
from gptoss_bento.plan import EnginePlan, make_plan
from gptoss_bento.process_log import ProcessLog
from gptoss_bento.profile import AUTOMATIC, automatic_profile, load_profile
from gptoss_bento.settings import ServerSettings, Settings
from gptoss_bento.startup import Startup, State

logger = logging.getLogger(__name__)

_WATCH_INTERVAL_S = 0.5
_LINES_SHOWN = 20


class Worker:
    """One worker of the service. BentoML enters `lifespan`; the engine comes up in a task while probes answer."""

    def __init__(self, profile: str = AUTOMATIC) -> None:
        self.startup = Startup()
        self.engine: Engine | None = None
        self.jobs: Runner | None = None
        self.drain = Drain()
        self._profile = profile
        self._stopping = asyncio.Event()
        self._is_loading = True
        self._log = ProcessLog()

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Starts on entering, without waiting for the engine; ends everything on leaving."""
        _log_to_stderr()
        self._log.tap()
        supervision.limit_shutdown(self._stop)
        task = asyncio.create_task(self._serve())
        yield
        self.startup.stop()
        self._stopping.set()
        if self._is_loading and not task.done():  # in threads that nothing can interrupt
            self._log.untap()
            supervision.force_exit()
        await task
        supervision.leave_worker()
        self._log.untap()

    def _stop(self, number: int, end: Callable[[], None]) -> float:
        """Called by the signal handler."""
        if self.drain.begun and number == signal.SIGINT:
            self.drain.skip()
        self.startup.stop()
        if not self._is_stopping:  # failed: there is nothing to wait for
            end()
            return 0
        return self.drain.begin(end)

    async def _serve(self) -> None:
        try:
            supervision.enter_worker()
            await self._run_engine()
        except GptOssBentoError as error:
            self._fail(error)
        except Exception as error:
            logger.exception("unexpected error at start-up")
            self._fail(EngineStartError(f"{type(error).__name__}: {error}"))

    async def _run_engine(self) -> None:
        settings = self._load_settings()
        async with self._job_runner(settings) as jobs:  # jobs are accepted while the engine loads
            argv = await self._prepare(settings)
            async with engine.running(argv, self.startup, settings.server.vllm_startup_timeout) as running:
                self.engine, self._is_loading = running, False
                self._log.release()
                jobs.attach(AsgiEngine(running.app, lambda: running.dead, running.token_bytes))
                self.startup.ready()
                try:
                    async with self.drain.offered(settings.server.drain_timeout, _Work(running, jobs, self.drain)):
                        await self._watch(running, settings.server.engine_stall_timeout)
                except EngineDiedError as error:
                    self._fail(error)  # the probes say so from now on, not when all is cleared away
                finally:
                    jobs.detach()
                    await jobs.stop()  # while the engine can still be told to abort

    @asynccontextmanager
    async def _job_runner(self, settings: Settings) -> AsyncIterator[Runner]:
        try:
            async with running_jobs(settings.server, settings.cache_dir / "jobs" / self._job_file(settings)) as jobs:
                self.jobs = jobs
                try:
                    yield jobs
                finally:
                    self.jobs = None
        except StoreUnavailableError as error:
            raise JobStoreError(str(error)) from error

    def _job_file(self, settings: Settings) -> str:
        """One for each model, because a service takes up the jobs that it finds."""
        names = [Path(self._profile).stem, *([settings.model_name] if settings.model_name else [])]
        return re.sub(r"[^\w.-]+", "-", "-".join(names)) + ".sqlite3"

    def _load_settings(self) -> Settings:
        with self.startup.timed("settings"):
            settings = environment.load_settings()
        environment.apply_derived(settings)
        return settings

    async def _prepare(self, settings: Settings) -> list[str]:
        """Everything before vLLM: the plan, printed with its origins, and the artifacts. Returns vLLM's arguments."""
        with self.startup.timed("hardware"):
            machine = hardware.probe(settings.visible_devices)
        profile = load_profile(self._profile_name(settings, machine))
        plan = make_plan(settings, profile, machine)
        _print_plan(plan)
        with self.startup.timed("artifacts"):
            found = await in_daemon_thread(
                artifacts.prepare,
                plan.model.value,
                plan.revision.value,
                settings.cache_dir,
                settings.vocabulary_dir,
                plan.draft,
            )
        environment.apply(plan.variables(found.vocabulary_dir))
        return plan.argv(found.model)

    def _profile_name(self, settings: Settings, machine: Hardware) -> str:
        return automatic_profile(machine, settings.model_name) if self._profile == AUTOMATIC else self._profile

    async def _watch(self, running: Engine, stall_timeout_s: float) -> None:
        """Returns when the service is asked to stop. Raises EngineDiedError when the engine dies or hangs first."""
        heartbeat = Heartbeat(running.answer, stall_timeout_s)
        beating = asyncio.create_task(heartbeat.run())
        try:
            while not self._stopping.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), _WATCH_INTERVAL_S)
                self.startup.stalled(heartbeat.silent_s if heartbeat.is_late else None)
                await self._confirm_life(running, beating)
        finally:
            beating.cancel()

    async def _confirm_life(self, running: Engine, beating: asyncio.Task[None]) -> None:
        hangs = beating.exception() if beating.done() else None
        if not (running.dead or hangs):
            return
        await asyncio.sleep(_WATCH_INTERVAL_S)  # at a stop the engine hears SIGTERM too, perhaps before us
        if self.startup.state is State.STOPPING:
            return
        if running.dead or hangs is None:
            raise EngineDiedError("vLLM's engine process died while serving")
        running.cut_off(f"{hangs}. Try again.")
        raise hangs

    @property
    def _is_stopping(self) -> bool:
        return self.startup.state is State.STOPPING

    def _fail(self, error: GptOssBentoError) -> None:
        if self.startup.state in (State.STOPPING, State.FAILED):
            return
        signal_of_death = self.engine.exit_signal if self.engine else None
        kind = death.classify(self._log.last(), signal_of_death)
        said = error
        error = death.explained(said, kind, self._log.cause())
        self.engine = None
        if error is said:
            self.startup.fail(error)
        else:
            self.startup.fail(error, kind.name, self._log.last(_LINES_SHOWN))
        supervision.stop_service(error)


@dataclass(frozen=True)
class _Work:
    """What runs in this worker, as a drain sees it."""

    engine: Engine
    jobs: Runner
    drain: Drain

    @property
    def busy(self) -> bool:
        if self.drain.in_flight or self.jobs.running:
            return True
        return not self.engine.dead and self.engine.unfinished_requests > 0  # of responses that nobody listens to

    def pause(self) -> None:
        self.jobs.pause()

    async def hand_back(self) -> None:
        self.engine.cut_off(ABORTED)
        await self.jobs.stop()


def build_app(worker: Worker, server: ServerSettings) -> Starlette:
    """The application that BentoML mounts at /."""
    endpoint_ids = frozenset(server.endpoint_ids)
    openai = OpenAIRoutes(lambda: worker.engine.app if worker.engine else None, endpoint_ids)
    native = NativeRoutes(lambda: worker.jobs, endpoint_ids, worker.startup.trouble)
    return Starlette(routes=[native, openai], lifespan=worker.lifespan, exception_handlers={404: not_found})


def _print_plan(plan: EnginePlan) -> None:
    rows = list(plan.rows())
    width = max(len(name) for name, _, _ in rows)
    lines = [f"  {name:<{width}}  {value}" + (f"  [{origin}]" if origin else "") for name, value, origin in rows]
    logger.info("plan:\n%s", "\n".join(lines))


def _log_to_stderr() -> None:
    package = logging.getLogger("gptoss_bento")
    if not package.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s gptoss-bento %(message)s"))
        package.addHandler(handler)
        package.setLevel(logging.INFO)
        package.propagate = False
