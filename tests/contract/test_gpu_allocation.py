"""Which GPUs BentoML's supervisor shows its workers, by its own allocator on made-up machines, and what we plan there.

The number that a service declares is for clouds to reserve; on the machine that serves, bento/service_config.py leaves
it out.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bentoml
import pytest

from gptoss_bento.artifacts.model_lookup import NO_HUB
from gptoss_bento.bento.service_config import describe
from gptoss_bento.config import environment
from gptoss_bento.errors import ConfigurationError
from gptoss_bento.hardware import probe
from gptoss_bento.hardware.probe import hardware_named
from gptoss_bento.planning.plan import EnginePlan
from gptoss_bento.server.api_workers import find_worker_group, plan_for
from gptoss_bento.workers import supervisor
from tests.fake_nvml import pynvml as fake_nvml
from tests.fakes import Calls

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    from _bentoml_impl.server.allocator import ResourceAllocator  # type: ignore[import-untyped]
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.resource import NvidiaGpuResource

# Their own warnings at import are not ours to fix.
pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]

NAME = "gptoss-bento"
CORES = 64

Machine = Callable[..., None]


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Those of `bentoml serve`; a test may add some. What BentoML remembers of them and of the machine is forgotten."""
    environ = {"HOME": str(tmp_path)}
    monkeypatch.setattr(os, "environ", environ)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(CORES)))
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml)
    monkeypatch.setattr(probe, "_amd_gpus", lambda *_: ())
    NvidiaGpuResource.from_system.cache_clear()
    before = BentoMLContainer.config.get()
    yield environ
    NvidiaGpuResource.from_system.cache_clear()
    BentoMLContainer.config.set(before)


