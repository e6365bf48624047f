from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from gptoss_bento.artifacts import prepare
from gptoss_bento.artifacts.prepare import Artifacts
from gptoss_bento.bench import compare, random_weights
from gptoss_bento.bench.baselines import Candidate
from gptoss_bento.bench.compare import FirstLoads, Shape
from gptoss_bento.bench.random_weights import Size
from gptoss_bento.bench.report import Comparison
from gptoss_bento.bench.token_load import Lengths, TokenLoad
from gptoss_bento.errors import BenchmarkError, ConfigurationError
from gptoss_bento.hardware import probe
from gptoss_bento.planning.process_variables import OUTPUT_CHUNK
from tests.fakes import H200, Calls, machine
from tests.unit.bench.measured import comparison, figures
from tests.unit.command_line import invoke, words

pytestmark = pytest.mark.usefixtures("plain_machine")

URL = ("--url", "http://there/v1")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "bench.json"


class Measurement:
    """A fake of a function of compare.py: keeps its arguments, and reports `found` as after the last load."""

    def __init__(self, found: Comparison) -> None:
        self.found = found
        self.made: list[tuple[Any, ...]] = []

    def __call__(self, *arguments: Any) -> Comparison:
        self.made.append(arguments)
        next(each for each in arguments if getattr(each, "__name__", "") == "keep")(self.found)
        return self.found

    @property
    def shape(self) -> Shape:
        """What was asked for."""
        (shape,) = (each for each in self.made[-1] if isinstance(each, Shape))
        return shape


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Measurement:
    """A fake of the measurement of servers that run already."""
    found = Measurement(comparison())
    monkeypatch.setattr(compare, "measure_running", found)
    return found


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Measurement]:
    """A fake of the measurement of servers that are started."""
    found = {name: Measurement(comparison()) for name in ("compare_together", "compare_apart")}
    for name, measurement in found.items():
        monkeypatch.setattr(compare, name, measurement)
    monkeypatch.setattr(prepare, "prepare", Calls(Artifacts("/models/m", Path("/vocabulary"))))
    return found


def spoken(text: str) -> str:
    """What a usage error says, without its frame."""
    return " ".join(text.replace("│", " ").split())


# Servers that run already


def test_running_server_is_measured_once_without_a_plan(running: Measurement, output: Path) -> None:
    os.environ["PROFILE"] = "no-such-profile"

    result = invoke("bench", *URL, "--streams", "2,8", "--max-tokens", "9", "--clients", "3", "--output", str(output))

    assert running.made[0][:2] == ({"http://there/v1": "http://there/v1"}, None)
    lengths = Lengths(48, 9, 0.5)
    assert running.shape == Shape((TokenLoad(2, 24, lengths), TokenLoad(8, 40, lengths)), rounds=1, clients=3)
    assert ["Output", "token", "throughput", "(tok/s)", "299.50", "150.00", "1.997"] in words(result)
    content = json.loads(output.read_text())
    assert (content["loads"][0]["server"], content["loads"][0]["output_throughput"]) == ("gptoss-bento", 300)
    assert content["shape"]["loads"][0]["streams"] == 2
    assert content["machine"].startswith("no GPU")


def test_running_servers_have_names(running: Measurement, output: Path) -> None:
    urls = ("--url", "ours=http://a:1/v1/", "--url", "vllm serve=http://b:2/v1")

    words(invoke("bench", *urls, "--model", "m", "--runs", "2", "--output", str(output)))

    assert running.made[0][:2] == ({"ours": "http://a:1/v1", "vllm serve": "http://b:2/v1"}, "m")
    assert running.shape.rounds == 2


def test_servers_of_the_same_name_are_a_usage_error(running: Measurement) -> None:
    result = invoke("bench", "--url", "a=http://b/v1", "--url", "a=http://c/v1")

    assert (result.exit_code, running.made) == (2, [])


# What is asked


def test_lengths_get_all_streams_or_their_own(running: Measurement, output: Path) -> None:
    options = ("--streams", "1,16", "--lengths", "128:256,1024:1024@512+1024", "--requests-per-stream", "2")

    words(invoke("bench", *URL, *options, "--least-requests", "4", "--output", str(output)))

    short, long = Lengths(128, 256), Lengths(1024, 1024)
    assert running.shape.loads == (
        *(TokenLoad(1, 4, short), TokenLoad(16, 32, short)),
        *(TokenLoad(512, 1024, long), TokenLoad(1024, 2048, long)),
    )


