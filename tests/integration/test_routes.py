"""Prefixes, probes and the routes that must not be reachable, on the real server."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.deployment.files import metric_names
from tests.server import MODEL, ServedProcess
from tests.waiting import HANG_S

pytestmark = pytest.mark.engine

PREFIXES = ["", "/openai", "/v2/local/openai", "/v2/any_id-1/openai"]
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}


@pytest.fixture(scope="module")
def http(server: ServedProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=HANG_S) as client:
        yield client


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_give_the_same_answer(http: httpx.Client, prefix: str) -> None:
    answer = http.post(f"{prefix}/v1/chat/completions", json=CHAT)
    reference = http.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 200
    assert answer.json()["choices"] == reference.json()["choices"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_tokenize_and_back(http: httpx.Client, prefix: str) -> None:
    tokens = http.post(f"{prefix}/v1/tokenize", json={"model": MODEL, "prompt": "Hello world"}).json()["tokens"]
    text = http.post(f"{prefix}/v1/detokenize", json={"model": MODEL, "tokens": tokens}).json()["prompt"]
    assert text == "Hello world"


def test_tokenize_is_served_at_the_root_too(http: httpx.Client) -> None:
    assert http.post("/tokenize", json={"model": MODEL, "prompt": "Hello"}).json()["count"] == 1


def test_messages_answers_as_anthropic_does(http: httpx.Client) -> None:
    body = {"model": MODEL, "max_tokens": 200, "messages": CHAT["messages"], "temperature": 0}
    answer = http.post("/v1/messages", json=body).json()
    assert answer["type"] == "message"
    assert "Paris" in "".join(block.get("text", "") for block in answer["content"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/scale_elastic_ep"),
        ("POST", "/is_scaling_elastic_ep"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("POST", "/openai/v1/load_lora_adapter"),
        ("POST", "/invocations"),
        ("POST", "/inference/v1/generate"),
        ("POST", "/abort_requests"),
        ("POST", "/pause"),
        ("POST", "/sleep"),
        ("POST", "/reset_prefix_cache"),
        ("POST", "/collective_rpc"),
        ("POST", "/start_profile"),
        ("GET", "/server_info"),
        ("GET", "/load"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/tokenizer_info"),
        ("POST", "/v1/chat/completions/render"),
        ("GET", "/v1/chat/../../load"),
        ("GET", "/v1/nothing"),
    ],
)
def test_routes_of_vllm_beside_these_are_not_reachable(http: httpx.Client, method: str, path: str) -> None:
    assert http.request(method, path, json={}).status_code == 404


def test_method_that_is_wrong_names_the_right_one(http: httpx.Client) -> None:
    answer = http.get("/v1/chat/completions")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert "POST" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "shape"),
    [
        ("GET", "/generate", 405, str),  # BentoML's and Starlette's own
        ("POST", "/metrics", 405, str),
        ("PUT", "/docs.json", 405, str),
        ("GET", "/static_content/nothing", 404, str),
        ("PUT", "/run", 405, str),
        ("GET", "/v2/local/nothing", 404, str),
        ("GET", "/nothing", 404, str),
        ("PUT", "/v1/models", 405, dict),
        ("GET", "/openai/nothing", 404, dict),
        ("POST", "/v2/local/openai/v1/completions", 400, dict),
        ("POST", "/v1/messages", 400, dict),
    ],
)
def test_errors_have_the_shape_of_their_api(
    http: httpx.Client, method: str, path: str, status: int, shape: type
) -> None:
    answer = http.request(method, path, content=b"{}", headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert isinstance(answer.json()["error"], shape), answer.text
    if path == "/v1/messages":
        assert answer.json()["type"] == "error"
    if status == 405:
        assert answer.headers["allow"]


def test_body_that_is_not_json_is_a_clear_400(http: httpx.Client) -> None:
    answer = http.post("/v1/chat/completions", content=b"{nope", headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_probes_report_alive_and_ready_with_the_phases(http: httpx.Client) -> None:
    assert http.get("/livez").json() == {"status": "alive"}
    assert http.get("/ping").status_code == 200
    ready = http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["status"] == "ready"
    phases = [phase["phase"] for phase in ready.json()["phases"]]
    assert phases == [
        "settings",
        "hardware",
        "artifacts",
        "engine: import",
        "engine: configuration",
        "engine: weights and KV cache",
        "engine: application",
    ]


def test_metrics_hold_those_of_vllm_and_of_bentoml_and_all_that_deployments_ask_for(http: httpx.Client) -> None:
    http.post("/v1/chat/completions", json=CHAT).raise_for_status()
    text = http.get("/metrics").text
    assert "vllm:request_success_total" in text
    assert "bentoml_service_request_total" in text
    assert not {name for name in metric_names() if not re.search(rf"^{name}\b", text, re.MULTILINE)}
    assert 'gptoss_bento_harmony_repairs_total{kind="missing_end"}' in text


def test_plan_in_the_log_names_the_origin_of_every_value(server: ServedProcess) -> None:
    log = server.output()
    assert "--max-model-len" in log
    assert "[default for GPT-OSS]" in log
    assert "[profile]" in log
