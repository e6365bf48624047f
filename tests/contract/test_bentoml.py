"""What service.py and the supervisor rely on in BentoML 1.4."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import inspect
import json
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml
import prometheus_client
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from gptoss_bento.http.openai_dispatch import OpenAIApi
from tests.fakes import asgi_client
from tests.server import REPOSITORY

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    from _bentoml_impl.server.mount import PassiveMount  # type: ignore[import-untyped]
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.server.http.instruments import RunnerTrafficMetricsMiddleware
    from bentoml._internal.server.http.traffic import TimeoutMiddleware
    from bentoml.serving import ensure_prometheus_dir

    from gptoss_bento.bento.service_config import keep_metrics_in
    from gptoss_bento.jobs.api.generate import GenerateApi
    from gptoss_bento.server.bentoml_layers import with_our_layers

# Their own warnings at import are not ours to fix.
pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]


def test_installed_bentoml_is_the_one_this_was_written_against() -> None:
    assert importlib.metadata.version("bentoml") == "1.4.39"


def test_service_decorator_and_mounting_are_public() -> None:
    for symbol in ("service", "asgi_app", "use_arguments", "images", "api", "Context", "IODescriptor"):
        assert hasattr(bentoml, symbol)


# BentoML's worker with this service, as far as the server that it makes.
WORKER = """
import json, socket, sys
import uvicorn
from _bentoml_impl.worker.service import main

def shown(layer):
    return getattr(layer.cls, "__name__", "?"), sorted(layer.kwargs)

def run(server, sockets):
    inner = server.config.app._http._app
    print(json.dumps({
        "server": type(server).__name__,
        "connection": server.config.http.__name__,
        "outermost": type(server.config.app).__name__,
        "layers": [shown(layer) for layer in inner.user_middleware],
        "timeouts": [layer.kwargs["timeout"] for layer in inner.user_middleware if "timeout" in layer.kwargs],
        "sockets": len(sockets),
    }))

uvicorn.Server.run = run
fd = socket.socket().detach()
main(["service:GptOss", "--fd", str(fd), "--service-name", "gptoss-bento", "--worker-id", "1"], standalone_mode=False)
"""


@pytest.fixture(scope="module")
def worker() -> dict[str, Any]:
    """What a worker of BentoML's is about to run."""
    environment = {**os.environ, "PROFILE": "demo", "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", WORKER]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_worker_serves_by_our_server(worker: dict[str, Any]) -> None:
    assert worker["server"] == "ApiServer"
    assert worker["connection"] == "BoundedConnection"
    assert worker["outermost"] == "WithWebSockets"
    assert worker["sockets"] == 1


def test_layers_of_ours_replace_bentomls(worker: dict[str, Any]) -> None:
    assert [name for name, _ in worker["layers"]] == [
        "RequestMetrics",
        "OpenTelemetryMiddleware",
        "AccessLogMiddleware",
        "ErrorBoundary",
        "Authentication",
        "Probes",
        "Description",
        "ShutdownGate",
        "OpenAIApi",
        "ContextMiddleware",
    ]
    assert worker["layers"][0][1] == ["namespace", "skip_paths"], "BentoML's options"
    assert worker["timeouts"] == [3600]


def test_number_of_workers_is_that_of_the_decorator() -> None:
    allocator = importlib.import_module("_bentoml_impl.server.allocator").ResourceAllocator()

    @bentoml.service(name="several", workers=3)
    class Service:
        pass

    workers, _ = allocator.get_worker_env(Service, services={"several": {"workers": 3}})
    assert workers == 3


def test_supervisor_is_a_command_called_serve() -> None:
    script = "from bentoml_cli.serve import build_serve_command as build; print('serve' in build().commands)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_input_of_an_api_reads_its_own_request() -> None:
    assert list(inspect.signature(bentoml.IODescriptor.from_http_request).parameters) == ["request", "serde"]


def test_api_comes_before_an_application_mounted_at_the_root() -> None:
    @bentoml.service(name="order")
    @bentoml.asgi_app(Starlette(), path="/")
    class Service(GenerateApi):
        pass

    routes = Service.to_asgi().routes  # type: ignore[attr-defined]
    names = [type(route).__name__ if isinstance(route, PassiveMount) else route.name for route in routes]
    assert names.index("generate") < names.index("PassiveMount") < names.index("openapi-spec")
    assert "/generate" in Service.openapi_spec.asdict()["paths"]  # type: ignore[attr-defined]  # what /docs.json is made of


PIECES = 20


async def _stream(scope: Scope, receive: Receive, send: Send) -> None:
    """A fake of vLLM's application."""
    response = StreamingResponse((f"piece {number};" for number in range(PIECES)), headers={"X-Request-Id": "r-1"})
    await response(scope, receive, send)


