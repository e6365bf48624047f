from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gptoss_bento.config.environment import load_settings
from gptoss_bento.config.profile import load_profile
from gptoss_bento.hardware.probe import Hardware
from gptoss_bento.planning.kernel_key import Entry, Kernels, Key, as_content, deciding, entries_from, judged, key_of
from gptoss_bento.planning.plan import EnginePlan, Planned, with_kernels
from gptoss_bento.planning.planner import make_plan
from tests.fakes import H100, H200, MI300X, machine

VERSIONS = {"vllm": "0.32.0", "torch": "2.13.0", "triton": "3.7.1"}
KEY = Key("NVIDIA H200", "compute capability 9.0", VERSIONS, "1a2b3c4d", "/kernels/triton")
ENTRY = Entry(KEY, "580.159", "2026-11-30T08:00:00+00:00", 200.0, 1_000_000)


def plan_of(profile: str = "gpt-oss-20b", hardware: Hardware | None = None, /, **variables: str) -> EnginePlan:
    return make_plan(load_settings({"HOME": "/h", **variables}), load_profile(profile), hardware or machine(H200))


def arguments_of(variables: Mapping[str, str] | None = None, /, **said: str) -> str:
    return key_of(plan_of(**said), variables or {}, VERSIONS).arguments


def kernels(entry: Entry | None = ENTRY, **other: Any) -> Kernels:
    return Kernels(Path("/kernels"), KEY, "580.159", entry, **other)


# The key


def test_key_names_card_architecture_versions_and_the_path_of_triton() -> None:
    key = key_of(plan_of(KERNEL_CACHE_DIR="/kernels"), {}, VERSIONS)

    assert replace(key, arguments="") == replace(KEY, arguments="")
    assert len(key.arguments) == 8


def test_key_names_the_architecture_of_amd() -> None:
    key = key_of(plan_of("gpt-oss-120b", machine(MI300X)), {}, VERSIONS)

    assert (key.card, key.architecture) == ("MI300X", "gfx942")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MAX_MODEL_LEN", "4096"),
        ("MAX_NUM_BATCHED_TOKENS", "4096"),
        ("MAX_NUM_SEQS", "77"),
        ("KV_CACHE_DTYPE", "fp8"),
        ("MOE_BACKEND", "marlin"),
        ("MAX_CUDAGRAPH_CAPTURE_SIZE", "64"),
        ("DTYPE", "float16"),
        ("VLLM_EXTRA_ARGS", "--block-size 32"),
        ("VLLM_USE_FLASHINFER_SAMPLER", "1"),
        ("MODEL_REVISION", "abc"),
    ],
)
def test_arguments_differ_by_what_decides_what_is_compiled(variable: str, value: str) -> None:
    assert arguments_of(**{variable: value}) != arguments_of()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("API_WORKERS", "2"),
        ("DRAIN_TIMEOUT", "77"),
        ("STREAM_INTERVAL", "7"),
        ("OPENAI_SERVED_MODEL_NAME_OVERRIDE", "mine"),
        ("GPU_MEMORY_UTILIZATION", "0.5"),
        ("ENABLE_PREFIX_CACHING", "false"),
        ("LOAD_FORMAT", "dummy"),
        ("VLLM_STARTUP_TIMEOUT", "2000"),
        ("WARMUP", "false"),
        ("VLLM_NO_USAGE_STATS", "0"),
        ("KERNEL_CACHE_DIR", "/elsewhere"),
    ],
)
def test_arguments_are_the_same_for_what_decides_nothing(variable: str, value: str) -> None:
    assert arguments_of(**{variable: value}) == arguments_of()


def test_arguments_have_the_variables_of_the_process_that_are_in_vllms_own_key() -> None:
    assert arguments_of({"VLLM_DISABLE_COMPILE_CACHE": "1"}) != arguments_of()
    assert arguments_of({"VLLM_LOGGING_LEVEL": "DEBUG", "PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1"}) == arguments_of()
    assert arguments_of({"HF_HOME": "/volume"}) != arguments_of(), "the model's path is in vLLM's key"


