"""What vLLM's scheduler costs for each request of a step, alone and spared (engine/vllm_plugin/block_bookkeeping.py).

    python -m tools.scheduling --streams 64,256,512 --rounds 3

No model runs, so no GPU is needed. The two take turns, and each figure is the median of its rounds.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time

from tests.vllm_scheduler import SimulatedEngine, spared

_PROMPT, _ANSWER = 128, 256
_BLOCKS = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default="64,256,512", help="concurrent requests, a list")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    logging.getLogger("vllm").setLevel(logging.ERROR)
    print("microseconds a request and step: schedule + update")
    for streams in map(int, arguments.streams.split(",")):
        alone, changed = [], []
        for _ in range(arguments.rounds):
            alone.append(measured(streams))
            with spared():
                changed.append(measured(streams))
        before, after = (_median(each) for each in (alone, changed))
        ratio = sum(after) / sum(before)
        print(f"{streams:5d} streams: alone {_text(before)}, spared {_text(after)}, ratio {ratio:.2f}")


def measured(streams: int) -> tuple[float, float]:
    """Microseconds for each request: of a step's begin, and of its end. Of the steps in which all requests decode."""
    engine = SimulatedEngine(_BLOCKS)
    for i in range(streams):
        engine.add(f"r{i}", [(i * 131 + k) % 5000 for k in range(_PROMPT)], _ANSWER)
    begin, end = [], []
    while engine.busy:
        started = time.perf_counter()
        output = engine.schedule()
        scheduled = time.perf_counter()
        ended = engine.ended()
        ready = time.perf_counter()
        if ended is not None:
            engine.scheduler.update_from_output(*ended)
        if output.total_num_scheduled_tokens == len(output.num_scheduled_tokens) == streams:
            begin.append(scheduled - started)
            end.append(time.perf_counter() - ready)
    return tuple(statistics.mean(each) * 1e6 / streams for each in (begin, end))  # type: ignore[return-value]


def _median(rounds: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(r[0] for r in rounds), statistics.median(r[1] for r in rounds)


def _text(times: tuple[float, float]) -> str:
    return f"{times[0]:.1f} + {times[1]:.1f}"


if __name__ == "__main__":
    main()
