"""`generate`, BentoML's face of the job API, against the real server."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.server import NO_TLS, ServedProcess
from tests.waiting import HANG_S

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # BentoML's, when it is imported
    import bentoml
    from bentoml import SyncHTTPClient

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

CHAT = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def sdk(server: ServedProcess) -> Iterator[Any]:
    with SyncHTTPClient(server.url, timeout=HANG_S) as client:
        yield client
    client._temp_dir.cleanup()  # else the garbage collector does, and warns


def test_generate_answers_a_chat(sdk: Any) -> None:
    job = sdk.generate(messages=CHAT, sampling_params={"max_tokens": 60, "temperature": 0})

    choice = job["output"][0]["choices"][0]
    assert job["status"] == "COMPLETED"
    assert choice["tokens"] == [choice["message"]["content"]]
    assert job["output"][0]["usage"]["output"] > 0


def test_generate_reports_why_the_engine_refuses(sdk: Any) -> None:
    with pytest.raises(
        bentoml.exceptions.BentoMLException, match="max_tokens must leave room for the prompt"
    ) as refused:
        sdk.generate(prompt="x", sampling_params={"max_tokens": 1_000_000})

    assert refused.value.error_code == 400


def test_openapi_describes_all_that_is_served(server: ServedProcess) -> None:
    document = httpx.get(f"{server.url}/docs.json", timeout=HANG_S, verify=NO_TLS).json()

    for path in ("/generate", "/run", "/v1/chat/completions"):
        assert "requestBody" in document["paths"][path]["post"]
    assert {"GenerateInput", "JobRequest", "ChatCompletionRequest"} <= document["components"]["schemas"].keys()
