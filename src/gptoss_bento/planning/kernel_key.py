"""What compiled kernels were made for, and whether a folder has them for a plan. Pure.

artifacts/kernel_cache.py reads the folders.

Sources: vLLM 0.32.0 finds what torch.compile made by its version, its variables and its configuration
(`compile_factors` in envs.py, `compute_hash` in config/*.py), the model's name and path among them, but neither the
driver nor the number of API servers. Triton 3.7.1 finds a kernel by source, versions and architecture, and writes down
the paths of its files (`put_group` in runtime/cache.py): in another folder it finds none of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptoss_bento.config.hub_home import OFFLINE_VARIABLES
from gptoss_bento.config.variables import unhashed_variables, vllm_variables
from gptoss_bento.hardware.probe import Gpu
from gptoss_bento.redaction import redacted

if TYPE_CHECKING:
    from gptoss_bento.planning.plan import EnginePlan

KERNEL_CACHES: Mapping[str, str] = {
    "VLLM_CACHE_ROOT": "vllm",  # torch.compile's, CUDA graph memory, FlashInfer's tuning, what models need
    "TRITON_CACHE_DIR": "triton",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "CUDA_CACHE_PATH": "cuda",  # the driver's own
}
"""What compiled kernels and graphs are kept in, by the variable of the library that keeps them: folders below one."""

TRITON = "TRITON_CACHE_DIR"

# What only the API server reads, or where and how the engine runs: none of it changes a kernel. All other arguments do.
_WITHOUT_EFFECT = frozenset(
    [
        # the API server's
        "aggregate_engine_logging", "chat_template", "chat_template_content_format",
        "default_chat_template_kwargs", "disable_log_stats", "enable_auto_tool_choice", "enable_log_deltas",
        "exclude_tools_when_tool_choice_none", "tool_strict_level", "enable_prompt_tokens_details",
        "enable_log_outputs", "enable_log_requests", "generation_config", "log_config_file", "log_level",
        "logging_config", "max_log_len", "otlp_traces_endpoint", "override_generation_config",
        "reasoning_parser", "response_role", "served_model_name", "shutdown_timeout", "stream_interval",
        "tokenizer", "tokenizer_mode", "tokenizer_revision", "tool_call_parser", "tool_server",
        "trust_request_chat_template",
        # where and how weights and processes come
        "allowed_local_media_path", "device_ids", "download_dir", "ignore_patterns", "jit_monitor_mode",
        "jit_monitor_verbose", "load_format", "model_loader_extra_config", "numa_bind", "numa_bind_cpus",
        "numa_bind_nodes", "safetensors_load_strategy", "seed", "use_tqdm_on_load",
        # scheduling and memory
        "enable_prefix_caching", "gpu_memory_utilization", "kv_cache_memory_bytes", "kv_events_config",
        "num_gpu_blocks_override", "prefix_caching_hash_algo",
    ]
)  # fmt: skip
_HUB_VARIABLES = ("HF_HOME", "HF_HUB_CACHE")  # the model's path, which is in vLLM's hash, begins there
_DIGITS = 8


@dataclass(frozen=True)
class Key:
    """What kernels are good for. `arguments` is a digest of all that decides what is compiled; `folder` is Triton's."""

    card: str
    architecture: str
    versions: Mapping[str, str]
    arguments: str
    folder: str

    def differences(self, other: Key) -> Iterator[str]:
        """In which ways the other one differs, with the other's values."""
        if self.card != other.card or self.architecture != other.architecture:
            yield f"{other.card} ({other.architecture})"
        for name in sorted({*self.versions, *other.versions}):
            if self.versions.get(name) != other.versions.get(name):
                yield f"{name} {other.versions.get(name, 'none')}"
        if self.arguments != other.arguments:
            yield f"arguments {other.arguments}"
        if self.folder != other.folder:
            yield f"the path {other.folder}"


