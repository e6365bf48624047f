"""Starts `bentoml serve` as a user would, on a free port, and looks at it from outside."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from gptoss_bento.bench.servers import free_port

REPOSITORY = Path(__file__).parents[1]
EXIT_LIMIT_S = 10.0
READY_TIMEOUT_S = 240.0  # two noisy cores; 40 s when nothing else runs
MODEL = "gpt-oss-demo"
# Made once: every httpx client would load the machine's certificates, which takes longer than the request.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True)
class ServedProcess:
    """A running (or ended) `bentoml serve`."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def readiness(self) -> httpx.Response | None:
        """What /readyz says, or None while nothing listens."""
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz", timeout=10, verify=NO_TLS)
        return None

    def wait_until(self, phase: str, timeout_s: float = READY_TIMEOUT_S) -> dict[str, Any]:
        """Waits for a phase of the start, and returns the readiness body that showed it."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"exit code {self.process.returncode}:\n{self.output()[-3000:]}"
            response = self.readiness()
            if response is not None and (body := response.json())["phase"].startswith(phase):
                return dict(body)
            time.sleep(0.1)
        raise AssertionError(f"not in phase {phase!r} after {timeout_s} s:\n{self.output()[-3000:]}")

    def wait_until_ready(self) -> None:
        self.wait_until("ready")

    def wait_until_ended(self, timeout_s: float) -> int:
        """The exit code."""
        return self.process.wait(timeout_s)

    def tree(self) -> list[psutil.Process]:
        """All processes of the service."""
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def workers(self) -> list[psutil.Process]:
        """BentoML's worker processes; the first owns the engine."""
        found = {}
        for process in self.tree():
            words = command_line(process)
            if "_bentoml_impl.worker.service" in words:
                found[int(words[words.index("--worker-id") + 1])] = process
        return [found[number] for number in sorted(found)]

    def worker(self) -> psutil.Process:
        """The worker that owns the engine."""
        return self.workers()[0]

    def engine(self) -> psutil.Process:
        """vLLM's engine process, which names itself once it has imported vLLM."""
        names = ("EngineCore", "multiprocessing.spawn")
        return next(p for p in self.worker().children() if any(name in " ".join(command_line(p)) for name in names))

    def wait_until_engine_loads(self, timeout_s: float = READY_TIMEOUT_S) -> psutil.Process:
        """Waits until vLLM's engine process is there, which then loads for many seconds more."""
        self.wait_until("engine: weights")
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with suppress(StopIteration, psutil.Error):
                return self.engine()
            time.sleep(0.1)
        raise AssertionError(f"no engine process after {timeout_s} s:\n{self.output()[-3000:]}")

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


def command_line(process: psutil.Process) -> list[str]:
    """None of one that has just ended."""
    with suppress(psutil.Error):
        return process.cmdline()
    return []


@contextmanager
def serve(
    folder: Path,
    variables: Mapping[str, str],
    arguments: Sequence[str] = (),
    port: int | None = None,
    service: str = ".",
) -> Iterator[ServedProcess]:
    """Runs the service until the end of the block, and leaves no process of it behind.

    Args:
        folder: for its log and its jobs.
        variables: what it gets beside this process's own.
        arguments: further words for `bentoml serve`.
        port: a free one, unless it is named.
        service: which one, as `bentoml serve` names it.
    """
    port = port or free_port()
    log = folder / f"serve-{port}.log"
    command = [
        sys.executable,
        "-m",
        "bentoml",
        "serve",
        service,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        *arguments,
    ]
    store = f"sqlite:///{folder / 'jobs.sqlite3'}"  # its own: the cache folder's is shared with whatever else runs here
    environment = {**os.environ, "JOB_STORE_URL": store, **variables}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=output, stderr=output)
    served = ServedProcess(process, port, log)
    try:
        yield served
    finally:
        left = served.tree() if process.poll() is None else []
        served.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(15)
        _kill(left)


@contextmanager
def all_processes_end(served: ServedProcess, within_s: float = EXIT_LIMIT_S) -> Iterator[None]:
    """What happens in the block must end the service and every process of it in time."""
    tree = served.tree()
    started = time.monotonic()
    yield
    served.wait_until_ended(within_s)
    remaining = max(within_s - (time.monotonic() - started), 0.1)
    _, alive = psutil.wait_procs(tree, timeout=remaining)
    assert alive == []


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(list(processes), timeout=5)
