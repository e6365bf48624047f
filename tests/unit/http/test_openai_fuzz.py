"""Whatever comes in on its way to vLLM's application, the answer is a documented one in its API's shape, nothing is
raised, no place stays taken, and what reaches the engine is within its key's limits. How many: tools/fuzzing.py.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.types import ASGIApp, Scope

from gptoss_bento.access.admission import Admission
from gptoss_bento.access.admission_middleware import AdmissionMiddleware
from gptoss_bento.access.authentication import Authentication
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.access.runpod_limits import RunPodLimits
from gptoss_bento.config.api_keys import Key, KeyLimits, digest
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.http.error_boundary import ErrorBoundary
from gptoss_bento.http.errors import not_found
from gptoss_bento.http.openai_dispatch import OpenAIApi
from gptoss_bento.http.paths import (
    CHAT,
    COMPLETIONS,
    CONVERSATIONS,
    MESSAGES,
    RESPONSES,
    ROUTES,
    is_anthropic_path,
    is_openai_path,
)
from gptoss_bento.http.shutdown_gate import ShutdownGate
from gptoss_bento.responses.routes import ResponsesApi
from gptoss_bento.responses.stored_responses import StoredResponses
from gptoss_bento.server.route_names import OTHER, route_name
from gptoss_bento.state.clock import now_ms
from gptoss_bento.state.database import connect
from gptoss_bento.state.migrations import migrate
from gptoss_bento.state.response_store import ResponseStore
from gptoss_bento.workers.graceful_shutdown import GracefulShutdown
from tests.fakes import FakeEngineApp
from tests.unit.http.test_paths import PREFIXES
from tools.fuzzing import FUZZ, SCALARS, exchanged, fuzz_round

__all__ = ["fuzz_round"]

SETTINGS = ServerSettings(max_openai_requests=1, max_openai_body_bytes=80_000, client_timeout=1)
MOST_TOKENS = 9
LIMITS = {
    "free": KeyLimits(),
    "capped": KeyLimits(max_tokens=MOST_TOKENS, reasoning_effort="low", streams=1, tokens_per_minute=1000),
    "slow": KeyLimits(requests_per_minute=1),
}
DOCUMENTED = {200, 400, 401, 404, 405, 413, 429}
"""Of a server that runs; 503 while it does not."""


class Begun(GracefulShutdown):
    """That of a service that stops."""

    @property
    def begun(self) -> bool:
        return True


@dataclass
class Service:
    """The way to the engine as service.py puts it together, without what BentoML has there."""

    has_keys: bool = False
    loads: bool = False
    stops: bool = False
    responses: StoredResponses | None = None

    def __post_init__(self) -> None:
        self.engine = FakeEngineApp()
        admission = Admission()
        engine = ResponsesApi(self.engine, self.responses) if self.responses else self.engine
        guarded = AdmissionMiddleware(lambda: None if self.loads else engine, admission, SETTINGS).app
        keys = [Key(name, (digest(name),), limits) for name, limits in LIMITS.items()]
        app: ASGIApp = Starlette(exception_handlers={404: not_found})
        app = OpenAIApi(app, guarded)
        app = ShutdownGate(app, Begun() if self.stops else GracefulShutdown())
        app = RunPodLimits(app, admission) if self.responses else app
        self.app: ASGIApp = ErrorBoundary(Authentication(app, KeyStore(keys if self.has_keys else ())), 60)

    async def answer(self, scope: Scope, body: bytes, *, leaves: bool) -> tuple[int, Any] | None:
        """Status and JSON, by `exchanged`; None to a client that left before its body's end."""
        self.engine.scopes.clear()
        sent = await exchanged(self.app, scope, body, leaves=leaves)
        if leaves and not sent:
            return None
        start, *rest = sent
        assert [message["type"] for message in sent] == ["http.response.start", *["http.response.body"] * len(rest)]
        assert [bool(message.get("more_body")) for message in rest] == [True] * (len(rest) - 1) + [False]
        return start["status"], json.loads(b"".join(message["body"] for message in rest))


@pytest.fixture(scope="module")
def responses(tmp_path_factory: pytest.TempPathFactory) -> StoredResponses:
    """With an empty store."""
    database = connect(None, tmp_path_factory.mktemp("responses") / "jobs.sqlite3")
    asyncio.run(migrate(database))
    return StoredResponses(ResponseStore(database, now_ms), "worker", 3600, 1000, "model")


@pytest.fixture(scope="module")
def services(responses: StoredResponses) -> dict[str, Service]:
    """One of each kind for all examples."""
    return {
        "open": Service(),
        "with keys": Service(has_keys=True),
        "with a store": Service(has_keys=True, responses=responses),
        "loading": Service(has_keys=True, loads=True),
        "stopping": Service(stops=True),
    }


