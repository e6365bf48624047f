from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from gptoss_bento.artifacts.compilers import Tools
from gptoss_bento.artifacts.model_lookup import NO_HUB, finder
from gptoss_bento.bench.servers import free_port
from gptoss_bento.doctor.examination import Machine, Request, examine, examined
from gptoss_bento.doctor.finding import Finding, Severity, exit_code, ok
from gptoss_bento.errors import EngineStartError, MachineError
from gptoss_bento.hardware.probe import GIB, Driver, GpuProcess, GpuUse, Hardware, VisibleDevices
from tests.configs import LARGE, OTHER, SMALL, folder_with, gpt_oss
from tests.fakes import H100, H200, L4, T4, machine
from tests.server import REPOSITORY
from tests.unit.doctor.fake_hub import FakeHub
from tests.waiting import HANG_S

PATIENT = Request(timeout_s=HANG_S)


def a_machine(tmp_path: Path, found: Hardware, hub: FakeHub | None = None, **variables: str) -> Machine:
    """One with these GPUs, all free, a new driver and a hub that knows every model."""
    variables = {"HOME": str(tmp_path), "GPTOSS_BENTO_CACHE": str(tmp_path), **variables}
    return Machine(
        variables=variables,
        probe=lambda _: found,
        driver=lambda: Driver("580.95", (13, 0)) if found.gpus else None,
        gpu_use=lambda _: tuple(GpuUse(gpu.memory_bytes) for gpu in found.gpus),
        hub=lambda _: hub or FakeHub(tmp_path),
        finder=lambda settings, _: finder(settings, NO_HUB),
    )


def named(findings: list[Finding], name: str) -> list[Finding]:
    return [finding for finding in findings if finding.name == name]


def bad(findings: list[Finding]) -> dict[str, str]:
    """What is wrong, less what this very machine and environment bring in."""
    of_this_machine = {"vLLM", "libnuma", "packages", "port", "folders", "open files", "shared memory", "disk"}
    return {
        one.name: one.found
        for one in findings
        if one.severity in (Severity.WARNING, Severity.ERROR) and one.name not in of_this_machine
    }


# The whole


async def test_checks_have_one_row_each_in_the_order_of_a_start(tmp_path: Path) -> None:
    findings = await examine(PATIENT, a_machine(tmp_path, machine(H100), TOOL_SERVER="127.0.0.1:9"))

    names = list(dict.fromkeys(finding.name for finding in findings))
    assert names == [
        "settings",
        "plan",
        "Python",
        "vLLM",
        "libnuma",
        "packages",
        "driver",
        "GPU",
        "GPU memory",
        "GPU processes",
        "kernel caches",
        "compiler",
        "model",
        "disk",
        "vocabulary",
        "port",
        "folders",
        "open files",
        "shared memory",
        "tool server",
    ]


async def test_good_machine_has_nothing_wrong(tmp_path: Path) -> None:
    assert bad(await examine(PATIENT, a_machine(tmp_path, machine(H100)))) == {}


async def test_laptop_without_anything_serves_the_demo(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path, OSError("no network"))

    findings = await examine(PATIENT, a_machine(tmp_path, machine(), hub))

    assert bad(findings) == {}
    assert named(findings, "plan")[0].found == "profile demo, model demo"
    assert hub.asked == []


@pytest.mark.parametrize("finding", ["warning", "error"])
async def test_findings_that_are_bad_have_a_remedy(finding: str, tmp_path: Path) -> None:
    hub = FakeHub(tmp_path, OSError("no network"))
    sick = a_machine(
        tmp_path, machine(T4), hub, PROFILE="gpt-oss-120b", TOOL_SERVER="127.0.0.1:9", MAX_MODEL_LEN="many"
    )

    found = await examine(PATIENT, sick)

    assert all(one.remedy for one in found if one.severity == finding)


# Settings, profile, plan