@pytest.fixture(scope="module")
def spans() -> InMemorySpanExporter:
    """What BentoML's tracing records, as if an operator had turned it on."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    BentoMLContainer.tracer_provider.set(provider)
    return exporter


@pytest.fixture(scope="module")
def streaming(spans: InMemorySpanExporter) -> Iterator[TestClient]:  # noqa: ARG001  # the provider comes first
    @bentoml.service(name="streaming", traffic={"timeout": 60})
    class Service:
        pass

    Service.add_asgi_middleware(OpenAIApi, engine_app=lambda: _stream)  # type: ignore[attr-defined]
    forget_services()
    with TestClient(with_our_layers(Service.to_asgi())) as client:  # type: ignore[attr-defined]
        yield client
    forget_services()


def forget_services() -> None:
    """Takes back the metrics of a service made before in this process; BentoML registers them for each again."""
    metrics = prometheus_client.REGISTRY._names_to_collectors
    for collector in {it for name, it in metrics.items() if name.startswith("bentoml_service_")}:
        prometheus_client.REGISTRY.unregister(collector)


def test_stream_arrives_whole_with_its_request_id(streaming: TestClient) -> None:
    response = streaming.post("/v1/completions")

    assert response.text == "".join(f"piece {number};" for number in range(PIECES))
    assert response.headers["x-request-id"] == "r-1"


def test_stream_is_counted_once_in_the_metrics(streaming: TestClient) -> None:
    def count(metric: str) -> float:
        samples = [sample for each in prometheus_client.REGISTRY.collect() for sample in each.samples]
        labels = {"endpoint": "/v1/chat/completions", "http_response_code": "200"}
        return sum(
            sample.value for sample in samples if sample.name == metric and labels.items() <= sample.labels.items()
        )

    before = count("bentoml_service_request_total")
    streaming.post("/v1/chat/completions")

    assert count("bentoml_service_request_total") == before + 1
    assert count("bentoml_service_request_duration_seconds_count") == before + 1


def test_thousand_paths_are_few_numbers(streaming: TestClient) -> None:
    def series() -> int:
        return sum(len(each.samples) for each in prometheus_client.REGISTRY.collect())

    counts = []
    for number in range(20):
        for path in (f"/status/{number}-u1", f"/nothing/{number}"):
            assert streaming.get(path).status_code == 404
        counts.append(series())

    assert set(counts) == {counts[0]}
    labels = {sample.labels.get("endpoint") for each in prometheus_client.REGISTRY.collect() for sample in each.samples}
    assert {"/status/{id}", "other"} <= labels


def test_stream_has_its_line_in_the_access_log(streaming: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    access = logging.getLogger("bentoml.access")
    access.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, "bentoml.access"):
            streaming.post("/v1/completions")
    finally:
        access.removeHandler(caplog.handler)

    (line,) = {record.getMessage() for record in caplog.records if record.name == "bentoml.access"}
    assert "path=/v1/completions" in line
    assert "status=200" in line


def test_stream_is_one_trace_without_a_span_for_every_message(
    streaming: TestClient, spans: InMemorySpanExporter
) -> None:
    spans.clear()
    streaming.post("/v1/completions")

    found = spans.get_finished_spans()
    assert len({span.context.trace_id for span in found if span.context}) == 1
    assert [span.name for span in found if span.parent is None] == ["POST /v1/completions"]
    assert 2 <= len([span for span in found if span.name.endswith("send")]) < 5 < PIECES


@pytest.mark.parametrize(
    ("profile", "command", "gpus"),
    [
        ("demo", "build", 0),
        ("gpt-oss-20b", "build", 1),
        ("gpt-oss-120b", "build", 1),
        ("gpt-oss-120b", "deploy", 1),
        ("gpt-oss-120b", "serve", 0),
    ],
)
def test_service_declares_what_the_profile_says_and_no_gpu_count_where_it_serves(
    profile: str, command: str, gpus: int
) -> None:
    script = (
        "import bentoml, click, json; from bentoml._internal.utils.args import set_arguments;"
        f"set_arguments({{'profile': '{profile}'}});"
        f"context = click.Context(click.Command('c'), info_name='{command}'); context.__enter__();"
        "import service; s = service.GptOss;"
        "found = [s.name, s.labels['profile'], s.config['resources'].get('gpu', 0), [e.name for e in s.envs]];"
        "print(json.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f'["gptoss-bento", "{profile}", {gpus}, ["PROFILE"]]'


def test_bento_is_built_without_vllm_and_holds_only_what_serves(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bentoml", "build", "--arg", "profile=demo", "--output", "tag"]
    environment = {"BENTOML_HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    bento = next((tmp_path / "bentos" / "gptoss-bento").glob("*/src")).parent
    files = {path.relative_to(bento / "src").as_posix() for path in (bento / "src").rglob("*") if path.is_file()}
    assert {"service.py", "configs/demo.yaml", "src/gptoss_bento/demo/weights.safetensors.xz"} <= files
    assert {path for path in files if REGISTRATION in path} == REGISTERS, "vLLM finds the plugin by it"
    assert {path.split("/")[0] for path in files} <= {*SERVES, "bentofile.yaml"}
    assert not {path for path in files if "/bench/" in path or path.endswith(("train.py", ".pyc"))}
    locks = {f"requirements/{name}.txt" for name in ("cpu", "cuda", "rocm")}
    assert {path for path in files if path.startswith("requirements/")} == locks
    ours, its = REPOSITORY / "requirements" / "cpu.txt", bento / "env" / "python" / "requirements.txt"
    assert set(pinned(its)) == set(pinned(ours))


def test_metrics_folder_can_be_separate_for_each_service(tmp_path: Path) -> None:
    try:
        keep_metrics_in(tmp_path / "metrics")
        assert ensure_prometheus_dir() == str(tmp_path / "metrics")  # what `bentoml serve` calls
    finally:
        BentoMLContainer.prometheus_multiproc_dir.reset()


def test_bentomls_metrics_still_have_every_path_as_a_label() -> None:
    """Why server/request_metrics.py is there. When this fails, BentoML has fixed it."""
    forget_services()
    app = RunnerTrafficMetricsMiddleware(JSONResponse({}), namespace="bentoml_service")
    client = TestClient(app)
    for number in range(3):
        client.get(f"/status/{number}")
    samples = [sample for each in prometheus_client.REGISTRY.collect() for sample in each.samples]
    forget_services()

    labels = {sample.labels.get("endpoint") for sample in samples}
    assert {f"/status/{number}" for number in range(3)} <= labels


def test_single_worker_counts_in_the_process(tmp_path: Path) -> None:
    """In a separate process: prometheus_client reads the folder's variable once."""
    script = (
        "from gptoss_bento.bento.service_config import keep_metrics_in_process as keep; keep();"
        "from bentoml._internal.configuration.containers import BentoMLContainer as c;"
        "from prometheus_client import values;"
        "print(c.metrics_client.get().multiproc, values.ValueClass._multiprocess)"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"


async def test_bentomls_timeout_still_keeps_a_timer_for_each_request() -> None:
    """Why http/error_boundary.py is there. When this fails, BentoML has fixed it."""
    app = TimeoutMiddleware(JSONResponse({}), timeout=3600)
    loop: Any = asyncio.get_running_loop()
    before = len(loop._scheduled)
    async with asgi_client(app) as client:
        for _ in range(50):
            await client.get("/")
    left = loop._scheduled[before:]
    assert len([handle for handle in left if not handle.cancelled()]) >= 50
    for handle in left:
        handle.cancel()


def pinned(lock: Path) -> Iterator[tuple[str, str]]:
    """Names and versions; BentoML writes the lock in its own hand."""
    for line in lock.read_text().splitlines():
        if match := re.match(r"([\w.-]+)==([^\s;]+)", line):
            yield match[1], match[2]


REGISTRATION = "src/gptoss_bento/engine/vllm_plugin/registration"
REGISTERS = {f"{REGISTRATION}/gptoss_bento_vllm_plugin-1.dist-info/{name}" for name in ("METADATA", "entry_points.txt")}
SERVES = {"service.py", "configs", "src", "requirements", "LICENSE", "README.md"}


def test_dockerfile_fragments_are_at_their_positions() -> None:
    """BentoML puts a command behind RUN as it is, whatever lines it has, and installs before the post commands."""
    text = dockerfile(bentoml.images.Image(base_image="base:1", distro="", lock_python_packages=False))

    lines = [line.rstrip() for line in text.splitlines()]
    order = ["FROM base:1 AS base-container", "ARG BEFORE", "ARG AFTER", "USER bentoml"]
    positions = [lines.index(line) for line in order]
    assert positions == sorted(positions)
    assert re.search(r"^RUN +--mount=type=secret,id=X true$", text, re.MULTILINE)
    assert next(i for i, line in enumerate(lines) if "pip install -r" in line) in range(positions[1], positions[2])
    assert "build-essential" not in text


def dockerfile(image: bentoml.images.Image) -> str:
    from _bentoml_impl.docker import generate_dockerfile  # type: ignore[import-untyped]
    from bentoml._internal.bento.bento import ImageInfo

    image.run("true\nARG BEFORE").python_packages("x").run("--mount=type=secret,id=X true\nARG AFTER")
    info = ImageInfo(base_image=image.base_image, commands=image.commands, post_commands=image.post_commands)
    return str(generate_dockerfile(info, Path(), enable_buildkit=False, envs=[], secret_envs=[]))


def test_keep_alive_is_handed_to_the_worker_only_if_it_was_given() -> None:
    arguments = importlib.import_module("bentoml.serving").construct_timeouts_args

    assert arguments(timeout_keep_alive=None, timeout_graceful_shutdown=None) == []
    assert arguments(timeout_keep_alive=5, timeout_graceful_shutdown=None) == ["--timeout-keep-alive", "5"]