def test_deciding_arguments_hold_no_secret() -> None:
    extra = "--kv-transfer-config " + json.dumps(json.dumps({"token": "hunter2-hunter2"}))
    said = deciding(plan_of(VLLM_EXTRA_ARGS=extra, HF_OVERRIDES='{"api_key": "hunter2"}'), {"S3_SECRET_KEY": "hunter2"})

    assert "hunter2" not in json.dumps(said)
    assert '"layers":24' in said["dimensions"], "which are none"
    assert said["hf_overrides"].startswith("a secret with the digest ")


# What a folder has


def test_empty_folder_is_cold() -> None:
    assert judged([], KEY, warmup=True) == (None, "nothing is there yet")


def test_folder_is_warm_for_its_key() -> None:
    assert judged([ENTRY], KEY, warmup=True) == (ENTRY, "")


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (replace(KEY, card="NVIDIA H100"), "it was filled for NVIDIA H100 (compute capability 9.0)"),
        (replace(KEY, versions={**VERSIONS, "vllm": "0.31.0"}), "it was filled for vllm 0.31.0"),
        (replace(KEY, arguments="ffffffff"), "it was filled for arguments ffffffff"),
        (replace(KEY, folder="/old/triton"), "it was filled for the path /old/triton"),
    ],
)
def test_folder_is_cold_for_another_key_and_the_filled_one_is_named(other: Key, reason: str) -> None:
    assert judged([replace(ENTRY, key=other)], KEY, warmup=True) == (None, reason)


def test_filling_that_is_nearest_is_named() -> None:
    far = replace(ENTRY, key=replace(KEY, card="NVIDIA L4", arguments="00000000"))
    near = replace(ENTRY, key=replace(KEY, arguments="ffffffff"))

    assert judged([near, far], KEY, warmup=True)[1] == "it was filled for arguments ffffffff"


def test_filling_without_warm_up_requests_serves_only_a_start_without_them() -> None:
    entry = replace(ENTRY, warmup=False)

    assert judged([entry], KEY, warmup=False) == (entry, "")
    assert judged([entry], KEY, warmup=True) == (None, "it was filled without warm-up requests")


def test_state_is_printed_with_card_driver_version_and_arguments() -> None:
    assert str(kernels()) == "warm: NVIDIA H200, driver 580.159, vLLM 0.32.0, arguments 1a2b3c4d"
    assert str(kernels(None, reason="nothing is there yet")) == (
        "cold: the first start compiles for minutes; nothing is there yet; "
        "NVIDIA H200, driver 580.159, vLLM 0.32.0, arguments 1a2b3c4d"
    )


def test_driver_that_differs_leaves_the_folder_warm_and_is_named() -> None:
    assert str(kernels(replace(ENTRY, driver="570.1"))).endswith("; filled under driver 570.1")


def test_entries_survive_their_way_through_json() -> None:
    assert entries_from(json.loads(json.dumps(as_content([ENTRY])))) == (ENTRY,)


# In the plan


def test_plan_shows_the_folder_and_its_state() -> None:
    plan = plan_of(KERNEL_CACHE_DIR="/kernels")

    assert ("kernel caches", "/kernels", "KERNEL_CACHE_DIR") in plan.rows()
    shown = with_kernels(plan, kernels())
    assert ("kernel caches", f"/kernels ({kernels()})", "KERNEL_CACHE_DIR") in shown.rows()


def test_plan_without_gpu_has_no_folder_of_kernels() -> None:
    plan = plan_of("demo", machine())

    assert plan.kernel_folder is None
    assert "kernel caches" not in {name for name, _, _ in plan.rows()}


def test_plan_replaces_a_folder_that_cannot_be_written_with_a_warning() -> None:
    plan = plan_of("gpt-oss-20b", machine(H100), KERNEL_CACHE_DIR="/kernels", TRITON_CACHE_DIR="/mine")
    reason = "/kernels cannot be written by uid 7"

    replaced = with_kernels(plan, kernels(unwritable=reason, replacement=Path("/tmp/k")))  # noqa: S108

    assert replaced.environment["VLLM_CACHE_ROOT"] == Planned("/tmp/k/vllm", reason)  # noqa: S108
    assert replaced.environment["TRITON_CACHE_DIR"] == Planned("/mine", "environment"), "what was said is kept"
    assert any(warning.startswith(reason) and "temporary folder" in warning for warning in replaced.warnings)
