"""RunPod's SDK for Python."""

from __future__ import annotations

from typing import Any

import runpod
from checks import API_KEY, BASE_URL, TIMEOUT_S, check, run
from runpod.endpoint import Endpoint

runpod.api_key, runpod.endpoint_url_base = API_KEY, f"{BASE_URL}/v2"
ENDPOINT = Endpoint("local")
PROMPT = {"prompt": "The capital of France is", "sampling_params": {"max_tokens": 10, "temperature": 0}}
LONG = {
    "prompt": "Once upon a time",
    "sampling_params": {"n": 4, "temperature": 1, "max_tokens": 3000, "ignore_eos": True},
}


def is_paris(output: Any) -> None:
    assert "Paris" in str(output), output


@check
def run_sync() -> None:
    is_paris(ENDPOINT.run_sync(PROMPT, timeout=int(TIMEOUT_S)))


@check
def run_and_status() -> None:
    job = ENDPOINT.run(PROMPT)
    is_paris(job.output(timeout=int(TIMEOUT_S)))
    assert job.status() == "COMPLETED"


@check
def chat() -> None:
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    is_paris(ENDPOINT.run_sync({"messages": messages, "sampling_params": {"temperature": 0}}, timeout=int(TIMEOUT_S)))


@check
def openai_route() -> None:
    body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
    job = {"openai_route": "/v1/chat/completions", "openai_input": body}
    is_paris(ENDPOINT.run_sync(job, timeout=int(TIMEOUT_S)))


@check
def stream() -> None:
    assert "Paris" in str(list(ENDPOINT.run({**PROMPT, "stream": True}).stream()))


@check
def stream_of_a_failed_job() -> None:
    """Each item that a client gets is shown; a failed job's must say that it failed."""
    items = list(ENDPOINT.run({**PROMPT, "sampling_params": {"temperature": -1}, "stream": True}).stream())
    assert "temperature" in str(items), items


@check
def cancel() -> None:
    job = ENDPOINT.run(LONG)
    job.cancel()
    assert job.status() == "CANCELLED", job.status()


@check
def failed_job() -> None:
    job = ENDPOINT.run({**PROMPT, "sampling_params": {"temperature": -1}})
    job.output(timeout=int(TIMEOUT_S))
    assert job.status() == "FAILED", job.status()


@check
def health() -> None:
    assert "workers" in ENDPOINT.health()


@check
def purge_queue() -> None:
    ENDPOINT.purge_queue()


run()
