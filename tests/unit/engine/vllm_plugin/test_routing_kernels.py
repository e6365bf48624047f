"""On fakes of vLLM's kernels: the real ones are only in its wheel for CUDA. With Triton: tests/contract."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.engine.vllm_plugin import routing_kernels
from gptoss_bento.engine.vllm_plugin.known_code import digest
from gptoss_bento.engine.vllm_plugin.routing_kernels import ROW_STRIDE, fix_stride, generalize, row_stride

logger = logging.getLogger("vllm.gptoss_bento.engine.vllm_plugin")

TOPK = """
def cdiv(x, y):
    return (x + y - 1) // y


def topk_forward(rows, n_rows_max=None):
    n_rows_max = n_rows_max or rows
    stride = cdiv(n_rows_max, 32) * 32
    return stride


def topk(rows):
    return topk_forward(rows)


def _topk_forward(n_rows): ...
"""
VARIANTS = """
def replacing_sort_tokens(_combined_routing_compute_pow2):
    def sort_tokens():
        return _combined_routing_compute_pow2

    return sort_tokens


def _combined_routing_compute_pow2(n_tokens): ...
"""
MODULES = {
    "topk": TOPK,
    "reduction_details.reduce_bitmatrix": "def _sum_bitmatrix_rows(shape_bm): ...\n",
    "routing_details._routing_compute": "def _combined_routing_memset(size): ...\n\n\n"
    "def _combined_routing_compute(n_tokens): ...\n",
    "matmul_ogs": "def _matmul_ogs(NRows): ...\n",
    "routing": VARIANTS,
}
POW2 = "_combined_routing_compute_pow2"


@dataclass
class Parameter:
    """As Triton describes one of a kernel's."""

    name: str
    do_not_specialize: bool = False


@dataclass
class Kernel:
    """As much of Triton's JITFunction as is changed."""

    fn: Any
    params: list[Parameter]
    do_not_specialize: list[str | int] = field(default_factory=list)


def kernel_of(function: Any, *others: str) -> Kernel:
    return Kernel(function, [Parameter(name) for name in (*others, *routing_kernels._SIZES[function.__name__])])


def load(folder: Path, name: str, source: str) -> ModuleType:
    """A module that is in a file, so that its source can be read."""
    file = folder / f"{name}.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def topk(tmp_path: Path) -> Any:
    return load(tmp_path, "topk", TOPK)


# One stride


@given(rows=st.integers(1, 2**22))
def test_stride_is_a_multiple_of_32_that_holds_all_rows(rows: int) -> None:
    assert row_stride(rows) >= rows
    assert row_stride(rows) % 32 == 0


@given(rows=st.integers(1, ROW_STRIDE))
def test_stride_is_the_same_for_all_batches_of_a_plan(rows: int) -> None:
    assert row_stride(rows) == ROW_STRIDE


@pytest.mark.parametrize(("rows", "stride"), [(32768, 32768), (32769, 65536), (65536, 65536), (65537, 131072)])
def test_larger_batches_have_few_strides(rows: int, stride: int) -> None:
    assert row_stride(rows) == stride


def test_function_is_compiled_again_with_the_fixed_stride(topk: Any) -> None:
    assert topk.topk(33) == 64

    fix_stride(topk, topk.topk_forward)

    assert topk.topk(33) == ROW_STRIDE, "those who call it by its name in the module"
    assert topk.topk_forward(5, n_rows_max=ROW_STRIDE + 1) == 2 * ROW_STRIDE
    assert topk.topk_forward.__code__.co_filename == topk.__file__, "what a traceback names"


# No constants


def test_sizes_are_never_specialized() -> None:
    kernel = Kernel(None, [Parameter("X"), Parameter("n_rows"), Parameter("n_cols")], [0])

    generalize(kernel, ("n_rows",))

    assert [parameter.do_not_specialize for parameter in kernel.params] == [False, True, False]
    assert kernel.do_not_specialize == [0, "n_rows"]


def test_kernels_all_have_sizes_and_a_hash() -> None:
    assert routing_kernels._KNOWN.keys() == {*routing_kernels._SIZES, "topk_forward"}
    assert {len(known) for known in routing_kernels._KNOWN.values()} == {len(digest(digest))}
    assert all(routing_kernels._SIZES.values())


