from __future__ import annotations

import itertools

import pytest

from gptoss_bento.bench import load


def test_answers_are_as_long_as_asked_on_average_and_no_two_neighbours_are_alike() -> None:
    found = load.lengths(160, 64)

    assert (min(found), max(found)) == (32, 96)
    assert sum(found) / len(found) == pytest.approx(64, abs=0.5)
    assert all(abs(one - next_one) > 20 for one, next_one in itertools.pairwise(found))
    assert load.lengths(3, 1) == [1, 1, 1]


def test_answers_are_all_of_one_length_without_spread() -> None:
    assert load.lengths(5, 256, 0.0) == [256] * 5


def test_prompts_have_no_common_beginning() -> None:
    assert len({load.prompt(number).split(" word")[0] for number in range(100)}) == 100


def test_single_value_is_its_own_percentile() -> None:
    assert load.p99([0.1]) == 0.1
    assert load.p99([1.0, 2.0]) == pytest.approx(1.99)
