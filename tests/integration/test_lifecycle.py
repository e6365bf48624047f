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
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
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
from tests.holds import ANSWERS, CAUSE_SHOWN_S, LOADING, release, serve_without_vllm
from tests.mcp_server import ToolServer, mcp_server
from tests.routes import every_route
from tests.server import MODEL, NO_TLS, ServedProcess, all_processes_end, serve
from tests.waiting import HANG_S, wait_for

pytestmark = pytest.mark.slow

DEMO = {"PROFILE": "demo"}
ENDS = ("200002", "200012")  # <|return|> and <|call|>, with which gpt-oss ends an answer
LONG = 4000
"""Tokens of a generation that nearly fills the demo's context."""
LONG_JOB = {"input": {"prompt": "Hello", "sampling_params": {"max_tokens": LONG, "ignore_eos": True}}}
NO_LIMITS = {"MAX_MODEL_LEN": "65536", "DRAIN_TIMEOUT": "3600"}
LONGEST = 60_000
"""Tokens of a generation that a test ends. By count it takes a thousand times as long as what the test waits for."""
LONGEST_JOB = {"input": {"prompt": "Hello", "sampling_params": {"max_tokens": LONGEST, "ignore_eos": True}}}


def test_probes_answer_while_the_engine_starts(tmp_path: Path) -> None:
    """And SIGTERM ends the start, whose engine process ignores it while it loads."""
    with serve(tmp_path, DEMO) as served:
        body = served.wait_until("engine: import")
        assert body["status"] == "starting"
        assert body["seconds_in_phase"] >= 0
        assert [phase["phase"] for phase in body["phases"]][:3] == ["settings", "hardware", "artifacts"]
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
        served.wait_until_engine_loads()
        with all_processes_end(served):
            served.terminate()
        assert served.process.returncode == 0


@pytest.mark.parametrize("variable", ["API_KEY", "VLLM_API_KEY"])
def test_api_key_is_needed_for_every_route_while_the_engine_starts(tmp_path: Path, variable: str) -> None:
    """Without vLLM, while its engine loads."""
    site = "http://app.example"
    environment = {variable: "first,second", "PUBLIC_ROUTES": "/livez,/readyz,/metrics", "CORS_ORIGINS": site}
    with serve_without_vllm(tmp_path, environment, holds=[LOADING]) as served:
        served.wait_until("engine: weights")
        with httpx.Client(base_url=served.url, verify=NO_TLS, timeout=HANG_S) as client:
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


def test_shutdown_by_ctrl_c_while_idle_ends_everything(tmp_path: Path) -> None:
    """Without vLLM. With it, SIGTERM while idle is how the shared server of tests/conftest.py ends."""
    with serve_without_vllm(tmp_path) as served:
        served.wait_until_ready()
        with all_processes_end(served):
            served.process.send_signal(signal.SIGINT)
        assert served.process.returncode == 0
    assert not list(tmp_path.glob("*.alive"))


