"""Starts vLLM's engine from a plan and builds vLLM's own OpenAI application on it.

Beside this only engine/preload.py, engine/warmup.py and what runs in vLLM's own processes import vLLM (test_rules.py).

Written against vLLM 0.32.0, whose symbols tests/contract/test_vllm.py touches one by one. vLLM is imported inside the
functions: `bentoml build` imports this module too, and importing vLLM takes seconds.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import re
import signal
import threading
from argparse import Action, ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

from cachetools import FIFOCache
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from gptoss_bento.engine import preload as engine_preload
from gptoss_bento.engine import vllm_plugin
from gptoss_bento.engine.background_tasks import BackgroundTasks
from gptoss_bento.engine.engine_gauges import EngineClock
from gptoss_bento.engine.failures import AbortedGenerationError, engine_failure, make_honest
from gptoss_bento.engine.harmony_repair import KINDS, repairing
from gptoss_bento.engine.output_coalescing import Gathering
from gptoss_bento.engine.usage import current_meter
from gptoss_bento.engine.warmup import warm_up
from gptoss_bento.errors import ConfigurationError, EngineDiedError, EngineStartError
from gptoss_bento.http.errors import name_parameter
from gptoss_bento.threads import in_daemon_thread
from gptoss_bento.workers.child_processes import kill_processes
from gptoss_bento.workers.readiness import Startup
from gptoss_bento.workers.worker_group import Team

if TYPE_CHECKING:
    from fastapi import FastAPI
    from vllm.config import VllmConfig
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.utils import CoreEngineLaunch

logger = logging.getLogger(__name__)

LOADING = "engine: weights and KV cache"
"""The phase in which the engine's process does its work."""

RESPONSES_KEPT = 1000
"""How many answers of /v1/responses can be asked for again."""


@dataclass(frozen=True)
class Engine:
    """A running engine: vLLM's client object and vLLM's FastAPI application over it."""

    client: AsyncLLM
    app: FastAPI

    @property
    def unfinished_requests(self) -> int:
        """Requests that run or wait in the engine now."""
        return int(self.client.get_num_unfinished_requests())

    @property
    def dead(self) -> bool:
        """Whether vLLM has given up; it never comes back by itself."""
        return bool(self.client.errored)

    def holds_response(self, response_id: str) -> bool:
        """Whether this process has that stored response of `/v1/responses`."""
        return response_id in self.app.state.openai_serving_responses.response_store

    @property
    def exit_signal(self) -> int | None:
        """The signal that ended the engine's process, if one did; None too where another worker started it."""
        return next((-code for code in self._exit_codes() if code < 0), None)

    @property
    def crashed(self) -> bool:
        """Whether the engine's process ended, and not because it was told to; False where another worker started it."""
        return any(code not in (0, -signal.SIGTERM, -signal.SIGINT) for code in self._exit_codes())

    def _exit_codes(self) -> list[int]:
        manager = getattr(getattr(self.client.engine_core, "resources", None), "engine_manager", None)
        return [process.exitcode or 0 for process in getattr(manager, "processes", [])]

    async def answer(self) -> None:
        """Returns when the engine's loop has answered, between two steps of it: a sign of life."""
        await self.client.is_sleeping()

    def cut_off(self, message: str) -> None:
        """Ends every running request with a 503: an error body, or the last event of a stream that has begun."""
        from vllm.exceptions import GracefulHTTPError

        error = GracefulHTTPError(message, HTTPStatus.SERVICE_UNAVAILABLE)
        self.client.output_processor.propagate_error(error)

    def token_bytes(self, token_ids: Sequence[int]) -> list[bytes] | None:
        """What each token stands for, or None where the tokenizer does not work on bytes. Special tokens are empty."""
        return _token_bytes(self.client.get_tokenizer(), token_ids)


def _token_bytes(tokenizer: Any, token_ids: Sequence[int]) -> list[bytes] | None:
    alphabet = _byte_alphabet()
    special = set(tokenizer.all_special_ids)
    pieces = []
    for token, text in zip(token_ids, tokenizer.convert_ids_to_tokens(list(token_ids)), strict=True):
        if token in special:
            pieces.append(b"")
        elif text is None or not alphabet.keys() >= set(text):
            return None
        else:
            pieces.append(bytes(alphabet[character] for character in text))
    return pieces