async def test_settings_that_are_wrong_are_found_together_and_the_rest_is_checked(tmp_path: Path) -> None:
    sick = a_machine(tmp_path, machine(H100), MAX_MODEL_LEN="many", ENFORCE_EAGER="perhaps", PROFILE="gpt-oss-20b")

    findings = await examine(PATIENT, sick)

    assert {finding.found.split(":")[0] for finding in named(findings, "settings")} == {
        "MAX_MODEL_LEN",
        "ENFORCE_EAGER",
    }
    assert exit_code(findings) == 78
    assert named(findings, "GPU memory")[0].severity is Severity.OK
    assert named(findings, "model")[0].severity is Severity.NOTE


async def test_profile_that_does_not_exist_is_named_with_the_nearest(tmp_path: Path) -> None:
    findings = await examine(replace(PATIENT, profile="dmeo"), a_machine(tmp_path, machine()))

    assert "did you mean 'demo'" in named(findings, "profile")[0].found
    assert exit_code(findings) == 78


async def test_plan_that_is_refused_is_a_finding(tmp_path: Path) -> None:
    findings = await examine(PATIENT, a_machine(tmp_path, machine(H100), TENSOR_PARALLEL_SIZE="2"))

    assert "need 2 GPUs" in named(findings, "plan")[0].found
    assert exit_code(findings) == 78


async def test_model_in_a_folder_is_identified_by_its_config(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "tuned", SMALL)

    findings = await examine(PATIENT, a_machine(tmp_path, machine(H100), MODEL_NAME=str(folder)))

    assert bad(findings) == {}
    assert named(findings, "plan")[0].found == (
        f"profile gpt-oss-20b (for a model of the size in config.json), model {folder}"
    )
    assert named(findings, "model")[0].found == (
        f"the folder {folder}: 20.9 B parameters, 24 layers, 32 experts at 4.25 bits"
    )
    assert named(findings, "GPU")[0].severity is Severity.OK


async def test_model_that_the_named_profile_does_not_describe_is_a_warning(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "tuned", LARGE)

    findings = await examine(
        replace(PATIENT, profile="gpt-oss-20b"), a_machine(tmp_path, machine(H200), MODEL_NAME=str(folder))
    )

    assert "PROFILE=gpt-oss-120b is made for it" in bad(findings)["plan"]


async def test_model_too_large_for_the_gpus_is_found_by_its_own_needs(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "tuned", gpt_oss(36, 64))

    findings = await examine(PATIENT, a_machine(tmp_path, machine(L4), MODEL_NAME=str(folder)))

    assert "the profile needs 32.3 (the weights, by config.json of" in named(findings, "GPU")[0].found
    assert exit_code(findings) == 78


@pytest.mark.parametrize(
    ("config", "name", "found"),
    [
        ("{", "model", "is not JSON"),
        ({**SMALL, "hidden_size": "many"}, "model", 'hidden_size is "many"'),
        (OTHER, "plan", "says Qwen3ForCausalLM"),
    ],
)
async def test_model_that_cannot_be_served_is_found_by_its_config(
    tmp_path: Path, config: object, name: str, found: str
) -> None:
    folder = folder_with(tmp_path / "tuned", config)

    findings = await examine(PATIENT, a_machine(tmp_path, machine(H100), MODEL_NAME=str(folder)))

    assert found in bad(findings)[name]
    assert len(named(findings, "model")) == 1
    assert exit_code(findings) == 78


async def test_gpus_below_the_profiles_needs_are_found_with_the_reason(tmp_path: Path) -> None:
    findings = await examine(replace(PATIENT, profile="gpt-oss-20b"), a_machine(tmp_path, machine(T4)))

    assert "compute capability 7.5" in named(findings, "GPU")[0].found
    assert exit_code(findings) == 78


async def test_gpu_that_only_the_demo_can_use_is_a_warning(tmp_path: Path) -> None:
    (finding,) = named(await examine(PATIENT, a_machine(tmp_path, machine(T4))), "plan")

    assert finding.severity is Severity.WARNING
    assert "does not suit gpt-oss-20b" in finding.found


async def test_model_of_another_name_is_not_checked_against_the_profiles_needs(tmp_path: Path) -> None:
    findings = await examine(
        replace(PATIENT, profile="demo"), a_machine(tmp_path, machine(L4), MODEL_NAME="someone/model")
    )

    assert named(findings, "GPU") == []
    assert named(findings, "model")[0].found == "someone/model is on the hub, 13.0 GB to download"


