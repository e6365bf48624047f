"""A fake of the five search backends, and of the web that they find: corpus.yaml on a local port.

`python -m gptoss_bento.tools.browser.fake_search` serves it until it is interrupted. SEARCH_URL is its address with the
name of the backend, as in http://127.0.0.1:8765/exa; TOOLS_PRIVATE_ADDRESSES lets the browser open its pages.
"""

from __future__ import annotations

import html
import json
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

WRONG_KEY = "wrong-key"
"""A key that every backend but SearXNG answers with 401, as it does without one."""
_WORD = re.compile(r"\w+")
_STOP_WORDS = frozenset(
    ("a", "an", "and", "at", "how", "in", "is", "it", "its", "of", "the", "to", "was", "what", "when")
)


@dataclass(frozen=True)
class CorpusPage:
    """A page of the corpus."""

    title: str
    url: str
    sentences: Sequence[str]
    links: Sequence[str] = ()

    @property
    def path(self) -> str:
        """Where the fake serves it."""
        return urlsplit(self.url).path

    @property
    def text(self) -> str:
        """Its sentences, which are also its text in results."""
        return " ".join(self.sentences)


@cache
def corpus() -> tuple[CorpusPage, ...]:
    """The pages of corpus.yaml."""
    content = yaml.safe_load((files(__package__) / "corpus.yaml").read_text())
    return tuple(CorpusPage(**page) for page in content)


def found(query: str, count: int) -> list[CorpusPage]:
    """The pages that have most of a query's words, in their title first; none that has no word."""
    words = _words(query)
    scored = [(2 * len(words & _words(page.title)) + len(words & _words(page.text)), page) for page in corpus()]
    ranked = sorted((each for each in scored if each[0]), key=lambda each: -each[0])
    return [page for _, page in ranked[:count]]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower())) - _STOP_WORDS


def page_html(page: CorpusPage, base: str) -> str:
    """A page as HTML, with its links on the fake's own host."""
    titles = {each.url: each.title for each in corpus()}
    links = "".join(
        f'<li><a href="{base}{urlsplit(url).path}">{html.escape(titles[url])}</a></li>' for url in page.links
    )
    text = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in page.sentences)
    title = html.escape(page.title)
    return f"<!doctype html><title>{title}</title><h1>{title}</h1>{text}<ul>{links}</ul>"


@dataclass(frozen=True)
class Asked:
    """A request that the fake has had."""

    method: str
    path: str
    headers: Mapping[str, str]
    params: Mapping[str, str]
    body: Any


Search = Callable[[Asked, str], Any]


def _entry(page: CorpusPage, base: str, **texts: Any) -> dict[str, Any]:
    return {"title": page.title, "url": base + page.path, **texts}


def _exa(asked: Asked, base: str) -> Any:
    pages = found(asked.body["query"], asked.body["numResults"])
    return {"results": [_entry(page, base, id=page.url, text=page.text) for page in pages]}


def _you(asked: Asked, base: str) -> Any:
    pages = found(asked.body["query"], asked.body["count"])
    return {"results": {"web": [_entry(page, base, description="", snippets=[*page.sentences]) for page in pages]}}


def _brave(asked: Asked, base: str) -> Any:
    pages = found(asked.params["q"], int(asked.params["count"]))
    return {"web": {"results": [_entry(page, base, description=f"<strong>{page.text}</strong>") for page in pages]}}


def _tavily(asked: Asked, base: str) -> Any:
    pages = found(asked.body["query"], asked.body["max_results"])
    return {"results": [_entry(page, base, content=page.text, score=0.5) for page in pages]}


def _searxng(asked: Asked, base: str) -> Any:
    pages = found(asked.params["q"], 20)
    return {"results": [_entry(page, base, content=page.text, engine="fake") for page in pages]}


def _bearer(headers: Mapping[str, str]) -> str:
    return headers.get("authorization", "").removeprefix("Bearer ")


_ROUTES: Mapping[tuple[str, str], tuple[Search, Callable[[Mapping[str, str]], str | None]]] = {
    ("POST", "/exa/search"): (_exa, lambda headers: headers.get("x-api-key")),
    ("POST", "/you/v1/search"): (_you, lambda headers: headers.get("x-api-key")),
    ("GET", "/brave/res/v1/web/search"): (_brave, lambda headers: headers.get("x-subscription-token")),
    ("POST", "/tavily/search"): (_tavily, _bearer),
    ("GET", "/searxng/search"): (_searxng, lambda headers: _bearer(headers) or "none is needed"),
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # clients that connect together are refused beyond it


@dataclass
class FakeSearch:
    """A server in a thread, as a context. `asked` has the searches that came, in their order."""

    port: int = 0
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> FakeSearch:
        self._server = _Server(("127.0.0.1", self.port), _handler(self))
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, name="fake-search", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where its pages are. The URL of a backend is this with `/exa`, `/you`, `/brave`, `/tavily` or `/searxng`."""
        return f"http://127.0.0.1:{self.port}"

    def answer(self, asked: Asked) -> tuple[int, str, str]:
        """Status, content type and body of the answer to a request."""
        route = _ROUTES.get((asked.method, asked.path))
        if route is None:
            page = next((page for page in corpus() if page.path == asked.path), None)
            return (200, "text/html", page_html(page, self.url)) if page else (404, "text/plain", "no such page")
        self.asked.append(asked)
        search, key_of = route
        if key_of(asked.headers) in (None, "", WRONG_KEY):
            return 401, "application/json", '{"error": "the key is not valid"}'
        return 200, "application/json", json.dumps(search(asked, self.url))


def _handler(fake: FakeSearch) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _answer(self, body: Any) -> None:
            target = urlsplit(self.path)
            params = {name: values[0] for name, values in parse_qs(target.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, content_type, text = fake.answer(Asked(self.command, target.path, headers, params, body))
            content = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", f"{content_type}; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Searches are in FakeSearch.asked."""

    return Handler


def main(port: str = "8765") -> None:
    """Serves the corpus until it is interrupted."""
    with FakeSearch(int(port)) as fake:
        print(f"{fake.url}: {len(corpus())} pages; SEARCH_URL={fake.url}/exa, /you, /brave, /tavily or /searxng")
        threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
