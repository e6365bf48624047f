"""The variables of the engine's processes: defaults, profile, tiers, goal, operator; the later win. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gptoss_bento.config.goal import Goal
from gptoss_bento.config.profile import Profile, Situation
from gptoss_bento.config.settings import Settings
from gptoss_bento.planning.kernel_key import KERNEL_CACHES
from gptoss_bento.planning.plan import Planned
from gptoss_bento.planning.value_origins import suggestions

START_METHOD = "VLLM_WORKER_MULTIPROC_METHOD"
OUTPUT_CHUNK = "VLLM_V1_OUTPUT_PROC_CHUNK_SIZE"
PROCESS_ENVIRONMENT: Mapping[str, str] = {
    "VLLM_NO_USAGE_STATS": "1",  # no telemetry
    START_METHOD: "spawn",  # as `vllm serve`: a fork would inherit BentoML's sockets and threads
    # All that the engine has put out is taken in before any of it is sent (128 in vLLM). An API server that falls
    # behind then sends fewer, larger messages: 1.8 times the tokens/s at 256 streams; one that keeps up does as before.
    OUTPUT_CHUNK: "1024",
}


def process_variables(settings: Settings, profile: Profile, situation: Situation, goal: Goal) -> dict[str, Planned]:
    """The variables, each with its origin. The operator's own win over all."""
    planned = {name: Planned(value, "default") for name, value in PROCESS_ENVIRONMENT.items()} | _patience(settings)
    if situation.hardware.gpus:
        planned |= _kernel_caches(settings)
    for origin, engine in suggestions(profile, situation, goal):
        planned |= {name: Planned(value, origin) for name, value in engine.environment.items()}
    planned |= {name: Planned(value, origin) for name, (value, origin) in settings.derived.items()}
    return planned | {
        name: Planned(said, "environment")
        for name in planned
        if (said := settings.process.get(name)) is not None and said != settings.derived.get(name, (None, ""))[0]
    }


def kernel_folder(settings: Settings) -> Planned:
    """One folder for all that is compiled at a start, so that the next one finds it."""
    named = settings.server.kernel_cache_dir
    return Planned(named, "KERNEL_CACHE_DIR") if named else Planned(settings.cache_dir / "kernels", "default")


def _kernel_caches(settings: Settings) -> dict[str, Planned]:
    folder = kernel_folder(settings)
    return {variable: Planned(str(folder.value / name), folder.origin) for variable, name in KERNEL_CACHES.items()}


_DAY_S = 86_400


def _patience(settings: Settings) -> dict[str, Planned]:
    """vLLM's own limit of a start, beyond ours, which alone ends one that hangs.

    The same for any number of workers and any usual VLLM_STARTUP_TIMEOUT: vLLM has it in the key under which it keeps
    what torch.compile made.
    """
    limit = max(_DAY_S, settings.server.vllm_startup_timeout)
    return {"VLLM_ENGINE_READY_TIMEOUT_S": Planned(str(limit), "beyond VLLM_STARTUP_TIMEOUT")}
