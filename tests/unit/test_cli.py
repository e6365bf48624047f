from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from gptoss_bento import artifacts, baking, building, cli, hardware, manifest
from gptoss_bento.artifacts import Artifacts
from gptoss_bento.bench import compare as comparison
from gptoss_bento.bench import frontend, guards, servers
from gptoss_bento.bench import jobs as job_bench
from gptoss_bento.bench.compare import Shape
from gptoss_bento.bench.load import Load
from gptoss_bento.bench.report import Run
from gptoss_bento.bench.servers import Cpu, Memory, RunningServer
from gptoss_bento.bench.swarm import Heard, Route
from gptoss_bento.doctor import examination
from gptoss_bento.doctor.examination import Request
from gptoss_bento.doctor.finding import Finding, error, ok, warning
from gptoss_bento.errors import AddressInUseError, ArtifactError, ConfigurationError, GptOssBentoError, HardwareError
from gptoss_bento.manifest import Manifest, Source
from gptoss_bento.model_config import ModelConfig, unknown_config
from gptoss_bento.plan import OUTPUT_CHUNK
from tests.configs import LARGE, SMALL, folder_with
from tests.fakes import H100, L4, Calls, machine
from tests.server import REPOSITORY


@pytest.fixture(autouse=True)
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU, no variables, no hub, a wide terminal; Typer's own exception hook does not outlive the test."""
    monkeypatch.setattr(hardware, "probe", lambda _: machine())
    monkeypatch.setattr(cli, "PLAN_LIMIT_S", 0.0)
    monkeypatch.setattr(os, "environ", {"HOME": "/root"})
    monkeypatch.setattr(cli, "console", Console(width=200))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments)


def words(result: Result) -> list[list[str]]:
    """The lines of a table as lists of words."""
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.output.splitlines()]


# plan


def test_plan_prints_values_with_their_origins() -> None:
    lines = words(invoke("plan"))

    assert ["profile", "demo"] in lines
    assert ["model", "demo", "profile"] in lines
    assert ["--max-model-len", "4096", "profile"] in lines
    assert ["VLLM_CPU_KVCACHE_SPACE", "1", "tier", "cpu"] in lines


def test_plan_takes_what_the_variables_say() -> None:
    os.environ["MAX_MODEL_LEN"] = "512"

    assert ["--max-model-len", "512", "MAX_MODEL_LEN"] in words(invoke("plan"))


def test_plan_chooses_the_profile_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "probe", lambda _: machine(H100))
    os.environ["MODEL_NAME"] = "openai/gpt-oss-120b"

    lines = words(invoke("plan"))

    assert ["profile", "gpt-oss-120b"] in lines
    assert ["model", "openai/gpt-oss-120b", "MODEL_NAME"] in lines


def test_plan_tells_a_folder_by_its_config_and_needs_no_weights(tmp_path: Path) -> None:
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

    monkeypatch.setattr(cli, "finder", lambda *_: find)
    os.environ.update(MODEL_NAME="acme/tuned", BASE_PATH="/data")

    assert ["model", "size", "not", "known", "not", "there"] in words(invoke("plan", "--gpu", "h100"))
    assert asked == ["/data/huggingface-cache/hub"]


def test_plan_chooses_the_profile_that_suits_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "probe", lambda _: machine(L4))

    assert ["profile", "gpt-oss-20b"] in words(invoke("plan"))


def test_the_option_profile_wins_over_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "probe", lambda _: machine(H100))
    os.environ["PROFILE"] = "gpt-oss-20b"

    assert ["profile", "gpt-oss-120b"] in words(invoke("plan", "--profile", "gpt-oss-120b"))


def test_the_variable_profile_wins_over_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "probe", lambda _: machine(H100))
    os.environ["PROFILE"] = "demo"

    assert ["profile", "demo"] in words(invoke("plan"))


def test_the_profile_auto_leaves_the_choice_to_the_machine() -> None:
    assert ["profile", "demo"] in words(invoke("plan", "--profile", "auto"))


def test_plan_refuses_a_profile_that_does_not_fit_the_machine() -> None:
    assert isinstance(invoke("plan", "--profile", "gpt-oss-20b").exception, HardwareError)


