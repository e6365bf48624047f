"""What the job API costs: a job beside the same chat request, and how fast the routes answer while many jobs wait."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import httpx

from gptoss_bento.bench import load
from gptoss_bento.errors import ConfigurationError

QUEUEING, QUEUED = "while jobs are queued", "with the queue full"

_CHAT_TOKENS = 8
_JOB_TOKENS = 64
_WARM_UP = 3
_ROUNDS = 300
_REQUEST_TIMEOUT_S = 600.0
_SETTLE_POLLS, _POLL_S = 600, 0.1
_SHOWN = 200  # characters of an answer that is no JSON
_MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@dataclass(frozen=True)
class Shape:
    """How much is asked of a server.

    Attributes:
        pairs: chat requests, and as many jobs of the same content.
        jobs: how many are put into the queue.
        clients: how many put them there at the same time.
        rounds: how often each route is asked once they are there.
    """

    pairs: int = 50
    jobs: int = 1000
    clients: int = 8
    rounds: int = _ROUNDS


@dataclass(frozen=True)
class Overhead:
    """A chat request against a job of the same content, each alone; the difference is the median of the pairs'."""

    pairs: int
    chat_median_ms: float
    job_median_ms: float
    difference_median_ms: float


@dataclass(frozen=True)
class Latency:
    """How long one route took to answer in one stage."""

    route: str
    stage: str
    requests: int
    median_ms: float
    p99_ms: float


@dataclass(frozen=True)
class Queue:
    """What became of the jobs: how many were queued, and what /health counted when the last route had answered."""

    jobs: int
    completed: int
    running: int
    waiting: int
    purged: int


@dataclass(frozen=True)
class Measured:
    """All that was measured of one server."""

    server: str
    overhead: Overhead
    latencies: tuple[Latency, ...]
    queue: Queue


@dataclass(frozen=True)
class Row:
    """One line of the table, in milliseconds."""

    figure: str
    median_ms: float
    p99_ms: float | None = None


def measure(url: str, model: str | None, shape: Shape, key: str | None, report: Callable[[str], None]) -> Measured:
    """Measures a running server. Its queue must be empty, for it is purged at the end.

    Args:
        url: ends in /v1, as for OpenAI's clients; the job API is beside it.
        model: the model of the chat requests; None for the first that the server lists.
        key: what the server wants as `Authorization: Bearer`, if it wants one.
        report: is called with each step.

    Raises:
        ConfigurationError: jobs are in the queue already.
        httpx.HTTPError: a request was refused or failed; a benchmark with errors in it says nothing.
    """
    return asyncio.run(_measure(url.rstrip("/"), model, shape, key, report))


async def _measure(
    url: str, model: str | None, shape: Shape, key: str | None, report: Callable[[str], None]
) -> Measured:
    limits = httpx.Limits(max_connections=shape.clients + 1, max_keepalive_connections=shape.clients + 1)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(
        base_url=job_api(url), headers=headers, timeout=_REQUEST_TIMEOUT_S, limits=limits
    ) as client:
        server = _Server(client)
        await _require_idle(server)
        report(f"{shape.pairs} pairs of a chat request and the same job")
        found = await _overhead(server, url, model or await _first_model(server, url), shape.pairs)
        report(f"{shape.jobs:,} jobs from {shape.clients} clients")
        latencies, queue = await _fill(server, shape)
    return Measured(url, found, latencies, queue)


def job_api(url: str) -> str:
    """The base URL of the job API beside that of the OpenAI API: `…/v1`, `…/openai/v1`, `…/v2/{id}/openai/v1`."""
    return url.removesuffix("/v1").removesuffix("/openai")


# --- requests --------------------------------------------------------------------------------------------------------


