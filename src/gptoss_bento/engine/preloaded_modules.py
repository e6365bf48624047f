"""What the engine's process imports, imported when this module is. The fork server of engine/preload.py does that.

It would end with an error other than ImportError, and the engine with it. So a module that cannot be imported here is
left to the engine, which may never ask for it.
"""

from __future__ import annotations

import importlib
from contextlib import suppress

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

for _name in MODULES:
    with suppress(Exception):
        importlib.import_module(_name)
