"""/v1/files and /v1/batches for two keys, on either database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest
from starlette.types import ASGIApp

from gptoss_bento.access.authentication import Authentication
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.batches.batch_routes import BatchesApi
from gptoss_bento.batches.batch_run import RunParts
from gptoss_bento.batches.batch_runner import BatchRunner
from gptoss_bento.batches.fake_openai_api import FakeOpenAIApi
from gptoss_bento.batches.file_routes import FilesApi
from gptoss_bento.batches.line_calls import LineCalls
from gptoss_bento.batches.slots import Slots
from gptoss_bento.batches.stored_files import FileBounds, StoredFiles
from gptoss_bento.config.api_keys import Key, KeyLimits, digest
from gptoss_bento.http.paths import COMPLETIONS
from gptoss_bento.state.batch_store import BatchStore
from gptoss_bento.state.file import FileLimits
from gptoss_bento.state.file_store import FileStore
from gptoss_bento.state.idempotency import IdempotencyStore
from gptoss_bento.state.store import JobStore
from gptoss_bento.state.worker_identity import WorkerIdentity, own_identity
from tests.fakes import FakeEngineApp, asgi_client
from tests.stores import Clock
from tests.waiting import HANG_S

OWNERS = ("alice", "bob")
BOUNDS = FileBounds(FileLimits(5, 100_000), 50_000, 7200, HANG_S)


@dataclass
class Files:
    """The files of one worker.

    Attributes:
        stored: of the worker.
        jobs: the store of the same database, with the worker's lease.
        identity: of the worker.
        of: returns the client of a key.
    """

    stored: StoredFiles
    jobs: JobStore
    identity: WorkerIdentity
    of: Callable[[str], httpx.AsyncClient]

    @property
    def client(self) -> httpx.AsyncClient:
        return self.of("alice")

    @property
    def on_disk(self) -> list[str]:
        """The names in the folder."""
        return sorted(path.name for path in self.stored.folder.iterdir()) if self.stored.folder.exists() else []


@pytest.fixture
async def files(store: JobStore, clock: Clock, tmp_path: Path) -> AsyncIterator[Files]:
    worker = own_identity()
    await store.renew_lease(worker)
    stored = StoredFiles(FileStore(store.database, clock), tmp_path / "files", worker.worker_id, BOUNDS)
    yield Files(stored, store, worker, clients_of(FilesApi(FakeEngineApp(), stored)))
    await stored.stop(5)


def clients_of(api: ASGIApp) -> Callable[[str], httpx.AsyncClient]:
    """Returns what makes the client of a key."""
    app = Authentication(api, KeyStore([Key(name, (digest(name),)) for name in OWNERS]))

    def of(name: str) -> httpx.AsyncClient:
        client = asgi_client(app)
        client.headers["authorization"] = f"Bearer {name}"
        return client

    return of


async def uploaded(
    files: Files, content: bytes = b"{}\n", key: str = "alice", fields: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A file that was received."""
    form = {"purpose": "batch", **(fields or {})}
    answer = await files.of(key).post("/v1/files", data=form, files={"file": ("in.jsonl", content)})
    assert answer.status_code == 200, answer.text
    made: dict[str, Any] = answer.json()
    return made


@dataclass
class Worker:
    """The batches of one worker.

    Attributes:
        files: of the worker, with the routes of batches too.
        api: what answers its lines.
        runner: of the worker.
        has_room: whether the engine has room.
    """

    files: Files
    api: FakeOpenAIApi
    runner: BatchRunner
    has_room: list[bool]
    clock: Clock

    async def batch(self, lines: Sequence[Any], key: str = "alice", **fields: Any) -> dict[str, Any]:
        """A batch that was created of these lines, texts or records."""
        content = "".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines)
        file = await uploaded(self.files, content.encode(), key)
        asked = {"input_file_id": file["id"], "endpoint": COMPLETIONS, "completion_window": "24h", **fields}
        answer = await self.files.of(key).post("/v1/batches", json=asked)
        assert answer.status_code == 200, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def found(self, batch_id: str, key: str = "alice") -> dict[str, Any]:
        found: dict[str, Any] = (await self.files.of(key).get(f"/v1/batches/{batch_id}")).json()
        return found

    async def ended(self, batch_id: str, *statuses: str) -> dict[str, Any]:
        """The batch once it has one of these states, or any final one."""
        wanted = statuses or ("completed", "failed", "cancelled", "expired")
        async with asyncio.timeout(HANG_S):
            while True:
                found = await self.found(batch_id)
                if found["status"] in wanted:
                    return found
                await asyncio.sleep(0.01)

    async def records(self, file_id: str | None) -> list[dict[str, Any]]:
        """The lines of a file; none of no file."""
        if file_id is None:
            return []
        content = await self.files.client.get(f"/v1/files/{file_id}/content")
        assert content.status_code == 200, content.text
        return [json.loads(line) for line in content.text.splitlines()]


def line(text: str, custom_id: str | None = None, **fields: Any) -> dict[str, Any]:
    """A line of an input."""
    made = {"custom_id": custom_id or f"id {text}", "method": "POST", "url": COMPLETIONS, "body": {"prompt": text}}
    return made | fields


class MadeWorkers(Protocol):
    async def __call__(self, runs: bool = True, concurrency: int = 4, limits: KeyLimits | None = None) -> Worker: ...


@pytest.fixture
async def make_worker(store: JobStore, clock: Clock, tmp_path: Path) -> AsyncIterator[MadeWorkers]:
    """Returns what makes a worker with a lease; all share a database and a folder."""
    made: list[Worker] = []

    async def make(runs: bool = True, concurrency: int = 4, limits: KeyLimits | None = None) -> Worker:
        identity = replace(own_identity(), worker_id=f"worker {len(made)}")
        await store.renew_lease(identity)
        bounds = FileBounds(FileLimits(1000, 10**9), 10**8, 7200, HANG_S)
        stored = StoredFiles(FileStore(store.database, clock), tmp_path / "files", identity.worker_id, bounds)
        api, room = FakeOpenAIApi(), [True]
        keys = KeyStore([Key(name, (digest(name),), limits or KeyLimits()) for name in OWNERS])
        calls = LineCalls(lambda: api, keys, HANG_S, lambda _: asyncio.sleep(0))
        slots = Slots(concurrency, lambda: room[0])
        batches = BatchStore(store.database, clock)
        parts = RunParts(batches, stored, slots, calls.answer, calls.most_lines, 10_000, clock)
        runner = BatchRunner(parts, identity.worker_id, runs=runs)
        uses = IdempotencyStore(store.database, clock)
        routes = BatchesApi(FilesApi(FakeEngineApp(), stored), batches, uses, runner, 3, 7200)
        runner.start()
        made.append(Worker(Files(stored, store, identity, clients_of(routes)), api, runner, room, clock))
        return made[-1]

    yield make
    for worker in made:
        worker.api.held.set()
        await worker.runner.stop()
        await worker.files.stored.stop(5)


@pytest.fixture
async def worker(make_worker: MadeWorkers) -> Worker:
    return await make_worker()
