"""Searching with each backend: what is sent, what is read, and what the model and the log get of errors."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from gptoss_bento.tools.browser.backends import BACKENDS, Query, Result
from gptoss_bento.tools.browser.failures import BrowserError
from gptoss_bento.tools.browser.fake_search import WRONG_KEY, Asked, FakeSearch, corpus
from gptoss_bento.tools.browser.limits import Limits
from gptoss_bento.tools.browser.search import Searcher
from tests.unit.tools.browser.web import Web, answer, packed_bomb, redirect
from tests.waiting import HANG_S

KEY = "the-operators-key"
UNAVAILABLE = "Error during search: the search service is not available."


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeSearch]:
    with FakeSearch() as fake:
        yield fake


async def search(name: str, url: str, query: Query, *, key: str = KEY, limits: Limits | None = None) -> list[Result]:
    searcher = Searcher(BACKENDS[name], key=key, url=url, limits=limits or Limits(search_s=HANG_S))
    try:
        return list(await searcher.results(query))
    finally:
        await searcher.close()


async def search_fake(fake: FakeSearch, name: str, query: Query, *, key: str = KEY) -> tuple[list[Result], Asked]:
    results = await search(name, f"{fake.url}/{name}", query, key=key)
    return results, fake.asked[-1]


@pytest.mark.parametrize("name", BACKENDS)
async def test_search_returns_titles_addresses_and_texts(fake: FakeSearch, name: str) -> None:
    results, _ = await search_fake(fake, name, Query("norvik lighthouse", 2))

    page = corpus()[0]
    assert len(results) == 2
    assert results[0] == Result(page.title, fake.url + page.path, page.text)


@pytest.mark.parametrize("name", BACKENDS)
async def test_search_is_one_request_with_the_key_where_the_backend_wants_it(fake: FakeSearch, name: str) -> None:
    before = len(fake.asked)
    _, asked = await search_fake(fake, name, Query("norvik", 2))

    assert len(fake.asked) == before + 1
    assert [value for value in asked.headers.values() if KEY in value]
    assert KEY not in json.dumps([asked.path, asked.params, asked.body])


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("exa", {"includeDomains": ["a.org", "b.org"], "excludeDomains": ["c.org"]}),
        ("you", {"include_domains": ["a.org", "b.org"], "exclude_domains": ["c.org"]}),
        ("tavily", {"include_domains": ["a.org", "b.org"], "exclude_domains": ["c.org"]}),
    ],
)
async def test_search_sends_domains_as_lists(fake: FakeSearch, name: str, body: dict[str, list[str]]) -> None:
    _, asked = await search_fake(fake, name, Query("norvik", 2, ("a.org", "b.org"), ("c.org",)))

    assert body.items() <= asked.body.items()


@pytest.mark.parametrize("name", ["brave", "searxng"])
async def test_search_sends_domains_as_operators_of_the_query(fake: FakeSearch, name: str) -> None:
    _, two = await search_fake(fake, name, Query("norvik", 2, ("a.org", "b.org")))
    _, one = await search_fake(fake, name, Query("norvik", 2, ("a.org",)))

    assert two.params["q"] == "norvik (site:a.org OR site:b.org)"
    assert one.params["q"] == "norvik site:a.org"


@pytest.mark.parametrize("name", ["exa", "you", "brave", "tavily"])
async def test_search_with_a_wrong_key_is_a_log_line_without_the_key(
    fake: FakeSearch, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(BrowserError) as failed:
        await search_fake(fake, name, Query("norvik", 2), key=WRONG_KEY)

    assert str(failed.value) == UNAVAILABLE
    assert f"search backend {name}: status 401" in caplog.text
    assert WRONG_KEY not in caplog.text


@pytest.mark.parametrize("name", BACKENDS)
async def test_search_leaves_its_query_out_of_the_log(
    fake: FakeSearch, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        await search_fake(fake, name, Query("norvik lighthouse", 2))

    assert "norvik" not in caplog.text


async def test_search_needs_no_key_with_searxng(fake: FakeSearch) -> None:
    results, asked = await search_fake(fake, "searxng", Query("norvik", 1), key="")

    assert results
    assert "authorization" not in asked.headers


SHAPES = [
    b"",
    b"[]",
    b"{}",
    b"null",
    b'{"results": 1}',
    b'{"results": [1]}',
    b'{"results": [{"url": 1}]}',
    b"[" * 100_000,
]


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("body", SHAPES)
async def test_search_answer_of_another_shape_is_an_error_or_nothing(name: str, body: bytes) -> None:
    path = BACKENDS[name].asked(Query("x", 5), KEY).path
    async with Web().listening() as web:
        web.answers = {f"{path}{params}": answer(body) for params in ("", "?q=x&count=5", "?q=x&format=json")}
        try:
            assert await search(name, web.url("").rstrip("/"), Query("x", 5)) == []
        except BrowserError as error:
            assert str(error) == UNAVAILABLE  # noqa: PT017  # either is right


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (redirect("http://127.0.0.1:1/"), "status 302"),
        (answer("x", 429), "status 429"),
        (packed_bomb(50_000_000), "it is larger than"),
        (answer(b"x" * 20_000), "it is larger than"),
        (b"", "RemoteProtocolError"),
        (None, "no answer within"),
    ],
)
async def test_search_backend_that_fails_is_a_text_and_a_log_line(
    content: bytes | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Web({"/search": content}).listening() as web:
        with pytest.raises(BrowserError, match="not available"):
            await search(
                "exa",
                web.url(""),
                Query("x", 5),
                limits=Limits(search_s=HANG_S if content is not None else 0.1, search_bytes=10_000),
            )

    assert f"search backend exa: {reason}" in caplog.text
    assert KEY not in caplog.text


async def test_search_backend_that_is_away_is_a_text_and_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    async with Web().listening() as web:
        pass
    with pytest.raises(BrowserError, match="not available"):
        await search("exa", web.url(""), Query("x", 5))

    assert "search backend exa: ConnectError" in caplog.text


def test_search_text_is_without_the_tags_of_what_matches() -> None:
    result = {"title": "a &amp; <b>b</b>", "url": "u", "description": "1 < 2 <strong>x</strong>"}

    assert [*BACKENDS["brave"].results({"web": {"results": [result]}})] == [Result("a & b", "u", "1 < 2 x")]


def test_search_backend_without_an_address_of_its_own_needs_one() -> None:
    with pytest.raises(ValueError, match="searxng needs a URL"):
        Searcher(BACKENDS["searxng"], limits=Limits())


def test_search_backend_that_wants_a_key_needs_one() -> None:
    with pytest.raises(ValueError, match="exa needs a key"):
        Searcher(BACKENDS["exa"], limits=Limits())