def test_first_loads_have_one_request_a_stream_and_the_first_lengths(running: Measurement, output: Path) -> None:
    options = ("--lengths", "128:256,8:8", "--first-load", "64", "--first-load-times", "5")

    words(invoke("bench", *URL, *options, "--output", str(output)))

    assert running.shape.first == FirstLoads(TokenLoad(64, 64, Lengths(128, 256)), 5)


def test_percentiles_connections_and_seed_are_passed_on(running: Measurement, output: Path) -> None:
    options = ("--percentiles", "50,99.9", "--new-connections", "--seed", "7")

    words(invoke("bench", *URL, *options, "--output", str(output)))

    assert (running.shape.percentiles, running.shape.new_connections, running.shape.seed) == ((50, 99.9), True, 7)


def test_clients_are_half_of_the_cores(running: Measurement, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for cores in (None, 1, 2, 12, 192):
        monkeypatch.setattr(psutil, "cpu_count", lambda cores=cores: cores)
        words(invoke("bench", *URL, "--output", str(output)))
        found.append(running.shape.clients)

    assert found == [1, 1, 1, 6, 8]


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        *(("--streams", streams, "is not a list of numbers") for streams in ("a", "1,b", "", "1,,2", "1.5", "0")),
        *(("--lengths", pair, "is not tokens in") for pair in ("128", "128:", "0:5", "1:2:3", "a:b", "8:8,", "-1:8")),
        ("--lengths", "8:8@0", "is not a list of numbers"),
        ("--percentiles", "50,101", "is not a list of percentiles"),
        ("--percentiles", "median", "is not a list of percentiles"),
        ("--percentile-metrics", "ttft,speed", "'speed' is not one of ttft, tpot, itl, e2el"),
    ],
)
def test_lists_that_cannot_be_read_are_usage_errors(
    option: str, value: str, error: str, running: Measurement, output: Path
) -> None:
    result = invoke("bench", *URL, option, value, "--output", str(output))

    assert result.exit_code == 2
    assert error in spoken(result.output)
    assert running.made == []


def test_options_before_another_benchmark_are_not_ignored() -> None:
    result = invoke("bench", "--max-tokens", "9", "--lengths", "8:8", "jobs")

    assert result.exit_code == 2
    assert "--max-tokens, --lengths must come after 'jobs'" in spoken(result.output)


# What comes out


def test_latencies_to_print_are_chosen(running: Measurement, output: Path) -> None:
    result = invoke("bench", *URL, "--percentile-metrics", "tpot", "--output", str(output))

    assert "1st load: Median TTFT (ms)" in result.output
    assert "P99 TTFT (ms)" not in result.output.replace("load: P99 TTFT (ms)", "")
    assert running.made


def test_chart_is_written_beside_the_figures(running: Measurement, output: Path, tmp_path: Path) -> None:
    chart = tmp_path / "bench.svg"

    words(invoke("bench", *URL, "--output", str(output), "--chart", str(chart)))

    assert chart.read_text().startswith("<svg ")
    assert running.made


def test_failed_requests_end_with_an_error_and_leave_the_figures(running: Measurement, output: Path) -> None:
    running.found = Comparison(("there",), (99.0,), loads=(figures("there", failed=2),))

    result = invoke("bench", *URL, "--output", str(output))

    assert isinstance(result.exception, BenchmarkError)
    assert "warning: 2 requests failed: no room" in result.output
    assert json.loads(output.read_text())["failed_requests"] == 2


def test_server_that_was_left_out_ends_with_an_error(running: Measurement, output: Path) -> None:
    running.found = Comparison(("ours", "vllm serve"), (99.0,), failures=("vllm serve: it ended",))

    result = invoke("bench", *URL, "--output", str(output))

    assert isinstance(result.exception, BenchmarkError)
    assert "vllm serve: it ended" in result.output


# Servers that are started


def names(candidates: Sequence[Candidate]) -> list[str]:
    return [each.name for each in candidates]


def arguments(candidate: Candidate) -> list[str]:
    return list(candidate.command(3000))


def test_vllm_on_the_same_arguments_is_started_in_turn_by_default(
    started: dict[str, Measurement], output: Path
) -> None:
    words(invoke("bench", "--output", str(output)))

    ((servers, name, shape, _, _, logs),) = started["compare_apart"].made
    ours, bare = servers
    assert (names(servers), name, shape.rounds, logs) == (["gptoss-bento", "vLLM"], "gpt-oss-demo", 3, None)
    assert "--model=/models/m" in arguments(bare)
    assert ours.variables["PROFILE"] == "demo"
    assert ours.variables["TIKTOKEN_ENCODINGS_BASE"] == "/vocabulary"
    assert OUTPUT_CHUNK not in bare.variables, "bare vLLM has its own"
    assert [load.streams for load in shape.loads] == [1, 8, 32]


