"""Measures what CUDA graphs will take of a card once, and not at every start.

vLLM 0.32 captures them twice: first to see how much memory to leave for them, 9 s of a start on an H200, and then for
use. What the first capture shows depends on the card, the versions and the configuration. So it is kept beside the
compiled kernels, and a start that has it captures once.
"""

from __future__ import annotations

import hashlib
import json
from logging import Logger
from pathlib import Path
from typing import Any

from gptoss_bento.engine.vllm_plugin import patches, records

_FILE = "gptoss-bento-graph-memory.jsonl"
_DIGITS = 16


def install(logger: Logger) -> None:
    """From now on the measurement is kept, and left out where there is one."""
    try:
        measuring = patches.GRAPH_MEMORY.original()
    except (ImportError, AttributeError):
        logger.info("gptoss-bento finds no profile of the CUDA graphs' memory to keep.")
        return

    def measure_once(runner: Any) -> int:
        parallel = runner.vllm_config.parallel_config
        if parallel.world_size > 1 or parallel.data_parallel_size > 1:
            return int(measuring(runner))  # ranks capture together: one that left it out would make the others wait
        key, path = _key(runner.vllm_config), _file()
        if (kept := read(path, key)) is not None:
            logger.info("gptoss-bento: CUDA graphs take %.2f GiB, by an earlier start (%s).", kept / 2**30, path)
            return kept
        measured = int(measuring(runner))
        if measured > 0:  # a difference of free memory: 0 says that another process gave some back meanwhile
            records.append(path, {"key": key, "bytes": measured})
        return measured

    patches.GRAPH_MEMORY.replace(measure_once)


def read(path: Path, key: str) -> int | None:
    """Bytes that the last measurement for this key gave; None without one."""
    try:
        lines = path.read_bytes()
    except OSError:
        return None
    said = {line.get("key"): line.get("bytes") for line in records.parsed(lines) if isinstance(line, dict)}
    kept = said.get(key)
    return kept if isinstance(kept, int) and kept > 0 else None


def _file() -> Path:
    from vllm import envs

    return Path(envs.VLLM_CACHE_ROOT) / _FILE


def _key(config: Any) -> str:
    """A digest of all that decides how much graphs take: vLLM's own of the model's graph, and what that leaves out."""
    import torch
    import vllm
    from vllm import envs

    compilation, scheduler, card = (
        config.compilation_config,
        config.scheduler_config,
        torch.cuda.get_device_properties(),
    )
    decides = [
        vllm.__version__,
        torch.__version__,
        card.name,
        card.total_memory,
        config.compute_hash(),
        sorted(envs.compile_factors().items()),  # vLLM's variables, of which some choose kernels
        compilation.cudagraph_capture_sizes,
        str(compilation.cudagraph_mode),
        scheduler.max_num_seqs,
        scheduler.max_num_batched_tokens,
        config.model_config.max_model_len,
        str(config.lora_config),
        str(config.speculative_config),
    ]
    return hashlib.sha256(json.dumps(decides, default=str).encode()).hexdigest()[:_DIGITS]
