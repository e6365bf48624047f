from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import pytest

from gptoss_bento.http.errors import RETRY, HttpRefusalError, name_parameter, openai_error, openai_refusal


def test_error_has_the_four_fields_of_openai() -> None:
    response = openai_error(HTTPStatus.BAD_REQUEST, "temperature is too high", param="temperature")

    assert response.status_code == 400
    assert response.media_type == "application/json"
    assert json.loads(bytes(response.body)) == {
        "error": {"message": "temperature is too high", "type": "Bad Request", "param": "temperature", "code": 400}
    }


@pytest.mark.parametrize("status", [HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE])
def test_body_repeats_the_status(status: HTTPStatus) -> None:
    response = openai_error(status, "message")
    error = json.loads(bytes(response.body))["error"]

    assert response.status_code == error["code"] == status.value
    assert error["type"] == status.phrase
    assert error["param"] is None


def test_headers_are_sent_with_the_error() -> None:
    response = openai_error(HTTPStatus.SERVICE_UNAVAILABLE, "message", headers={"Retry-After": "5"})

    assert response.headers["retry-after"] == "5"


# The parameter that an error is about


@pytest.mark.parametrize(
    ("param", "message", "named"),
    [
        ("body.n", "Input should be a valid integer", "n"),
        ("body.messages.0.role", "Field required", "messages.0.role"),
        ("n", "n must be at least 1, got 0.", "n"),
        ("temperature", "n must be at least 1, got 0.", "temperature"),
        (None, "n must be at least 1, got 0.", "n"),
        (None, "max_tokens must be at least 1, got 0.", "max_tokens"),
        (None, "`top_p` must be in (0, 1].", "top_p"),
        (None, "temperature should be at most 2", "temperature"),
        (None, "prompt is too long", "prompt"),
        ("", "n must be at least 1, got 0.", "n"),
        (None, "The model `x` does not exist.", None),
        (None, "This model's maximum context length is 4096 tokens.", None),
        (None, "Too many items: n must be at least 1.", None),
        (None, "Internal server error", None),
        (None, "mustard must", None),
        (None, "", None),
        (None, None, None),
        ("", "", None),
    ],
)
def test_error_names_the_field_as_the_client_wrote_it(
    param: str | None, message: str | None, named: str | None
) -> None:
    error = {"message": message, "type": "Bad Request", "param": param, "code": 400}

    assert name_parameter({"error": error}) == {"error": {**error, "param": named}}


def test_error_without_the_field_gets_it() -> None:
    assert name_parameter({"error": {"message": "n must be 1"}}) == {"error": {"message": "n must be 1", "param": "n"}}


@pytest.mark.parametrize(
    "body",
    [{}, {"detail": "n must be at least 1"}, {"error": "n must be at least 1"}, {"error": None}, {"object": "list"}],
)
def test_bodies_of_other_kinds_stay_unchanged(body: dict[str, Any]) -> None:
    assert name_parameter(body) == body


def test_body_is_not_changed_in_place() -> None:
    body = {"error": {"message": "n must be 1", "param": None}, "id": "r1"}

    assert name_parameter(body) == {"error": {"message": "n must be 1", "param": "n"}, "id": "r1"}
    assert body == {"error": {"message": "n must be 1", "param": None}, "id": "r1"}


def test_refusal_reaches_an_openai_client_with_status_param_and_headers() -> None:
    refusal = HttpRefusalError(HTTPStatus.TOO_MANY_REQUESTS, "Not now.", RETRY, "n")

    response = openai_refusal(refusal)

    assert (response.status_code, response.headers["retry-after"]) == (429, "5")
    assert json.loads(bytes(response.body))["error"] == {
        "message": "Not now.",
        "type": "Too Many Requests",
        "param": "n",
        "code": 429,
    }
