"""What runs inside the processes of vLLM's engine: a plugin of vLLM (entry point group `vllm.general_plugins`).

vLLM finds plugins by the entry points of installed packages. In a Bento this package is not installed, only on
the path; so `registration/` holds a further entry point, and `advertise` puts that folder on the path of this
process. Processes that vLLM spawns inherit the path. `vllm serve` beside us is not changed by it, which keeps
benchmarks honest. `VLLM_PLUGINS` set to other names keeps the plugin out, as it does with any other plugin.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
from pathlib import Path

NAME = "gptoss_bento"
"""What vLLM calls the plugin, in its log and in VLLM_PLUGINS."""

_REGISTRATION = Path(__file__).with_name("registration")

logger = logging.getLogger(f"vllm.{__name__}")  # below vLLM's own, whose handler prefixes the engine's process


def advertise() -> None:
    """From now on vLLM loads the plugin in this process, and in all that it spawns."""
    if str(_REGISTRATION) not in sys.path:
        sys.path.append(str(_REGISTRATION))


def register() -> None:
    """Called by vLLM in each of its processes, before it loads a model."""
    if multiprocessing.parent_process() is None:
        return  # an API server: the model runs in processes that vLLM spawns
    from vllm.platforms import current_platform

    from gptoss_bento.engine.vllm_plugin import block_bookkeeping, start_times, token_bookkeeping

    start_times.record()
    block_bookkeeping.install(logger)
    token_bookkeeping.install(logger)
    if current_platform.is_cuda():  # all of it was written for and seen on NVIDIA's cards
        from gptoss_bento.engine.vllm_plugin import compilations, graph_memory, router_kernels, routing_kernels

        compilations.record()
        routing_kernels.install(logger)
        router_kernels.install(logger)
        graph_memory.install(logger)
