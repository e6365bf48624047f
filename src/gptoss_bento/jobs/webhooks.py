"""Webhooks: sends the end of a job to the client's URL, with retries, and refuses URLs that are not public."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpcore

from gptoss_bento.background.tasks import WorkerTasks, logged
from gptoss_bento.concurrency import wait_or_timeout
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.state.job import Webhook
from gptoss_bento.state.store import JobStore

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0
_DELIVERIES_PER_POLL = 20
ATTEMPT_TIMEOUT_S = 10.0
_LOOKUP_TIMEOUT_S = 0.5  # while a client waits for the answer of /run
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Services of the host at addresses that look public, at least to some Pythons: Azure's metadata; IETF's and Oracle's.
_HOST_SERVICES = [ipaddress.ip_network(network) for network in ("168.63.129.16/32", "192.0.0.0/24")]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ForbiddenAddressError(Exception):
    """A webhook leads to an address that is not public."""


async def refuse_private(url: str) -> None:
    """Checks the target of a webhook when a job is accepted.

    A name that cannot be looked up in time passes, because the address is checked again at each attempt.

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
    return address.is_global and not address.is_multicast and not any(address in network for network in _HOST_SERVICES)


def _wrapped(address: Address) -> Address | None:
    """The IPv4 address to which a gateway would route an IPv6 one."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)


async def _addresses(host: str, port: int) -> list[Address]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found]


def _refuse_private(host: str, addresses: Iterable[Address]) -> None:
    for address in addresses:
        if not is_public(address):
            raise ForbiddenAddressError(f"{host} leads to {address}, which is not a public address")


class _PublicNetwork(httpcore.AsyncNetworkBackend):
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
            addresses = await _addresses(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} cannot be looked up") from error
        if not self._allow_private:
            _refuse_private(host, addresses)
        return await self._backend.connect_tcp(str(addresses[0]), port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class WebhookSender:
    """Posts job objects. It follows no redirects and sends no credentials; only 200 counts as received."""

    def __init__(self, pool: httpcore.AsyncConnectionPool) -> None:
        self._pool = pool

    async def send(self, url: str, body: bytes) -> str | None:
        """Tries once, for at most ATTEMPT_TIMEOUT_S. Returns None if it was received, else what went wrong."""
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                async with self._pool.stream("POST", url, headers=_headers(url), content=body) as response:
                    return None if response.status == 200 else f"it answered {response.status}"
        except TimeoutError:
            return f"it did not answer within {ATTEMPT_TIMEOUT_S:g} s"
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        except ForbiddenAddressError as error:
            return str(error)


def _headers(url: str) -> list[tuple[str | bytes, str | bytes]]:
    return [
        ("Host", urlsplit(url).netloc.rpartition("@")[2]),
        ("Content-Type", "application/json"),
        ("User-Agent", "gptoss-bento"),
        ("Connection", "close"),
    ]


@asynccontextmanager
async def webhook_sender(*, allow_private: bool) -> AsyncIterator[WebhookSender]:
    """A sender; its connections are closed on leaving."""
    network = _PublicNetwork(allow_private=allow_private)
    async with httpcore.AsyncConnectionPool(
        network_backend=network, max_connections=20, max_keepalive_connections=0
    ) as pool:
        yield WebhookSender(pool)


class WebhookDelivery:
    """Sends the webhooks that are due, and retries those that fail.

    Args:
        store: says which are due.
        settings: how often a delivery is retried, and after which time.
        sender: sends one.
        tasks: of this worker; deliveries run among them.
    """

    def __init__(self, store: JobStore, settings: ServerSettings, sender: WebhookSender, tasks: WorkerTasks) -> None:
        self._store = store
        self._settings = settings
        self._sender = sender
        self._tasks = tasks
        self._may_be_due = asyncio.Event()

    def wake(self) -> None:
        """A webhook may be due now, or the worker stops: the next poll happens immediately."""
        self._may_be_due.set()

    async def run(self) -> None:
        """Delivers until the worker stops."""
        while not self._tasks.stopping.is_set():
            self._may_be_due.clear()
            with logged("webhooks"):
                await self._deliver_due()
            await wait_or_timeout(self._may_be_due, POLL_INTERVAL_S)

    async def _deliver_due(self) -> None:
        lease_ms = int(3 * ATTEMPT_TIMEOUT_S * 1000)
        for webhook in await self._store.due_webhooks(_DELIVERIES_PER_POLL, lease_ms):
            self._tasks.spawn(self._deliver(webhook))

    async def _deliver(self, webhook: Webhook) -> None:
        with logged("a webhook"):
            job, items = await self._store.snapshot(webhook.job_id)
            if job is None or not job.status.is_terminal:
                return
            problem = await self._sender.send(webhook.url, job.body(items).encode())
            retried = problem is not None and webhook.attempt <= self._settings.webhook_retries
            if problem:
                end = "" if retried else "; given up"
                logger.warning("webhook of job %s, attempt %d: %s%s", job.id, webhook.attempt, problem, end)
            await self._store.settle(webhook, self._settings.webhook_retry_delay_ms if retried else None)
