"""What prometheus_client's values in files are made of is still so, and they add up as before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import asyncio
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.multiprocess import MultiProcessCollector
from gptoss_bento.workers import buffered_metrics as metric_files

def read(name, **labels):
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return registry.get_sample_value(name, labels)

async def main():
    counter, histogram = Counter("tokens", "", registry=None), Histogram("gaps", "", registry=None)
    gauge = Gauge("running", "", registry=None, multiprocess_mode="sum")
    counter.inc(2)
    metric_files._WRITE_S = 0.05
    async with metric_files.written_later():
        counter.inc(3)
        histogram.observe(0.2)
        gauge.set(7)
        print(read("tokens_total"), counter._value.get())
        while read("tokens_total") != 5:
            await asyncio.sleep(0.01)
        print(read("tokens_total"), read("gaps_sum"), read("gaps_count"), read("running"))
        later = Counter("later", "", ["how"], registry=None).labels("well")
        later.inc()
        gauge.dec()
    print(read("later_total", how="well"), read("running"))
    counter.inc()
    print(read("tokens_total"))

asyncio.run(main())
"""


def test_counts_are_written_a_moment_later_and_at_the_end(tmp_path: Path) -> None:
    found = _run(SCRIPT, {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)})

    assert found.stdout.splitlines() == ["2.0 5.0", "5.0 0.2 1.0 7.0", "1.0 6.0", "6.0"], found.stderr


def test_counts_in_the_process_stay_as_they_are() -> None:
    script = """
import asyncio
from prometheus_client import Counter
from gptoss_bento.workers import buffered_metrics as metric_files

async def main():
    own = Counter("a", "")
    async with metric_files.written_later():
        own.inc()
    print(own._value.get())

asyncio.run(main())
"""
    assert _run(script, {}).stdout.strip() == "1.0"


def _run(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", script]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60, check=False)
