from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from gptoss_bento.artifacts import prepare as artifacts
from gptoss_bento.artifacts.prepare import Artifacts
from gptoss_bento.bento import bake as baking
from gptoss_bento.bento import build as building
from gptoss_bento.cli import main, planning
from gptoss_bento.config import manifest
from gptoss_bento.config.manifest import Manifest, Source
from gptoss_bento.doctor import examination
from gptoss_bento.doctor.examination import Request
from gptoss_bento.doctor.finding import Finding, error, ok, warning
from gptoss_bento.errors import AddressInUseError, ArtifactError, ConfigurationError, GptOssBentoError, HardwareError
from gptoss_bento.hardware import probe as hardware
from gptoss_bento.planning.model_config import ModelConfig, unknown_config
from gptoss_bento.tools.python import confinement
from tests.configs import LARGE, SMALL, folder_with
from tests.fakes import H100, L4, Calls, machine
from tests.server import REPOSITORY
from tests.unit.command_line import invoke, words

pytestmark = pytest.mark.usefixtures("plain_machine")


# plan


def test_plan_prints_values_with_their_origins() -> None:
    lines = words(invoke("plan"))

    assert ["profile", "demo"] in lines
    assert ["model", "demo", "profile"] in lines
    assert ["--max-model-len", "4096", "profile"] in lines
    assert ["VLLM_CPU_KVCACHE_SPACE", "1", "tier", "cpu"] in lines


def test_plan_follows_the_variables() -> None:
    os.environ["MAX_MODEL_LEN"] = "512"

    assert ["--max-model-len", "512", "MAX_MODEL_LEN"] in words(invoke("plan"))


def test_plan_refuses_python_where_the_kernel_cannot_confine_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "problem", lambda: "the kernel has no Landlock")
    os.environ["PYTHON_TOOL"] = "on"

    refused = invoke("plan").exception
    assert isinstance(refused, HardwareError)
    assert "cannot confine: the kernel has no Landlock" in str(refused)

    os.environ["PYTHON_TOOL"] = "auto"
    assert ["tool", "python", "off:", "the", "kernel", "has", "no", "Landlock", "PYTHON_TOOL=auto"] in words(
        invoke("plan")
    )


def test_plan_chooses_the_profile_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "probe", lambda _: machine(H100))
    os.environ["MODEL_NAME"] = "openai/gpt-oss-120b"

    lines = words(invoke("plan"))

    assert ["profile", "gpt-oss-120b"] in lines
    assert ["model", "openai/gpt-oss-120b", "MODEL_NAME"] in lines


def test_plan_identifies_a_folder_by_its_config_and_needs_no_weights(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "tuned", LARGE)
    os.environ.update(MODEL_NAME=str(folder), LOAD_FORMAT="dummy")

    lines = words(invoke("plan", "--gpu", "h100"))

    size = ["117", "B", "parameters,", "36", "layers,", "128", "experts", "at", "4.25", "bits"]
    assert ["profile", "gpt-oss-120b", *["for", "a", "model", "of", "the", "size", "in", "config.json"]] in lines
    assert ["model", "size", *size, "config.json", "of", str(folder)] in lines
    assert ["served", "names", "tuned", "from", "MODEL_NAME"] in lines
    assert ["--load-format", "dummy", "LOAD_FORMAT"] in lines
    assert ["weights", "64.4"] in lines


def test_plan_of_a_broken_config_ends_with_the_file_and_the_key(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "tuned", {**SMALL, "head_dim": "wide"})
    os.environ["MODEL_NAME"] = str(folder)

    result = invoke("plan", "--gpu", "h100")

    assert isinstance(result.exception, ConfigurationError)
    assert str(result.exception).startswith(f'{folder}/config.json: head_dim is "wide"')


def test_plan_asks_the_cache_that_the_settings_name_before_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def find(model: str, _: str | None) -> ModelConfig:
        asked.append(os.environ.get("HF_HOME"))
        return unknown_config(model, "not there")

    monkeypatch.setattr(planning, "finder", lambda *_: find)
    os.environ.update(MODEL_NAME="acme/tuned", BASE_PATH="/data")

    assert ["model", "size", "not", "known", "not", "there"] in words(invoke("plan", "--gpu", "h100"))
    assert asked == ["/data/huggingface-cache/hub"]


