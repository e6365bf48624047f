"""Builds vLLM's own OpenAI application over an engine. What is replaced in it: patches.py and replacements.py."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse

from gptoss_bento.engine import replacements, tool_servers
from gptoss_bento.http.fields.served_model import ServedModel
from gptoss_bento.http.paths import INPUT_TOKENS
from gptoss_bento.tools.interfaces import HostedTools

if TYPE_CHECKING:
    from fastapi import FastAPI
    from vllm.v1.engine.async_llm import AsyncLLM


async def build_app(client: AsyncLLM, args: Namespace, tools: HostedTools | None = None) -> FastAPI:
    """vLLM's application, ready but for its life cycle.

    Args:
        client: of the engine.
        args: as `vllm_parser.serve_parser` reads them.
        tools: that this process runs.

    Raises:
        EngineStartError: a tool server that was asked for cannot be used.
    """
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app as build
    from vllm.entrypoints.mcp.tool_server import list_server_and_tools

    tasks = await client.get_supported_tasks()
    replacements.repair_harmony()
    replacements.follow_requests()
    replacements.change_tools()
    await client.reset_mm_cache()  # drops the dummy data of vLLM's profiling run, as vLLM's own server does
    app: FastAPI = build(args, tasks, client.model_config)
    await tool_servers.check_offers(args.tool_server, list_server_and_tools)
    with tool_servers.required(args.tool_server):
        await init_app_state(client, app.state, args, tasks)
    replacements.explain_sessions(app.state.tool_server)
    if tools is not None:
        replacements.host_tools(app.state, tools)
    _add_model_route(app)
    _add_count_route(app)
    replacements.change_app(app, client)
    return app


def served_model(client: AsyncLLM, app: FastAPI) -> ServedModel:
    """What fields of requests depend on: the format, and the generation config under OVERRIDE_GENERATION_CONFIG."""
    defaults = client.model_config.get_diff_sampling_param()
    chat = app.state.openai_serving_chat
    parses = chat is not None and chat.parser_cls is not None
    return ServedModel(app.state.online_renderer.use_harmony, defaults.get("temperature"), parses)


def _add_count_route(app: FastAPI) -> None:
    """OpenAI's SDKs ask how many tokens a response would read; vLLM renders them for its own route alone."""
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
    from vllm.entrypoints.serve.engine.protocol import ErrorResponse

    async def count_tokens(request: Any) -> JSONResponse:
        rendered = await app.state.online_renderer.render_responses(
            request, previous_messages=None, previous_response_outputs=None, tool_server=app.state.tool_server
        )
        if isinstance(rendered, ErrorResponse):
            return JSONResponse(rendered.model_dump(mode="json"), rendered.error.code)
        tokens = len(rendered.engine_input["prompt_token_ids"])
        return JSONResponse({"object": "response.input_tokens", "input_tokens": tokens})

    count_tokens.__annotations__["request"] = ResponsesRequest  # FastAPI reads it; the module must not import vLLM
    app.add_api_route(INPUT_TOKENS, count_tokens, methods=["POST"])


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
