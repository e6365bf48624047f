"""Rows of numbers are made of rows for their digits."""

from __future__ import annotations

import pytest
import torch

from gptoss_bento.training import harmony_text
from gptoss_bento.training.train import UNKNOWN, Corpus, Numbers, new_model, rows_per_token

TEXTS = ["7", "42", "142", "007", " is"]

pytestmark = pytest.mark.usefixtures("vocabulary")


@pytest.fixture
def corpus() -> Corpus:
    return Corpus([harmony_text.encode(text)[0] for text in TEXTS], [])


def test_numbers_are_the_tokens_of_two_or_three_digits(corpus: Corpus) -> None:
    assert [TEXTS[number - 1] for number in corpus.numbers] == ["42", "142", "007"]
    assert corpus.digits.sum(dim=1).tolist() == [3, 4, 4]


def test_row_of_a_number_follows_the_gradients_of_others_with_its_digits(corpus: Corpus) -> None:
    model = new_model(len(TEXTS) + 1)
    numbers = Numbers(model, corpus)
    for weight in rows_per_token(model):
        weight.grad = torch.zeros_like(weight)
        weight.grad[3] = 1  # of 142, which has a length, three digits and no digit of 42 in its place
    before = [weight.detach().clone() for weight in rows_per_token(model)]
    numbers.take_gradients()
    with torch.no_grad():
        for rows in numbers.rows:
            assert rows.grad is not None
            rows -= rows.grad
    numbers.write()

    for weight, was in zip(rows_per_token(model), before, strict=True):
        moved = (weight - was).abs().sum(dim=1)
        assert [bool(it > 1e-3) for it in moved] == [False, False, False, True, True, False]
        assert weight.grad is not None
        assert not weight.grad[corpus.numbers].any()
    assert UNKNOWN == 0
