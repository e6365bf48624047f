"""`generate` in a BentoML service on the fake engine, as BentoML's own client and plain HTTP see it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import bentoml
import httpx
import pytest
import uvicorn
from bentoml.exceptions import BentoMLException, InvalidArgument
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from gptoss_bento.access.authentication import Authentication
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.bench.servers import free_port
from gptoss_bento.config.api_keys import read_keys
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.http.json_body import EnvelopeError
from gptoss_bento.jobs.api.routes import NativeRoutes, answer
from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.input_models import Conversation
from gptoss_bento.jobs.runner import Runner, running_jobs
from gptoss_bento.state.job import Job, Status
from tests.fakes import asgi_client
from tests.server import NO_TLS
from tests.waiting import HANG_S, until, wait_for

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # BentoML's, when it is imported
    from bentoml._internal.server.http.traffic import TimeoutMiddleware

    from gptoss_bento.jobs.api.generate import GenerateApi, GenerateInput, Generation, _failure, read_input

# BentoML's own use of pydantic is not ours to fix.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

KEY = "sk-example"
KEYS = f"caller: {{key: {KEY}, requests_per_minute: 1000000}}"
SHORT = {"max_tokens": 2}
SETTINGS = ServerSettings(max_runsync_body_bytes=20_000)


# what is asked


def test_input_keeps_what_was_set() -> None:
    body = b'{"prompt": "x", "messages": null, "sampling_params": {"max_tokens": 2}}'

    assert read_input(body, SETTINGS) == {"prompt": "x", "sampling_params": SHORT}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", ["prompt or messages is required"]),
        ("{", ["must be a JSON object", "not JSON"]),
        ("[1]", ["must be a JSON object, got [1]"]),
        ('{"prompt": 5}', ["prompt must be a non-empty string, got 5"]),
        ('{"messages": [{"role": "king", "content": "x"}]}', ["messages[0].role must be one of", '"king"']),
        ('{"prompt": "x", "sampling_params": {"n": 0}}', ["n must be an integer of at least 1, got 0"]),
        ('{"prompt": "x", "sampling_params": {"temprature": 0}}', ["temprature", "Did you mean temperature?"]),
        (
            '{"prompt": "x", "promt": 1, "stream": true}',
            ["promt is no field", "mean prompt?", "stream must be left out"],
        ),
        (
            '{"prompt": "", "zzz": 1}',
            ["prompt must be", "zzz is no field of generate, got 1. It takes prompt, messages"],
        ),
        ('{"prompt": "x", "sampling_params": {"top_p": NaN}}', ["NaN is not JSON"]),
    ],
)
def test_input_that_is_wrong_is_named_completely(body: str, words: list[str]) -> None:
    with pytest.raises(EnvelopeError) as refused:
        read_input(body.encode(), SETTINGS)

    for word in words:
        assert word in str(refused.value)


def test_fields_of_templates_are_left_to_the_job_where_other_architectures_are_allowed() -> None:
    body = b'{"messages": [{"role": "user", "content": "x"}], "sampling_params": {"chat_template": "x"}}'

    with pytest.raises(EnvelopeError, match=r"chat_template has no effect: GPT-OSS's prompts"):
        read_input(body, SETTINGS)
    assert read_input(body, SETTINGS.model_copy(update={"allow_other_architectures": True}))


def test_input_of_generate_is_typed_by_the_model_of_native_jobs() -> None:
    own, described = GenerateInput.model_json_schema()["properties"], Conversation.model_json_schema()["properties"]

    assert issubclass(GenerateInput, Conversation)
    assert GenerateInput.model_fields.keys() == Conversation.model_fields.keys()
    assert {name: own[name]["description"] for name in own} == {name: described[name]["description"] for name in own}


def test_objects_of_generate_have_no_properties_that_bentomls_client_would_send_alone() -> None:
    described = json.dumps(GenerateInput.model_json_schema())

    assert "$ref" not in described
    assert described.count('"properties"') == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*GenerateInput.model_fields, "stream", "zzz"]), JSON, max_size=4) | JSON)
def test_json_of_any_kind_is_read_or_refused(value: Any) -> None:
    with suppress(EnvelopeError):
        assert set(read_input(json.dumps(value).encode(), SETTINGS)) <= set(GenerateInput.model_fields)


# what becomes of it

JOB = Job("id-u1", Status.IN_QUEUE, 0, None, None, 9, None, 0, 0, None, 0, 0)


@pytest.mark.parametrize(
    ("job", "status", "text"),
    [
        (None, HTTPStatus.GATEWAY_TIMEOUT, "time to live"),
        (replace(JOB, status=Status.FAILED, error="too long", refused=True), HTTPStatus.BAD_REQUEST, "too long"),
        (replace(JOB, status=Status.FAILED, error="broken"), HTTPStatus.INTERNAL_SERVER_ERROR, "broken"),
        (replace(JOB, status=Status.TIMED_OUT, error="slow"), HTTPStatus.GATEWAY_TIMEOUT, "slow"),
        (replace(JOB, status=Status.CANCELLED), HTTPStatus.CONFLICT, "id-u1 was cancelled"),
        (JOB, HTTPStatus.SERVICE_UNAVAILABLE, "Try again"),
    ],
)
def test_job_without_output_is_an_http_error(job: Job | None, status: HTTPStatus, text: str) -> None:
    failure = _failure(job)

    assert failure.status == status
    assert text in str(failure)


def test_declared_output_is_the_job_object() -> None:
    done = replace(JOB, status=Status.COMPLETED, started_at=1, ended_at=2, worker_id="w", retries=1)

    assert Generation.model_validate_json(done.body(['{"choices":[]}'])).output == [{"choices": []}]


# served


@dataclass
class Served:
    """A BentoML service with `generate` and the job API, on the fake engine."""

    fake: FakeEngine
    url: str
    runners: list[Runner] = field(default_factory=list)

    def http(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.Client(base_url=self.url, headers=headers, verify=NO_TLS, timeout=HANG_S)

    def counts(self) -> dict[str, int]:
        with self.http() as http:
            return dict(http.get("/health").json()["jobs"])


def bento_service(served: Served, file: Path) -> Any:
    """service.py in small: the same base class, mount and middleware."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with running_jobs(SETTINGS, file) as runner:
            runner.attach(served.fake.engine())
            served.runners.append(runner)
            yield
            served.runners.clear()

    def runner() -> Runner | None:
        return served.runners[0] if served.runners else None

    @bentoml.service(name="generate-on-a-fake")
    @bentoml.asgi_app(Starlette(routes=[NativeRoutes(runner)], lifespan=lifespan), path="/")
    class Service(GenerateApi):
        def __init__(self) -> None:
            super().__init__(runner)

    Service.add_asgi_middleware(Authentication, keys=KeyStore(read_keys(KEYS)))  # type: ignore[attr-defined]
    return Service


