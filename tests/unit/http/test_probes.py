from __future__ import annotations

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from gptoss_bento.errors import EngineStartError
from gptoss_bento.http.probes import Probes
from gptoss_bento.workers.readiness import Readiness
from tests.fakes import FakeEngineApp, asgi_client


def starting() -> Readiness:
    startup = Readiness()
    with startup.timed("settings"):
        pass
    return startup


def ready() -> Readiness:
    startup = starting()
    startup.ready()
    return startup


def stopping() -> Readiness:
    startup = ready()
    startup.stop()
    return startup


def silent() -> Readiness:
    startup = ready()
    startup.stalled(20.0)
    return startup


def failed() -> Readiness:
    startup = starting()
    startup.fail(EngineStartError("vLLM did not start"))
    return startup


async def get(path: str, startup: Readiness) -> httpx.Response:
    async with asgi_client(Probes(FakeEngineApp(), startup)) as client:
        return await client.get(path)


@pytest.mark.parametrize("startup", [starting(), ready(), stopping(), failed()], ids=lambda it: it.state.value)
async def test_process_that_runs_is_alive(startup: Readiness) -> None:
    response = await get("/livez", startup)

    assert (response.status_code, response.json()) == (200, {"status": "alive"})


async def test_worker_is_ready_when_the_engine_answers() -> None:
    response = await get("/readyz", ready())

    assert response.status_code == 200
    assert response.json()["status"] == "ready"
    assert "retry-after" not in response.headers


@pytest.mark.parametrize("startup", [starting(), stopping(), failed()], ids=lambda it: it.state.value)
async def test_worker_that_cannot_answer_is_not_ready_and_reports_its_phase(startup: Readiness) -> None:
    response = await get("/readyz", startup)

    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert response.json()["status"] == startup.state.value
    assert [phase["phase"] for phase in response.json()["phases"]] == ["settings"]


async def test_worker_whose_engine_does_not_answer_is_not_ready() -> None:
    response = await get("/readyz", silent())

    assert response.status_code == 503
    assert response.json()["engine_silent_seconds"] == 20.0


async def test_readiness_names_the_cause_of_a_failure() -> None:
    response = await get("/readyz", failed())

    assert response.json()["cause"] == "vLLM did not start"


@pytest.mark.parametrize(
    ("startup", "status"),
    [(starting(), 204), (ready(), 200), (stopping(), 503), (failed(), 503), (silent(), 503)],
    ids=lambda it: it.state.value if isinstance(it, Readiness) else None,
)
async def test_ping_answers_as_runpods_load_balancer_expects(startup: Readiness, status: int) -> None:
    response = await get("/ping", startup)

    assert (response.status_code, response.content) == (status, b"")
    assert response.headers.get("retry-after") == ("5" if status == 503 else None)


@pytest.mark.parametrize("path", ["/", "/livez/", "/v1/models", "/ready"])
async def test_paths_of_others_go_to_the_application(path: str) -> None:
    response = await get(path, starting())

    assert response.json()["path"] == path


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_messages_that_are_not_http_go_to_the_application(kind: str) -> None:
    seen: list[str] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: object) -> dict[str, str]:
        return {}

    await Probes(app, starting())({"type": kind, "path": "/livez"}, nothing, nothing)  # type: ignore[arg-type]

    assert seen == [kind]
