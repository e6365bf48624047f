"""The routes below /v1/responses: HTTP, nothing else. All other paths go on to vLLM's application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptoss_bento.access.authentication import owner_of
from gptoss_bento.engine.owner import of_owner
from gptoss_bento.http.body import with_body
from gptoss_bento.http.errors import RETRY, FieldError, HttpRefusalError, openai_refusal
from gptoss_bento.http.fields.served_model import GPT_OSS, ServedModel
from gptoss_bento.http.fields.unknown import naming
from gptoss_bento.http.idempotency import still_answered
from gptoss_bento.http.json_body import FIELDS, json_object
from gptoss_bento.http.paths import COMPACT, CONVERSATIONS, INPUT_TOKENS, RESPONSES
from gptoss_bento.http.query import number_in, order_in, query_of
from gptoss_bento.responses.answers import json_answer, replayed_stream, stream
from gptoss_bento.responses.background_run import RefusedRequest
from gptoss_bento.responses.compact import compact
from gptoss_bento.responses.conversation_routes import ConversationRoutes
from gptoss_bento.responses.item_check import ItemCheck
from gptoss_bento.responses.repeated_request import earlier_answer, idempotent_use
from gptoss_bento.responses.request import CreateRequest, read_create
from gptoss_bento.responses.stored_responses import Asker, StoredResponses, unknown
from gptoss_bento.state.database import StoreUnavailableError
from gptoss_bento.state.idempotency import KeyUsedError
from gptoss_bento.state.response_store import UnknownItemError, UnknownResponseError
from gptoss_bento.strict_json import dumps, shown

_BELOW = f"{RESPONSES}/"
_DEFAULT_PAGE, _LARGEST_PAGE = 20, 100
_LARGEST_NUMBER = 2**31
_LEFT_OUT = "a search without a server (TOOL_SERVER), a grammar that nothing enforces, or what no answer here has"


class ResponsesApi:
    """ASGI application in front of vLLM's.

    Args:
        app: vLLM's application.
        responses: of this worker.
        may_store: whether new ones are stored; those that are there are found in any case.
        can_search: whether there is a tool server that searches.
        refuses_unknown: whether a request is refused of which something would be left out.
        model: that answers.
    """

    def __init__(
        self,
        app: ASGIApp,
        responses: StoredResponses,
        *,
        may_store: bool = True,
        can_search: bool = False,
        refuses_unknown: bool = False,
        model: ServedModel = GPT_OSS,
    ) -> None:
        self._app = app
        self._responses = responses
        self._may_store = may_store
        self._can_search = can_search
        self._refuses_unknown = refuses_unknown
        self._model = model
        self._answers = {RESPONSES: self._create, INPUT_TOKENS: self._count, COMPACT: self._compact}

    @property
    def _conversations(self) -> ConversationRoutes:
        check = ItemCheck(self._app, self._model)
        return ConversationRoutes(self._responses.conversations, check, may_store=self._may_store)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        is_ours = scope["type"] == "http" and scope["method"] != "OPTIONS"
        if not is_ours or not _is_of_this(path):
            await self._app(scope, receive, send)
            return
        try:
            with of_owner(owner_of(scope)):
                await self._answer(scope, receive, send)
        except HttpRefusalError as error:
            await openai_refusal(error)(scope, receive, send)
        except StoreUnavailableError as error:
            refusal = HttpRefusalError(HTTPStatus.SERVICE_UNAVAILABLE, f"{error} Try again.", RETRY)
            await openai_refusal(refusal)(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path.startswith(CONVERSATIONS):
            answer = await self._conversations.answer(scope, receive)
            await answer(scope, receive, send)
            return
        if (answers := self._answers.get(path)) is not None:
            await answers(scope, receive, send)
            return
        response_id, _, rest = path.removeprefix(_BELOW).partition("/")
        action = _ACTIONS.get((scope["method"], rest))
        if action is None:
            raise HttpRefusalError(HTTPStatus.NOT_FOUND, f"There is no route {path}.")
        answer = await action(self._responses, Request(scope), owner_of(scope), response_id)
        await answer(scope, receive, send)

    async def _create(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        request = self._read(json_object(body), scope.get(FIELDS), may_store=self._may_store)
        asker, send = Asker(owner_of(scope), idempotent_use(scope, request)), naming(request.without_effect, send)
        answer, asker = await earlier_answer(self._responses, asker, request)
        if answer is not None:
            await answer(scope, receive, send)
            return
        try:
            await self._create_first(request, asker, scope, receive, send)
        except KeyUsedError:  # by a request that came at the same moment
            answer, _ = await earlier_answer(self._responses, asker, request)
            if answer is None:
                raise still_answered() from None
            await answer(scope, receive, send)

    async def _create_first(
        self, request: CreateRequest, asker: Asker, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Makes a response and answers with it."""
        if request.background:
            answer = await self._in_background(request, asker, scope)
            await answer(scope, receive, send)
        else:
            await self._responses.create(request, asker, self._app, scope, receive, send)

    async def _in_background(self, request: CreateRequest, asker: Asker, scope: Scope) -> ASGIApp:
        try:
            first = await self._responses.create_in_background(request, asker, self._app, scope)
        except RefusedRequest as refused:
            return partial(_send_all, refused.messages)
        streams = request.asked.get("stream")
        return stream(self._responses, asker.owner, request.id, 0) if streams else json_answer(dumps(first))

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = self._read(json_object(await Request(scope, receive).body()), scope.get(FIELDS))
        body = await self._responses.counted(request, owner_of(scope), self._app)
        await self._app(scope, with_body(body, receive), naming(request.without_effect, send))

    def _read(
        self, asked: Mapping[str, Any], written: Mapping[str, Any] | None = None, *, may_store: bool = True
    ) -> CreateRequest:
        request = read_create(asked, written, may_store=may_store, can_search=self._can_search)
        if self._refuses_unknown:
            for place in request.left_out:
                raise FieldError(place, f"{place} would have no effect: {_LEFT_OUT}.")
        return request

    async def _compact(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = json_object(await Request(scope, receive).body())
        answer = await compact(self._responses, self._app, asked, scope, receive)
        await answer(scope, receive, send)


async def _send_all(messages: Sequence[Message], _: Scope, __: Receive, send: Send) -> None:
    for message in messages:
        await send(message)


def _is_of_this(path: str) -> bool:
    return any(path == ours or path.startswith(f"{ours}/") for ours in (RESPONSES, CONVERSATIONS))


async def _retrieve(responses: StoredResponses, request: Request, owner: str, response_id: str) -> Response:
    query = query_of(request.scope)
    found = await responses.store.get(owner, response_id)
    if found is None:
        raise unknown(response_id, "response_id")
    if query.get("stream", "").lower() not in ("true", "1"):
        return json_answer(found.body)
    start = number_in(query, "starting_after", -1, 0, _LARGEST_NUMBER) + 1
    answer = stream if found.keeps_events else replayed_stream
    return answer(responses, owner, response_id, start)


async def _cancel(responses: StoredResponses, _: Request, owner: str, response_id: str) -> Response:
    return json_answer((await responses.cancel(owner, response_id)).body)


async def _delete(responses: StoredResponses, _: Request, owner: str, response_id: str) -> Response:
    await responses.delete(owner, response_id)
    return json_answer(dumps({"id": response_id, "object": "response", "deleted": True}))


async def _input_items(responses: StoredResponses, request: Request, owner: str, response_id: str) -> Response:
    query = query_of(request.scope)
    order = order_in(query)
    limit = number_in(query, "limit", _DEFAULT_PAGE, 1, _LARGEST_PAGE)
    after = query.get("after")
    try:
        page = await responses.store.input_items(owner, response_id, order=order, limit=limit, after=after)
    except UnknownResponseError:
        raise unknown(response_id, "response_id") from None
    except UnknownItemError:
        message = f"after must be the id of an item of this response, got {shown(after)}."
        raise HttpRefusalError(HTTPStatus.BAD_REQUEST, message, param="after") from None
    first, last = (page.items[0].id, page.items[-1].id) if page.items else (None, None)
    ends = f'"first_id":{dumps(first)},"last_id":{dumps(last)},"has_more":{dumps(page.has_more)}'
    return json_answer(f'{{"object":"list","data":[{",".join(item.text for item in page.items)}],{ends}}}')


_Action = Callable[[StoredResponses, Request, str, str], Awaitable[Response]]
_ACTIONS: dict[tuple[str, str], _Action] = {
    ("GET", ""): _retrieve,
    ("DELETE", ""): _delete,
    ("POST", "cancel"): _cancel,
    ("GET", "input_items"): _input_items,
}
