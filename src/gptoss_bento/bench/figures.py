"""From the answers of one load to its figures, named and defined as `vllm bench serve` does. Pure.

TTFT is the time to the first token, TPOT the time per output token after the first, ITL the time between two messages
with tokens, E2EL the time to the last token (vLLM 0.32.0, vllm/benchmarks/serve.py and lib/endpoint_request_func.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from gptoss_bento.bench.compilations import Compilations
from gptoss_bento.bench.token_load import Answers, Sample, TokenLoad

LATENCIES = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2el": "E2EL"}
"""The keys of vLLM's results, and the labels of its report."""

_THROUGHPUTS = {
    "request_throughput": "Request throughput (req/s)",
    "output_throughput": "Output token throughput (tok/s)",
    "total_token_throughput": "Total token throughput (tok/s)",
}


@dataclass(frozen=True)
class Figures:
    """The result of one load on one server.

    Args:
        number: which round, from 0; of the first loads after ready, which of them.
        duration: seconds.
        values: by the keys of vLLM's results, such as `output_throughput` or `p99_ttft_ms`; without a request that
            succeeded, only the throughputs.
        client_busy: the share of the time for which a client process was computing.
        late_s: by how much the last client process began too late.
        compilations: kernels that the server compiled meanwhile, for `compilation_s` seconds; None where it does not
            count them.
        errors: some of the texts of failed requests.
    """

    server: str
    number: int
    streams: int
    input_tokens: int
    output_tokens: int
    completed: int
    failed: int
    duration: float
    values: dict[str, float]
    client_busy: float = 0.0
    late_s: float = 0.0
    compilations: int | None = None
    compilation_s: float | None = None
    errors: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """What was asked; the loads of one shape are compared."""
        return self.streams, self.input_tokens, self.output_tokens

    def as_json(self) -> dict[str, Any]:
        """With the values beside the rest, as in vLLM's results."""
        rest = {name: value for name, value in vars(self).items() if name != "values"}
        return {**rest, "max_concurrency": self.streams, **self.values}


def summarize(
    server: str,
    number: int,
    load: TokenLoad,
    answers: Answers,
    percentiles: Sequence[float],
    processes: int,
    compiled: Compilations | None = None,
) -> Figures:
    """The figures of a load.

    Args:
        percentiles: which to compute, from 0 to 100.
        processes: of the clients.
    """
    seconds = max(answers.seconds, 1e-9)
    return Figures(
        server=server,
        number=number,
        streams=load.streams,
        input_tokens=load.lengths.input_tokens,
        output_tokens=load.lengths.output_tokens,
        completed=len(answers.samples),
        failed=answers.failed,
        duration=answers.seconds,
        values=_throughputs(load, answers.samples, seconds) | _latencies(answers, percentiles),
        client_busy=answers.cpu_s / seconds / min(processes, load.streams),
        late_s=answers.late_s,
        compilations=compiled.number if compiled else None,
        compilation_s=compiled.seconds if compiled else None,
        errors=tuple(answers.errors),
    )


def _throughputs(load: TokenLoad, samples: Sequence[Sample], seconds: float) -> dict[str, float]:
    output = sum(sample.tokens for sample in samples)
    total = output + len(samples) * load.lengths.input_tokens
    counts = (len(samples), output, total)
    return {name: count / seconds for name, count in zip(_THROUGHPUTS, counts, strict=True)}


def _latencies(answers: Answers, percentiles: Sequence[float]) -> dict[str, float]:
    samples = answers.samples
    seconds: dict[str, Sequence[float]] = {
        "ttft": [sample.first_s for sample in samples],
        "tpot": [(each.last_s - each.first_s) / (each.tokens - 1) for each in samples if each.tokens > 1],
        "itl": answers.gaps_s,
        "e2el": [sample.last_s for sample in samples],
    }
    return {key: 1000 * value for name in LATENCIES for key, value in _statistics(name, seconds[name], percentiles)}


def _statistics(name: str, values: Sequence[float], percentiles: Sequence[float]) -> Iterator[tuple[str, float]]:
    if not values:
        return
    ordered = sorted(values)
    yield f"mean_{name}_ms", fmean(ordered)
    yield f"median_{name}_ms", percentile(ordered, 50)
    for each in percentiles:
        yield f"p{each:g}_{name}_ms", percentile(ordered, each)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of values in ascending order, linear between two of them, as numpy computes it."""
    place = (len(ordered) - 1) * percent / 100
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    return below + (above - below) * (place - math.floor(place))


def label(key: str) -> str:
    """The label in vLLM's report of a key of its results."""
    if key in _THROUGHPUTS:
        return _THROUGHPUTS[key]
    statistic, name, _ = key.split("_")
    return f"{statistic.capitalize()} {LATENCIES[name]} (ms)"


def keys(latencies: Sequence[str], percentiles: Sequence[float]) -> list[str]:
    """The keys of the throughputs and of the given latencies, in the order of vLLM's report; p50 is the median."""
    statistics = ["mean", "median", *(f"p{each:g}" for each in percentiles if each != 50)]
    return [*_THROUGHPUTS, *(f"{statistic}_{name}_ms" for name in latencies for statistic in statistics)]
