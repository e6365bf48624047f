"""The search services that an operator may bring, each one request: how it is asked, and how it answers. Pure.

From their documentation, as of 2026-11-30: Exa (POST /search), You.com (POST /v1/search), Brave (Web Search API),
Tavily (POST /search), SearXNG (search API, with `json` among its `formats`).
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gptoss_bento.tools.browser.failures import shortened

_SNIPPET_CHARS = 500
_TITLE_CHARS = 200
_MOST_SITES = 10  # in a query: engines read 30 to 50 words
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,100}>")


@dataclass(frozen=True)
class Query:
    """What to search for.

    Attributes:
        text: the model's words.
        count: the most results.
        allowed: domains to search in; all if there is none.
        blocked: domains to leave out.
    """

    text: str
    count: int
    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """A request to a search service, below its base URL."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Result:
    """One result of a search."""

    title: str
    url: str
    text: str


@dataclass(frozen=True)
class Backend:
    """A search service.

    Attributes:
        name: in SEARCH_BACKEND.
        url: where it is; None where each operator has an own one.
        needs_key: whether it answers only with a key.
        asked: the request for a query, with a key.
        results: reads its answer. KeyError, TypeError and AttributeError mean that it is of another shape.
    """

    name: str
    url: str | None
    needs_key: bool
    asked: Callable[[Query, str], Asked]
    results: Callable[[Any], Iterable[Result]]


def _exa(query: Query, key: str) -> Asked:
    body = {"query": query.text, "numResults": query.count, "contents": {"text": {"maxCharacters": _SNIPPET_CHARS}}}
    body |= _listed(query, "includeDomains", "excludeDomains")
    return Asked("POST", "/search", {"x-api-key": key}, json=body)


def _exa_results(answer: Any) -> Iterable[Result]:
    return [_result(each, each.get("text") or each.get("summary")) for each in answer["results"]]


def _you(query: Query, key: str) -> Asked:
    body = {"query": query.text, "count": query.count} | _listed(query, "include_domains", "exclude_domains")
    return Asked("POST", "/v1/search", {"X-API-Key": key}, json=body)


def _you_results(answer: Any) -> Iterable[Result]:
    found = answer["results"]
    return [
        _result(each, " ".join(each.get("snippets") or []) or each.get("description"))
        for each in [*(found.get("web") or []), *(found.get("news") or [])]
    ]


def _brave(query: Query, key: str) -> Asked:
    params = {"q": _with_sites(query), "count": str(query.count)}
    return Asked("GET", "/res/v1/web/search", {"X-Subscription-Token": key}, params)


def _brave_results(answer: Any) -> Iterable[Result]:
    found = (answer.get("web") or {}).get("results") or []
    return [
        _result(each, " ".join([each.get("description") or "", *(each.get("extra_snippets") or [])])) for each in found
    ]


def _tavily(query: Query, key: str) -> Asked:
    body = {"query": query.text, "max_results": query.count} | _listed(query, "include_domains", "exclude_domains")
    return Asked("POST", "/search", {"Authorization": f"Bearer {key}"}, json=body)


def _content_results(answer: Any) -> Iterable[Result]:
    return [_result(each, each.get("content")) for each in answer["results"]]


def _searxng(query: Query, key: str) -> Asked:
    headers = {"Authorization": f"Bearer {key}"} if key else {}  # of a proxy before it; it has no keys itself
    return Asked("GET", "/search", headers, {"q": _with_sites(query), "format": "json"})


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("exa", "https://api.exa.ai", needs_key=True, asked=_exa, results=_exa_results),
        Backend("you", "https://ydc-index.io", needs_key=True, asked=_you, results=_you_results),
        Backend("brave", "https://api.search.brave.com", needs_key=True, asked=_brave, results=_brave_results),
        Backend("tavily", "https://api.tavily.com", needs_key=True, asked=_tavily, results=_content_results),
        Backend("searxng", None, needs_key=False, asked=_searxng, results=_content_results),
    )
}


def _listed(query: Query, allowed: str, blocked: str) -> dict[str, list[str]]:
    """Lists of domains under the service's names for them."""
    lists = {allowed: list(query.allowed), blocked: list(query.blocked)}
    return {name: domains for name, domains in lists.items() if domains}


def _with_sites(query: Query) -> str:
    """A query with its domains as operators, for services without lists. What they return is checked in any case."""
    sites = " OR ".join(f"site:{domain}" for domain in query.allowed[:_MOST_SITES])
    return " ".join(part for part in (query.text, f"({sites})" if " OR " in sites else sites) if part)


def _result(found: Mapping[str, Any], text: Any) -> Result:
    url = found["url"]
    if not isinstance(url, str):
        raise TypeError
    return Result(_words(found.get("title"), _TITLE_CHARS) or url, url, _words(text, _SNIPPET_CHARS))


def _words(text: Any, length: int) -> str:
    """Text without the tags with which some services mark what matches."""
    return shortened(html.unescape(_TAG.sub("", str(text or "")[: 4 * length])), length)
