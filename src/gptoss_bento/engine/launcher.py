"""Starts vLLM's engine from a plan, and stops it.

Written against vLLM 0.32.0, whose symbols tests/contract/test_vllm.py touches one by one. vLLM is imported inside the
functions: `bentoml build` imports this module too, and importing vLLM takes seconds.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import re
import threading
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gptoss_bento.concurrency import in_daemon_thread
from gptoss_bento.engine import preload as engine_preload
from gptoss_bento.engine import replacements, vllm_plugin
from gptoss_bento.engine.client import Engine
from gptoss_bento.engine.engine_gauges import EngineClock
from gptoss_bento.engine.garbage_collection import without_collections
from gptoss_bento.engine.vllm_app import build_app, served_model
from gptoss_bento.engine.vllm_parser import serve_parser
from gptoss_bento.engine.warmup import warm_up, warm_up_routes
from gptoss_bento.errors import ConfigurationError, EngineDiedError, EngineStartError
from gptoss_bento.tools.interfaces import HostedTools
from gptoss_bento.workers.child_processes import kill_processes
from gptoss_bento.workers.readiness import Readiness
from gptoss_bento.workers.worker_group import WorkerGroup

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm.v1.engine.utils import CoreEngineLaunch

logger = logging.getLogger(__name__)

LOADING = "engine: weights and KV cache"
"""The phase in which the engine's process does its work."""


@dataclass(frozen=True)
class StartOptions:
    """Options of a start that vLLM's own server does not have.

    `preload`: the engine's process imports vLLM while this one does. `warmup`: requests of our own come first, so that
    no client waits for kernels. `tools`: that this process runs for the model.
    """

    preload: bool = False
    warmup: bool = False
    tools: HostedTools | None = None


@asynccontextmanager
async def running(
    argv: Sequence[str], startup: Readiness, timeout_s: float, group: WorkerGroup, how: StartOptions | None = None
) -> AsyncIterator[Engine]:
    """Starts vLLM with the arguments of `vllm serve`, and stops it when the block ends.

    Of several workers the first starts the engine's process, and all attach to it.

    The heavy part runs in threads, so that the probes answer meanwhile.

    Args:
        argv: the arguments, as `EnginePlan.argv` returns them.
        startup: records the phases.
        timeout_s: seconds until a start that hangs is given up.
        group: the workers that share the engine.
        how: options of the start; none by default.

    Raises:
        ConfigurationError: vLLM refuses the arguments.
        EngineStartError: the engine's process did not come up.
        EngineDiedError: it was not ready in time.
    """
    async with AsyncExitStack() as stack:
        try:
            with without_collections():
                async with asyncio.timeout(timeout_s):
                    engine = await _start(argv, startup, stack, group, how or StartOptions())
        except asyncio.CancelledError:  # another worker has died
            kill_processes()
            raise
        except TimeoutError:
            kill_processes()
            raise EngineDiedError(f"vLLM was not ready within {timeout_s:g} s (VLLM_STARTUP_TIMEOUT).") from None
        yield engine


async def _start(
    argv: Sequence[str], startup: Readiness, stack: AsyncExitStack, group: WorkerGroup, how: StartOptions
) -> Engine:
    if how.preload and group.is_first:
        await in_daemon_thread(engine_preload.begin, usual_tokenizer(argv))
    with startup.timed("engine: import"):
        await in_daemon_thread(_import_engine)
    with startup.timed("engine: configuration"):
        args, config = await in_daemon_thread(_configure, argv, group)
    with startup.timed(LOADING):
        threading.Thread(target=_prepare_app, args=(config,), daemon=True).start()  # while the engine process loads
        client = await _started_client(args, config, group, engine_preload.forked if how.preload else nullcontext)
        if not group.is_alone:  # vLLM waits for the first request, and numbers for other workers would stay unread
            client._run_output_handler()
    stack.callback(_stop_client, client)
    with startup.timed("engine: application"):
        app = await build_app(client, args, how.tools)
    if how.warmup and group.is_first:
        with startup.timed("engine: warm-up"):
            await warm_up(client)
    await stack.enter_async_context(app.router.lifespan_context(app))
    if how.warmup:
        await warm_up_routes(app, client, args.served_model_name[0])
    _settle()
    return Engine(client, app, served_model(client, app))


