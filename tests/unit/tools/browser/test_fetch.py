"""Fetching pages: redirects, types, sizes, times, and what is sent."""

from __future__ import annotations

import pytest

from gptoss_bento.tools.browser.domains import DomainRule, DomainRules
from gptoss_bento.tools.browser.failures import BrowserError
from gptoss_bento.tools.browser.fetch import Fetched, Fetcher
from gptoss_bento.tools.browser.limits import Limits
from tests.unit.tools.browser.web import Web, answer, packed_bomb, redirect
from tests.waiting import HANG_S

ALL = DomainRules()
PAGE = answer("<p>x</p>", set_cookie="a=b")


async def get(web: Web, path: str, domains: DomainRules = ALL, limits: Limits | None = None) -> Fetched:
    fetcher = Fetcher(limits or Limits(fetch_s=HANG_S), allow_private=True)
    try:
        return await fetcher.get(web.url(path), domains)
    finally:
        await fetcher.close()


async def problem(web: Web, path: str, limits: Limits | None = None, domains: DomainRules = ALL) -> str:
    with pytest.raises(BrowserError) as failed:
        await get(web, path, domains, limits)
    return str(failed.value)


async def test_fetch_gives_a_page_and_sends_no_credentials() -> None:
    async with Web({"/a?b=c": PAGE}).listening() as web:
        page = await get(web, "/a?b=c#d")
        await get(web, "/a?b=c")

    assert page == Fetched(web.url("/a?b=c"), "127.0.0.1", "text/html", "utf-8", b"<p>x</p>")
    for head in web.heads:
        names = {line.partition(":")[0].lower() for line in head.splitlines()[1:] if line}
        assert names == {"host", "user-agent", "accept", "accept-encoding", "connection"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_fetch_follows_redirects(status: int) -> None:
    answers = {"/a": redirect("/b", status), "/b": redirect("c?d", status), "/c?d": PAGE}
    async with Web(answers).listening() as web:
        page = await get(web, "/a")

    assert page.url == web.url("/c?d")


async def test_fetch_gives_up_after_some_redirects() -> None:
    async with Web({"/a": redirect("/a")}).listening() as web:
        assert await problem(web, "/a") == f"Error fetching URL `{web.url('/a')}`: more than 5 redirects"
    assert len(web.heads) == 6


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x/", "http://a:b@x/", "http://x:25/", "http://["])
async def test_fetch_follows_no_redirect_away_from_the_web(location: str) -> None:
    async with Web({"/a": redirect(location)}).listening() as web:
        text = await problem(web, "/a")
    assert "cannot be opened" in text or "not a URL" in text
    assert len(web.heads) == 1


async def test_fetch_checks_the_domains_at_each_redirect() -> None:
    async with Web().listening() as web:
        web.answers = {"/a": redirect(web.url("/b", "localhost")), "/b": PAGE}
        text = await problem(web, "/a", domains=DomainRules((DomainRule.of(["127.0.0.1"]),)))
    assert text == "localhost is not among the sites that may be visited."
    assert len(web.heads) == 1


@pytest.mark.parametrize("status", [201, 204, 300, 304, 400, 401, 403, 404, 429, 500, 503])
async def test_fetch_names_the_status_of_a_page_that_is_not_there(status: int) -> None:
    async with Web({"/a": answer("x", status)}).listening() as web:
        assert (await problem(web, "/a")).endswith(f"it answered {status}")


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", "application/ld+json", "image/svg+xml", ""])
async def test_fetch_takes_text(content_type: str) -> None:
    async with Web({"/a": answer("x", content_type=content_type)}).listening() as web:
        assert (await get(web, "/a")).body == b"x"


@pytest.mark.parametrize("content_type", ["application/pdf", "image/png", "application/octet-stream", "video/mp4"])
async def test_fetch_refuses_what_is_no_text(content_type: str) -> None:
    async with Web({"/a": answer("x", content_type=content_type)}).listening() as web:
        assert f"`{content_type}`" in await problem(web, "/a")


@pytest.mark.parametrize("page", [answer(bytes(2000)), packed_bomb(50_000_000), answer(bytes(2000), content_length="")])
async def test_fetch_refuses_pages_that_are_too_large(page: bytes) -> None:
    async with Web({"/a": page}).listening() as web:
        assert "larger than 1,000 bytes" in await problem(web, "/a", Limits(page_bytes=1000, fetch_s=HANG_S))


async def test_fetch_does_not_wait_for_ever() -> None:
    async with Web({"/a": None}).listening() as web:
        assert (await problem(web, "/a", Limits(fetch_s=0.1))).endswith("it took longer than 0.1 s")


@pytest.mark.parametrize("content", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\nshort"])
async def test_fetch_of_a_broken_server_is_an_error_text(content: bytes) -> None:
    async with Web({"/a": content}).listening() as web:
        assert (await problem(web, "/a")).startswith("Error fetching URL")


async def test_fetch_of_a_head_without_end_is_an_error_text() -> None:
    async with Web({"/a": b"HTTP/1.1 200 X\r\nX: " + b"x" * 1_000_000}).listening() as web:
        assert (await problem(web, "/a")).startswith("Error fetching URL")


async def test_fetch_of_a_closed_port_is_an_error_text() -> None:
    async with Web().listening() as web:
        pass
    assert (await problem(web, "/a")).endswith("its server takes no connection")
