"""Starting and ending the real service: phases, signals, crashes, and what becomes of jobs meanwhile.

Each test starts a service of its own; so what needs other settings is tested here too.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.jobs.fake_engine import MODEL as FAKE_MODEL
from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.runner import running_jobs
from gptoss_bento.state.job import Job, Status
from gptoss_bento.state.store import open_store
from tests.routes import every_route
from tests.server import EXIT_LIMIT_S, MODEL, NO_TLS, ServedProcess, all_processes_end, serve

pytestmark = pytest.mark.slow

DEMO = {"PROFILE": "demo"}
ENDS = ("200002", "200012")  # <|return|> and <|call|>, with which gpt-oss ends an answer
ENDLESS_JOB = {"input": {"prompt": "Hello", "sampling_params": {"max_tokens": 4000, "ignore_eos": True}}}


def test_livez_answers_while_the_engine_starts_and_readyz_says_how_far_it_is(tmp_path: Path) -> None:
    with serve(tmp_path, DEMO) as served:
        body = served.wait_until("engine: import")
        assert body["status"] == "starting"
        assert body["seconds_in_phase"] >= 0
        assert [phase["phase"] for phase in body["phases"]] == ["settings", "hardware", "artifacts"]
        readiness = served.readiness()
        assert readiness is not None
        assert readiness.status_code == 503
        assert int(readiness.headers["retry-after"]) > 0
        assert httpx.get(f"{served.url}/livez", verify=NO_TLS).status_code == 200
        assert httpx.get(f"{served.url}/ping", verify=NO_TLS).status_code == 204

        answer = httpx.post(f"{served.url}/v1/chat/completions", json={}, verify=NO_TLS)
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        assert answer.json()["error"]["code"] == 503
        with all_processes_end(served):
            served.terminate()
        assert served.process.returncode == 0


@pytest.mark.parametrize("variable", ["API_KEY", "VLLM_API_KEY"])
def test_with_a_key_every_route_needs_it_from_the_first_moment(tmp_path: Path, variable: str) -> None:
    site = "http://app.example"
    environment = {variable: "first,second", "PUBLIC_ROUTES": "/livez,/readyz,/metrics", "CORS_ORIGINS": site}
    with serve(tmp_path, {**DEMO, **environment}) as served:
        served.wait_until("engine: import")
        with httpx.Client(base_url=served.url, verify=NO_TLS) as client:
            for path in ("/ping", "/docs.json", "/schema.json", "/", "/v1/models", "/openai/v1/models", "/nothing"):
                assert client.get(path).status_code == 401, path
                assert client.get(path, headers={"Authorization": "wrong"}).status_code == 401, path
                assert client.get(path, headers={"Authorization": "Bearer second"}).status_code != 401, path
            assert client.get("/livez").status_code == 200
            assert client.get("/metrics").status_code == 200  # because PUBLIC_ROUTES says so
            asked = {"Origin": site, "Access-Control-Request-Method": "POST"}
            preflight = client.options("/v1/chat/completions", headers=asked)  # a browser sends no key with it
            assert preflight.headers["access-control-allow-origin"] == site
        assert "first" not in served.output()
        assert "second" not in served.output().replace("seconds", "")


def test_sigterm_while_the_engine_process_loads_ends_everything(tmp_path: Path) -> None:
    with serve(tmp_path, DEMO) as served:
        served.wait_until_engine_loads()
        time.sleep(2)  # it ignores SIGTERM while it loads
        with all_processes_end(served):
            served.terminate()
        assert served.process.returncode == 0


def test_ctrl_c_while_idle_ends_everything(tmp_path: Path) -> None:
    """SIGTERM while idle is how the shared server of tests/conftest.py ends."""
    with serve(tmp_path, DEMO) as served:
        served.wait_until_ready()
        with all_processes_end(served):
            served.process.send_signal(signal.SIGINT)
        assert served.process.returncode == 0
    assert not list(tmp_path.glob("*.alive"))


def test_sigterm_under_load_drains_and_then_cuts_off(tmp_path: Path) -> None:
    environment = {**DEMO, "DRAIN_TIMEOUT": "20", "NATIVE_OUTPUT_FORMAT": "openai", "RAW_OPENAI_OUTPUT": "0"}
    with serve(tmp_path, environment) as served, httpx.Client(verify=NO_TLS) as client:
        served.wait_until_ready()
        assert_outputs_as_openai_has_them(served)
        job_id = client.post(f"{served.url}/run", json=ENDLESS_JOB).json()["id"]  # has reached the engine before these
        streams = start_endless_streams(served, 6)
        short = start_streams(served, 1, max_tokens=40)
        wait_for_job(client, served, job_id, "IN_PROGRESS")
        with all_processes_end(served, within_s=60):
            served.terminate()
            readiness = served.wait_until("stopping", 3)
            assert readiness["status"] == "stopping"
            assert client.get(f"{served.url}/status/{job_id}").json()["status"] == "IN_PROGRESS"
            for path, shape in (("/v1/completions", dict), ("/run", str)):
                refused = client.post(f"{served.url}{path}", json={})
                assert refused.status_code == 503
                assert int(refused.headers["retry-after"]) > 0
                assert isinstance(refused.json()["error"], shape)
            for stream in (*short, *streams):
                stream.thread.join(60)
        assert served.process.returncode == 0
    assert [stream.last for stream in short] == ["[DONE]"], "what ends in time is not cut off"
    for stream in streams:
        assert json.loads(stream.last)["error"]["code"] == 503, stream.last
    assert asyncio.run(stored(tmp_path, job_id)) == Status.IN_QUEUE


def test_an_engine_that_hangs_is_noticed_and_one_that_dies_ends_the_service_with_a_cause(tmp_path: Path) -> None:
    with serve(tmp_path, {**DEMO, "ENGINE_STALL_TIMEOUT": "12"}) as served:
        served.wait_until_ready()
        served.engine().suspend()
        wait_for_status(served, 503, "engine_silent_seconds")
        served.engine().resume()
        wait_for_status(served, 200, "ready")
        streams = start_endless_streams(served, 3)
        jobs = submit_jobs(served, 100)
        with all_processes_end(served):
            killed = time.monotonic()
            served.engine().kill()
            health = wait_for_health_of_a_dead_engine(served)
            for stream in streams:
                stream.thread.join(10)
            assert time.monotonic() - killed < 4
        assert served.process.returncode == 75
        assert "engine process died while serving [killed: " in stopped_lines(served)[0]
    assert health["workers"]["unhealthy"] == 1
    assert health["engine"]["cause_kind"] == "killed"
    for stream in streams:
        assert json.loads(stream.last)["error"]["code"] == 503, stream.last
    assert_all_complete(jobs, tmp_path)


def test_an_engine_that_stays_frozen_ends_the_service(tmp_path: Path) -> None:
    """Without vLLM, for seconds: that a stopped one is noticed is tested above."""
    with serve(tmp_path, {**DEMO, "ENGINE_STALL_TIMEOUT": "3"}, service="tests.engineless_service:GptOss") as served:
        served.wait_until_ready()
        streams = start_streams(served, 3, max_tokens=4000, model=FAKE_MODEL)
        with all_processes_end(served, 3 + EXIT_LIMIT_S):
            served.engine().suspend()
            wait_for_status(served, 503, "engine_silent_seconds", 5)
            for stream in streams:
                stream.thread.join(10)
        assert served.process.returncode == 75
        assert "has not answered for 3 s (ENGINE_STALL_TIMEOUT); it hangs" in stopped_lines(served)[0]
    for stream in streams:
        assert json.loads(stream.last)["error"]["code"] == 503, stream.last


@pytest.mark.parametrize("number", [1, 4])
def test_an_engine_that_crashes_during_a_stop_ends_the_streams_of_all_workers(tmp_path: Path, number: int) -> None:
    """Without vLLM, whose client tells the engine's owner alone that it is gone. He may have nothing to do any more."""
    (tmp_path / "t").mkdir()
    environment = {**DEMO, "API_WORKERS": "2", "DRAIN_TIMEOUT": "60", "TMPDIR": str(tmp_path / "t")}
    with serve(tmp_path, environment, service="tests.engineless_service:GptOss") as served:
        served.wait_until_ready()
        streams = start_streams(served, number, max_tokens=4000, model=FAKE_MODEL)
        with all_processes_end(served):
            served.terminate()
            served.wait_until("stopping", 3)
            time.sleep(1)  # a worker without a stream has drained
            served.engine().kill()
            for stream in streams:
                stream.thread.join(3)
                assert not stream.thread.is_alive()
        assert served.process.returncode == 0
    for stream in streams:
        assert json.loads(stream.last)["error"]["code"] == 503, stream.last