def test_plan_chooses_the_profile_that_suits_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "probe", lambda _: machine(L4))

    assert ["profile", "gpt-oss-20b"] in words(invoke("plan"))


def test_option_profile_wins_over_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "probe", lambda _: machine(H100))
    os.environ["PROFILE"] = "gpt-oss-20b"

    assert ["profile", "gpt-oss-120b"] in words(invoke("plan", "--profile", "gpt-oss-120b"))


def test_variable_profile_wins_over_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "probe", lambda _: machine(H100))
    os.environ["PROFILE"] = "demo"

    assert ["profile", "demo"] in words(invoke("plan"))


def test_profile_auto_leaves_the_choice_to_the_machine() -> None:
    assert ["profile", "demo"] in words(invoke("plan", "--profile", "auto"))


def test_plan_refuses_a_profile_that_does_not_fit_the_machine() -> None:
    assert isinstance(invoke("plan", "--profile", "gpt-oss-20b").exception, HardwareError)


def test_plan_counts_only_visible_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Calls(machine())
    monkeypatch.setattr(hardware, "probe", probe)
    os.environ["CUDA_VISIBLE_DEVICES"] = "1"

    invoke("plan")

    assert probe.made == [(hardware.VisibleDevices("1"),)]


def test_plan_for_a_named_machine_probes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Calls(machine())
    monkeypatch.setattr(hardware, "probe", probe)

    lines = words(invoke("plan", "--gpu", "h100x2"))

    assert probe.made == []
    assert ["hardware", "2", "x", "H100", "80GB", "HBM3", "(80", "GiB)", "named"] in lines
    assert ["profile", "gpt-oss-20b"] in lines
    assert ["--tensor-parallel-size", "2", "number", "of", "GPUs"] in lines


def test_plan_shows_arguments_memory_and_that_it_is_an_estimate() -> None:
    result = invoke("plan", "--gpu", "h100", "--profile", "gpt-oss-120b")
    lines = words(result)

    (arguments,) = [line for line in lines if line and line[0].startswith("--model=")]
    assert {"--gpu-memory-utilization=0.95", "--max-num-batched-tokens=1024"} <= set(arguments)
    assert ["weights", "64.4"] in lines
    assert "Memory figures are an estimate" in result.output


def test_option_goal_wins_over_the_variable() -> None:
    os.environ["GOAL"] = "latency"

    assert ["goal", "throughput", "--goal"] in words(invoke("plan", "--gpu", "h100", "--goal", "throughput"))
    assert ["goal", "latency", "GOAL"] in words(invoke("plan", "--gpu", "h100"))


def test_plan_prints_warnings() -> None:
    os.environ["GPU_MEMORY_UTILIZATION"] = "0.75"

    assert "warning: max_model_len is " in invoke("plan", "--gpu", "l4").output


def test_plan_for_an_unknown_card_names_the_nearest() -> None:
    error = invoke("plan", "--gpu", "h10x2").exception

    assert isinstance(error, ConfigurationError)
    assert "did you mean 'h100'" in str(error)


def plan_json(*arguments: str) -> dict[str, Any]:
    result = invoke("plan", "--json", *arguments)
    assert result.exit_code == 0, result.output
    content = json.loads(result.output)
    assert isinstance(content, dict)
    return content


def test_plan_as_json_has_every_value_with_its_origin() -> None:
    os.environ["MAX_NUM_SEQS"] = "3"

    found = plan_json("--gpu", "mi300x", "--goal", "benchmark", "--profile", "gpt-oss-120b")

    assert found["profile"] == "gpt-oss-120b"
    assert found["goal"] == {"value": "benchmark", "origin": "--goal"}
    assert found["hardware"]["origin"] == "named"
    assert found["hardware"]["gpus"] == [
        {
            "name": "Instinct MI300X",
            "architecture": "gfx942",
            "family": "cdna3",
            "memory_gib": 191.98,
            "bentocloud": "amd-mi300x",
        }
    ]
    assert found["arguments"]["max_num_seqs"] == {"value": 3, "origin": "MAX_NUM_SEQS"}
    assert found["arguments"]["enable_prefix_caching"] == {"value": False, "origin": "goal benchmark"}
    assert found["environment"]["VLLM_ROCM_USE_AITER"] == {"value": "1", "origin": "tier AMD Instinct"}
    assert "--max-num-seqs=3" in found["argv"]
    assert found["memory"]["estimated"] is True
    assert found["memory"]["kv_tokens"] > 131072
    assert found["warnings"] == []