def test_digest_is_that_of_the_source(topk: Any, tmp_path: Path) -> None:
    same, other = load(tmp_path, "same", TOPK), load(tmp_path, "other", TOPK.replace("return stride", "return  stride"))

    assert digest(topk.topk_forward) == digest(same.topk_forward)
    assert digest(topk.topk_forward) != digest(other.topk_forward)


# All of it


@dataclass
class Vllm:
    """What install finds: modules by the names under which vLLM imports them, and the kernels in them."""

    modules: dict[str, Any]
    kernels: dict[str, Kernel]

    @property
    def is_unchanged(self) -> bool:
        return self.modules["topk"].topk(33) == 64 and not self.generalized

    @property
    def generalized(self) -> dict[str, list[str | int]]:
        return {name: kernel.do_not_specialize for name, kernel in self.kernels.items() if kernel.do_not_specialize}


def put_kernels(module: ModuleType) -> Iterator[tuple[str, Kernel]]:
    """Puts a kernel in place of each function that is one."""
    for name in routing_kernels._SIZES.keys() & vars(module).keys():
        kernel = kernel_of(getattr(module, name), "X")
        setattr(module, name, kernel)
        yield name, kernel


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Vllm:
    modules: dict[str, Any] = {name: load(tmp_path, name, source) for name, source in MODULES.items()}
    kernels = dict(each for module in modules.values() for each in put_kernels(module))
    modules["routing"].sort_tokens = modules["routing"].replacing_sort_tokens(kernels[POW2])
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, f"triton_kernels.{name}", module)
    imports: Any = ModuleType("vllm.utils.import_utils")
    imports.get_triton_kernels_version = lambda: "3.5.1"
    experts = "vllm.model_executor.layers.fused_moe.experts.gpt_oss_triton_kernels_moe"
    for name, module in (("vllm.utils.import_utils", imports), ("vllm", ModuleType("vllm")), (experts, imports)):
        monkeypatch.setitem(sys.modules, name, module)
    functions = {"topk_forward": modules["topk"].topk_forward} | {name: each.fn for name, each in kernels.items()}
    monkeypatch.setattr(routing_kernels, "_KNOWN", {name: digest(each) for name, each in functions.items()})
    return Vllm(modules, kernels)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger.name)
    return caplog


def test_known_kernels_are_all_changed(vllm: Vllm, said: pytest.LogCaptureFixture) -> None:
    assert routing_kernels.install(logger)

    assert vllm.modules["topk"].topk(33) == ROW_STRIDE
    assert vllm.generalized == {name: list(sizes) for name, sizes in routing_kernels._SIZES.items()}
    assert [(record.levelname, "once for batches of all sizes" in record.message) for record in said.records] == [
        ("INFO", True)
    ]


def test_kernel_for_any_number_of_experts_may_be_missing(vllm: Vllm) -> None:
    """`sort_tokens` of triton_kernels itself is a class; vLLM puts a function in its place."""
    vllm.modules["routing"].sort_tokens = SimpleNamespace

    assert routing_kernels.install(logger)
    assert vllm.generalized.keys() == routing_kernels._SIZES.keys() - {POW2}


@pytest.mark.parametrize("name", sorted(routing_kernels._KNOWN))
def test_function_that_is_unknown_leaves_all_unchanged(
    vllm: Vllm, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(routing_kernels._KNOWN, name, "another")

    assert not routing_kernels.install(logger)

    assert vllm.is_unchanged
    (record,) = said.records
    assert record.levelname == "WARNING"
    assert record.message.endswith(f"does not know: {name}.")


@pytest.mark.parametrize("version", ["3.6", "3.8", None])
def test_versions_that_are_unknown_are_left_unchanged(
    vllm: Vllm, said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, version: str | None
) -> None:
    monkeypatch.setattr(sys.modules["vllm.utils.import_utils"], "get_triton_kernels_version", lambda: version)

    assert not routing_kernels.install(logger)

    assert vllm.is_unchanged
    assert [record.levelname for record in said.records] == ["WARNING"]
