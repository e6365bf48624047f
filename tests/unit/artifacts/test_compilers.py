from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from gptoss_bento.artifacts.compilers import ALL_REDUCE, MissingTool, Tools, c_compiler, lacks, nvcc, without_all_reduce
from gptoss_bento.hardware.probe import Gpu, Hardware
from gptoss_bento.planning.plan import EnginePlan, Planned
from tests.fakes import A100, H200, MI300X, machine, nvidia
from tests.unit.planning.test_kernel_key import plan_of

B200 = nvidia("NVIDIA B200", 183359, "sm_100")
HEADER = Path(__file__)  # any file that exists


def tools(*found: str, header: Path = HEADER, locked: Path | None = None) -> Tools:
    return Tools(lambda name: name if name in found else None, lambda: header, lambda: locked)


def plan_on(hardware: Hardware, folder: Path = Path("/nowhere"), /, **variables: str) -> EnginePlan:
    return plan_of("gpt-oss-20b", hardware, KERNEL_CACHE_DIR=str(folder), **variables)


def found(plan: EnginePlan, here: Tools, **variables: str) -> list[MissingTool]:
    return list(lacks(plan, variables, here))


# A C compiler, for Triton


def test_cold_start_without_c_compiler_ends() -> None:
    (lack,) = found(plan_on(machine(H200)), tools())

    assert lack.what == "no C compiler (gcc or clang)"
    assert lack.ends_start
    assert "apt-get install gcc" in lack.remedy


@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_cold_start_with_c_compiler_lacks_nothing(name: str) -> None:
    assert found(plan_on(machine(H200)), tools(name)) == []


def test_start_with_tritons_module_in_the_cache_needs_no_c_compiler(tmp_path: Path) -> None:
    module = tmp_path / "triton" / "hash" / f"cuda_utils{sysconfig.get_config_var('EXT_SUFFIX')}"
    module.parent.mkdir(parents=True)
    module.touch()

    assert found(plan_on(machine(H200), tmp_path), tools()) == []


def test_module_of_another_python_does_not_count(tmp_path: Path) -> None:
    module = tmp_path / "triton" / "hash" / "cuda_utils.cpython-27-x86_64-linux-gnu.so"
    module.parent.mkdir(parents=True)
    module.touch()

    assert found(plan_on(machine(H200), tmp_path), tools())


def test_compiler_that_cc_names_is_the_one_that_counts() -> None:
    (lack,) = found(plan_on(machine(H200)), tools("gcc"), CC="icc")

    assert lack.what == "no C compiler (CC=icc)"
    assert c_compiler({"CC": "icc"}, tools("icc")) == "icc"


def test_cold_start_without_pythons_header_ends() -> None:
    (lack,) = found(plan_on(machine(H200)), tools("gcc", header=Path("/nowhere/Python.h")))

    assert lack.what == "no /nowhere/Python.h"
    assert "python3-dev" in lack.remedy


@pytest.mark.parametrize("hardware", [machine(), machine(MI300X)], ids=["CPU", "AMD"])
def test_machines_without_nvidias_cards_are_not_judged(hardware: Hardware) -> None:
    profile = "gpt-oss-120b" if hardware.gpus else "demo"

    assert list(lacks(plan_of(profile, hardware), {}, tools())) == []


# nvcc, for FlashInfer


def test_nvcc_is_not_needed_where_the_plan_leaves_flashinfer_alone() -> None:
    assert found(plan_on(machine(H200)), tools("gcc")) == []


@pytest.mark.parametrize(
    ("gpu", "variables", "wanted"),
    [
        (H200, {"VLLM_USE_FLASHINFER_SAMPLER": "1"}, "VLLM_USE_FLASHINFER_SAMPLER=1"),
        (H200, {"MOE_BACKEND": "flashinfer_cutlass"}, "moe_backend flashinfer_cutlass"),
        (B200, {}, "moe_backend flashinfer_trtllm"),
    ],
)
def test_plan_with_kernels_of_flashinfer_needs_nvcc(gpu: object, variables: dict[str, str], wanted: str) -> None:
    (lack,) = found(plan_on(machine(gpu), **variables), tools("gcc", "ninja"), **variables)  # type: ignore[arg-type]

    assert str(lack) == f"no nvcc: FlashInfer needs it for {wanted}: the start ends"
    assert lack.ends_start