def test_engine_that_dies_while_it_starts_ends_the_service(tmp_path: Path) -> None:
    with serve(tmp_path, DEMO) as served:
        engine = served.wait_until_engine_loads()
        time.sleep(2)
        with all_processes_end(served):
            engine.kill()
        assert served.process.returncode == 75
        assert "engine did not start [killed: " in stopped_lines(served)[0]


def test_killed_worker_is_not_started_again_for_ever(tmp_path: Path) -> None:
    with serve(tmp_path, DEMO) as served:
        served.wait_until("engine: import")
        tree = served.tree()
        served.worker().kill()
        assert served.wait_until_ended(30) == 75
        assert "died without a word" in served.output()
        assert psutil.wait_procs(tree, timeout=10)[1] == []


def test_with_keys_every_route_needs_one_and_a_killed_supervisor_takes_all_with_it(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    keys.write_text("alice: {key: first-k3y, requests_per_minute: 100000}")
    with serve(tmp_path, {**DEMO, "API_KEYS_FILE": str(keys), "CLIENT_TIMEOUT": "5"}) as served:
        served.wait_until_ready()
        with httpx.Client(base_url=served.url, timeout=60, verify=NO_TLS) as client:
            for method, path in sorted(every_route()):
                assert_needs_a_key(client, method, path, "first-k3y")
            assert_limits_hold(client)
            keys.write_text("bob: {key: second-k3y}")
            time.sleep(1.1)
            assert [
                client.get("/v1/models", headers={"Authorization": key}).status_code
                for key in ("first-k3y", "second-k3y")
            ] == [401, 200]
        assert "k3y" not in served.output()
        jobs = submit_jobs(served, 100, "second-k3y")
        with all_processes_end(served):
            served.process.kill()
    assert_all_complete(jobs, tmp_path)


def assert_outputs_as_openai_has_them(served: ServedProcess) -> None:
    """The other format: NATIVE_OUTPUT_FORMAT=openai and RAW_OPENAI_OUTPUT=0."""
    chat = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 60}
    short = {"sampling_params": {"max_tokens": 5}}

    (whole,) = output_of(served, {"messages": chat["messages"], **short})
    assert whole["object"] == "chat.completion"
    (text,) = output_of(served, {"prompt": "Hello", **short})
    assert text["object"] == "text_completion"
    frames = "".join(output_of(served, {"prompt": "Hello", "stream": True, **short})).split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    assert json.loads(frames[0].removeprefix("data: "))["object"] == "text_completion"
    chunks = output_of(served, {"openai_input": {**chat, "stream": True}})
    assert len(chunks) > 1
    assert {chunk["object"] for item in chunks for chunk in item} == {"chat.completion.chunk"}


