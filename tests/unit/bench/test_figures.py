from __future__ import annotations

from array import array

import pytest

from gptoss_bento.bench.compilations import Compilations
from gptoss_bento.bench.figures import Figures, keys, label, percentile, summarize
from gptoss_bento.bench.token_load import Answers, Lengths, Sample, TokenLoad

LOAD = TokenLoad(2, 3, Lengths(128, 11))


def answers() -> Answers:
    samples = [Sample(0.1, 1.1, 11), Sample(0.3, 1.3, 11), Sample(0.2, 3.2, 31)]
    return Answers(10.0, 14.0, 2.0, 0.01, samples, array("d", [0.1, 0.2, 0.3]), 1, ["no room"])


def summary(found: Answers | None = None) -> Figures:
    return summarize("ours", 1, LOAD, found or answers(), (50, 99.9), 8, Compilations(5, 1.5))


def test_throughputs_are_over_the_whole_time() -> None:
    values = summary().values

    assert values["request_throughput"] == 3 / 4
    assert values["output_throughput"] == 53 / 4
    assert values["total_token_throughput"] == (53 + 3 * 128) / 4


def test_latencies_have_the_names_of_vllms_results() -> None:
    values = summary().values

    assert values["mean_ttft_ms"] == pytest.approx(200)
    assert values["median_tpot_ms"] == values["p50_tpot_ms"] == pytest.approx(100)
    assert values["median_itl_ms"] == pytest.approx(200)
    assert values["p99.9_e2el_ms"] == pytest.approx(1300 + 0.998 * 1900)


def test_answer_of_one_token_has_no_time_per_token() -> None:
    values = summary(Answers(1.0, 2.0, samples=[Sample(0.5, 0.5, 1)])).values

    assert values["mean_ttft_ms"] == 500
    assert "mean_tpot_ms" not in values
    assert "mean_itl_ms" not in values


def test_load_without_an_answer_has_throughputs_of_zero() -> None:
    found = summary(Answers(1.0, 2.0, failed=3))

    assert found.values == {"request_throughput": 0, "output_throughput": 0, "total_token_throughput": 0}
    assert (found.completed, found.failed) == (0, 3)


def test_client_load_is_that_of_the_processes_that_had_streams() -> None:
    assert summary().client_busy == 2.0 / 4.0 / 2


def test_json_has_the_values_beside_the_rest() -> None:
    content = summary().as_json()

    assert content["output_throughput"] == 53 / 4
    assert (content["server"], content["streams"], content["max_concurrency"]) == ("ours", 2, 2)
    assert (content["compilations"], content["compilation_s"], content["errors"]) == (5, 1.5, ("no room",))
    assert "values" not in content


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 2.5), (99, 3.97), (100, 4)])
def test_percentile_is_linear_between_two_values(percent: float, value: float) -> None:
    assert percentile([1, 2, 3, 4], percent) == pytest.approx(value)


def test_keys_follow_the_order_of_vllms_report_and_p50_is_the_median() -> None:
    assert keys(["ttft"], [50, 99]) == [
        *["request_throughput", "output_throughput", "total_token_throughput"],
        *["mean_ttft_ms", "median_ttft_ms", "p99_ttft_ms"],
    ]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("output_throughput", "Output token throughput (tok/s)"),
        ("median_ttft_ms", "Median TTFT (ms)"),
        ("p99.9_itl_ms", "P99.9 ITL (ms)"),
        ("mean_e2el_ms", "Mean E2EL (ms)"),
    ],
)
def test_labels_are_those_of_vllms_report(key: str, text: str) -> None:
    assert label(key) == text
