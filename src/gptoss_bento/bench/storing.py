"""What storing costs: /v1/responses of one server, asked in turn with `store: true` and `store: false`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from gptoss_bento.bench import servers, two_ways
from gptoss_bento.bench.servers import RunningServer
from gptoss_bento.bench.swarm import Route, StreamLoad, swarm
from gptoss_bento.bench.two_ways import Limits, Measured, Shape, Ways

NAMES = ("stored", "not stored")
LIMITS = Limits(least_ratio=0.98, most_ms=1.0)


def measure(
    variables: Mapping[str, str],
    model: str,
    shape: Shape,
    report: Callable[[str], None],
    keep: Callable[[Measured], None],
) -> Measured:
    """Starts the service and asks it both ways.

    Args:
        variables: what the service needs in its environment.
        report: is called with each step.
        keep: is given what there is after each round.

    Raises:
        EngineStartError: the service did not start.
        BenchmarkError: a request failed.
    """
    with swarm(shape.clients) as clients:
        report("starting the service")
        with servers.started(servers.ours, variables) as server:
            return two_ways.measure(server, _ways(model), clients, shape, report, keep)


def _ways(model: str) -> Ways:
    def loads(server: RunningServer, max_tokens: int, requests: int) -> tuple[StreamLoad, StreamLoad]:
        ask = partial(StreamLoad, server.base_url, model, Route.RESPONSES, True, max_tokens, requests)
        return ask(store=True), ask(store=False)

    return Ways(NAMES, loads)
