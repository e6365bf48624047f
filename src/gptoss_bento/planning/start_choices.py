"""How the engine starts: warm-up requests before ready, an early import of vLLM, no profile of graphs. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gptoss_bento.config.profile import Situation
from gptoss_bento.config.settings import Settings
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.hardware.probe import GIB, Hardware
from gptoss_bento.planning.memory_estimate import DEFAULT_UTILIZATION
from gptoss_bento.planning.plan import Planned
from gptoss_bento.planning.process_variables import START_METHOD

GRAPH_PROFILE = "VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS"
# On an H200 51 piecewise and 43 full graphs took 0.9 GiB, and 147 piecewise ones of an earlier plan less than 2.
_ROOM_FOR_GRAPHS_GIB = 6
_CARD_OF_ITS_OWN = 0.8  # below this share of a GPU somebody has divided it, and what is beside it belongs to others


def warmup(settings: Settings, hardware: Hardware) -> Planned:
    """Whether requests of our own go before the first of a client, so that nothing is compiled after ready.

    vLLM's monitor of compilations is on before these requests, which compile on purpose: if it raises, they are off.

    Raises:
        ConfigurationError: both were asked for.
    """
    if settings.engine.get("jit_monitor_mode") == "error":
        if settings.server.warmup:
            raise ConfigurationError("WARMUP is set, and JIT_MONITOR_MODE is error, which ends a warm-up; set warn.")
        return Planned(False, "JIT_MONITOR_MODE=error")
    if settings.server.warmup is not None:
        return Planned(settings.server.warmup, "WARMUP")
    return Planned(bool(hardware.gpus), "default with a GPU" if hardware.gpus else "default without a GPU")


def preload(settings: Settings, situation: Situation) -> Planned:
    """Whether the engine's process is forked from one that has imported vLLM, rather than spawned.

    By default where it was seen: with one NVIDIA GPU a model. On CPUs vLLM sets variables that a program must have
    before it begins.

    Raises:
        ConfigurationError: it was asked for where it cannot be.
    """
    wanted, obstacle = settings.server.engine_preload, _preload_obstacle(settings, situation)
    if wanted and obstacle:
        raise ConfigurationError(f"ENGINE_PRELOAD is set, {obstacle}.")
    if wanted is not None:
        return Planned(wanted, "ENGINE_PRELOAD")
    alone = situation.tensor_parallel == situation.pipeline_parallel == 1
    seen = alone and not obstacle and _are_nvidia(situation.hardware)
    return Planned(seen, "default with one NVIDIA GPU" if seen else "default")


def _preload_obstacle(settings: Settings, situation: Situation) -> str:
    if not situation.hardware.gpus:
        return "but there is no GPU; vLLM's engine for CPUs must be spawned"
    if settings.engine.get("numa_bind"):
        return "and so is NUMA_BIND; vLLM binds only an engine it spawns"
    if START_METHOD in settings.process:
        return f"and so is {START_METHOD}; each says how the engine starts"
    return ""


def _are_nvidia(hardware: Hardware) -> bool:
    return bool(hardware.gpus) and all(gpu.vendor == "nvidia" for gpu in hardware.gpus)


def without_graph_profile(arguments: Mapping[str, Planned], hardware: Hardware) -> dict[str, Planned]:
    """Lets vLLM capture its CUDA graphs once a start, not twice, where the GPU has room for them anyway.

    vLLM captures all graphs to see how much memory they take, throws them away, and captures them again once the KV
    cache is there: 9 s of a start on an H200. Their memory then comes from what `gpu_memory_utilization` leaves free.
    """
    if not _are_nvidia(hardware) or "kv_cache_memory_bytes" in arguments:
        return {}
    stated = arguments.get("gpu_memory_utilization")
    share = stated.value if stated else DEFAULT_UTILIZATION
    left = (1 - share) * min(gpu.memory_bytes for gpu in hardware.gpus) / GIB
    if share < _CARD_OF_ITS_OWN or left < _ROOM_FOR_GRAPHS_GIB:
        return {}
    return {GRAPH_PROFILE: Planned("0", f"graphs fit into the {left:.1f} GiB beside gpu_memory_utilization {share}")}
