from __future__ import annotations

import pytest

from gptoss_bento.config.profile import load_profile
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.planning.plan import Planned
from tests.fakes import H100, machine
from tests.unit.planning.plans import planned


@pytest.mark.parametrize(("gpus", "size"), [(2, 2), (3, 2), (4, 4), (5, 4), (7, 4), (8, 8), (9, 8), (16, 8)])
def test_gpus_share_the_model_in_a_way_that_gpt_oss_allows(gpus: int, size: int) -> None:
    plan = planned({}, hardware=machine(*[H100] * gpus))

    assert plan.arguments["tensor_parallel_size"] == Planned(size, "number of GPUs")


@pytest.mark.parametrize("gpus", [0, 1])
def test_gpu_alone_shares_nothing(gpus: int) -> None:
    assert "tensor_parallel_size" not in planned({}, hardware=machine(*[H100] * gpus)).arguments


@pytest.mark.parametrize(
    ("gpus", "environ", "size"),
    [
        (8, {"PIPELINE_PARALLEL_SIZE": "2"}, 4),
        (8, {"DATA_PARALLEL_SIZE": "2"}, 4),
        (8, {"DATA_PARALLEL_SIZE": "3"}, 2),
        (8, {"PIPELINE_PARALLEL_SIZE": "2", "DATA_PARALLEL_SIZE": "2"}, 2),
        (8, {"PIPELINE_PARALLEL_SIZE": "8"}, None),
        (4, {"DATA_PARALLEL_SIZE": "3"}, None),
        (4, {"DATA_PARALLEL_SIZE": "1"}, 4),
    ],
)
def test_gpus_that_the_operator_uses_otherwise_do_not_share_the_model(
    gpus: int, environ: dict[str, str], size: int | None
) -> None:
    arguments = planned(environ, hardware=machine(*[H100] * gpus)).arguments

    assert arguments.get("tensor_parallel_size") == (size and Planned(size, "number of GPUs"))
    assert {name.upper(): str(arguments[name.lower()].value) for name in environ} == environ


@pytest.mark.parametrize(
    ("environ", "gpus", "message"),
    [
        (
            {"TENSOR_PARALLEL_SIZE": "4"},
            2,
            "tensor_parallel_size 4 (TENSOR_PARALLEL_SIZE) need 4 GPUs, but this process sees 2.",
        ),
        (
            {"PIPELINE_PARALLEL_SIZE": "2"},
            1,
            "pipeline_parallel_size 2 (PIPELINE_PARALLEL_SIZE) need 2 GPUs, but this process sees 1.",
        ),
        (
            {"TENSOR_PARALLEL_SIZE": "2", "PIPELINE_PARALLEL_SIZE": "2"},
            2,
            "tensor_parallel_size 2 (TENSOR_PARALLEL_SIZE) and pipeline_parallel_size 2 (PIPELINE_PARALLEL_SIZE) "
            "need 4 GPUs, but this process sees 2.",
        ),
        (
            {"TENSOR_PARALLEL_SIZE": "2", "PIPELINE_PARALLEL_SIZE": "2", "DATA_PARALLEL_SIZE": "3"},
            8,
            "tensor_parallel_size 2 (TENSOR_PARALLEL_SIZE) and pipeline_parallel_size 2 (PIPELINE_PARALLEL_SIZE) and "
            "data_parallel_size 3 (DATA_PARALLEL_SIZE) need 12 GPUs, but this process sees 8.",
        ),
    ],
)
def test_sizes_that_need_more_gpus_than_there_are_are_refused_with_their_origins(
    environ: dict[str, str], gpus: int, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        planned(environ, hardware=machine(*[H100] * gpus))

    assert str(caught.value) == message


def test_size_of_the_profile_counts_with_that_of_the_operator() -> None:
    with pytest.raises(ConfigurationError, match=r"^tensor_parallel_size 1 \(profile\) and data_parallel_size 3 \("):
        planned({"DATA_PARALLEL_SIZE": "3"}, load_profile("demo"), machine(H100, H100))


def test_gpus_may_all_be_used_in_several_ways_together() -> None:
    environ = {"TENSOR_PARALLEL_SIZE": "2", "PIPELINE_PARALLEL_SIZE": "2", "DATA_PARALLEL_SIZE": "2"}
    arguments = planned(environ, hardware=machine(*[H100] * 8)).arguments

    assert {name: str(arguments[name.lower()].value) for name in environ} == environ


def test_cpu_may_share_the_model_as_the_operator_likes() -> None:
    assert planned({"TENSOR_PARALLEL_SIZE": "2"}, hardware=machine()).arguments["tensor_parallel_size"].value == 2


def test_gpu_chosen_of_several_is_planned_like_one_gpu() -> None:
    plan = planned({"TENSOR_PARALLEL_SIZE": "1"}, load_profile("gpt-oss-120b"), machine(H100, H100))

    assert plan.arguments["gpu_memory_utilization"] == Planned(0.95, "tier one 80 GB GPU")
    assert plan.arguments["max_num_batched_tokens"] == Planned(1024, "tier one 80 GB GPU")
