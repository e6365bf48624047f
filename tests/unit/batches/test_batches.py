"""/v1/batches over a fake of the OpenAI API, on both databases."""

from __future__ import annotations

import asyncio
import json
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import pytest
from openai.types import Batch

from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.batches import batch_run, batch_runner, lines, output, validation
from gptoss_bento.batches.batch_run import Stop
from gptoss_bento.batches.line_calls import LineCalls
from gptoss_bento.batches.lines import raw_lines
from gptoss_bento.config.api_keys import Key, KeyLimits
from gptoss_bento.http.paths import CHAT, RESPONSES
from gptoss_bento.state.batch import StoredBatch
from gptoss_bento.state.batch_store import BatchStore
from gptoss_bento.state.database import StoreUnavailableError
from tests.unit.batches.conftest import MadeWorkers, Worker, line, uploaded
from tests.waiting import HANG_S, until

URL = "/v1/batches"


@pytest.fixture(autouse=True)
def short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_run, "_REPORT_INTERVAL_S", 0.02)
    monkeypatch.setattr(batch_runner, "_POLL_INTERVAL_S", 0.02)
    monkeypatch.setattr(batch_runner, "_RETRY_S", 0.02)


async def test_batch_has_an_answer_of_each_line(worker: Worker) -> None:
    made = await worker.batch([line("one"), "", line("two")], metadata={"a": "b"})
    assert (made["status"], made["metadata"], made["endpoint"]) == ("validating", {"a": "b"}, "/v1/completions")
    assert made["expires_at"] == made["created_at"] + 86_400
    ended = await worker.ended(made["id"])

    for each in (made, ended):
        Batch.model_validate(each, strict=True)
    assert ended["status"] == "completed"
    assert ended["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    assert ended["usage"]["total_tokens"] == 10
    assert ended["usage"]["output_tokens_details"] == {"reasoning_tokens": 2}
    assert (ended["error_file_id"], ended["errors"]) == (None, None)
    records = {record["custom_id"]: record for record in await worker.records(ended["output_file_id"])}
    assert records.keys() == {"id one", "id two"}
    one = records["id one"]
    assert (one["response"]["status_code"], one["response"]["body"]["text"], one["error"]) == (200, "one", None)
    assert one.keys() == {"id", "custom_id", "response", "error"}
    assert one["response"]["request_id"] != records["id two"]["response"]["request_id"]
    file = (await worker.files.client.get(f"/v1/files/{ended['output_file_id']}")).json()
    assert (file["purpose"], file["filename"]) == ("batch_output", f"{made['id']}_output.jsonl")
    assert worker.api.owners == {"alice"}


async def test_second_request_with_an_idempotency_key_has_the_first_ones_batch(worker: Worker) -> None:
    file = await uploaded(worker.files, b"{}\n", "alice")
    asked = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}

    async def create(owner: str = "alice", value: str = "a", **fields: Any) -> httpx.Response:
        body = {**asked, **fields}
        return await worker.files.of(owner).post(URL, json=body, headers={"Idempotency-Key": value})

    first, second, third = await create(), await create(), await create(value="b")
    assert "idempotent-replayed" not in first.headers
    assert (second.headers["idempotent-replayed"], second.json()["id"]) == ("true", first.json()["id"])
    assert third.json()["id"] != first.json()["id"]
    assert (await create(metadata={"a": "b"})).status_code == 422
    assert (await create("bob")).status_code == 404, "another key's value is its own, and the file is not"
    refused = [await create(value="c", input_file_id="file-none") for _ in range(2)]
    assert [each.status_code for each in refused] == [404, 404], "a value whose request was refused is free"
    assert len((await worker.files.of("alice").get(URL)).json()["data"]) == 2


async def test_batches_of_one_idempotency_key_at_the_same_time_are_one(worker: Worker) -> None:
    file = await uploaded(worker.files, b"{}\n", "alice")
    asked = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    headers = {"Idempotency-Key": "a"}
    client = worker.files.of("alice")

    answers = await asyncio.gather(*(client.post(URL, json=asked, headers=headers) for _ in range(5)))
    assert len({answer.json()["id"] for answer in answers}) == 1


