from __future__ import annotations

import json
from http import HTTPStatus

import pytest

from gptoss_bento.http.errors import RETRY, HttpRefusalError, openai_error, openai_refusal


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
