"""A worker's watch over its engine, and its end. On the real engine: tests/integration."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.responses import JSONResponse

from gptoss_bento.artifacts import kernel_cache
from gptoss_bento.artifacts import prepare as artifacts
from gptoss_bento.artifacts.prepare import Artifacts
from gptoss_bento.config import environment, process_environment
from gptoss_bento.engine import health_check
from gptoss_bento.engine import launcher as engine
from gptoss_bento.engine.kernel_compilations import KernelCompilations
from gptoss_bento.engine.launcher import StartOptions
from gptoss_bento.errors import ConfigurationError, EngineDiedError, EngineStartError, MachineError, WorkerDiedError
from gptoss_bento.hardware import probe
from gptoss_bento.http.fields.served_model import ServedModel
from gptoss_bento.jobs.engine_client import AsgiEngine
from gptoss_bento.server import worker as app
from gptoss_bento.server.worker import Worker
from gptoss_bento.tools.python import confinement
from gptoss_bento.workers import exit_note, sigterm, supervisor
from gptoss_bento.workers.readiness import State
from gptoss_bento.workers.worker_group import Stage, WorkerGroup, make_shared_folder
from tests.configs import LARGE, OTHER, folder_with, gpt_oss
from tests.fakes import H100, Calls, machine
from tests.waiting import HANG_S, until


@dataclass
class FakeEngine:
    """As much of an engine as the watch asks for."""

    dead: bool = False
    crashed: bool = False
    exit_signal: int | None = None
    frozen: bool = False
    unfinished_requests: int = 0
    said: list[str] = field(default_factory=list)

    async def answer(self) -> None:
        while self.frozen:  # noqa: ASYNC110  # a plain switch for the tests
            await asyncio.sleep(0.01)

    def abort_all(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(exit_note, "stop_service", Calls())
    worker = Worker()
    worker.group.reach(Stage.READY)
    worker.startup.ready()
    return worker


def watch(worker: Worker, engine: FakeEngine, stall_timeout_s: float = 60) -> asyncio.Task[None]:
    worker.engine = engine  # type: ignore[assignment]
    return asyncio.create_task(worker._watch(engine, stall_timeout_s, KernelCompilations(None)))  # type: ignore[arg-type]


async def test_dead_engine_is_noticed_within_two_seconds(worker: Worker) -> None:
    engine = FakeEngine()
    task = watch(worker, engine)
    await asyncio.sleep(0.1)
    engine.dead = True
    with pytest.raises(EngineDiedError, match="died while serving"):
        await asyncio.wait_for(task, HANG_S)


async def test_engine_that_ends_at_a_stop_did_not_die(worker: Worker) -> None:
    engine = FakeEngine()
    task = watch(worker, engine)
    engine.dead = True
    worker.startup.stop()
    worker._stopping.set()

    await task


async def test_health_check_that_times_out_ends_a_hanging_engine(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_check, "_PROBE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(app, "_WATCH_INTERVAL_S", 0.02)
    engine = FakeEngine()
    task = watch(worker, engine, 0.6)
    await asyncio.sleep(0.1)
    engine.frozen = True
    await until(lambda: not worker.startup.is_ready)
    with pytest.raises(EngineDiedError, match="it hangs"):
        await task
    assert ["has not answered" in said for said in engine.said] == [True], "running requests fail with the cause"


async def test_health_check_that_succeeds_again_makes_the_worker_ready(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_check, "_PROBE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(app, "_WATCH_INTERVAL_S", 0.02)
    engine = FakeEngine(frozen=True)
    task = watch(worker, engine, 2 * HANG_S)
    monkeypatch.setattr(health_check, "_UNREADY_S", 0.1)
    await until(lambda: not worker.startup.is_ready)
    engine.frozen = False
    await until(lambda: worker.startup.is_ready)
    worker._stopping.set()
    await task


async def test_watch_that_may_not_ask_continues(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_WATCH_INTERVAL_S", 0.02)
    task = watch(worker, FakeEngine(frozen=True), 0)
    await asyncio.sleep(0.2)
    assert not task.done()
    worker._stopping.set()
    await task


def test_engine_failure_is_reported_with_its_cause_and_its_last_lines(worker: Worker) -> None:
    for line in ("INFO 1", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB"):
        worker._log.add(line)
    worker._fail(EngineDiedError("It died"))

    trouble = worker.startup.trouble()
    assert trouble is not None
    assert trouble["cause_kind"] == "out of GPU memory"
    assert trouble["log"][-1].startswith("torch.OutOfMemoryError")
    stopped: Any = exit_note.stop_service
    ((error,),) = stopped.made
    assert "CUDA out of memory" in str(error)
    assert error.exit_code == 75


def test_engine_that_was_killed_is_distinguished_from_one_that_failed(worker: Worker) -> None:
    worker.engine = FakeEngine(exit_signal=signal.SIGKILL)  # type: ignore[assignment]
    worker._fail(EngineDiedError("It died"))

    assert worker.startup.kind == "killed"


def test_warning_of_the_start_is_not_what_it_died_of_later(worker: Worker) -> None:
    worker._log.add("WARNING cannot save the cache: OSError: [Errno 28] No space left on device")
    worker._log.release()
    worker.engine = FakeEngine(exit_signal=signal.SIGSEGV)  # type: ignore[assignment]
    worker._fail(EngineDiedError("It died"))

    assert worker.startup.kind == "crashed"
    assert worker.startup.cause == (
        "It died [crashed: SIGSEGV, a fault of native code; if it comes again, report it with the log]"
    )


def test_killed_start_may_be_tried_again(worker: Worker) -> None:
    error = EngineStartError("vLLM's engine did not start")
    error.exit_signal = signal.SIGKILL
    worker._fail(error)

    stopped: Any = exit_note.stop_service
    ((said,),) = stopped.made
    assert (worker.startup.kind, said.exit_code) == ("killed", 75)


def test_workers_report_the_cause_that_the_first_one_noted(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exit_note, "noted_cause", lambda: "It died of this.")
    worker._fail(WorkerDiedError("API worker 1 cannot go on."))

    assert worker.startup.cause == "API worker 1 cannot go on. It died of this."


def test_configuration_error_has_no_failure_cause(worker: Worker) -> None:
    worker._log.add("OSError: No space left on device")
    worker._fail(ConfigurationError("wrong"))

    assert (worker.startup.kind, worker.startup.cause) == (None, "wrong")


# Signals


def test_signal_before_the_engine_runs_ends_immediately(worker: Worker) -> None:
    end = Calls()

    assert worker._stop(signal.SIGTERM, end) == 0
    assert end.made == [()]
    assert worker.startup.state is State.STOPPING


def test_signal_after_a_failure_ends_immediately(worker: Worker) -> None:
    worker._fail(ConfigurationError("wrong"))
    end = Calls()

    assert worker._stop(signal.SIGTERM, end) == 0
    assert end.made == [()]
    assert worker.startup.state is State.FAILED


async def test_engine_failure_can_be_read_from_probes_for_a_moment(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "_FAILURE_REPORT_S", 0.05)
    worker._fail(EngineDiedError("It died"))
    end = Calls()

    assert worker._stop(signal.SIGTERM, end) == 0
    assert end.made == []
    await until(lambda: end.made)
    assert end.made == [()]


async def test_signal_starts_the_countdown_with_the_time_that_running_work_has(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_shutdown = Calls()
    monkeypatch.setattr(sigterm, "limit_shutdown", limit_shutdown)
    async with worker.graceful_shutdown.draining(60, Busy()):
        worker.stop(signal.SIGTERM, Calls())

    assert limit_shutdown.made == [(60, worker.group)]


@pytest.mark.parametrize(("second", "skips"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
async def test_second_ctrl_c_ends_the_drain(worker: Worker, second: signal.Signals, skips: bool) -> None:
    end = Calls()
    work = Busy()
    async with worker.graceful_shutdown.draining(2 * HANG_S, work):
        assert worker._stop(signal.SIGINT, end) == 2 * HANG_S
        worker._stop(second, end)
        if skips:
            await until(lambda: end.made)
        else:
            await asyncio.sleep(0.2)
            assert not end.made


@pytest.mark.parametrize("crashed", [True, False])
async def test_engine_that_crashes_ends_the_drain_of_all_workers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, crashed: bool
) -> None:
    monkeypatch.setattr(exit_note, "stop_service", Calls())
    make_shared_folder(tmp_path / "group", 2)
    workers = [Worker(group=WorkerGroup(index, 2, tmp_path / "group")) for index in range(2)]
    engines = [FakeEngine(), FakeEngine()]
    ends = [Calls(), Calls()]
    async with AsyncExitStack() as stack:
        for worker, engine, end in zip(workers, engines, ends, strict=True):
            worker.startup.ready()
            await stack.enter_async_context(worker.graceful_shutdown.draining(2 * HANG_S, Busy()))
            stack.callback(watch(worker, engine).cancel)
            assert worker._stop(signal.SIGTERM, end) == 2 * HANG_S
        engines[0].dead, engines[0].crashed = True, crashed
        if crashed:
            await until(lambda: all(end.made for end in ends))
        else:
            await asyncio.sleep(2.2)  # both have looked
            assert not any(end.made for end in ends)


class Busy:
    busy = True

    def pause(self) -> None:
        pass

    async def abort(self) -> None:
        pass


# What is prepared


@pytest.fixture
def prepare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    """A fake of the artifacts; the machine has a fast GPU, and the environment stays as it is."""
    calls = Calls(Artifacts("/models/m", tmp_path))
    monkeypatch.setattr(artifacts, "prepare", calls)
    monkeypatch.setattr(os, "environ", {"HOME": "/root"})
    monkeypatch.setattr(probe, "probe", lambda _: machine(H100))
    return calls


async def test_architecture_that_is_unknown_is_refused_before_anything_is_fetched(
    prepare: Calls, tmp_path: Path
) -> None:
    folder = folder_with(tmp_path / "other", OTHER)

    with pytest.raises(ConfigurationError, match="says Qwen3ForCausalLM"):
        await Worker()._prepare(environment.load_settings({"MODEL_NAME": str(folder)}))

    assert prepare.made == []


async def test_python_that_cannot_be_confined_is_refused_before_anything_is_fetched(
    prepare: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confinement, "problem", lambda: "the kernel has no Landlock")

    with pytest.raises(ConfigurationError, match=r"PYTHON_TOOL asks for Python, .*: the kernel has no Landlock"):
        await Worker()._prepare(environment.load_settings({"PYTHON_TOOL": "on"}))

    assert prepare.made == []


@pytest.mark.parametrize(("name", "checked"), [("tuned", False), ("not-there-yet", True)])
async def test_architecture_that_the_plan_did_not_know_is_checked_before_the_weights(
    prepare: Calls, tmp_path: Path, name: str, checked: bool
) -> None:
    folder_with(tmp_path / "tuned", LARGE)

    _, words = await Worker()._prepare(environment.load_settings({"MODEL_NAME": str(tmp_path / name)}))

    check = prepare.made[0][-2]
    assert bool(check) is checked
    assert words[1:3] == ["--served-model-name", name]


async def test_workers_plan_after_the_first_has_fetched_the_config(prepare: Calls, tmp_path: Path) -> None:
    make_shared_folder(tmp_path / "group", 2)
    first, second = (WorkerGroup(index, 2, tmp_path / "group") for index in range(2))
    settings = environment.load_settings({"MODEL_NAME": str(tmp_path / "tuned")})

    waiting = asyncio.create_task(Worker(group=second)._prepare(settings))
    await asyncio.sleep(0.2)
    assert not prepare.made
    folder_with(tmp_path / "tuned", gpt_oss(24, 32, max_position_embeddings=8192))
    first.reach(Stage.PREPARED)

    assert "--max-model-len=8192" in (await waiting)[1]


# A start


class EmptyDatabase:
    """A fake of the store's, in which nothing is."""

    async def run(self, *_: object, **__: object) -> int:
        return 0


