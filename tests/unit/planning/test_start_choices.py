from __future__ import annotations

import pytest

from gptoss_bento.config.profile import load_profile
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.hardware.probe import Gpu, Hardware
from gptoss_bento.planning.plan import Planned
from tests.fakes import H100, MI300X, machine
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


@pytest.mark.parametrize("environ", [{"DATA_PARALLEL_SIZE": "2"}, {"VLLM_EXTRA_ARGS": "-dp 2"}])
def test_several_engines_are_not_preloaded_by_default(environ: dict[str, str]) -> None:
    assert planned(environ, load_profile("gpt-oss-20b"), machine(H100, H100)).preload == Planned(False, "default")


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
