"""Addresses: which are on the public internet, however they are written."""

from __future__ import annotations

import ipaddress
import threading

import pytest

from gptoss_bento.addresses import ForbiddenAddressError, checked_address, is_public, refuse_private


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.0.9",
        "0.0.0.0",  # noqa: S104
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "::7f00:1",
        "::ffff:0:7f00:1",
        "64:ff9b:1::7f00:1",
        "fec0::1",
        "4000::1",
        "2001:db8::1",
        "198.18.0.1",
        "240.0.0.1",
    ],
)
def test_address_outside_the_public_internet_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_address_on_the_public_internet_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "127.1", "2130706433", "0x7f000001", "0", "169.254.169.254"]
)
async def test_address_of_a_private_host_is_refused_however_it_is_written(host: str) -> None:
    with pytest.raises(ForbiddenAddressError, match="not a public address"):
        await refuse_private(f"http://{host}:8080/x")


@pytest.mark.parametrize("url", ["https://8.8.8.8/", "http://name.invalid/"])
async def test_address_of_a_public_or_unknown_host_passes(url: str) -> None:
    await refuse_private(url)


async def test_address_look_up_does_not_take_the_threads_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def unknown(*_: object, **__: object) -> None:
        threads.append(threading.current_thread())
        raise OSError

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    with pytest.raises(OSError):  # noqa: PT011  # it has no text
        await checked_address("name.invalid", 80, allow_private=False)

    assert threads[0].daemon