class _Server:
    """Asks, and times the answer."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def ask(self, method: str, path: str, body: object = None) -> tuple[dict[str, Any], float]:
        """The answer, and the milliseconds it took."""
        started = time.perf_counter()
        response = await self._client.request(method, path, json=body)
        return _object(response), 1000 * (time.perf_counter() - started)

    async def counts(self) -> dict[str, int]:
        """The numbers of jobs in /health."""
        body, _ = await self.ask("GET", "/health")
        counts = body.get("jobs")
        if not isinstance(counts, dict) or not {"completed", "inProgress", "inQueue"} <= counts.keys():
            raise httpx.RemoteProtocolError("GET /health has no numbers of jobs; the server has no job API.")
        return counts


def _object(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of a success.

    Raises:
        httpx.HTTPStatusError: the server refused; the message is its reason.
        httpx.DecodingError: the answer is something else.
    """
    request = response.request
    what = f"{request.method} {request.url.path}"
    try:
        body = response.json()
    except ValueError:
        body = None
    if not response.is_success:
        message = f"{what} answered {response.status_code}: {_reason(body) or response.text[:_SHOWN].strip()}"
        raise httpx.HTTPStatusError(message, request=request, response=response)
    if not isinstance(body, dict):
        raise httpx.DecodingError(f"{what} answered {response.text[:_SHOWN]!r}, which is no JSON object.")
    return body


def _reason(body: object) -> str:
    """The text of an error: `{"error": text}` of the job API, `{"error": {"message": text}}` of OpenAI's."""
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("message") if isinstance(error, dict) else error or "")


async def _require_idle(server: _Server) -> None:
    counts = await server.counts()
    if counts["inQueue"] or counts["inProgress"]:
        raise ConfigurationError(
            f"{counts['inQueue']} jobs wait and {counts['inProgress']} run on this server. The benchmark purges the "
            "queue, and they would falsify it: wait until they have ended, or measure another server."
        )


async def _first_model(server: _Server, url: str) -> str:
    models, _ = await server.ask("GET", f"{url}/models")
    try:
        return str(models["data"][0]["id"])
    except (KeyError, IndexError, TypeError):
        raise httpx.RemoteProtocolError(f"GET {url}/models lists no model.") from None


# --- the cost of a job -----------------------------------------------------------------------------------------------


async def _overhead(server: _Server, url: str, model: str, pairs: int) -> Overhead:
    """The same request as chat and as job, one at a time; each goes first in half of the pairs."""
    sampling = {"max_tokens": _CHAT_TOKENS, "temperature": 0}
    chat_body = {"model": model, "messages": _MESSAGES, **sampling}
    job_body = {"input": {"model": model, "messages": _MESSAGES, "sampling_params": sampling}}

    async def chat() -> float:
        return (await server.ask("POST", f"{url}/chat/completions", chat_body))[1]

    async def job() -> float:
        answer, milliseconds = await server.ask("POST", "/runsync", job_body)
        _require_completed(answer)
        return milliseconds

    for _ in range(_WARM_UP):
        await chat()
        await job()
    times: dict[Callable[[], Any], list[float]] = {chat: [], job: []}
    for number in range(pairs):
        for request in (chat, job) if number % 2 == 0 else (job, chat):
            times[request].append(await request())
    return overhead(times[chat], times[job])


def _require_completed(job: dict[str, Any]) -> None:
    if job.get("status") != "COMPLETED":
        raise httpx.RemoteProtocolError(f"A job of /runsync is {job.get('status')}: {job.get('error', 'no error')}")


def overhead(chats: Sequence[float], jobs: Sequence[float]) -> Overhead:
    """Medians of the pairs' times, in ms."""
    differences = [job - chat for chat, job in zip(chats, jobs, strict=True)]
    return Overhead(len(chats), median(chats), median(jobs), median(differences))


# --- the routes while jobs wait --------------------------------------------------------------------------------------


async def _fill(server: _Server, shape: Shape) -> tuple[tuple[Latency, ...], Queue]:
    """Queues the jobs, asks the routes meanwhile and afterwards, and purges the queue in any case."""
    before = await server.counts()
    try:
        ids, queueing = await _queueing(server, shape)
        queued = await _queued(server, ids, shape.rounds)
        after = await server.counts()
    finally:
        purged, _ = await server.ask("POST", "/purge-queue")
    queue = Queue(
        jobs=len(ids),
        completed=after["completed"] - before["completed"],
        running=after["inProgress"],
        waiting=after["inQueue"],
        purged=int(purged.get("removed", 0)),
    )
    await _settle(server)
    return (*latencies(QUEUEING, queueing), *latencies(QUEUED, queued)), queue


