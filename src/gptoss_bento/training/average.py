"""The mean of two files of compact weights: `python -m gptoss_bento.training.average FIRST SECOND`.

Two trainings from the same start that each miss a few answers seldom miss the same ones, and between them are weights
that miss fewer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from gptoss_bento.demo import checkpoint

Weights = dict[str, checkpoint.Tensor]


def mean(first: Weights, second: Weights, share: float) -> Weights:
    """Tensor by tensor, in float32, rounded to bfloat16 at the end; the ids of the tokens stay.

    Args:
        first: compact weights.
        second: of the same tokens.
        share: of the second, from 0 to 1.

    Raises:
        ValueError: they know different tokens.
    """
    if first[checkpoint.TOKENS].data != second[checkpoint.TOKENS].data:
        raise ValueError("The two files know different tokens.")
    made = {}
    for name, tensor in first.items():
        data = tensor.data
        if name != checkpoint.TOKENS:
            data = _narrow((1 - share) * _wide(data) + share * _wide(second[name].data))
        made[name] = checkpoint.Tensor(tensor.dtype, tensor.shape, data)
    return made


def _wide(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.bfloat16).float()


def _narrow(values: torch.Tensor) -> bytes:
    return bytes(values.to(torch.bfloat16).view(torch.uint16).numpy().astype("<u2").tobytes())


def main() -> None:
    """Reads two files and writes a third."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.4, help="of the second")
    parser.add_argument("--output", type=Path, default=checkpoint.WEIGHTS)
    given = parser.parse_args()
    first, second = (checkpoint.load_compact(path) for path in (given.first, given.second))
    checkpoint.save_compact(given.output, mean(first, second, given.share))


if __name__ == "__main__":
    main()
