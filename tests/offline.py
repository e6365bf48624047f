"""A service without any network: started, asked through both APIs, timed, ended.

    unshare --net --map-root-user python -m tests.offline [--healthcheck COMMAND] PORT MODEL COMMAND…

Prints what it saw as one line of JSON: with a health check, also its exit code without the service and with it. The
service's own output goes to stderr.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import shlex
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import httpx
import psutil

from tests.server import NO_TLS, READY_TIMEOUT_S
from tests.waiting import HANG_S

_SIOCSIFFLAGS, _UP_AND_RUNNING = 0x8914, 0x41  # netdevice(7)


def turn_loopback_on() -> None:
    """A new network namespace has its loopback device switched off, and no other one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _UP_AND_RUNNING))


def reaches_outside() -> bool:
    """Whether there is a way to any other machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(("192.0.2.1", 9)) == 0  # an address for documents; no packet is sent


def observe(port: int, model: str, command: Sequence[str], healthcheck: Sequence[str] = ()) -> dict[str, Any]:
    """Starts the service and gives its answers, and the seconds from the start until ready and until the first one."""
    stopped = _exit_code(healthcheck)
    started = time.monotonic()
    service = subprocess.Popen(command, stdout=sys.stderr)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", verify=NO_TLS, timeout=HANG_S) as client:
        try:
            _wait(client, service)
            seen: dict[str, Any] = {"reaches_outside": reaches_outside(), "ready_s": time.monotonic() - started}
            question = {"role": "user", "content": "What is the capital of France?"}
            chat = client.post("/v1/chat/completions", json={"model": model, "messages": [question]}).json()
            seen |= {"first_answer_s": time.monotonic() - started, "chat": chat}
            job = client.post("/v2/local/runsync", json={"input": {"prompt": "The capital of France is"}}).json()
            return {**seen, "job": job, "healthcheck": {"stopped": stopped, "ready": _exit_code(healthcheck)}}
        finally:
            _end(service)


def _exit_code(command: Sequence[str]) -> int | None:
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode if command else None


def _wait(client: httpx.Client, service: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if service.poll() is not None:
            raise SystemExit(f"the service ended with {service.returncode}")
        with suppress(httpx.TransportError):
            if client.get("/readyz").status_code == 200:
                return
        time.sleep(0.2)
    raise SystemExit(f"not ready after {READY_TIMEOUT_S:g} s")


def _end(service: subprocess.Popen[bytes]) -> None:
    tree = psutil.Process(service.pid).children(recursive=True) if service.poll() is None else []
    service.terminate()
    with suppress(subprocess.TimeoutExpired):
        service.wait(15)
    service.kill()
    for process in tree:
        with suppress(psutil.NoSuchProcess):
            process.kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--healthcheck", type=shlex.split, default=())
    parser.add_argument("port", type=int)
    parser.add_argument("model")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    said = parser.parse_args()
    turn_loopback_on()
    print(json.dumps(observe(said.port, said.model, said.command, said.healthcheck)))