def output_of(served: ServedProcess, given: dict[str, Any]) -> list[Any]:
    job = httpx.post(f"{served.url}/runsync", json={"input": given}, timeout=60, verify=NO_TLS).json()
    assert job["status"] == "COMPLETED", job
    return list(job["output"])


def submit_jobs(served: ServedProcess, count: int, key: str = "none") -> list[str]:
    """Accepted; the first runs for longer than any stop takes, however fast the machine is."""
    job = {"input": {"prompt": "Hello", "stream": True, "sampling_params": {"max_tokens": 100, "ignore_eos": True}}}
    headers = {"Authorization": key}
    with httpx.Client(base_url=served.url, headers=headers, verify=NO_TLS) as client:
        return [client.post("/run", json=body).json()["id"] for body in [ENDLESS_JOB, *[job] * (count - 1)]]


def assert_all_complete(jobs: Sequence[str], folder: Path) -> None:
    """Whatever the service left undone is done by the next on its store, here one with the fake engine."""

    async def finish() -> list[Job | None]:
        settings = ServerSettings(job_store_url=f"sqlite:///{folder / 'jobs.sqlite3'}")
        async with running_jobs(settings, folder) as runner:
            runner.attach(FakeEngine().engine())
            return [(await runner.ended(job_id, 60))[0] for job_id in jobs]

    ended = asyncio.run(finish())
    assert {job and job.status for job in ended} == {Status.COMPLETED}
    assert [job.retries for job in ended[:1] if job] == [1], "it was running"


