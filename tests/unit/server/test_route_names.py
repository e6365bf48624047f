from __future__ import annotations

import pytest

from gptoss_bento.server.route_names import OTHER, route_name


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v2/any-id/openai/v1/chat/completions", "/v1/chat/completions"),
        ("/openai/v1/models/openai/gpt-oss-20b", "/v1/models/{model}"),
        ("/v1/responses/resp_1/cancel", "/v1/responses/{id}/cancel"),
        ("/status/5f0c-u1", "/status/{id}"),
        ("/v2/any-id/stream/5f0c-u1", "/stream/{id}"),
        ("/run", "/run"),
        ("/generate", "/generate"),
        ("/readyz", "/readyz"),
        ("/", "/"),
        ("/wp-login.php", OTHER),
        ("/status", OTHER),
        ("/v1/nothing", OTHER),
        ("/metrics/x", OTHER),
    ],
)
def test_paths_have_one_of_few_names(path: str, route: str) -> None:
    assert route_name(path) == route
