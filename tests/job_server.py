"""The job API on the fake engine as a process of its own, to be killed: `python -m tests.job_server PORT STORE_URL`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from gptoss_bento.native.fake_engine import FakeEngine
from gptoss_bento.native.routes import NativeRoutes
from gptoss_bento.native.runner import Runner, running_jobs
from gptoss_bento.settings import ServerSettings


def job_app(fake: FakeEngine, settings: ServerSettings) -> Starlette:
    """The job API beside the fake engine's own routes, as the service has it beside vLLM's."""
    runners: list[Runner] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with running_jobs(settings, Path("unused")) as runner:
            runner.attach(fake.engine())
            runners.append(runner)
            yield

    return Starlette(routes=[NativeRoutes(lambda: runners[0]), *fake.app().routes], lifespan=lifespan)


def main() -> None:
    port, url = int(sys.argv[1]), sys.argv[2]
    app = job_app(FakeEngine(delay_s=0.02), ServerSettings(job_store_url=url))
    uvicorn.run(app, port=port, log_level="error")


if __name__ == "__main__":
    main()
