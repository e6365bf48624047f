"""One worker of the service: its start, its watch over the engine and its end."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from starlette.applications import Starlette
from starlette.types import ASGIApp

from gptoss_bento.access.admission import Admission, engine_rule
from gptoss_bento.access.admission_middleware import AdmissionMiddleware
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.artifacts import kernel_cache, prepare, writable_folders
from gptoss_bento.artifacts.model_lookup import START_LIMIT_S
from gptoss_bento.batches.batch_routes import BatchesApi
from gptoss_bento.batches.batch_run import RunParts
from gptoss_bento.batches.batch_runner import BatchRunner
from gptoss_bento.batches.file_routes import FilesApi
from gptoss_bento.batches.line_calls import LineCalls
from gptoss_bento.batches.slots import Slots
from gptoss_bento.batches.stored_files import FileBounds, StoredFiles
from gptoss_bento.concurrency import in_daemon_thread, wait_or_timeout
from gptoss_bento.config import environment, process_environment
from gptoss_bento.config.profile import AUTOMATIC
from gptoss_bento.config.settings import ServerSettings, Settings, comma_list
from gptoss_bento.engine import failure_cause
from gptoss_bento.engine import launcher as engine
from gptoss_bento.engine.client import Engine
from gptoss_bento.engine.failures import ABORTED
from gptoss_bento.engine.health_check import EngineHealthCheck
from gptoss_bento.engine.kernel_compilations import KernelCompilations
from gptoss_bento.engine.launcher import StartOptions
from gptoss_bento.engine.process_output import ProcessLog
from gptoss_bento.engine.vllm_plugin import start_times
from gptoss_bento.errors import (
    EngineDiedError,
    EngineStartError,
    GptOssBentoError,
    JobStoreError,
    MachineError,
    WorkerDiedError,
)
from gptoss_bento.hardware import probe
from gptoss_bento.http.fields.served_model import GPT_OSS, ServedModel
from gptoss_bento.jobs.engine_client import AsgiEngine
from gptoss_bento.jobs.limits import JobLimits
from gptoss_bento.jobs.runner import Runner, running_jobs
from gptoss_bento.planning import tools as planned_tools
from gptoss_bento.planning.plan import EnginePlan, Planned
from gptoss_bento.responses.background_slots import BackgroundSlots
from gptoss_bento.responses.routes import ResponsesApi
from gptoss_bento.responses.stored_responses import StoredResponses
from gptoss_bento.server.api_workers import plan_for
from gptoss_bento.server.hosted_tools import hosted_tools
from gptoss_bento.state import default_file
from gptoss_bento.state.batch_store import BatchStore
from gptoss_bento.state.clock import now_ms
from gptoss_bento.state.database import StoreUnavailableError
from gptoss_bento.state.default_file import Owner
from gptoss_bento.state.file import FileLimits
from gptoss_bento.state.file_store import FileStore
from gptoss_bento.state.idempotency import IdempotencyStore
from gptoss_bento.state.response_store import ResponseStore
from gptoss_bento.tools.python import confinement
from gptoss_bento.workers import buffered_metrics, exit_note, sigterm, worker_process
from gptoss_bento.workers.graceful_shutdown import GracefulShutdown
from gptoss_bento.workers.readiness import Readiness, State
from gptoss_bento.workers.worker_group import Stage, WorkerGroup

logger = logging.getLogger(__name__)

_WATCH_INTERVAL_S = 0.5
_LINES_SHOWN = 20
_RECORDS_S = 2.0  # for the ends of stored responses, after what runs has been aborted
_FAILURE_REPORT_S = 1.0
"""For so long after the engine's failure the probes and `/health` report its cause."""


