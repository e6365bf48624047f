"""How the engine starts: warm-up requests before ready, an early import of vLLM. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gptoss_bento.config.settings import Settings
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.hardware.probe import Hardware
from gptoss_bento.planning.parallelism import parallel_sizes
from gptoss_bento.planning.plan import Planned
from gptoss_bento.planning.process_variables import START_METHOD


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


def preload(settings: Settings, arguments: Mapping[str, Planned], hardware: Hardware) -> Planned:
    """Whether the engine's process is forked from one that has imported vLLM, rather than spawned.

    By default where it was seen: one engine on one NVIDIA GPU. On CPUs vLLM sets variables that a program must have
    before it begins.

    Raises:
        ConfigurationError: it was asked for where it cannot be.
    """
    wanted, obstacle = settings.server.engine_preload, _preload_obstacle(settings, hardware)
    if wanted and obstacle:
        raise ConfigurationError(f"ENGINE_PRELOAD is set, {obstacle}.")
    if wanted is not None:
        return Planned(wanted, "ENGINE_PRELOAD")
    alone = all(size.value == 1 for _, size in parallel_sizes(arguments))
    seen = alone and not obstacle and _are_nvidia(hardware)
    return Planned(seen, "default with one NVIDIA GPU" if seen else "default")


def _preload_obstacle(settings: Settings, hardware: Hardware) -> str:
    if not hardware.gpus:
        return "but there is no GPU; vLLM's engine for CPUs must be spawned"
    if settings.engine.get("numa_bind"):
        return "and so is NUMA_BIND; vLLM binds only an engine it spawns"
    if START_METHOD in settings.process:
        return f"and so is {START_METHOD}; each says how the engine starts"
    return ""


def _are_nvidia(hardware: Hardware) -> bool:
    return bool(hardware.gpus) and all(gpu.vendor == "nvidia" for gpu in hardware.gpus)