def test_shutdown_by_sigterm_under_load_drains_and_then_aborts(tmp_path: Path) -> None:
    """What ends by itself is not aborted, and the rest is when the operator forces the end."""
    environment = {**DEMO, **NO_LIMITS, "NATIVE_OUTPUT_FORMAT": "openai", "RAW_OPENAI_OUTPUT": "0"}
    with ExitStack() as stack:
        tools = [stack.enter_context(mcp_server(tmp_path, name)) for name in ("python", "browser")]
        environment["TOOL_SERVER"] = ", ".join(tool.address for tool in tools)
        served = stack.enter_context(serve(tmp_path, environment))
        client = stack.enter_context(httpx.Client(verify=NO_TLS, timeout=HANG_S))
        served.wait_until_ready()
        assert_outputs_as_openai_has_them(served)
        assert_tool_servers_are_used(client, served, *tools)
        job_id = client.post(f"{served.url}/run", json=LONGEST_JOB).json()["id"]  # has reached the engine before these
        streams = start_streams(served, 6, max_tokens=LONGEST)
        short = start_streams(served, 1, max_tokens=40)
        wait_for_job(client, served, job_id, "IN_PROGRESS")
        with all_processes_end(served):
            served.terminate()
            assert served.wait_until("stopping")["status"] == "stopping"
            assert client.get(f"{served.url}/status/{job_id}").json()["status"] == "IN_PROGRESS"
            assert_refuses_new_work(client, served)
            wait_until_they_end(short)
            assert all(stream.thread.is_alive() for stream in streams)
            for worker in served.workers():
                worker.send_signal(signal.SIGINT)  # the second of two Ctrl-C
            wait_until_they_end(streams)
        assert served.process.returncode == 0
    assert [stream.last for stream in short] == ["[DONE]"], "what ends in time is not aborted"
    assert_told_of_the_end(streams)
    assert asyncio.run(stored(tmp_path, job_id)) == Status.IN_QUEUE


def test_shutdown_waits_for_what_runs(tmp_path: Path) -> None:
    """Without vLLM: an answer that was held goes on after SIGTERM, and the service ends with it."""
    with serve_without_vllm(tmp_path, {"DRAIN_TIMEOUT": "3600"}, holds=[ANSWERS]) as served:
        served.wait_until_ready()
        streams = start_streams(served, 3, max_tokens=20, model=FAKE_MODEL)
        with all_processes_end(served):
            served.terminate()
            served.wait_until("stopping")
            assert all(stream.thread.is_alive() for stream in streams)
            release(tmp_path, ANSWERS)
            wait_until_they_end(streams)
        assert served.process.returncode == 0
    assert [stream.last for stream in streams] == ["[DONE]"] * 3


def test_shutdown_aborts_after_drain_timeout(tmp_path: Path) -> None:
    """Without vLLM, for answers that never end. How long it waits is a unit test's."""
    with (
        serve_without_vllm(tmp_path, {"DRAIN_TIMEOUT": "1"}, holds=[ANSWERS]) as served,
        httpx.Client(verify=NO_TLS, timeout=HANG_S) as client,
    ):
        served.wait_until_ready()
        job_id = client.post(f"{served.url}/run", json=LONG_JOB).json()["id"]
        streams = start_streams(served, 3, max_tokens=40, model=FAKE_MODEL)
        wait_for_job(client, served, job_id, "IN_PROGRESS")
        with all_processes_end(served):
            served.terminate()
            wait_until_they_end(streams)
        assert served.process.returncode == 0
    assert_told_of_the_end(streams)
    assert asyncio.run(stored(tmp_path, job_id)) == Status.IN_QUEUE


def test_engine_that_hangs_is_noticed_and_one_that_dies_ends_the_service_with_a_cause(tmp_path: Path) -> None:
    """One start for this and for the keys, because it takes the better part of a minute."""
    keys = tmp_path / "keys.yaml"
    keys.write_text("alice: {key: first-k3y, requests_per_minute: 100000}")
    environment = {**DEMO, **NO_LIMITS, "API_KEYS_FILE": str(keys), "ENGINE_STALL_TIMEOUT": "3600"}
    with serve(tmp_path, environment) as served:
        served.wait_until_ready()
        assert_every_route_needs_a_key_of_the_file(served, keys)
        served.engine().suspend()
        wait_for_status(served, 503, "engine_silent_seconds")
        served.engine().resume()
        wait_for_status(served, 200, "ready")
        streams = start_streams(served, 3, max_tokens=LONGEST, key="second-k3y")
        served.engine().suspend()  # so that no job ends before the engine does
        jobs = submit_jobs(served, 100, "second-k3y")
        with all_processes_end(served):
            served.engine().kill()
            wait_until_they_end(streams)
        assert served.process.returncode == 75
        assert "engine process died while serving [killed: " in stopped_lines(served)[0]
        assert "k3y" not in served.output()
    assert_told_of_the_end(streams)
    assert_all_complete(jobs, tmp_path)


