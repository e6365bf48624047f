"""Keeps vLLM from compiling kernels at every start that a GPT-OSS never runs.

On cards from Hopper on, vLLM 0.32's warm-up compiles CuTe kernels for the router of each mixture-of-experts model.
GPT-OSS's router has a bias, for which these kernels are not made: its layers say so, and take another way.
"""

from __future__ import annotations

from logging import Logger
from typing import Any

from gptoss_bento.engine.vllm_plugin import patches


def install(logger: Logger) -> None:
    """From now on the kernels are compiled only for a model with a router that runs them."""
    try:
        compiling = patches.ROUTER_WARM_UP.original()
    except AttributeError:
        logger.info("gptoss-bento finds no warm-up of router kernels to leave out.")
        return

    def compile_what_runs(model: Any) -> None:
        if any(getattr(module, "allow_ll_bf16_gemm", False) for module in model.modules()):
            compiling(model)

    patches.ROUTER_WARM_UP.replace(compile_what_runs)
