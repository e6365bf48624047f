"""What server/app.py puts together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Router

from gptoss_bento.access.authentication import Authentication
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.access.runpod_limits import RunPodLimits
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.http.openai_dispatch import OpenAIApi
from gptoss_bento.http.probes import Probes
from gptoss_bento.http.shutdown_gate import ShutdownGate
from gptoss_bento.server import app
from gptoss_bento.server.openapi import Description
from gptoss_bento.server.worker import Worker


class FakeService:
    """A fake of BentoML's service."""

    openapi_spec = None

    def add_asgi_middleware(self, middleware_cls: Callable[..., Any], **options: Any) -> None:
        raise AssertionError(middleware_cls, options)


def assembly(**settings: Any) -> app.Assembly:
    worker, server = Worker(), ServerSettings(**settings)
    return app.Assembly("demo", {}, app.build_app(worker, server), worker, KeyStore(), server)


def test_middlewares_ask_for_a_key_before_anything_of_the_service_answers() -> None:
    layers = [middleware.layer for middleware in assembly().middlewares(FakeService())]

    assert layers == [Authentication, Probes, Description, ShutdownGate, OpenAIApi]


def test_middlewares_of_settings_are_around_and_behind_the_key() -> None:
    found = assembly(cors_origins=("https://a.example",), rate_limit=True).middlewares(FakeService())

    assert [middleware.layer for middleware in found][:4] == [CORSMiddleware, Authentication, RunPodLimits, Probes]


def test_middlewares_can_all_be_made_with_their_options() -> None:
    for middleware in assembly(cors_origins=("*",), rate_limit=True).middlewares(FakeService()):
        middleware.layer(Router(), **middleware.options)
