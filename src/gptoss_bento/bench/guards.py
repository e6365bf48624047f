"""What keys and admission cost: one server, asked in turn with its guards and beside them (`bypass.py`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from gptoss_bento.bench import bypass, servers, two_ways
from gptoss_bento.bench.servers import RunningServer
from gptoss_bento.bench.swarm import Route, StreamLoad, swarm
from gptoss_bento.bench.two_ways import Limits, Measured, Shape, Ways

SERVICE = "gptoss_bento.bench.bypassed_service:GptOss"
NAMES = ("with guards", "without")
LIMITS = Limits(least_ratio=0.99, most_ms=0.3)

_KEYS = 10
_KEY = "bench-key-9"
_NEVER = 10**9  # a limit that no benchmark reaches
_LIMITS = {
    **dict.fromkeys(("requests_per_minute", "tokens_per_minute", "streams", "jobs", "max_tokens"), _NEVER),
    "reasoning_effort": "high",
}


def measure(
    variables: Mapping[str, str],
    model: str,
    shape: Shape,
    report: Callable[[str], None],
    keep: Callable[[Measured], None],
) -> Measured:
    """Starts the service with keys that have every limit and asks it both ways.

    Args:
        variables: what the service needs in its environment, beside the keys.
        report: is called with each step.
        keep: is given what there is after each round.

    Raises:
        EngineStartError: the service did not start.
        BenchmarkError: a request failed.
    """
    command = partial(servers.ours, service=SERVICE)
    with _keys() as file, swarm(shape.clients) as clients:
        report("starting the service")
        with servers.started(command, {**variables, "API_KEYS_FILE": str(file)}, _KEY) as server:
            return two_ways.measure(server, _ways(model), clients, shape, report, keep)


@contextmanager
def _keys() -> Iterator[Path]:
    """A file of keys; the last is ours, and so the one with most keys to compare before it."""
    entries = {f"client-{number}": {"key": f"bench-key-{number}", **_LIMITS} for number in range(_KEYS)}
    with TemporaryDirectory() as folder:
        file = Path(folder, "keys.yaml")
        file.write_text(json.dumps(entries))
        yield file


def _ways(model: str) -> Ways:
    def loads(server: RunningServer, max_tokens: int, requests: int) -> tuple[StreamLoad, StreamLoad]:
        ask = partial(StreamLoad, server.base_url, model, Route.COMPLETIONS, True, max_tokens, requests)
        return ask(key=_KEY), ask(query=bypass.QUERY)

    return Ways(NAMES, loads)
