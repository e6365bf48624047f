"""The job API on the fake engine as a process of its own, to be killed.

`python -m tests.job_server PORT STORE_URL`, or with a team's FOLDER INDEX COUNT behind: one of several workers.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from gptoss_bento.errors import WorkerDiedError
from gptoss_bento.native.fake_engine import FakeEngine
from gptoss_bento.native.routes import NativeRoutes
from gptoss_bento.native.runner import Runner, running_jobs
from gptoss_bento.settings import ServerSettings
from gptoss_bento.team import Stage, Team


def job_app(fake: FakeEngine, settings: ServerSettings, team: Team | None = None) -> Starlette:
    """The job API beside the fake engine's own routes, as the service has it beside vLLM's."""
    runners: list[Runner] = []

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with running_jobs(settings, Path("unused"), team) as runner:
            runner.attach(fake.engine())
            runners.append(runner)
            yield

    return Starlette(routes=[NativeRoutes(lambda: runners[0]), *fake.app().routes], lifespan=lifespan)


async def serve(server: uvicorn.Server, team: Team) -> None:
    """Ends as app.py does when another worker dies: in order, and with jobs handed back before the others see it."""
    team.enter(os.getpid())
    serving = asyncio.create_task(server.serve())
    try:
        await team.together(asyncio.shield(serving), lambda _: team.reach(Stage.STOPPING))
    except WorkerDiedError as error:
        print(error, flush=True)
    finally:
        server.should_exit = True
        await serving
        team.leave()


def main() -> None:
    port, url = int(sys.argv[1]), sys.argv[2]
    team = Team(int(sys.argv[4]), int(sys.argv[5]), Path(sys.argv[3])) if sys.argv[3:] else Team()
    app = job_app(FakeEngine(delay_s=0.02), ServerSettings(job_store_url=url), team)
    asyncio.run(serve(uvicorn.Server(uvicorn.Config(app, port=port, log_level="error")), team))


if __name__ == "__main__":
    main()
