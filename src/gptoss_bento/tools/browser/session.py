"""The browser as the model calls it: search, open, find, with the pages that it has seen, by their cursors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from gptoss_bento.tools.browser.backends import Query
from gptoss_bento.tools.browser.document import Document, display
from gptoss_bento.tools.browser.domains import DomainRule, DomainRules
from gptoss_bento.tools.browser.extraction import Extraction
from gptoss_bento.tools.browser.failures import BrowserError, shortened
from gptoss_bento.tools.browser.fetch import Fetcher
from gptoss_bento.tools.browser.limits import Limits
from gptoss_bento.tools.browser.lines import end_of_view
from gptoss_bento.tools.browser.results import matches_document, result_of_line, results_document
from gptoss_bento.tools.browser.search import Searcher
from gptoss_bento.tools.browser.urls import page_url

_LINES_BEFORE_A_MATCH = 4
_LONGEST_QUERY = 2000  # characters
_FUNCTIONS = ("search", "open", "find")


@dataclass(frozen=True)
class Page:
    """What a call of the model gives.

    Attributes:
        text: what the model reads.
        failed: whether that says what went wrong.
        action: `web_search_call.action` of OpenAI's Responses, with the sources of a search.
    """

    text: str
    failed: bool
    action: Mapping[str, Any]


@dataclass(frozen=True)
class Cited:
    """What a mark of the model's text, like 【3†L1-L4】, refers to."""

    url: str
    title: str


class Browser:
    """The browser of a worker.

    Args:
        searcher: the operator's backend; None where there is none, and pages can be opened alone.
        limits: of time, size and number.
        rule: the operator's domains.
        allow_private: whether pages at addresses that are not public may be opened.
        may_open: whether pages may be opened at all; without, the model has the results of searches alone.
    """

    def __init__(
        self,
        searcher: Searcher | None,
        *,
        limits: Limits | None = None,
        rule: DomainRule | None = None,
        allow_private: bool = False,
        may_open: bool = True,
    ) -> None:
        self.limits = limits or Limits()
        self.rule = rule or DomainRule()
        self.searcher = searcher
        self._may_open = may_open
        self._fetcher = Fetcher(self.limits, allow_private=allow_private)
        self._extraction = Extraction(self.limits)
        self._pages = asyncio.Semaphore(self.limits.pages)

    @property
    def missing(self) -> frozenset[str]:
        """The functions that cannot be used here: the model does not read of them. `open` always scrolls a result."""
        return frozenset({"search"} if self.searcher is None else ())

    async def close(self) -> None:
        """Closes its connections."""
        await self._fetcher.close()
        if self.searcher:
            await self.searcher.close()

    def session(self, allowed_domains: Iterable[str] = (), blocked_domains: Iterable[str] = ()) -> BrowserSession:
        """A session for one response.

        Args:
            allowed_domains: of the request (`filters.allowed_domains`): those alone, if there are any.
            blocked_domains: of the request: none of those.
        """
        return BrowserSession(self, DomainRules((self.rule, DomainRule.of(allowed_domains, blocked_domains))))

    async def page(self, url: str, domains: DomainRules, *, as_source: bool) -> Document:
        """Fetches and reads a page.

        Raises:
            BrowserError: it cannot be had.
        """
        if not self._may_open:
            raise BrowserError("Pages cannot be opened here.")
        async with self._pages:
            return await self._extraction.document(await self._fetcher.get(url, domains), as_source=as_source)


