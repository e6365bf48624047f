"""Fakes of the outside world in unit tests: machines with GPUs, and vLLM's application."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.hardware.probe import GIB, Gpu, Hardware

_MIB = 1024**2


def nvidia(name: str, memory_mib: int, architecture: str) -> Gpu:
    """A GPU as NVML describes it."""
    return Gpu("nvidia", name, memory_mib * _MIB, architecture)


# The memory that nvidia-smi shows for each.
T4 = nvidia("Tesla T4", 15360, "sm_75")
L4 = nvidia("NVIDIA L4", 23034, "sm_89")
A100 = nvidia("NVIDIA A100-SXM4-80GB", 81920, "sm_80")
H100 = nvidia("NVIDIA H100 80GB HBM3", 81559, "sm_90")
H200 = nvidia("NVIDIA H200", 143771, "sm_90")
V100 = nvidia("Tesla V100-SXM2-32GB", 32768, "sm_70")
RTX_5090 = nvidia("NVIDIA GeForce RTX 5090", 32607, "sm_120")
MI300X = Gpu("amd", "MI300X", 192 * GIB, "gfx942")
EIGHT_GIB = Gpu("nvidia", "small", 8 * GIB, "sm_86")


def machine(*gpus: Gpu) -> Hardware:
    """A machine with these GPUs; none means a laptop."""
    return Hardware(gpus, cpu_cores=8, memory_bytes=32 * GIB)


@dataclass
class FakeEngineApp:
    """A fake of vLLM's application: echoes every request, and keeps the scopes."""

    scopes: list[Scope] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(dict(scope))
        request = Request(scope, receive)
        echo = {
            "method": scope["method"],
            "path": scope["path"],
            "raw_path": scope["raw_path"].decode(),
            "root_path": scope["root_path"],
            "query": scope["query_string"].decode(errors="replace"),
            "body": (await request.body()).decode(errors="replace"),
        }
        await JSONResponse(echo)(scope, receive, send)


def asgi_client(app: ASGIApp, root_path: str = "") -> httpx.AsyncClient:
    """Calls an ASGI application without a network."""
    transport = httpx.ASGITransport(app, root_path=root_path)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Calls:
    """A fake function: keeps the arguments of every call and returns `result`, or what it computes from them."""

    result: Any = None
    made: list[tuple[Any, ...]] = field(default_factory=list)
    compute: Callable[..., Any] | None = None

    def __call__(self, *args: Any, **named: Any) -> Any:
        self.made.append((*args, *named.values()))
        return self.compute(*args, **named) if self.compute else self.result
