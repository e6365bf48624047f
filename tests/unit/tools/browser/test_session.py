"""The browser as the model calls it: cursors, links, places, domains, citations and errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from gptoss_bento.tools.browser.backends import BACKENDS
from gptoss_bento.tools.browser.domains import DomainRule
from gptoss_bento.tools.browser.fake_search import WRONG_KEY, FakeSearch
from gptoss_bento.tools.browser.limits import Limits
from gptoss_bento.tools.browser.search import Searcher
from gptoss_bento.tools.browser.session import Browser, BrowserSession, Cited
from tests.unit.tools.browser.web import Web, answer
from tests.waiting import HANG_S

PATIENT = Limits(search_s=HANG_S, fetch_s=HANG_S, extract_s=HANG_S)


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeSearch]:
    with FakeSearch() as fake:
        yield fake


def new_browser(fake: FakeSearch, *, key: str = "k", limits: Limits | None = None, **options: Any) -> Browser:
    limits = limits or PATIENT
    searcher = Searcher(BACKENDS["exa"], key=key, url=f"{fake.url}/exa", limits=limits)
    return Browser(searcher, limits=limits, allow_private=True, **options)


@pytest.fixture
async def session(fake: FakeSearch) -> AsyncIterator[BrowserSession]:
    browser = new_browser(fake)
    yield browser.session()
    await browser.close()


async def test_browser_search_shows_links_by_number(fake: FakeSearch, session: BrowserSession) -> None:
    page = await session.search("quillon bridge", topn=2)
    host = fake.url.removeprefix("http://")

    assert not page.failed
    assert page.text.startswith(
        "[0] quillon bridge\n**viewing lines [0 - 7] of 7**\n\nL0: \nL1: URL: \nL2: # Search Results\n"
    )
    assert f"  * 【0†Quillon Bridge†{host}】 The bridge of Quillon is 486 metres" in page.text
    sources = [{"type": "url", "url": f"{fake.url}/quillon-{name}"} for name in ("bridge", "bakery")]
    assert page.action == {
        "type": "search",
        "query": "quillon bridge",
        "queries": ["quillon bridge"],
        "sources": sources,
    }


async def test_browser_open_follows_a_result_and_a_link(fake: FakeSearch, session: BrowserSession) -> None:
    await session.search("quillon bridge")
    bridge = await session.open(id=0)
    bakery = await session.open(id=0)
    again = await session.open(id=0, cursor=1)

    assert bridge.text.startswith(
        f"[1] Quillon Bridge ({fake.url}/quillon-bridge)\n**viewing lines [0 - 10] of 10**\n\n"
    )
    assert "L6: It was designed by Mira Castell." in bridge.text
    assert "【0†Quillon Bakery】" in bridge.text
    assert bridge.action == {"type": "open_page", "url": f"{fake.url}/quillon-bridge"}
    assert bakery.text.startswith("[2] Quillon Bakery ")
    assert again.text.startswith("[3] Quillon Bakery ")


async def test_browser_open_takes_a_url_and_a_place(fake: FakeSearch, session: BrowserSession) -> None:
    await session.open(id=f"{fake.url}/tarn-island")
    part = await session.open(loc=4, num_lines=2)

    assert part.text.startswith(f"[1] Tarn Island ({fake.url}/tarn-island)\n**viewing lines [4 - 5] of 10**\n\nL4: ")
    assert part.action == {"type": "open_page", "url": f"{fake.url}/tarn-island"}


async def test_browser_open_shows_the_source(fake: FakeSearch, session: BrowserSession) -> None:
    await session.open(id=f"{fake.url}/tarn-island")
    source = await session.open(view_source=True)

    assert "<h1>Tarn Island</h1>" in source.text.replace("\n", "")


async def test_browser_find_shows_matches_and_opens_their_place(fake: FakeSearch, session: BrowserSession) -> None:
    await session.open(id=f"{fake.url}/ember-frog")
    found = await session.find("1958")
    there = await session.open(id=0)

    assert "# 【0†match at L8】\nL1: Its call was first recorded in 1958." in found.text
    assert "[1] Find results for text: `1958` in `Ember Frog`" in found.text
    assert found.action == {"type": "find_in_page", "pattern": "1958", "url": f"{fake.url}/ember-frog"}
    assert there.text.startswith(f"[2] Ember Frog ({fake.url}/ember-frog)\n**viewing lines [4 - 8] of 8**")


async def test_browser_find_without_a_match_is_a_page(fake: FakeSearch, session: BrowserSession) -> None:
    await session.open(id=f"{fake.url}/ember-frog")
    found = await session.find("a giraffe 【")

    assert not found.failed
    assert "No `find` results for pattern: `a giraffe 〖`" in found.text


async def test_browser_view_has_a_bound_whatever_is_asked_for(fake: FakeSearch) -> None:
    browser = new_browser(fake, limits=replace(PATIENT, view_chars=100, longest_view_chars=150))
    session = browser.session()
    short = await session.open(id=f"{fake.url}/tarn-island")
    long = await session.open(num_lines=100_000)
    await browser.close()

    assert len(short.text) < len(long.text) < 300


async def test_browser_citation_is_the_page_of_a_cursor(fake: FakeSearch, session: BrowserSession) -> None:
    await session.search("quillon bridge", topn=2)
    await session.open(id=0)
    await session.find("bridge")

    bridge = Cited(f"{fake.url}/quillon-bridge", "Quillon Bridge")
    assert session.citation(1) == session.citation(2) == bridge
    assert session.citation(3) is None
    assert session.citation(-1) is None


async def test_browser_citation_of_a_search_is_the_result_of_the_line(session: BrowserSession) -> None:
    await session.search("quillon bridge", topn=2)

    assert session.citation(0) is session.citation(0, 2) is None
    assert [getattr(session.citation(0, line), "title", None) for line in (4, 5, 6, 7, 99)] == [
        "Quillon Bridge",
        "Quillon Bridge",
        "Quillon Bakery",
        "Quillon Bakery",
        "Quillon Bakery",
    ]


@pytest.mark.parametrize(
    ("function", "arguments", "text"),
    [
        ("open", {"id": 99}, "Invalid link id `99`."),
        ("open", {"id": 0, "cursor": 7}, "Cursor `7` is out of range. Available cursor indices: [0 - 0]."),
        ("open", {"cursor": -7}, "Cursor `-7` is out of range. Available cursor indices: [0 - 0]."),
        ("open", {"cursor": "first"}, "`cursor` should be an integer, not `first`."),
        ("open", {"id": [1]}, "`id` should be an integer, not `[1]`."),
        ("open", {"id": True}, "`id` should be an integer, not `True`."),
        ("open", {"loc": 1e400}, "`loc` should be an integer, not `inf`."),
        ("open", {"loc": 5000}, "Invalid location parameter: `5000`. Cannot exceed page maximum of 5."),
        ("open", {"id": "nonsense"}, "`nonsense` cannot be opened: only http and https URLs can be."),
        ("find", {"pattern": "x"}, "Cannot run `find` on search results page or find results page"),
        ("find", {}, "Cannot run `find` on search results page or find results page"),
        ("search", {"query": ""}, "`query` must be a text."),
        ("search", {"query": ["x"]}, "`query` must be a text."),
        ("search", {}, "`query` must be a text."),
        ("search", {"query": "x", "topn": {}}, "`topn` should be an integer, not `{}`."),
        ("click", {}, "Unknown function: `click`. There are: search, open, find."),
    ],
)
async def test_browser_call_that_is_wrong_is_a_text_and_adds_no_cursor(
    session: BrowserSession, function: str, arguments: dict[str, Any], text: str
) -> None:
    await session.search("ferry", topn=1)
    page = await session.call(function, arguments)
    after = await session.call("open", {})

    assert (page.text, page.failed) == (text, True)
    assert after.text.startswith("[1] ferry")


async def test_browser_call_takes_numbers_as_the_model_writes_them(session: BrowserSession) -> None:
    await session.call("search", {"query": "ferry", "topn": "1", "source": "web", "unknown": 1})
    page = await session.call("open", {"id": "0", "cursor": 0.0, "loc": None})

    assert page.text.startswith("[1] Norvik Ferry")


@pytest.mark.parametrize(("function", "arguments"), [("open", {}), ("open", {"id": 0}), ("find", {"pattern": "x"})])
async def test_browser_call_before_any_page_is_a_text(
    session: BrowserSession, function: str, arguments: dict[str, Any]
) -> None:
    assert (await session.call(function, arguments)).text == "No pages to access!"


async def test_browser_page_that_is_not_there_is_a_text(fake: FakeSearch, session: BrowserSession) -> None:
    page = await session.open(id=f"{fake.url}/nowhere")

    assert page.failed
    assert page.text == f"Error fetching URL `{fake.url}/nowhere`: it answered 404"
    assert page.action == {"type": "open_page", "url": f"{fake.url}/nowhere"}


async def test_browser_search_with_a_wrong_key_is_a_text(fake: FakeSearch) -> None:
    browser = new_browser(fake, key=WRONG_KEY)
    page = await browser.session().search("ferry")
    await browser.close()

    assert (page.text, page.failed) == ("Error during search: the search service is not available.", True)


async def test_browser_without_a_backend_opens_pages_alone(fake: FakeSearch) -> None:
    browser = Browser(None, limits=PATIENT, allow_private=True)
    assert browser.missing == {"search"}
    session = browser.session()
    searched = await session.search("ferry")
    opened = await session.open(id=f"{fake.url}/norvik-ferry")
    await browser.close()

    assert (searched.text, searched.failed) == ("There is no search here. Pages can be opened by their URL.", True)
    assert not opened.failed


async def test_browser_that_may_not_open_pages_shows_results_alone(fake: FakeSearch) -> None:
    browser = new_browser(fake, may_open=False)
    assert not browser.missing
    session = browser.session()
    found = await session.search("ferry")
    refused = [await session.open(id=0), await session.open(id=f"{fake.url}/norvik-ferry")]
    scrolled = await session.open(loc=2)
    await browser.close()

    assert not found.failed
    assert {page.text for page in refused} == {"Pages cannot be opened here."}
    assert not scrolled.failed


async def test_browser_domains_hold_for_results_and_pages(fake: FakeSearch) -> None:
    async with Web({"/": answer(f"<a href='{fake.url}/norvik-ferry'>x</a>")}).listening() as web:
        browser = new_browser(fake)
        blocked = browser.session(blocked_domains=["127.0.0.1"])
        allowed = browser.session(allowed_domains=["localhost"])
        results = [await session.search("ferry") for session in (blocked, allowed)]
        start = await allowed.open(id=web.url("/", "localhost"))
        link = await allowed.open(id=0)
        await browser.close()

    assert [page.action["sources"] for page in results] == [[], []]
    assert "No results." in results[0].text
    assert not start.failed
    assert link.text == "127.0.0.1 is not among the sites that may be visited."


async def test_browser_domains_of_the_operator_cannot_be_widened_by_a_request(fake: FakeSearch) -> None:
    browser = new_browser(fake, rule=DomainRule.of(["example.com"]))
    page = await browser.session(allowed_domains=["127.0.0.1"]).open(id=f"{fake.url}/norvik-ferry")
    await browser.close()

    assert page.failed


async def test_browser_session_has_a_bound_of_pages(fake: FakeSearch) -> None:
    browser = new_browser(fake, limits=replace(PATIENT, cursors=2))
    session = browser.session()
    pages = [await session.search("ferry") for _ in range(3)]
    await browser.close()

    assert [page.failed for page in pages] == [False, False, True]
    assert pages[2].text == "This session has 2 pages, and can open no more."


async def test_browser_sessions_do_not_see_each_others_pages(fake: FakeSearch, session: BrowserSession) -> None:
    await session.open(id=f"{fake.url}/tarn-island")
    browser = new_browser(fake)
    other = await browser.session().open(cursor=0)
    await browser.close()

    assert other.text == "No pages to access!"
