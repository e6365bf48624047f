"""Webhooks: what is sent, and where nothing is sent."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from gptoss_bento import addresses
from gptoss_bento.addresses import refuse_private
from gptoss_bento.bench.servers import free_port
from gptoss_bento.jobs import webhooks
from gptoss_bento.jobs.webhooks import webhook_sender
from tests.unit.jobs.receiver import Receiver


async def test_webhook_is_posted_as_json_without_credentials() -> None:
    async with Receiver().listening() as receiver, webhook_sender(allow_private=True) as sender:
        assert await sender.send(receiver.url, b'{"id":"a"}') is None

    head = receiver.heads[0].lower()
    assert receiver.bodies == [{"id": "a"}]
    assert head.startswith("post /hook?x=1 http/1.1\r\n")
    assert "content-type: application/json" in head
    assert "authorization" not in head


@pytest.mark.parametrize("code", [201, 202, 204, 302, 307, 404, 500])
async def test_webhook_needs_a_200_and_follows_no_redirect(code: int) -> None:
    async with Receiver([code]).listening() as receiver, webhook_sender(allow_private=True) as sender:
        assert await sender.send(receiver.url, b"{}") == f"it answered {code}"
    assert len(receiver.bodies) == 1


async def test_webhook_attempt_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "ATTEMPT_TIMEOUT_S", 0.1)
    async with Receiver([0]).listening() as receiver, webhook_sender(allow_private=True) as sender:
        assert await sender.send(receiver.url, b"{}") == "it did not answer within 0.1 s"


async def test_webhook_to_a_closed_port_is_a_problem_not_an_error() -> None:
    async with webhook_sender(allow_private=True) as sender:
        problem = await sender.send(f"http://127.0.0.1:{free_port()}/", b"{}")
    assert problem is not None
    assert problem.startswith("ConnectError")


async def test_webhook_does_not_connect_to_a_private_address() -> None:
    async with Receiver().listening() as receiver, webhook_sender(allow_private=False) as sender:
        problem = await sender.send(receiver.url, b"{}")
    assert problem == "127.0.0.1 leads to 127.0.0.1, which is not a public address"
    assert receiver.bodies == []


async def test_webhook_connects_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["8.8.8.8", "127.0.0.1"])

    async def rebinding(host: str, _: int) -> list[Any]:
        return [ipaddress.ip_address(next(answers))] if host == "rebind.test" else []

    monkeypatch.setattr(addresses, "_addresses", rebinding)
    async with Receiver().listening() as receiver, webhook_sender(allow_private=False) as sender:
        url = receiver.url.replace("127.0.0.1", "rebind.test")
        await refuse_private(url)
        problem = await sender.send(url, b"{}")
    assert problem == "rebind.test leads to 127.0.0.1, which is not a public address"
    assert receiver.bodies == []


async def test_webhook_to_an_unknown_name_is_a_problem_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: Any) -> list[Any]:
        raise socket.gaierror

    monkeypatch.setattr(addresses, "_addresses", unknown)
    async with webhook_sender(allow_private=False) as sender:
        assert await sender.send("http://name.invalid/", b"{}") == "ConnectError: name.invalid cannot be looked up"