def test_health_reports_the_failure_cause_of_the_engine(tmp_path: Path) -> None:
    """Without vLLM, and for longer than the second that a service stays for those who ask."""
    with serve_without_vllm(tmp_path, {CAUSE_SHOWN_S: "10"}) as served:
        served.wait_until_ready()
        with all_processes_end(served):
            served.engine().kill()
            health = wait_for_health_of_a_dead_engine(served)
        assert served.process.returncode == 75
    assert health["workers"]["unhealthy"] == 1
    assert health["engine"]["cause_kind"] == "killed"


def test_engine_that_stays_frozen_ends_the_service(tmp_path: Path) -> None:
    """Without vLLM, for seconds: that a stopped one is noticed is tested above."""
    with serve_without_vllm(tmp_path, {"ENGINE_STALL_TIMEOUT": "3"}, holds=[ANSWERS]) as served:
        served.wait_until_ready()
        streams = start_streams(served, 3, max_tokens=40, model=FAKE_MODEL)
        with all_processes_end(served):
            served.engine().suspend()
            wait_until_they_end(streams)
        assert served.process.returncode == 75
        assert "has not answered for 3 s (ENGINE_STALL_TIMEOUT); it hangs" in stopped_lines(served)[0]
    assert_told_of_the_end(streams)


@pytest.mark.parametrize("number", [1, 4])
def test_engine_that_crashes_during_a_shutdown_ends_the_streams_of_all_workers(tmp_path: Path, number: int) -> None:
    """Without vLLM, whose client notifies the engine's owner alone of its end. The owner may be idle then."""
    (tmp_path / "t").mkdir()
    environment = {"API_WORKERS": "2", "DRAIN_TIMEOUT": "3600", "TMPDIR": str(tmp_path / "t")}
    with serve_without_vllm(tmp_path, environment, holds=[ANSWERS]) as served:
        served.wait_until_ready()
        streams = start_streams(served, number, max_tokens=40, model=FAKE_MODEL)
        with all_processes_end(served):
            served.terminate()
            served.wait_until("stopping")
            if number == 1:
                served.wait_for_output("stopping: drained after")  # the worker without a stream
            served.engine().kill()
            wait_until_they_end(streams)
        assert served.process.returncode == 0
    assert_told_of_the_end(streams)


def test_engine_that_dies_while_it_starts_ends_the_service(tmp_path: Path) -> None:
    with serve(tmp_path, DEMO) as served:
        engine = served.wait_until_engine_loads()
        engine.suspend()  # it loads no further before the test goes on
        with all_processes_end(served):
            engine.kill()
        assert served.process.returncode == 75
        assert "engine did not start [killed: " in stopped_lines(served)[0]


def test_worker_that_is_killed_is_not_restarted(tmp_path: Path) -> None:
    """Without vLLM, while its engine loads."""
    with serve_without_vllm(tmp_path, holds=[LOADING]) as served:
        served.wait_until_engine_loads()
        with all_processes_end(served):
            served.worker().kill()
        assert served.process.returncode == 75
        assert "died without a message" in served.output()


def test_supervisor_that_is_killed_takes_all_with_it(tmp_path: Path) -> None:
    """Without vLLM. No accepted job is lost."""
    with serve_without_vllm(tmp_path, holds=[ANSWERS]) as served:
        served.wait_until_ready()
        jobs = submit_jobs(served, 100)
        with all_processes_end(served):
            served.process.kill()
    assert_all_complete(jobs, tmp_path)


def test_client_timeout_is_a_408(tmp_path: Path) -> None:
    """Without vLLM. Nothing else is asked of this service, so that nothing else can be late."""
    with serve_without_vllm(tmp_path, {"CLIENT_TIMEOUT": "1"}) as served:
        served.wait_until_ready()
        assert begun_and_left(served, "/v1/completions", "/run") == [b"HTTP/1.1 408", b"HTTP/1.1 408"]


