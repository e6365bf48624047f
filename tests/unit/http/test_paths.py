from __future__ import annotations

import pytest

from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.http.paths import PROBES, Destination, destination, is_openai_path

ROUTES = {
    "/v1/models": ("GET", "POST"),
    "/v1/models/openai/gpt-oss-20b": ("GET",),
    "/v1/chat/completions": ("POST",),
    "/v1/completions": ("POST",),
    "/v1/responses": ("POST",),
    "/v1/responses/input_tokens": ("POST",),
    "/v1/responses/compact": ("POST",),
    "/v1/responses/resp_1": ("GET", "DELETE"),
    "/v1/responses/resp_1/input_items": ("GET",),
    "/v1/responses/resp_1/cancel": ("POST",),
    "/v1/conversations": ("POST",),
    "/v1/conversations/conv_1": ("GET", "POST", "DELETE"),
    "/v1/conversations/conv_1/items": ("GET", "POST"),
    "/v1/conversations/conv_1/items/msg_1": ("GET", "DELETE"),
    "/v1/files": ("GET", "POST"),
    "/v1/files/file-1": ("GET", "DELETE"),
    "/v1/files/file-1/content": ("GET",),
    "/v1/batches": ("GET", "POST"),
    "/v1/batches/batch_1": ("GET",),
    "/v1/batches/batch_1/cancel": ("POST",),
    "/v1/messages": ("POST",),
    "/v1/messages/count_tokens": ("POST",),
    "/tokenize": ("POST",),
    "/detokenize": ("POST",),
    "/version": ("GET",),
}
PREFIXES = ["", "/openai", "/v2/my-endpoint_1/openai"]

# Routes of vLLM that change the server, or that reach inside.
ADMINISTRATIVE = [
    "/scale_elastic_ep",
    "/is_scaling_elastic_ep",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
    "/invocations",
    "/pause",
    "/resume",
    "/is_paused",
    "/sleep",
    "/wake_up",
    "/is_sleeping",
    "/reset_prefix_cache",
    "/reset_mm_cache",
    "/collective_rpc",
    "/server_info",
    "/start_profile",
    "/stop_profile",
    "/abort_requests",
    "/init_weight_transfer_engine",
    "/update_weights",
    "/inference/v1/generate",
    "/tokenizer_info",
    "/metrics",
    "/load",
    "/health",
    "/docs",
    "/openapi.json",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(("path", "methods"), ROUTES.items())
def test_routes_exist_at_every_prefix(prefix: str, path: str, methods: tuple[str, ...]) -> None:
    to = destination(prefix + path)
    assert to is not None
    assert (to.path, to.methods) == (path, methods)
    assert is_openai_path(prefix + path)


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("path", ["/tokenize", "/detokenize"])
def test_tokenizing_is_also_found_under_v1(prefix: str, path: str) -> None:
    assert destination(f"{prefix}/v1{path}") == Destination(path, path, ("POST",))


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("path", ADMINISTRATIVE)
def test_administrative_routes_lead_nowhere(prefix: str, path: str) -> None:
    assert destination(prefix + path) is None


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "",
        "/openai",
        "/openai/",
        "/v1",
        "/v1/",
        "/v1/models/",
        "/v1/chat/completions/",
        "/v1/chat/completions/x",
        "//v1/models",
        "/v1//models",
        "/V1/models",
        "/openaiv1/models",
        "/openai/openai/v1/models",
        "/v2/openai/v1/models",
        "/v2//openai/v1/models",
        "/v2/a/v1/models",
        "/v2/a/b/openai/v1/models",
        "/v2/a b/openai/v1/models",
        f"/v2/{'a' * 65}/openai/v1/models",
        "/v2/a/openai",
        "/x/v1/models",
        "/v1/responses/a/b",
        "/v1/responses/a/cancel/b",
        "/v1/conversations/a/b",
        "/v1/conversations/a/items/",
        "/v1/conversations/a/items/b/c",
        "/v1/chat/completions\n",
        "/v1/../pause",
    ],
)
def test_paths_of_others_lead_nowhere(path: str) -> None:
    assert destination(path) is None


def test_endpoint_ids_are_all_accepted_where_none_is_named() -> None:
    assert destination(f"/v2/{'a' * 64}/openai/version") is not None


@pytest.mark.parametrize(("endpoint", "accepted"), [("mine", True), ("other", True), ("min", False), ("Mine", False)])
def test_endpoint_ids_are_refused_unless_named(endpoint: str, accepted: bool) -> None:
    found = destination(f"/v2/{endpoint}/openai/v1/models", {"mine", "other"})

    assert (found is not None) is accepted


@pytest.mark.parametrize("prefix", ["", "/openai"])
def test_named_endpoint_ids_do_not_close_the_other_prefixes(prefix: str) -> None:
    assert destination(f"{prefix}/v1/models", {"mine"}) is not None


@pytest.mark.parametrize(
    ("path", "ours"),
    [
        ("/v1/unknown", True),
        ("/v2/a/openai/unknown", True),
        ("/v2/a/openai", True),
        ("/v2/a/unknown", False),  # the job API's
        ("/v2/a/run", False),
        ("/openai/unknown", True),
        ("/version", True),
        ("/tokenize", True),
        ("/", False),
        ("/v1", False),
        ("/readyz", False),
        ("/metrics", False),
        ("/pause", False),
        ("/v1x/models", False),
    ],
)
def test_paths_below_the_prefixes_are_answered_in_the_openai_shape(path: str, ours: bool) -> None:
    assert is_openai_path(path) is ours


def test_probes_are_what_the_settings_leave_open() -> None:
    assert ServerSettings().public_routes == PROBES