def test_plan_with_kernels_of_flashinfer_needs_ninja_too() -> None:
    (lack,) = found(plan_on(machine(B200)), tools("gcc", "nvcc"))

    assert lack.what == "no ninja"


@pytest.mark.parametrize(("present", "origin"), [((), "no nvcc and no ninja"), (("nvcc",), "no ninja")])
@pytest.mark.parametrize("gpu", [H200, B200], ids=["Hopper", "Blackwell"])
def test_several_cards_do_without_flashinfers_all_reduce_where_it_cannot_be_built(
    gpu: Gpu, present: tuple[str, ...], origin: str
) -> None:
    """vLLM would build it in the first run of the model, and end there."""
    plan = without_all_reduce(plan_on(machine(gpu, gpu)), {}, tools("gcc", *present))

    assert plan.environment[ALL_REDUCE] == Planned("0", origin)


@pytest.mark.parametrize(
    ("hardware", "variables", "present"),
    [
        (machine(H200, H200), {}, ("nvcc", "ninja")),
        (machine(H200), {}, ()),
        (machine(A100, A100), {}, ()),
        (machine(H200, H200), {"TENSOR_PARALLEL_SIZE": "1"}, ()),
        (machine(H200, H200), {"VLLM_BATCH_INVARIANT": "1"}, ()),
        (machine(H200, H200), {ALL_REDUCE: "1"}, ()),
        (machine(), {}, ()),
    ],
    ids=["compilers", "one card", "Ampere", "not shared", "batch invariant", "the operator's own", "CPU"],
)
def test_all_reduce_is_left_as_it_is_elsewhere(
    hardware: Hardware, variables: dict[str, str], present: tuple[str, ...]
) -> None:
    plan = plan_of("gpt-oss-20b" if hardware.gpus else "demo", hardware, **variables)

    assert without_all_reduce(plan, variables, tools("gcc", *present)) is plan


def test_cards_without_nvcc_are_only_slower() -> None:
    here = tools("gcc")
    (lack,) = found(without_all_reduce(plan_on(machine(H200, H200)), {}, here), here)

    assert not lack.ends_start
    assert "fusing all-reduce with normalization: vLLM does it in two steps" in lack.follows


@pytest.mark.parametrize("value", ["1", " 1 "])
def test_all_reduce_that_the_operator_asked_for_needs_nvcc(value: str) -> None:
    (lack,) = found(plan_on(machine(H200, H200)), tools("gcc", "ninja"), **{ALL_REDUCE: value})

    assert lack.ends_start
    assert f"{ALL_REDUCE}=1 with several cards: the start ends" in lack.follows


def test_cards_on_which_vllm_fuses_nothing_need_no_nvcc() -> None:
    assert found(plan_on(machine(A100, A100)), tools("gcc")) == []


@pytest.mark.parametrize(
    ("variables", "present", "expected"),
    [
        ({}, ["nvcc"], "nvcc"),
        ({}, ["/usr/local/cuda/bin/nvcc"], "/usr/local/cuda/bin/nvcc"),
        ({"CUDA_HOME": "/c"}, ["/c/bin/nvcc", "nvcc"], "/c/bin/nvcc"),
        ({"CUDA_PATH": "/c"}, ["/c/bin/nvcc"], "/c/bin/nvcc"),
        ({"CUDA_HOME": "/c"}, ["nvcc"], None),
    ],
)
def test_nvcc_is_searched_where_flashinfer_searches_it(
    variables: dict[str, str], present: list[str], expected: str | None
) -> None:
    assert nvcc(variables, tools(*present)) == expected


def test_nvcc_of_the_lock_is_named_where_nothing_finds_it() -> None:
    here = tools("gcc", "ninja", locked=Path("/venv/nvidia/cu13/bin/nvcc"))

    (lack,) = found(plan_on(machine(B200)), here)

    assert lack.remedy.startswith("CUDA_HOME=/venv/nvidia/cu13 ")


def test_compilers_of_this_machine_can_be_checked() -> None:
    assert isinstance(found(plan_on(machine(B200)), Tools()), list)
