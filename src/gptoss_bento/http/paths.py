"""Which path leads to which route of vLLM. Pure.

The OpenAI API has three prefixes with the same answers: the usual one, worker-vllm's `/openai`, and RunPod's
`/v2/{endpoint_id}/openai`. Only the routes listed here are reachable; vLLM has more, administrative ones among them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

LIVEZ, READYZ, PING = "/livez", "/readyz", "/ping"
PROBES = (LIVEZ, READYZ, PING)
"""What orchestrators ask, and what needs no key unless PUBLIC_ROUTES says otherwise."""
HEALTHZ = "/healthz"
"""BentoML's own probe beside them."""
DOCS = "/docs.json"
"""The OpenAPI document of all that is served."""
METRICS = "/metrics"

CHAT = "/v1/chat/completions"
CHAT_BATCH = f"{CHAT}/batch"
"""A route of vLLM that only jobs reach: its `messages` are a list of conversations."""
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"
INPUT_TOKENS = f"{RESPONSES}/input_tokens"
CONVERSATIONS = "/v1/conversations"
COMPACT = f"{RESPONSES}/compact"
MESSAGES = "/v1/messages"
COUNT_TOKENS = f"{MESSAGES}/count_tokens"
TOKENIZE = "/tokenize"
FILES = "/v1/files"
BATCHES = "/v1/batches"

_PREFIX = re.compile(r"(?:/v2/(?P<endpoint>[A-Za-z0-9_-]{1,64}))?/openai(?=/)")

ROUTES: dict[str, tuple[str, ...]] = {
    "/v1/models": ("GET", "POST"),  # POST: old READMEs of worker-vllm show it with an empty body
    "/v1/models/{model}": ("GET",),
    CHAT: ("POST",),
    COMPLETIONS: ("POST",),
    RESPONSES: ("POST",),
    INPUT_TOKENS: ("POST",),
    COMPACT: ("POST",),
    f"{RESPONSES}/{{id}}": ("GET", "DELETE"),
    f"{RESPONSES}/{{id}}/input_items": ("GET",),
    f"{RESPONSES}/{{id}}/cancel": ("POST",),
    CONVERSATIONS: ("POST",),
    f"{CONVERSATIONS}/{{id}}": ("GET", "POST", "DELETE"),
    f"{CONVERSATIONS}/{{id}}/items": ("GET", "POST"),
    f"{CONVERSATIONS}/{{id}}/items/{{item}}": ("GET", "DELETE"),
    FILES: ("GET", "POST"),
    f"{FILES}/{{id}}": ("GET", "DELETE"),
    f"{FILES}/{{id}}/content": ("GET",),
    BATCHES: ("GET", "POST"),
    f"{BATCHES}/{{id}}": ("GET",),
    f"{BATCHES}/{{id}}/cancel": ("POST",),
    MESSAGES: ("POST",),
    COUNT_TOKENS: ("POST",),
    TOKENIZE: ("POST",),
    "/detokenize": ("POST",),
    "/version": ("GET",),
}
"""The routes of the OpenAI API that are reachable, and their methods."""

_VARIABLE = {"{model}": ".+", "{id}": "[^/]+", "{item}": "[^/]+"}  # names of models may have slashes


def _pattern(route: str) -> re.Pattern[str]:
    for name, pattern in _VARIABLE.items():
        route = route.replace(name, pattern)
    return re.compile(route)


_PATTERNS = [(_pattern(route), route) for route in ROUTES if "{" in route]
# vLLM has these at the root alone; a client whose base URL ends in /v1 finds them there too.
_ALSO_UNDER_V1 = {"/v1/tokenize": TOKENIZE, "/v1/detokenize": "/detokenize"}


_MESSAGES = re.compile(rf"(?:(?:/v2/[^/]*)?/openai)?{MESSAGES}(?:/|$)")
_OWN_PREFIX = re.compile(r"(/v2/[^/]*)?/openai(/|$)|/v1/")


@dataclass(frozen=True)
class Destination:
    """A path of vLLM's application, its route as a template, and the methods that it takes."""

    path: str
    route: str
    methods: tuple[str, ...]


def destination(path: str, endpoint_ids: Collection[str] = ()) -> Destination | None:
    """Where a request path leads, or None if it is not a path of the OpenAI API.

    Args:
        path: the decoded request path.
        endpoint_ids: the ids accepted in `/v2/{endpoint_id}`; empty means any: clients of RunPod keep theirs.
    """
    if match := _PREFIX.match(path):
        endpoint = match["endpoint"]
        if endpoint and endpoint_ids and endpoint not in endpoint_ids:
            return None
        path = path[match.end() :]
    path = _ALSO_UNDER_V1.get(path, path)
    if path in ROUTES:
        return Destination(path, path, ROUTES[path])
    route = next((route for pattern, route in _PATTERNS if pattern.fullmatch(path)), None)
    return Destination(path, route, ROUTES[route]) if route else None


def is_anthropic_path(path: str) -> bool:
    """Whether Anthropic's SDK calls this path, which has its own shape of errors and its own header for keys."""
    return _MESSAGES.match(path) is not None


def is_openai_path(path: str) -> bool:
    """Whether errors on this path are OpenAI-shaped: everything below the prefixes, known or not.

    Other paths below /v2/ are the job API's, whose errors are shaped otherwise.
    """
    return _OWN_PREFIX.match(path) is not None or destination(path) is not None
