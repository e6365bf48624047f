from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from gptoss_bento.bench import swarm as module
from gptoss_bento.bench.swarm import Route, StreamLoad, Swarm, Timings
from gptoss_bento.errors import BenchmarkError
from tests.unit.bench.completions_server import Server


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[Swarm]:
    """Threads in place of processes, which take half a second to start."""
    monkeypatch.setattr(module, "_START_DELAY_S", 0.05)
    with ThreadPoolExecutor(2) as pool:
        yield Swarm(pool, 2)  # type: ignore[arg-type]


def ask(url: str, *, route: Route = Route.COMPLETIONS, streaming: bool = True, requests: int = 2) -> StreamLoad:
    return StreamLoad(url, "m", route, streaming, max_tokens=4, requests=requests)


def test_streams_keep_a_separate_connection_and_take_the_next_request(server: Server, clients: Swarm) -> None:
    with server as url:
        timings = clients.run(ask(url, requests=3), streams=5)

    assert len(server.bodies) == 15
    assert len(server.connections) == 5
    assert timings.tokens == timings.messages == sum(server.tokens())
    assert len(timings.first_s) == len(timings.whole_s) == 15


def test_messages_are_timed(server: Server, clients: Swarm) -> None:
    with server as url:
        timings = clients.run(ask(url), streams=1)

    assert len(timings.gaps_s) == sum(server.tokens()) - len(server.bodies)
    assert min(timings.gaps_s) >= 0
    assert sum(timings.gaps_s) == pytest.approx(sum(timings.whole_s) - sum(timings.first_s))
    assert 0 < sum(timings.first_s) <= sum(timings.whole_s) <= timings.ended - timings.started


def test_answer_in_one_piece_is_timed_as_a_whole(server: Server, clients: Swarm) -> None:
    with server as url:
        timings = clients.run(ask(url, streaming=False), streams=3)

    assert (timings.tokens, timings.messages) == (sum(server.tokens()), 6)
    assert timings.gaps_s == []
    assert timings.first_s == timings.whole_s
    assert not any("stream" in body for body in server.bodies)


@pytest.mark.parametrize("route", [Route.COMPLETIONS, Route.CHAT])
def test_requests_ask_for_the_average_number_of_tokens(server: Server, clients: Swarm, route: Route) -> None:
    with server as url:
        clients.run(ask(url, route=route, requests=20), streams=2)

    assert sum(server.tokens()) == pytest.approx(4 * 40, rel=0.1)
    assert set(server.tokens()) == {2, 3, 4, 5, 6}
    for body in server.bodies:
        assert body.items() >= {"model": "m", "ignore_eos": True, "stream": True}.items()
        assert body["stream_options"] == {"include_usage": True}
        assert body["path"] == f"/v1{route.path}"


def test_response_is_asked_for_in_the_words_of_its_route() -> None:
    load = replace(ask("http://there/v1", route=Route.RESPONSES), store=False)

    head, _, body = load.request("Hello", 7).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/responses HTTP/1.1")
    length = {"max_output_tokens": 7, "ignore_eos": True}
    assert json.loads(body) == {"model": "m", "input": "Hello", **length, "stream": True, "store": False}


def test_prompts_have_no_common_beginning(server: Server, clients: Swarm) -> None:
    with server as url:
        clients.run(ask(url), streams=3)
        clients.run(ask(url, route=Route.CHAT), streams=3)

    texts = [body.get("prompt") or body["messages"][0]["content"] for body in server.bodies]
    assert len({text.split(" word")[0] for text in texts}) == len(texts) == 12


def test_pairs_alternate_which_server_is_first(server: Server, clients: Swarm) -> None:
    with server as url:
        one, other = replace(ask(url, requests=3), key="k3y"), replace(ask(url, requests=3), query="beside")
        mine, others = clients.run_in_turn(one, other)

    assert [body["query"] for body in server.bodies] == ["", "beside", "beside", "", "", "beside"]
    assert server.keys == [None if body["query"] else "Bearer k3y" for body in server.bodies]
    assert len(server.connections) == 1
    assert len({body["prompt"].split(" word")[0] for body in server.bodies}) == 6
    assert (len(mine.first_s), len(others.first_s), mine.tokens, others.tokens) == (3, 3, 12, 12)


def test_refusal_ends_the_measurement_with_its_reason(server: Server, clients: Swarm) -> None:
    server.status = 503
    with server as url, pytest.raises(BenchmarkError, match="no room"):
        clients.run(ask(url), streams=2)


def test_stream_without_its_usage_ends_the_measurement(server: Server, clients: Swarm) -> None:
    server.breaks_off = True
    with server as url, pytest.raises(BenchmarkError, match="DONE"):
        clients.run(ask(url), streams=1)


def test_connection_that_is_closed_ends_the_measurement(clients: Swarm) -> None:
    async def serve(ready: threading.Event, ports: list[int], end: threading.Event) -> None:
        async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(close, "127.0.0.1", 0) as listening:
            ports.append(listening.sockets[0].getsockname()[1])
            ready.set()
            await asyncio.to_thread(end.wait)

    ready, ports, end = threading.Event(), list[int](), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(serve(ready, ports, end)))
    thread.start()
    try:
        ready.wait()
        with pytest.raises(BenchmarkError, match="closed the connection"):
            clients.run(ask(f"http://127.0.0.1:{ports[0]}/v1"), streams=1)
    finally:
        end.set()
        thread.join()


def test_results_of_processes_add_up_over_the_whole_time() -> None:
    timings = Timings()
    timings.add(Timings(5.0, 9.0, 0.5, 10, 8, [0.1], [1.0], [0.2]))
    timings.add(Timings(4.0, 8.0, 0.5, 20, 9, [0.3], [2.0], [0.4]))

    assert timings == Timings(4.0, 9.0, 1.0, 30, 17, [0.1, 0.3], [1.0, 2.0], [0.2, 0.4])


def test_results_of_a_later_turn_add_their_time_but_not_the_time_between() -> None:
    timings = Timings()
    timings.then(Timings(5.0, 9.0, 0.5, 10, 8, [0.1], [1.0], [0.2]))
    timings.then(Timings(40.0, 48.0, 0.5, 20, 9, [0.3], [2.0], [0.4]))

    assert (timings.seconds, timings.tokens, timings.first_s) == (12.0, 30, [0.1, 0.3])
