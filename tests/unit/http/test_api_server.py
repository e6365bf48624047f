"""What BentoML's worker makes its server with. How several workers accept in turn: test_fair_accept.py."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp

from gptoss_bento.http import api_server
from gptoss_bento.http.api_server import ApiServer, Parts
from gptoss_bento.http.connection_limits import bounded
from gptoss_bento.workers.worker_group import WorkerGroup, make_shared_folder

CONNECTION = bounded(65_536, 60)


def same(application: ASGIApp) -> ASGIApp:
    return application


@asynccontextmanager
async def serving(parts: Parts) -> AsyncIterator[tuple[ApiServer, str]]:
    """A server that answers "ours", and its URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(PlainTextResponse("ours"), log_config=None, lifespan="off")
    server = ApiServer(config, parts)
    task = asyncio.create_task(server._serve([listening]))
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.005)
    yield server, f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    await task


def test_server_has_the_parts_of_its_worker() -> None:
    bentomls, wrapped, given = PlainTextResponse("BentoML's"), PlainTextResponse("wrapped"), []
    config = uvicorn.Config(bentomls, log_config=None, proxy_headers=False)

    def wrap(application: ASGIApp) -> ASGIApp:
        given.append(application)
        return wrapped

    ApiServer(config, Parts(WorkerGroup(), CONNECTION, wrap))
    config.load()

    assert given == [bentomls]
    assert config.loaded_app is wrapped
    assert config.http_protocol_class is CONNECTION


async def test_server_of_a_single_worker_listens_on_its_port_alone() -> None:
    async with serving(Parts(WorkerGroup(), CONNECTION, same)) as (server, url), httpx.AsyncClient() as client:
        assert (await client.get(url)).text == "ours"
        assert len(server.servers) == 1


async def test_other_workers_reach_what_is_for_them_by_a_socket_of_its_own(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder: Path = tmp_path_factory.mktemp("t") / "group"
    make_shared_folder(folder, 2)
    group = WorkerGroup(0, 2, folder)
    for_others = httpx.AsyncHTTPTransport(uds=str(group.own_socket("http")))

    async with (
        serving(Parts(group, CONNECTION, same, PlainTextResponse("for others"))) as (_, url),
        httpx.AsyncClient() as client,
        httpx.AsyncClient(transport=for_others) as other,
    ):
        assert (await client.get(url)).text == "ours"
        assert (await other.get("http://worker")).text == "for others"


def test_next_server_of_the_process_is_ours_and_no_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    own = uvicorn.Server
    monkeypatch.setattr(uvicorn, "Server", own)  # puts it back afterwards

    api_server.install(Parts(WorkerGroup(), CONNECTION, same))
    made = uvicorn.Server(uvicorn.Config(PlainTextResponse("x"), log_config=None))

    assert isinstance(made, ApiServer)
    assert uvicorn.Server is own, "vLLM derives from it"
