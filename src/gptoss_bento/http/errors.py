"""Error bodies in the shape of the OpenAI API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse


def openai_error(
    status: HTTPStatus,
    message: str,
    *,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """An error as OpenAI's SDKs parse it; vLLM's own errors have the same fields."""
    error = {"message": message, "type": status.phrase, "param": param, "code": status.value}
    return JSONResponse({"error": error}, status_code=status, headers=headers)


def not_found(request: Request, _: Exception) -> JSONResponse:
    """A path that nothing serves: the plain body of the job API."""
    return JSONResponse({"error": f"There is no route {request.url.path}."}, HTTPStatus.NOT_FOUND)


# "n must be at least 1, got 0." and the like
_SUBJECT = re.compile(r"`?([a-z][a-z0-9_]*)`? (?:must|should|is|can|may|has) ")


def name_parameter(body: dict[str, Any]) -> dict[str, Any]:
    """An OpenAI error whose `param` is the field as the client wrote it; vLLM writes `body.n`, or only in the text."""
    error = body.get("error")
    if not isinstance(error, dict):
        return body
    subject = _SUBJECT.match(str(error.get("message", "")))
    param = error.get("param") or (subject[1] if subject else None)
    return {**body, "error": {**error, "param": param.removeprefix("body.") if param else None}}
