"""Keeps vLLM's Triton kernels for mixture-of-experts routing from being compiled again for new batch sizes.

`triton_kernels` (vLLM 0.32 and 0.33, `vllm/third_party`) compiles two kernels with the row stride of a bit matrix as a
constant, and the stride grows with the number of tokens in a batch: each of some 250 sizes costs half a second in which
every stream waits. And Triton itself compiles a kernel again for an integer argument that is 1 or divisible by 16. Here
the stride is one constant for all batches, and arguments that count tokens are never specialized: what was compiled for
one batch serves all.

The code that is changed is known by its hash. Other code is left as it is, with a line in the log.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping
from logging import Logger
from types import FunctionType, ModuleType
from typing import Any

from gptoss_bento.engine.vllm_plugin.known_code import digest, is_known

ROW_STRIDE = 32768
"""Rows of the bit matrix: 128 KiB for 32 experts, 512 KiB for 128. Batches have fewer tokens by all of our plans."""

_STRIDE_IN_SOURCE = "cdiv(n_rows_max, 32) * 32"

# Arguments that grow with the number of tokens, by kernel. No kernel walks through memory in steps of one of them along
# its fastest dimension, so the code that is compiled without knowing their divisors is as good.
_SIZES: Mapping[str, tuple[str, ...]] = {
    "_topk_forward": ("n_rows",),
    "_sum_bitmatrix_rows": ("shape_bm", "stride_pn"),
    "_combined_routing_memset": ("size", "shape_pm", "stride_pn", "blocks1a"),
    "_combined_routing_compute": ("stride_pn", "n_tokens"),
    "_combined_routing_compute_pow2": ("stride_pn", "n_tokens"),
    "_matmul_ogs": ("NRows", "num_idxs", "grid_m"),
}

# First characters of the SHA-256 of each function's source, as vLLM 0.32.0 and 0.33.0 have it.
_KNOWN: Mapping[str, str] = {
    "topk_forward": "1f624d0d1ce15f9e",
    "_topk_forward": "4122b6a7689438e1",
    "_sum_bitmatrix_rows": "12bdd1c9bb14d75a",
    "_combined_routing_memset": "db2d392362e1308b",
    "_combined_routing_compute": "2081d3757c87464d",
    "_combined_routing_compute_pow2": "318df8428487e7f2",
    "_matmul_ogs": "da15113aa5a9d925",
}


def row_stride(rows: int) -> int:
    """The stride for a batch of so many tokens: one for all, unless a batch is larger than any of vLLM's defaults."""
    return max(ROW_STRIDE, 1 << (rows - 1).bit_length())


def install(logger: Logger) -> bool:
    """Changes the kernels in this process, before any of them is compiled. False: they are not those known here."""
    from vllm.utils.import_utils import get_triton_kernels_version

    if get_triton_kernels_version() != "3.5.1":  # vLLM's name for the kernels in its wheels
        logger.warning("gptoss-bento does not know these MoE kernels; a batch of a new size may wait for Triton.")
        return False
    # Imported first, because it puts its own variants into triton_kernels.
    import vllm.model_executor.layers.fused_moe.experts.gpt_oss_triton_kernels_moe  # noqa: F401

    topk = _module("topk")
    kernels = dict(_kernels())
    sources = {topk.topk_forward.__name__: topk.topk_forward} | {name: kernel.fn for name, kernel in kernels.items()}
    digests = {name: digest(function) for name, function in sources.items()}
    if not is_known(lambda: digests, _KNOWN, "the MoE kernels", logger):
        return False
    fix_stride(topk, topk.topk_forward)
    for name, kernel in kernels.items():
        generalize(kernel, _SIZES[name])
    logger.info("gptoss-bento: the MoE kernels are compiled once for batches of all sizes.")
    return True


def _module(name: str) -> Any:
    """A module under the name by which vLLM imports it.

    `triton_kernels` is only an alias of `vllm.third_party.triton_kernels`. `from triton_kernels import topk` would go
    by the package's own name, and load the module a second time.
    """
    return importlib.import_module(f"triton_kernels.{name}")


def _kernels() -> Iterator[tuple[str, Any]]:
    compute = _module("routing_details._routing_compute")
    yield "_topk_forward", _module("topk")._topk_forward
    yield "_sum_bitmatrix_rows", _module("reduction_details.reduce_bitmatrix")._sum_bitmatrix_rows
    yield "_combined_routing_memset", compute._combined_routing_memset
    yield "_combined_routing_compute", compute._combined_routing_compute
    yield "_matmul_ogs", _module("matmul_ogs")._matmul_ogs
    # vLLM's variant for any number of experts a token; it lives in the function that replaces `sort_tokens`.
    sort_tokens = _module("routing").sort_tokens
    if isinstance(sort_tokens, FunctionType):
        name = "_combined_routing_compute_pow2"
        if kernel := inspect.getclosurevars(sort_tokens).nonlocals.get(name):
            yield name, kernel


def fix_stride(module: ModuleType, function: FunctionType) -> None:
    """Compiles the function again in its module, with `row_stride` instead of the expression for the stride."""
    source = inspect.getsource(function).replace(_STRIDE_IN_SOURCE, "row_stride(n_rows_max)")
    module.__dict__["row_stride"] = row_stride
    exec(compile(source, module.__file__ or "triton_kernels", "exec"), module.__dict__)  # noqa: S102  # of a known hash


def generalize(kernel: Any, sizes: tuple[str, ...]) -> None:
    """Makes Triton compile one kernel for all values of these arguments, as `do_not_specialize` of its decorator."""
    kernel.do_not_specialize = [*kernel.do_not_specialize, *sizes]  # what is derived from the kernel takes it over
    for parameter in kernel.params:
        if parameter.name in sizes:
            parameter.do_not_specialize = True