def test_two_api_workers_share_one_engine_and_end_together(tmp_path: Path) -> None:
    """One start for all, because it takes the better part of a minute."""
    (tmp_path / "t").mkdir()
    with ExitStack() as stack:
        variables = {"API_WORKERS": "2", "TMPDIR": str(tmp_path / "t"), "WARMUP": "1"}
        served = stack.enter_context(serve(tmp_path, {**DEMO, **variables}))
        served.wait_until_ready()
        warmed_up_once_with_all_that_the_engine_can(served)
        clients = [stack.enter_context(httpx.Client(base_url=served.url, verify=NO_TLS, timeout=60)) for _ in range(6)]
        answers_spread_over_workers(served, clients)
        metrics_add_up(clients)
        stored_responses_are_found(clients)
        jobs_are_everywhere(clients)

        here, there = (client_of(served, clients, number) for number in (0, 1))
        follower = start_follower(here, there)
        streams = start_endless_streams(served, 6)
        started = time.monotonic()
        with all_processes_end(served):
            served.workers()[1].kill()
        assert served.process.returncode == 75
        assert stopped_lines(served)[0].endswith("API worker 2 died without a word (killed, or out of memory).")
        for stream in (follower, *streams):
            stream.thread.join(10)
        assert time.monotonic() - started < EXIT_LIMIT_S
    assert json.loads(follower.last)["code"] == "503", "it was answered by the worker that was killed"
    told = [json.loads(stream.last)["error"]["code"] for stream in streams if '"error"' in stream.last]
    assert told, "those of the worker that was not killed hear why"
    assert set(told) == {503}
    assert [path.name for path in (tmp_path / "t").iterdir() if path.name.startswith("gptoss-bento")] == []


def warmed_up_once_with_all_that_the_engine_can(served: ServedProcess) -> None:
    """That none of it is in the metrics shows when the answers of clients are counted."""
    lines = [line for line in served.output().splitlines() if "warm-up: " in line]
    assert [line.partition("warm-up: ")[2].partition(" in ")[0] for line in lines] == ["done"], lines


def answers_spread_over_workers(served: ServedProcess, clients: list[httpx.Client]) -> None:
    """Each connection stays with its worker, and each worker has half of them."""
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    for client in clients:
        assert client.post("/v1/chat/completions", json=chat).status_code == 200
    established = [
        sum(c.status == psutil.CONN_ESTABLISHED and c.laddr.port == served.port for c in worker.net_connections())
        for worker in served.workers()
    ]
    assert established == [3, 3]


def metrics_add_up(clients: list[httpx.Client]) -> None:
    """vLLM's and BentoML's, whichever worker is asked: what the chats so far came to, one from each client."""
    assert_counted(clients, "vllm:request_success_total", len(clients))
    assert_counted(clients, 'bentoml_service_request_total.*endpoint="/v1/chat/completions"', len(clients))


def assert_counted(clients: list[httpx.Client], metric: str, number: int) -> None:
    """Each client is told the same sum."""
    time.sleep(2)  # each worker writes down what it counted twice a second
    for client in clients:
        lines = [line for line in client.get("/metrics").text.splitlines() if re.match(metric, line)]
        assert sum(float(line.rsplit(" ", 1)[1]) for line in lines) == number, lines


def stored_responses_are_found(clients: list[httpx.Client]) -> None:
    """Also what follows on one, and its stream; counted once, whoever answers."""
    asked = {"model": MODEL, "input": "Hello", "max_output_tokens": 40, "temperature": 0}
    first = clients[0].post("/v1/responses", json=asked).json()
    for client in clients:
        assert client.get(f"/v1/responses/{first['id']}").json()["id"] == first["id"]
        assert client.get("/v1/responses/resp_missing").status_code == 404
        follows = client.post("/v1/responses", json={**asked, "previous_response_id": first["id"]})
        assert follows.json()["previous_response_id"] == first["id"], follows.text
    assert_counted(clients, 'bentoml_service_request_total.*endpoint="/v1/responses"', 1 + len(clients))
    assert_counted(clients, 'bentoml_service_request_total.*endpoint="/v1/responses/{id}"', 2 * len(clients))
    assert_counted(clients, "vllm:request_success_total", 1 + 2 * len(clients))


