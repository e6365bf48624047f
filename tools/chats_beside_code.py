"""What code of the model costs other clients: `python -m tools.chats_beside_code --containers 8 --rounds 5`.

Serves the demo model with Python, and measures chats in turns: alone, and while containers compute without an end. The
chats of both have the same questions and lengths; the figures are medians of all rounds, and their ratio.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from tests.server import NO_TLS, ServedProcess, serve

_ENDLESS = "Run this Python code: while True: pass"
_CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 24, "ignore_eos": True}
_CODE_S = 600


@contextmanager
def code_running(served: ServedProcess, count: int) -> Iterator[None]:
    """Inside, so many containers compute; their clients leave at its end."""
    is_over, has_started = threading.Event(), threading.Barrier(count + 1)
    body = {"input": _ENDLESS, "tools": [{"type": "code_interpreter", "container": {"type": "auto"}}], "stream": True}

    def follow() -> None:
        asked = httpx.stream("POST", f"{served.url}/v1/responses", json=body, verify=NO_TLS, timeout=_CODE_S)
        with suppress(httpx.TransportError), asked as answer:
            for line in answer.iter_lines():
                if "code_interpreter_call.interpreting" in line:
                    break
            has_started.wait(_CODE_S)
            is_over.wait(_CODE_S)

    threads = [threading.Thread(target=follow, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    has_started.wait(_CODE_S)
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join(_CODE_S)


def chats(client: httpx.Client, count: int) -> list[float]:
    """Seconds of each."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        client.post("/v1/chat/completions", json=_CHAT).raise_for_status()
        taken.append(time.perf_counter() - started)
    return taken


def main() -> None:
    """Serves, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--containers", type=int, default=8, help="that compute meanwhile")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chats", type=int, default=30, help="of a round, for each of the two")
    arguments = parser.parse_args()
    variables = {"PROFILE": "demo", "PYTHON_TOOL": "on", "PYTHON_TOOL_TIMEOUT_S": str(_CODE_S)}
    variables["OVERRIDE_GENERATION_CONFIG"] = '{"temperature": 0}'
    alone: list[float] = []
    beside: list[float] = []
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder), variables) as served:
        served.wait_until_ready()
        with httpx.Client(base_url=served.url, verify=NO_TLS, timeout=_CODE_S) as client:
            chats(client, arguments.chats)
            for _ in range(arguments.rounds):
                alone += chats(client, arguments.chats)
                with code_running(served, arguments.containers):
                    beside += chats(client, arguments.chats)
    quiet, busy = (1000 * median(each) for each in (alone, beside))
    ratio, count = busy / quiet, arguments.containers
    print(f"a chat: alone {quiet:.0f} ms, beside {count} containers {busy:.0f} ms, {ratio:.2f} times")


if __name__ == "__main__":
    main()