@pytest.fixture
def machine(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes up the GPUs of this machine, as `plan --gpu` names them."""

    def make(name: str, mig: bool = False) -> None:
        gpus = hardware_named(name).gpus
        if gpus[0].vendor == "amd":
            monkeypatch.setattr(probe, "_amd_gpus", lambda *_: gpus)
        else:
            variables.update({"FAKE_GPUS": name, **({"FAKE_MIG": "1"} if mig else {})})

    return make


def allocated(**options: Any) -> tuple[int, dict[str, str]]:
    """How many workers BentoML starts of a service with these options, and what it adds to their variables."""
    service: Any = bentoml.service(name=NAME, **options)(type("Service", (), {}))
    service.inject_config()
    workers, added = ResourceAllocator().get_worker_env(service)
    return workers, added


# BentoML


@pytest.mark.parametrize(("declared", "shown"), [(1, "0"), (2, "0,1")])
@pytest.mark.parametrize("workers", [1, 4])
def test_gpus_that_a_service_declares_are_the_only_ones_shown_to_its_workers(
    machine: Machine, declared: int, shown: str, workers: int
) -> None:
    """Why bento/service_config.py leaves the number out when it serves. When this fails, BentoML has another way."""
    machine("h100x4")

    assert allocated(resources={"gpu": declared}, workers=workers) == (workers, {"CUDA_VISIBLE_DEVICES": shown})


def test_gpus_of_amd_are_hidden_by_the_same_variable_with_a_warning(machine: Machine) -> None:
    machine("mi300xx4")

    with pytest.warns(ResourceWarning):
        assert allocated(resources={"gpu": 1}) == (1, {"CUDA_VISIBLE_DEVICES": "0"})


@pytest.mark.parametrize("options", [{}, {"resources": {"gpu_type": "nvidia-l4", "memory": "32Gi"}}])
def test_gpus_are_not_allocated_to_a_service_that_declares_no_number(machine: Machine, options: dict[str, Any]) -> None:
    machine("h100x4")

    assert allocated(traffic={"timeout": 60}, **options) == (1, {})


@pytest.mark.parametrize("name", ["CUDA_VISIBLE_DEVICES", "BENTOML_DISABLE_GPU_ALLOCATION"])
@pytest.mark.parametrize("value", ["", "3"])
def test_gpus_are_not_allocated_if_a_variable_forbids_it(
    machine: Machine, variables: dict[str, str], name: str, value: str
) -> None:
    machine("h100x4")
    variables[name] = value

    assert allocated(resources={"gpu": 1}) == (1, {})


# Our service, as the supervisor of `bentoml serve` loads it

PROFILES = [None, "auto", "gpt-oss-20b", "gpt-oss-120b", "demo"]
LIMITS = [None, "", "0", "1,0", "GPU-00000000", "MIG-00000000"]


@pytest.fixture
def in_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is BentoML's supervisor, which may start several workers."""
    monkeypatch.setattr(supervisor, "may_start_several", lambda: True)
    monkeypatch.setattr(supervisor, "create_worker_group", Calls())


@pytest.mark.parametrize("platform", [None, "rocm"])
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("profile", PROFILES)
def test_visible_devices_of_the_workers_are_those_of_the_operator(
    machine: Machine, variables: dict[str, str], profile: str | None, limit: str | None, platform: str | None
) -> None:
    machine("mi300xx8" if platform else "h100x8")
    if limit is not None:
        variables["CUDA_VISIBLE_DEVICES"] = limit

    assert allocated(**describe(profile, workers=4, platform=platform, serving=True).options) == (4, {})


def test_gpus_that_the_operator_declares_in_bentomls_configuration_are_allocated(
    machine: Machine, variables: dict[str, str]
) -> None:
    machine("h100x4")
    variables["BENTOML_CONFIG_OVERRIDES"] = json.dumps({"services": {NAME: {"resources": {"gpu": 2}}}})

    options = describe("gpt-oss-120b", serving=True).options

    assert allocated(**options) == (1, {"CUDA_VISIBLE_DEVICES": "0,1"})


def plan_of_a_worker(profile: str, variables: dict[str, str]) -> EnginePlan:
    """What a worker plans: it has the supervisor's variables and what BentoML adds to them."""
    group = find_worker_group(profile, None)
    workers, added = allocated(**describe(profile, workers=group.count, serving=True).options)
    settings = environment.load_settings({**variables, **added})
    plan = plan_for(profile, settings, probe.probe(settings.visible_devices), NO_HUB)
    assert plan.api_workers.value == workers == group.count, "the supervisor has planned the same"
    return plan


def tensor_parallel_size(plan: EnginePlan) -> tuple[int, str]:
    size = plan.arguments.get("tensor_parallel_size")
    return (size.value, size.origin) if size else (1, "")


ALL = "number of GPUs"


@pytest.mark.usefixtures("in_supervisor")
@pytest.mark.parametrize("profile", ["auto", "gpt-oss-20b", "gpt-oss-120b"])
@pytest.mark.parametrize(
    ("gpus", "seen", "size"),
    [
        ("h100", 1, (1, "")),
        ("h100x2", 2, (2, ALL)),
        ("h100x3", 3, (2, ALL)),
        ("h100x4", 4, (4, ALL)),
        ("h100x8", 8, (8, ALL)),
        ("mi300x", 1, (1, "")),
        ("mi300xx2", 2, (2, ALL)),
        ("mi300xx8", 8, (8, ALL)),
    ],
)
def test_tensor_parallel_size_is_the_largest_group_of_all_gpus(
    machine: Machine, variables: dict[str, str], profile: str, gpus: str, seen: int, size: tuple[int, str]
) -> None:
    machine(gpus)

    plan = plan_of_a_worker(profile, variables)

    assert len(plan.hardware.gpus) == seen
    assert tensor_parallel_size(plan) == size
    assert plan.api_workers.value > 1 or plan.hardware.gpus[0].vendor == "amd"


@pytest.mark.usefixtures("in_supervisor")
@pytest.mark.parametrize(
    ("limit", "seen", "size"),
    [
        ({"CUDA_VISIBLE_DEVICES": "2"}, 1, (1, "")),
        ({"CUDA_VISIBLE_DEVICES": "GPU-00000003,0"}, 2, (2, ALL)),
        ({"TENSOR_PARALLEL_SIZE": "4"}, 8, (4, "TENSOR_PARALLEL_SIZE")),
        ({"TENSOR_PARALLEL_SIZE": "1"}, 8, (1, "TENSOR_PARALLEL_SIZE")),
        ({"PIPELINE_PARALLEL_SIZE": "2"}, 8, (4, ALL)),
    ],
)
def test_tensor_parallel_size_keeps_to_the_operators_limits(
    machine: Machine, variables: dict[str, str], limit: dict[str, str], seen: int, size: tuple[int, str]
) -> None:
    machine("h100x8")
    variables.update(limit)

    plan = plan_of_a_worker("gpt-oss-20b", variables)

    assert len(plan.hardware.gpus) == seen
    assert tensor_parallel_size(plan) == size


@pytest.mark.usefixtures("in_supervisor")
@pytest.mark.parametrize("limit", [{}, {"CUDA_VISIBLE_DEVICES": "MIG-00000001"}, {"CUDA_VISIBLE_DEVICES": "1,0"}])
def test_mig_slices_are_never_grouped(machine: Machine, variables: dict[str, str], limit: dict[str, str]) -> None:
    machine("h100x2", mig=True)
    variables.update(limit)

    plan = plan_of_a_worker("gpt-oss-20b", variables)

    assert [gpu.memory_gib for gpu in plan.hardware.gpus] == [hardware_named("h100").smallest_gpu_gib / 2]
    assert tensor_parallel_size(plan) == (1, "")


@pytest.mark.usefixtures("in_supervisor")
def test_requirements_are_checked_on_all_gpus(machine: Machine, variables: dict[str, str]) -> None:
    """gpt-oss-120b fits on four L4, and on no one of them."""
    machine("l4x4")

    assert tensor_parallel_size(plan_of_a_worker("gpt-oss-120b", variables)) == (4, ALL)


@pytest.mark.usefixtures("in_supervisor")
def test_gpus_beyond_those_of_the_machine_are_still_refused(machine: Machine, variables: dict[str, str]) -> None:
    machine("h100x4")
    variables["TENSOR_PARALLEL_SIZE"] = "8"

    with pytest.raises(ConfigurationError, match=r"8 \(TENSOR_PARALLEL_SIZE\) need 8 GPUs.*sees 4"):
        plan_of_a_worker("gpt-oss-20b", variables)
