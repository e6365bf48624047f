from __future__ import annotations

import pytest

from gptoss_bento.config.profile import load_profile
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.hardware.probe import Gpu, Hardware
from gptoss_bento.planning.plan import Planned
from gptoss_bento.planning.start_choices import GRAPH_PROFILE
from tests.fakes import H100, H200, L4, MI300X, machine
from tests.unit.planning.plans import START_METHOD, planned


@pytest.mark.parametrize(
    ("environ", "hardware", "expected"),
    [
        ({}, machine(H100), Planned(True, "default with a GPU")),
        ({}, machine(), Planned(False, "default without a GPU")),
        ({"WARMUP": "0"}, machine(H100), Planned(False, "WARMUP")),
        ({"WARMUP": "true"}, machine(), Planned(True, "WARMUP")),
        ({"WARMUP": ""}, machine(H100), Planned(True, "default with a GPU")),
    ],
)
def test_warm_up_is_for_gpus_unless_set_otherwise(
    environ: dict[str, str], hardware: Hardware, expected: Planned
) -> None:
    assert planned(environ, load_profile("demo"), hardware).warmup == expected


@pytest.mark.parametrize(
    ("gpus", "default"),
    [
        ([], Planned(False, "default")),
        ([H100], Planned(True, "default with one NVIDIA GPU")),
        ([H100, H100], Planned(False, "default")),
        ([MI300X], Planned(False, "default")),
    ],
)
def test_engine_preload_is_the_default_where_it_was_seen(gpus: list[Gpu], default: Planned) -> None:
    profile = load_profile("gpt-oss-20b" if gpus else "demo")

    assert planned({}, profile, machine(*gpus)).preload == default
    assert planned({"ENGINE_PRELOAD": "0"}, profile, machine(*gpus)).preload == Planned(False, "ENGINE_PRELOAD")
    if gpus:
        assert planned({"ENGINE_PRELOAD": "1"}, profile, machine(*gpus)).preload == Planned(True, "ENGINE_PRELOAD")


@pytest.mark.parametrize(
    ("environ", "gpu", "expected"),
    [
        ({}, H200, Planned("0", "graphs fit into the 11.2 GiB beside gpu_memory_utilization 0.92")),
        ({"GPU_MEMORY_UTILIZATION": "0.97"}, H200, None),  # 4.2 GiB are left
        ({"GPU_MEMORY_UTILIZATION": "0.45"}, H200, None),  # another server may have the rest
        ({"KV_CACHE_MEMORY_BYTES": "40000000000"}, H200, None),  # vLLM then measures nothing anyway
        ({}, L4, None),
        ({}, MI300X, None),  # not seen there
        ({GRAPH_PROFILE: "1"}, H200, Planned("1", "environment")),
    ],
)
def test_graph_profile_is_left_out_where_the_gpu_has_room(
    environ: dict[str, str], gpu: Gpu, expected: Planned | None
) -> None:
    plan = planned(environ, load_profile("gpt-oss-20b"), machine(gpu))

    assert plan.environment.get(GRAPH_PROFILE) == expected


def test_graphs_without_a_profile_leave_the_kv_cache_their_memory() -> None:
    twenty = load_profile("gpt-oss-20b")
    apart, within = (planned(environ, twenty, machine(H200)).memory for environ in ({}, {GRAPH_PROFILE: "1"}))

    assert apart
    assert within
    assert (apart.graphs_gib, within.graphs_gib > 0.3) == (0, True)
    assert apart.kv_cache_gib == pytest.approx(within.kv_cache_gib + within.graphs_gib)


@pytest.mark.parametrize(
    ("environ", "hardware", "reason"),
    [
        ({}, machine(), "there is no GPU"),
        ({START_METHOD: "spawn"}, machine(H100), f"so is {START_METHOD}"),
        ({START_METHOD: "fork"}, machine(H100), f"so is {START_METHOD}"),
        ({"NUMA_BIND": "1"}, machine(H100), "so is NUMA_BIND"),
        ({"VLLM_EXTRA_ARGS": "--numa-bind"}, machine(H100), "so is NUMA_BIND"),
        ({"VLLM_EXTRA_ARGS": "--numa_bind"}, machine(H100), "so is NUMA_BIND"),
    ],
)
def test_preload_that_cannot_be_is_refused(environ: dict[str, str], hardware: Hardware, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=f"ENGINE_PRELOAD is set, .*{reason}"):
        planned({"ENGINE_PRELOAD": "1", **environ}, load_profile("demo"), hardware)

    assert planned(environ, load_profile("demo"), hardware).preload == Planned(False, "default")


@pytest.mark.parametrize("text", ["--no-numa-bind", "--no_numa_bind", "--numa-bind --no-numa-bind"])
def test_preload_goes_with_numa_binding_that_was_refused(text: str) -> None:
    environ = {"ENGINE_PRELOAD": "1", "VLLM_EXTRA_ARGS": text}

    assert planned(environ, load_profile("demo"), machine(H100)).preload == Planned(True, "ENGINE_PRELOAD")


@pytest.mark.parametrize(
    "environ",
    [
        {"JIT_MONITOR_MODE": "error"},
        {"VLLM_EXTRA_ARGS": "--jit-monitor-mode error"},
        {"VLLM_EXTRA_ARGS": "--jit-monitor-mode=error"},
        {"VLLM_EXTRA_ARGS": "--jit_monitor_mode error"},
    ],
)
def test_monitor_that_raises_leaves_no_warm_up(environ: dict[str, str]) -> None:
    demo = load_profile("demo")

    assert planned(environ, demo, machine(H100)).warmup == Planned(False, "JIT_MONITOR_MODE=error")
    assert planned({"JIT_MONITOR_MODE": "warn"}, demo, machine(H100)).warmup.value is True
    with pytest.raises(ConfigurationError, match=r"WARMUP is set, and JIT_MONITOR_MODE is error"):
        planned({"WARMUP": "1", **environ}, demo, machine(H100))