def usual_tokenizer(argv: Sequence[str]) -> str:
    """The folder of the model, where vLLM loads its tokenizer in no special way; empty otherwise."""
    special = ("--tokenizer", "--trust-remote-code", "--skip-tokenizer-init", "--revision", "--runner", "--config")
    if any(word.startswith(special) for word in argv):
        return ""
    named = (word.removeprefix("--model=") for word in argv if word.startswith("--model="))
    return next((model for model in named if Path(model).is_dir()), "")


def _settle() -> None:
    """Optimisations after all is loaded."""
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
    """Loads what the application needs while the engine loads: its modules, and 4 s for the tokenizer's chat template.

    vLLM keeps that template in a cache, so the application finds it there.
    """
    import vllm.entrypoints.generate.api_router
    import vllm.entrypoints.launchers.api_server.app_state
    import vllm.entrypoints.launchers.app  # noqa: F401
    from vllm.renderers.hf import resolve_chat_template
    from vllm.tokenizers.registry import cached_tokenizer_from_config

    if tokenizer := cached_tokenizer_from_config(config.model_config):
        resolve_chat_template(tokenizer, None, None, model_config=config.model_config)
    gc.collect()
    gc.freeze()  # now, while this process waits for the engine: at the end only what comes after is walked through


def _configure(argv: Sequence[str], group: WorkerGroup) -> tuple[Namespace, VllmConfig]:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args
    from vllm.entrypoints.launchers.launcher import validate_api_server_args
    from vllm.logger import configure_logging_from_args
    from vllm.usage.usage_lib import UsageContext
    from vllm.utils.system_utils import set_ulimit

    set_ulimit()  # open files: one a stream, as vLLM's own server does
    args = serve_parser().parse_args(list(argv))
    try:
        configure_logging_from_args(args)
        validate_parsed_serve_args(args)
        validate_api_server_args(args)
        engine_args = AsyncEngineArgs.from_cli_args(args)
        if not group.is_alone:
            engine_args._api_process_count, engine_args._api_process_rank = group.count, group.index
        return args, engine_args.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)
    except (ValidationError, ValueError, TypeError, KeyError, OSError, NotImplementedError) as error:
        raise ConfigurationError(f"vLLM refuses this configuration: {_first_line(error)}") from error


_Context = Callable[[], AbstractContextManager[None]]
"""In which the engine's process is started."""


async def _started_client(args: Namespace, config: VllmConfig, group: WorkerGroup, starting: _Context) -> AsyncLLM:
    if not group.is_alone:
        return await _attach(args, config, group, starting)
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
    clock = EngineClock()
    # A logger of one's own would turn statistics on that the operator has turned off.
    loggers = [] if args.disable_log_stats else [replacements.dated_stat_logger(clock)]
    client = _start_client(args, config, stat_loggers=loggers, **attached)
    replacements.share_cores(client, clock)
    return client


async def _attach(args: Namespace, config: VllmConfig, group: WorkerGroup, starting: _Context) -> AsyncLLM:
    """The client of an engine that several workers share, as `vllm serve --api-server-count` makes it.

    A client waits for the engine to be ready, and the engine for its clients; their order does not matter.
    """
    inputs, outputs = group.addresses("input"), group.addresses("output")
    attached: dict[str, Any] = {
        "client_addresses": {"input_address": inputs[group.index], "output_address": outputs[group.index]},
        "client_count": group.count,
        "client_index": group.index,
    }
    if not group.is_first:
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


def _stop_client(client: AsyncLLM) -> None:
    client.shutdown(timeout=0)
    kill_processes()


def _first_line(error: Exception) -> str:
    """The first sentence of an error, without pydantic's framing."""
    if isinstance(error, ValidationError):
        return "; ".join(str(item["msg"]).removeprefix("Value error, ").split("\n")[0] for item in error.errors())
    return str(error).strip().split("\n")[0] or type(error).__name__