def assert_refuses_new_work(client: httpx.Client, served: ServedProcess) -> None:
    for path, shape in (("/v1/completions", dict), ("/run", str)):
        refused = client.post(f"{served.url}{path}", json={})
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert isinstance(refused.json()["error"], shape)


def assert_every_route_needs_a_key_of_the_file(served: ServedProcess, file: Path) -> None:
    """Also when the file is changed."""
    with httpx.Client(base_url=served.url, timeout=HANG_S, verify=NO_TLS) as client:
        for method, path in sorted(every_route()):
            assert_needs_a_key(client, method, path, "first-k3y")
        assert_limits_hold(client)
        file.write_text("bob: {key: second-k3y}")

        def statuses() -> list[int]:
            keys = ("first-k3y", "second-k3y")
            return [client.get("/v1/models", headers={"Authorization": key}).status_code for key in keys]

        wait_for(lambda: statuses() == [401, 200], lambda: f"the file has changed, and its keys give {statuses()}")


CODE = {"type": "code_interpreter", "container": {"type": "auto"}}
CALL = {"type": "const_string", "value": "<|channel|>analysis to=python code<|message|>print(42)"}
"""What a response is held to after its reasoning; the demo model was not trained to call the tool."""


def assert_tool_servers_are_used(
    client: httpx.Client, served: ServedProcess, python: ToolServer, browser: ToolServer
) -> None:
    """Requests with a tool of TOOL_SERVER, of a server that has gone, and of none."""
    url, asked = f"{served.url}/v1/responses", {"model": MODEL, "input": "Hello", "max_output_tokens": 100}
    assert f"tool server {python.address} is python, with the tools: python" in served.output()
    plain, tools = (client.post(url, json={**asked, "tools": tools}) for tools in ([], [CODE]))
    assert (plain.status_code, tools.status_code) == (200, 200)
    assert tools.json()["usage"]["input_tokens"] > plain.json()["usage"]["input_tokens"]
    held = {"structured_outputs": {"structural_tag": json.dumps({"type": "structural_tag", "format": CALL})}}
    with client.stream("POST", url, json={**asked, **held, "tools": [CODE], "stream": True}):
        wait_for(python.calls)
    assert python.calls().startswith("print(42)")

    browser.end()
    gone = client.post(url, json={**asked, "tools": [{"type": "web_search_preview"}]})
    assert gone.status_code == 503
    assert gone.json()["error"]["message"].startswith("The tool server browser does not answer: ")
    missing = client.post(
        url, json={**asked, "tools": [{"type": "mcp", "server_label": "x", "server_url": "http://x"}]}
    )
    assert (missing.status_code, missing.json()["error"]["param"]) == (400, "tools[0].server_label")


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
    job = httpx.post(f"{served.url}/runsync", json={"input": given}, timeout=HANG_S, verify=NO_TLS).json()
    assert job["status"] == "COMPLETED", job
    return list(job["output"])


def submit_jobs(served: ServedProcess, count: int, key: str = "none") -> list[str]:
    """Accepted, by an engine that is held; the first runs."""
    job = {"input": {"prompt": "Hello", "stream": True, "sampling_params": {"max_tokens": 100, "ignore_eos": True}}}
    headers = {"Authorization": key}
    with httpx.Client(base_url=served.url, headers=headers, verify=NO_TLS, timeout=HANG_S) as client:
        jobs = [client.post("/run", json=body).json()["id"] for body in [LONG_JOB, *[job] * (count - 1)]]
        wait_for_job(client, served, jobs[0], "IN_PROGRESS")
        return jobs