@dataclass
class FakeRunner:
    """As much of the job runner as a start and an end ask for."""

    store = SimpleNamespace(database=EmptyDatabase())
    worker_id = "worker"
    running: int = 0
    engines: list[AsgiEngine] = field(default_factory=list)

    def attach(self, engine: AsgiEngine) -> None:
        self.engines.append(engine)

    def detach(self) -> None:
        self.engines.clear()

    async def stop(self) -> None:
        pass


class ServingEngine(FakeEngine):
    """What jobs ask for besides."""

    app = staticmethod(JSONResponse({}))
    served_model = ServedModel(default_temperature=0)
    can_search = False
    context_tokens = 4096

    def token_bytes(self, _: object) -> None: ...


@dataclass
class Start:
    """Workers whose engines start immediately, and the arguments of their starts."""

    workers: list[Worker]
    asked: list[StartOptions] = field(default_factory=list)
    jobs: FakeRunner = field(default_factory=FakeRunner)

    def serve(self, worker: Worker, environ: dict[str, str]) -> asyncio.Task[None]:
        settings = environment.load_settings({"PROFILE": "demo", **environ})
        return asyncio.create_task(worker._serve_with_engine(settings, self.jobs))  # type: ignore[arg-type]

    async def end(self, *serving: asyncio.Task[None]) -> None:
        for worker in self.workers:
            worker.startup.stop()
            worker._stopping.set()
            worker.group.leave()
        async with asyncio.timeout(HANG_S):
            await asyncio.gather(*serving)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prepare: Calls) -> Start:  # noqa: ARG001  # nothing is fetched
    make_shared_folder(tmp_path / "group", 2)
    start = Start([Worker("demo", WorkerGroup(index, 2, tmp_path / "group")) for index in range(2)])

    @asynccontextmanager
    async def running(*arguments: Any) -> AsyncIterator[FakeEngine]:
        start.asked.append(arguments[-1])
        yield ServingEngine()

    monkeypatch.setattr(engine, "running", running)
    return start


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, StartOptions(warmup=True, preload=True)),
        ({"WARMUP": "0"}, StartOptions(preload=True)),
        ({"WARMUP": "0", "ENGINE_PRELOAD": "0"}, StartOptions()),
    ],
)
async def test_engine_starts_as_it_was_planned(start: Start, environ: dict[str, str], expected: StartOptions) -> None:
    serving = start.serve(start.workers[0], environ)
    await until(lambda: start.workers[0].engine)

    assert start.asked == [expected]
    await start.end(serving)