NATIVE = ["/", "/nowhere", "/v1", "/openai", "/v2/x", "/status/x"]
SEGMENTS = st.sampled_from(["v1", "v2", "openai", "models", "responses", "..", "", "cancel"]) | st.text(max_size=6)
KNOWN = st.tuples(st.sampled_from(PREFIXES), st.sampled_from(list(ROUTES)), st.text(min_size=1, max_size=8)).map(
    lambda parts: parts[0] + parts[1].replace("{model}", parts[2]).replace("{id}", parts[2]).replace("{item}", parts[2])
)
PATHS = KNOWN | st.sampled_from(NATIVE) | st.lists(SEGMENTS, max_size=6).map(lambda parts: "/" + "/".join(parts))
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS", "get", "X"])
HEADERS = st.lists(
    st.tuples(
        st.sampled_from([b"host", b"authorization", b"x-api-key", b"content-type", b"content-length", b"x"]),
        st.binary(max_size=12) | st.sampled_from([b"[", b"[::1", b"a:b:c", b"a/b", b"Bearer", b"Bearer capped"]),
    ),
    max_size=4,
)
KINDS = st.sampled_from(["open", "with keys", "with a store", "loading", "stopping"])


def scope_of(method: str, path: str, headers: list[tuple[bytes, bytes]], query: bytes = b"") -> Scope:
    return {
        "type": "http",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query,
        "headers": headers,
        "server": ("127.0.0.1", 3000),
        "client": ("127.0.0.1", 4000),
    }


def check_answer(kind: str, path: str, status: int, answer: Any) -> None:
    """The status is one that may be, and an error has the fields that the SDK of its API reads."""
    assert status in DOCUMENTED or (status == 503 and kind in ("loading", "stopping")), answer
    if status == 200:
        return
    error = answer["error"]
    if not is_openai_path(path):
        assert error
        assert isinstance(error, str)
        return
    assert len(error["message"]) < 1000
    assert "This server may have" not in error["message"], "a place was not given back"
    if is_anthropic_path(path):
        assert answer["type"] == "error"
        assert error.keys() == {"message", "type"}
    else:
        assert error.keys() == {"message", "type", "param", "code"}
        assert error["code"] == status


@FUZZ
@given(KINDS, METHODS, PATHS, HEADERS, st.binary(max_size=20), st.binary(max_size=20), st.booleans())
@example("open", "GET", "/nowhere", [(b"host", b"[")], b"", b"", False)
@example("open", "GET", "/nowhere", [], b"\xff", b"", False)
async def test_requests_of_any_kind_get_a_documented_answer(
    services: dict[str, Service],
    kind: str,
    method: str,
    path: str,
    headers: list[tuple[bytes, bytes]],
    query: bytes,
    body: bytes,
    leaves: bool,
) -> None:
    if found := await services[kind].answer(scope_of(method, path, headers, query), body, leaves=leaves):
        check_answer(kind, path, *found)
    assert route_name(path) in {OTHER, *ROUTES} or not is_openai_path(path)


TOKENS = {CHAT: "max_completion_tokens", COMPLETIONS: "max_tokens", RESPONSES: "max_output_tokens"}
FIELDS = ["max_tokens", "max_completion_tokens", "max_output_tokens", "reasoning_effort", "reasoning", "output_config"]
OTHERS = ["effort", "background", "previous_response_id", "stream", "n", "model", "messages", "prompt", "input"]
PLACES = [
    "tools",
    "store",
    "metadata",
    "format",
    "id",
    "request_id",
    "role",
    "content",
    "type",
    "text",
    "output",
    "system",
    "chat_template_kwargs",
    "guided_json",
    "context_management",
]
STORED = ["tools", "store", "metadata", "format", "id", "request_id", "role"]
NAMES = st.sampled_from([*FIELDS, *OTHERS, *PLACES, *STORED]) | st.text(max_size=4)
LEAVES = SCALARS | st.integers(0, 20) | st.sampled_from(["none", "text", "image_url", "low", "medium", "high"])
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=6
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=5)
DEPTHS = st.integers(1, 3999)
DEEP = st.tuples(NAMES, DEPTHS).map(lambda deep: f"{{{json.dumps(deep[0])}:{'[' * deep[1]}{']' * deep[1]}}}".encode())
JSON = (OBJECTS | VALUES).map(lambda value: json.dumps(value).encode())
BODIES = JSON | DEEP | st.tuples(JSON, st.integers(0, 40)).map(lambda cut: cut[0][: cut[1]]) | st.binary(max_size=30)


def deep(name: str, depth: int) -> bytes:
    return f'{{"{name}":{"[" * depth}{"]" * depth}}}'.encode()


