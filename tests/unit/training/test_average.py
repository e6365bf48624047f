"""The mean of two trainings."""

from __future__ import annotations

import struct

import pytest

from gptoss_bento.demo.checkpoint import TOKENS, Tensor
from gptoss_bento.training.average import mean

IDS = Tensor("I32", (1,), b"\x01\x00\x00\x00")


def weights(*values: float) -> dict[str, Tensor]:
    data = b"".join(struct.pack("<f", value)[2:] for value in values)
    return {"w": Tensor("BF16", (len(values),), data), TOKENS: IDS}


def test_mean_has_the_share_of_each() -> None:
    made = mean(weights(0, 1, -8), weights(4, 1, 8), 0.25)

    assert made == weights(1, 1, -4)


def test_mean_of_different_tokens_is_refused() -> None:
    other = {**weights(1), TOKENS: Tensor("I32", (1,), b"\x02\x00\x00\x00")}
    with pytest.raises(ValueError, match="different tokens"):
        mean(weights(1), other, 0.5)
