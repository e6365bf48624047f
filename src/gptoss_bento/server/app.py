"""Puts the service together when service.py is imported, in its supervisor and in each of its workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import bentoml
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from gptoss_bento.access.admission_middleware import AdmissionMiddleware
from gptoss_bento.access.authentication import Authentication
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.access.runpod_limits import RunPodLimits
from gptoss_bento.bento import service_config
from gptoss_bento.config.environment import server_settings, tls_settings
from gptoss_bento.config.process_environment import take_key_sources
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.http import api_server
from gptoss_bento.http.connection_limits import bounded
from gptoss_bento.http.errors import not_found
from gptoss_bento.http.openai_dispatch import OpenAIApi
from gptoss_bento.http.probes import Probes
from gptoss_bento.http.shutdown_gate import ShutdownGate
from gptoss_bento.http.websocket_limits import limit_websockets
from gptoss_bento.jobs.api.routes import NativeRoutes
from gptoss_bento.server.api_workers import find_worker_group
from gptoss_bento.server.bentoml_layers import with_our_layers
from gptoss_bento.server.openapi import Description
from gptoss_bento.server.websockets import WithWebSockets, stopping_with, websocket_mode
from gptoss_bento.server.worker import Worker
from gptoss_bento.workers import supervisor, worker_process


class Service(Protocol):
    """As much of BentoML's service as is used here."""

    openapi_spec: Any

    def add_asgi_middleware(self, middleware_cls: Callable[..., Any], **options: Any) -> None:
        """Puts one inside those that are there."""


_Service = TypeVar("_Service", bound=Service)


@dataclass(frozen=True)
class Middleware:
    """A layer of the service, and what it is made with."""

    layer: Callable[..., Any]
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Assembly:
    """What service.py declares the service with."""

    profile: str
    options: Mapping[str, Any]
    """The keyword arguments of `bentoml.service`."""
    application: Starlette
    """Mounted at /."""
    worker: Worker
    keys: KeyStore
    settings: ServerSettings

    def with_middlewares(self, service: _Service) -> _Service:
        """Decorates the service: puts our layers around it, inside of those of server/bentoml_layers.py."""
        for middleware in self.middlewares(service):
            service.add_asgi_middleware(middleware.layer, **middleware.options)
        return service

    def middlewares(self, service: Service) -> Iterator[Middleware]:
        """Our layers from the outermost in."""
        worker, settings = self.worker, self.settings
        if settings.cors_origins:
            allowed = {"allow_origins": settings.cors_origins, "allow_methods": ["*"], "allow_headers": ["*"]}
            yield Middleware(CORSMiddleware, allowed)
        yield Middleware(Authentication, {"keys": self.keys, "public": settings.public_routes})
        if settings.rate_limit:
            yield Middleware(RunPodLimits, {"admission": worker.admission})
        yield Middleware(Probes, {"startup": worker.startup})
        yield Middleware(
            Description,
            {
                "bentoml": lambda: service.openapi_spec.asdict(),
                "engine_app": lambda: worker.engine_app,
                "locked": not self.keys.is_open,
            },
        )
        yield Middleware(ShutdownGate, {"shutdown": worker.graceful_shutdown})
        engine_app = guarded_engine(worker, settings)
        yield Middleware(OpenAIApi, {"engine_app": engine_app, "endpoint_ids": frozenset(settings.endpoint_ids)})


def assemble(profile: str | None, platform: str | None) -> Assembly:
    """Reads the settings and makes the worker, once, while service.py is imported. The order matters.

    Args:
        profile: what `--arg profile` says; it wins over `PROFILE`.
        platform: what an image is built for; None: what the profile needs.

    Raises:
        ConfigurationError: there is no such profile or platform, or the folder for metrics holds something else.
    """
    # First, so that an error of the rest is explained; and it names the folder for metrics that workers inherit.
    supervisor.supervise(service_config.keep_metrics_in)
    settings = server_settings()
    profile = profile or settings.profile
    group = find_worker_group(profile, bentoml.server_context.worker_index)
    # Before prometheus_client is imported, which looks for the folder once.
    if worker_process.keeps_metrics_in_process(group):
        service_config.keep_metrics_in_process()
    chosen = service_config.describe(
        profile, settings, tls_settings(), group.count, platform, serving=supervisor.is_serving()
    )
    # Before vLLM is imported, which would read its own variable of keys.
    sources = take_key_sources()
    keys = KeyStore(sources.fixed, sources.file, closed=bool(sources.problems))
    worker = Worker(chosen.profile, group, keys)
    if bentoml.server_context.worker_index is not None:  # BentoML will make the HTTP server of this process
        api_server.install(server_parts(worker, settings, keys))
    return Assembly(chosen.profile, chosen.options, build_app(worker, settings), worker, keys, settings)


def build_app(worker: Worker, server: ServerSettings) -> Starlette:
    """The application that BentoML mounts at /: the job API. It also starts and ends the worker."""
    native = NativeRoutes(lambda: worker.jobs, frozenset(server.endpoint_ids), worker.startup.trouble)
    return Starlette(routes=[native], lifespan=worker.lifespan, exception_handlers={404: not_found})


def guarded_engine(worker: Worker, server: ServerSettings) -> Callable[[], ASGIApp | None]:
    """Gives what answers the OpenAI API behind its bounds, or None while there is no engine."""
    return AdmissionMiddleware(lambda: worker.openai_app, worker.admission, server, lambda: worker.served_model).app


def server_parts(worker: Worker, server: ServerSettings, keys: KeyStore) -> api_server.Parts:
    """What the HTTP server of a worker is made with."""
    mode = websocket_mode(worker, server, keys)
    return api_server.Parts(
        worker.group,
        bounded(server.max_header_bytes, server.client_timeout),
        lambda application: WithWebSockets(with_our_layers(application), Authentication(mode, keys)),
        stopping_with(mode, worker.stop),
        lambda config: limit_websockets(config, server.max_openai_body_bytes, server.client_timeout),
    )
