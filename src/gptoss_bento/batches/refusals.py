"""What the routes of this package answer where they cannot do what is asked."""

from __future__ import annotations

from collections.abc import Awaitable
from http import HTTPStatus

from starlette.responses import Response

from gptoss_bento.http.errors import RETRY, HttpRefusalError, openai_refusal
from gptoss_bento.state.database import StoreUnavailableError


async def answered(answer: Awaitable[Response]) -> Response:
    """The answer, or the refusal in its place."""
    try:
        return await answer
    except HttpRefusalError as error:
        return openai_refusal(error)
    except StoreUnavailableError as error:
        return openai_refusal(HttpRefusalError(HTTPStatus.SERVICE_UNAVAILABLE, f"{error} Try again.", RETRY))
