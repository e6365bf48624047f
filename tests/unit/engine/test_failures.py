from __future__ import annotations

import json
from collections.abc import AsyncIterator
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from gptoss_bento.engine.failures import (
    ABORTED,
    ENGINE_DIED,
    AbortedGenerationError,
    engine_failure,
    explanation,
)
from gptoss_bento.engine.replacements import report_stream_failures
from gptoss_bento.http.errors import BrokenStreamError


# As vLLM has them, by name.
class VLLMServerError(Exception): ...


class EngineDeadError(VLLMServerError): ...


class EngineGenerateError(VLLMServerError): ...


class GracefulHTTPError(Exception):
    http_status = HTTPStatus.SERVICE_UNAVAILABLE


class GenerationError(VLLMServerError):
    status_code = HTTPStatus.INTERNAL_SERVER_ERROR


class Serving:
    """As much of a request handler of vLLM as is changed."""

    def create_streaming_error_response(self, message: str | Exception, **_: Any) -> str:
        return json.dumps({"error": {"message": str(message), "code": 400}})

    def _raise_if_error(self, finish_reason: str | None, request_id: str) -> None:
        if finish_reason == "error":
            raise GenerationError(request_id)

    def create_error_response(self, message: str, err_type: str, status_code: HTTPStatus) -> tuple[str, str, int]:
        return message, err_type, status_code

    async def create_messages(self, error: Exception | None) -> str:
        if error:
            raise error
        return "an answer"

    async def responses_stream_generator(self, error: Exception | None) -> AsyncIterator[int]:
        yield 1
        if error:
            raise error


@pytest.fixture
def serving() -> Any:
    serving = Serving()
    report_stream_failures(SimpleNamespace(openai_serving_chat=serving, openai_serving_responses=None))
    return serving


@pytest.fixture
def responses() -> Any:
    serving = Serving()
    report_stream_failures(SimpleNamespace(openai_serving_responses=serving))
    return serving


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (EngineDeadError("see stack trace (above)"), 503, ENGINE_DIED),
        (AbortedGenerationError(), 503, ABORTED),
        (GracefulHTTPError("The server stops."), 503, "The server stops."),
        (GenerationError("Internal server error"), 500, "Internal server error"),
        (EngineGenerateError(), 500, "The engine failed to answer this request."),
    ],
)
def test_failures_have_a_status_and_a_sentence(error: Exception, status: int, message: str) -> None:
    assert explanation(error) == (status, message)


async def test_failure_before_an_answer_has_the_shape_of_its_api() -> None:
    request = Request({"type": "http", "path": "/v1/chat/completions", "headers": [], "server": ("x", 80)})
    response = await engine_failure(request, EngineDeadError())

    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert json.loads(bytes(response.body))["error"]["message"] == ENGINE_DIED


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [(EngineDeadError(), 503, ENGINE_DIED), (ValueError("bad"), 400, "bad"), ("a text", 400, "a text")],
)
def test_stream_that_failed_breaks_instead_of_saying_done(
    serving: Any, error: Exception | str, status: int, message: str
) -> None:
    with pytest.raises(BrokenStreamError, match=message[:20]) as raised:
        serving.create_streaming_error_response(error)

    assert raised.value.status == status


def test_aborted_generation_is_no_success(serving: Any) -> None:
    with pytest.raises(AbortedGenerationError):
        serving._raise_if_error("abort", "id")
    with pytest.raises(GenerationError):
        serving._raise_if_error("error", "id")
    for fine in (None, "stop", "length"):
        serving._raise_if_error(fine, "id")


async def test_events_of_a_response_end_in_an_error_of_any_kind(responses: Any) -> None:
    events = responses.responses_stream_generator(EngineDeadError())
    assert await anext(events) == 1
    with pytest.raises(BrokenStreamError):
        await anext(events)


async def test_failure_of_the_engine_reaches_anthropic_messages_too() -> None:
    serving: Any = Serving()
    report_stream_failures(SimpleNamespace(anthropic_serving_messages=serving))

    assert await serving.create_messages(None) == "an answer"
    assert await serving.create_messages(EngineDeadError()) == (ENGINE_DIED, "Service Unavailable", 503)
    with pytest.raises(ValueError, match="bad"):
        await serving.create_messages(ValueError("bad"))


async def test_events_of_a_response_that_goes_well_stay(responses: Any) -> None:
    assert [event async for event in responses.responses_stream_generator(None)] == [1]