@pytest.mark.parametrize(("endpoint", "body"), [(CHAT, {"messages": [{"content": "x"}]}), (RESPONSES, {"input": "x"})])
async def test_batch_runs_on_each_endpoint(worker: Worker, endpoint: str, body: dict[str, Any]) -> None:
    made = await worker.batch([line("x", url=endpoint, body={**body, "model": "m"})], endpoint=endpoint)
    ended = await worker.ended(made["id"])

    assert (ended["status"], ended["model"], ended["usage"]["input_tokens"]) == ("completed", "m", 3)


async def test_lines_that_fail_are_in_the_error_file(worker: Worker) -> None:
    worker.api.refusals = {"wrong": [400], "broken": [500], "mistake": [0] * 9, "busy": [429] * 20, "away": [503] * 3}
    worker.api.refusals["locked"] = [409] * 20
    worker.api.refusals["gone"] = [503] * 9
    texts = ["right", *worker.api.refusals]
    ended = await worker.ended((await worker.batch([line(text) for text in texts]))["id"])

    assert ended["status"] == "completed"
    assert ended["request_counts"] == {"total": 8, "completed": 4, "failed": 4}
    assert {each["custom_id"] for each in await worker.records(ended["output_file_id"])} == {
        "id right",
        "id busy",
        "id away",
        "id locked",
    }
    failed = {each["custom_id"]: each for each in await worker.records(ended["error_file_id"])}
    statuses = {name: record["response"]["status_code"] for name, record in failed.items()}
    assert statuses == {"id wrong": 400, "id broken": 500, "id mistake": 503, "id gone": 503}
    assert failed["id wrong"]["response"]["body"]["error"]["message"] == "wrong"


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([line("a"), "{"], ("invalid_json_line", 2, None)),
        (["[]"], ("invalid_json_line", 1, None)),
        ([line("a"), "", line("b", "id a")], ("duplicate_custom_id", 3, "custom_id")),
        ([line("a", custom_id=None) | {"custom_id": 7}], ("invalid_custom_id", 1, "custom_id")),
        ([line("a", method="GET")], ("invalid_method", 1, "method")),
        ([line("a", url=CHAT)], ("invalid_url", 1, "url")),
        ([line("a", body="x")], ("invalid_body", 1, "body")),
        ([line("a", body={"prompt": "a", "stream": True})], ("stream_not_supported", 1, "body.stream")),
        ([line("a", body={"prompt": "a", "background": True})], ("background_not_supported", 1, "body.background")),
        ([line("a"), line("x" * 20_000)], ("line_too_long", 2, None)),
        ([" "], ("empty_file", 1, None)),
    ],
)
async def test_input_that_is_wrong_fails_with_its_line(
    worker: Worker, lines: list[Any], found: tuple[Any, ...]
) -> None:
    ended = await worker.ended((await worker.batch(lines))["id"])

    Batch.model_validate(ended, strict=True)
    assert (ended["status"], ended["output_file_id"], ended["error_file_id"]) == ("failed", None, None)
    (error,) = ended["errors"]["data"]
    assert (error["code"], error["line"], error["param"]) == found
    assert not worker.api.answered


async def test_input_of_too_many_lines_fails(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "MOST_LINES", 2)
    ended = await worker.ended((await worker.batch([line(str(number)) for number in range(3)]))["id"])

    assert ended["errors"]["data"][0]["code"] == "too_many_lines"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input_file_id": None}, "input_file_id"),
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {"a": "\ud800"}}, "metadata"),
        ({"metadata": {"\udfff": "a"}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, "output_expires_after.seconds"),
        ({"colour": 1}, "colour"),
    ],
)
async def test_request_for_a_batch_that_is_wrong_is_refused(worker: Worker, fields: dict[str, Any], param: str) -> None:
    file = await uploaded(worker.files)
    asked = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h", **fields}
    answer = await worker.files.client.post(URL, content=json.dumps(asked))  # escapes a lone surrogate, unlike httpx

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert (await worker.files.client.get(URL)).json()["data"] == []


async def test_batch_of_another_key_is_as_unknown_as_none(worker: Worker) -> None:
    made = await worker.batch([line("a")])
    other = worker.files.of("bob")

    for method, path in (("GET", ""), ("POST", "/cancel")):
        assert (await other.request(method, f"{URL}/{made['id']}{path}")).status_code == 404
    assert (await other.get(URL)).json()["data"] == []
    assert (await other.get(URL, params={"after": made["id"]})).status_code == 404
    asked = {"input_file_id": made["input_file_id"], "endpoint": CHAT, "completion_window": "24h"}
    refused = await other.post(URL, json=asked)
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "input_file_id")


