"""Requests of our own before the service says ready, so that no client waits for a kernel to be compiled.

vLLM warms up what it finds worth it while it captures CUDA graphs. Left are prefills longer than the largest graph, and
what only certain requests use: sampling filters, penalties, log probabilities, grammars. The requests here use each of
these once, alone and in a batch. They appear in no metric of vLLM's engine and leave nothing in the prefix cache.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from vllm import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger(__name__)

_SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["a"]}
_FEATURES: Mapping[str, Mapping[str, Any]] = {
    "greedy": {"temperature": 0},
    "temperature": {"temperature": 0.7},  # 1.0 needs no kernel of its own: the prefills have it
    "seed": {"seed": 1},
    "top_k": {"top_k": 20},
    "min_p": {"min_p": 0.05},
    "penalties": {"presence_penalty": 0.1, "frequency_penalty": 0.1, "repetition_penalty": 1.1},
    "logit bias": {"logit_bias": {11: 1.0}},
    "allowed tokens": {"allowed_token_ids": [11, 12, 13]},
    "bad words": {"bad_words": ["never"]},
    "minimum of tokens": {"min_tokens": 2},
    "budget of reasoning": {"thinking_token_budget": 0},
    # vLLM compiles for the next power of two of their number with the token's own, and once more for a multiple of 16.
    **{f"{number} log probabilities": {"logprobs": number} for number in (0, 1, 3, 5, 10, 15, 20)},
    "log probabilities of the prompt": {"prompt_logprobs": 5},
    "JSON schema": {"structured_outputs": {"json": _SCHEMA}},
    "regular expression": {"structured_outputs": {"regex": "[a-z]{1,8}"}},
    # The only one for which the kernel of biases looks for rows without a token: vLLM 0.32, gpu/sample/logit_bias.py.
    "minimum of tokens beside a grammar": {"min_tokens": 2, "structured_outputs": {"json": _SCHEMA}},
}
# Top-p splits each row of logits among more programs the fewer rows there are: a kernel for each power of two, and
# another one beyond 64 rows. vLLM 0.32, v1/sample/ops/topk_topp_triton.py.
_SPLIT: Mapping[str, Mapping[str, Any]] = {
    "top_p": {"top_p": 0.9},
    "top_k and top_p": {"top_k": 20, "top_p": 0.9},
}
_SPLIT_BATCHES = (1, 2, 4, 8, 16, 32, 64, 80)
_SHORT = 24  # tokens of a prompt whose length does not matter
_BATCH = 9  # requests at the same time; an odd number, so that no size is divisible by chance
_SHOWN = 6  # of the slowest, in the log
_ANSWER = 3  # tokens: prefill, and decoding with and without what was sampled before


@dataclass(frozen=True)
class Request:
    """One kind of request, and how many of them run at the same time."""

    what: str
    prompt_tokens: int
    copies: int = 1
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @property
    def answer_tokens(self) -> int:
        """Enough that the first of a batch still runs when the last has come: one may come with each step."""
        return max(_ANSWER, self.copies)


def requests(largest_graph: int, largest_batch: int, longest: int, most_sequences: int) -> list[Request]:
    """What is asked, in this order.

    Args:
        largest_graph: tokens of the largest CUDA graph; 0: there are none. Beyond it kernels are launched one by one.
        largest_batch: tokens of a step, `max_num_batched_tokens`.
        longest: tokens of a prompt with its answer, `max_model_len`.
        most_sequences: sequences of a step, `max_num_seqs`. Larger batches would only take time.
    """
    lengths = [tokens for tokens in prefills(largest_graph, largest_batch) if tokens + _ANSWER < longest]
    alone = [Request(f"prefill of {tokens} tokens", tokens) for tokens in lengths]
    features = _batches(_FEATURES, (1, _BATCH), most_sequences)
    return alone + features + _batches(_SPLIT, _SPLIT_BATCHES, most_sequences)


def _batches(kinds: Mapping[str, Mapping[str, Any]], sizes: Iterable[int], most_sequences: int) -> list[Request]:
    possible = sorted({min(copies, most_sequences) for copies in sizes})
    return [Request(what, _SHORT, copies, sampling) for what, sampling in kinds.items() for copies in possible]


def prefills(largest_graph: int, largest_batch: int) -> list[int]:
    """Numbers of tokens that, between them, make the kernels of a step choose each tile size that they have.

    Tile sizes change at powers of two of the tokens of one expert. Three numbers in each range, one of them odd.
    """
    powers = [2**power for power in range(4, max(largest_batch, 16).bit_length())]
    steps = itertools.chain.from_iterable((power, power + power // 4 + 1, power + power // 2) for power in powers)
    return sorted({tokens for tokens in (*steps, largest_batch) if largest_graph < tokens <= largest_batch})


async def warm_up(client: AsyncLLM) -> None:
    """Sends the requests. What the engine refuses (a grammar beside speculation, say) is left out, with a line."""
    config = client.vllm_config
    sizes = config.compilation_config.cudagraph_capture_sizes or [0]
    scheduler, longest = config.scheduler_config, config.model_config.max_model_len
    asked = requests(max(sizes), scheduler.max_num_batched_tokens, longest, scheduler.max_num_seqs)
    seconds: dict[str, float] = {}
    with _unmeasured(client):
        for request in asked:
            begun = time.monotonic()
            await _send(client, request)
            seconds[f"{request.what} of {request.copies}"] = time.monotonic() - begun
        await client.reset_prefix_cache()
    slowest = sorted(seconds, key=lambda name: -seconds[name])[:_SHOWN]
    shown = ", ".join(f"{name} {seconds[name]:.1f} s" for name in slowest)
    logger.info("warm-up: %d kinds of requests; the slowest: %s", len(asked), shown)


_SALT = "warm-up"  # no client's request finds these prompts in the prefix cache
_ROUTES: Mapping[str, Mapping[str, Any]] = {
    "/v1/completions": {"prompt": [1, 2, 3], "max_tokens": 1, "stream": True, "cache_salt": _SALT},
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 1,
        "stream": True,
        "cache_salt": _SALT,
    },
}


async def warm_up_routes(app: ASGIApp, client: AsyncLLM, model: str) -> None:
    """Asks this process's own application once for a completion and for a chat, which vLLM and Harmony load things for.

    The first chat of a process would take a quarter of a second longer than the second one (measured on two cores).
    vLLM's counters of HTTP requests have these two; those of the engine have not.
    """
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://warm-up") as asking:
        with _unmeasured(client):
            for path, body in _ROUTES.items():
                answer = await asking.post(path, json={"model": model, **body})
                if answer.is_error:
                    logger.info("warm-up: %s was answered with %d.", path, answer.status_code)


async def _send(client: AsyncLLM, request: Request) -> None:
    name = f"warm-up-{request.what}-of-{request.copies}"  # of this one alone: the prompts are made from it
    answers = (_answer(client, request, f"{name}-{number}") for number in range(request.copies))
    for error in await asyncio.gather(*answers, return_exceptions=True):
        if isinstance(error, Exception):
            if client.errored:
                raise error
            logger.info("warm-up: %s is left out: %s", request.what, str(error).split("\n")[0])
            return


async def _answer(client: AsyncLLM, request: Request, request_id: str) -> None:
    numbers = random.Random(request_id)  # noqa: S311  # only to find nothing in the prefix cache
    tokens = ordinary_tokens(client.vllm_config.model_config.get_vocab_size())
    prompt = {"prompt_token_ids": numbers.choices(tokens, k=request.prompt_tokens)}
    async for _ in client.generate(prompt, _parameters(request), request_id):
        pass


def ordinary_tokens(vocabulary: int) -> range:
    """The middle half of a vocabulary: control tokens are at its ends, and other models have smaller ones."""
    return range(vocabulary // 4, vocabulary * 3 // 4)


def _parameters(request: Request) -> SamplingParams:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    sampling = dict(request.sampling)
    if constraint := sampling.get("structured_outputs"):
        sampling["structured_outputs"] = StructuredOutputsParams(**constraint)
    return SamplingParams(max_tokens=request.answer_tokens, ignore_eos=True, **sampling)


@contextmanager
def _unmeasured(client: AsyncLLM) -> Iterator[None]:
    """Meanwhile vLLM records nothing in its metrics and prints no throughput."""
    client._run_output_handler()  # otherwise the first request starts it
    kept = client._logger_ref[0]
    client._logger_ref[0] = None
    try:
        yield
    finally:
        client._logger_ref[0] = kept
