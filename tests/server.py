"""Starts `bentoml serve` as a user would, on a free port, and looks at it from outside."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from gptoss_bento.bench.servers import free_port
from tests.waiting import HANG_S, wait_for

REPOSITORY = Path(__file__).parents[1]
EXIT_LIMIT_S = 10.0
"""What clients are promised from SIGTERM to the end. tools/kills.py measures it; tests wait for the end itself."""
READY_TIMEOUT_S = 600.0
"""A ceiling that only a hang reaches. A start takes 40 s on two cores when nothing else runs."""
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
            return httpx.get(f"{self.url}/readyz", timeout=HANG_S, verify=NO_TLS)
        return None

    def wait_until(self, phase: str) -> dict[str, Any]:
        """Waits until a phase of the start has started, and returns the readiness body that showed it.

        A short phase may have ended before anyone looked.
        """
        bodies: list[dict[str, Any]] = []

        def begun() -> bool:
            assert self.process.poll() is None, f"exit code {self.process.returncode}:\n{self.output()[-3000:]}"
            if (response := self.readiness()) is None:
                return False
            bodies[:] = [response.json()]
            return any(name.startswith(phase) for name in _phases(bodies[0]))

        wait_for(begun, lambda: f"not in phase {phase!r}:\n{self.output()[-3000:]}", READY_TIMEOUT_S)
        return bodies[0]

    def wait_until_ready(self) -> None:
        self.wait_until("ready")

    def wait_until_ended(self, timeout_s: float = READY_TIMEOUT_S) -> int:
        """The exit code."""
        return self.process.wait(timeout_s)

    def wait_for_output(self, words: str) -> None:
        """Waits until the log has these words."""
        wait_for(lambda: words in self.output(), lambda: f"{words!r} is not in the log:\n{self.output()[-3000:]}")

    def tree(self) -> list[psutil.Process]:
        """All processes of the service."""
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]

    def workers(self) -> list[psutil.Process]:
        """BentoML's worker processes; the first owns the engine."""
        found: dict[int, psutil.Process] = {}
        for process in self.tree():
            words = command_line(process)
            if "_bentoml_impl.worker.service" in words:
                # A child of a worker has the same words until it runs its own program; it comes after its parent.
                found.setdefault(int(words[words.index("--worker-id") + 1]), process)
        return [found[number] for number in sorted(found)]

    def worker(self) -> psutil.Process:
        """The worker that owns the engine."""
        return self.workers()[0]

    def engine(self) -> psutil.Process:
        """vLLM's engine process, which names itself once it has imported vLLM."""
        names = ("EngineCore", "multiprocessing.spawn")
        return next(p for p in self.worker().children() if any(name in " ".join(command_line(p)) for name in names))

    def wait_until_engine_loads(self) -> psutil.Process:
        """Waits until vLLM's engine process is there, which then loads for many seconds more."""
        self.wait_until("engine: weights")
        found: list[psutil.Process] = []

        def is_there() -> bool:
            with suppress(StopIteration, psutil.Error):
                found.append(self.engine())
            return bool(found)

        wait_for(is_there, lambda: f"no engine process:\n{self.output()[-3000:]}")
        return found[0]

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


def _phases(body: Mapping[str, Any]) -> list[str]:
    return [body["phase"], *(ended["phase"] for ended in body["phases"])]


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
    store = f"sqlite:///{folder / 'jobs.sqlite3'}"  # its own, in the folder of the test
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
            process.wait(15)  # of a test that failed; the others have waited for the end
        _kill(left)


@contextmanager
def all_processes_end(served: ServedProcess) -> Iterator[None]:
    """What happens in the block must end the service and every process of it."""
    tree = served.tree()
    yield
    served.process.wait(HANG_S)
    _, alive = psutil.wait_procs(tree, timeout=HANG_S)
    assert alive == []


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(list(processes), timeout=HANG_S)