@dataclass(frozen=True)
class Entry:
    """One filling of the folder: for which key, under which driver, when (ISO 8601), and what it took.

    `warmup` says whether the warm-up requests ran, without which some kernels are missing. `said` are the arguments
    and variables behind the digest, for people.
    """

    key: Key
    driver: str
    filled: str
    seconds: float
    bytes: int
    warmup: bool = True
    said: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Kernels:
    """What a folder has for a plan.

    `entry` is None where it was not filled for this; `reason` then says for what it was, or that nothing is there.
    `unwritable` says why the folder cannot be written, and `replacement` is what is used instead. `problems` are
    sentences about folders that the operator named apart. `said` is what the digest in the key was made of.
    """

    folder: Path
    key: Key
    driver: str = ""
    entry: Entry | None = None
    reason: str = ""
    unwritable: str = ""
    replacement: Path | None = None
    problems: tuple[str, ...] = ()
    said: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_warm(self) -> bool:
        return self.entry is not None

    @property
    def warnings(self) -> tuple[str, ...]:
        if not self.unwritable:
            return self.problems
        instead = (
            "the service keeps compiled kernels in a temporary folder, which begins as a copy of it, and what is "
            "compiled on top is lost when the service ends"
        )
        return (f"{self.unwritable}: {instead}", *self.problems)

    def __str__(self) -> str:
        driver = f", driver {self.driver}" if self.driver else ""
        vllm = self.key.versions.get("vllm", "not installed")
        named = f"{self.key.card}{driver}, vLLM {vllm}, arguments {self.key.arguments}"
        if self.entry is None:
            return f"cold: the first start compiles for minutes; {self.reason}; {named}"
        other = f"; filled under driver {self.entry.driver}" if self.entry.driver != self.driver else ""
        return f"warm: {named}{other}"


def key_of(plan: EnginePlan, variables: Mapping[str, str], versions: Mapping[str, str]) -> Key:
    """The key of a plan.

    Args:
        variables: those of the process, of which vLLM reads some.
        versions: of the installed libraries that compile, by name.
    """
    gpus, triton = plan.hardware.gpus, plan.environment.get(TRITON)
    return Key(
        card=" and ".join(sorted({gpu.name for gpu in gpus})),
        architecture=" and ".join(sorted({_architecture(gpu) for gpu in gpus})),
        versions=dict(versions),
        arguments=_digest(deciding(plan, variables)),
        folder=str(triton.value) if triton else "",
    )


def _architecture(gpu: Gpu) -> str:
    return f"compute capability {gpu.compute_capability:.1f}" if gpu.vendor == "nvidia" else gpu.architecture


def deciding(plan: EnginePlan, variables: Mapping[str, str]) -> dict[str, str]:
    """All that decides what is compiled, beside card and versions, by name. Of what may be a secret only a digest."""
    shape = plan.config.shape
    said: dict[str, Any] = {"model": plan.model.value, "revision": plan.revision.value or ""}
    said |= {"dimensions": shape.dimensions.model_dump_json()} if shape else {}
    said |= {name: planned.value for name, planned in plan.arguments.items() if name not in _WITHOUT_EFFECT}
    said |= _deciding_variables(plan, variables)
    return {name: _shown(name, value) for name, value in sorted(said.items())}


def _deciding_variables(plan: EnginePlan, variables: Mapping[str, str]) -> dict[str, str]:
    """What is planned wins over what the process has, as it does at a start."""
    planned = {name: str(value.value) for name, value in plan.environment.items()}
    known = {*vllm_variables(), *_HUB_VARIABLES}
    found = {name: text for name, text in variables.items() if name in known} | planned
    left_out = {*unhashed_variables(), *KERNEL_CACHES, *OFFLINE_VARIABLES}  # planned, and of no effect on kernels
    return {name: text for name, text in found.items() if name not in left_out}


def _shown(name: str, value: Any) -> str:
    shown = redacted(name, value)
    if shown != value:
        return f"a secret with the digest {_digest(value)}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def _digest(facts: Any) -> str:
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def judged(entries: Sequence[Entry], key: Key, warmup: bool) -> tuple[Entry | None, str]:
    """(the filling that suits this key, or else why there is none). The driver may differ.

    Args:
        warmup: whether the start sends warm-up requests, whose kernels should be there too.
    """
    if not entries:
        return None, "nothing is there yet"
    same = [entry for entry in entries if entry.key == key]
    for entry in reversed(same):
        if entry.warmup or not warmup:
            return entry, ""
    if same:
        return None, "it was filled without warm-up requests"
    nearest = min(reversed(entries), key=lambda entry: len(list(key.differences(entry.key))))
    return None, f"it was filled for {', '.join(key.differences(nearest.key))}"


def entries_from(content: Any) -> tuple[Entry, ...]:
    """Reads the content of a manifest.

    Raises:
        KeyError, TypeError: it is none.
    """
    return tuple(Entry(**{**each, "key": Key(**each["key"])}) for each in content["filled"])


def as_content(entries: Sequence[Entry]) -> dict[str, Any]:
    """The content of a manifest, as plain data."""
    return {"filled": [asdict(entry) for entry in entries]}
