"""Results of a search, and matches in a page, as documents. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlsplit

from gptoss_bento.tools.browser.backends import Result
from gptoss_bento.tools.browser.document import Document
from gptoss_bento.tools.browser.failures import shortened
from gptoss_bento.tools.browser.lines import wrapped
from gptoss_bento.tools.browser.marks import link_mark, plain, without_marks

_MOST_MATCHES = 50
_LINES_A_MATCH = 4
_TITLE_CHARS = 200


def results_document(query: str, results: Sequence[Result]) -> Document:
    """The page that a search shows: each result a link, by which the model opens it."""
    items = [f"  * {_link(index, result)} {plain(result.text)}".rstrip() for index, result in enumerate(results)]
    text = "\n".join(["", "URL: ", "# Search Results", "", *(items or ["No results."])])
    links = {index: result.url for index, result in enumerate(results)}
    titles = {index: result.title for index, result in enumerate(results)}
    title = plain(shortened(query, _TITLE_CHARS))
    return Document("", title, tuple(wrapped(text)), links, "results", link_titles=titles)


def _link(index: int, result: Result) -> str:
    return link_mark(index, plain(result.title), plain(urlsplit(result.url).netloc))


def matches_document(pattern: str, page: Document) -> Document:
    """The page that a find shows: lines from each match on, with a link to their place."""
    lines = without_marks("\n".join(page.lines)).split("\n")
    places = _matches(pattern.lower(), lines)
    shown = plain(shortened(pattern))
    parts = [
        "\n".join((_heading(number, line), *lines[line : line + _LINES_A_MATCH])) for number, line in places.items()
    ]
    text = "\n\n".join(parts) or f"No `find` results for pattern: `{shown}`"
    return Document(
        f"{page.url}/find?pattern={quote(shown)}",
        f"Find results for text: `{shown}` in `{page.title}`",
        tuple(wrapped(text)),
        dict.fromkeys(places, page.url),
        "matches",
        places,
        page.url,
    )


def _heading(number: int, line: int) -> str:
    return f"# 【{number}†match at L{line}】"


def _matches(pattern: str, lines: Sequence[str]) -> Mapping[int, int]:
    """The line of each match by its number. Lines that an earlier match shows are not searched again."""
    found: dict[int, int] = {}
    line = 0
    while line < len(lines) and len(found) < _MOST_MATCHES:
        if pattern in lines[line].lower():
            found[len(found)] = line
            line += _LINES_A_MATCH
        else:
            line += 1
    return found


def result_of_line(document: Document, line: int) -> int | None:
    """The number of the result that a line of a search's page is about."""
    number: int | None = None
    for text in document.lines[: line + 1]:
        start = text.partition("  * 【")
        if start[1] and not start[0]:
            number = int(start[2].partition("†")[0])
    return number