async def test_batches_are_listed_in_pages(worker: Worker) -> None:
    ids = []
    for _ in range(3):
        ids.append((await worker.batch([line("a")]))["id"])
        await worker.ended(ids[-1])

    first = (await worker.files.client.get(URL, params={"limit": 2})).json()
    assert ([each["id"] for each in first["data"]], first["has_more"]) == (ids[:0:-1], True)
    rest = (await worker.files.client.get(URL, params={"after": first["last_id"]})).json()
    assert ([each["id"] for each in rest["data"]], rest["has_more"]) == (ids[:1], False)


async def test_batches_of_a_key_that_have_not_ended_are_bounded(worker: Worker) -> None:
    worker.api.held.clear()
    for _ in range(3):
        made = await worker.batch([line("a")])
    asked = {"input_file_id": made["input_file_id"], "endpoint": CHAT, "completion_window": "24h"}
    refused = await worker.files.client.post(URL, json=asked)

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
    await worker.batch([line("b")], key="bob")


async def test_batch_that_is_cancelled_keeps_the_answers_that_it_has(worker: Worker) -> None:
    made = await worker.batch([line(str(number)) for number in range(50)])
    worker.api.refusals = {"7": [429] * 10**6}  # is tried again until then
    await until(lambda: worker.api.answered.total() > 20)
    worker.api.held.clear()
    cancelling = (await worker.files.client.post(f"{URL}/{made['id']}/cancel")).json()
    assert cancelling["status"] == "cancelling"
    Batch.model_validate(cancelling, strict=True)
    ended = await worker.ended(made["id"])

    assert ended["status"] == "cancelled"
    outputs = await worker.records(ended["output_file_id"])
    errors = await worker.records(ended["error_file_id"])
    assert {each["error"]["code"] for each in errors} == {"batch_cancelled"}
    assert sorted(each["custom_id"] for each in outputs + errors) == sorted(f"id {number}" for number in range(50))
    assert ended["request_counts"] == {"total": 50, "completed": len(outputs), "failed": 0}
    assert worker.api.running == 0
    again = await worker.files.client.post(f"{URL}/{made['id']}/cancel")
    assert (again.status_code, again.json()["error"]["param"]) == (400, "batch_id")


async def test_batch_that_no_worker_runs_is_cancelled_by_the_next(make_worker: MadeWorkers) -> None:
    idle = await make_worker(runs=False)
    made = await idle.batch([line("a")])
    await idle.files.client.post(f"{URL}/{made['id']}/cancel")
    await make_worker()

    ended = await idle.ended(made["id"])
    assert (ended["status"], ended["output_file_id"]) == ("cancelled", None)


async def test_batch_whose_window_is_over_expires_with_the_answers_that_it_has(worker: Worker) -> None:
    worker.api.limit = 10
    made = await worker.batch([line(str(number)) for number in range(30)])
    await until(lambda: worker.api.answered.total() == 10)
    worker.clock.now += 86_400_000
    await worker.files.jobs.renew_lease(worker.files.identity)
    ended = await worker.ended(made["id"])

    assert ended["status"] == "expired"
    # the files are younger than the batch: they are kept from its end on
    counts = [len(await worker.records(ended[name])) for name in ("output_file_id", "error_file_id")]
    assert (sum(counts), ended["request_counts"]["completed"]) == (30, counts[0])


async def test_lines_at_the_same_time_are_bounded_over_all_batches(worker: Worker) -> None:
    worker.api.held.clear()
    made = [await worker.batch([line(f"{key} {number}") for number in range(30)], key) for key in ("alice", "bob")]
    await until(lambda: worker.api.running == 4)
    worker.api.held.set()
    ended = [await worker.ended(made[0]["id"])]
    await until(lambda: worker.api.answered.total() == 60)

    assert ended[0]["status"] == "completed"
    assert worker.api.most == 4


async def test_lines_beyond_the_rate_of_their_key_leave_their_slots_to_other_keys(worker: Worker) -> None:
    texts = [f"alice {number}" for number in range(9)]
    worker.api.refusals = {text: [429] * 10**6 for text in texts}
    await worker.batch([line(text) for text in texts])
    await until(lambda: any(len(left) < 10**6 for left in worker.api.refusals.values()))
    await worker.batch([line("bob")], "bob")
    await until(lambda: worker.api.answered["bob"])
    tried = [text for text, left in worker.api.refusals.items() if len(left) < 10**6]

    assert len(tried) == 4, "no more lines of a batch are tried than there are slots"


