"""What BentoML's worker makes its server with. How several workers accept in turn: test_fair_accept.py."""

from __future__ import annotations

import asyncio
import signal
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
from gptoss_bento.http.api_server import ApiServer, OnStop, Parts
from gptoss_bento.http.connection_limits import bounded
from gptoss_bento.workers.worker_group import WorkerGroup, make_shared_folder
from tests.fakes import Calls

CONNECTION = bounded(65_536, 60)


def parts(group: WorkerGroup, on_stop: OnStop = Calls()) -> Parts:  # noqa: B008
    return Parts(group, CONNECTION, lambda application: application, on_stop)


@asynccontextmanager
async def serving(given: Parts) -> AsyncIterator[tuple[ApiServer, str]]:
    """A server that answers "ours", and its URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(PlainTextResponse("ours"), log_config=None, lifespan="off")
    server = ApiServer(config, given)
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

    ApiServer(config, Parts(WorkerGroup(), CONNECTION, wrap, Calls()))
    config.load()

    assert given == [bentomls]
    assert config.loaded_app is wrapped
    assert config.http_protocol_class is CONNECTION


@pytest.mark.parametrize(
    ("given", "expected"), [([], 75), (["--timeout-keep-alive", "5"], 5), (["--timeout-keep-alive=5"], 5)]
)
def test_keep_alive_is_longer_than_that_of_clients_unless_the_operator_says(
    monkeypatch: pytest.MonkeyPatch, given: list[str], expected: int
) -> None:
    monkeypatch.setattr("sys.argv", ["service.py", ".", "--fd", "3", *given])
    config = uvicorn.Config(PlainTextResponse(""), log_config=None, timeout_keep_alive=5)

    ApiServer(config, parts(WorkerGroup()))

    assert config.timeout_keep_alive == expected


async def test_server_of_a_single_worker_listens_on_its_port_alone() -> None:
    async with serving(parts(WorkerGroup())) as (server, url), httpx.AsyncClient() as client:
        assert (await client.get(url)).text == "ours"
        assert len(server.servers) == 1


async def test_server_of_one_of_several_workers_answers_on_the_shared_port(tmp_path: Path) -> None:
    make_shared_folder(tmp_path / "group", 2)

    async with serving(parts(WorkerGroup(0, 2, tmp_path / "group"))) as (_, url), httpx.AsyncClient() as client:
        assert (await client.get(url)).text == "ours"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_reaches_the_worker_and_uvicorn_runs_until_its_handler_is_called(number: signal.Signals) -> None:
    on_stop = Calls()
    server = ApiServer(uvicorn.Config(PlainTextResponse("x"), log_config=None), parts(WorkerGroup(), on_stop=on_stop))
    previous = signal.getsignal(number)

    with server.capture_signals():
        signal.raise_signal(number)
        before = server.should_exit
        ((seen, end),) = on_stop.made
        end()
        assert (seen, before, server.should_exit) == (number, False, True)
        server._captured_signals.clear()  # uvicorn would raise it again at the end of the block

    assert signal.getsignal(number) == previous


def test_next_server_of_the_process_is_ours_and_no_later_one(monkeypatch: pytest.MonkeyPatch) -> None:
    own = uvicorn.Server
    monkeypatch.setattr(uvicorn, "Server", own)  # puts it back afterwards

    api_server.install(parts(WorkerGroup()))
    made = uvicorn.Server(uvicorn.Config(PlainTextResponse("x"), log_config=None))

    assert isinstance(made, ApiServer)
    assert uvicorn.Server is own, "vLLM derives from it"
