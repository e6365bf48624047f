"""The sizes of streamed items."""

from __future__ import annotations

import math
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.jobs.output.batching import ITEM_BYTES, Counter, Schedule

SIZES = st.floats(0.1, 1e6)


def sizes(schedule: Schedule, tokens: int) -> list[int]:
    counter, items, entries = Counter(schedule), [], 0
    for _ in range(tokens):
        entries += 1
        if counter.add(1):
            items.append(entries)
            entries = 0
    return items + [entries] * (entries > 0)


@pytest.mark.parametrize(
    ("schedule", "tokens", "expected"),
    [
        (Schedule(50, 1, 3), 200, [1, 3, 9, 27, 50, 50, 50, 10]),
        (Schedule(10, 1, 1.5), 44, [1, 2, 3, 4, 6, 8, 10, 10]),
        (Schedule(7, 1, 1), 20, [7, 7, 6]),  # a factor of 1 or less: constant
        (Schedule(7, 1, 0.5), 8, [7, 1]),
        (Schedule(4, 4, 3), 9, [4, 4, 1]),  # max not above min: constant
        (Schedule(4, 9, 3), 9, [4, 4, 1]),
        (Schedule(4, 0.5, 3), 9, [4, 4, 1]),  # min below 1: constant
        (Schedule(10, 2, 2), 2, [2]),
        (Schedule(0.3, 1, 3), 3, [1, 1, 1]),
        (Schedule(50, 1, 1e308), 60, [1, 50, 9]),
        (Schedule(50, 1, 3), 0, []),
    ],
)
def test_batch_sizes_are_exact(schedule: Schedule, tokens: int, expected: list[int]) -> None:
    assert sizes(schedule, tokens) == expected


@given(SIZES, SIZES, st.floats(0.1, 100), st.integers(0, 300))
def test_batch_sizes_agree_with_the_published_formula(
    largest: float, smallest: float, growth: float, tokens: int
) -> None:
    dynamic = growth > 1 and smallest >= 1 and largest > smallest
    size, expected, left = smallest if dynamic else largest, [], tokens
    while left:
        taken = min(left, max(1, math.ceil(size)))
        expected.append(taken)
        left -= taken
        size = min(size * growth, largest) if dynamic else size

    assert sizes(Schedule(largest, smallest, growth), tokens) == expected


def test_item_that_would_be_too_large_has_no_room_left() -> None:
    counter = Counter(Schedule(50, 50, 1))

    assert counter.has_room(10 * ITEM_BYTES), "one entry alone is always taken"
    assert not counter.add(ITEM_BYTES - 100_000)
    assert counter.has_room(40_000)
    assert not counter.has_room(60_000)
    counter.restart()
    assert [counter.add(1) for _ in islice(iter(int, 1), 50)] == [False] * 49 + [True]


def test_entries_without_tokens_count_for_the_size_alone() -> None:
    counter = Counter(Schedule(1, 1, 1))

    assert not counter.add(500, entries=0)
    assert counter.add(1)