@pytest.mark.parametrize(("streams", "most"), [(1, 1), (3, 2)])
async def test_lines_leave_one_of_their_keys_streams_to_live_requests(
    make_worker: MadeWorkers, streams: int, most: int
) -> None:
    worker = await make_worker(limits=KeyLimits(streams=streams))
    worker.api.held.clear()
    made = [await worker.batch([line(f"{name} {number}") for number in range(9)]) for name in "ab"]
    await until(lambda: worker.api.running == most)
    worker.api.held.set()
    for each in made:
        assert (await worker.ended(each["id"]))["status"] == "completed"

    assert worker.api.most == most


async def test_batches_of_one_key_leave_room_for_another_key(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_runner, "_MOST_RUNS", 3)
    monkeypatch.setattr(batch_runner, "_MOST_OF_OWNER", 2)
    worker.api.held.clear()
    for number in range(3):
        made = await worker.batch([line(str(number))])
    await until(lambda: worker.api.running == 2)
    await worker.batch([line("bob")], "bob")
    await until(lambda: worker.api.running == 3)
    assert worker.api.owners == {"alice", "bob"}
    worker.api.held.set()

    assert (await worker.ended(made["id"]))["status"] == "completed"


async def test_lines_wait_while_the_engine_is_full(worker: Worker) -> None:
    worker.has_room[0] = False
    made = await worker.batch([line("a"), line("b")])
    running = await worker.ended(made["id"], "in_progress")
    assert running["request_counts"]["total"] == 2
    for _ in range(20):
        await asyncio.sleep(0.01)
    assert not worker.api.answered
    worker.has_room[0] = True

    assert (await worker.ended(made["id"]))["status"] == "completed"


async def test_input_that_is_deleted_meanwhile_is_still_run(worker: Worker) -> None:
    worker.has_room[0] = False
    made = await worker.batch([line("a")])
    await worker.files.client.delete(f"/v1/files/{made['input_file_id']}")
    await worker.files.stored.clean()
    worker.has_room[0] = True
    assert (await worker.ended(made["id"]))["status"] == "completed"
    await worker.files.stored.clean()

    assert made["input_file_id"] not in worker.files.on_disk


async def test_drain_lets_running_lines_end_and_gives_the_rest_back(make_worker: MadeWorkers) -> None:
    first = await make_worker()
    made = await first.batch([line(str(number)) for number in range(30)])
    await until(lambda: first.api.answered.total() > 5)
    first.runner.pause()
    await until(lambda: first.runner.running == 0)
    had = first.api.answered.total()
    await first.runner.stop()
    second = await make_worker()
    ended = await second.ended(made["id"])

    assert ended["request_counts"] == {"total": 30, "completed": 30, "failed": 0}
    assert second.api.answered.total() == 30 - had
    assert not first.api.answered & second.api.answered


