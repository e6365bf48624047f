from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest

from gptoss_bento.artifacts import prepare
from gptoss_bento.artifacts.prepare import Artifacts
from gptoss_bento.bench import frontend, guards, servers, storing, two_ways
from gptoss_bento.bench import jobs as job_bench
from gptoss_bento.bench.checkout import Checkout
from gptoss_bento.bench.servers import Cpu, RunningServer
from gptoss_bento.bench.swarm import Route, Timings
from gptoss_bento.errors import ConfigurationError
from tests.fakes import Calls
from tests.server import REPOSITORY
from tests.unit.command_line import invoke, words

pytestmark = pytest.mark.usefixtures("plain_machine")


# bench jobs


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A fake of the measurement of the jobs."""
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
    """A fake of the service that is started."""
    monkeypatch.setattr(prepare, "prepare", Calls(Artifacts("/models/m", Path("/vocabulary"))))
    running = servers.RunningServer("http://127.0.0.1:1/v1", 40.0, psutil.Process())
    calls = Calls(compute=lambda *_: nullcontext(running))
    monkeypatch.setattr(servers, "started", calls)
    return calls


def test_bench_jobs_starts_the_service_with_separate_jobs_and_no_key(
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


def test_benchmark_ends_its_servers_at_sigterm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def measure(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    ended: list[bool] = []

    @contextmanager
    def started(*_: object) -> Iterator[RunningServer]:
        try:
            yield RunningServer("http://127.0.0.1:1/v1", 1.0, psutil.Process())
        finally:
            ended.append(True)

    monkeypatch.setattr(prepare, "prepare", Calls(Artifacts("/models/m", Path("/vocabulary"))))
    monkeypatch.setattr(servers, "started", started)
    monkeypatch.setattr(job_bench, "measure", measure)
    before = signal.getsignal(signal.SIGTERM)

    result = invoke("bench", "jobs", "--output", str(tmp_path / "jobs.json"))

    assert (result.exit_code, ended) == (128 + signal.SIGTERM, [True])
    assert signal.getsignal(signal.SIGTERM) is before


# bench frontend


@pytest.fixture
def measurements(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """A fake of what `frontend`, `guards` and `storing` measure: each returns it after a round, and at the end."""
    timings = Timings(10.0, 14.0, 1.0, 1000, 500, [0.1, 0.3], [1.0, 3.0], [0.01])
    loads = (frontend.summarize("gptoss-bento", Route.COMPLETIONS, True, 64, timings, Cpu(0.2, 0.05), 2),)
    found = {
        frontend.Shape: frontend.Measured(frontend.Shape(), (loads,), (loads,)),
        two_ways.Shape: two_ways.Measured(two_ways.Shape(), two_ways.Side((2.5,)), two_ways.Side((2.25,))),
    }

    def measure(*arguments: Any) -> Any:
        *_, shape, _tell, keep = arguments
        keep(found[type(shape)])
        return found[type(shape)]

    calls = Calls(compute=measure)
    monkeypatch.setattr(prepare, "prepare", Calls(Artifacts("/models/m", Path("/vocabulary"))))
    monkeypatch.setattr(frontend, "compare", calls)
    monkeypatch.setattr(guards, "measure", calls)
    monkeypatch.setattr(storing, "measure", calls)
    return calls


def test_bench_frontend_starts_both_servers_with_the_executor_without_a_model(
    measurements: Calls, tmp_path: Path
) -> None:
    output = tmp_path / "frontend.json"
    numbers = ("--streams", "8,300", "--rounds", "3", "--workers", "2")

    result = invoke("bench", "frontend", "--routes", "completions,chat", *numbers, "--output", str(output))

    ((argv, variables, name, shape, _, _),) = measurements.made
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


def test_bench_frontend_compares_with_one_worker(measurements: Calls, tmp_path: Path) -> None:
    result = invoke("bench", "frontend", "--against", "one-worker", "--output", str(tmp_path / "frontend.json"))

    assert measurements.made[0][3].against is frontend.Baseline.ONE_WORKER
    assert "one worker" in result.output


def test_bench_frontend_compares_with_another_checkout(
    measurements: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(REPOSITORY / "docs")

    words(invoke("bench", "frontend", "--against", "..", "--output", str(tmp_path / "frontend.json")))

    assert measurements.made[0][3].against == Checkout(REPOSITORY)


def test_bench_frontend_refuses_a_folder_that_is_no_checkout(measurements: Calls, tmp_path: Path) -> None:
    (tmp_path / "service.py").touch()

    result = invoke("bench", "frontend", "--against", str(tmp_path))

    said = " ".join(result.output.replace("│", " ").split())
    assert (result.exit_code, measurements.made) == (2, [])
    assert "is not vllm or one-worker, nor the folder of a checkout of this project" in said
    assert "it has no src/gptoss_bento/__main__.py, src/gptoss_bento/bench/instant_executor.py." in said


def test_bench_frontend_keeps_another_checkout_away_from_a_job_store_that_is_set(measurements: Calls) -> None:
    os.environ["JOB_STORE_URL"] = "postgresql+asyncpg://there/jobs"

    result = invoke("bench", "frontend", "--against", str(REPOSITORY))

    assert (result.exit_code, measurements.made) == (1, [])
    assert isinstance(result.exception, ConfigurationError)
    assert "JOB_STORE_URL is set" in str(result.exception)


def test_bench_frontend_keeps_the_batch_that_is_set(measurements: Calls, tmp_path: Path) -> None:
    os.environ["MAX_NUM_SEQS"] = "32"

    words(invoke("bench", "frontend", "--output", str(tmp_path / "frontend.json")))

    assert "--max-num-seqs=32" in measurements.made[0][0]


@pytest.mark.usefixtures("measurements")
def test_bench_frontend_sets_the_pace_beside_what_is_set(tmp_path: Path) -> None:
    os.environ["ADDITIONAL_CONFIG"] = '{"other": 1}'

    words(invoke("bench", "frontend", "--step-ms", "20", "--output", str(tmp_path / "frontend.json")))

    assert json.loads(os.environ["ADDITIONAL_CONFIG"]) == {"other": 1, "gptoss_bento_step_ms": 20}


def test_bench_frontend_knows_two_routes(measurements: Calls) -> None:
    result = invoke("bench", "frontend", "--routes", "completions,responses")

    assert result.exit_code == 2
    assert "is not completions, chat, or both" in " ".join(result.output.replace("│", " ").split())
    assert measurements.made == []


# bench guards


def test_bench_guards_serves_no_model_and_prints_what_the_guards_add(measurements: Calls, tmp_path: Path) -> None:
    output = tmp_path / "guards.json"

    result = invoke("bench", "guards", "--pairs", "7", "--streams", "8", "--rounds", "3", "--output", str(output))

    ((variables, name, shape, _, _),) = measurements.made
    assert os.environ["DISTRIBUTED_EXECUTOR_BACKEND"] == frontend.EXECUTOR
    assert (variables["PROFILE"], variables["API_WORKERS"], name) == ("demo", "1", "gpt-oss-demo")
    assert variables["JOB_STORE_URL"].startswith("sqlite:////")
    assert shape == two_ways.Shape(pairs=7, streams=8, rounds=3)
    assert [
        *["first", "token,", "ms,", "1", "stream", "2.50", "2.25", "0.250", "ms", "0.250", "ms", "0.250", "ms"]
    ] in words(result)
    assert json.loads(output.read_text())["rows"][0]["change"]["value"] == 0.25


# bench storing


def test_bench_storing_serves_the_model_and_prints_what_storing_adds(measurements: Calls, tmp_path: Path) -> None:
    output = tmp_path / "storing.json"

    result = invoke("bench", "storing", "--pairs", "7", "--output", str(output))

    ((variables, _, shape, _, _),) = measurements.made
    assert "DISTRIBUTED_EXECUTOR_BACKEND" not in os.environ
    assert variables["JOB_STORE_URL"].startswith("sqlite:////")
    assert (shape.pairs, shape.streams, shape.first_tokens) == (7, 16, 8)
    assert ["figure", "stored", "not", "stored", "change", "95", "%", "from", "to"] in words(result)
    assert json.loads(output.read_text())["rows"][0]["change"]["value"] == 0.25


@pytest.mark.usefixtures("measurements")
def test_bench_guards_with_the_model_leaves_the_executor_alone(tmp_path: Path) -> None:
    words(invoke("bench", "guards", "--with-model", "--output", str(tmp_path / "guards.json")))

    assert "DISTRIBUTED_EXECUTOR_BACKEND" not in os.environ
