"""Searches with the operator's backend: one request, without redirects, which would carry the key elsewhere."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any

import httpx

from gptoss_bento.tools.browser.backends import Asked, Backend, Query, Result
from gptoss_bento.tools.browser.decoding import ACCEPTED, Body
from gptoss_bento.tools.browser.failures import BrowserError
from gptoss_bento.tools.browser.limits import Limits

logger = logging.getLogger(__name__)

_HEADERS = {"Accept": "application/json", "Accept-Encoding": ACCEPTED, "User-Agent": "gptoss-bento"}


def _without_query(record: logging.LogRecord) -> bool:
    """httpx logs the URL of each request; with some backends the query is in it, which is a part of a conversation."""
    if isinstance(record.args, tuple):
        record.args = tuple(part.copy_with(query=None) if isinstance(part, httpx.URL) else part for part in record.args)
    return True


class Searcher:
    """Asks a search service for a worker's sessions.

    Args:
        backend: the service.
        key: of the operator; empty for a service that needs none.
        url: another base URL than the service's own.
        limits: of time and size.

    Raises:
        ValueError: the URL or the key is missing.
    """

    def __init__(self, backend: Backend, *, key: str = "", url: str | None = None, limits: Limits) -> None:
        base = url or backend.url
        if base is None:
            raise ValueError(f"the search backend {backend.name} needs a URL")
        if backend.needs_key and not key:
            raise ValueError(f"the search backend {backend.name} needs a key")
        self._backend = backend
        self._key = key
        self._url = base.rstrip("/")
        self._limits = limits
        logging.getLogger("httpx").addFilter(_without_query)
        self._client = httpx.AsyncClient(timeout=limits.search_s, headers=_HEADERS)

    @property
    def name(self) -> str:
        """The service's name."""
        return self._backend.name

    async def close(self) -> None:
        """Closes its connections."""
        await self._client.aclose()

    async def results(self, query: Query) -> Sequence[Result]:
        """Searches once.

        Raises:
            BrowserError: the service is away, refuses, or answers with something else. The reason is in the log, for
                the operator; the model can only try again or do without.
        """
        try:
            async with asyncio.timeout(self._limits.search_s):
                answer = await self._answer(self._backend.asked(query, self._key))
            return [result for result in self._backend.results(answer) if result.url][: query.count]
        except TimeoutError:
            raise self._failed(f"no answer within {self._limits.search_s:g} s") from None
        except httpx.HTTPError as error:
            raise self._failed(type(error).__name__) from None
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
            raise self._failed("an answer that is not of its documented shape") from None

    async def _answer(self, asked: Asked) -> Any:
        async with self._client.stream(
            asked.method, self._url + asked.path, headers=asked.headers, params=asked.params, json=asked.json
        ) as response:
            if response.status_code != 200:
                raise self._failed(f"status {response.status_code}")
            return json.loads(await self._body(response))

    async def _body(self, response: httpx.Response) -> bytes:
        try:
            body = Body(response.headers.get("content-encoding", ""), self._limits.search_bytes)
            async for chunk in response.aiter_raw():
                body.add(chunk)
        except BrowserError as error:
            raise self._failed(str(error)) from None
        return bytes(body.content)

    def _failed(self, reason: str) -> BrowserError:
        logger.warning("search backend %s: %s", self._backend.name, reason)
        return BrowserError("Error during search: the search service is not available.")
