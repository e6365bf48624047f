"""/v1/files: received, listed, read and deleted, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

import pytest
from openai.types import FileDeleted, FileObject
from starlette.types import Message

from gptoss_bento.access.authentication import Authentication
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.batches.file_routes import FilesApi
from gptoss_bento.batches.stored_files import FileBounds, checked_ttl_s
from gptoss_bento.http.errors import HttpRefusalError
from gptoss_bento.state import file_store
from gptoss_bento.state.file import FileLimits
from tests.fakes import FakeEngineApp
from tests.stores import Clock
from tests.unit.batches.conftest import Files, uploaded
from tests.waiting import until

URL = "/v1/files"


async def error_of(answer: Any, status: int) -> tuple[str | None, str]:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    return error["param"], error["message"]


async def test_file_is_found_as_it_was_uploaded(files: Files, clock: Clock) -> None:
    made = await uploaded(files, b"one\ntwo\n")

    FileObject.model_validate(made, strict=True)
    assert (made["bytes"], made["filename"], made["purpose"]) == (8, "in.jsonl", "batch")
    assert (made["created_at"], made["expires_at"]) == (clock.now // 1000, clock.now // 1000 + 7200)
    assert (await files.client.get(f"{URL}/{made['id']}")).json() == made
    content = await files.client.get(f"{URL}/{made['id']}/content")
    assert (content.content, content.headers["content-type"]) == (b"one\ntwo\n", "application/octet-stream")
    assert (await files.client.get(URL)).json() == {
        "object": "list",
        "data": [made],
        "first_id": made["id"],
        "last_id": made["id"],
        "has_more": False,
    }


async def test_file_that_is_deleted_is_gone_with_its_content(files: Files) -> None:
    made = await uploaded(files)
    assert files.on_disk == [made["id"]]
    deleted = await files.client.delete(f"{URL}/{made['id']}")
    FileDeleted.model_validate(deleted.json(), strict=True)
    await files.stored.clean()

    assert files.on_disk == []
    for path in ("", "/content"):
        assert (await files.client.get(f"{URL}/{made['id']}{path}")).status_code == 404
    assert (await files.client.delete(f"{URL}/{made['id']}")).status_code == 404
    assert (await files.client.get(URL)).json()["data"] == []


async def test_file_of_another_key_is_as_unknown_as_none(files: Files) -> None:
    made = await uploaded(files)
    other = files.of("bob")

    for method, path in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answer = await other.request(method, f"{URL}/{made['id']}{path}")
        assert await error_of(answer, 404) == ("file_id", f'There is no file "{made["id"]}".')
    assert (await other.get(URL)).json()["data"] == []
    assert await error_of(await other.get(URL, params={"after": made["id"]}), 404)
    assert (await files.client.get(f"{URL}/{made['id']}")).json() == made


async def test_files_are_listed_in_pages(files: Files) -> None:
    ids = [(await uploaded(files))["id"] for _ in range(3)]

    async def page(**query: Any) -> tuple[list[str], bool]:
        answer = (await files.client.get(URL, params=query)).json()
        return [each["id"] for each in answer["data"]], answer["has_more"]

    assert await page() == (ids[::-1], False)
    assert await page(order="asc", limit=2) == (ids[:2], True)
    assert await page(order="asc", limit=2, after=ids[1]) == (ids[2:], False)
    assert await page(after=ids[1]) == (ids[:1], False)
    assert await page(purpose="batch", limit=3) == (ids[::-1], False)
    assert await page(purpose="batch_output") == ([], False)
    assert (await error_of(await files.client.get(URL, params={"order": "up"}), 400))[0] == "order"
    assert (await error_of(await files.client.get(URL, params={"limit": 10_001}), 400))[0] == "limit"


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"purpose": "fine-tune"}, "purpose", 'purpose must be "batch", the only one of this server, got "fine-tune".'),
        ({}, "purpose", 'purpose must be "batch", the only one of this server, got null.'),
        ({"purpose": "batch", "colour": "red"}, "colour", 'The form has an unknown field "colour".'),
        ({"purpose": "x" * 2000}, "purpose", "purpose may have 1024 bytes."),
        (
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "9000"},
            "expires_after.seconds",
            'expires_after.seconds must be a whole number from 3600 to 7200 (FILES_TTL), got "9000".',
        ),
        (
            {"purpose": "batch", "expires_after[seconds]": "3600"},
            "expires_after.anchor",
            'expires_after.anchor must be "created_at", got null.',
        ),
    ],
)
async def test_form_that_asks_for_something_else_is_refused(
    files: Files, fields: dict[str, str], param: str, message: str
) -> None:
    answer = await files.client.post(URL, data=fields, files={"file": ("in.jsonl", b"{}")})

    assert await error_of(answer, 400) == (param, message)
    await until(lambda: not files.on_disk)


async def test_form_without_a_file_is_refused(files: Files) -> None:
    answer = await files.client.post(URL, files={"purpose": (None, b"batch")})
    assert (await error_of(answer, 400))[0] == "file"
    no_form = await files.client.post(URL, json={"purpose": "batch"})
    assert "multipart/form-data" in (await error_of(no_form, 400))[1]
    headers = {"content-type": "multipart/form-data; boundary=x"}
    for body in (b"nonsense", b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch'):
        broken = await files.client.post(URL, content=body, headers=headers)
        assert "The body must be a multipart form" in (await error_of(broken, 400))[1]


async def test_time_to_live_of_a_file_is_as_asked_for(files: Files, clock: Clock) -> None:
    made = await uploaded(files, fields={"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"})
    assert made["expires_at"] == made["created_at"] + 3600
    clock.now += 3_600_000
    assert (await files.client.get(f"{URL}/{made['id']}")).status_code == 404
    await files.stored.clean()

    assert files.on_disk == []


@pytest.mark.parametrize("seconds", ["0000000036009999", "000000003600" + "0" * 20, "000000003600" + "9" * 900])
async def test_zeros_before_a_time_to_live_do_not_exceed_its_bound(files: Files, seconds: str) -> None:
    form = {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": seconds}
    answer = await files.client.post(URL, data=form, files={"file": ("a", b"{}")})
    assert (await error_of(answer, 400))[0] == "expires_after.seconds"

    with pytest.raises(HttpRefusalError, match="must be a whole number from 3600 to 7200"):
        checked_ttl_s("created_at", seconds, 7200, "output_expires_after")


async def test_file_that_is_too_large_leaves_nothing(files: Files) -> None:
    async def sent() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(7):
            yield b"x" * 10_000

    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = await files.client.post(URL, content=sent(), headers=headers)
    assert await error_of(answer, 413) == (None, "The body must have at most 50000 bytes.")
    long = await files.client.post(URL, files={"file": ("a", b"x" * 150_000)})
    assert long.status_code == 413
    await until(lambda: not files.on_disk)
    assert (await files.client.get(URL)).json()["data"] == []


async def test_upload_does_not_go_on_without_end_after_its_form(files: Files) -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n--x--\r\n'
        while sent < 1_000_000:
            sent += 10_000
            yield b"x" * 10_000

    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = await files.client.post(URL, content=pieces(), headers=headers)

    assert (answer.status_code, sent) == (413, 120_000)  # a file of 50,000 bytes and a form of 65,536
    await until(lambda: not files.on_disk)


async def test_bounds_of_a_key_are_its_own(files: Files) -> None:
    of_key = FileLimits(2, 10)
    files.stored._bounds = FileBounds(of_key, 50_000, 7200, 60)
    first = await uploaded(files, b"123456")
    large = await files.client.post(URL, data={"purpose": "batch"}, files={"file": ("a", b"12345")})
    assert "10 bytes together (FILES_KEY_MAX_BYTES)" in (await error_of(large, 400))[1]
    await uploaded(files, b"1234")
    third = await files.client.post(URL, data={"purpose": "batch"}, files={"file": ("a", b"")})
    assert "as many as it may have (FILES_MAX)" in (await error_of(third, 400))[1]
    await uploaded(files, b"1234567890", "bob")
    await files.client.delete(f"{URL}/{first['id']}")

    await uploaded(files, b"12")


async def test_uploads_at_the_same_time_are_within_the_bytes_of_their_key(files: Files) -> None:
    """One without a length counts as the largest file until it has arrived."""
    may_end = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        await may_end.wait()
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n--x--\r\n'

    def sent() -> Coroutine[Any, Any, Any]:
        headers = {"content-type": "multipart/form-data; boundary=x"}
        return files.client.post(URL, content=pieces(), headers=headers)

    first = asyncio.create_task(sent())
    await until(lambda: files.on_disk)
    await uploaded(files, b"x" * 50_000)
    assert "100000 bytes together (FILES_KEY_MAX_BYTES)" in (await error_of(await sent(), 400))[1]
    may_end.set()

    assert (await first).json()["bytes"] == 2
    assert (await uploaded(files, b"x" * 49_998))["bytes"] == 49_998


def api_of(files: Files) -> Authentication:
    return Authentication(FilesApi(FakeEngineApp(), files.stored), KeyStore())


async def test_upload_that_breaks_off_is_never_listed(files: Files) -> None:
    """The client sends a part, and then leaves; a part is on disk until then."""
    left = asyncio.Event()
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf'
    messages: list[Message] = [{"type": "http.request", "body": part + b"x" * 20_000, "more_body": True}]
    answers: list[Message] = []

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        answers.append(message)

    headers = [(b"content-type", b"multipart/form-data; boundary=x")]
    scope = {"type": "http", "method": "POST", "path": URL, "headers": headers, "query_string": b""}
    task = asyncio.create_task(api_of(files)(scope, receive, send))
    await until(lambda: files.on_disk)
    assert await files.stored.store.gone() == []
    left.set()
    await task
    await until(lambda: not files.on_disk)

    assert answers == []
    assert (await files.stored.store.page("", order="asc", limit=9)).files == ()


async def test_upload_of_a_worker_that_was_killed_is_cleaned_up(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: object) -> None:
        """The worker is not there to do so."""

    forgotten = files.stored._forgotten
    monkeypatch.setattr(files.stored, "_forgotten", nothing)
    answer = await files.client.post(URL, data={"purpose": "other"}, files={"file": ("a", b"half")})
    assert answer.status_code == 400
    monkeypatch.setattr(files.stored, "_forgotten", forgotten)
    await files.stored.clean()
    assert len(files.on_disk) == 1  # its worker lives
    await files.jobs.release_lease(files.identity.worker_id)
    await files.stored.clean()

    assert files.on_disk == []


async def test_file_that_cannot_be_removed_does_not_keep_others(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_store, "_REMOVED_PER_ROUND", 1)
    kept, *others = sorted([(await uploaded(files))["id"] for _ in range(3)])
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.name == kept:
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    for file_id in (kept, *others):
        await files.client.delete(f"{URL}/{file_id}")
    await files.stored.clean()
    assert files.on_disk == [file.id for file in await files.stored.store.gone()] == [kept]
    monkeypatch.setattr(Path, "unlink", unlink)
    await files.stored.clean()

    assert (files.on_disk, await files.stored.store.gone()) == ([], [])


async def test_upload_without_room_on_disk_is_a_503(files: Files) -> None:
    files.stored.folder.write_text("no folder")
    answer = await files.client.post(URL, data={"purpose": "batch"}, files={"file": ("a", b"half")})

    assert "The file cannot be stored now: " in (await error_of(answer, 503))[1]
    assert answer.headers["retry-after"]


async def test_content_that_is_on_another_machine_is_a_500_that_names_the_setting(files: Files) -> None:
    made = await uploaded(files)
    (files.stored.folder / made["id"]).unlink()

    assert "share FILES_DIR" in (await error_of(await files.client.get(f"{URL}/{made['id']}/content"), 500))[1]


async def test_paths_of_others_go_on(files: Files) -> None:
    assert (await files.client.get("/v1/models")).json()["path"] == "/v1/models"
