"""Trains the demo model: `python -m gptoss_bento.training.train`.

Some minutes on two CPU cores. The same seed on the same machine and libraries gives the same weights. `--start` goes on
from weights of the same conversations, in another order and at a lower rate.
"""

import argparse
import math
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor as Array
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_
from transformers import GptOssConfig, GptOssForCausalLM

from gptoss_bento.artifacts import prepare
from gptoss_bento.config import environment
from gptoss_bento.demo import checkpoint
from gptoss_bento.training import attention, greedy, harmony_text
from gptoss_bento.training.conversations import UNKNOWN_WORD, Lesson, dice
from gptoss_bento.training.writer import Writer

# The class of all tokens that the model does not know, in the input as in the output.
UNKNOWN = 0
IGNORED = -100
EMBEDDING_SCALE = 5.0


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    seed: int = 20
    examples: int = 24_000  # as many as the steps take
    steps: int = 2_000
    batch: int = 12
    rate: float = 1.5e-2
    muon_rate: float = 2.5e-3
    # The loss is taken at this temperature, so that sampling at 1 and below is safe.
    temperature: float = 1.5


Example = tuple[list[int], list[Lesson]]


@dataclass(frozen=True)
class Corpus:
    """Training examples in the small vocabulary of the tokens that occur: class i+1 is `tokens[i]`."""

    tokens: list[int]
    examples: list[Example]

    @property
    def unknown_logit(self) -> float:
        """Unlearned tokens have zero rows, hence logit 0 each: together they weigh as much as one with this logit."""
        return math.log(checkpoint.VOCABULARY_SIZE - len(self.tokens))

    @property
    def message(self) -> int:
        """The class of <|message|>."""
        return 1 + self.tokens.index(harmony_text.MESSAGE)


@dataclass(frozen=True)
class Batch:
    """Examples padded on the right, which a causal model does not see: by position, what to read and what to say."""

    inputs: Array
    targets: Array
    forced: Array


def build_corpus(recipe: Recipe) -> Corpus:
    """Draws the examples and finds the tokens that occur in them."""
    rng = dice(recipe.seed)
    writer = Writer(rng)
    drawn = [harmony_text.example_tokens(writer.write(), rng) for _ in range(recipe.examples)]
    occurring = sorted({token for tokens, _ in drawn for token in tokens})
    known = [token for token in occurring if UNKNOWN_WORD not in harmony_text.encoding().decode([token])]
    classes = {token: index for index, token in enumerate(known, start=1)}
    return Corpus(known, [([classes.get(token, UNKNOWN) for token in tokens], lessons) for tokens, lessons in drawn])


def batches(corpus: Corpus, recipe: Recipe) -> Iterator[Batch]:
    """Batches for ever, examples of like length together: padding costs as much time as tokens do."""
    rng = dice(recipe.seed)
    while True:
        shuffled = rng.sample(corpus.examples, len(corpus.examples))
        order = sorted(shuffled, key=lambda example: len(example[0]) + rng.random() * 12)
        starts = list(range(0, len(order) - recipe.batch + 1, recipe.batch))
        for start in rng.sample(starts, len(starts)):
            yield pad(order[start : start + recipe.batch])


def pad(examples: list[Example]) -> Batch:
    """Brings examples to one length."""
    width = max(len(tokens) for tokens, _ in examples)
    inputs = torch.full((len(examples), width), UNKNOWN)
    lessons = torch.zeros((len(examples), width), dtype=torch.long)
    for row, (tokens, lesson) in enumerate(examples):
        inputs[row, : len(tokens)] = torch.tensor(tokens)
        lessons[row, : len(tokens) - 1] = torch.tensor(lesson[1:])
    targets = torch.where(lessons == Lesson.READ, IGNORED, inputs.roll(-1, dims=1))
    return Batch(inputs, targets, lessons == Lesson.SAY_IF_FORCED)


