"""What the engine's process imports, imported when this module is. The fork server of engine/preload.py does that.

It would end with an error other than ImportError, and the engine with it. So a module that cannot be imported here is
left to the engine, which may never ask for it.
"""

from __future__ import annotations

import atexit
import gc
import importlib
from contextlib import suppress

from gptoss_bento.config.process_environment import early_tokenizer
from gptoss_bento.engine.garbage_collection import without_collections

MODULES = (
    "vllm.v1.engine.core",
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.worker.gpu.model_runner",
    "vllm.v1.executor.uniproc_executor",
    "vllm.model_executor.models.gpt_oss",
    "vllm.model_executor.layers.fused_moe.experts.gpt_oss_triton_kernels_moe",
    "vllm.v1.attention.backends.flash_attn",
    "vllm.v1.structured_output",
)


def load_tokenizer(folder: str) -> None:
    """Loads the tokenizer as vLLM does, which keeps it: the engine would do so for 3 s when all else is ready."""
    from vllm.tokenizers.registry import cached_get_tokenizer

    # the arguments by which `cached_tokenizer_from_config` finds it, in its order
    cached_get_tokenizer(folder, runner_type="generate", tokenizer_mode="auto", revision=None, trust_remote_code=False)


with without_collections():
    for _name in MODULES:
        with suppress(Exception):
            importlib.import_module(_name)
    if _tokenizer := early_tokenizer():
        with suppress(Exception):
            load_tokenizer(_tokenizer)
gc.freeze()  # the engine's process, a fork, walks through none of it again
atexit.register(gc.unfreeze)  # or extensions report what is frozen as leaked, when the server ends