def assert_all_complete(jobs: Sequence[str], folder: Path) -> None:
    """Whatever the service left undone is done by the next on its store, here one with the fake engine."""

    async def finish() -> list[Job | None]:
        settings = ServerSettings(job_store_url=f"sqlite:///{folder / 'jobs.sqlite3'}")
        async with running_jobs(settings, folder) as runner:
            runner.attach(FakeEngine().engine())
            return [(await runner.ended(job_id, HANG_S))[0] for job_id in jobs]

    ended = asyncio.run(finish())
    assert {job and job.status for job in ended} == {Status.COMPLETED}
    assert [job.retries for job in ended[:1] if job] == [1], "it was running"


def test_workers_share_one_engine_and_end_together(tmp_path: Path) -> None:
    """One start for all, because it takes the better part of a minute."""
    (tmp_path / "t").mkdir()
    with ExitStack() as stack:
        # The warm-up has no batch beyond MAX_NUM_SEQS; one of 64 takes a CPU a minute.
        variables = {"API_WORKERS": "2", "TMPDIR": str(tmp_path / "t"), "WARMUP": "1", "MAX_NUM_SEQS": "8"}
        variables["OVERRIDE_GENERATION_CONFIG"] = '{"temperature": 0}'
        served = stack.enter_context(serve(tmp_path, {**DEMO, **variables}))
        served.wait_until_ready()
        warmed_up_once_with_all_that_the_engine_can(served)
        clients = clients_of_all_workers(stack, served)
        metrics_add_up(clients)
        stored_responses_are_found(clients)
        jobs_are_everywhere(clients)
        several_answers_are_the_likeliest_one(clients)

        here, also_here = clients_of(served, clients, 0)[:2]
        follower = start_follower(here, clients_of(served, clients, 1)[0])
        streams = [*start_streams(served, 5, max_tokens=LONG), *start_streams(also_here, 1, max_tokens=LONG)]
        with all_processes_end(served):
            served.workers()[1].kill()
        assert served.process.returncode == 75
        assert stopped_lines(served)[0].endswith("API worker 2 died without a message (killed, or out of memory).")
        wait_until_they_end([follower, *streams])
    assert json.loads(follower.last)["code"] == "503", "it gets the cause, too"
    told = [json.loads(stream.last)["error"]["code"] for stream in streams if '"error"' in stream.last]
    assert told, "those of the worker that was not killed get the cause"
    assert set(told) == {503}
    assert [path.name for path in (tmp_path / "t").iterdir() if path.name.startswith("gptoss-bento")] == []


def warmed_up_once_with_all_that_the_engine_can(served: ServedProcess) -> None:
    """That none of it is in the metrics shows when the answers of clients are counted."""
    lines = [line for line in served.output().splitlines() if "engine: warm-up: " in line]
    assert [line.partition("warm-up: ")[2].partition(" in ")[0] for line in lines] == ["done"], lines


def clients_of_all_workers(stack: ExitStack, served: ServedProcess) -> list[httpx.Client]:
    """Two at least of each worker; each connection stays with its worker, and each client has asked for one chat.

    How evenly connections spread is a unit test's: a worker that has to wait for a core lets the other one take more.
    """
    chat = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    clients: list[httpx.Client] = []
    stays = httpx.Limits(keepalive_expiry=None)  # httpx would open another connection after 5 s without a request
    while min(connections(served)) < 2:
        assert len(clients) < 50, f"connections of the workers: {connections(served)}"
        client = stack.enter_context(httpx.Client(base_url=served.url, verify=NO_TLS, timeout=HANG_S, limits=stays))
        assert client.post("/v1/chat/completions", json=chat).status_code == 200
        clients.append(client)
    return clients


def connections(served: ServedProcess) -> list[int]:
    """How many clients each worker serves."""
    return [
        sum(c.status == psutil.CONN_ESTABLISHED and c.laddr.port == served.port for c in worker.net_connections())
        for worker in served.workers()
    ]


