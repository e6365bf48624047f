"""Jobs that are submitted again with the same Idempotency-Key."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from gptoss_bento.jobs.fake_engine import FakeEngine
from gptoss_bento.jobs.runner import Runner
from tests.unit.jobs.api.test_routes import PROMPT, assert_error, client, fake, jobs

__all__ = ["client", "fake", "jobs"]  # fixtures

KEY = {"Idempotency-Key": "k"}


async def submitted(client: httpx.AsyncClient, route: str = "/run", body: Any = PROMPT) -> httpx.Response:
    return await client.post(route, json=body, headers=KEY)


async def test_second_submission_gets_the_job_of_the_first(client: httpx.AsyncClient) -> None:
    first = await submitted(client)
    done = (await client.post(f"/status-sync/{first.json()['id']}")).json()
    second = await submitted(client)

    assert second.json() == {"id": first.json()["id"], "status": "COMPLETED"}
    assert (second.status_code, second.headers["idempotent-replayed"]) == (200, "true")
    assert "idempotent-replayed" not in first.headers
    assert (await client.get("/health")).json()["jobs"]["completed"] == 1
    assert done["status"] == "COMPLETED"


async def test_second_runsync_waits_for_the_same_job(client: httpx.AsyncClient, fake: FakeEngine) -> None:
    fake.gate.clear()
    first = await submitted(client, "/runsync?wait=1")
    waiting = asyncio.create_task(submitted(client, "/runsync?wait=90000"))
    fake.gate.set()

    done = (await waiting).json()
    assert (done["id"], done["status"]) == (first.json()["id"], "COMPLETED")


@pytest.mark.parametrize(
    ("route", "body"), [("/run", {"input": {"prompt": "another"}}), ("/runsync", PROMPT), ("/run", {**PROMPT, "x": 1})]
)
async def test_key_with_another_submission_is_a_422(client: httpx.AsyncClient, route: str, body: Any) -> None:
    await submitted(client)

    assert_error(await submitted(client, route, body), 422, "used with another request")


async def test_concurrent_submissions_make_one_job(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(submitted(client) for _ in range(6)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_key_of_a_job_whose_time_is_over_is_a_410(client: httpx.AsyncClient, jobs: Runner) -> None:
    job_id = (await submitted(client)).json()["id"]
    await client.post(f"/status-sync/{job_id}")
    await jobs.store.shorten(job_id, 0)

    assert_error(await submitted(client), 410, "The job", "not kept any more")


async def test_key_that_cannot_be_kept_is_a_400(client: httpx.AsyncClient) -> None:
    assert_error(await client.post("/run", json=PROMPT, headers={"Idempotency-Key": "x" * 256}), 400, "1 to 255")