async def test_revision_is_asked_for(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path)

    await examine(PATIENT, a_machine(tmp_path, machine(H100), hub, MODEL_REVISION="v1"))

    assert hub.asked == [("openai/gpt-oss-20b", "v1")]


# The machine


async def test_planned_share_of_a_busy_gpu_is_what_must_be_free(tmp_path: Path) -> None:
    uses = (GpuUse(60 * GIB, (GpuProcess(42, "python", 19 * GIB),)),)
    busy = replace(a_machine(tmp_path, machine(H100), GPU_MEMORY_UTILIZATION="0.8"), gpu_use=lambda _: uses)

    findings = await examine(PATIENT, busy)

    assert "GPU_MEMORY_UTILIZATION 0.8 claims 63.7" in named(findings, "GPU memory")[0].found
    assert "python (pid 42" in named(findings, "GPU processes")[0].found


async def test_driver_that_does_not_answer_is_a_finding(tmp_path: Path) -> None:
    def mismatch(*_: object) -> Driver | None:
        raise MachineError("The NVIDIA driver does not answer: version mismatch")

    findings = await examine(PATIENT, replace(a_machine(tmp_path, machine()), driver=mismatch))

    (finding,) = named(findings, "driver")
    assert finding.found == "The NVIDIA driver does not answer: version mismatch"
    assert "nvidia-smi" in finding.remedy
    assert exit_code(findings) == 74


async def test_probe_that_fails_leaves_the_other_checks(tmp_path: Path) -> None:
    def lost(_: VisibleDevices) -> Hardware:
        raise MachineError("GPU is lost")

    findings = await examine(PATIENT, replace(a_machine(tmp_path, machine()), probe=lost))

    assert named(findings, "hardware")[0].found == "GPU is lost"
    assert named(findings, "port")


async def test_tool_servers_may_be_named_among_the_extra_arguments(tmp_path: Path) -> None:
    extra = a_machine(tmp_path, machine(), VLLM_EXTRA_ARGS="--tool-server=127.0.0.1:1")

    assert named(await examine(PATIENT, extra), "tool server")[0].found.startswith("127.0.0.1:1 cannot be reached")


async def test_tool_servers_are_all_asked(tmp_path: Path) -> None:
    sick = a_machine(tmp_path, machine(), TOOL_SERVER="127.0.0.1:1, localhost:1")

    findings = named(await examine(PATIENT, sick), "tool server")

    assert [finding.found.split()[0] for finding in findings] == ["127.0.0.1:1", "localhost:1"]


async def test_tool_server_that_cannot_start_is_a_wrong_setting(tmp_path: Path) -> None:
    findings = await examine(PATIENT, a_machine(tmp_path, machine(), TOOL_SERVER="nowhere"))

    assert "'nowhere' is not host:port" in named(findings, "settings")[0].found
    assert exit_code(findings) == 78


# Checks that go wrong


async def nothing() -> Iterable[Finding]:
    return [ok("some", "fine")]


async def test_check_that_breaks_is_a_finding() -> None:
    async def broken() -> Iterable[Finding]:
        raise ZeroDivisionError("by zero\nand more")

    (finding,) = await examined("some", broken, 1.0)

    assert (finding.severity, finding.found) == (
        Severity.WARNING,
        "not known, the check failed: ZeroDivisionError: by zero",
    )


async def test_check_whose_own_wait_ends_is_not_taken_for_one_that_hangs() -> None:
    async def late() -> Iterable[Finding]:
        raise TimeoutError

    (finding,) = await examined("some", late, 1.0)

    assert finding.found == "not known, the check failed: TimeoutError"


async def test_check_that_hangs_is_left_behind(tmp_path: Path) -> None:
    release = threading.Event()

    def hang() -> Driver | None:
        release.wait()
        return None

    findings = await examine(Request(timeout_s=0.1), replace(a_machine(tmp_path, machine()), driver=hang))
    release.set()

    assert "no answer within" in named(findings, "driver")[0].found


