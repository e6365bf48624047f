from __future__ import annotations

import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from gptoss_bento.engine.vllm_plugin import router_kernels
from tests.fakes import Calls

logger = logging.getLogger("vllm.gptoss_bento.engine.vllm_plugin")


@pytest.fixture
def kernel_warmup(monkeypatch: pytest.MonkeyPatch) -> Any:
    """In place of vLLM's module."""
    package: Any = ModuleType("vllm.model_executor.warmup")
    package.kernel_warmup = ModuleType("vllm.model_executor.warmup.kernel_warmup")
    for name in ("vllm", "vllm.model_executor"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "vllm.model_executor.warmup", package)
    monkeypatch.setitem(sys.modules, "vllm.model_executor.warmup.kernel_warmup", package.kernel_warmup)
    return package.kernel_warmup


def model_of(*layers: Any) -> Any:
    return SimpleNamespace(modules=lambda: layers)


ATTENTION = SimpleNamespace()
OF_GPT_OSS, OF_OTHERS = SimpleNamespace(allow_ll_bf16_gemm=False), SimpleNamespace(allow_ll_bf16_gemm=True)


@pytest.mark.parametrize(
    ("layers", "compiled"),
    [((), False), ((ATTENTION, OF_GPT_OSS), False), ((ATTENTION, OF_OTHERS), True), ((OF_GPT_OSS, OF_OTHERS), True)],
)
def test_kernels_are_compiled_for_the_models_that_run_them(
    kernel_warmup: Any, layers: tuple[Any, ...], compiled: bool
) -> None:
    vllms_own = kernel_warmup._warmup_ll_bf16_router_gemm = Calls()
    router_kernels.install(logger)
    model = model_of(*layers)

    kernel_warmup._warmup_ll_bf16_router_gemm(model)

    assert vllms_own.made == ([(model,)] if compiled else [])


def test_vllm_without_the_warm_up_is_left_unchanged(kernel_warmup: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger.name):
        router_kernels.install(logger)

    assert not hasattr(kernel_warmup, "_warmup_ll_bf16_router_gemm")
    assert "no warm-up of router kernels" in caplog.text