def test_baselines_can_be_up_together(started: dict[str, Measurement], output: Path, tmp_path: Path) -> None:
    os.environ["API_WORKERS"] = "2"
    against = ("--against", "vllm-serve", "--against", "vllm-serve-api-servers")

    words(invoke("bench", *against, "--together", "--logs", str(tmp_path / "logs"), "--output", str(output)))

    ((servers, *_, logs),) = started["compare_together"].made
    assert names(servers) == ["gptoss-bento", "vllm serve", "vllm serve, 2 API servers"]
    assert logs.is_dir()


def test_unknown_baseline_is_a_usage_error(started: dict[str, Measurement], output: Path) -> None:
    result = invoke("bench", "--against", "vlm", "--output", str(output))

    assert result.exit_code == 2
    assert "vllm-same-arguments, vllm-serve, vllm-serve-api-servers, got vlm" in spoken(result.output)
    assert started["compare_apart"].made == []


def test_memory_share_is_for_each_server_and_all_are_up_together(
    started: dict[str, Measurement], output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "probe", lambda _: machine(H200))

    words(invoke("bench", "--profile", "gpt-oss-20b", "--memory-share", "0.3", "--output", str(output)))

    ((servers, *_),) = started["compare_together"].made
    assert "--gpu-memory-utilization=0.3" in arguments(servers[1])
    assert os.environ["GPU_MEMORY_UTILIZATION"] == "0.3", "our service inherits it"


@pytest.mark.parametrize(
    ("share", "said", "error"),
    [
        ("0.5", "", "--memory-share is 0.5, but 2 servers can have 0.48 each at most"),
        ("0.3", "0.9", "GPU_MEMORY_UTILIZATION is 0.9, --memory-share 0.3"),
    ],
)
def test_memory_share_that_cannot_be_is_refused(
    share: str, said: str, error: str, started: dict[str, Measurement], output: Path
) -> None:
    os.environ["GPU_MEMORY_UTILIZATION"] = said

    result = invoke("bench", "--memory-share", share, "--output", str(output))

    assert isinstance(result.exception, ConfigurationError)
    assert error in str(result.exception)
    assert started["compare_together"].made == []


# Random weights


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake of the model without weights."""
    found = tmp_path / "random-20b"
    found.mkdir()
    (found / "config.json").write_text(json.dumps(random_weights.config(Size.SMALL)))
    monkeypatch.setattr(prepare, "find_vocabulary", Calls(Path("/vocabulary/o200k_base.tiktoken")))
    monkeypatch.setattr(random_weights, "make", Calls(found))
    monkeypatch.setattr(probe, "probe", lambda _: machine(H200))
    return found


def test_random_weights_are_served_by_the_profile_of_their_size(
    folder: Path, started: dict[str, Measurement], output: Path
) -> None:
    words(invoke("bench", "--random-weights", "20b", "--against", "vllm-serve", "--output", str(output)))

    ((servers, name, *_),) = started["compare_apart"].made
    assert servers[0].variables["PROFILE"] == "gpt-oss-20b"
    assert (os.environ["MODEL_NAME"], os.environ["LOAD_FORMAT"]) == (str(folder), "dummy")
    assert name == "openai/gpt-oss-20b"
    assert arguments(servers[1])[3:8] == [
        *("serve", "/models/m", "--served-model-name", "openai/gpt-oss-20b", "--load-format=dummy")
    ]


@pytest.mark.parametrize(("variable", "value"), [("MODEL_NAME", "openai/gpt-oss-20b"), ("LOAD_FORMAT", "auto")])
@pytest.mark.usefixtures("folder")
def test_random_weights_do_not_overrule_a_variable(
    variable: str, value: str, started: dict[str, Measurement], output: Path
) -> None:
    os.environ[variable] = value

    result = invoke("bench", "--random-weights", "20b", "--output", str(output))

    assert isinstance(result.exception, ConfigurationError)
    assert f"{variable} is '{value}', but --random-weights sets it" in str(result.exception)
    assert started["compare_apart"].made == []


def test_model_without_weights_can_be_made_alone(folder: Path) -> None:
    assert invoke("bench", "model", "20b").output == f"{folder}\n"


def test_model_without_weights_is_one_of_two() -> None:
    assert invoke("bench", "model", "70b").exit_code == 2
