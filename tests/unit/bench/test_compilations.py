from __future__ import annotations

import httpx
import pytest

from gptoss_bento.bench import compilations
from gptoss_bento.bench.compilations import Compilations

METRICS = """# HELP gptoss_bento_jit_compilations_total Kernels.
# TYPE gptoss_bento_jit_compilations_total counter
gptoss_bento_jit_compilations_total{phase="start"} 3.0
gptoss_bento_jit_compilations_total{phase="serving"} 4.0
gptoss_bento_jit_compilations_created{phase="start"} 1.7e+09
# TYPE gptoss_bento_jit_compilation_seconds_total counter
gptoss_bento_jit_compilation_seconds_total{phase="start"} 1.5
gptoss_bento_jit_compilation_seconds_total{phase="serving"} 0.25
# TYPE vllm:prompt_tokens counter
vllm:prompt_tokens_total{engine="0"} 100.0
"""


def test_count_is_the_sum_over_labels() -> None:
    assert compilations.counted(METRICS) == Compilations(7, 1.75)


def test_counter_of_vllm_is_known_too() -> None:
    text = '# TYPE vllm:jit_events counter\nvllm:jit_events_total{engine="0"} 2.0\n'

    assert compilations.counted(text) == Compilations(2, 0.0)


@pytest.mark.parametrize("text", ["", "vllm:prompt_tokens_total 1.0\n", "<html>{no metrics"])
def test_count_of_other_texts_is_unknown(text: str) -> None:
    assert compilations.counted(text) is None


def test_metrics_are_asked_for_beside_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def get(url: str, **_: object) -> httpx.Response:
        asked.append(url)
        return httpx.Response(200, text=METRICS)

    monkeypatch.setattr(httpx, "get", get)

    assert compilations.count("http://there:3000/v1") == Compilations(7, 1.75)
    assert asked == ["http://there:3000/metrics"]


def test_count_of_a_server_that_refuses_or_is_gone_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpx, "get", lambda *_, **__: httpx.Response(401, text=METRICS))
    assert compilations.count("http://there/v1") is None

    def fail(*_: object, **__: object) -> httpx.Response:
        raise httpx.ConnectError("gone")

    monkeypatch.setattr(httpx, "get", fail)
    assert compilations.count("http://there/v1") is None


def test_compilations_of_a_call_are_the_difference_of_two_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([Compilations(3, 1.0), Compilations(5, 1.25)])
    monkeypatch.setattr(compilations, "count", lambda *_: next(counts))
    monkeypatch.setattr(compilations, "_SETTLE_S", 0.0)

    assert compilations.during("http://there/v1", lambda: "result") == ("result", Compilations(2, 0.25))


@pytest.mark.parametrize("counts", [(None,), (Compilations(1, 0.0), None)])
def test_compilations_of_a_call_are_unknown_if_one_count_is(
    counts: tuple[Compilations | None, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter(counts)
    monkeypatch.setattr(compilations, "count", lambda *_: next(found))
    monkeypatch.setattr(compilations, "_SETTLE_S", 0.0)

    assert compilations.during("http://there/v1", lambda: "result") == ("result", None)