@contextmanager
def running(service: Any, port: int) -> Iterator[None]:
    server = uvicorn.Server(uvicorn.Config(service.to_asgi(), port=port, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join(HANG_S)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    port = free_port()
    served = Served(FakeEngine(delay_s=0.001), f"http://127.0.0.1:{port}")
    file = tmp_path_factory.mktemp("jobs") / "jobs.sqlite3"
    with running(bento_service(served, file), port):
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[bentoml.SyncHTTPClient]:
    with bentoml.SyncHTTPClient(served.url, token=KEY) as opened:
        yield opened
    opened._temp_dir.cleanup()  # else the garbage collector does, and warns


def test_bentoml_client_generates_from_a_prompt(client: Any) -> None:
    done = client.generate(prompt="one two three", sampling_params=SHORT)

    assert done["status"] == "COMPLETED"
    assert done["output"][0]["choices"][0]["tokens"] == [" one two"]
    assert done["output"][0]["usage"]["output"] == 2
    assert {"id", "delayTime", "executionTime", "workerId"} <= set(done)


def test_bentoml_client_sends_messages_whole(client: Any, served: Served) -> None:
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "a", "name": "b"}]
    done = client.generate(messages=messages, sampling_params={"max_tokens": 30, "reasoning_effort": "low"})

    assert done["output"][0]["choices"][0]["message"]["role"] == "assistant"
    assert served.fake.requests[-1]["messages"] == messages
    assert served.fake.requests[-1]["reasoning_effort"] == "low"


def test_job_of_generate_is_found_like_any_other(client: Any, served: Served) -> None:
    done = client.generate(prompt="one", sampling_params=SHORT)

    with served.http() as http:
        assert http.get(f"/status/{done['id']}").json() == done


def test_bentoml_client_gets_the_errors_of_its_input(client: Any) -> None:
    with pytest.raises(InvalidArgument, match="temprature is not a sampling parameter") as refused:
        client.generate(prompt="one", sampling_params={"temprature": 1})

    assert refused.value.error_code == HTTPStatus.BAD_REQUEST


def test_bentoml_client_gets_the_reason_of_a_refusal(client: Any) -> None:
    with pytest.raises(InvalidArgument, match="max_tokens must leave room for the prompt"):
        client.generate(prompt="one", sampling_params={"max_tokens": 5000})


def test_bentoml_client_gets_the_failure_of_the_engine(client: Any, served: Served) -> None:
    served.fake.break_after = 1
    try:
        with pytest.raises(BentoMLException, match="the engine stumbled") as failed:
            client.generate(prompt="one", sampling_params=SHORT)
    finally:
        served.fake.break_after = None

    assert failed.value.error_code == HTTPStatus.INTERNAL_SERVER_ERROR


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"[" * 10_000, "application/json", 400),
        (b'{"prompt": {}, "sampling_params": []}', "application/json", 400),
        (b'{"prompt": "x", "sampling_params": {"temperature": 1' + b"0" * 400 + b"}}", "application/json", 400),
        (b'{"prompt": "x", "sampling_params": {"\\ud800": 1}}', "application/json", 400),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x", 400),
        (b"--x\r\nbroken", "multipart/form-data", 400),
        (b'"' + b"x" * 30_000 + b'"', "application/json", 413),
        (b'{"prompt": "one", "sampling_params": {"max_tokens": 2}}', "application/x-www-form-urlencoded", 200),
    ],
)
def test_body_of_any_kind_causes_no_server_error(
    served: Served, content: bytes, content_type: str, status: int
) -> None:
    with served.http() as http:
        response = http.post("/generate", content=content, headers={"Content-Type": content_type})

    assert response.status_code == status
    if status != 200:
        assert list(response.json()) == ["error"]