def test_only_visible_gpus_are_planned_for(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_the_option_goal_wins_over_the_variable() -> None:
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


def test_a_refusal_is_json_too() -> None:
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
    """So that it answers at once, and where vLLM is not installed."""
    script = """
import json, sys
sys.argv = ["gptoss-bento", "plan", "--gpu", "h100x2"]
from gptoss_bento.cli import app
app(standalone_mode=False)
print(json.dumps(sorted(sys.modules)))
"""
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/root", "PYTHONPATH": str(REPOSITORY / "src")}
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 0, ended.stderr
    loaded = set(json.loads(ended.stdout.splitlines()[-1]))
    assert "gptoss_bento.plan" in loaded
    assert not loaded & {"vllm", "torch", "transformers", "openai", "bentoml", "httpx", "huggingface_hub", "pynvml"}


# prepare


def test_prepare_puts_the_model_where_the_service_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "prepare", Calls(Artifacts("/models/m", Path("/vocabulary"))))
    os.environ["BASE_PATH"] = "/data"

    assert invoke("prepare").exit_code == 0

    assert os.environ["HF_HOME"] == "/data/huggingface-cache/hub"


def test_prepare_fetches_what_is_planned_and_says_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = Calls(Artifacts("/models/m", Path("/vocabulary")))
    monkeypatch.setattr(artifacts, "prepare", prepare)
    monkeypatch.setattr(cli, "architecture_check", lambda _: "check")
    os.environ.update(MODEL_NAME="a/b", MODEL_REVISION="v1", GPTOSS_BENTO_CACHE="/c", TIKTOKEN_ENCODINGS_BASE="/v")

    lines = words(invoke("prepare"))

    assert prepare.made == [("a/b", "v1", Path("/c"), Path("/v"), None, None, None, "check")]
    assert lines == [["model", "/models/m"], ["vocabulary", "/vocabulary"]]


# build, bake, verify


def test_build_prints_the_tags_of_what_was_built(monkeypatch: pytest.MonkeyPatch) -> None:
    build = Calls(["gptoss-bento:demo-1", "gptoss-bento:gpt-oss-20b-1"])
    monkeypatch.setattr(building, "build", build)

    lines = words(invoke("build", "demo", "gpt-oss-20b", "--platform", "cuda"))

    assert lines == [["gptoss-bento:demo-1"], ["gptoss-bento:gpt-oss-20b-1"]]
    assert build.made == [(["demo", "gpt-oss-20b"], "cuda")]


