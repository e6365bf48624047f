"""The BentoML service. Everything in it comes from the chosen profile in configs/; the work is done in src/.

    bentoml serve                            the profile that suits this machine
    bentoml serve --arg profile=gpt-oss-120b
    PROFILE=gpt-oss-20b bentoml serve

`bentoml build` and BentoML's supervisor import this file too, so it imports neither vLLM nor torch. Only the supervisor
looks at the hardware, for the number of workers that it starts.
"""

from __future__ import annotations

import sys
from pathlib import Path

import bentoml
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware

sys.path.insert(0, str(Path(__file__).parent / "src"))

from gptoss_bento.access.authentication import Authentication
from gptoss_bento.access.key_store import KeyRing
from gptoss_bento.access.runpod_limits import PlatformLimits
from gptoss_bento.bento import service_config
from gptoss_bento.bento.images import Platform
from gptoss_bento.config.environment import server_settings, take_key_sources, tls_settings
from gptoss_bento.http.connection_limits import bound_connections
from gptoss_bento.http.openai_dispatch import OpenAIApi
from gptoss_bento.http.probes import Probes
from gptoss_bento.http.shutdown_gate import Intake
from gptoss_bento.http.streaming_bypass import DirectStreaming
from gptoss_bento.jobs.api.generate import GenerateApi
from gptoss_bento.server import patches
from gptoss_bento.server.openapi import Description
from gptoss_bento.server.worker import Worker, build_app, find_team, guarded_engine, serve_together
from gptoss_bento.workers import supervisor


class Arguments(BaseModel, extra="forbid"):
    """What `--arg` takes.

    `platform` is what an image is built for; None: what the profile needs. `bundle_weights` names the model in the
    Bento, so that `bentoml containerize` puts it into the image and BentoCloud brings it along.
    """

    profile: str | None = None
    platform: Platform | None = None
    bundle_weights: bool = False


supervisor.supervise(service_config.keep_metrics_in)
settings = server_settings()
arguments = bentoml.use_arguments(Arguments)
profile = arguments.profile or settings.profile
team = find_team(profile, bentoml.server_context.worker_index)
if supervisor.keeps_metrics_alone(team):
    service_config.keep_metrics_in_process()
chosen = service_config.describe(
    profile, settings, tls_settings(), team.count, arguments.platform, serving=supervisor.is_serving()
)
sources = take_key_sources()
keys = KeyRing(sources.fixed, sources.file, closed=bool(sources.problems))
worker = Worker(chosen.profile, team, keys)
bound_connections(settings.max_header_bytes, settings.client_timeout)
serve_together(worker, keys, settings)


@bentoml.service(name="gptoss-bento", **chosen.options)
@bentoml.asgi_app(build_app(worker, settings), path="/")
class GptOss(GenerateApi):
    """GPT-OSS on vLLM: the OpenAI API at /v1, /openai/v1 and /v2/{endpoint_id}/openai/v1, and the job API."""

    if arguments.bundle_weights:
        weights = service_config.weights(chosen.profile)

    def __init__(self) -> None:
        super().__init__(lambda: worker.jobs)


# The first is the outermost. mypy takes a decorated class for the class itself; it is a bentoml.Service.
if settings.cors_origins:
    allowed = {"allow_origins": settings.cors_origins, "allow_methods": ["*"], "allow_headers": ["*"]}
    GptOss.add_asgi_middleware(CORSMiddleware, **allowed)  # type: ignore[attr-defined]
GptOss.add_asgi_middleware(Authentication, keys=keys, public=settings.public_routes)  # type: ignore[attr-defined]
if settings.rate_limit:
    GptOss.add_asgi_middleware(PlatformLimits, admission=worker.admission)  # type: ignore[attr-defined]
GptOss.add_asgi_middleware(Probes, startup=worker.startup)  # type: ignore[attr-defined]
GptOss.add_asgi_middleware(  # type: ignore[attr-defined]
    Description,
    bentoml=lambda: GptOss.openapi_spec.asdict(),  # type: ignore[attr-defined]
    engine_app=lambda: worker.engine.app if worker.engine else None,
    locked=not keys.is_open,
)
GptOss.add_asgi_middleware(Intake, drain=worker.drain)  # type: ignore[attr-defined]
GptOss.add_asgi_middleware(DirectStreaming)  # type: ignore[attr-defined]
GptOss.add_asgi_middleware(  # type: ignore[attr-defined]
    OpenAIApi, engine_app=guarded_engine(worker, settings), endpoint_ids=frozenset(settings.endpoint_ids)
)
patches.apply()
