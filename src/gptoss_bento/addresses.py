"""Addresses: which are on the public internet, and connections to those alone.

A leaf, because webhooks, pages that the model opens and MCP servers of requests are held to the same rule.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import httpcore

from gptoss_bento.concurrency import in_daemon_thread

_LOOKUP_TIMEOUT_S = 0.5  # while a client waits for the answer to its request
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_IPV4_COMPATIBLE = ipaddress.ip_network("::/96")
_GLOBAL_IPV6 = ipaddress.ip_network(
    "2000::/3"
)  # all that IANA has given out; what each Python knows of the rest differs
# Services of the host at addresses that look public, at least to some Pythons: Azure's metadata; IETF's and Oracle's.
_HOST_SERVICES = [ipaddress.ip_network(network) for network in ("168.63.129.16/32", "192.0.0.0/24")]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ForbiddenAddressError(Exception):
    """A host leads to an address that is not public."""


async def refuse_private(url: str) -> None:
    """Checks the host of a URL before anything is sent there.

    A name that cannot be looked up in time passes, because PublicNetwork checks the address again when it connects.

    Raises:
        ForbiddenAddressError: it leads to a loopback, link-local, private or metadata address.
    """
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(_LOOKUP_TIMEOUT_S):
            addresses = await _addresses(parts.hostname or "", parts.port or 80)
    except (OSError, TimeoutError, UnicodeError):
        return
    _refuse_private(parts.hostname or "", addresses)


def is_public(address: Address) -> bool:
    """Whether an address is on the public internet; of one that wraps another address, whether that one is."""
    wrapped = _wrapped(address)
    if wrapped is not None:
        return is_public(wrapped)
    if isinstance(address, ipaddress.IPv6Address) and address not in _GLOBAL_IPV6:
        return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _HOST_SERVICES)


def _wrapped(address: Address) -> Address | None:
    """The IPv4 address to which a gateway would route an IPv6 one."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64 or address in _IPV4_COMPATIBLE:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


async def checked_address(host: str, port: int, *, allow_private: bool) -> str:
    """The address to connect to for a host: looking the name up again could return another.

    Raises:
        ForbiddenAddressError: one of its addresses is not public, and that is not allowed.
        OSError: the name cannot be looked up.
        UnicodeError: it is no name.
    """
    addresses = await _addresses(host, port)
    if not allow_private:
        _refuse_private(host, addresses)
    return str(addresses[0])


async def _addresses(host: str, port: int) -> list[Address]:
    """Looks a name up, in a thread of its own: the loop has few, which silent name servers would take up."""
    found = await in_daemon_thread(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found]


def _refuse_private(host: str, addresses: Iterable[Address]) -> None:
    for address in addresses:
        if not is_public(address):
            raise ForbiddenAddressError(f"{host} leads to {address}, which is not a public address")


class PublicNetwork(httpcore.AsyncNetworkBackend):
    """Connects to the same address that was checked: a second lookup of the name could return another."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            address = await checked_address(host, port, allow_private=self._allow_private)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be looked up") from error
        return await self._backend.connect_tcp(address, port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
