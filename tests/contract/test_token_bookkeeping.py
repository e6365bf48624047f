"""The scheduler that takes a plain token in one call answers with the very tokens and ends that vLLM's own has."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.sampling_params import RepetitionDetectionParams

from gptoss_bento.engine.vllm_plugin import patches, token_bookkeeping
from tests.fakes import Calls
from tests.vllm_scheduler import BLOCK_SIZE, SimulatedEngine, spared

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]

REQUESTS = st.lists(
    st.fixed_dictionaries(
        {"prompt": st.integers(1, 120), "max_tokens": st.integers(1, 100)},
        optional={
            "ignore_eos": st.booleans(),
            "stop_token_ids": st.lists(st.integers(0, 60), max_size=3),
            "min_tokens": st.integers(0, 1),
            "repetition_detection": st.just(
                RepetitionDetectionParams(max_pattern_size=40, min_pattern_size=40, min_count=2)
            ),
        },
    ),
    min_size=1,
    max_size=8,
)


def run(requests: list[dict[str, Any]], engine: SimulatedEngine) -> list[Any]:
    """What came out of each step, and what the scheduler knew of each request after it."""
    for i, given_ in enumerate(requests):
        others = {name: value for name, value in given_.items() if name not in ("prompt", "max_tokens")}
        engine.add(f"r{i}", [(i * 997 + k) % 5000 for k in range(given_["prompt"])], given_["max_tokens"], **others)
    seen: list[Any] = []
    while engine.busy:
        engine.schedule()
        if (ended := engine.ended()) is None:
            continue
        outputs = engine.scheduler.update_from_output(*ended)
        came = [
            (o.request_id, o.new_token_ids, o.finish_reason, o.stop_reason) for e in outputs.values() for o in e.outputs
        ]
        known = [
            (r.request_id, r.status, r.num_output_placeholders, list(r.all_token_ids), list(r.block_hashes))
            for r in engine.scheduler.requests.values()
        ]
        seen.append((came, known, engine.blocks_in_use()))
    return seen


@settings(max_examples=40)
@given(REQUESTS, st.integers(40, 200), st.booleans())
def test_answers_are_those_of_vllm_alone(requests: list[dict[str, Any]], blocks: int, caching: bool) -> None:
    """Few blocks, so that requests are preempted while tokens of theirs are on their way."""
    expected = run(requests, SimulatedEngine(blocks, prefix_caching=caching))
    with spared():
        assert run(requests, SimulatedEngine(blocks, prefix_caching=caching)) == expected


@pytest.mark.parametrize(
    ("others", "length", "reason"),
    [
        ({}, 100, None),
        ({"stop_token_ids": [33, 12]}, 13, 12),
        ({"ignore_eos": False}, 20, None),
        ({"ignore_eos": False, "stop_token_ids": [30]}, 20, None),
    ],
    ids=["length", "stop token", "end token", "the first of two"],
)
def test_answer_ends_as_its_parameters_say(others: dict[str, Any], length: int, reason: int | None) -> None:
    with spared():
        steps = run([{"prompt": 30, "max_tokens": 100, **others}], SimulatedEngine(200))
    came = [output for outputs, _, _ in steps for output in outputs]
    assert [token for _, tokens, _, _ in came for token in tokens] == [number % 40 for number in range(length)]
    assert came[-1][2] is not None
    assert came[-1][3] == reason


def test_vllm_takes_the_last_token_alone() -> None:
    with spared():
        engine = SimulatedEngine(1000)
        engine.add("r", list(range(50)), 10 * BLOCK_SIZE)
        request = engine.scheduler.requests["r"]
        appended = Calls(compute=request.append_output_token_ids)
        request.append_output_token_ids = appended
        steps = sum(1 for _ in engine.steps())

    assert steps > 10 * BLOCK_SIZE
    assert len(appended.made) == 1


def test_code_that_is_not_known_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(token_bookkeeping, "_KNOWN", {**token_bookkeeping._KNOWN, "check_stop": "another"})
    before = patches.UPDATE_REQUEST.original()

    assert not token_bookkeeping.install(logging.getLogger("gptoss_bento"))

    assert patches.UPDATE_REQUEST.original() is before
    assert "does not know: check_stop" in caplog.text
