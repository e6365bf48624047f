"""The routes below /v1/conversations: HTTP, nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from gptoss_bento.access.authentication import owner_of
from gptoss_bento.http.errors import FieldError, HttpRefusalError
from gptoss_bento.http.json_body import json_object
from gptoss_bento.http.paths import CONVERSATIONS
from gptoss_bento.http.query import number_in, order_in, query_of
from gptoss_bento.responses.conversation_objects import (
    conversation_item,
    conversation_object,
    deleted_object,
    item_list,
)
from gptoss_bento.responses.conversation_request import items_of, metadata_of, refuse_include, refuse_unknown
from gptoss_bento.responses.conversations import Conversations, LockedError, unknown_conversation
from gptoss_bento.responses.item_check import ItemCheck
from gptoss_bento.state.conversation import ConversationLockedError, UnknownConversationError
from gptoss_bento.state.conversation_store import UnknownConversationItemError
from gptoss_bento.strict_json import dumps, loads_stored, shown

_DEFAULT_PAGE, _LARGEST_PAGE = 20, 100
_STORES_NOTHING = "This server is set to store nothing (VLLM_ENABLE_RESPONSES_API_STORE=0): it takes no new items."


@dataclass(frozen=True)
class _Call:
    """One request.

    Args:
        request: of the client.
        owner: of its key.
        conversation_id: from the path; empty where that names none.
        item_id: the same.
    """

    request: Request
    owner: str
    conversation_id: str
    item_id: str

    @property
    def place(self) -> tuple[str, str]:
        return self.owner, self.conversation_id

    async def body(self) -> dict[str, Any]:
        """Its fields; a request without a body has none."""
        body = await self.request.body()
        return json_object(body) if body else {}

    def refuse_include(self) -> None:
        query = parse_qsl(self.request.scope["query_string"].decode("latin-1"))
        refuse_include([value for name, value in query if name.partition("[")[0] == "include"])


class ConversationRoutes:
    """What the routes do.

    Args:
        conversations: of this worker.
        check: of items that are to be stored.
        may_store: whether new items are stored.
    """

    def __init__(self, conversations: Conversations, check: ItemCheck, *, may_store: bool) -> None:
        self._conversations = conversations
        self._check = check
        self._may_store = may_store

    async def answer(self, scope: Scope, receive: Receive) -> Response:
        """The answer to a request.

        Raises:
            HttpRefusalError: there is no such route, conversation or item, or a field is wrong.
        """
        conversation_id, _, rest = scope["path"].removeprefix(CONVERSATIONS).removeprefix("/").partition("/")
        kind, _, item_id = rest.partition("/")
        place = ("conversation" if conversation_id else "all") if not rest else "item" if item_id else kind
        action = _ACTIONS.get((scope["method"], place))
        if action is None:
            raise HttpRefusalError(HTTPStatus.NOT_FOUND, f"There is no route {scope['path']}.")
        try:
            return await action(self, _Call(Request(scope, receive), owner_of(scope), conversation_id, item_id))
        except UnknownConversationError:
            raise unknown_conversation(conversation_id) from None
        except ConversationLockedError:
            raise LockedError(conversation_id) from None
        except UnknownConversationItemError:
            message = f"Conversation {shown(conversation_id)} has no item {shown(item_id)}."
            raise HttpRefusalError(HTTPStatus.NOT_FOUND, message, param="item_id") from None

    async def _create(self, call: _Call) -> Response:
        self._refuse_storing()
        asked = await call.body()
        refuse_unknown(asked, ("items", "metadata"), CONVERSATIONS)
        metadata = metadata_of(asked)
        items = items_of(asked) if asked.get("items") is not None else []
        made = await self._conversations.create(call.owner, metadata, items, self._check, call.request.scope)
        return _json(dumps(conversation_object(made)))

    async def _retrieve(self, call: _Call) -> Response:
        return _json(dumps(conversation_object(await self._conversations.store.get(*call.place))))

    async def _update(self, call: _Call) -> Response:
        asked = await call.body()
        refuse_unknown(asked, ("metadata",), f"{CONVERSATIONS}/{{id}}")
        if "metadata" not in asked:
            raise FieldError("metadata", "metadata is missing: it is what can be changed of a conversation.")
        metadata = dumps(metadata_of(asked))
        found = await self._conversations.store.update(*call.place, metadata, self._conversations.ttl_ms)
        return _json(dumps(conversation_object(found)))

    async def _delete(self, call: _Call) -> Response:
        await self._conversations.store.delete(*call.place)
        return _json(dumps(deleted_object(call.conversation_id)))

    async def _add(self, call: _Call) -> Response:
        self._refuse_storing()
        call.refuse_include()
        asked = await call.body()
        refuse_unknown(asked, ("items",), f"{CONVERSATIONS}/{{id}}/items")
        added = await self._conversations.add(*call.place, items_of(asked), self._check, call.request.scope)
        return _json(item_list([item.text for item in added], has_more=False))

    async def _list(self, call: _Call) -> Response:
        call.refuse_include()
        query = query_of(call.request.scope)
        limit, after = number_in(query, "limit", _DEFAULT_PAGE, 1, _LARGEST_PAGE), query.get("after")
        order = order_in(query)
        try:
            page = await self._conversations.store.page(*call.place, order=order, limit=limit, after=after)
        except UnknownConversationItemError:
            raise FieldError("after", f"after must be the id of an item of it, got {shown(after)}.") from None
        return _json(item_list([item.text for item in page.items], has_more=page.has_more))

    async def _retrieve_item(self, call: _Call) -> Response:
        call.refuse_include()
        found = await self._conversations.store.item(*call.place, call.item_id)
        return _json(dumps(conversation_item(loads_stored(found))))

    async def _delete_item(self, call: _Call) -> Response:
        store = self._conversations.store
        found = await store.delete_item(*call.place, call.item_id, self._conversations.ttl_ms)
        return _json(dumps(conversation_object(found)))

    def _refuse_storing(self) -> None:
        if not self._may_store:
            raise HttpRefusalError(HTTPStatus.BAD_REQUEST, _STORES_NOTHING)


def _json(text: str) -> Response:
    return Response(text, media_type="application/json")


_Action = Callable[[ConversationRoutes, _Call], Awaitable[Response]]
_ACTIONS: dict[tuple[str, str], _Action] = {
    ("POST", "all"): ConversationRoutes._create,
    ("GET", "conversation"): ConversationRoutes._retrieve,
    ("POST", "conversation"): ConversationRoutes._update,
    ("DELETE", "conversation"): ConversationRoutes._delete,
    ("POST", "items"): ConversationRoutes._add,
    ("GET", "items"): ConversationRoutes._list,
    ("GET", "item"): ConversationRoutes._retrieve_item,
    ("DELETE", "item"): ConversationRoutes._delete_item,
}
