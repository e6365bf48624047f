"""Webhooks: sends the end of a job to the client's URL, with retries, to public addresses alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpcore

from gptoss_bento.addresses import ForbiddenAddressError, PublicNetwork
from gptoss_bento.background.tasks import WorkerTasks, logged
from gptoss_bento.concurrency import wait_or_timeout
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.state.job import Webhook
from gptoss_bento.state.store import JobStore

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 1.0
_DELIVERIES_PER_POLL = 20
ATTEMPT_TIMEOUT_S = 10.0


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
    network = PublicNetwork(allow_private=allow_private)
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
