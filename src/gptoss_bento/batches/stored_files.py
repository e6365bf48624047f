"""The files of one worker: received, found, deleted and cleaned up. Content is on disk, all else in the database."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from starlette.requests import Request

from gptoss_bento.background.store_retries import until_available
from gptoss_bento.background.tasks import WorkerTasks
from gptoss_bento.batches.upload_form import ANCHOR, PURPOSE, SECONDS, UploadForm
from gptoss_bento.http.body import BodyTooLargeError, BodyTooSlowError
from gptoss_bento.http.errors import RETRY, HttpRefusalError
from gptoss_bento.state.file import FileLimits, NewFile, StoredFile
from gptoss_bento.state.file_store import FilesFullError, FileStore, UnknownFileError
from gptoss_bento.strict_json import shown

logger = logging.getLogger(__name__)

BATCH = "batch"
_CLEAN_INTERVAL_S = 5.0
_DISCARD_S = 1.0
_LEAST_TTL_S = 3600  # OpenAI's bound of expires_after
_MOST_DIGITS = 12  # of seconds
_LONGEST_NAME = 255
_FORM_BYTES = 65_536  # of an upload beside its file


@dataclass(frozen=True)
class FileBounds:
    """What an upload may be.

    Attributes:
        of_key: what a key may have of all files.
        bytes: of one file.
        ttl_s: seconds that a file is kept.
        patience_s: seconds without a byte after which an upload is given up.
    """

    of_key: FileLimits
    bytes: int
    ttl_s: int
    patience_s: float


class StoredFiles:
    """The files of the store, and their content.

    Args:
        store: of the files.
        folder: of their content; it is made with the first file.
        worker_id: of this worker, which has a lease in the same database.
        bounds: of uploads.
    """

    def __init__(self, store: FileStore, folder: Path, worker_id: str, bounds: FileBounds) -> None:
        self.store = store
        self.folder = folder
        self._worker_id = worker_id
        self._bounds = bounds
        self._tasks = WorkerTasks()

    def start(self) -> None:
        """Begins to clean up in the background."""
        self._tasks.spawn(self._tasks.every(_CLEAN_INTERVAL_S, self.clean))

    async def stop(self, timeout_s: float) -> None:
        """Ends what runs in the background."""
        await self._tasks.stop(timeout_s)

    async def upload(self, owner: str, request: Request) -> StoredFile:
        """Receives a file, a piece at a time. It is found once it is whole.

        Raises:
            HttpRefusalError: it is no form with a file for a batch, or there is no room for it.
            ClientDisconnect: the client left before its end.
            StoreUnavailableError: the database does not answer.
        """
        form = UploadForm(request.headers.get("content-type", ""))
        self._check_length(request)
        file_id = new_file_id()
        reserved = self._reserved(request)
        new = NewFile(owner, file_id, BATCH, "", reserved, file_id, self._bounds.ttl_s * 1000)
        try:
            await self.store.begin(new, self._worker_id, self._bounds.of_key)
            chunks = self._chunks(request, reserved + _FORM_BYTES)
            received = replace(new, bytes=await self._received(chunks, form, self.folder / file_id))
            return await self._completed(received, form)
        except BaseException as error:
            discarding = self._tasks.spawn(until_available(lambda: self._forgotten({new.id: new.stored_as})))
            if refusal := self._refusal(error):
                await asyncio.wait((discarding,), timeout=_DISCARD_S)  # so that it does not count any more
                raise refusal from None
            raise

    def _refusal(self, error: BaseException) -> HttpRefusalError | None:
        """What the client gets of an error, if there is one to get it."""
        if isinstance(error, FilesFullError):
            return HttpRefusalError(HTTPStatus.BAD_REQUEST, str(error), param="file")
        if isinstance(error, OSError):
            logger.error("a file cannot be stored in %s: %s", self.folder, error)
            message = f"The file cannot be stored now: {error.strerror or error}."
            return HttpRefusalError(HTTPStatus.SERVICE_UNAVAILABLE, message, RETRY)
        return error if isinstance(error, HttpRefusalError) else None

    def _check_length(self, request: Request) -> None:
        if (_length(request) or 0) > self._bounds.bytes + _FORM_BYTES:
            raise BodyTooLargeError(self._bounds.bytes, has_ended=False)

    def _reserved(self, request: Request) -> int:
        """Bytes that a file counts as while it arrives: all that it may have, or what its length leaves beside a form.

        A form takes less than its bound, so a file may have a little more than it counts as. One that just fits is
        not refused so; its own bytes are counted once it is whole.
        """
        if (length := _length(request)) is None:
            return min(self._bounds.bytes, self._bounds.of_key.bytes)
        return max(0, length - _FORM_BYTES)

    async def _received(self, chunks: AsyncIterator[bytes], form: UploadForm, path: Path) -> int:
        """Writes the content. Returns its bytes."""
        size = 0
        with _open(path) as file:  # not in a thread: the client may leave meanwhile
            async for chunk in chunks:
                piece = form.feed(chunk)
                size += len(piece)
                if size > self._bounds.bytes:
                    raise BodyTooLargeError(self._bounds.bytes, has_ended=False)
                if PURPOSE in form.fields:
                    _check_purpose(form)
                if piece:
                    await asyncio.to_thread(file.write, piece)
            form.finish()
            _check_purpose(form)
            await asyncio.to_thread(_flush, file)
        return size

    async def _chunks(self, request: Request, most: int) -> AsyncIterator[bytes]:
        """The pieces of the body, each within its time, and together of no more bytes than `most`."""
        pieces, left = aiter(request.stream()), most
        while True:
            try:
                async with asyncio.timeout(self._bounds.patience_s):
                    piece = await anext(pieces, None)
            except TimeoutError:
                raise BodyTooSlowError(self._bounds.patience_s) from None
            if piece is None:
                return
            left -= len(piece)
            if left < 0:
                raise BodyTooLargeError(most - _FORM_BYTES, has_ended=False)
            yield piece

    async def _completed(self, new: NewFile, form: UploadForm) -> StoredFile:
        name = (form.filename or "")[:_LONGEST_NAME]
        new = replace(new, filename=name, ttl_ms=self._ttl_s(form) * 1000)
        try:
            return await self.store.complete(new, self._worker_id, self._bounds.of_key)
        except UnknownFileError:
            message = "The file was lost while it arrived: the server had lost its database for a while. Try again."
            raise HttpRefusalError(HTTPStatus.SERVICE_UNAVAILABLE, message, RETRY) from None

    def _ttl_s(self, form: UploadForm) -> int:
        if ANCHOR not in form.fields and SECONDS not in form.fields:
            return self._bounds.ttl_s
        return checked_ttl_s(form.fields.get(ANCHOR), form.fields.get(SECONDS), self._bounds.ttl_s, "expires_after")

    async def _forgotten(self, names: Mapping[str, str]) -> None:
        """Removes the content of files, and the rows of those whose content is gone."""
        await self.store.forget(await asyncio.to_thread(_removed, self.folder, names))

    def content(self, file: StoredFile) -> Path:
        """Where the content of a file is.

        Raises:
            HttpRefusalError: 500, it is not there.
        """
        path = self.folder / file.stored_as
        if not path.is_file():
            logger.error("the content of %s is not in %s", file.id, self.folder)
            message = f"The content of file {file.id} is not on this server: replicas of one database share FILES_DIR."
            raise HttpRefusalError(HTTPStatus.INTERNAL_SERVER_ERROR, message)
        return path

    async def clean(self) -> None:
        """Removes the content of files that are not found any more, and then their rows."""
        last = ""
        while not self._tasks.stopping.is_set() and (gone := await self.store.gone(last)):
            await self._forgotten({file.id: file.stored_as for file in gone})
            last = gone[-1].id


def new_file_id() -> str:
    """An id that no other file has."""
    return f"file-{uuid.uuid4().hex[:24]}"


def checked_ttl_s(anchor: object, seconds: object, most: int, name: str) -> int:
    """Seconds that a file is kept, as a client wishes.

    Args:
        anchor: must be `created_at`.
        seconds: a number or its digits.
        most: what the operator allows.
        name: of the field, for the error.

    Raises:
        HttpRefusalError: 400, one of them is something else.
    """
    if anchor != "created_at":
        raise _refused(f"{name}.anchor", f'{name}.anchor must be "created_at", got {shown(anchor)}.')
    least = min(_LEAST_TTL_S, most)
    text = "" if isinstance(seconds, bool) else str(seconds)
    is_number = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    if not is_number or not least <= int(text) <= most:
        message = f"{name}.seconds must be a whole number from {least} to {most} (FILES_TTL), got {shown(seconds)}."
        raise _refused(f"{name}.seconds", message)
    return int(text)


def unknown_file(file_id: str, param: str) -> HttpRefusalError:
    """404: the owner has no such file."""
    return HttpRefusalError(HTTPStatus.NOT_FOUND, f"There is no file {shown(file_id)}.", param=param)


def _length(request: Request) -> int | None:
    """The body's length as its header has it; None: it has none that counts."""
    length = request.headers.get("content-length", "")
    return int(length[:20]) if length.isdecimal() and "transfer-encoding" not in request.headers else None


def _check_purpose(form: UploadForm) -> None:
    purpose = form.fields.get(PURPOSE)
    if purpose != BATCH:
        raise _refused(PURPOSE, f'purpose must be "{BATCH}", the only one of this server, got {shown(purpose)}.')


def _refused(param: str, message: str) -> HttpRefusalError:
    return HttpRefusalError(HTTPStatus.BAD_REQUEST, message, param=param)


def _open(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb")


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _removed(folder: Path, names: Mapping[str, str]) -> list[str]:
    """Removes content. Returns the ids of the files whose content is gone."""
    return [file_id for file_id, name in names.items() if _is_removed(folder / name)]


def _is_removed(path: Path) -> bool:
    try:
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        logger.warning("%s cannot be removed: %s. The next round of cleaning tries again.", path, error)
        return False
    return True