def client_of(served: ServedProcess, clients: list[httpx.Client], number: int) -> httpx.Client:
    """One whose connection that worker has."""
    ports = {
        c.raddr.port for c in served.workers()[number].net_connections() if c.raddr and c.laddr.port == served.port
    }
    own = (client.get("/livez").extensions["network_stream"].get_extra_info("client_addr") for client in clients)
    return next(client for client, address in zip(clients, own, strict=True) if address[1] in ports)


def start_follower(here: httpx.Client, there: httpx.Client) -> Stream:
    """A stream asked for in one worker and answered by another, which has the response that it follows on."""
    asked = {"model": MODEL, "input": "Hello", "max_output_tokens": 4}
    first = there.post("/v1/responses", json=asked).json()["id"]
    no_end = {"max_output_tokens": 4000, "ignore_eos": True, "logit_bias": dict.fromkeys(ENDS, -100)}
    stream, began = Stream(), threading.Event()

    def read() -> None:
        body = {**asked, **no_end, "previous_response_id": first, "stream": True}
        with suppress(httpx.HTTPError), here.stream("POST", "/v1/responses", json=body) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    stream.last = line.removeprefix("data: ")
                    began.set()

    stream.thread = threading.Thread(target=read, daemon=True)
    stream.thread.start()
    assert began.wait(60)
    return stream


def jobs_are_everywhere(clients: list[httpx.Client]) -> None:
    """Run by one worker, polled, streamed and cancelled through any."""
    prompt = {"prompt": "Hello", "sampling_params": {"max_tokens": 8}}
    endless = {"prompt": "Hello", "stream": True, "sampling_params": {"max_tokens": 4000, "ignore_eos": True}}
    for runs, asks in zip(clients, clients[1:] + clients[:1], strict=True):
        done = runs.post("/runsync", json={"input": prompt}).json()
        assert done["status"] == "COMPLETED"
        assert asks.get(f"/status/{done['id']}").json()["output"] == done["output"]

        streamed = runs.post("/run", json={"input": endless}).json()["id"]
        assert asks.get(f"/stream/{streamed}").json()["stream"]
        assert asks.post(f"/cancel/{streamed}").json()["status"] == "CANCELLED"
    deadline = time.monotonic() + 5
    while clients[0].get("/health").json()["workers"]["running"]:
        assert time.monotonic() < deadline, "a cancelled job still runs"
        time.sleep(0.1)


def assert_needs_a_key(client: httpx.Client, method: str, path: str, key: str) -> None:
    """Whatever answers, a route's owner or nobody, no other word reaches a client without a key."""
    without = client.request(method, path)
    wrong = client.request(method, path, headers={"Authorization": f"Bearer {key}x"})
    right = client.request(method, path, headers={"Authorization": f"Bearer {key}"})
    if path in ("/livez", "/readyz", "/ping"):
        assert {without.status_code, wrong.status_code, right.status_code} <= {200, 405}, path
        return
    assert (without.status_code, wrong.status_code) == (401, 401), f"{method} {path}"
    assert without.content == wrong.content
    assert right.status_code not in (401, 403, 500), f"{method} {path}: {right.status_code}"


def assert_limits_hold(client: httpx.Client) -> None:
    """What the unit tests say of fakes, once on the real server."""
    client.headers["Authorization"] = "Bearer first-k3y"
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert int(answer.headers["x-ratelimit-remaining-requests"]) < 100_000
    too_large = client.post("/openai/v1/completions", content=(b" " * 2**20 for _ in range(21)))
    assert (too_large.status_code, too_large.json()["error"]["code"]) == (413, 413)
    assert begun_and_left(client, "/v1/completions", "/run") == [b"HTTP/1.1 408", b"HTTP/1.1 408"]
    assert client.get("/v1/models", headers={"x": "y" * 70_000}).status_code == 431
    long = {"model": MODEL, "prompt": "word " * 50_000, "max_tokens": 1}
    assert_fits_no_context(client, long)