def metrics_add_up(clients: list[httpx.Client]) -> None:
    """vLLM's and BentoML's, whichever worker is asked: what the chats so far came to, one from each client."""
    assert_counted(clients, "vllm:request_success_total", len(clients))
    assert_counted(clients, 'bentoml_service_request_total.*endpoint="/v1/chat/completions"', len(clients))


def assert_counted(clients: list[httpx.Client], metric: str, number: int) -> None:
    """Each client gets the same sum, once each worker has written its counts."""

    def sums() -> list[float]:
        return [sum_of(client, metric) for client in clients]

    wait_for(lambda: min(sums()) >= number, lambda: f"{metric}: {sums()}, not {number}")
    assert sums() == [number] * len(clients)


def sum_of(client: httpx.Client, metric: str) -> float:
    lines = [line for line in client.get("/metrics").text.splitlines() if re.match(metric, line)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def stored_responses_are_found(clients: list[httpx.Client]) -> None:
    """By every worker, also to continue one."""
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


def clients_of(served: ServedProcess, clients: list[httpx.Client], number: int) -> list[httpx.Client]:
    """Those whose connection that worker has."""
    ports = {
        c.raddr.port for c in served.workers()[number].net_connections() if c.raddr and c.laddr.port == served.port
    }
    own = (client.get("/livez").extensions["network_stream"].get_extra_info("client_addr") for client in clients)
    return [client for client, address in zip(clients, own, strict=True) if address[1] in ports]


def start_follower(here: httpx.Client, there: httpx.Client) -> Stream:
    """A stream of one worker that continues a response of another."""
    asked = {"model": MODEL, "input": "Hello", "max_output_tokens": 4}
    first = there.post("/v1/responses", json=asked).json()["id"]
    no_end = {"max_output_tokens": LONG, "ignore_eos": True, "logit_bias": dict.fromkeys(ENDS, -100)}
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
    assert began.wait(HANG_S)
    return stream


def several_answers_are_the_likeliest_one(clients: list[httpx.Client]) -> None:
    """Whichever worker is asked: each knows the default temperature, 0."""
    chat = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "n": 2}
    prompt = {"prompt": "Hello", "n": 2, "max_tokens": 5}
    for client in clients:
        answered = client.post("/v1/chat/completions", json=chat).json()
        assert [it["message"]["content"] for it in answered["choices"]] == ["The capital of France is Paris."] * 2
        completed = client.post("/v1/completions", json=prompt).json()
        assert len({it["text"] for it in completed["choices"]}) == 1, completed
        for given in (chat, prompt):
            done = client.post("/runsync", json={"input": given}).json()
            assert done["status"] == "COMPLETED", done


def streamed_entries(client: httpx.Client, job_id: str) -> list[Any]:
    entries: list[Any] = client.get(f"/stream/{job_id}").json()["stream"]
    return entries


def jobs_are_everywhere(clients: list[httpx.Client]) -> None:
    """Run by one worker, polled, streamed and cancelled through any."""
    prompt = {"prompt": "Hello", "sampling_params": {"max_tokens": 8}}
    endless = {**LONG_JOB["input"], "stream": True}
    for runs, asks in zip(clients, clients[1:] + clients[:1], strict=True):
        done = runs.post("/runsync", json={"input": prompt}).json()
        assert done["status"] == "COMPLETED"
        assert asks.get(f"/status/{done['id']}").json()["output"] == done["output"]

        streamed = runs.post("/run", json={"input": endless}).json()["id"]
        wait_for(partial(streamed_entries, asks, streamed))
        assert asks.post(f"/cancel/{streamed}").json()["status"] == "CANCELLED"
    wait_for(lambda: not clients[0].get("/health").json()["workers"]["running"], lambda: "a cancelled job still runs")


def assert_needs_a_key(client: httpx.Client, method: str, path: str, key: str) -> None:
    """Whatever answers, a route's owner or no route, a client without a key gets no other text."""
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
    assert client.get("/v1/models", headers={"x": "y" * 70_000}).status_code == 431
    long = {"model": MODEL, "prompt": "word " * 100_000, "max_tokens": 1}
    assert_fits_no_context(client, long)