def test_bake_says_what_lies_in_the_folder_now(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_doctor_asks_for_what_the_options_say(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = examined(monkeypatch, [])

    invoke("doctor", "--profile", "gpt-oss-20b", "--port", "8080", "--offline", "--timeout", "5")

    assert asked == [Request("gpt-oss-20b", 8080, network=False, timeout_s=5.0)]


def test_doctor_looks_at_the_port_that_bentoml_would_bind(monkeypatch: pytest.MonkeyPatch) -> None:
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


# bench


def run(server: str, rate: float) -> Run:
    return Run(server, 40.0, (Load(8, 24, rate, 20.0, 30.0, 5.0),), Memory(3000.0, 2500.0))


def test_bench_measures_a_server_that_runs_already(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measure = Calls(run("http://there/v1", 1234.5))
    monkeypatch.setattr(comparison, "measure_running", measure)
    output = tmp_path / "bench.json"

    result = invoke(
        "bench", "--url", "http://there/v1", "--streams", "2,8", "--max-tokens", "9", "--output", str(output)
    )

    assert measure.made == [("http://there/v1", None, Shape((2, 8), max_tokens=9))]
    assert ["output", "tokens/s,", "8", "streams", "1,234.5"] in words(result)
    assert json.loads(output.read_text())["runs"][0]["server"] == "http://there/v1"


def test_bench_measures_the_model_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measure = Calls(run("http://there/v1", 1234.5))
    monkeypatch.setattr(comparison, "measure_running", measure)

    words(invoke("bench", "--url", "http://there/v1", "--model", "m", "--output", str(tmp_path / "bench.json")))

    assert measure.made == [("http://there/v1", "m", Shape((1, 8, 32), max_tokens=64))]


def test_bench_of_a_running_server_plans_nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(comparison, "measure_running", Calls(run("http://there/v1", 1.0)))
    os.environ["PROFILE"] = "no-such-profile"

    result = invoke("bench", "--url", "http://there/v1", "--output", str(tmp_path / "bench.json"))

    assert result.exit_code == 0


@pytest.mark.parametrize("streams", ["a", "1,b", "", "1,,2", "1.5"])
def test_streams_that_are_no_numbers_are_a_usage_error(streams: str, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Calls()
    monkeypatch.setattr(comparison, "measure_running", measure)

    result = invoke("bench", "--url", "http://there/v1", "--streams", streams)

    assert result.exit_code == 2
    assert f"{streams!r} is not a list of numbers" in " ".join(result.output.replace("│", " ").split())
    assert measure.made == []


def test_bench_compares_with_bare_vllm_on_the_same_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compare = Calls(([run("gptoss-bento", 99.0)], [run("vLLM", 100.0)]))
    monkeypatch.setattr(comparison, "compare", compare)
    monkeypatch.setattr(artifacts, "prepare", Calls(Artifacts("/models/m", Path("/vocabulary"))))
    output = tmp_path / "bench.json"

    result = invoke("bench", "--runs", "2", "--output", str(output))

    ((argv, variables, name, runs, _, _),) = compare.made
    assert "--model=/models/m" in argv
    assert variables["PROFILE"] == "demo"
    assert variables["TIKTOKEN_ENCODINGS_BASE"] == "/vocabulary"
    assert variables["VLLM_NO_USAGE_STATS"] == "1"
    assert OUTPUT_CHUNK not in variables, "bare vLLM has its own"
    assert (name, runs) == ("gpt-oss-demo", 2)
    assert ["output", "tokens/s,", "8", "streams", "99.0", "100.0", "0.990"] in words(result)
    rows = {row["figure"]: row["ratio"] for row in json.loads(output.read_text())["rows"]}
    assert rows["output tokens/s, 8 streams"] == 0.99


# bench jobs


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Stands for the measurement of the jobs."""
    overhead = job_bench.Overhead(50, 100.0, 109.0, 8.5)
    latency = job_bench.Latency("/run", job_bench.QUEUED, 300, 4.0, 9.25)
    queue = job_bench.Queue(jobs=1300, completed=270, running=30, waiting=1000, purged=1000)
    calls = Calls(job_bench.Measured("http://there/v1", overhead, (latency,), queue))
    monkeypatch.setattr(job_bench, "measure", calls)
    return calls


def test_bench_jobs_measures_a_server_that_runs_already(measure: Calls, tmp_path: Path) -> None:
    os.environ["PROFILE"] = "no-such-profile"  # nothing is planned here
    output = tmp_path / "jobs.json"
    numbers = ("--pairs", "5", "--jobs", "20", "--clients", "3")

    result = invoke("bench", "jobs", "--url", "http://there/v1", "--model", "m", *numbers, "--output", str(output))

    lines = words(result)
    assert [made[:4] for made in measure.made] == [("http://there/v1", "m", job_bench.Shape(5, 20, 3), None)]
    assert ["job", "−", "chat", "request", "8.5"] in lines
    assert ["/run", "with", "the", "queue", "full", "4.0", "9.2"] in lines
    assert lines[-1][:3] == ["Of", "1,300", "jobs,"]
    assert json.loads(output.read_text())["overhead"]["difference_median_ms"] == 8.5


@pytest.mark.parametrize("variable", ["API_KEY", "VLLM_API_KEY"])
def test_bench_jobs_presents_the_first_key(variable: str, measure: Calls, tmp_path: Path) -> None:
    os.environ[variable] = "s3cret,second"

    result = invoke("bench", "jobs", "--url", "http://there/v1", "--output", str(tmp_path / "jobs.json"))

    assert measure.made[0][3] == "s3cret"
    assert "s3cret" not in result.output


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Stands for the service that is started."""
    monkeypatch.setattr(artifacts, "prepare", Calls(Artifacts("/models/m", Path("/vocabulary"))))
    running = servers.RunningServer("http://127.0.0.1:1/v1", 40.0, psutil.Process())
    calls = Calls(compute=lambda *_: nullcontext(running))
    monkeypatch.setattr(servers, "started", calls)
    return calls


def test_bench_jobs_starts_the_service_with_jobs_of_its_own_and_no_key(
    measure: Calls, started: Calls, tmp_path: Path
) -> None:
    os.environ["API_KEY"] = "s3cret"

    words(invoke("bench", "jobs", "--profile", "demo", "--output", str(tmp_path / "jobs.json")))

    ((command, variables),) = started.made
    assert command is servers.ours
    assert (variables["PROFILE"], variables["TIKTOKEN_ENCODINGS_BASE"]) == ("demo", "/vocabulary")
    assert (variables["API_KEY"], variables["VLLM_API_KEY"]) == ("", "")
    assert variables["JOB_STORE_URL"].startswith("sqlite:////")
    assert not Path(variables["JOB_STORE_URL"].removeprefix("sqlite:///")).parent.exists()
    assert measure.made[0][:4] == ("http://127.0.0.1:1/v1", None, job_bench.Shape(), None)


def test_bench_jobs_uses_the_store_that_the_operator_named(measure: Calls, started: Calls, tmp_path: Path) -> None:
    os.environ["JOB_STORE_URL"] = "postgresql+asyncpg://there/jobs"

    words(invoke("bench", "jobs", "--output", str(tmp_path / "jobs.json")))

    assert "JOB_STORE_URL" not in started.made[0][1]  # it inherits it
    assert len(measure.made) == 1


@pytest.mark.parametrize("option", ["--pairs", "--jobs", "--clients"])
def test_bench_jobs_wants_at_least_one_of_each(option: str, measure: Calls) -> None:
    assert invoke("bench", "jobs", "--url", "http://there/v1", option, "0").exit_code == 2
    assert measure.made == []


def test_options_of_bench_before_jobs_are_not_ignored(measure: Calls) -> None:
    result = invoke("bench", "--max-tokens", "9", "--url", "http://there/v1", "jobs")

    assert result.exit_code == 2
    assert "--max-tokens, --url must come after 'jobs'" in " ".join(result.output.replace("│", " ").split())
    assert measure.made == []


# The console script


@pytest.mark.parametrize(("error", "exit_code"), [(ConfigurationError("wrong"), 78), (ArtifactError("gone"), 69)])
def test_our_errors_become_one_line_and_their_exit_code(
    error: GptOssBentoError, exit_code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)

    with pytest.raises(SystemExit) as caught:
        cli.run()

    assert caught.value.code == exit_code
    assert capsys.readouterr().err == f"gptoss-bento: {error}\n"


def test_an_error_in_a_command_reaches_the_console_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gptoss-bento", "plan", "--profile", "dmeo"])

    with pytest.raises(SystemExit) as caught:
        cli.run()

    assert caught.value.code == 78
    assert "did you mean 'demo'" in capsys.readouterr().err


def test_a_server_that_does_not_answer_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise httpx.ConnectError("All connection attempts failed")

    monkeypatch.setattr(cli, "app", fail)

    with pytest.raises(SystemExit) as caught:
        cli.run()

    assert caught.value.code == 1
    assert capsys.readouterr().err == (
        "gptoss-bento: the server does not answer as it should: All connection attempts failed\n"
    )


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "app", fail)

    with pytest.raises(ZeroDivisionError):
        cli.run()


def test_a_benchmark_that_is_told_to_end_ends_the_servers_it_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def measure(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    ended: list[bool] = []

    @contextmanager
    def started(*_: object) -> Iterator[RunningServer]:
        try:
            yield RunningServer("http://127.0.0.1:1/v1", 1.0, psutil.Process())
        finally:
            ended.append(True)

    monkeypatch.setattr(artifacts, "prepare", Calls(Artifacts("/models/m", Path("/vocabulary"))))
    monkeypatch.setattr(servers, "started", started)
    monkeypatch.setattr(job_bench, "measure", measure)
    before = signal.getsignal(signal.SIGTERM)

    result = invoke("bench", "jobs", "--output", str(tmp_path / "jobs.json"))

    assert (result.exit_code, ended) == (128 + signal.SIGTERM, [True])
    assert signal.getsignal(signal.SIGTERM) is before


# bench frontend


@pytest.fixture
def frontends(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Stands for the measurement of the HTTP side."""
    heard = Heard(10.0, 14.0, 1.0, 1000, 500, [0.1, 0.3], [1.0, 3.0], [0.01])
    loads = (frontend.summarize("gptoss-bento", Route.COMPLETIONS, True, 64, heard, Cpu(0.2, 0.05), 2),)
    found = frontend.Measured(frontend.Shape(), (loads,), (loads,))

    def compare(*arguments: Any) -> frontend.Measured:
        arguments[-1](found)  # after a round
        return found

    calls = Calls(compute=compare)
    monkeypatch.setattr(artifacts, "prepare", Calls(Artifacts("/models/m", Path("/vocabulary"))))
    monkeypatch.setattr(frontend, "compare", calls)
    return calls


def test_bench_frontend_gives_both_servers_the_executor_without_a_model(frontends: Calls, tmp_path: Path) -> None:
    output = tmp_path / "frontend.json"
    numbers = ("--streams", "8,300", "--rounds", "3", "--workers", "2")

    result = invoke("bench", "frontend", "--routes", "completions,chat", *numbers, "--output", str(output))

    ((argv, variables, name, shape, _, _),) = frontends.made
    assert f"--distributed-executor-backend={frontend.EXECUTOR}" in argv
    assert os.environ["DISTRIBUTED_EXECUTOR_BACKEND"] == frontend.EXECUTOR
    assert "--max-num-seqs=300" in argv
    assert os.environ["MAX_NUM_SEQS"] == "300"
    assert (variables["PROFILE"], name) == ("demo", "gpt-oss-demo")
    assert variables["JOB_STORE_URL"].startswith("sqlite:////")
    assert shape == frontend.Shape((8, 300), (Route.COMPLETIONS, Route.CHAT), rounds=3, workers=2)
    assert "vLLM" in result.output
    assert ["output", "tokens/s,", "completions,", "64", "250.0", "250.0", "1.000"] in words(result)
    assert json.loads(output.read_text())["rows"][0]["ratio"] == 1


def test_bench_frontend_compares_with_one_worker(frontends: Calls, tmp_path: Path) -> None:
    result = invoke("bench", "frontend", "--against", "one-worker", "--output", str(tmp_path / "frontend.json"))

    assert frontends.made[0][3].against is frontend.Baseline.ONE_WORKER
    assert "one worker" in result.output


def test_bench_frontend_keeps_the_batch_that_is_set(frontends: Calls, tmp_path: Path) -> None:
    os.environ["MAX_NUM_SEQS"] = "32"

    words(invoke("bench", "frontend", "--output", str(tmp_path / "frontend.json")))

    assert "--max-num-seqs=32" in frontends.made[0][0]


@pytest.mark.usefixtures("frontends")
def test_bench_frontend_sets_the_pace_beside_what_is_set(tmp_path: Path) -> None:
    os.environ["ADDITIONAL_CONFIG"] = '{"other": 1}'

    words(invoke("bench", "frontend", "--step-ms", "20", "--output", str(tmp_path / "frontend.json")))

    assert json.loads(os.environ["ADDITIONAL_CONFIG"]) == {"other": 1, "gptoss_bento_step_ms": 20}


def test_bench_frontend_knows_two_routes(frontends: Calls) -> None:
    result = invoke("bench", "frontend", "--routes", "completions,responses")

    assert result.exit_code == 2
    assert "is not completions, chat, or both" in " ".join(result.output.replace("│", " ").split())
    assert frontends.made == []


# bench guards


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Stands for the measurement of keys and admission."""
    found = guards.Measured(guards.Shape(), guards.Side((2.5,)), guards.Side((2.25,)))

    def measure(*arguments: Any) -> guards.Measured:
        arguments[-1](found)  # after a round
        return found

    calls = Calls(compute=measure)
    monkeypatch.setattr(artifacts, "prepare", Calls(Artifacts("/models/m", Path("/vocabulary"))))
    monkeypatch.setattr(guards, "measure", calls)
    return calls


def test_bench_guards_serves_no_model_and_prints_what_the_guards_add(guarded: Calls, tmp_path: Path) -> None:
    output = tmp_path / "guards.json"

    result = invoke("bench", "guards", "--pairs", "7", "--streams", "8", "--rounds", "3", "--output", str(output))

    ((variables, name, shape, _, _),) = guarded.made
    assert os.environ["DISTRIBUTED_EXECUTOR_BACKEND"] == frontend.EXECUTOR
    assert (variables["PROFILE"], variables["API_WORKERS"], name) == ("demo", "1", "gpt-oss-demo")
    assert variables["JOB_STORE_URL"].startswith("sqlite:////")
    assert shape == guards.Shape(pairs=7, streams=8, rounds=3)
    assert [
        *["first", "token,", "ms,", "1", "stream", "2.50", "2.25", "0.250", "ms", "0.250", "ms", "0.250", "ms"]
    ] in words(result)
    assert json.loads(output.read_text())["rows"][0]["change"]["value"] == 0.25


@pytest.mark.usefixtures("guarded")
def test_bench_guards_with_the_model_leaves_the_executor_alone(tmp_path: Path) -> None:
    words(invoke("bench", "guards", "--with-model", "--output", str(tmp_path / "guards.json")))

    assert "DISTRIBUTED_EXECUTOR_BACKEND" not in os.environ