class Worker:
    """One worker of the service. BentoML enters `lifespan`; the engine comes up in a task while probes answer."""

    def __init__(
        self, profile: str = AUTOMATIC, group: WorkerGroup | None = None, keys: KeyStore | None = None
    ) -> None:
        self.group = group or WorkerGroup()
        self.startup = Readiness(others_ready=lambda: self.group.all_ready)
        self.admission = Admission()
        self._job_limits = JobLimits(keys or KeyStore(), self.admission)
        self.engine: Engine | None = None
        self.jobs: Runner | None = None
        self._openai_app: ASGIApp | None = None
        self.graceful_shutdown = GracefulShutdown()
        self._profile = profile
        self._is_loading = True
        self._job_store: tuple[str, str] | None = None
        self._stopping = asyncio.Event()
        self._log = ProcessLog()
        self._background: asyncio.Task[None] | None = None

    @property
    def engine_app(self) -> ASGIApp | None:
        """vLLM's application, once there is an engine."""
        return self.engine.app if self.engine else None

    @property
    def served_model(self) -> ServedModel:
        """What fields of requests depend on, once there is an engine."""
        return self.engine.served_model if self.engine else GPT_OSS

    @property
    def openai_app(self) -> ASGIApp | None:
        """The same as `engine_app`, behind what is stored of responses."""
        return self._openai_app if self.engine else None

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """Starts on entering, without waiting for the engine; ends everything on leaving."""
        _log_to_stderr(self.group)
        self._log.tap()
        if not self.group.is_alone:
            self.admission.share(worker_process.limits_file())
        task = asyncio.create_task(self._serve())
        yield
        self._mark_stopping()
        self._stopping.set()
        # Still loading, or waiting for an engine that will not come, in threads that nothing can interrupt.
        if self._is_loading and not (task.done() and self.group.is_alone):
            self._log.untap()
            sigterm.force_exit(self.group)
        await task
        worker_process.leave_worker(self.group)
        self._log.untap()

    def _mark_stopping(self) -> None:
        self.group.reach(Stage.STOPPING)
        self.startup.stop()

    def stop(self, number: int, end: Callable[[], None]) -> None:
        """Called by the HTTP server's handler of SIGTERM and SIGINT. From now on the worker ends, in time.

        Args:
            number: which signal it is; a second SIGINT ends the wait for what runs.
            end: lets the HTTP server end; called when what runs has ended.
        """
        sigterm.limit_shutdown(self._stop(number, end), self.group)

    def _stop(self, number: int, end: Callable[[], None]) -> float:
        """Returns the seconds that running work has."""
        if self.graceful_shutdown.begun and number == signal.SIGINT:
            self.graceful_shutdown.force()
        self._mark_stopping()
        if not self._is_stopping:  # failed: the probes report the cause for a moment
            self._end_after_report(end)
            return 0
        return self.graceful_shutdown.begin(end)

    def _end_after_report(self, end: Callable[[], None]) -> None:
        if self.startup.kind is None:  # the last line says it all
            end()
        else:
            asyncio.get_running_loop().call_later(_FAILURE_REPORT_S, end)

    async def _serve(self) -> None:
        try:
            worker_process.enter_worker(self.group)
            await self.group.together(self._run_engine(), self._fail)
        except GptOssBentoError as error:
            self._fail(error)
        except PermissionError as error:
            logger.exception("not allowed at start-up")
            self._fail(MachineError(writable_folders.refusal(error)))
        except Exception as error:
            logger.exception("unexpected error at start-up")
            self._fail(EngineStartError(f"{type(error).__name__}: {error}"))

    async def _run_engine(self) -> None:
        settings = self._load_settings()
        check_files_dir(settings.server.files_dir)
        async with self._job_runner(settings) as jobs:  # jobs are accepted while the engine loads
            try:
                await self._serve_with_engine(settings, jobs)
            except (EngineStartError, EngineDiedError) as error:
                self._fail(error)
                if not self._is_stopping:
                    await asyncio.sleep(_FAILURE_REPORT_S)  # `/health` needs the jobs

    async def _serve_with_engine(self, settings: Settings, jobs: Runner) -> None:
        plan, argv = await self._prepare(settings)
        timeout_s = settings.server.vllm_startup_timeout
        how = StartOptions(preload=plan.preload.value, warmup=plan.warmup.value)
        async with (
            hosted_tools(settings, plan) as tools,
            engine.running(argv, self.startup, timeout_s, self.group, replace(how, tools=tools)) as running,
            buffered_metrics.written_later(),
        ):
            await self.group.first_ready()  # it sends the warm-up requests
            slots = self._background_slots(settings.server, running)
            name, context_tokens = plan.served_names.value[0], running.context_tokens
            responses = stored_responses(jobs, settings.server, name, context_tokens, slots)
            may_store = settings.server.vllm_enable_responses_api_store == "1"
            files = stored_files(jobs, settings)
            app = ResponsesApi(
                running.app,
                responses,
                may_store=may_store,
                can_search=running.can_search,
                refuses_unknown=settings.server.unknown_fields == "refuse",
                model=running.served_model,
            )
            batches = self._batches(running, jobs, files, settings.server)
            self._openai_app = _with_batches(app, files, batches, settings.server)
            self.engine, self._is_loading = running, False
            self._log.release()
            jobs.attach(AsgiEngine(app, lambda: running.dead, running.token_bytes, running.served_model))
            responses.start(running.app)
            self.group.reach(Stage.READY)
            self.startup.ready()
            compilations = self._started(plan)
            work = _Work(running, jobs, batches, responses, self.graceful_shutdown)
            try:
                async with self.graceful_shutdown.draining(settings.server.drain_timeout, work):
                    await self._watch(running, settings.server.engine_stall_timeout, compilations)
            except EngineDiedError as error:
                self._fail(error)  # immediately: the probes say so, and the other workers wait for it
                raise
            finally:
                await self._wind_up(running, jobs, batches)
                await responses.stop(_RECORDS_S)
                await files.stop(_RECORDS_S)

    def _background_slots(self, settings: ServerSettings, running: Engine) -> BackgroundSlots:
        """Half of MAX_OPENAI_REQUESTS, so that clients that wait always find slots; this worker's share of that."""
        most = self.group.share(settings.max_openai_requests // 2)
        limits, engine_slots = self._job_limits, settings.max_openai_requests

        def may_run() -> bool:
            is_ending = self.startup.state in (State.STOPPING, State.FAILED) or self.group.is_ending
            return not (is_ending or running.dead)

        return BackgroundSlots(limits.keys, limits.admission, engine_slots, max(1, most), may_run)

    def _started(self, plan: EnginePlan) -> KernelCompilations:
        """Logs the parts of the start, and notes for which plan its kernels are. The first worker does."""
        compilations = KernelCompilations(process_environment.compilations_file() if self.group.is_first else None)
        compilations.ready()
        if self.group.is_first:
            self.startup.explain(engine.LOADING, start_times.read(process_environment.start_times_file()))
            if plan.kernels:
                seconds, warmup = self.startup.seconds, bool(plan.warmup.value)
                noting = in_daemon_thread(kernel_cache.note_filled, plan.kernels, seconds, warmup)
                self._background = asyncio.create_task(noting)
        return compilations

    def _batches(self, running: Engine, jobs: Runner, files: StoredFiles, settings: ServerSettings) -> BatchRunner:
        """The batches of this service, which its first worker runs."""
        guarded = AdmissionMiddleware(lambda: self.openai_app, self.admission, settings, lambda: self.served_model)
        rule = engine_rule(settings.max_openai_requests)

        def has_room() -> bool:
            return self.admission.in_use(rule) + self.group.jobs < running.sequences

        calls = LineCalls(guarded.app, self._job_limits.keys, settings.request_timeout)
        slots = Slots(settings.batch_concurrency, has_room)
        store = BatchStore(jobs.store.database, now_ms)
        parts = RunParts(store, files, slots, calls.answer, calls.most_lines, settings.max_openai_body_bytes, now_ms)
        made = BatchRunner(parts, jobs.worker_id, runs=self.group.is_first)
        made.start()
        return made

    async def _wind_up(self, running: Engine, jobs: Runner, batches: BatchRunner) -> None:
        self.group.reach(Stage.STOPPING)
        jobs.detach()
        await asyncio.gather(jobs.stop(), batches.stop())  # while the engine can still abort
        if self.group.is_first and self._is_stopping:  # what the others still answer needs the engine
            await self.group.others_left(lambda: self._hurry_if_lost(running))
        running.abort_all(ABORTED)
        await self.graceful_shutdown.wait_delivered()  # vLLM takes away what its application needs for an answer

    @asynccontextmanager
    async def _job_runner(self, settings: Settings) -> AsyncIterator[Runner]:
        try:
            async with (
                self._job_file(settings) as file,
                running_jobs(settings.server, file, self.group, self._job_limits) as jobs,
            ):
                self.jobs = jobs
                try:
                    yield jobs
                finally:
                    self.jobs = None
        except StoreUnavailableError as error:
            raise JobStoreError(str(error)) from error

    @asynccontextmanager
    async def _job_file(self, settings: Settings) -> AsyncIterator[Path]:
        """The file of the jobs, which no other running service has. JOB_STORE_URL wins over it."""
        first = default_file.first_file(settings.cache_dir / "jobs", self._profile, settings.model_name)
        if settings.server.job_store_url:
            self._job_store = ("set", default_file.FROM_URL)
            yield first
            return
        owner = Owner(worker_process.service_id(), worker_process.listening_port())
        found = await in_daemon_thread(default_file.claim, first, owner)
        self._job_store = (str(found.path), found.origin)
        if not found.is_usual and not found.is_joined:
            logger.warning("jobs are kept in %s: %s", found.path, found.origin)
        try:
            yield found.path
        finally:
            found.release()

    def _load_settings(self) -> Settings:
        with self.startup.timed("settings"):
            settings = environment.load_settings()
        process_environment.apply_derived(settings)
        return settings

    async def _prepare(self, settings: Settings) -> tuple[EnginePlan, list[str]]:
        """Everything before vLLM: the plan, printed with its origins, and the artifacts. Gives vLLM's arguments too."""
        with self.startup.timed("hardware"):
            machine = probe.probe(settings.visible_devices)
        if not self.group.is_first:
            with self.startup.timed("waiting for the first API worker"):
                await self.group.prepared()  # before planning, so that all of them find the same config.json
        plan = await in_daemon_thread(plan_for, self._profile, settings, machine, START_LIMIT_S)
        plan = planned_tools.settled(plan, settings, confinement.problem())
        plan = await in_daemon_thread(kernel_cache.settled, plan)
        if plan.api_workers.value != self.group.count:  # BENTOML_CONFIG or --reload said otherwise
            plan = replace(plan, api_workers=Planned(self.group.count, "as BentoML started them; one with --reload"))
        if self.group.is_first:
            _print_plan(plan, self._job_store)
            if plan.kernels:
                await in_daemon_thread(kernel_cache.replace_unwritable, plan.kernels)
        with self.startup.timed("artifacts"):
            found = await in_daemon_thread(prepare.prepare_planned, settings, plan, self.startup.set_progress)
        self.group.reach(Stage.PREPARED)
        process_environment.apply(plan.variables(found.vocabulary_dir))
        return plan, plan.argv(found.model)

    async def _watch(self, running: Engine, stall_timeout_s: float, compilations: KernelCompilations) -> None:
        """Returns when the service is asked to stop. Raises EngineDiedError when the engine dies or hangs first."""
        health_check = EngineHealthCheck(running.answer, stall_timeout_s)
        beating = asyncio.create_task(health_check.run())
        try:
            while not self._stopping.is_set():
                await wait_or_timeout(self._stopping, _WATCH_INTERVAL_S)
                self.startup.stalled(health_check.silent_s if health_check.is_late else None)
                compilations.check()
                await self._confirm_life(running, beating)
        finally:
            beating.cancel()

    async def _confirm_life(self, running: Engine, beating: asyncio.Task[None]) -> None:
        if self._is_stopping:
            self._hurry_if_lost(running)
            return
        hangs = beating.exception() if beating.done() else None
        if not (running.dead or hangs) or (running.dead and not self.group.is_first):  # its owner says so for all
            return
        await asyncio.sleep(_WATCH_INTERVAL_S)  # at a shutdown the engine receives SIGTERM too, perhaps earlier
        if self.startup.state is State.STOPPING:
            return
        if running.dead or hangs is None:
            raise EngineDiedError("vLLM's engine process died while serving")
        running.abort_all(f"{hangs}. Try again.")
        raise hangs

    def _hurry_if_lost(self, running: Engine) -> None:
        """At a stop nothing needs to be waited for once the engine has crashed: no request can end any more."""
        if running.crashed:
            self.group.lose_engine()
        if self.group.has_lost_engine:
            self.graceful_shutdown.force()

    @property
    def _is_stopping(self) -> bool:
        return self.startup.state is State.STOPPING

    def _fail(self, error: GptOssBentoError) -> None:
        if self.startup.state in (State.STOPPING, State.FAILED):
            return
        if isinstance(error, WorkerDiedError) and (cause := exit_note.noted_cause()):
            error = WorkerDiedError(f"{error} {cause}")
        kind = failure_cause.classify(self._log.recent(), self._exit_signal(error))
        said = error
        error = failure_cause.explained(said, kind, self._log.cause())
        self.engine = None
        if error is said:
            self.startup.fail(error)
        else:
            self.startup.fail(error, kind.name, self._log.last(_LINES_SHOWN))
        exit_note.stop_service(error)
        self.group.fail()  # after the note: what others note then is only the consequence

    def _exit_signal(self, error: GptOssBentoError) -> int | None:
        if self.engine:
            return self.engine.exit_signal
        return error.exit_signal if isinstance(error, EngineStartError) else None


@dataclass(frozen=True)
class _Work:
    """What runs in this worker, as a graceful shutdown sees it."""

    engine: Engine
    jobs: Runner
    batches: BatchRunner
    responses: StoredResponses
    graceful_shutdown: GracefulShutdown

    @property
    def busy(self) -> bool:
        if self.graceful_shutdown.in_flight or self.jobs.running or self.batches.running:
            return True
        return not self.engine.dead and (self.responses.running or self.engine.unfinished_requests) > 0

    def pause(self) -> None:
        self.jobs.pause()
        self.batches.pause()
        self.responses.pause()

    async def abort(self) -> None:
        self.engine.abort_all(ABORTED)
        await asyncio.gather(self.responses.stop(_RECORDS_S), self.jobs.stop(), self.batches.stop())


def stored_responses(
    jobs: Runner, settings: ServerSettings, model: str, context_tokens: int, slots: BackgroundSlots
) -> StoredResponses:
    """The responses of this worker, in the database of its jobs."""
    store, how_long = ResponseStore(jobs.store.database, now_ms), (settings.responses_ttl, settings.responses_max)
    given = settings.responses_encryption_key
    keys = comma_list(given.get_secret_value()) if given else ()
    bounds = settings.max_queue_size, settings.max_openai_body_bytes
    return StoredResponses(store, jobs.worker_id, *how_long, model, keys, context_tokens, slots, *bounds)


def check_files_dir(folder: Path | None) -> None:
    """Makes the folder of files that the operator named.

    Raises:
        MachineError: this user cannot write there; it names the path and its owner.
    """
    if folder is None:
        return
    if reason := writable_folders.obstacle(folder):
        raise MachineError(f"FILES_DIR: {reason}. {writable_folders.REMEDY}.")
    folder.mkdir(parents=True, exist_ok=True)


def stored_files(jobs: Runner, settings: Settings) -> StoredFiles:
    """The files of this worker, in the database of its jobs; cleaning up has started."""
    server = settings.server
    of_key = FileLimits(server.files_max, server.files_key_max_bytes)
    bounds = FileBounds(of_key, server.files_max_bytes, server.files_ttl, server.client_timeout)
    store = FileStore(jobs.store.database, now_ms)
    made = StoredFiles(store, server.files_dir or settings.cache_dir / "jobs" / "files", jobs.worker_id, bounds)
    made.start()
    return made


def _with_batches(app: ASGIApp, files: StoredFiles, batches: BatchRunner, settings: ServerSettings) -> ASGIApp:
    """The OpenAI API with its files and batches."""
    uses = IdempotencyStore(batches.store.database, now_ms)
    return BatchesApi(FilesApi(app, files), batches.store, uses, batches, settings.batches_max, settings.files_ttl)


def _print_plan(plan: EnginePlan, job_store: tuple[str, str] | None = None) -> None:
    rows = [*plan.rows(), *([("job store", *job_store)] if job_store else [])]
    width = max(len(name) for name, _, _ in rows)
    lines = [f"  {name:<{width}}  {value}" + (f"  [{origin}]" if origin else "") for name, value, origin in rows]
    logger.info("plan:\n%s", "\n".join(lines))


def _log_to_stderr(group: WorkerGroup) -> None:
    package = logging.getLogger("gptoss_bento")
    if not package.handlers:
        handler = logging.StreamHandler(sys.stderr)
        name = "gptoss-bento" if group.is_alone else f"gptoss-bento worker {group.index + 1}:"
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {name} %(message)s"))
        package.addHandler(handler)
        package.setLevel(logging.INFO)
        package.propagate = False
