"""Every request that worker-vllm's documents show gets the answer it must get; worker_examples.yaml has them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.server import MODEL, NO_TLS, ServedProcess
from tests.waiting import HANG_S

pytestmark = pytest.mark.engine

EXAMPLES = yaml.safe_load(Path(__file__).with_name("worker_examples.yaml").read_text())
Example = dict[str, Any]


def name_of(example: Example) -> str:
    return str(example["name"])


@pytest.fixture(scope="module")
def http(server: ServedProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=HANG_S, verify=NO_TLS) as client:
        yield client


def filled(value: Any) -> Any:
    """The request, with the served model's name for MODEL and a seed beside every temperature."""
    if isinstance(value, list):
        return [filled(item) for item in value]
    if not isinstance(value, dict):
        return MODEL if value == "MODEL" else value
    fields = {name: filled(item) for name, item in value.items()}
    return {"seed": 7, **fields} if (fields.get("temperature") or 0) > 0 else fields


def job_of(http: httpx.Client, example: Example) -> httpx.Response:
    """The answer to a job's request; where it only queues the job, the answer when the job has ended."""
    path = example.get("path", "/v2/local/runsync")
    response = http.post(path, json=filled(example["body"]))
    if response.status_code == 200 and path.endswith("/run"):
        assert response.json()["status"] == "IN_QUEUE"
        assert "output" not in response.json()
        return http.get(f"{path.removesuffix('/run')}/status-sync/{response.json()['id']}")
    return response


def text_of(item: Any) -> str:
    """The text of an item, whichever of the formats it has."""
    choice = item["choices"][0]
    if "tokens" in choice:
        return "".join(choice["tokens"])
    return str((choice.get("message") or choice.get("delta") or {}).get("content") or choice.get("text") or "")


def check_output(example: Example, output: list[Any]) -> None:
    if example.get("models"):
        assert [model["id"] for model in output[0]["data"]] == [MODEL]
    if "expect" in example:
        text = "".join(map(text_of, output))
        assert re.search(example["expect"], text, re.IGNORECASE | re.DOTALL), text
    for name, count in example.get("usage", {}).items():
        assert output[-1]["usage"][name] == count
    if sizes := example.get("sizes"):
        counts = [len(item["choices"][0]["tokens"]) for item in output]
        rule = [*sizes, *[sizes[-1]] * len(counts)][: len(counts)]
        assert counts[:-1] == rule[:-1]
        assert 0 < counts[-1] <= rule[-1]
    if "call" in example:
        [call] = output[-1]["choices"][0]["tool_calls"]
        assert call["function"]["name"] == "get_weather"
        assert json.loads(call["function"]["arguments"]) == example["call"]


@pytest.mark.parametrize("example", EXAMPLES["jobs"], ids=name_of)
def test_job(http: httpx.Client, example: Example) -> None:
    wanted = example.get("status", "COMPLETED")
    response = job_of(http, example)
    body = response.json()

    if isinstance(wanted, int):
        assert response.status_code == wanted
    else:
        assert response.status_code == 200
        assert body["status"] == wanted, body
    if "error" in example:
        assert re.search(example["error"], body["error"]), body
    if wanted == "COMPLETED":
        check_output(example, body["output"])


@pytest.mark.parametrize("example", EXAMPLES["openai"], ids=name_of)
def test_openai_request(http: httpx.Client, example: Example) -> None:
    request = filled(example["body"])
    response = http.post(example["path"], json=request)

    assert response.status_code == example.get("status", 200), response.text
    if "error" in example:
        assert example["error"] in response.text
    elif request.get("stream"):
        assert response.text.endswith("data: [DONE]\n\n")
        check_output(example, [json.loads(line[6:]) for line in response.text.split("\n\n")[:-2]])
    else:
        check_output(example, [response.json()])
