"""Starts this service or bare vLLM, waits until it answers, measures its memory, and ends it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from gptoss_bento.config import process_environment
from gptoss_bento.errors import BenchmarkError, EngineStartError
from gptoss_bento.paths import ROOT

_POLL_S = 0.1
_STOP_TIMEOUT_S = 30.0
_SHOWN_LINES, _SHOWN_WIDTH = 12, 200  # of the output of a server that did not start
_ENGINE_TITLE = "EngineCore"  # part of the title that vLLM gives the engine's process


@dataclass(frozen=True)
class Memory:
    """MiB over all processes: resident (shared pages counted in each) and proportional (shared pages divided)."""

    resident_mib: float
    proportional_mib: float


@dataclass(frozen=True)
class Cpu:
    """Seconds of computing so far: of the engine's processes, and of all others, which serve HTTP or watch those."""

    api_s: float
    engine_s: float

    def since(self, before: Cpu) -> Cpu:
        """What was used between two samples."""
        return Cpu(self.api_s - before.api_s, self.engine_s - before.engine_s)

    def __add__(self, other: Cpu) -> Cpu:
        return Cpu(self.api_s + other.api_s, self.engine_s + other.engine_s)


@dataclass(frozen=True)
class RunningServer:
    """A server that answers."""

    base_url: str
    ready_s: float
    process: psutil.Process
    command: tuple[str, ...] = ()

    def memory(self) -> Memory:
        """What the whole process tree holds now."""
        infos = [process.memory_full_info() for process in (self.process, *self.process.children(recursive=True))]
        return Memory(sum(info.rss for info in infos) / 2**20, sum(info.pss for info in infos) / 2**20)

    def cpu(self) -> Cpu:
        """What the whole process tree has used, in steps of 10 ms a process.

        Raises:
            BenchmarkError: there is no process with vLLM's name for the engine.
        """
        tree = (self.process, *self.process.children(recursive=True))
        engines = [process for process in tree if _ENGINE_TITLE in " ".join(process.cmdline())]
        if not engines:
            raise BenchmarkError(
                f"No process of the server is titled {_ENGINE_TITLE}, so its CPU time cannot be split."
            )
        of_engine = {each for engine in engines for each in (engine, *engine.children(recursive=True))}
        used = {process: sum(process.cpu_times()[:2]) for process in tree}  # user and system
        engine_s = sum(seconds for process, seconds in used.items() if process in of_engine)
        return Cpu(sum(used.values()) - engine_s, engine_s)


def ours(port: int, service: str = ".") -> list[str]:
    """The command of this service, run in the folder of service.py."""
    return [sys.executable, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", str(port)]


def bare_vllm(port: int, argv: Sequence[str], workers: int = 1) -> list[str]:
    """The command of vLLM's own server on the same arguments. Only `vllm serve` starts several API servers."""
    address = ["--host", "127.0.0.1", "--port", str(port)]
    if workers == 1:
        return [sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", *argv, *address]
    model, *rest = (word for word in argv if not word.startswith("--api-server-count="))
    return vllm_serve(port, model.removeprefix("--model="), [*rest, f"--api-server-count={workers}"])


def vllm_serve(port: int, model: str, options: Sequence[str]) -> list[str]:
    """The command `vllm serve`, with these options and none that we would plan."""
    words = ["serve", model, *options, "--host", "127.0.0.1", "--port", str(port)]
    return [sys.executable, "-m", "gptoss_bento.bench.vllm_command", *words]


def free_port() -> int:
    """A port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(
    command: Callable[[int], Sequence[str]],
    variables: Mapping[str, str],
    key: str | None = None,
    log: Path | None = None,
    folder: Path = ROOT,
) -> Iterator[RunningServer]:
    """Runs a server until the end of the block, on a free port; its output stays in a file if something fails.

    Args:
        command: returns the command for a port.
        variables: what it gets beside this process's own variables.
        key: what it wants to see before it answers.
        log: where its output goes, and stays in any case.
        folder: where it runs. That of service.py is the repository, and the src folder's parent in a Bento.

    Raises:
        EngineStartError: it ended, or did not answer in time.
    """
    port = free_port()
    output = log or Path(tempfile.gettempdir()) / f"gptoss-bento-bench-{port}.log"
    with running(command(port), port, process_environment.extended(variables), folder, output, key=key) as server:
        yield server
    if not log:
        output.unlink()


@contextmanager
def running(
    command: Sequence[str],
    port: int,
    variables: Mapping[str, str],
    folder: Path,
    log: Path,
    timeout_s: float = 1200,
    key: str | None = None,
) -> Iterator[RunningServer]:
    """Runs a server until the end of the block; its output goes to `log`.

    Every server gets a separate session, as BentoML's workers have anyway: Linux shares the cores out by session
    (autogroup), and on few cores a client can wait a second for its turn beside a session that keeps them busy.

    Raises:
        EngineStartError: it ended, or did not answer within `timeout_s` seconds.
    """
    started = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            command,
            cwd=folder,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        base_url = f"http://127.0.0.1:{port}/v1"
        _wait_until_answering(base_url, process, log, started + timeout_s, key)
        ready_s = time.perf_counter() - started
        yield RunningServer(base_url, ready_s, psutil.Process(process.pid), tuple(command))
    finally:
        _stop(process)


def _wait_until_answering(
    base_url: str, process: subprocess.Popen[bytes], log: Path, deadline: float, key: str | None
) -> None:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with httpx.Client(base_url=base_url, timeout=5, headers=headers) as client:
        while time.perf_counter() < deadline:
            if process.poll() is not None:
                raise EngineStartError(
                    f"The server ended with exit code {process.returncode}; its output is in {log}.{_last_lines(log)}"
                )
            with suppress(httpx.TransportError):
                if client.get("/models").is_success and _all_workers_ready(client, base_url):
                    return
            time.sleep(_POLL_S)
    raise EngineStartError(f"The server did not answer in time; its output is in {log}.{_last_lines(log)}")


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:]
    return "".join(f"\n    {line[:_SHOWN_WIDTH]}" for line in lines)


def _all_workers_ready(client: httpx.Client, base_url: str) -> bool:
    """With several API workers, this service says so at /readyz, when all of them are; vLLM has no such path."""
    return client.get(base_url.removesuffix("/v1") + "/readyz").status_code != 503


def _stop(process: subprocess.Popen[bytes]) -> None:
    tree = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for left in psutil.wait_procs(tree, timeout=5)[1]:
        with suppress(psutil.NoSuchProcess):
            left.kill()
