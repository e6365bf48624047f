"""How the engine starts: whether warm-up requests precede ready, and whether it imports vLLM early. Pure."""

from __future__ import annotations

from gptoss_bento.config.profile import Situation
from gptoss_bento.config.settings import Settings
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.hardware.probe import Hardware
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


def preload(settings: Settings, situation: Situation) -> Planned:
    """Whether the engine's process is forked from one that has imported vLLM, rather than spawned.

    Off unless it is asked for: it was tried on CPUs alone. There vLLM sets variables that a program must have before it
    begins, so that it is refused.

    Raises:
        ConfigurationError: it was asked for where it cannot be.
    """
    if not settings.server.engine_preload:
        return Planned(False, "default")
    if not situation.hardware.gpus:
        raise ConfigurationError("ENGINE_PRELOAD is set, but there is no GPU; vLLM's engine for CPUs must be spawned.")
    if settings.engine.get("numa_bind"):
        raise ConfigurationError("ENGINE_PRELOAD is set, and so is NUMA_BIND; vLLM binds only an engine it spawns.")
    if START_METHOD in settings.process:
        raise ConfigurationError(f"ENGINE_PRELOAD is set, and so is {START_METHOD}; each says how the engine starts.")
    return Planned(True, "ENGINE_PRELOAD")
