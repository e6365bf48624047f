"""The address rule and MCP servers: whatever a URL, a redirect or DNS says, no private address is connected to."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import httpcore2
import httpx2
import pytest

from gptoss_bento.tools.mcp.connections import BoundedTransport, new_client
from gptoss_bento.tools.mcp.failures import McpError
from gptoss_bento.tools.mcp.server import Limits, Server, Transport
from gptoss_bento.tools.mcp.servers import McpServers
from tests.fake_mcp_servers import HTTP, SSE, FakeServers
from tests.waiting import HANG_S

PATIENT = Limits(open_s=HANG_S, list_s=HANG_S, call_s=HANG_S)
PUBLIC, OTHER_PUBLIC = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"
UNREACHABLE = "The MCP server bad failed: it cannot be reached, or not at a public address."
"""Of a name that does not exist as well, so that no client finds out which ones do."""
TRANSPORTS = pytest.mark.parametrize("transport", [Transport.AUTO, Transport.SSE])

FORBIDDEN = [
    *("127.0.0.1", "localhost", "127.1", "127.255.255.254", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0"),  # noqa: S104  # none is bound to
    *("[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:10.0.0.1]", "[::127.0.0.1]"),
    *("169.254.169.254", "2852039166", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "100.100.100.200"),
    *("168.63.129.16", "192.0.0.192", "169.254.170.2", "[fe80::1]", "[fe80::a9fe:a9fe%25lo]"),
    *("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "198.18.0.1", "192.0.2.1"),
    *("[fc00::1]", "[fd12:3456::1]", "[fec0::1]", "[2001:db8::1]", "[100::1]"),
    *("[64:ff9b::7f00:1]", "[64:ff9b::a00:1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[2002:a9fe:a9fe::]"),
    "[2001:0:4136:e378:8000:63bf:80ff:fffe]",  # Teredo of 127.0.0.1
    *("224.0.0.1", "239.255.255.250", "255.255.255.255", "240.0.0.1", "[ff02::1]"),
]


@dataclass
class Network:
    """What was connected to. Public addresses are those of the tests' servers."""

    fakes: FakeServers
    connected: list[str] = field(default_factory=list)

    async def connect(self, host: str) -> httpcore2.AsyncNetworkStream:
        self.connected.append(host)
        assert host in (PUBLIC, OTHER_PUBLIC)
        return await REAL_BACKEND(httpcore2.AnyIOBackend(), "127.0.0.1", self.fakes.port)


REAL_BACKEND = httpcore2.AnyIOBackend.connect_tcp


@pytest.fixture
def network(fakes: FakeServers, monkeypatch: pytest.MonkeyPatch) -> Network:
    watched = Network(fakes)
    monkeypatch.setattr(httpcore2.AnyIOBackend, "connect_tcp", lambda _, host, *__, **___: watched.connect(host))
    return watched


