"""Fills the folder of kernels ahead of a start: the engine comes up once as the service would start it, and ends."""

from __future__ import annotations

import time
from dataclasses import replace

from gptoss_bento.artifacts import kernel_cache
from gptoss_bento.config import process_environment
from gptoss_bento.engine import launcher
from gptoss_bento.engine.kernel_compilations import KernelCompilations
from gptoss_bento.engine.launcher import StartOptions
from gptoss_bento.engine.vllm_plugin import start_times
from gptoss_bento.errors import ArtifactError, HardwareError
from gptoss_bento.planning.kernel_key import Entry, Kernels
from gptoss_bento.planning.plan import EnginePlan, Planned
from gptoss_bento.workers import supervisor
from gptoss_bento.workers.readiness import Readiness
from gptoss_bento.workers.worker_group import WorkerGroup

_WHY = "gptoss-bento warm-caches"


def warmable(plan: EnginePlan) -> tuple[EnginePlan, Kernels]:
    """The plan as it is started here, and what its folder holds.

    One API server suffices: how many there are decides nothing that is compiled. Warm-up requests are always sent.

    Raises:
        HardwareError: there is no GPU.
        ArtifactError: the folder cannot be written.
    """
    if plan.kernel_folder is None:
        raise HardwareError("There is no GPU here, and without one nothing is compiled that is worth keeping.")
    folder = plan.kernel_folder.value
    plan = replace(plan, api_workers=Planned(1, _WHY), warmup=Planned(True, _WHY))
    kernels = kernel_cache.inspect(plan, folder)
    if kernels.unwritable:
        raise ArtifactError(f"{kernels.unwritable}; name another folder in KERNEL_CACHE_DIR.")
    return plan, kernels


async def warm(plan: EnginePlan, model: str, kernels: Kernels, timeout_s: float) -> Entry:
    """Starts the engine, sends the warm-up requests, ends it, and notes in the manifest what the folder is good for.

    The planned variables are those of this process already.

    Args:
        model: where the weights are.
        timeout_s: seconds until a start that hangs is given up.

    Raises:
        ConfigurationError: vLLM refuses the arguments.
        EngineStartError: the engine did not come up.
        EngineDiedError: it was not ready in time.
        OSError: the manifest cannot be written.
    """
    begun = time.monotonic()
    process_environment.set_exit_note_path()  # beside it the engine records what it compiles
    try:
        startup = Readiness()
        how = StartOptions(preload=plan.preload.value, warmup=True)
        async with launcher.running(plan.argv(model), startup, timeout_s, WorkerGroup(), how):
            startup.ready()
            startup.explain(launcher.LOADING, start_times.read(process_environment.start_times_file()))
            KernelCompilations(process_environment.compilations_file()).ready()
            seconds = time.monotonic() - begun
    finally:
        supervisor.remove_remains()
    return kernel_cache.filled(kernels, seconds, warmup=True)
