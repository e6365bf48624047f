"""The scheduler that is spared some bookkeeping allocates, frees and caches the very blocks that vLLM's own does."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptoss_bento.engine.vllm_plugin import block_bookkeeping, patches
from tests.fakes import Calls
from tests.vllm_scheduler import BLOCK_SIZE, SimulatedEngine, spared

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]


@dataclass(frozen=True)
class Arrival:
    """A request, the step in which it comes, and the one in which its client leaves, if it does."""

    step: int
    prompt: int
    answer: int
    shared: int
    leaves: int | None


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        step=st.integers(0, 60),
        prompt=st.integers(1, 400),
        answer=st.integers(1, 200),
        shared=st.integers(0, 300),
        leaves=st.none() | st.integers(0, 150),
    ),
    min_size=1,
    max_size=12,
)


def run(arrivals: list[Arrival], engine: SimulatedEngine) -> list[Any]:
    """What was scheduled and which blocks were whose, after each step."""
    seen: list[Any] = []
    for number in range(300):
        for i, it in enumerate(arrivals):
            if it.step == number:
                own = [(i * 997 + k) % 5000 for k in range(it.prompt)]
                engine.add(f"r{i}", [*range(min(it.shared, it.prompt)), *own[min(it.shared, it.prompt) :]], it.answer)
            if it.leaves is not None and it.step + it.leaves == number:
                engine.abort(f"r{i}")
        if not engine.busy:
            continue
        output = engine.schedule()
        tokens = None
        if (ended := engine.ended()) is not None:
            outputs = engine.scheduler.update_from_output(*ended)
            tokens = [(o.request_id, o.new_token_ids) for each in outputs.values() for o in each.outputs]
        seen.append((output.num_scheduled_tokens, output.preempted_req_ids, tokens, engine.blocks_in_use()))
    return seen


@settings(max_examples=40)
@given(ARRIVALS, st.integers(60, 200), st.sampled_from([64, 2048]), st.booleans())
def test_blocks_are_those_of_vllm_alone(arrivals: list[Arrival], blocks: int, batch: int, caching: bool) -> None:
    """With few blocks requests are preempted, with 64 tokens a step prompts come in chunks."""
    expected = run(arrivals, SimulatedEngine(blocks, batch, caching))
    with spared():
        assert run(arrivals, SimulatedEngine(blocks, batch, caching)) == expected


def test_request_that_was_preempted_is_looked_at_in_full() -> None:
    """Four requests grow to 30 blocks each, of 60: some are preempted, and find their blocks by the prefix later."""
    arrivals = [Arrival(0, 20, 300, 0, None)] * 4
    expected = run(arrivals, SimulatedEngine(60))
    assert any(preempted for _, preempted, _, _ in expected)

    with spared():
        assert run(arrivals, SimulatedEngine(60)) == expected


def test_bookkeeping_is_done_for_few_tokens_only() -> None:
    """Once for a new block and once for one that leaves the window, of 16 tokens each."""
    with spared():
        engine = SimulatedEngine(1000)
        counted = Calls(compute=engine.scheduler.kv_cache_manager.coordinator.remove_skipped_blocks)
        engine.scheduler.kv_cache_manager.coordinator.remove_skipped_blocks = counted
        engine.add("r", list(range(200)), 50 * BLOCK_SIZE)
        steps = sum(1 for _ in engine.steps())

    assert steps > 50 * BLOCK_SIZE
    assert len(counted.made) <= 3 * 51


def test_code_that_is_not_known_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known = dict(block_bookkeeping._KNOWN, **{"KVCacheManager.allocate_slots": "another"})
    monkeypatch.setattr(block_bookkeeping, "_KNOWN", known)
    before = patches.ALLOCATE_SLOTS.original()

    assert not block_bookkeeping.install(logging.getLogger("gptoss_bento"))

    assert patches.ALLOCATE_SLOTS.original() is before
    assert "does not know: KVCacheManager.allocate_slots" in caplog.text