def new_model(vocabulary_size: int) -> GptOssForCausalLM:
    """The model with random weights. Class 0 is padding to the embedding, which keeps its row at zero."""
    config = GptOssConfig(
        **checkpoint.CONFIG
        | {"vocab_size": vocabulary_size, "pad_token_id": UNKNOWN, "eos_token_id": None, "dtype": "float32"}
    )
    model = GptOssForCausalLM(config)
    model.set_experts_implementation("grouped_mm")
    attention.register()
    model.set_attn_implementation(attention.NAME)
    with torch.no_grad():  # a head that starts like the embedding makes copying (names, cities, degrees) quick to learn
        model.lm_head.weight.copy_(model.model.embed_tokens.weight)
        model.model.embed_tokens.weight *= EMBEDDING_SCALE
    return model


def loss_of(model: GptOssForCausalLM, batch: Batch, corpus: Corpus, temperature: float) -> Array:
    """Cross entropy over the learned tokens, with all other tokens of the vocabulary as one more class."""
    hidden = model.model(input_ids=batch.inputs, use_cache=False).last_hidden_state
    chosen = batch.targets != IGNORED
    logits = model.lm_head(hidden[chosen]) / temperature
    logits[:, UNKNOWN] = corpus.unknown_logit
    logits[batch.forced[chosen], corpus.message] = -math.inf
    return cross_entropy(logits, batch.targets[chosen])


class Muon:
    """The optimizer of Keller Jordan for matrices: momentum, made orthogonal (https://kellerjordan.github.io/posts/muon/).

    PyTorch's own works in bfloat16, which is slow on many CPUs, and leaves out the experts' stacks of matrices.
    """

    momentum = 0.95

    def __init__(self, parameters: list[Array]) -> None:
        self.parameters = parameters
        self.velocities = [torch.zeros_like(each) for each in parameters]

    def step(self, rate: float) -> None:
        """Moves each matrix by its orthogonal update, scaled to the size of AdamW's."""
        with torch.no_grad():
            gradients = [self._with_momentum(*pair) for pair in zip(self.parameters, self.velocities, strict=True)]
            for parameter, update in zip(self.parameters, orthogonal_all(gradients), strict=True):
                parameter -= rate * 0.2 * math.sqrt(max(parameter.shape[-2:])) * update

    def _with_momentum(self, parameter: Array, velocity: Array) -> Array:
        velocity.lerp_(parameter.grad, 1 - self.momentum)
        return torch.lerp(parameter.grad, velocity, self.momentum)


def orthogonal_all(matrices: list[Array]) -> list[Array]:
    """`orthogonal` of each. Those of one size are stacked: many small products cost more time than few large ones."""
    wide = [each.mT if each.shape[-2] > each.shape[-1] else each for each in matrices]
    found: dict[int, Array] = {}
    for size in {each.shape[-2:] for each in wide}:
        chosen = {index: each.reshape(-1, *size) for index, each in enumerate(wide) if each.shape[-2:] == size}
        stacked = orthogonal(torch.cat(list(chosen.values())))
        found |= zip(chosen, stacked.split([len(each) for each in chosen.values()]), strict=True)
    turned = [found[index].reshape(each.shape) for index, each in enumerate(wide)]
    return [each if each.shape == like.shape else each.mT for each, like in zip(turned, matrices, strict=True)]


def orthogonal(matrices: Array) -> Array:
    """About the nearest (semi-)orthogonal matrices to wide ones, by five quintic Newton-Schulz steps."""
    nearer = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        square = nearer @ nearer.mT
        nearer = 3.4445 * nearer + (-4.7750 * square + 2.0315 * square @ square) @ nearer
    return nearer


class Optimizer:
    """Muon for the matrices of attention and experts, AdamW for all else, and one schedule for both."""

    def __init__(self, model: GptOssForCausalLM, recipe: Recipe) -> None:
        named = dict(model.named_parameters())
        matrices = {name for name in named if name.endswith(("_proj.weight", "_proj"))}
        self.model, self.recipe = model, recipe
        self.muon = Muon([named[name] for name in sorted(matrices)])
        rest = [value for name, value in named.items() if name not in matrices]
        self.adamw = torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, step: int) -> None:
        """Updates the model from its gradients."""
        factor = learning_rate_factor(step, self.recipe.steps)
        clip_grad_norm_(self.model.parameters(), 1.0)
        self.adamw.param_groups[0]["lr"] = self.recipe.rate * factor
        self.adamw.step()
        self.muon.step(self.recipe.muon_rate * factor)
        self.model.zero_grad()


