"""How many processes answer HTTP. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from gptoss_bento.config.settings import Settings
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.hardware.probe import Hardware
from gptoss_bento.planning.plan import Planned

API_WORKERS = "api_server_count"  # vLLM's option; `vllm serve` alone acts on it, its application does not
_ALONE = {
    "data_parallel_size": "several engines",
    "enable_elastic_ep": "an elastic number of engines",
    "enable_fault_tolerance": "vLLM's fault tolerance",
}


def api_workers(arguments: Mapping[str, Planned], hardware: Hardware, settings: Settings) -> Planned:
    """An explicit number is used or refused; one that is only suggested is lowered to what the cores can carry.

    Raises:
        ConfigurationError: several were asked for together with something that allows only one.
    """
    wanted = arguments.get(API_WORKERS, Planned(1, "default"))
    if wanted.value == 1:
        return wanted
    explicit = API_WORKERS in settings.engine
    if reason := _only_one(arguments, settings):
        if explicit:
            raise ConfigurationError(f"{wanted.origin} is {wanted.value}, but {reason} needs 1.")
        return Planned(1, f"{reason}; {wanted.origin} has {wanted.value}")
    # The engine and each GPU keep a core busy with waiting, as does each worker under load.
    spare = max(1, hardware.cpu_cores - 1 - len(hardware.gpus)) if hardware.cpu_cores else wanted.value
    if explicit or spare >= wanted.value:
        return wanted
    return Planned(spare, f"{hardware.cpu_cores} CPU cores; {wanted.origin} has {wanted.value}")


def _only_one(arguments: Mapping[str, Planned], settings: Settings) -> str | None:
    """What does not work with several API workers, if the plan has it. Adapters would be loaded into one of them."""
    for name, what in _ALONE.items():
        if name in arguments and arguments[name].value not in (False, 1):
            return f"{what} ({arguments[name].origin})"
    loading = settings.process.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "0").strip().lower()
    return "VLLM_ALLOW_RUNTIME_LORA_UPDATING" if loading in ("1", "true") else None
