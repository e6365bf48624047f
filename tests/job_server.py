"""The job API on the fake engine, in this process or in a separate one, to be killed."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import httpx
import uvicorn
from starlette.applications import Starlette

from gptoss_bento.bench.servers import free_port
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.errors import WorkerDiedError
from gptoss_bento.jobs.api.routes import NativeRoutes
from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.runner import Runner, running_jobs
from gptoss_bento.workers.worker_group import Stage, WorkerGroup
from tests.server import NO_TLS
from tests.waiting import HANG_S

# The imports take two seconds; a fork of a process that has done them starts in a moment.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["pytest", "tests.job_server"])


def job_app(fake: FakeEngine, settings: ServerSettings, group: WorkerGroup | None = None) -> Starlette:
    """The job API beside the fake engine's own routes, as the service has it beside vLLM's."""
    runners: list[Runner] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with running_jobs(settings, Path("unused"), group) as runner:
            runner.attach(fake.engine())
            runners.append(runner)
            yield

    return Starlette(routes=[NativeRoutes(lambda: runners[0]), *fake.app().routes], lifespan=lifespan)


@contextmanager
def job_server(
    store_url: str, token_s: float = 0.02, group: tuple[int, int, Path] | None = None
) -> Iterator[tuple[BaseProcess, httpx.Client]]:
    """A process with the job API, and a client of it.

    Args:
        store_url: of its job store.
        token_s: seconds a token takes.
        group: index, count and folder of `WorkerGroup`, for one of several workers.
    """
    port = free_port()
    process = _PROCESSES.Process(target=_serve, args=(port, store_url, token_s, group or ()))
    process.start()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=HANG_S, verify=NO_TLS) as client:
            _wait_until_ready(process, client)
            yield process, client
    finally:
        process.kill()
        process.join()


def _serve(port: int, store_url: str, token_s: float, place: tuple[int, int, Path] | tuple[()]) -> None:
    group = WorkerGroup(*place)
    app = job_app(FakeEngine(delay_s=token_s), ServerSettings(job_store_url=store_url), group)
    asyncio.run(_serve_in_group(uvicorn.Server(uvicorn.Config(app, port=port, log_level="error")), group))


async def _serve_in_group(server: uvicorn.Server, group: WorkerGroup) -> None:
    """Ends as server/worker.py does when another worker dies: gracefully, its jobs requeued before others see it."""
    group.enter(os.getpid())
    serving = asyncio.create_task(server.serve())
    try:
        await group.together(asyncio.shield(serving), lambda _: group.reach(Stage.STOPPING))
    except WorkerDiedError as error:
        print(error, flush=True)
    finally:
        server.should_exit = True
        await serving
        group.leave()


def _wait_until_ready(process: BaseProcess, client: httpx.Client) -> None:
    while process.is_alive():
        try:
            client.get("/health")
        except httpx.TransportError:
            time.sleep(0.01)
        else:
            return
    raise AssertionError("the server ended")
