from __future__ import annotations

from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gptoss_bento.bench import token_load
from gptoss_bento.bench.servers import free_port
from gptoss_bento.bench.swarm import Swarm
from gptoss_bento.bench.token_load import Answers, Lengths, Sample, Target, TokenLoad
from gptoss_bento.demo.checkpoint import FIRST_SPECIAL
from tests.unit.bench.completions_server import Server


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[Swarm]:
    """Threads in place of processes, which take half a second to start."""
    monkeypatch.setattr(token_load, "_CONNECT_S", 0.05)
    with ThreadPoolExecutor(2) as pool:
        yield Swarm(pool, 2)  # type: ignore[arg-type]


def load(streams: int = 3, requests: int = 7, spread: float = 0.0) -> TokenLoad:
    return TokenLoad(streams, requests, Lengths(16, 4, spread))


def prompts(server: Server) -> list[list[int]]:
    return [body["prompt"] for body in server.bodies]


def test_requests_ask_for_fixed_lengths_and_a_count(server: Server, clients: Swarm) -> None:
    with server as url:
        found = token_load.measure(clients, Target(url, "m"), load(), "seed")

    assert len(server.bodies) == len(found.samples) == 7
    for body in server.bodies:
        assert body.items() >= {"model": "m", "max_tokens": 4, "ignore_eos": True, "stream": True}.items()
        assert body["stream_options"] == {"include_usage": True}
        assert "temperature" not in body, "sampled as the server does by itself"
        assert len(body["prompt"]) == 16
        assert all(0 <= token < FIRST_SPECIAL for token in body["prompt"])


def test_streams_share_the_requests_and_each_keeps_its_connection(server: Server, clients: Swarm) -> None:
    with server as url:
        token_load.measure(clients, Target(url, "m"), load(), "seed")

    assert len(server.connections) == 3


def test_new_connections_are_one_for_each_request(server: Server, clients: Swarm) -> None:
    with server as url:
        found = token_load.measure(clients, Target(url, "m", new_connections=True), load(), "seed")

    assert len(server.connections) == 7
    assert found.failed == 0


def test_prompts_differ_and_are_repeated_with_the_same_seed(server: Server, clients: Swarm) -> None:
    with server as url:
        for seed in ("one", "one", "other"):
            token_load.measure(clients, Target(url, "m"), load(), seed)

    first, again, other = (sorted(prompts(server)[start : start + 7]) for start in (0, 7, 14))
    assert first == again != other
    assert len({tuple(prompt[:3]) for prompt in [*first, *other]}) == 14, "no two begin alike"


def test_lengths_can_be_spread_around_the_average(server: Server, clients: Swarm) -> None:
    with server as url:
        token_load.measure(clients, Target(url, "m"), load(requests=40, spread=0.5), "seed")

    assert set(server.tokens()) == {2, 3, 4, 5, 6}


def test_messages_with_tokens_are_timed(server: Server, clients: Swarm) -> None:
    with server as url:
        found = token_load.measure(clients, Target(url, "m"), load(), "seed")

    assert len(found.gaps_s) == 7 * 3, "four messages each; neither the usage nor [DONE] is one"
    assert sum(found.gaps_s) == pytest.approx(sum(each.last_s - each.first_s for each in found.samples))
    assert all(0 < each.first_s <= each.last_s <= found.seconds and each.tokens == 4 for each in found.samples)


@pytest.mark.parametrize(
    ("setting", "value", "error"),
    [
        ("status", 503, "no room"),
        ("says_done", False, "without"),
        ("short_by", 1, "counted 3 tokens, but 4 were asked for"),
        ("breaks_off", True, "DONE"),
    ],
)
def test_failed_requests_are_counted_and_the_streams_continue(
    setting: str, value: object, error: str, server: Server, clients: Swarm
) -> None:
    setattr(server, setting, value)

    with server as url:
        found = token_load.measure(clients, Target(url, "m"), load(requests=14), "seed")

    assert (found.failed, found.samples, len(server.bodies)) == (14, [], 14)
    assert len(found.errors) == 5
    assert error in found.errors[0]


def test_requests_to_a_stopped_server_fail_immediately(clients: Swarm) -> None:
    found = token_load.measure(clients, Target(f"http://127.0.0.1:{free_port()}/v1", "m"), load(), "seed")

    assert (found.failed, found.samples) == (7, [])


def test_answer_that_does_not_end_times_out(server: Server, clients: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_load, "_LONGEST_ANSWER_S", 0.0)

    with server as url:
        found = token_load.measure(clients, Target(url, "m"), load(), "seed")

    assert found.failed == 7
    assert "did not end within" in found.errors[0]


def test_answers_of_processes_add_up_over_the_whole_time() -> None:
    found = Answers()
    found.add(Answers(5.0, 9.0, 0.5, 0.1, [Sample(0.1, 1.0, 4)], array("d", [0.3]), 1, ["a"]))
    found.add(Answers(4.0, 8.0, 0.5, 0.2, [Sample(0.2, 2.0, 4)], array("d", [0.4]), 2, ["b", "c"]))

    assert (found.started, found.ended, found.seconds) == (4.0, 9.0, 5.0)
    assert (found.cpu_s, found.late_s, found.failed) == (1.0, 0.2, 3)
    assert (len(found.samples), list(found.gaps_s), found.errors) == (2, [0.3, 0.4], ["a", "b", "c"])


def test_load_is_named_by_its_streams_and_lengths() -> None:
    assert (str(load(1)), str(load(2))) == ("1 stream, 16:4", "2 streams, 16:4")