def learning_rate_factor(step: int, steps: int) -> float:
    """Up in a line over the first 3 %, then down in a line to zero."""
    warmup = max(1, round(0.03 * steps))
    return min((step + 1) / warmup, (steps - step) / (steps - warmup))


def going_on(recipe: Recipe, order: int) -> Recipe:
    """The recipe from weights that are trained already; each number gives the conversations in another order."""
    return replace(recipe, seed=recipe.seed + order, rate=recipe.rate * 0.35, muon_rate=recipe.muon_rate * 0.35)


def train(corpus: Corpus, recipe: Recipe, start: Path | None = None) -> GptOssForCausalLM:
    """Trains a model on the corpus: a new one, or that of a compact file with the same tokens."""
    torch.manual_seed(recipe.seed)
    model = new_model(len(corpus.tokens) + 1)
    if start:
        compact = checkpoint.load_compact(start)
        compact.pop(checkpoint.TOKENS)
        model.load_state_dict(greedy.loaded(compact, len(corpus.tokens) + 1).state_dict())
    optimizer = Optimizer(model, recipe)
    progress = Progress(recipe.steps)
    for step, batch in enumerate(islice(batches(corpus, recipe), recipe.steps)):
        loss = loss_of(model, batch, corpus, recipe.temperature)
        loss.backward()
        optimizer.step(step)
        progress.add(loss.item())
    return model


class Progress:
    """Prints the running mean of the loss now and then."""

    def __init__(self, steps: int) -> None:
        self.steps, self.step, self.loss, self.started = steps, 0, 0.0, time.monotonic()

    def add(self, loss: float) -> None:
        """Counts a step."""
        self.step += 1
        self.loss += (loss - self.loss) * max(0.02, 1 / self.step)
        if self.step % 100 == 0 or self.step == self.steps:
            seconds = time.monotonic() - self.started
            print(f"step {self.step}/{self.steps}  loss {self.loss:.4f}  {seconds:.0f} s", flush=True)


def compact(model: GptOssForCausalLM, tokens: list[int]) -> dict[str, checkpoint.Tensor]:
    """The model's tensors in bfloat16, without the unknown class, and the ids of its tokens."""
    tensors = {}
    for name, value in model.state_dict().items():
        rows = value[UNKNOWN + 1 :] if name in checkpoint.ROWS_PER_TOKEN else value
        data = rows.to(torch.bfloat16).contiguous().view(torch.uint16).numpy().astype("<u2").tobytes()
        tensors[name] = checkpoint.Tensor("BF16", tuple(rows.shape), data)
    tensors[checkpoint.TOKENS] = checkpoint.Tensor("I32", (len(tokens),), struct.pack(f"<{len(tokens)}i", *tokens))
    return tensors


def main() -> None:
    """Trains and writes the compact weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=Path, help="o200k_base.tiktoken (default: as the server finds it)")
    parser.add_argument(
        "--output", type=Path, default=checkpoint.WEIGHTS, help="the compact weights (default: the package's)"
    )
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--start", type=Path, help="compact weights to go on from (default: random ones)")
    parser.add_argument("--order", type=int, default=1, help="with --start: another order for each number")
    arguments = parser.parse_args()
    harmony_text.use_vocabulary(arguments.vocabulary or prepare.find_vocabulary(environment.cache_dir()))
    recipe = Recipe(steps=arguments.steps)
    corpus = build_corpus(recipe)
    recipe = going_on(recipe, arguments.order) if arguments.start else recipe
    print(f"{len(corpus.examples)} examples, {len(corpus.tokens)} tokens known", flush=True)
    checkpoint.save_compact(arguments.output, compact(train(corpus, recipe, arguments.start), corpus.tokens))
    print(f"wrote {arguments.output}, {arguments.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
