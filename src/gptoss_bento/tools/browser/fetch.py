"""Fetches pages: GET, without cookies and credentials, from public addresses alone, at each redirect again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import httpcore
import httpx

from gptoss_bento.addresses import ForbiddenAddressError, PublicNetwork
from gptoss_bento.tools.browser.decoding import ACCEPTED, Body
from gptoss_bento.tools.browser.domains import DomainRules
from gptoss_bento.tools.browser.failures import BrowserError, shortened
from gptoss_bento.tools.browser.limits import Limits
from gptoss_bento.tools.browser.urls import page_url
from gptoss_bento.tools.wire import BoundedNetwork, end_head

_BYTES_AROUND = 1_000_000  # heads, and what is around the chunks of a body
_REDIRECTS = (301, 302, 303, 307, 308)
_TEXT_TYPES = ("application/json", "application/xml", "application/xhtml+xml", "application/javascript")
_TEXT_SUFFIXES = ("+json", "+xml")
_HEADERS = (
    ("User-Agent", "gptoss-bento"),
    ("Accept", "text/html,application/xhtml+xml,text/plain;q=0.9,*/*;q=0.5"),
    ("Accept-Encoding", ACCEPTED),
    ("Connection", "close"),
)


@dataclass(frozen=True)
class Fetched:
    """A page as it came.

    Attributes:
        url: of the last redirect.
        host: of that URL.
        content_type: without its parameters, in lower case.
        charset: as the header has it; empty if it has none.
        body: unpacked.
    """

    url: str
    host: str
    content_type: str
    charset: str
    body: bytes


class Fetcher:
    """Fetches the pages of a worker.

    Args:
        limits: of size, time and number.
        allow_private: whether addresses that are not public may be reached, as in a closed network.
    """

    def __init__(self, limits: Limits, *, allow_private: bool) -> None:
        self._limits = limits
        bounded = BoundedNetwork(
            PublicNetwork(allow_private=allow_private), limits.page_bytes + _BYTES_AROUND, BrowserError
        )
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            network_backend=cast(httpcore.AsyncNetworkBackend, bounded),
            max_connections=limits.pages,
            max_keepalive_connections=0,
        )

    async def close(self) -> None:
        """Closes its connections."""
        await self._pool.aclose()

    async def get(self, url: str, domains: DomainRules) -> Fetched:
        """Fetches a page.

        Raises:
            BrowserError: it may not be visited, is not there, is no text, is too large or too slow.
        """
        try:
            async with asyncio.timeout(self._limits.fetch_s):
                return await self._follow(page_url(url), domains)
        except TimeoutError:
            raise BrowserError(_failed(url, f"it took longer than {self._limits.fetch_s:g} s")) from None

    async def _follow(self, url: httpx.URL, domains: DomainRules) -> Fetched:
        for _ in range(self._limits.redirects + 1):
            if not domains.allows(url.raw_host.decode()):
                raise BrowserError(f"{url.host} is not among the sites that may be visited.")
            answer = await self._request(url)
            if isinstance(answer, Fetched):
                return answer
            url = page_url(answer)
        raise BrowserError(_failed(str(url), f"more than {self._limits.redirects} redirects"))

    async def _request(self, url: httpx.URL) -> Fetched | str:
        """The page, or the URL that it redirects to."""
        try:
            async with self._pool.stream("GET", _core_url(url), headers=[("Host", url.netloc), *_HEADERS]) as response:
                return await self._read(url, response)
        except BrowserError as error:
            raise BrowserError(_failed(str(url), str(error))) from None
        except (ForbiddenAddressError, httpcore.ConnectError) as error:
            raise BrowserError(_failed(str(url), _unreachable(url, error))) from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError, ValueError) as error:
            raise BrowserError(_failed(str(url), type(error).__name__)) from None

    async def _read(self, url: httpx.URL, response: httpcore.Response) -> Fetched | str:
        end_head(response)
        location = _header(response.headers, b"location")
        if response.status in _REDIRECTS and location:
            return _joined(url, location)
        if response.status != 200:
            raise BrowserError(f"it answered {response.status}")
        content_type, _, parameters = _header(response.headers, b"content-type").lower().partition(";")
        _refuse_other_than_text(content_type.strip())
        body = Body(_header(response.headers, b"content-encoding"), self._limits.page_bytes)
        async for chunk in response.aiter_stream():
            body.add(chunk)
        return Fetched(
            str(url), url.host, content_type.strip() or "text/html", _charset(parameters), bytes(body.content)
        )


def _failed(url: str, problem: str) -> str:
    return f"Error fetching URL `{shortened(url)}`: {problem}"


def _unreachable(url: httpx.URL, error: Exception) -> str:
    """One text for names without an address and for private ones, so that no name within a network can be probed."""
    if isinstance(error, ForbiddenAddressError) or "looked up" in str(error):
        return f"{url.host} has no public address"
    return "its server takes no connection"


def _joined(url: httpx.URL, location: str) -> str:
    try:
        return str(url.join(location))
    except (httpx.InvalidURL, ValueError):
        raise BrowserError("it redirects to something that is not a URL") from None


def _core_url(url: httpx.URL) -> httpcore.URL:
    return httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)


def _header(headers: Sequence[tuple[bytes, bytes]], name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in headers if key.lower() == name), "")


def _charset(parameters: str) -> str:
    _, _, value = parameters.partition("charset=")
    return value.partition(";")[0].strip(" \"'")


def _refuse_other_than_text(content_type: str) -> None:
    is_text = content_type.startswith("text/") or content_type in _TEXT_TYPES or content_type.endswith(_TEXT_SUFFIXES)
    if content_type and not is_text:
        raise BrowserError(f"it is `{shortened(content_type, 80)}`, and only text can be shown")