async def _settle(server: _Server) -> None:
    """Waits, not for ever, until what ran has ended, so that the next benchmark finds the server idle."""
    for _ in range(_SETTLE_POLLS):
        if not (await server.counts())["inProgress"]:
            return
        await asyncio.sleep(_POLL_S)


_Times = dict[str, list[float]]


async def _queueing(server: _Server, shape: Shape) -> tuple[list[str], _Times]:
    """All clients put jobs into the queue; one more asks for the state of some job and of the queue until they have."""
    times: _Times = defaultdict(list)
    numbers = deque(range(1, shape.jobs))
    ids = [await _run(server, 0, times)]  # there is one to ask for from the beginning

    async def put() -> None:
        while numbers:
            ids.append(await _run(server, numbers.popleft(), times))

    async def poll(putting: asyncio.Future[Any]) -> None:
        await _poll(server, ids[0], times)
        while not putting.done():
            await _poll(server, ids[len(ids) // 2], times)

    clients = [asyncio.create_task(put()) for _ in range(shape.clients)]
    putting = asyncio.gather(*clients)
    try:
        await asyncio.gather(putting, poll(putting))
    finally:  # after a failure no more jobs are submitted, and those on their way are in the queue before it is purged
        numbers.clear()
        await asyncio.gather(*clients, return_exceptions=True)
    return ids, times


async def _queued(server: _Server, ids: list[str], rounds: int) -> _Times:
    """One client adds jobs, and asks for those from the oldest, which have ended, to the youngest, which wait."""
    times: _Times = defaultdict(list)
    jobs = len(ids)
    for number in range(rounds):
        ids.append(await _run(server, jobs + number, times))
        await _poll(server, ids[number * jobs // rounds], times)
    return times


async def _run(server: _Server, number: int, times: _Times) -> str:
    answer, milliseconds = await server.ask("POST", "/run", _job(number))
    times["/run"].append(milliseconds)
    return str(answer["id"])


async def _poll(server: _Server, job_id: str, times: _Times) -> None:
    for route, path in (("/status", f"/status/{job_id}"), ("/health", "/health")):
        _, milliseconds = await server.ask("GET", path)
        times[route].append(milliseconds)


def _job(number: int) -> dict[str, Any]:
    """A job that keeps engine and store busy: streamed, so that it writes as it goes, and of a fixed length."""
    sampling = {"max_tokens": _JOB_TOKENS, "temperature": 0, "ignore_eos": True}
    return {"input": {"prompt": load.prompt(number), "stream": True, "sampling_params": sampling}}


def latencies(stage: str, times: _Times) -> Iterator[Latency]:
    """Median and 99th percentile of each route's times, in ms."""
    for route, values in times.items():
        yield Latency(route, stage, len(values), median(values), load.p99(values))


# --- for the eye -----------------------------------------------------------------------------------------------------


def rows(found: Measured) -> list[Row]:
    """The table, in the order of the measurements."""
    return [
        Row("chat request", found.overhead.chat_median_ms),
        Row("the same as a job", found.overhead.job_median_ms),
        Row("job − chat request", found.overhead.difference_median_ms),
        *(Row(f"{each.route} {each.stage}", each.median_ms, each.p99_ms) for each in found.latencies),
    ]


def notes(found: Measured) -> list[str]:
    """What must be known to read the table."""
    queue = found.queue
    ended = f"{queue.completed:,} had ended, {queue.running:,} ran and {queue.waiting:,} waited at the end"
    lines = [f"Of {queue.jobs:,} jobs, {ended}; {queue.purged:,} were purged."]
    if not queue.waiting:
        lines.append("warning: no job waited any more; part of this is of an empty queue. Ask for more jobs.")
    return lines
