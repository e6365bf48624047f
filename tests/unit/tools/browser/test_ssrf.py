"""Server-side request forgery (SSRF): whatever the model, a search or a page names, nothing private is reached."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from typing import Any

import httpcore
import pytest

from gptoss_bento import addresses
from gptoss_bento.tools.browser.backends import BACKENDS, Query, Result
from gptoss_bento.tools.browser.limits import Limits
from gptoss_bento.tools.browser.search import Searcher
from gptoss_bento.tools.browser.session import Browser
from tests.unit.tools.browser.web import Web, answer, redirect
from tests.waiting import HANG_S

SECRET = "a secret of the network"
PRIVATE_HOSTS = [
    "127.0.0.1",
    "127.255.255.254",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "127.0.0.1.",
    "127。0。0。1",
    "0",
    "0.0.0.0",  # noqa: S104
    "localhost",
    "LOCALHOST",
    "localhost.",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:7f00:0001:0:0:0:0:1]",
    "[2001:0:7f00:1::]",
    "[fe80::1]",
    "[fe80::1%25lo]",
    "[fe80::1%lo]",
    "[::1%25lo]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "169.254.169.254",
    "0xa9fea9fe",
    "2852039166",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
]
"""Forms of loopback, link-local, metadata, private and reserved addresses."""


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    async with Web({"/": answer(SECRET)}).listening() as web:
        yield web


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    browser = Browser(None, limits=Limits(fetch_s=HANG_S, extract_s=HANG_S))
    yield browser
    await browser.close()


@pytest.fixture(autouse=True)
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses to which a connection was begun."""
    hosts: list[str] = []
    connect = httpcore.AnyIOBackend.connect_tcp

    async def recorded(self: httpcore.AnyIOBackend, host: str, *args: Any, **kwargs: Any) -> Any:
        hosts.append(host)
        return await connect(self, host, *args, **kwargs)

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", recorded)
    return hosts


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to, one answer after the other. Names that begin with `public` may lead anywhere."""
    answers: dict[str, list[str]] = {}
    looked_up, refuse = addresses._addresses, addresses._refuse_private

    async def resolve(host: str, port: int) -> list[Any]:
        if host not in answers:
            return await looked_up(host, port)
        address = answers[host].pop(0) if len(answers[host]) > 1 else answers[host][0]
        return [ipaddress.ip_address(each) for each in address.split()]

    def refuse_unless_named_public(host: str, found: Any) -> None:
        if not host.startswith("public"):
            refuse(host, found)

    monkeypatch.setattr(addresses, "_addresses", resolve)
    monkeypatch.setattr(addresses, "_refuse_private", refuse_unless_named_public)
    return answers


@pytest.mark.parametrize("host", PRIVATE_HOSTS)
async def test_ssrf_by_a_url_of_the_model_reaches_nothing(
    host: str, web: Web, browser: Browser, connected: list[str]
) -> None:
    page = await browser.session().open(web.url("/", host))

    assert page.failed
    assert SECRET not in page.text
    assert web.heads == []
    assert connected == []


@pytest.mark.parametrize("host", PRIVATE_HOSTS)
async def test_ssrf_by_a_redirect_reaches_nothing(
    host: str, web: Web, browser: Browser, names: dict[str, list[str]], connected: list[str]
) -> None:
    names["public.test"] = ["127.0.0.1"]
    web.answers = {"/start": redirect(web.url("/", host)), "/": answer(SECRET)}
    page = await browser.session().open(web.url("/start", "public.test"))

    assert page.failed
    assert SECRET not in page.text
    assert len(web.heads) == 1
    assert connected == ["127.0.0.1"]


async def test_ssrf_by_a_name_that_leads_to_a_private_address_reaches_nothing(
    web: Web, browser: Browser, names: dict[str, list[str]]
) -> None:
    names["inner.test"] = ["127.0.0.1"]
    page = await browser.session().open(web.url("/", "inner.test"))

    assert page.failed
    assert web.heads == []


async def test_ssrf_by_one_private_address_among_public_ones_reaches_nothing(
    web: Web, browser: Browser, names: dict[str, list[str]]
) -> None:
    names["mixed.test"] = ["8.8.8.8 127.0.0.1"]
    page = await browser.session().open(web.url("/", "mixed.test"))

    assert page.failed
    assert web.heads == []


async def test_ssrf_by_a_name_that_changes_between_check_and_connection_reaches_nothing(
    web: Web, browser: Browser, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is looked up once a connection: the second answer, which is private, has no effect."""
    names["rebind.test"] = ["8.8.8.8", "127.0.0.1"]
    tried: list[str] = []

    async def connect(_: Any, host: str, *__: Any) -> Any:
        tried.append(host)
        raise OSError

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", connect)
    session = browser.session()
    first, second = [await session.open(web.url("/", "rebind.test")) for _ in range(2)]

    assert tried == ["8.8.8.8"]
    assert first.failed
    assert second.failed


async def test_ssrf_by_a_link_of_a_page_reaches_nothing(
    web: Web, browser: Browser, names: dict[str, list[str]]
) -> None:
    names["public.test"] = ["127.0.0.1"]
    web.answers = {"/start": answer(f"<a href='{web.url()}'>x</a>"), "/": answer(SECRET)}
    session = browser.session()
    await session.open(web.url("/start", "public.test"))
    page = await session.open(id=0)

    assert page.failed
    assert len(web.heads) == 1


async def test_ssrf_cannot_distinguish_private_names_from_unknown_ones(
    browser: Browser, names: dict[str, list[str]]
) -> None:
    names["inner.test"] = ["10.0.0.1"]
    inner, unknown = [await browser.session().open(f"http://{host}/") for host in ("inner.test", "other.invalid")]

    assert inner.text.replace("inner.test", "X") == unknown.text.replace("other.invalid", "X")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "2130706433", "localhost"])
async def test_ssrf_by_a_result_of_a_search_reaches_nothing(host: str, web: Web, connected: list[str]) -> None:
    class Results(Searcher):
        async def results(self, query: Query) -> list[Result]:
            return [Result(query.text, web.url("/", host), "")]

    browser = Browser(Results(BACKENDS["exa"], key="k", limits=Limits()))
    session = browser.session()
    found = await session.search("x")
    page = await session.open(id=0)
    await browser.close()

    assert not found.failed
    assert page.failed
    assert connected == []


async def test_ssrf_rule_can_be_lifted_by_the_operator(web: Web) -> None:
    browser = Browser(None, limits=Limits(fetch_s=HANG_S, extract_s=HANG_S), allow_private=True)
    page = await browser.session().open(web.url())
    await browser.close()

    assert SECRET in page.text
