"""The routes below /v1/files: HTTP, nothing else. All other paths go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.access.authentication import owner_of
from gptoss_bento.batches.refusals import answered
from gptoss_bento.batches.stored_files import StoredFiles, unknown_file
from gptoss_bento.http.paths import FILES
from gptoss_bento.http.query import number_in, order_in, query_of
from gptoss_bento.state.file import StoredFile
from gptoss_bento.state.file_store import UnknownFileError

_BELOW = f"{FILES}/"
_LARGEST_PAGE = 10_000


class FilesApi:
    """ASGI application in front of another.

    Args:
        app: the other.
        files: of this worker.
    """

    def __init__(self, app: ASGIApp, files: StoredFiles) -> None:
        self._app = app
        self._files = files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        is_ours = scope["type"] == "http" and scope["method"] != "OPTIONS"
        if not is_ours or not (path == FILES or path.startswith(_BELOW)):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            answer = await answered(self._answer(request))
        except ClientDisconnect:
            return
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path, method, owner = request.scope["path"], request.method, owner_of(request.scope)
        if path == FILES:
            if method == "POST":
                return JSONResponse(file_object(await self._files.upload(owner, request)))
            return await self._list(request, owner)
        file_id, _, rest = path.removeprefix(_BELOW).partition("/")
        try:
            return await _ACTIONS[method, rest](self._files, owner, file_id)
        except UnknownFileError:
            raise unknown_file(file_id, "file_id") from None

    async def _list(self, request: Request, owner: str) -> Response:
        query = query_of(request.scope)
        limit = number_in(query, "limit", _LARGEST_PAGE, 1, _LARGEST_PAGE)
        after, purpose, order = query.get("after"), query.get("purpose"), order_in(query)
        try:
            page = await self._files.store.page(owner, order=order, limit=limit, after=after, purpose=purpose)
        except UnknownFileError:
            raise unknown_file(str(after), "after") from None
        return JSONResponse(list_object([file_object(file) for file in page.files], has_more=page.has_more))


def file_object(file: StoredFile) -> dict[str, Any]:
    """A file as OpenAI writes it; times are seconds."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": file.created_at // 1000,
        "expires_at": file.expires_at // 1000,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def list_object(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """A page of a list as OpenAI writes it."""
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": has_more}


async def _retrieve(files: StoredFiles, owner: str, file_id: str) -> Response:
    return JSONResponse(file_object(await files.store.get(owner, file_id)))


async def _delete(files: StoredFiles, owner: str, file_id: str) -> Response:
    await files.store.delete(owner, file_id)
    return JSONResponse({"id": file_id, "object": "file", "deleted": True})


async def _content(files: StoredFiles, owner: str, file_id: str) -> Response:
    file = await files.store.get(owner, file_id)
    return FileResponse(files.content(file), media_type="application/octet-stream", filename=file.filename)


_Action = Callable[[StoredFiles, str, str], Awaitable[Response]]
_ACTIONS: dict[tuple[str, str], _Action] = {
    ("GET", ""): _retrieve,
    ("DELETE", ""): _delete,
    ("GET", "content"): _content,
}
