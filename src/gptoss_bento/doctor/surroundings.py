"""What the operating system and other servers provide: port, file and shared-memory limits, tool servers."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path

from gptoss_bento.artifacts import writable_folders
from gptoss_bento.config import tool_server
from gptoss_bento.doctor import mcp_handshake
from gptoss_bento.doctor.finding import Finding, error, note, ok, warning
from gptoss_bento.errors import AddressInUseError, EngineStartError, MachineError
from gptoss_bento.hardware.probe import MIB

DEFAULT_PORT = 3000
"""The port that `bentoml serve` binds by default."""

ENOUGH_FILES = 65535
"""What vLLM's own server raises the limit to; BentoML does not raise it."""

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - no temporary file
_BROADCAST_MIB = 160  # vLLM 0.32's queue to its workers: 10 chunks of VLLM_MQ_MAX_CHUNK_BYTES_MB, 16 …
_RESPONSE_MIB = 240  # … and the queue back from each: 10 chunks of 24


def check_port(port: int, host: str = "") -> Iterator[Finding]:
    """Whether the port can be bound, the way BentoML's supervisor binds it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((host, port))
            candidate.listen(1)
        except OSError as reason:
            yield _no_port(port, reason)
        else:
            yield ok("port", f"{port} is free")


def _no_port(port: int, reason: OSError) -> Finding:
    if reason.errno == errno.EADDRINUSE:
        found, remedy = f"{port} is in use by another process", f"Find it with: ss -ltnp 'sport = :{port}'."
    else:
        found, remedy = f"{port} cannot be bound: {reason.strerror}", "Ports below 1024 need privileges."
    return error("port", found, f"{remedy} Or choose another one with --port.", AddressInUseError)


def check_open_files(has_gpus: bool, limits: tuple[int, int] | None = None) -> Iterator[Finding]:
    """Whether many clients can be connected at the same time: each connection is an open file.

    Args:
        has_gpus: whether many connections are to be expected.
        limits: (soft, hard) numbers of open files, as `getrlimit` returns them; of this process, if not given.
    """
    soft, hard = limits or resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= ENOUGH_FILES:
        yield ok("open files", "no limit" if soft == resource.RLIM_INFINITY else f"limit {soft:,}")
        return
    possible = ENOUGH_FILES if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_FILES)
    own_way = f"Before the start: ulimit -n {possible}" if possible > soft else "The hard limit is as low: ask root"
    remedy = f"{own_way}; with Docker: --ulimit nofile={ENOUGH_FILES}"
    found = f"limit {soft:,}, and every connection takes one"
    yield warning("open files", found, remedy) if has_gpus else note("open files", found, remedy)


BENTOML_FOLDERS = ("bentos", "models", "envs", "tmp")
"""What BentoML makes in BENTOML_HOME when it starts."""


def check_folders(cache: Path, variables: Mapping[str, str], has_job_store: bool) -> Iterator[Finding]:
    """Whether this user may write where the service does.

    Args:
        cache: GPTOSS_BENTO_CACHE.
        variables: those of the process.
        has_job_store: whether JOB_STORE_URL names a database, so that none is in the cache.
    """
    home = Path(variables.get("BENTOML_HOME") or Path(variables.get("HOME") or "~").expanduser() / "bentoml")
    missing = [home / name for name in BENTOML_FOLDERS if not (home / name).is_dir()]
    needed = [(path, "BENTOML_HOME") for path in missing[:1]]
    needed += [] if has_job_store else [(cache / "jobs", "GPTOSS_BENTO_CACHE")]
    needed += [(Path(files), "FILES_DIR")] if (files := variables.get("FILES_DIR")) else []
    refused = [(reason, variable) for path, variable in needed if (reason := writable_folders.obstacle(path))]
    for reason, variable in refused:
        yield error("folders", reason, f"{writable_folders.REMEDY} in {variable}.", MachineError)
    if not refused:
        yield ok("folders", f"{cache} and {home} can be written by uid {os.geteuid()}")


def check_shared_memory(ranks: int, free_bytes: int | None = None) -> Iterator[Finding]:
    """Whether vLLM's processes can exchange messages; with one rank they need no shared memory.

    Args:
        ranks: GPUs that share the model.
        free_bytes: of /dev/shm; asked for, if not given.
    """
    free = (_free_shared_memory() if free_bytes is None else free_bytes) // MIB
    needed = _BROADCAST_MIB + ranks * _RESPONSE_MIB
    if ranks > 1 and free < needed:
        found = f"{_SHARED_MEMORY} has {free:,} MiB free; {ranks} ranks need {needed:,} and NCCL some more"
        remedy = "Docker: --ipc=host or --shm-size=8g; Kubernetes: an emptyDir of medium Memory at /dev/shm"
        yield error("shared memory", found, remedy, EngineStartError)
    else:
        yield ok("shared memory", f"{_SHARED_MEMORY} has {free:,} MiB free")


def _free_shared_memory() -> int:
    return shutil.disk_usage(_SHARED_MEMORY).free


def check_tool_server(server: str, timeout_s: float, network: bool = True) -> Iterator[Finding]:
    """One item of TOOL_SERVER, a server that vLLM connects to when it starts.

    Args:
        server: host:port.
        timeout_s: seconds for the connection.
        network: whether to connect.
    """
    if network:
        yield _tool_server(server, timeout_s)
    else:
        yield note("tool server", f"{server} not asked (--offline)")


def _tool_server(server: str, timeout_s: float) -> Finding:
    if not tool_server.is_address(server):
        return error("tool server", f"{server!r} is not host:port", "For example: TOOL_SERVER=localhost:8001")
    host, _, port = server.partition("/")[0].rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout_s).close()
    except OSError as reason:
        found = f"{server} cannot be reached: {reason.strerror or reason}"
        return error("tool server", found, "Start it, or correct TOOL_SERVER.", EngineStartError)
    return _offer(server, timeout_s)


def _offer(server: str, timeout_s: float) -> Finding:
    """What a server that listens offers, and whether vLLM can use it."""
    try:
        offer = mcp_handshake.offer(server, timeout_s)
    except TimeoutError:
        found = f"{server} listens, and has not answered as a tool server within {timeout_s:g} s"
        return warning("tool server", found, "It must offer MCP over SSE at /sse; doctor --timeout waits longer.")
    except Exception as failure:
        found = f"{server} listens, and is no tool server: {tool_server.reason(failure)}"
        return error("tool server", found, "It must offer MCP over SSE at /sse.", EngineStartError)
    if problem := tool_server.name_problem(offer.name):
        return error("tool server", f"{server}: {problem}", "Name it so, or unset TOOL_SERVER.", EngineStartError)
    kind = tool_server.asked_for_by(offer.name)
    return ok("tool server", f"{server} is {offer.name} ({', '.join(offer.tools)}), for requests with {kind}")