@cache
def _byte_alphabet() -> dict[str, int]:
    """The characters by which byte-level vocabularies write bytes: GPT-2's convention, which gpt-oss keeps."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


@dataclass(frozen=True)
class StartOptions:
    """What a start may do beside what vLLM's own server does.

    `preload`: the engine's process imports vLLM while this one does. `warmup`: requests of our own come first, so that
    no client waits for kernels.
    """

    preload: bool = False
    warmup: bool = False


@asynccontextmanager
async def running(
    argv: Sequence[str], startup: Startup, timeout_s: float, team: Team, how: StartOptions | None = None
) -> AsyncIterator[Engine]:
    """Starts vLLM with the words of `vllm serve` and ends it on leaving.

    Of several workers the first starts the engine's process, and all attach to it.

    The heavy part runs in threads, so that the probes answer meanwhile.

    Args:
        argv: the arguments, as `EnginePlan.argv` gives them.
        startup: is told the phases.
        timeout_s: seconds until a start that hangs is given up.
        team: the workers that share the engine.
        how: what a start may do beside; nothing by default.

    Raises:
        ConfigurationError: vLLM refuses the arguments.
        EngineStartError: the engine's process did not come up.
        EngineDiedError: it was not ready in time.
    """
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(timeout_s):
                engine = await _start(argv, startup, stack, team, how or StartOptions())
        except asyncio.CancelledError:  # another worker has died
            kill_processes()
            raise
        except TimeoutError:
            kill_processes()
            raise EngineDiedError(f"vLLM was not ready within {timeout_s:g} s (VLLM_STARTUP_TIMEOUT).") from None
        yield engine


async def _start(argv: Sequence[str], startup: Startup, stack: AsyncExitStack, team: Team, how: StartOptions) -> Engine:
    if how.preload and team.is_first:
        await in_daemon_thread(engine_preload.begin)
    with startup.timed("engine: import"):
        await in_daemon_thread(_import_engine)
    with startup.timed("engine: configuration"):
        args, config = await in_daemon_thread(_configure, argv, team)
    with startup.timed(LOADING):
        threading.Thread(target=_prepare_app, args=(config,), daemon=True).start()  # while the engine process loads
        client = await _started_client(args, config, team, engine_preload.forked if how.preload else nullcontext)
        if not team.is_alone:  # vLLM waits for the first request, and numbers of others' would lie here unread
            client._run_output_handler()
    stack.callback(_stop_client, client)
    with startup.timed("engine: application"):
        app = await _build_app(client, args)
    if how.warmup and team.is_first:
        with startup.timed("engine: warm-up"):
            await warm_up(client)
    await stack.enter_async_context(app.router.lifespan_context(app))
    _settle()
    return Engine(client, app)


def _settle() -> None:
    """What is worth doing once all is loaded."""
    from vllm.envs import enable_envs_cache

    enable_envs_cache()  # vLLM's API server reads an environment variable for every token: 11 % of its time (measured)
    gc.collect()
    gc.freeze()  # what is here now stays: no collection needs to walk through it again
    ctypes.CDLL(None).malloc_trim(0)  # loading in threads leaves 750 MB of free heap behind (measured), in their arenas


def _import_engine() -> None:
    vllm_plugin.advertise()
    import vllm.engine.arg_utils
    import vllm.entrypoints.launchers.cli_args
    import vllm.v1.engine.async_llm  # noqa: F401


def _prepare_app(config: VllmConfig) -> None:
    """What building the application would otherwise wait for: its modules, and 4 s for the tokenizer's chat template.

    vLLM keeps that template in a cache, so the application finds it there.
    """
    import vllm.entrypoints.generate.api_router
    import vllm.entrypoints.launchers.api_server.app_state
    import vllm.entrypoints.launchers.app  # noqa: F401
    from vllm.renderers.hf import resolve_chat_template
    from vllm.tokenizers.registry import cached_tokenizer_from_config

    if tokenizer := cached_tokenizer_from_config(config.model_config):
        resolve_chat_template(tokenizer, None, None, model_config=config.model_config)


def _configure(argv: Sequence[str], team: Team) -> tuple[Namespace, VllmConfig]:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args
    from vllm.entrypoints.launchers.launcher import validate_api_server_args
    from vllm.logger import configure_logging_from_args
    from vllm.usage.usage_lib import UsageContext
    from vllm.utils.system_utils import set_ulimit

    set_ulimit()  # open files: one a stream, as vLLM's own server does
    args = _parser().parse_args(list(argv))
    try:
        configure_logging_from_args(args)
        validate_parsed_serve_args(args)
        validate_api_server_args(args)
        engine_args = AsyncEngineArgs.from_cli_args(args)
        if not team.is_alone:
            engine_args._api_process_count, engine_args._api_process_rank = team.count, team.index
        return args, engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    except (ValidationError, ValueError, TypeError, KeyError, OSError, NotImplementedError) as error:
        raise ConfigurationError(f"vLLM refuses this configuration: {_first_line(error)}") from error


_Context = Callable[[], AbstractContextManager[None]]
"""In which the engine's process is started."""