async def test_workers_serve_once_the_first_has_warmed_up(start: Start) -> None:
    first, second = start.workers
    first.group.reach(Stage.PREPARED)
    others = start.serve(second, {})
    await until(lambda: start.asked)
    await asyncio.sleep(0.3)
    assert second.engine is None
    assert start.jobs.engines == [], "a job could begin before"

    serving = start.serve(first, {})
    await until(lambda: second.engine)
    assert first.engine is not None
    assert len(start.jobs.engines) == 2
    assert first.served_model is second.served_model is ServingEngine.served_model
    assert {engine.served_model for engine in start.jobs.engines} == {ServingEngine.served_model}
    await start.end(serving, others)


async def test_compilations_are_read_by_the_owner_of_the_engine_alone(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Or each would count several times."""
    monkeypatch.setitem(os.environ, "GPTOSS_BENTO_EXIT_NOTE", str(tmp_path / "note.json"))
    read = Calls(compute=KernelCompilations)
    monkeypatch.setattr(app, "KernelCompilations", read)
    serving = [start.serve(worker, {}) for worker in start.workers]
    await until(lambda: all(worker.engine for worker in start.workers))

    assert read.made == [(tmp_path / "note.compilations",), (None,)]
    await start.end(*serving)


# The folder of compiled kernels


def unwritable_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Has the plan of a worker find a folder that cannot be written; returns what replaces it."""
    settled = kernel_cache.settled
    around = kernel_cache.Surroundings(can_write=lambda _: False)
    monkeypatch.setattr(kernel_cache, "settled", lambda plan: settled(plan, around))
    monkeypatch.setattr(process_environment, "temporary_kernel_folder", lambda: tmp_path / "copy")
    return tmp_path / "copy"


@pytest.mark.usefixtures("prepare")
async def test_folder_of_kernels_that_cannot_be_written_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    copy = unwritable_plan(monkeypatch, tmp_path)

    await Worker()._prepare(environment.load_settings({"KERNEL_CACHE_DIR": str(tmp_path / "kernels")}))

    assert copy.is_dir()
    assert os.environ["TRITON_CACHE_DIR"] == str(copy / "triton")
    assert "cannot be written by uid" in caplog.text


@pytest.mark.usefixtures("prepare")
async def test_workers_leave_the_copy_of_the_kernels_to_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = unwritable_plan(monkeypatch, tmp_path)
    make_shared_folder(tmp_path / "group", 2)
    first, second = (WorkerGroup(index, 2, tmp_path / "group") for index in range(2))
    first.reach(Stage.PREPARED)

    await Worker(group=second)._prepare(environment.load_settings({"KERNEL_CACHE_DIR": str(tmp_path / "kernels")}))

    assert not copy.exists()
    assert os.environ["TRITON_CACHE_DIR"] == str(copy / "triton")


@pytest.mark.usefixtures("prepare")
async def test_start_notes_what_its_kernels_are_good_for(tmp_path: Path, worker: Worker) -> None:
    plan, _ = await worker._prepare(environment.load_settings({"KERNEL_CACHE_DIR": str(tmp_path)}))

    worker._started(plan)
    assert worker._background
    await worker._background

    (entry,) = kernel_cache.read(tmp_path)
    assert plan.kernels
    assert entry.key == plan.kernels.key


@pytest.mark.usefixtures("prepare")
async def test_start_logs_the_parts_of_its_longest_phase(
    tmp_path: Path, worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    plan, _ = await worker._prepare(environment.load_settings({"KERNEL_CACHE_DIR": str(tmp_path)}))
    process_environment.set_exit_note_path()
    times = process_environment.start_times_file()
    assert times
    times.write_text('{"process": 1, "part": "torch.compile", "seconds": 3.5}\n')

    worker._started(plan)
    supervisor.remove_remains()

    assert "engine: weights and KV cache: torch.compile 3.5 s" in caplog.messages


def test_folder_of_files_that_is_named_is_made_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app.check_files_dir(None)
    app.check_files_dir(tmp_path / "a" / "files")
    assert (tmp_path / "a" / "files").is_dir()
    monkeypatch.setattr(os, "access", lambda *_: False)

    with pytest.raises(MachineError, match=r"FILES_DIR: .*cannot be written by uid"):
        app.check_files_dir(tmp_path / "b")
