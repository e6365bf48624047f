"""/v1/files for two keys, on either database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp

from gptoss_bento.access.authentication import Authentication
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.batches.file_routes import FilesApi
from gptoss_bento.batches.stored_files import FileBounds, StoredFiles
from gptoss_bento.config.api_keys import Key, digest
from gptoss_bento.state.file import FileLimits
from gptoss_bento.state.file_store import FileStore
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
