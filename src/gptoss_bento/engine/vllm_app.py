"""Builds vLLM's own OpenAI application over an engine, and changes what must be changed in it."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cachetools import FIFOCache
from starlette.responses import JSONResponse, Response

from gptoss_bento.engine.background_tasks import BackgroundTasks
from gptoss_bento.engine.failures import AbortedGenerationError, engine_failure, make_honest
from gptoss_bento.engine.harmony_repair import KINDS, repairing
from gptoss_bento.engine.usage import current_meter
from gptoss_bento.http.errors import name_parameter

if TYPE_CHECKING:
    from fastapi import FastAPI
    from vllm.v1.engine.async_llm import AsyncLLM

RESPONSES_KEPT = 1000
"""How many answers of /v1/responses can be asked for again."""


@cache
def repair_harmony() -> None:
    """From now on vLLM reads answers that break the Harmony format; each repair counts in /metrics."""
    import vllm.parser.harmony as harmony
    from openai_harmony import HarmonyError
    from prometheus_client import Counter

    counter = Counter("gptoss_bento_harmony_repairs", "Places where the model broke the Harmony format.", ["kind"])
    for kind in KINDS:
        counter.labels(kind)  # shows 0 from the start
    harmony.get_streamable_parser_for_assistant = repairing(
        harmony.get_streamable_parser_for_assistant,
        harmony.get_encoding,
        HarmonyError,
        lambda kind: counter.labels(kind).inc(),
    )


async def build_app(client: AsyncLLM, args: Namespace) -> FastAPI:
    """vLLM's application, ready but for its life cycle.

    Args:
        client: of the engine.
        args: as `vllm_parser.serve_parser` reads them.
    """
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app as build

    tasks = await client.get_supported_tasks()
    repair_harmony()
    await client.reset_mm_cache()  # drops the dummy data of vLLM's profiling run, as vLLM's own server does
    app: FastAPI = build(args, tasks, client.model_config)
    await init_app_state(client, app.state, args, tasks)
    app.state.server = SimpleNamespace(should_exit=False)  # vLLM's error handler sets this on its own server
    _hide_model_path(app)
    _bound_response_store(app)
    app.state.openai_serving_responses.background_tasks = BackgroundTasks()  # so that they keep their places
    _add_model_route(app)
    _report_failures(app)
    _name_parameters(app)
    _meter_generations(client)
    return app


def _hide_model_path(app: FastAPI) -> None:
    """`root` in /v1/models would show where the weights lie on this machine; it becomes the first served name."""
    models = app.state.openai_serving_models.base_model_paths
    for model in models:
        model.model_path = models[0].name


def _bound_response_store(app: FastAPI) -> None:
    """GET /v1/responses/{id} needs stored responses, and vLLM never forgets one; here the oldest make room.

    A response may need its messages as long as it is kept itself, and those are stored earlier: they stay longer.
    """
    responses = app.state.openai_serving_responses
    responses.response_store = FIFOCache(RESPONSES_KEPT)
    responses.msg_store = FIFOCache(2 * RESPONSES_KEPT)
    responses.event_store = FIFOCache(2 * RESPONSES_KEPT)


def _add_model_route(app: FastAPI) -> None:
    """OpenAI's SDKs can ask for one model; vLLM only lists them."""
    from fastapi import HTTPException

    async def show_model(name: str) -> JSONResponse:
        models = await app.state.openai_serving_models.show_available_models()
        for model in models.data:
            if model.id == name:
                return JSONResponse(model.model_dump())
        raise HTTPException(404, f"The model `{name}` does not exist.")

    app.add_api_route("/v1/models/{name:path}", show_model, methods=["GET"])


def _report_failures(app: FastAPI) -> None:
    """A dead engine and a stop are 503; vLLM would call both a fault of the request, or a success."""
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    make_honest(app.state)
    for kind in (AbortedGenerationError, EngineDeadError, EngineGenerateError):
        app.add_exception_handler(kind, engine_failure)


def _name_parameters(app: FastAPI) -> None:
    """vLLM's errors often name the wrong parameter only in their message; OpenAI's SDKs show the field `param`."""
    for kind, handler in list(app.exception_handlers.items()):
        app.exception_handlers[kind] = _naming(handler)
    app.middleware_stack = app.build_middleware_stack()  # build_app has built it already, with the old handlers


def _meter_generations(client: AsyncLLM) -> None:
    """Whoever counts the tokens of a request is told of its generations; of those of others nothing is kept."""
    processor = client.output_processor
    add_request = processor.add_request

    def add_metered(request: Any, prompt: Any, parent: Any = None, index: int = 0, queue: Any = None) -> None:
        add_request(request, prompt, parent, index, queue)
        if meter := current_meter():
            state = processor.request_states[request.request_id]
            prompt_tokens = 0 if index else state.prompt_len  # n answers to one prompt
            meter.add(lambda: prompt_tokens + state.detokenizer.num_output_tokens())

    processor.add_request = add_metered


def _naming(handler: Callable[..., Any]) -> Callable[..., Any]:
    async def handle(request: Any, error: Exception) -> Response:
        response: Response = await handler(request, error)
        if not isinstance(response, JSONResponse):
            return response
        named = name_parameter(json.loads(bytes(response.body)))
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return JSONResponse(named, response.status_code, headers)

    return handle
