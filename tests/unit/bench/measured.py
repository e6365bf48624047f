"""Figures as a measurement would give them, for tests of what is made of them."""

from __future__ import annotations

from gptoss_bento.bench.figures import Figures
from gptoss_bento.bench.report import Comparison, Start
from gptoss_bento.bench.servers import Memory

OURS, SERVE = "gptoss-bento", "vllm serve"


def figures(
    server: str = OURS,
    number: int = 0,
    *,
    streams: int = 8,
    rate: float = 100.0,
    ttft: float = 20.0,
    failed: int = 0,
    compilations: int | None = None,
) -> Figures:
    """Those of a load of 128:256 tokens."""
    throughputs = {"request_throughput": rate / 256, "output_throughput": rate, "total_token_throughput": 1.5 * rate}
    latencies = {"mean_ttft_ms": ttft, "median_ttft_ms": ttft, "p99_ttft_ms": 2 * ttft}
    values = throughputs | (latencies if rate else {})
    completed = 24 if rate else 0
    errors = ("no room",) if failed else ()
    return Figures(
        server, number, streams, 128, 256, completed, failed, 4.0, values, 0.25, 0.0, compilations, None, errors
    )


def start(server: str, ready_s: float = 40.0, memory: float | None = 3000.0) -> Start:
    """A start, with the memory at its end."""
    return Start(server, ready_s, ("python",), None if memory is None else Memory(2 * memory, memory))


def comparison() -> Comparison:
    """Two rounds of two servers at 1 and 64 streams, and three first loads."""
    loads = [
        figures(server, number, streams=streams, rate=streams * rate, ttft=streams)
        for number in (0, 1)
        for streams in (1, 64)
        for server, rate in ((OURS, 300.0 - number), (SERVE, 150.0))
    ]
    first = [
        figures(server, number, streams=64, ttft=100.0 / (number + 1), compilations=7 - number)
        for server in (OURS, SERVE)
        for number in (0, 1, 2)
    ]
    starts = (start(OURS, 50.0), start(SERVE, 40.0, None))
    return Comparison((OURS, SERVE), (50.0, 99.0), starts, tuple(loads), tuple(first))
