"""Files and batches across workers, kills and restarts, over HTTP. The engine is a fake one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from openai.types import Batch

from tests import holds
from tests.server import ServedProcess
from tests.waiting import HANG_S, wait_for

pytestmark = pytest.mark.slow

COUNT = 150
KEYS = {"API_KEYS": "{alice: {key: key-a}, bob: {key: key-b}}", "API_WORKERS": "2", "BATCH_CONCURRENCY": "4"}


def sdk(served: ServedProcess, key: str = "key-a") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=5, timeout=HANG_S)


def kill(served: ServedProcess) -> None:
    """All processes of the service, without a word to any."""
    tree = [*psutil.Process(served.process.pid).children(recursive=True), psutil.Process(served.process.pid)]
    for process in tree:
        process.kill()
    psutil.wait_procs(tree, HANG_S)


def records(client: openai.OpenAI, batch: Batch) -> list[dict[str, Any]]:
    assert batch.output_file_id
    return [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]


def test_batch_goes_on_after_kills_of_the_whole_service(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    variables = {**KEYS, "TMPDIR": str(tmp_path / "t")}
    body = {"model": "m", "input": "x"}
    request = {"method": "POST", "url": "/v1/responses", "body": body}
    content = "\n".join(json.dumps({"custom_id": str(number), **request}) for number in range(COUNT)).encode()
    batch_id = ""
    for _ in range(2):
        with holds.serve_without_vllm(tmp_path, variables) as served:
            served.wait_until_ready()
            client = sdk(served)
            if not batch_id:
                file = client.files.create(file=("in.jsonl", content), purpose="batch")
                batch_id = client.batches.create(
                    input_file_id=file.id, endpoint="/v1/responses", completion_window="24h"
                ).id
                with pytest.raises(openai.NotFoundError):
                    sdk(served, "key-b").batches.retrieve(batch_id)
            held = counts(client, batch_id)
            wait_for(lambda: counts(client, batch_id) > held or is_over(client, batch_id))  # noqa: B023
            kill(served)
    with holds.serve_without_vllm(tmp_path, variables) as served:
        served.wait_until_ready()
        client = sdk(served)
        wait_for(lambda: is_over(client, batch_id))
        done = client.batches.retrieve(batch_id)
        assert (done.status, counts(client, batch_id)) == ("completed", COUNT)
        assert sorted(int(each["custom_id"]) for each in records(client, done)) == list(range(COUNT))
        stored = records(client, done)[0]["response"]["body"]["id"]
        assert client.responses.retrieve(stored).id == stored


def counts(client: openai.OpenAI, batch_id: str) -> int:
    found = client.batches.retrieve(batch_id).request_counts
    return found.completed if found else 0


def is_over(client: openai.OpenAI, batch_id: str) -> bool:
    return client.batches.retrieve(batch_id).status in ("completed", "failed", "expired", "cancelled")