class BrowserSession:
    """What the model has seen in one response. Its calls follow one another; a call that fails adds no cursor."""

    def __init__(self, browser: Browser, domains: DomainRules) -> None:
        self._browser = browser
        self._domains = domains
        self._limits = browser.limits
        self._documents: list[Document] = []

    async def call(self, function: str, arguments: Mapping[str, Any]) -> Page:
        """A call as the model wrote it. Arguments that a function does not have are ignored."""
        if function == "search":
            return await self.search(arguments.get("query"), arguments.get("topn", 10))
        if function == "open":
            names = ("id", "cursor", "loc", "num_lines", "view_source")
            return await self.open(**{name: arguments[name] for name in names if arguments.get(name) is not None})
        if function == "find":
            return await self.find(arguments.get("pattern"), arguments.get("cursor", -1))
        return Page(f"Unknown function: `{shortened(function, 40)}`. There are: {', '.join(_FUNCTIONS)}.", True, {})

    async def search(self, query: Any, topn: Any = 10, source: Any = None) -> Page:
        """Searches with the operator's backend.

        Args:
            query: the model's words.
            topn: how many results, at most Limits.results.
            source: has no effect; there is one source.
        """
        del source
        action: dict[str, Any] = {"type": "search", "query": str(query or ""), "queries": [str(query or "")]}
        return await self._shown(action, lambda: self._search(query, topn, action))

    async def open(
        self,
        id: Any = -1,  # noqa: A002  # the model's name
        cursor: Any = -1,
        loc: Any = -1,
        num_lines: Any = -1,
        view_source: Any = False,
        source: Any = None,
    ) -> Page:
        """Opens a link by its number, a URL, or another part of a page that was opened.

        Args:
            id: the number of a link on the page at `cursor`, or a URL; -1 for that page itself.
            cursor: of an earlier page; -1 for the latest.
            loc: the first line; -1 for the beginning, or for the place of the match whose link it is.
            num_lines: how many lines; -1 for as many as a view has.
            view_source: whether to show the HTML itself.
            source: has no effect; URLs are those of the web.
        """
        del source
        action: dict[str, Any] = {"type": "open_page", "url": id if isinstance(id, str) else None}
        return await self._shown(action, lambda: self._open(id, cursor, loc, num_lines, bool(view_source), action))

    async def find(self, pattern: Any, cursor: Any = -1) -> Page:
        """Finds the lines of a page that have a text, whatever its case.

        Args:
            pattern: the text, as it is.
            cursor: of the page; -1 for the latest.
        """
        action: dict[str, Any] = {"type": "find_in_page", "pattern": str(pattern or ""), "url": ""}
        return await self._shown(action, lambda: self._find(pattern, cursor, action))

    def citation(self, cursor: int, line: int | None = None) -> Cited | None:
        """What a mark of the model refers to.

        Args:
            cursor: the number before the dagger.
            line: the first line of the mark. On the page of a search, it says which result is cited.
        """
        if not 0 <= cursor < len(self._documents):
            return None
        document = self._documents[cursor]
        if document.kind != "results":
            page = self._seen(document.source_url, as_source=False) or document
            return Cited(page.url, page.title)
        number = result_of_line(document, line) if line is not None else None
        return None if number is None else Cited(document.links[number], document.link_titles[number])

    async def _shown(self, action: dict[str, Any], work: Callable[[], Awaitable[_View]]) -> Page:
        """Does the work of a call, and shows the model what came of it."""
        try:
            if len(self._documents) >= self._limits.cursors:
                raise BrowserError(f"This session has {self._limits.cursors} pages, and can open no more.")
            view = await work()
            first, last = self._lines_of(view)
        except BrowserError as error:
            return Page(str(error), True, action)
        self._documents.append(view.document)
        return Page(display(view.document, len(self._documents) - 1, first, last), False, action)

    def _lines_of(self, view: _View) -> tuple[int, int]:
        lines = view.document.lines
        first = max(view.first, 0)
        if first >= len(lines):
            most = len(lines) - 1
            raise BrowserError(f"Invalid location parameter: `{first}`. Cannot exceed page maximum of {most}.")
        chars = self._limits.longest_view_chars if view.num_lines > 0 else self._limits.view_chars
        return first, end_of_view(lines, first, chars, view.num_lines)

    async def _search(self, query: Any, topn: Any, action: dict[str, Any]) -> _View:
        searcher = self._browser.searcher
        if searcher is None:
            raise BrowserError("There is no search here. Pages can be opened by their URL.")
        if not isinstance(query, str) or not query.strip():
            raise BrowserError("`query` must be a text.")
        count = min(max(_number("topn", topn), 1), self._limits.results)
        asked = Query(query[:_LONGEST_QUERY], count, self._domains.allowed, self._domains.blocked)
        results = [result for result in await searcher.results(asked) if self._may_visit(result.url)]
        action["sources"] = [{"type": "url", "url": result.url} for result in results]
        return _View(results_document(query, results))

    def _may_visit(self, url: str) -> bool:
        try:
            return self._domains.allows(page_url(url).raw_host.decode())
        except BrowserError:
            return False

    async def _open(
        self, link: Any, cursor: Any, loc: Any, num_lines: Any, as_source: bool, action: dict[str, Any]
    ) -> _View:
        first, count = _number("loc", loc), _number("num_lines", num_lines)
        if isinstance(link, str) and not link.strip().lstrip("-").isdigit():
            action["url"] = link
            return _View(await self._browser.page(link, self._domains, as_source=as_source), first, count)
        current = self._document(cursor)
        number = _number("id", link)
        if number < 0 and not as_source:
            action["url"] = current.url
            return _View(current, first, count)
        url = action["url"] = self._target(current, number)
        if number in current.places and first < 0:
            first = _before_match(current.places[number])
        return _View(self._seen(url, as_source=as_source) or await self._fetched(url, as_source), first, count)

    def _target(self, current: Document, number: int) -> str:
        if number < 0:
            return current.source_url or current.url
        if number not in current.links:
            raise BrowserError(f"Invalid link id `{number}`.")
        return current.links[number]

    def _seen(self, url: str, *, as_source: bool) -> Document | None:
        """A page of this session, which is opened by a link again."""
        if as_source:
            return None
        pages = (
            document for document in reversed(self._documents) if document.kind == "page" and not document.is_source
        )
        return next((page for page in pages if page.url == url), None)

    async def _fetched(self, url: str, as_source: bool) -> Document:
        return await self._browser.page(url, self._domains, as_source=as_source)

    async def _find(self, pattern: Any, cursor: Any, action: dict[str, Any]) -> _View:
        page = self._document(cursor)
        action["url"] = page.source_url or page.url
        if page.kind != "page":
            raise BrowserError("Cannot run `find` on search results page or find results page")
        if not isinstance(pattern, str) or not pattern:
            raise BrowserError("`pattern` must be a text.")
        return _View(matches_document(pattern, page))

    def _document(self, cursor: Any) -> Document:
        number = _number("cursor", cursor)
        if not self._documents:
            raise BrowserError("No pages to access!")
        if not -1 <= number < len(self._documents):
            available = f"[0 - {len(self._documents) - 1}]"
            raise BrowserError(f"Cursor `{number}` is out of range. Available cursor indices: {available}.")
        return self._documents[number]


@dataclass(frozen=True)
class _View:
    """A document, and the part of it that the model wants to see."""

    document: Document
    first: int = -1
    num_lines: int = -1


def _before_match(line: int) -> int:
    return line - _LINES_BEFORE_A_MATCH if line > _LINES_BEFORE_A_MATCH else line


def _number(name: str, value: Any) -> int:
    """An argument as a whole number, also where the model wrote it as a text or with a decimal point."""
    try:
        if isinstance(value, bool):
            raise ValueError
        return int(float(value))
    except (TypeError, ValueError, OverflowError):
        raise BrowserError(f"`{name}` should be an integer, not `{shortened(str(value), 40)}`.") from None