async def _started_client(args: Namespace, config: VllmConfig, team: Team, starting: _Context) -> AsyncLLM:
    if not team.is_alone:
        return await _attach(args, config, team, starting)
    with starting():
        return await in_daemon_thread(_start_client, args, config)


def _start_client(args: Namespace, config: VllmConfig, **attached: Any) -> AsyncLLM:
    from vllm.v1.engine.async_llm import AsyncLLM

    with _start_errors():
        return AsyncLLM.from_vllm_config(
            config,
            enable_log_requests=args.enable_log_requests,
            disable_log_stats=args.disable_log_stats,
            aggregate_engine_logging=args.aggregate_engine_logging,
            **attached,
        )


_FAILED_BY_SIGNAL = re.compile(r"Failed core proc\(s\): \{[^}]*: -(\d+)")  # vLLM 0.32, v1/engine/utils.py


@contextmanager
def _start_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        summary = _first_line(error)
        # vLLM then only points to its log, where server/worker.py finds the cause.
        detail = "" if "root cause above" in summary else f": {summary}"
        failure = EngineStartError(f"vLLM's engine did not start{detail}")
        if exit_code := _FAILED_BY_SIGNAL.search(str(error)):
            failure.exit_signal = int(exit_code[1])
        raise failure from error


def _start_one_of_several(args: Namespace, config: VllmConfig, **attached: Any) -> AsyncLLM:
    """A client that sets the engine's gauges beside the other workers' clients, and shares the cores with them."""
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    clock = EngineClock()
    PrometheusStatLogger._gauge_cls = clock.gauge()
    client = _start_client(args, config, **attached)
    core = client.engine_core
    gathering = Gathering(core.outputs_queue.empty, client.get_num_unfinished_requests)
    core.get_output_async = gathering.before(clock.following(core.get_output_async))
    return client


async def _attach(args: Namespace, config: VllmConfig, team: Team, starting: _Context) -> AsyncLLM:
    """The client of an engine that several workers share, as `vllm serve --api-server-count` makes it.

    A client waits for the engine to be ready, and the engine for its clients; who comes first does not matter.
    """
    inputs, outputs = team.addresses("input"), team.addresses("output")
    attached: dict[str, Any] = {
        "client_addresses": {"input_address": inputs[team.index], "output_address": outputs[team.index]},
        "client_count": team.count,
        "client_index": team.index,
    }
    if not team.is_first:
        return await in_daemon_thread(_start_one_of_several, args, config, **attached)
    launching = _launching(args, config, inputs, outputs)
    with starting():
        launch = await in_daemon_thread(launching.__enter__)  # from here on nothing else reads the configuration
    waiting = in_daemon_thread(launching.__exit__, None, None, None)
    _, client = await asyncio.gather(waiting, in_daemon_thread(_start_one_of_several, args, config, **attached))
    _own_engine(client, launch)
    return client


@contextmanager
def _launching(
    args: Namespace, config: VllmConfig, inputs: list[str], outputs: list[str]
) -> Iterator[CoreEngineLaunch]:
    """Starts the engine's process; leaving the context waits until it is ready."""
    from vllm.v1.engine.utils import EngineZmqAddresses, launch_core_engines
    from vllm.v1.executor import Executor

    addresses = EngineZmqAddresses(inputs=inputs, outputs=outputs)
    with (
        _start_errors(),
        launch_core_engines(config, Executor.get_class(config), not args.disable_log_stats, addresses) as launch,
    ):
        yield launch