def begun_and_left(client: httpx.Client, *paths: str) -> list[bytes]:
    """How the answers begin to requests whose bodies never end."""
    head = "POST {} HTTP/1.1\r\nhost: a\r\nauthorization: first-k3y\r\ncontent-length: 9\r\n\r\n{{"
    address = ("127.0.0.1", client.base_url.port or 0)
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(address, timeout=30)) for _ in paths]
        for each, path in zip(sockets, paths, strict=True):
            each.sendall(head.format(path).encode())
        return [each.recv(12) for each in sockets]


def assert_fits_no_context(client: httpx.Client, body: dict[str, object]) -> None:
    """A prompt that the context cannot hold is refused on every route, before the engine has work with it."""
    chat = {"model": MODEL, "messages": [{"role": "user", "content": body["prompt"]}], "max_tokens": 1}
    routes = {
        "/v1/completions": body,
        "/v1/chat/completions": chat,
        "/v1/responses": {"model": MODEL, "input": body["prompt"]},
    }
    for path, asked in {**routes, "/v1/messages": chat}.items():
        answer = client.post(path, json=asked)
        assert answer.status_code == 400, f"{path}: {answer.text[:300]}"
    job = client.post(
        "/runsync", json={"input": {"prompt": body["prompt"], "sampling_params": {"max_tokens": 1}}}
    ).json()
    assert (job["status"], "context" in job["error"]) == ("FAILED", True), job


def stopped_lines(served: ServedProcess) -> Sequence[str]:
    """The lines that tell the operator why the service stopped."""
    return [line for line in served.output().splitlines() if line.startswith("gptoss-bento: stopped")]


@dataclass
class Stream:
    """A request whose answer comes as a stream, and the data of its last event."""

    thread: threading.Thread = field(default_factory=threading.Thread)
    last: str = ""


def start_endless_streams(served: ServedProcess, count: int) -> list[Stream]:
    """Streams that go on until the server ends them; returns when each has got its first bytes."""
    return start_streams(served, count, max_tokens=4000)


def start_streams(served: ServedProcess, count: int, max_tokens: int, model: str = MODEL) -> list[Stream]:
    started = threading.Barrier(count + 1)
    body = {"model": model, "prompt": "Hello", "max_tokens": max_tokens, "ignore_eos": True, "stream": True}

    def read(stream: Stream) -> None:
        url = f"{served.url}/v1/completions"
        with suppress(httpx.HTTPError), httpx.stream("POST", url, json=body, timeout=60, verify=NO_TLS) as response:
            lines = response.iter_lines()
            next(lines)
            started.wait(60)
            for line in lines:
                stream.last = line.removeprefix("data: ") or stream.last

    streams = [Stream() for _ in range(count)]
    for stream in streams:
        stream.thread = threading.Thread(target=read, args=(stream,), daemon=True)
        stream.thread.start()
    started.wait(60)
    return streams


def wait_for_status(served: ServedProcess, status: int, word: str, timeout_s: float = 30) -> None:
    """Waits until /readyz answers with this code and names this word."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        readiness = served.readiness()
        if readiness is not None and readiness.status_code == status and word in readiness.text:
            return
        time.sleep(0.1)
    raise AssertionError(f"/readyz is not {status} with {word!r} after {timeout_s} s")


def wait_for_health_of_a_dead_engine(served: ServedProcess) -> dict[str, Any]:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        health: dict[str, Any] = httpx.get(f"{served.url}/health", verify=NO_TLS).json()
        if health.get("engine", {}).get("status") == "failed":
            return health
        time.sleep(0.1)
    raise AssertionError("/health does not say what the engine died of")


def wait_for_job(client: httpx.Client, served: ServedProcess, job_id: str, status: str, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while client.get(f"{served.url}/status/{job_id}").json()["status"] != status:
        assert time.monotonic() < deadline, f"the job is not {status}"
        time.sleep(0.05)


async def stored(folder: Path, job_id: str) -> Status | None:
    """What the store of a service that has ended says of a job."""
    async with open_store(f"sqlite:///{folder / 'jobs.sqlite3'}", Path("unused")) as store:
        job = await store.get(job_id)
        return job.status if job else None
