"""Error bodies in the shape of the OpenAI API."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

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
