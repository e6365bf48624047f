"""Files and batches, with OpenAI's own SDK on the real server and the real engine."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types import Batch

from tests.server import MODEL
from tests.waiting import wait_for

pytestmark = pytest.mark.engine


def line(custom_id: str, url: str, **body: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": MODEL, **body}})


def batch_of(client: openai.OpenAI, endpoint: Any, lines: list[str]) -> Batch:
    file = client.files.create(file=("in.jsonl", "\n".join(lines).encode()), purpose="batch")
    assert client.files.content(file.id).read().decode().splitlines() == lines
    return client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"of": "a test"}
    )


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    final = {"completed", "failed", "expired", "cancelled"}
    wait_for(lambda: client.batches.retrieve(batch.id).status in final)
    return client.batches.retrieve(batch.id)


def records(client: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    assert file_id
    found = [json.loads(each) for each in client.files.content(file_id).text.splitlines()]
    return {each["custom_id"]: each for each in found}


def test_batches_of_each_endpoint_have_an_answer_of_each_line(client: openai.OpenAI) -> None:
    def bodies(number: int) -> dict[str, Any]:
        question = f"What is {number} plus 1?"
        return {
            "/v1/chat/completions": {"messages": [{"role": "user", "content": question}], "max_tokens": 30},
            "/v1/completions": {"prompt": question, "max_tokens": 3},
            "/v1/responses": {"input": question, "max_output_tokens": 30},
        }

    batches = {
        endpoint: batch_of(client, endpoint, [line(str(each), endpoint, **bodies(each)[endpoint]) for each in range(4)])
        for endpoint in bodies(0)
    }
    for endpoint, batch in batches.items():
        done = ended(client, batch)
        Batch.model_validate(done.model_dump(), strict=True)
        assert (done.status, done.error_file_id, done.metadata) == ("completed", None, {"of": "a test"})
        assert done.request_counts
        assert (done.request_counts.total, done.request_counts.completed) == (4, 4)
        assert done.usage
        assert done.usage.output_tokens > 0
        answers = records(client, done.output_file_id)
        assert answers.keys() == {"0", "1", "2", "3"}
        assert all(each["response"]["body"]["model"] == MODEL for each in answers.values()), endpoint
    listed = [each.id for each in client.batches.list(limit=2)]  # the SDK goes on to the next pages
    assert set(listed) >= {batch.id for batch in batches.values()}


def test_lines_that_the_engine_refuses_are_in_the_error_file(client: openai.OpenAI) -> None:
    lines = [
        line("wrong", "/v1/completions", prompt="x", temperature=-1),
        line("unknown", "/v1/completions", prompt="x", model="other"),
        line("right", "/v1/completions", prompt="x", max_tokens=1),
    ]
    done = ended(client, batch_of(client, "/v1/completions", lines))

    errors = records(client, done.error_file_id)
    assert {name: each["response"]["status_code"] for name, each in errors.items()} == {"wrong": 400, "unknown": 404}
    assert errors["wrong"]["response"]["body"]["error"]["param"] == "temperature"
    assert records(client, done.output_file_id).keys() == {"right"}
    for file_id in (done.input_file_id, done.output_file_id, done.error_file_id):
        assert client.files.delete(str(file_id)).deleted
    assert done.input_file_id not in {file.id for file in client.files.list(limit=1)}


def test_batch_is_cancelled_with_the_answers_that_it_has(client: openai.OpenAI) -> None:
    lines = [line(str(each), "/v1/completions", prompt="x", max_tokens=300, ignore_eos=True) for each in range(200)]
    batch = batch_of(client, "/v1/completions", lines)
    wait_for(lambda: client.batches.retrieve(batch.id).status == "in_progress")
    assert client.batches.cancel(batch.id).status == "cancelling"
    done = ended(client, batch)

    assert done.status == "cancelled"
    errors = records(client, done.error_file_id)
    answers = records(client, done.output_file_id) if done.output_file_id else {}
    assert errors.keys() | answers.keys() == {str(each) for each in range(200)}
    assert {each["error"]["code"] for each in errors.values()} == {"batch_cancelled"}
