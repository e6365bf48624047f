from __future__ import annotations

import re

import pytest

from gptoss_bento.config.profile import load_profile
from gptoss_bento.errors import ConfigurationError, HardwareError
from gptoss_bento.planning.plan import Planned
from tests.fakes import H100, H200, L4, machine, nvidia
from tests.unit.planning.plans import planned

A4000 = nvidia("NVIDIA RTX A4000", 16376, "sm_86")
SMALL_PROFILE = load_profile("gpt-oss-20b")


def test_explicit_length_that_does_not_fit_is_refused_with_one_that_does() -> None:
    with pytest.raises(ConfigurationError) as caught:
        planned({"MAX_MODEL_LEN": "131072"}, SMALL_PROFILE, machine(A4000))

    message = str(caught.value)
    assert "max_model_len 131072 does not fit" in message
    assert "estimated" in message
    assert "MAX_MODEL_LEN=131072" in message
    fitting = re.search(r"A value that would fit: (\d+)\.", message)
    assert fitting
    plan = planned({"MAX_MODEL_LEN": fitting[1]}, SMALL_PROFILE, machine(A4000))
    assert plan.arguments["max_model_len"] == Planned(int(fitting[1]), "MAX_MODEL_LEN")


def test_length_that_is_not_set_is_shortened_with_a_warning() -> None:
    plan = planned({"GPU_MEMORY_UTILIZATION": "0.75"}, SMALL_PROFILE, machine(L4))

    length = plan.arguments["max_model_len"]
    assert length.origin == "estimate of what fits"
    assert 1024 <= length.value < 131072
    assert plan.memory
    assert plan.memory.fits
    assert plan.warnings[0].startswith(f"max_model_len is {length.value}, not 131072 (profile): by estimate")
    assert plan.arguments["gpu_memory_utilization"] == Planned(0.75, "GPU_MEMORY_UTILIZATION")


def test_weights_that_do_not_fit_are_refused() -> None:
    small = nvidia("NVIDIA some slice", 15600, "sm_90")

    with pytest.raises(HardwareError, match=r"^Profile 'gpt-oss-20b' does not fit: 0\.\d GiB are left"):
        planned({}, SMALL_PROFILE, machine(small))


def test_weights_that_do_not_fit_because_of_the_operator_are_refused_with_the_variable() -> None:
    environ = {"GPU_MEMORY_UTILIZATION": "0.15", "SEED": "1"}

    with pytest.raises(ConfigurationError, match=r"does not fit: .* Set were GPU_MEMORY_UTILIZATION=0\.15\.$"):
        planned(environ, SMALL_PROFILE, machine(H100))


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"MODEL_NAME": "a/finetune"}, "MODEL_NAME names a model that the profile does not describe"),
        ({"VLLM_EXTRA_ARGS": "-cc.cudagraph_mode NONE"}, "compilation_config is beyond this estimate"),
        ({"VLLM_EXTRA_ARGS": "--hf_overrides.a 1"}, "hf_overrides is beyond this estimate"),
        ({"QUANTIZATION": "fp8"}, "quantization is beyond this estimate"),
    ],
)
def test_memory_that_cannot_be_estimated_is_planned_with_a_warning(environ: dict[str, str], reason: str) -> None:
    plan = planned(environ, SMALL_PROFILE)

    assert plan.memory is None
    assert plan.warnings == (f"memory is not estimated: {reason}",)


def test_profile_without_shape_has_no_estimate() -> None:
    assert planned({}).warnings == ("memory is not estimated: profile 'p' has no model.shape",)


def test_smallest_gpu_is_the_one_estimated() -> None:
    plan = planned({}, SMALL_PROFILE, machine(H200, L4))

    assert plan.memory
    assert plan.memory.usable_gib < 23


def test_demo_on_a_cpu_is_estimated_from_its_cache() -> None:
    demo = load_profile("demo")

    assert planned({}, demo, machine()).memory == planned({"VLLM_CPU_KVCACHE_SPACE": "1"}, demo, machine()).memory
    assert planned({"VLLM_CPU_KVCACHE_SPACE": "much"}, demo, machine()).warnings == (
        "memory is not estimated: VLLM_CPU_KVCACHE_SPACE is not a number",
    )
