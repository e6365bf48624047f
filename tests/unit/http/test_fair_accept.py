"""Real servers on one socket, as several workers have it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest
import uvicorn
import uvloop
from starlette.responses import PlainTextResponse

from gptoss_bento.http.api_server import ApiServer, Parts
from gptoss_bento.http.connection_limits import bounded
from gptoss_bento.workers.worker_group import Stage, WorkerGroup, make_shared_folder
from tests.fakes import Calls

REQUEST = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


def parts(group: WorkerGroup) -> Parts:
    return Parts(group, bounded(65_536, 60), lambda application: application, Calls())


@pytest.fixture
def listening() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    made.listen()
    return made


@pytest.fixture
async def servers(tmp_path_factory: pytest.TempPathFactory, listening: socket.socket) -> AsyncIterator[list[ApiServer]]:
    """Two workers, each of which answers with its number."""
    folder = tmp_path_factory.mktemp("t") / "group"
    make_shared_folder(folder, 2)
    made, tasks = [], []
    for index in range(2):
        group = WorkerGroup(index, 2, folder)
        group.enter(os.getpid())
        group.reach(Stage.READY)
        config = uvicorn.Config(PlainTextResponse(str(index)), log_config=None, lifespan="off")
        made.append(ApiServer(config, parts(group)))
        tasks.append(asyncio.create_task(made[-1]._serve([listening.dup()])))
    while not all(server.started for server in made):  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.005)
    yield made
    for server in made:
        server.should_exit = True
    await asyncio.gather(*tasks)
    listening.close()


async def connect(listening: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*listening.getsockname())


async def ask(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> int:
    """Which worker answers on that connection."""
    streams[1].write(REQUEST)
    status, *headers = (await streams[0].readuntil(b"\r\n\r\n")).decode().splitlines()
    assert status == "HTTP/1.1 200 OK"
    (length,) = (header for header in headers if header.startswith("content-length: "))
    return int(await streams[0].readexactly(int(length.partition(" ")[2])))


@pytest.mark.usefixtures("servers")
async def test_connections_that_stay_are_shared_evenly(listening: socket.socket) -> None:
    connections = await asyncio.gather(*(connect(listening) for _ in range(10)))
    answered = [await ask(streams) for streams in connections]
    assert sorted(answered) == [0] * 5 + [1] * 5
    for _, writer in connections:
        writer.close()


@pytest.mark.usefixtures("servers")
async def test_connection_stays_with_its_worker(listening: socket.socket) -> None:
    streams = await connect(listening)
    assert len({await ask(streams) for _ in range(3)}) == 1
    streams[1].close()


@pytest.mark.parametrize("turns", range(3))
def test_connection_that_comes_to_be_during_a_stop_does_not_hold_it_up(
    turns: int, listening: socket.socket, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """On the loop that the service runs on: a cancelled connection of uvloop's still comes to be, and never ends."""
    folder = tmp_path_factory.mktemp("t") / "group"
    make_shared_folder(folder, 2)

    async def stop() -> None:
        config = uvicorn.Config(PlainTextResponse("0"), log_config=None, lifespan="off")
        server = ApiServer(config, parts(WorkerGroup(0, 2, folder)))
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup([listening])
        with socket.create_connection(listening.getsockname()) as client:
            client.sendall(REQUEST)
            while not server._accepting._connecting:  # noqa: ASYNC110  # another task does it
                await asyncio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            await asyncio.wait_for(server.shutdown([listening]), 5)

    uvloop.run(stop())