def _own_engine(client: AsyncLLM, launch: CoreEngineLaunch) -> None:
    """Lets the client watch and end the engine's process, as one that has started it itself."""
    client.engine_core.resources.engine_manager = launch.engine_manager
    client.engine_core.start_engine_core_monitor()


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


async def _build_app(client: AsyncLLM, args: Namespace) -> FastAPI:
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app

    tasks = await client.get_supported_tasks()
    repair_harmony()
    await client.reset_mm_cache()  # drops the dummy data of vLLM's profiling run, as vLLM's own server does
    app: FastAPI = build_app(args, tasks, client.model_config)
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


def _stop_client(client: AsyncLLM) -> None:
    client.shutdown(timeout=0)
    kill_processes()


def _parser() -> ArgumentParser:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser: ArgumentParser = make_arg_parser(FlexibleArgumentParser())
    parser.error = _refuse_arguments  # type: ignore[method-assign]  # argparse's own would end the process
    return parser


def _refuse_arguments(message: str) -> NoReturn:
    raise ConfigurationError(f"vLLM does not take these arguments: {message}")


def _first_line(error: Exception) -> str:
    """The first sentence of an error, without pydantic's framing."""
    if isinstance(error, ValidationError):
        return "; ".join(str(item["msg"]).removeprefix("Value error, ").split("\n")[0] for item in error.errors())
    return str(error).strip().split("\n")[0] or type(error).__name__


def describe_options() -> list[dict[str, Any]]:
    """What vLLM's own parser says of its options, as rows for vllm_options.json."""
    return [_describe(action) for action in _parser()._actions if action.option_strings and action.dest != "help"]


def _describe(action: Action) -> dict[str, Any]:
    return {
        "name": action.dest,
        "flag": next(flag for flag in action.option_strings if flag.startswith("--")),
        "kind": _kind(action),
        "many": _many(action),
        "choices": [str(choice) for choice in action.choices or () if choice is not None],
        "help": " ".join((action.help or "").split()),
        "flags": [flag for flag in action.option_strings if not flag.startswith("--no-") or _kind(action) != "switch"],
        "default": _default_text(action),
    }


def _default_text(action: Action) -> str:
    """The default for readers: plain values only, because objects differ from start to start."""
    value = action.default
    return json.dumps(value) if isinstance(value, str | int | float | bool | list | dict) else ""


def describe_variables() -> list[str]:
    """The environment variables that vLLM reads, for vllm_variables.json."""
    from vllm import envs

    return sorted(envs.environment_variables)


def describe_unhashed_variables() -> list[str]:
    """Those that are no part of the key under which vLLM keeps what is compiled, for vllm_unhashed_variables.json."""
    from vllm import envs

    return sorted(envs.environment_variables.keys() - envs.compile_factors().keys())


def _many(action: Action) -> str:
    """How several values are written: `repeat` (--x a --x b), `words` (--x a b), or empty for one value."""
    if type(action).__name__ == "_AppendAction":
        return "repeat"
    return "words" if action.nargs in ("+", "*") else ""


def _kind(action: Action) -> str:
    """vLLM's parser types are functions; their names, or what they wrap, tell what they take."""
    if isinstance(action, BooleanOptionalAction):
        return "switch"
    if type(action).__name__ == "_StoreTrueAction":
        return "flag"
    function = _unwrapped(action.type)
    name = getattr(function, "__name__", "str")
    if name in ("int", "float"):
        return name
    if name.startswith("human_readable_int"):
        return "count"
    return "json" if name in ("loads", "parse_dataclass", "union_dict_and_str") else "text"


def _unwrapped(function: Any) -> Any:
    """`optional_type(parse_type(int))` → `int`."""
    cells = getattr(function, "__closure__", None) or ()
    inner = [cell.cell_contents for cell in cells if callable(cell.cell_contents)]
    return _unwrapped(inner[0]) if inner and function.__name__ in ("_optional_type", "_parse_type") else function
