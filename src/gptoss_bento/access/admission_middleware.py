"""The middleware in front of the engine's application: it reads the body, checks the key's caps, and admits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from gptoss_bento.access.admission import Admission, Grant, engine_rule, key_rules
from gptoss_bento.access.authentication import key_of
from gptoss_bento.access.generation_count import generations_of, refuse_more_than
from gptoss_bento.access.rendering import renders
from gptoss_bento.access.request_caps import GENERATING, capped, caps_need_body
from gptoss_bento.config.api_keys import Key
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.engine.usage import Meter
from gptoss_bento.http.body import ARRIVAL, read_body, with_body
from gptoss_bento.http.errors import ASKED, HttpRefusalError, openai_refusal
from gptoss_bento.http.fields.check import CHECKED, checked
from gptoss_bento.http.fields.served_model import ServedModel
from gptoss_bento.http.fields.unknown import UnknownFields, adding
from gptoss_bento.http.json_body import FIELDS, json_bytes, json_object
from gptoss_bento.http.paths import FILES, RESPONSES


class AdmissionMiddleware:
    """ASGI middleware around the engine's application, whose own paths it sees.

    The body is read first, so that a slow sender occupies no slot.

    Args:
        engine_app: returns the application, or None while there is no engine.
        admission: counts the admitted requests.
        settings: the bounds.
        served_model: returns the model that the engine serves; asked only while there is an engine.
    """

    def __init__(
        self,
        engine_app: Callable[[], ASGIApp | None],
        admission: Admission,
        settings: ServerSettings,
        served_model: Callable[[], ServedModel] = ServedModel,
    ) -> None:
        self._engine_app = engine_app
        self._served_model = served_model
        self._admission = admission
        self._engine_rule = engine_rule(settings.max_openai_requests)
        self._largest_body = settings.max_openai_body_bytes
        self._patience_s = settings.client_timeout
        self._refuses_unknown = settings.unknown_fields == "refuse"
        self._unknown = UnknownFields()

    def app(self) -> ASGIApp | None:
        """The guarded application, or None while there is no engine."""
        app = self._engine_app()
        return partial(self._call, app) if app else None

    async def _call(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST" or scope["path"] == FILES:  # an upload goes to the disk as it comes
            await app(scope, receive, send)
            return
        try:
            body = await read_body(receive, self._largest_body, self._patience_s, scope.get(ARRIVAL))
            answer = self._admitted(app, scope, body)
        except HttpRefusalError as error:
            answer = openai_refusal(error)
        except ClientDisconnect:
            return
        await answer(scope, receive, send)

    def _admitted(self, app: ASGIApp, scope: Scope, body: bytes) -> ASGIApp:
        """The application as this request may use it.

        Raises:
            CapError: it asks for more than its key may have, or than there is.
            EnvelopeError: it is no JSON object.
            FieldError: one of its fields would have no effect.
            RefusedError: there is no place for it now.
        """
        path = scope["path"]
        if path not in CHECKED:
            return _Call(app, body, self._grant_of_rendering(path, key_of(scope)))
        asked = json_object(body)
        scope[ASKED], scope[FIELDS] = tuple(asked), asked
        known = checked(path, asked, self._served_model(), refuse_unknown=self._refuses_unknown)
        headers = self._unknown.headers(path, known.ignored) if known.ignored else {}
        key = key_of(scope)
        within = _capped(path, known.body, key)
        if within is not asked:  # what the engine's parser reads is else what was looked at here: it is the same one
            body = json_bytes(within)
        if path not in GENERATING:
            return _Call(app, body, self._grant_of_rendering(path, key), headers)
        return _Call(app, body, self._grant(path, within, key), headers)

    def _grant_of_rendering(self, path: str, key: Key | None) -> Grant | None:
        """For a request that renders a prompt without a generation: it takes none of the key's `streams`."""
        if not renders(path):
            return None
        return self._admission.enter((self._engine_rule, *key_rules(key, streams=False)))

    def _grant(self, path: str, asked: Mapping[str, Any], key: Key | None) -> Grant:
        if path == RESPONSES and asked.get("background") is True:  # it takes a slot when it is generated
            return self._admission.enter(key_rules(key, streams=False))
        rules = (self._engine_rule, *key_rules(key, streams=True))
        places = generations_of(path, asked)
        for rule in reversed(rules):  # the key's first
            refuse_more_than(rule.concurrent or places, rule.what, places)
        return self._admission.enter(rules, places)


def _capped(path: str, asked: Mapping[str, Any], key: Key | None) -> Mapping[str, Any]:
    """The request within its key's caps; the very same if they change nothing."""
    if key is None or not caps_need_body(key.limits) or path not in GENERATING:
        return asked
    within = capped(path, asked, key.limits)
    return asked if within == asked else within


class _Call:
    """One call of the application, with the body that was read."""

    def __init__(
        self, app: ASGIApp, body: bytes, grant: Grant | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self._app = app
        self._body = body
        self._grant = grant
        self._headers = {**(grant.headers if grant else {}), **(headers or {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        receive = with_body(self._body, receive)
        send = adding(self._headers, send) if self._headers else send
        if self._grant is None:
            await self._app(scope, receive, send)
            return
        with Meter() as meter:
            try:
                await self._app(scope, receive, send)
            finally:
                self._grant.leave(meter.tokens if self._grant.counts_tokens else 0)