def begun_and_left(served: ServedProcess, *paths: str) -> list[bytes]:
    """How the answers begin to requests whose bodies never end."""
    head = "POST {} HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{{"
    address = ("127.0.0.1", served.port)
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(address, timeout=HANG_S)) for _ in paths]
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
    """The lines that say why the service stopped."""
    return [line for line in served.output().splitlines() if line.startswith("gptoss-bento: stopped")]


@dataclass
class Stream:
    """A request whose answer comes as a stream, and the data of its last event."""

    thread: threading.Thread = field(default_factory=threading.Thread)
    last: str = ""


def start_streams(
    served: ServedProcess | httpx.Client, count: int, max_tokens: int, model: str = MODEL, key: str = "none"
) -> list[Stream]:
    """Returns when each has got its first bytes.

    Args:
        served: a service, which gets a connection for each; a client: its own, kept with one worker.
    """
    started = threading.Barrier(count + 1)
    body = {"model": model, "prompt": "Hello", "max_tokens": max_tokens, "ignore_eos": True, "stream": True}
    asked: dict[str, Any] = {"json": body, "headers": {"Authorization": key}, "timeout": HANG_S}

    def open_stream() -> AbstractContextManager[httpx.Response]:
        if isinstance(served, httpx.Client):
            return served.stream("POST", "/v1/completions", **asked)
        return httpx.stream("POST", f"{served.url}/v1/completions", verify=NO_TLS, **asked)

    def read(stream: Stream) -> None:
        with suppress(httpx.HTTPError), open_stream() as response:
            lines = response.iter_lines()
            next(lines)
            started.wait(HANG_S)
            for line in lines:
                stream.last = line.removeprefix("data: ") or stream.last

    streams = [Stream() for _ in range(count)]
    for stream in streams:
        stream.thread = threading.Thread(target=read, args=(stream,), daemon=True)
        stream.thread.start()
    started.wait(HANG_S)
    return streams


def wait_until_they_end(streams: Sequence[Stream]) -> None:
    for stream in streams:
        stream.thread.join(HANG_S)
        assert not stream.thread.is_alive(), f"a client still waits; its last event: {stream.last[:300]}"


def assert_told_of_the_end(streams: Sequence[Stream]) -> None:
    for stream in streams:
        assert json.loads(stream.last)["error"]["code"] == 503, stream.last


def wait_for_status(served: ServedProcess, status: int, word: str) -> None:
    """Waits until /readyz answers with this code and names this word."""

    def is_told() -> bool:
        readiness = served.readiness()
        return readiness is not None and readiness.status_code == status and word in readiness.text

    wait_for(is_told, lambda: f"/readyz is not {status} with {word!r}")


def wait_for_health_of_a_dead_engine(served: ServedProcess) -> dict[str, Any]:
    told: list[dict[str, Any]] = []

    def is_told() -> bool:
        told[:] = [httpx.get(f"{served.url}/health", verify=NO_TLS, timeout=HANG_S).json()]
        return bool(told[0].get("engine", {}).get("status") == "failed")

    wait_for(is_told, lambda: "/health does not say what the engine died of")
    return told[0]


def wait_for_job(client: httpx.Client, served: ServedProcess, job_id: str, status: str) -> None:
    def now() -> str:
        return str(client.get(f"{served.url}/status/{job_id}").json()["status"])

    wait_for(lambda: now() == status, lambda: f"the job is {now()}, not {status}")


async def stored(folder: Path, job_id: str) -> Status | None:
    """What the store of a service that has ended says of a job."""
    async with open_store(f"sqlite:///{folder / 'jobs.sqlite3'}", Path("unused")) as store:
        job = await store.get(job_id)
        return job.status if job else None
