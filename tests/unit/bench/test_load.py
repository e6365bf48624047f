from __future__ import annotations

import asyncio
import functools
import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import asdict

import httpx
import pytest

from gptoss_bento.bench import load
from gptoss_bento.bench.load import Load, Sample, summarize


class StreamingServer(httpx.AsyncBaseTransport):
    """Answers every completion with the tokens it asks for, as vLLM streams them."""

    def __init__(self, status: int = 200, *, breaks_off: bool = False) -> None:
        self.bodies: list[dict[str, object]] = []
        self.urls: list[str] = []
        self.running = self.most_running = 0
        self._status = status
        self._breaks_off = breaks_off

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(await request.aread())
        self.urls.append(str(request.url))
        self.bodies.append(body)
        return httpx.Response(self._status, stream=_Chunks(self, body["max_tokens"], self._breaks_off))


class _Chunks(httpx.AsyncByteStream):
    def __init__(self, server: StreamingServer, tokens: int, breaks_off: bool) -> None:
        self._server = server
        self._tokens = tokens
        self._breaks_off = breaks_off

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._server.running += 1
        self._server.most_running = max(self._server.most_running, self._server.running)
        for _ in range(self._tokens):
            await asyncio.sleep(0.001)
            yield b'data: {"choices":[{"text":"a"}],"usage":null}\n\n'
        if self._breaks_off:  # as vLLM does when its engine dies
            yield b'data: {"error":{"message":"EngineCore encountered an issue."}}\n\n'
            return
        usage = {"prompt_tokens": 50, "completion_tokens": self._tokens}
        yield b"data: " + json.dumps({"choices": [], "usage": usage}, separators=(",", ":")).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"
        self._server.running -= 1


def serve(monkeypatch: pytest.MonkeyPatch, server: StreamingServer) -> StreamingServer:
    monkeypatch.setattr(httpx, "AsyncClient", functools.partial(httpx.AsyncClient, transport=server))
    return server


async def test_the_streams_are_kept_busy_until_all_requests_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(monkeypatch, StreamingServer())

    found = await load.measure("http://test/v1", "m", streams=3, requests=7, max_tokens=4)

    assert (found.streams, found.requests) == (3, 7)
    assert (len(server.bodies), server.most_running) == (7, 3)
    assert set(server.urls) == {"http://test/v1/completions"}
    assert found.tokens_per_s > 0
    assert 0 < found.first_token_median_ms <= found.first_token_p99_ms
    assert found.per_token_median_ms > 0


async def test_every_request_asks_for_exactly_its_tokens_and_their_count(monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(monkeypatch, StreamingServer())

    await load.measure("http://test/v1", "m", streams=1, requests=2, max_tokens=4)

    for body, tokens in zip(server.bodies, load.lengths(2, 4), strict=True):
        assert body.items() >= {"model": "m", "max_tokens": tokens, "ignore_eos": True, "temperature": 0}.items()
        assert body.items() >= {"stream": True, "stream_options": {"include_usage": True}}.items()


async def test_no_prompt_begins_like_another(monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(monkeypatch, StreamingServer())

    await load.measure("http://test/v1", "m", streams=2, requests=6, max_tokens=1)

    assert len({str(body["prompt"]).split()[0] for body in server.bodies}) == 6


def test_answers_are_as_long_as_asked_on_average_and_no_two_neighbours_are_alike() -> None:
    found = load.lengths(160, 64)

    assert (min(found), max(found)) == (32, 96)
    assert sum(found) / len(found) == pytest.approx(64, abs=0.5)
    assert all(abs(one - next_one) > 20 for one, next_one in itertools.pairwise(found))
    assert load.lengths(3, 1) == [1, 1, 1]


async def test_a_failed_request_ends_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, StreamingServer(status=503))

    with pytest.raises(httpx.HTTPStatusError):
        await load.measure("http://test/v1", "m", streams=1, requests=2, max_tokens=1)


async def test_a_stream_that_breaks_off_ends_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, StreamingServer(breaks_off=True))

    with pytest.raises(Exception, match="ended without its usage"):
        await load.measure("http://test/v1", "m", streams=1, requests=2, max_tokens=2)


def test_the_time_per_token_leaves_out_the_first() -> None:
    assert Sample(first_token_s=1.0, total_s=3.0, tokens=5).per_token_s == 0.5


@pytest.mark.parametrize("tokens", [0, 1])
def test_the_time_per_token_of_a_short_answer_is_defined(tokens: int) -> None:
    assert Sample(first_token_s=1.0, total_s=1.5, tokens=tokens).per_token_s == 0.5


def test_samples_become_medians_and_a_rate() -> None:
    samples = [Sample(0.1, 1.1, 11), Sample(0.3, 1.3, 11), Sample(0.2, 3.2, 31)]

    found = summarize(2, samples, seconds=4.0)

    expected = Load(
        streams=2,
        requests=3,
        tokens_per_s=53 / 4,
        first_token_median_ms=200,
        first_token_p99_ms=298,
        per_token_median_ms=100,
    )
    assert asdict(found) == pytest.approx(asdict(expected))


def test_a_single_sample_is_its_own_median_and_percentile() -> None:
    found = summarize(1, [Sample(0.1, 1.1, 11)], seconds=1.1)

    assert found.first_token_median_ms == found.first_token_p99_ms == 100
    assert found.tokens_per_s == pytest.approx(10)