async def test_gpus_that_never_answer_leave_the_checks_that_need_none(tmp_path: Path) -> None:
    release = threading.Event()

    def hang(_: VisibleDevices) -> Hardware:
        release.wait()
        return machine()

    findings = await examine(Request(), replace(a_machine(tmp_path, machine()), probe=hang, probe_limit_s=0.1))
    release.set()

    assert "did not answer" in named(findings, "hardware")[0].found
    assert named(findings, "port")
    assert exit_code(findings) == 78


async def test_check_that_answers_is_passed_on() -> None:
    assert await examined("some", nothing, 1.0) == [ok("some", "fine")]


async def test_secrets_reach_no_finding(tmp_path: Path) -> None:
    def quote(_: VisibleDevices) -> Hardware:
        raise RuntimeError("Authorization: Bearer hf_very_secret")

    sick = replace(a_machine(tmp_path, machine(), HF_TOKEN="hf_very_secret"), probe=quote)

    findings = await examine(PATIENT, sick)

    assert "hf_very_secret" not in str(findings)
    assert "Bearer ***" in named(findings, "hardware")[0].found


# The command itself, in a separate process


SCRIPT = """
import atexit, json, sys
from gptoss_bento.cli import main as cli
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
cli.run()
"""


def doctor(tmp_path: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command on this machine, on the demo profile; the last line of stderr names the modules that it loads."""
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    environment |= {"HOME": str(tmp_path), "PROFILE": "demo", "BENTOML_PORT": str(free_port()), **variables}
    command = [sys.executable, "-c", SCRIPT, "doctor", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_S, cwd=REPOSITORY)


def test_command_answers_fast_without_loading_a_model_library(tmp_path: Path) -> None:
    """What makes it slow would be such a library; how many seconds it takes is the machine's."""
    ended = doctor(tmp_path, "--json", "--offline")

    report = json.loads(ended.stdout)
    loaded = set(json.loads(ended.stderr.splitlines()[-1]))
    assert {"vLLM", "packages", "model", "port"} <= {row["name"] for row in report["findings"]}
    assert "gptoss_bento.doctor.examination" in loaded
    assert not loaded & {"vllm", "torch", "transformers"}
    assert ended.returncode == report["exit_code"]


def test_command_prints_a_table_and_ends_with_the_code_of_the_service(tmp_path: Path) -> None:
    ended = doctor(tmp_path, "--offline", MAX_MODEL_LEN="many", HF_TOKEN="hf_very_secret")

    assert ended.returncode == 78
    assert ended.stdout.split()[:3] == ["check", "found", "remedy"]
    assert "MAX_MODEL_LEN" in ended.stdout
    assert "hf_very_secret" not in ended.stdout + ended.stderr
    assert "Traceback" not in ended.stderr


# Compiled kernels


async def test_kernels_are_searched_in_the_folder_of_the_plan(tmp_path: Path) -> None:
    findings = await examine(PATIENT, a_machine(tmp_path, machine(H100), KERNEL_CACHE_DIR=str(tmp_path / "k")))

    (finding,) = named(findings, "kernel caches")
    assert finding.found.startswith(f"{tmp_path / 'k'}: cold")
    assert "driver 580.95" in finding.found


async def test_missing_compiler_ends_the_start(tmp_path: Path) -> None:
    without = replace(a_machine(tmp_path, machine(H100)), tools=Tools(which=lambda _: None))

    (finding,) = named(await examine(PATIENT, without), "compiler")

    assert finding.stops_with is EngineStartError


async def test_several_cards_without_nvcc_start_all_the_same(tmp_path: Path) -> None:
    gcc = Tools(which=lambda name: name if name == "gcc" else None)
    without = replace(
        a_machine(tmp_path, machine(H100, H100)), tools=replace(gcc, python_header=lambda: Path(__file__))
    )

    (finding,) = named(await examine(Request(), without), "compiler")

    assert finding.stops_with is None, finding.found


async def test_machine_without_gpu_compiles_nothing(tmp_path: Path) -> None:
    findings = await examine(PATIENT, a_machine(tmp_path, machine()))

    assert not [finding for finding in findings if finding.name in ("kernel caches", "compiler")]
