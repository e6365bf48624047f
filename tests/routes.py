"""Every route of the running application, ours, BentoML's and vLLM's, as method and path."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from starlette.routing import Mount, Route

from gptoss_bento.http import paths
from gptoss_bento.jobs.api import routes as native
from tests.server import REPOSITORY

VLLM_ROUTES = Path(__file__).with_name("vllm_routes.txt")
"""Recorded from vLLM's own application; tests/contract/test_vllm.py compares."""

_PARAMETER = re.compile(r"\{[^}]*\}")
_NOTHING = [
    "/",
    "/nothing",
    "/v1",
    "/v1/nothing",
    "/openai",
    "/openai/nothing",
    "/v2/",
    "/v2/a/nothing",
    "/v2/a/openai",
]


def every_route() -> set[tuple[str, str]]:
    """What is served, under all of its names, and what is not but might be asked for."""
    return {*_ours(), *_bentomls(), *_vllms(), *(("GET", path) for path in _NOTHING)}


def _ours() -> Iterator[tuple[str, str]]:
    openai = [(method, path) for path, methods in paths.ROUTES.items() for method in methods]
    for prefix in ("", "/openai", "/v2/any-id/openai"):
        yield from ((method, prefix + _PARAMETER.sub("x", path)) for method, path in openai)
    for (action, has_job), route in native._ROUTES.items():
        for prefix in ("", "/v2/any-id"):
            yield from ((method, f"{prefix}/{action}{'/abc-u1' if has_job else ''}") for method in route.methods)


_LIST = """
import json, service
from tests.routes import routes_of
print(json.dumps(list(routes_of(service.GptOss.to_asgi().routes))))
"""


def _bentomls() -> Iterator[tuple[str, str]]:
    """In a separate process: importing service.py makes the process a supervisor."""
    command = [sys.executable, "-c", _LIST]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60)
    yield from ((method, path) for method, path in json.loads(ended.stdout.splitlines()[-1]))


def _vllms() -> Iterator[tuple[str, str]]:
    for line in VLLM_ROUTES.read_text().splitlines():
        method, path = line.split()
        yield method, _PARAMETER.sub("x", path)
        yield method, "/openai" + _PARAMETER.sub("x", path)


def routes_of(routes: Iterable[object]) -> Iterator[tuple[str, str]]:
    """Methods and paths of an application's own routes."""
    for route in routes:
        if isinstance(route, Route):
            yield from ((method, _PARAMETER.sub("x", route.path)) for method in sorted(route.methods or {"GET"}))
        elif isinstance(route, Mount) and route.path:
            yield "GET", f"{route.path}/x"