def test_refusal_is_json_too() -> None:
    result = invoke("plan", "--json", "--gpu", "t4", "--profile", "gpt-oss-20b")

    assert isinstance(result.exception, HardwareError)
    assert json.loads(result.output) == {"refused": str(result.exception)}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_plan_prints_no_secrets(options: list[str]) -> None:
    os.environ.update(
        {
            "HF_TOKEN": "s3cret",
            "API_KEY": "s3cret",
            "KV_TRANSFER_CONFIG": '{"kv_connector_extra_config": {"secret": "s3cret"}}',
            "VLLM_EXTRA_ARGS": "--kv-transfer-config.password s3cret",
        }
    )

    result = invoke("plan", "--gpu", "h100", *options)

    assert result.exit_code == 0, result.output
    assert "s3cret" not in result.output


def test_plan_loads_nothing_heavy() -> None:
    """So that it answers immediately, also where vLLM is not installed."""
    script = """
import json, sys
sys.argv = ["gptoss-bento", "plan", "--gpu", "h100x2"]
from gptoss_bento.cli.main import app
app(standalone_mode=False)
print(json.dumps(sorted(sys.modules)))
"""
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/root", "PYTHONPATH": str(REPOSITORY / "src")}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 0, ended.stderr
    loaded = set(json.loads(ended.stdout.splitlines()[-1]))
    assert "gptoss_bento.planning.plan" in loaded
    assert not loaded & {"vllm", "torch", "transformers", "openai", "bentoml", "httpx", "huggingface_hub", "pynvml"}


# prepare


def test_prepare_puts_the_model_where_the_service_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "prepare", Calls(Artifacts("/models/m", Path("/vocabulary"))))
    os.environ["BASE_PATH"] = "/data"

    assert invoke("prepare").exit_code == 0

    assert os.environ["HF_HOME"] == "/data/huggingface-cache/hub"


def test_prepare_fetches_the_planned_artifacts_and_prints_their_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = Calls(Artifacts("/models/m", Path("/vocabulary")))
    monkeypatch.setattr(artifacts, "prepare", prepare)
    monkeypatch.setattr(artifacts, "architecture_check", lambda _: "check")
    os.environ.update(MODEL_NAME="a/b", MODEL_REVISION="v1", GPTOSS_BENTO_CACHE="/c", TIKTOKEN_ENCODINGS_BASE="/v")

    lines = words(invoke("prepare"))

    assert prepare.made == [("a/b", "v1", Path("/c"), Path("/v"), None, None, None, "check", None)]
    assert lines == [["model", "/models/m"], ["vocabulary", "/vocabulary"]]


# build, bake, verify