def resolve(monkeypatch: pytest.MonkeyPatch, answers: Iterable[list[str]]) -> None:
    """Makes DNS answer `mcp.test` with these addresses, one list a lookup."""
    left = iter(answers)

    def getaddrinfo(host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        assert host in ("mcp.test", b"mcp.test")
        families = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(families[":" in each], socket.SOCK_STREAM, 6, "", (each, port)) for each in next(left)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


async def error_of(server: Server, limits: Limits = PATIENT) -> str:
    with pytest.raises(McpError) as raised:
        await McpServers(limits=limits).tools(server)
    return str(raised.value)


@TRANSPORTS
@pytest.mark.parametrize("host", FORBIDDEN)
async def test_private_address_is_not_connected_to(network: Network, host: str, transport: Transport) -> None:
    server = Server("bad", f"http://{host}:{network.fakes.port}/mcp", transport)

    text = await error_of(server)

    assert text in (UNREACHABLE, "The MCP server bad failed: its URL is none.")
    assert network.connected == []


@TRANSPORTS
async def test_name_with_one_private_address_among_public_ones_is_not_connected_to(
    network: Network, monkeypatch: pytest.MonkeyPatch, transport: Transport
) -> None:
    resolve(monkeypatch, [[PUBLIC, "10.0.0.1"], [OTHER_PUBLIC, "::1"]])

    for _ in range(2):
        assert await error_of(Server("bad", "http://mcp.test/mcp", transport)) == UNREACHABLE

    assert network.connected == []


async def test_name_that_does_not_exist_has_the_text_of_a_private_one(network: Network) -> None:
    assert await error_of(Server("bad", "https://name.invalid/mcp")) == UNREACHABLE
    assert network.connected == []


async def test_address_that_was_checked_is_the_one_that_is_connected_to(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second lookup would return another address."""
    resolve(monkeypatch, [[PUBLIC], ["127.0.0.1"]])
    server = Server("good", "http://mcp.test/nothing")

    async with new_client(server, PATIENT, BoundedTransport(PATIENT, print, allow_private=False)) as client:
        assert (await client.get(server.url)).status_code == httpx2.codes.NOT_FOUND

    assert network.connected == [PUBLIC]


@pytest.mark.parametrize("endpoint", [HTTP, SSE])
async def test_dns_that_changes_between_connections_is_checked_for_each(
    network: Network, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    """The broken connection of a call makes the client connect again."""
    resolve(monkeypatch, [*[[PUBLIC]] * (2 if endpoint == HTTP else 3), *[["169.254.169.254"]] * 9])

    async with McpServers(limits=PATIENT).session(Server("good", f"http://mcp.test{endpoint}")) as session:
        first = await session.call("leave", {})
        second = await session.call("add", {"a": 1})

    assert first.failed
    assert second.text == UNREACHABLE.replace("bad", "good")
    assert set(network.connected) == {PUBLIC}


TARGETS = ["http://127.0.0.1:1/", "http://169.254.169.254/latest/meta-data/", "http://[::1]/", "//10.0.0.1/mcp"]


@TRANSPORTS
@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", TARGETS)
async def test_redirect_to_another_server_is_not_followed(
    network: Network, monkeypatch: pytest.MonkeyPatch, target: str, code: int, transport: Transport
) -> None:
    resolve(monkeypatch, [[PUBLIC]] * 9)

    text = await error_of(Server("bad", f"http://mcp.test/redirect?code={code}&to={target}", transport))

    assert text == f"The MCP server bad failed: it answered {code}, which leads elsewhere."
    assert set(network.connected) == {PUBLIC}


async def test_redirect_within_the_server_is_checked_again_when_it_connects(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve(monkeypatch, [[PUBLIC], *[["127.0.0.1"]] * 9])
    transport = BoundedTransport(PATIENT, lambda _: None, allow_private=False)
    server = Server("good", f"http://mcp.test/redirect?to={HTTP}")

    async with new_client(server, PATIENT, transport) as client:
        first = await client.post(server.url, headers={"Connection": "close"})
        assert first.next_request is not None
        with pytest.raises(Exception, match="not a public address"):
            await client.send(first.next_request)

    assert network.connected == [PUBLIC]


async def test_endpoint_of_sse_at_another_server_is_not_used(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, [[PUBLIC]] * 9)

    await error_of(Server("bad", "http://mcp.test/foreign", Transport.SSE), Limits(open_s=1.0))

    assert set(network.connected) == {PUBLIC}


async def test_operators_server_that_is_private_is_connected_to(fakes: FakeServers) -> None:
    assert await McpServers(limits=PATIENT).tools(Server("own", fakes.url(HTTP), is_private=True))


async def test_proxy_of_the_environment_is_not_asked(fakes: FakeServers, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would look names up itself."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert await McpServers(limits=PATIENT).tools(Server("own", fakes.url(HTTP), is_private=True))


async def test_requests_beyond_the_bound_are_not_sent(fakes: FakeServers) -> None:
    failures: list[Exception] = []
    limits = Limits(session_requests=2)
    transport = BoundedTransport(limits, failures.append, allow_private=True)

    async with new_client(Server("good", fakes.url("/nothing")), limits, transport) as client:
        answers = [await client.post(fakes.url("/nothing")) for _ in range(2)]
        with pytest.raises(Exception, match="it took more than 2 requests"):
            await client.post(fakes.url("/nothing"))

    assert [answer.status_code for answer in answers] == [httpx2.codes.NOT_FOUND] * 2
    assert [str(failure) for failure in failures] == ["it took more than 2 requests"]
