"""Whether the engine can read items that are to be stored: what it refuses now, it would refuse in each later turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Message, Scope

from gptoss_bento.http.body import with_body
from gptoss_bento.http.error_words import TOO_LONG, in_clients_words
from gptoss_bento.http.errors import HttpRefusalError
from gptoss_bento.http.fields.check import checked
from gptoss_bento.http.fields.served_model import ServedModel
from gptoss_bento.http.paths import INPUT_TOKENS, RESPONSES
from gptoss_bento.strict_json import loads

_CALLS, _OUTPUT = ("function_call", "custom_tool_call"), "_call_output"


class ItemCheck:
    """Asks vLLM's application, which renders a prompt from the items and counts its tokens.

    Args:
        app: vLLM's application.
        model: that it serves.
    """

    def __init__(self, app: ASGIApp, model: ServedModel) -> None:
        self._app = app
        self._model = model

    def refuse_fields(self, items: Sequence[Any]) -> None:
        """Refuses what a request's input may not have, such as parts that are no text.

        Raises:
            FieldError: it names the place, from `input` on.
        """
        checked(RESPONSES, {"input": list(items)}, self._model)

    def before(self, history: Sequence[Any], items: Sequence[Any]) -> Sequence[Any]:
        """Those items of a history that a check of later ones must render with them.

        The Harmony format reads items one by one, and of an output the call before it. A template of another
        architecture may refuse the order of roles, which only the whole history has.
        """
        if not self._model.writes_harmony:
            return history
        answered = {_call_of(item) for item in items if str(item.get("type")).endswith(_OUTPUT)}
        return [item for item in history if item.get("type") in _CALLS and _call_of(item) in answered]

    async def refuse_unreadable(self, scope: Scope, body: bytes) -> None:
        """See `refuse_unreadable`, which asks this application.

        Raises:
            HttpRefusalError: an item is none that vLLM reads, or an output has no call before it.
        """
        await refuse_unreadable(self._app, scope, body)


async def refuse_unreadable(app: ASGIApp, scope: Scope, body: bytes) -> None:
    """Renders a conversation. One that is too long is none of an item's faults.

    Args:
        app: vLLM's application.
        scope: of the request that brings items.
        body: as vLLM gets it, with the items before them.

    Raises:
        HttpRefusalError: an item is none that vLLM reads, or an output has no call before it.
    """
    status, answer = await _asked(app, scope, body)
    if status == HTTPStatus.OK:
        return
    error = in_clients_words(INPUT_TOKENS, status, _object(answer)).get("error")
    said: dict[str, Any] = error if isinstance(error, dict) else {}
    if said.get("code") != TOO_LONG:
        message = str(said.get("message") or "The engine cannot read these items.")
        raise HttpRefusalError(HTTPStatus(status), message, param=said.get("param"))


async def _asked(app: ASGIApp, scope: Scope, body: bytes) -> tuple[int, bytes]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json")]
    own = {"path": INPUT_TOKENS, "raw_path": INPUT_TOKENS.encode(), "method": "POST", "query_string": b""}
    await app({**scope, **own, "headers": headers, "state": {}}, with_body(body, receive), send)
    start, *rest = sent
    return start["status"], b"".join(message.get("body", b"") for message in rest)


def _call_of(item: Mapping[str, Any]) -> str:
    return str(item.get("call_id"))


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