def test_build_prints_the_tags_of_what_was_built(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Calls(["gptoss-bento:demo-1", "gptoss-bento:gpt-oss-20b-1"])
    monkeypatch.setattr(building, "build", build)

    lines = words(invoke("build", "demo", "gpt-oss-20b", "--platform", "cuda"))

    assert lines == [["gptoss-bento:demo-1"], ["gptoss-bento:gpt-oss-20b-1"]]
    assert build.made == [(["demo", "gpt-oss-20b"], "cuda")]


def test_bake_lists_the_content_of_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    files = (manifest.File("a", 2_000_000, "x"), manifest.File("b", 1_000_000, "y"))
    bake = Calls(Manifest((Source("a/b", "models", files, "main", "abc"),)))
    monkeypatch.setattr(baking, "bake", bake)
    os.environ.update(MODEL_NAME="a/b", GPTOSS_BENTO_CACHE="/c")

    (line,) = words(invoke("bake", "--profile", "gpt-oss-20b"))

    assert " ".join(line) == "a/b abc 2 files, 0.003 GB"
    ((settings, profile, home),) = bake.made
    assert (settings.model_name, profile.name, home) == ("a/b", "gpt-oss-20b", Path("/c/huggingface"))
    assert os.environ["HF_HOME"] == "/c/huggingface"  # before the hub's library is imported


def test_bake_needs_no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    bake = Calls(Manifest(()))
    monkeypatch.setattr(baking, "bake", bake)

    assert invoke("bake").exit_code == 0
    assert bake.made[0][1] is None


def test_verify_counts_what_is_right_and_names_what_is_wrong(tmp_path: Path) -> None:
    os.environ["GPTOSS_BENTO_CACHE"] = str(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"12345")
    assert isinstance(invoke("verify").exception, ConfigurationError)  # no manifest

    Manifest((manifest.describe("a/b", tmp_path / "model", tmp_path),)).write(tmp_path)
    assert words(invoke("verify")) == [["1", "files", "are", "as", "the", "manifest", "says"]]

    (tmp_path / "model" / "weights").write_bytes(b"1234")
    assert "weights has 4 bytes, expected 5" in str(invoke("verify").exception)


# doctor


def examined(monkeypatch: pytest.MonkeyPatch, findings: list[Finding]) -> list[Request]:
    asked: list[Request] = []

    async def examine(request: Request) -> list[Finding]:
        asked.append(request)
        return findings

    monkeypatch.setattr(examination, "examine", examine)
    return asked


def test_doctor_asks_what_the_options_select(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = examined(monkeypatch, [])

    invoke("doctor", "--profile", "gpt-oss-20b", "--port", "8080", "--offline", "--timeout", "5")

    assert asked == [Request("gpt-oss-20b", 8080, network=False, timeout_s=5.0)]


def test_doctor_checks_the_port_that_bentoml_would_bind(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = examined(monkeypatch, [])

    invoke("doctor")
    os.environ["BENTOML_PORT"] = "4000"
    invoke("doctor")

    assert [request.port for request in asked] == [None, 4000]


def test_doctor_prints_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    examined(monkeypatch, [ok("port", "3000 is free")])

    assert words(invoke("doctor"))[1] == ["port", "ok", "3000", "is", "free"]


def test_doctor_prints_json_for_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    examined(monkeypatch, [warning("open files", "limit 1,024", "Raise it.")])

    result = invoke("doctor", "--json")

    row = {"name": "open files", "severity": "warning", "found": "limit 1,024", "remedy": "Raise it."}
    assert json.loads(result.stdout) == {"exit_code": 1, "findings": [row]}
    assert result.exit_code == 1


def test_doctor_ends_with_the_exit_code_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    examined(monkeypatch, [error("port", "3000 is in use", "Choose another.", AddressInUseError)])

    assert invoke("doctor").exit_code == 71


# The console script


@pytest.mark.parametrize(("error", "exit_code"), [(ConfigurationError("wrong"), 78), (ArtifactError("gone"), 69)])
def test_errors_of_ours_become_one_line_and_their_exit_code(
    error: GptOssBentoError, exit_code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(main, "app", fail)

    with pytest.raises(SystemExit) as caught:
        main.run()

    assert caught.value.code == exit_code
    assert capsys.readouterr().err == f"gptoss-bento: {error}\n"


def test_error_in_a_command_reaches_the_console_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gptoss-bento", "plan", "--profile", "dmeo"])

    with pytest.raises(SystemExit) as caught:
        main.run()

    assert caught.value.code == 78
    assert "did you mean 'demo'" in capsys.readouterr().err


def test_server_that_does_not_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise httpx.ConnectError("All connection attempts failed")

    monkeypatch.setattr(main, "app", fail)

    with pytest.raises(SystemExit) as caught:
        main.run()

    assert caught.value.code == 1
    assert capsys.readouterr().err == (
        "gptoss-bento: the server does not answer as it should: All connection attempts failed\n"
    )


def test_errors_that_are_not_ours_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(main, "app", fail)

    with pytest.raises(ZeroDivisionError):
        main.run()