async def test_claim_that_comes_while_the_service_stops_is_given_back(
    make_worker: MadeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await make_worker()
    claim = first.runner.store.claim

    async def late(*args: Any) -> StoredBatch | None:
        claimed = await claim(*args)
        first.runner.pause()
        return claimed

    monkeypatch.setattr(first.runner.store, "claim", late)
    made = await first.batch([line("a")])
    second = await make_worker()

    assert (await second.ended(made["id"]))["status"] == "completed"
    assert not first.api.answered


async def test_claim_whose_answer_is_lost_is_given_back(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    claim, lost = worker.runner.store.claim, [True]

    async def unanswered(*args: Any) -> StoredBatch | None:
        claimed = await claim(*args)
        if claimed and lost:
            lost.pop()
            raise StoreUnavailableError("The connection broke off at COMMIT.")
        return claimed

    monkeypatch.setattr(worker.runner.store, "claim", unanswered)
    made = await worker.batch([line("a")])

    assert (await worker.ended(made["id"]))["status"] == "completed"
    assert not lost


async def test_batch_whose_end_meets_an_error_is_run_again(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    close, errors = output.BatchOutput.close, [OSError(5, "Input/output error"), ValueError("a mistake")]

    async def broken(self: output.BatchOutput) -> dict[str, tuple[str, int]]:
        if errors:
            raise errors.pop()
        return await close(self)

    monkeypatch.setattr(output.BatchOutput, "close", broken)
    ended = await worker.ended((await worker.batch([line("a"), line("b")]))["id"])

    assert (ended["status"], ended["request_counts"]["completed"]) == ("completed", 2)
    assert worker.api.answered.total() == 2
    assert not errors


@pytest.mark.parametrize("has_started", [False, True])
async def test_batch_whose_input_cannot_be_read_expires(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, has_started: bool
) -> None:
    opened, tries = lines._opened, [0]

    def broken(path: Path) -> BinaryIO:
        tries[0] += 1
        if tries[0] == 1 and has_started:  # its check
            return opened(path)
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(lines, "_opened", broken)
    made = await worker.batch([line("a")])
    await until(lambda: tries[0] > 3)
    worker.clock.now += 86_400_000
    await worker.files.jobs.renew_lease(worker.files.identity)

    assert (await worker.ended(made["id"]))["status"] == "expired"


@pytest.mark.parametrize("write", ["start", "status", "finish", "give_back"])
async def test_stop_does_not_wait_for_a_database_that_is_away(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    monkeypatch.setattr(batch_runner, "_STOP_TIMEOUT_S", 0.02)
    calls: list[object] = []

    async def away(*args: object) -> None:
        calls.append(args)
        raise StoreUnavailableError("The database is away.")

    worker.api.held.clear()
    monkeypatch.setattr(BatchStore, write, away)
    await worker.batch([line("a")])
    if write in ("finish", "give_back"):
        await until(lambda: worker.api.running)
    if write == "finish":
        worker.api.held.set()
    if write == "give_back":
        for run in worker.runner._runs:
            run.stop(Stop.SHUTDOWN)
    await until(lambda: calls)

    async with asyncio.timeout(HANG_S):
        await worker.runner.stop()


async def killed(worker: Worker) -> None:
    """What remains of a worker after kill -9: nothing that runs, and no lease."""
    for run in list(worker.runner._runs):
        run._reason = Stop.LOST  # it writes nothing more, and ends nothing
    for task in [run._work for run in worker.runner._runs if run._work]:
        task.cancel()
    worker.runner.pause()
    worker.runner._tasks.stopping.set()
    await asyncio.wait(worker.runner._tasks._tasks)  # a transaction of a killed process ends, or changes nothing
    await worker.files.jobs.release_lease(worker.files.identity.worker_id)


def torn(folder: Path, batch_id: str) -> None:
    """The last line of each file is half written."""
    for path in folder.glob(f"{batch_id}.*"):
        with suppress(FileNotFoundError), path.open("r+b") as file:  # its worker's threads may remove it still
            if file.seek(0, os.SEEK_END):
                file.write(b'{"id":"batch_req_x","custom_id":"id 29","resp')


@pytest.mark.parametrize("seed", range(4))
async def test_kills_at_random_moments_lose_no_line_and_repeat_none(make_worker: MadeWorkers, seed: int) -> None:
    lines, chance = [line(str(number)) for number in range(60)], random.Random(seed)
    worker = await make_worker()
    made = await worker.batch(lines)
    for _ in range(10):
        worker.api.refusals = {str(number): [400] for number in range(0, 60, 7)}
        worker.api.limit = chance.randrange(5)  # so that none comes to the end
        for _ in range(chance.randrange(400)):
            await asyncio.sleep(0)
        await killed(worker)
        torn(worker.files.stored.folder, made["id"])
        worker = await make_worker()
    worker.api.refusals = {str(number): [400] for number in range(0, 60, 7)}
    ended = await worker.ended(made["id"])

    outputs, errors = [await worker.records(ended[name]) for name in ("output_file_id", "error_file_id")]
    assert sorted(each["custom_id"] for each in outputs + errors) == sorted(each["custom_id"] for each in lines)
    assert {each["custom_id"] for each in errors} == {f"id {number}" for number in range(0, 60, 7)}
    assert ended["request_counts"] == {"total": 60, "completed": 51, "failed": 9}
    assert ended["usage"]["total_tokens"] == 51 * 5
    await worker.files.stored.clean()
    kept = {made["input_file_id"]}
    assert len(set(worker.files.on_disk) - kept) == 2  # of earlier attempts nothing is left


async def test_lines_that_are_written_are_not_run_again(make_worker: MadeWorkers) -> None:
    first = await make_worker(concurrency=1)
    first.api.limit = 10
    made = await first.batch([line(str(number)) for number in range(20)])
    await until(lambda: first.api.answered.total() == 10 and first.api.running == 1)
    await killed(first)
    second = await make_worker()
    await second.ended(made["id"])

    assert second.api.answered.total() == 10
    assert not first.api.answered & second.api.answered


async def test_line_that_must_not_run_twice_has_the_same_idempotency_key_each_time(make_worker: MadeWorkers) -> None:
    bodies = [{"request_id": "resp_1"}, {"conversation": "conv_1"}, {}]
    inputs = [
        line(str(number), url=RESPONSES, body={"input": str(number), **body}) for number, body in enumerate(bodies)
    ]
    first = await make_worker()
    first.api.held.clear()
    made = await first.batch(inputs, endpoint=RESPONSES)
    await until(lambda: len(first.api.values) == len(inputs))
    await killed(first)
    second = await make_worker()
    await second.ended(made["id"])

    assert second.api.values == first.api.values
    values = [second.api.values[str(number)][0] for number in range(3)]
    assert values[2] is None
    assert len({*values}) == 3


async def test_batch_that_ends_its_worker_again_and_again_fails_with_the_answers_that_it_has(
    make_worker: MadeWorkers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_run, "_MOST_INTERRUPTIONS", 2)
    worker = await make_worker()
    worker.api.limit = 3
    made = await worker.batch([line(str(number)) for number in range(9)])
    await until(lambda: worker.api.running and not worker.api.held.is_set())
    async with asyncio.timeout(HANG_S):
        while (await worker.found(made["id"]))["request_counts"]["completed"] < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    for _ in range(3):
        await until(lambda: worker.api.running)  # noqa: B023  # called within this round
        await killed(worker)
        assert (await worker.found(made["id"]))["status"] == "in_progress"
        worker = await make_worker()
        worker.api.limit = 0
    ended = await worker.ended(made["id"])

    Batch.model_validate(ended, strict=True)
    assert ended["status"] == "failed"
    assert "ended 2 times" in ended["errors"]["data"][0]["message"]
    assert len(await worker.records(ended["output_file_id"])) == 3


async def test_worker_that_was_late_with_its_lease_ends_nothing(make_worker: MadeWorkers) -> None:
    late = await make_worker()
    late.api.held.clear()
    made = await late.batch([line("a"), line("b")])
    await until(lambda: late.api.running == 2)
    await late.files.jobs.release_lease(late.files.identity.worker_id)
    second = await make_worker()
    ended = await second.ended(made["id"])
    late.api.held.set()
    await until(lambda: not late.runner._runs)

    assert await second.found(made["id"]) == ended
    assert len(await second.records(ended["output_file_id"])) == 2


async def test_key_that_was_removed_has_the_limits_of_before() -> None:
    from tests.unit.state.test_batch_store import stored_batch

    batch = stored_batch(owner="alice", key_limits='{"max_tokens":5}')
    now = KeyStore([Key("alice", (b"a",), KeyLimits(max_tokens=7))])
    for keys, limit in ((now, 7), (KeyStore([Key("bob", (b"b",))]), 5)):
        key = LineCalls(lambda: None, keys, 1).key_of(batch)
        assert key
        assert (key.owner, key.limits.max_tokens) == ("alice", limit)
    assert LineCalls(lambda: None, KeyStore(), 1).key_of(batch) is None


async def test_lines_are_read_in_pieces_whatever_their_length(tmp_path: Path) -> None:
    texts = [b"x" * length for length in (0, 1, 300_000, 5, 262_143, 262_144)]
    path = tmp_path / "in"
    path.write_bytes(b"\n".join(texts))

    found = [(number, raw.rstrip(b"\n")) async for number, raw in raw_lines(path, 10**6)]
    assert found == list(enumerate(texts, 1))


async def test_output_waits_for_room_on_disk(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails in its middle leaves no half line."""
    monkeypatch.setattr(output, "_RETRY_S", 0.01)
    write, failures = os.write, [0] * 3

    def full(descriptor: int, data: bytes) -> int:
        if failures and len(data) > 20 and b"batch_req_" in bytes(data):
            failures.pop()
            write(descriptor, data[:10])
            raise OSError(28, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    ended = await worker.ended((await worker.batch([line("a"), line("b")]))["id"])

    assert (ended["status"], failures) == ("completed", [])
    assert len(await worker.records(ended["output_file_id"])) == 2