@FUZZ
@given(KINDS, st.sampled_from(PREFIXES), st.sampled_from([CHAT, COMPLETIONS, RESPONSES, MESSAGES]), BODIES)
@example("open", "", CHAT, b" " * 80_001)
@example("with keys", "", CHAT, deep("max_tokens", 800))
@example("open", "", CHAT, b'{"n": 2, "seed": NaN}')
@example("open", "", CHAT, b'{"\\ud800": 1, "chat_template_kwargs": {"reasoning_effort": "low"}}')
@example("open", "", CHAT, b'{"chat_template_kwargs": {"\\ud800": 1}}')
@example("stopping", "", CHAT, b'{"%s": 1}' % (b"x" * 70_000))
@example("open", "", COMPLETIONS, b'{"prompt": ["", ""]}')
@example("with a store", "", RESPONSES, deep("input", 3000))
@example("with a store", "", RESPONSES, b'{"previous_response_id":"\\ud800"}')
@example("with a store", "", RESPONSES, b'{"previous_response_id":"\\u0000?#"}')
@example("with a store", "", RESPONSES, b'{"previous_response_id":"%s"}' % (b"x" * 70_000))
async def test_bodies_of_any_kind_reach_the_engine_within_the_keys_limits_or_are_refused(
    services: dict[str, Service], kind: str, prefix: str, route: str, body: bytes
) -> None:
    name = b"x-api-key" if route == MESSAGES else b"authorization"
    scope = scope_of("POST", prefix + route, [(name, b"capped")])
    found = await services[kind].answer(scope, body, leaves=False)

    assert found
    check_answer(kind, prefix + route, *found)
    if found[0] == 200:
        check_is_one(route, found[1]["body"])
    if found[0] == 200 and kind == "with keys":
        check_limits(route, json.loads(found[1]["body"]))


ITEMS = st.dictionaries(NAMES, VALUES, max_size=5) | st.just({"role": "user", "content": "x"})
CONVERSED = st.fixed_dictionaries({}, optional={"items": st.lists(ITEMS, max_size=3) | VALUES, "metadata": VALUES})


@FUZZ
@given(st.sampled_from(["", "/x", "/x/items"]), BODIES | CONVERSED.map(lambda fields: json.dumps(fields).encode()))
@example("", deep("items", 3000))
@example("", b'{"items": [%s1%s]}' % (b'{"a":' * 900, b"}" * 900))
@example("", b'{"items": [{"role": "user", "content": "\\ud800", "id": "\\u0000"}]}')
@example("", b'{"items": [{"type": "item_reference", "id": "\\ud800"}]}')
@example("", b'{"items": [{"role": "user", "content": ["x", null]}, {"type": 7, "content": {"a": 1}}]}')
@example("", b'{"metadata": {"\\ud800": "\\ud800"}}')
async def test_bodies_of_any_kind_make_a_conversation_or_are_refused(
    services: dict[str, Service], path: str, body: bytes
) -> None:
    scope = scope_of("POST", f"{CONVERSATIONS}{path}", [(b"authorization", b"free")])
    found = await services["with a store"].answer(scope, body, leaves=False)

    assert found
    check_answer("with a store", CONVERSATIONS, *found)
    if found[0] == 200:
        items = scope_of("GET", f"{CONVERSATIONS}/{found[1]['id']}/items", [(b"authorization", b"free")])
        listed = await services["with a store"].answer(items, b"", leaves=False)
        assert listed
        assert (path, listed[0], listed[1]["object"]) == ("", 200, "list")


def check_is_one(route: str, body: str) -> None:
    """`SETTINGS` have one place, so several generations come in nowhere. Read as FastAPI does."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return
    if isinstance(asked, dict) and route in (CHAT, COMPLETIONS):
        n, prompt = asked.get("n"), asked.get("prompt")
        assert not (isinstance(n, (int, float)) and float(n).is_integer() and n > 1)
        assert not (
            route == COMPLETIONS and isinstance(prompt, list) and len(prompt) > 1 and isinstance(prompt[0], str)
        )


def check_limits(route: str, asked: dict[str, Any]) -> None:
    given = [asked.get(name) for name in {TOKENS.get(route, "max_tokens"), *(["max_tokens"] * (route == CHAT))}]
    most = [number for number in given if number is not None]
    assert most
    assert all(type(number) is int and number <= MOST_TOKENS for number in most)
    outer = {CHAT: asked, RESPONSES: asked.get("reasoning"), MESSAGES: asked.get("output_config")}.get(route)
    name = "reasoning_effort" if route == CHAT else "effort"
    if isinstance(outer, dict):  # what is none the engine refuses
        assert outer.get(name) not in (None, "medium", "high")