def test_wrong_input_makes_no_job(served: Served) -> None:
    before = served.counts()
    with served.http() as http:
        assert http.post("/generate", json={"prompt": 5}).status_code == 400

    assert served.counts() == before


def test_rate_limit_headers_of_the_key_are_in_the_answer(served: Served) -> None:
    with served.http() as http:
        answered = http.post("/generate", json={"prompt": "one", "sampling_params": SHORT})

    assert answered.status_code == 200
    assert answered.headers["x-ratelimit-limit-requests"] == "1000000"
    assert answered.headers["content-type"] == "application/json"


LONG = {"prompt": "x", "sampling_params": {"max_tokens": 4000}}


@pytest.fixture
def endless(served: Served) -> Iterator[FakeEngine]:
    """No answer that begins now ends by itself."""
    delay_s, served.fake.delay_s = served.fake.delay_s, 10 * HANG_S
    yield served.fake
    served.fake.delay_s = delay_s


async def test_disconnect_ends_the_job(served: Served, endless: FakeEngine) -> None:
    aborted = endless.aborted
    body = authorized(LONG)
    async with httpx.AsyncClient(base_url=served.url, verify=body.pop("verify"), timeout=HANG_S) as http:
        request = asyncio.create_task(http.post("/generate", **body))
        await until(lambda: endless.running)
        request.cancel()
        await asyncio.wait([request])

    await until(lambda: endless.aborted == aborted + 1 and not served.counts()["inProgress"])


@pytest.mark.usefixtures("endless")
def test_job_cancelled_meanwhile_is_a_conflict(served: Served) -> None:
    answers: list[httpx.Response] = []
    waiting = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{served.url}/generate", timeout=HANG_S, **authorized(LONG)))
    )
    earlier = len(served.fake.request_ids)
    waiting.start()
    # Not `inProgress`: a job counts there before the engine has its id, and the last id would be an earlier test's.
    wait_for(lambda: len(served.fake.request_ids) > earlier)
    job_id = served.fake.request_ids[-1]
    with served.http() as http:
        assert http.post(f"/cancel/{job_id}").json()["status"] == "CANCELLED"
    waiting.join(HANG_S)

    assert answers[0].status_code == 409
    assert job_id in answers[0].json()["error"]


def authorized(body: dict[str, Any]) -> dict[str, Any]:
    return {"json": body, "headers": {"Authorization": f"Bearer {KEY}"}, "verify": NO_TLS}


async def test_request_timeout_ends_the_job(tmp_path: Path) -> None:
    fake = FakeEngine(delay_s=10 * HANG_S)
    async with running_jobs(SETTINGS, tmp_path / "jobs.sqlite3") as runner:
        runner.attach(fake.engine())
        api = GenerateApi(lambda: runner)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            response = await answer(Request(scope, receive), api._complete)
            await response(scope, receive, send)

        limit_s = 1
        while not fake.most_running:  # the time can be over before a busy machine has started the job
            async with asgi_client(TimeoutMiddleware(app, limit_s)) as client:
                assert (await client.post("/", json=LONG)).status_code == 504
            limit_s *= 4
        async with asyncio.timeout(HANG_S):
            while fake.running or (await runner.health())["jobs"]["inProgress"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    assert fake.aborted == 1


@pytest.mark.parametrize("path", ["/generate", "/schema.json", "/docs.json"])
def test_key_is_needed(served: Served, path: str) -> None:
    response = httpx.request("POST" if path == "/generate" else "GET", f"{served.url}{path}", verify=NO_TLS)

    assert response.status_code == 401


def test_job_store_that_is_missing_is_a_503(served: Served) -> None:
    kept = served.runners.pop()
    try:
        with served.http() as http:
            response = http.post("/generate", json={"prompt": "x"})
    finally:
        served.runners.append(kept)

    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"


def test_openapi_of_bentoml_describes_it(served: Served) -> None:
    with served.http() as http:
        described = http.get("/docs.json").json()
    operation = described["paths"]["/generate"]["post"]
    asked = operation["requestBody"]["content"]["application/json"]["schema"]
    answered = operation["responses"]["200"]["content"]["application/json"]["schema"]

    assert asked["properties"]["prompt"]["type"] == "string"
    assert asked["properties"]["messages"]["type"] == "array"
    assert {"prompt", "messages", "apply_chat_template", "sampling_params", "model"} == set(asked["properties"])
    assert set(answered["required"]) >= {"id", "status", "output"}
    assert "GenerateInput" in json.dumps(described["components"])
