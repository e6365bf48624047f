"""The servers that this service is compared with, and how each is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path

from gptoss_bento.bench import servers
from gptoss_bento.bench.servers import RunningServer
from gptoss_bento.paths import ROOT
from gptoss_bento.planning.plan import EnginePlan
from gptoss_bento.planning.process_variables import OUTPUT_CHUNK

OURS, BARE = "gptoss-bento", "vLLM"


class Baseline(StrEnum):
    """What this service is compared with."""

    SAME_ARGUMENTS = "vllm-same-arguments"
    SERVE = "vllm-serve"
    API_SERVERS = "vllm-serve-api-servers"


@dataclass(frozen=True)
class Candidate:
    """A server to be started and measured.

    Args:
        command: returns the command for a port.
        variables: what it gets in its environment beside this process's own variables.
        folder: where it runs.
    """

    name: str
    command: Callable[[int], Sequence[str]]
    variables: Mapping[str, str] = field(default_factory=dict)
    folder: Path = ROOT

    def started(self, log: Path | None = None) -> AbstractContextManager[RunningServer]:
        """The server, until the end of the block: `servers.started`."""
        return servers.started(self.command, self.variables, log=log, folder=self.folder)


def candidates(
    against: Sequence[Baseline],
    planned: EnginePlan,
    model: str,
    variables: Mapping[str, str],
    memory_share: float | None = None,
) -> list[Candidate]:
    """This service, and after it what it is compared with.

    `vllm serve` gets no argument of ours: only the model, its name, how it is loaded, and its share of the memory. None
    of them has our plugin of vLLM, which this service alone advertises.

    Args:
        model: the folder of the prepared weights, or of the config.json.
        variables: what this service gets in its environment.
        memory_share: of the GPU (on a machine without: of the main memory), for each server.
    """
    workers = planned.api_workers.value
    alone = {name: value for name, value in variables.items() if name not in _planned_alone(planned)}
    serve = partial(servers.vllm_serve, model=model)
    options = _options(planned, memory_share)
    arguments = planned.argv(model)
    found = {
        Baseline.SAME_ARGUMENTS: Candidate(
            BARE, partial(servers.bare_vllm, argv=arguments, workers=workers), variables
        ),
        Baseline.SERVE: Candidate("vllm serve", partial(serve, options=options), alone),
        Baseline.API_SERVERS: Candidate(
            f"vllm serve, {workers} API servers",
            partial(serve, options=[*options, f"--api-server-count={workers}"]),
            alone,
        ),
    }
    return [Candidate(OURS, servers.ours, variables), *(found[each] for each in dict.fromkeys(against))]


def _options(planned: EnginePlan, memory_share: float | None) -> list[str]:
    loading = planned.arguments.get("load_format")
    return [
        "--served-model-name",
        *planned.served_names.value,
        *([f"--load-format={loading.value}"] if loading else []),
        *([f"--gpu-memory-utilization={memory_share:g}"] if memory_share else []),
    ]


# What a server of this machine needs beside arguments, or without which one on a CPU would take all of its memory.
_FOR_EVERY_SERVER = ("VLLM_NO_USAGE_STATS", "VLLM_CPU_KVCACHE_SPACE")


def _planned_alone(planned: EnginePlan) -> set[str]:
    """The planned variables that change how fast a server is, so that `vllm serve` as it comes is not given them."""
    return {*planned.environment} - {*_FOR_EVERY_SERVER} | {OUTPUT_CHUNK}
