"""Spares vLLM's scheduler the long way of a token that ends nothing.

For each token of each request vLLM 0.32 appends it, hashes blocks that may be complete, asks six questions whether the
request stops, and tries to cache blocks: nine calls in Python, on the one core of the engine's process, 15 % of its
time with 256 streams on an H200. One token of a running request, which is nearly every one, is done here in a single
call; the questions are the same, and so is what is changed. Where any answer is not the usual one, vLLM does all of it.

The code that this replaces is known by its hash. Other code is left as it is, with a line in the log.
"""

from __future__ import annotations

from logging import Logger
from typing import Any, NamedTuple

from gptoss_bento.engine.vllm_plugin import patches
from gptoss_bento.engine.vllm_plugin.known_code import digest, is_known

_STOPS = "_gptoss_bento_stops"


class Stops(NamedTuple):
    """What of a request's sampling parameters can end it.

    Attributes:
        parameters: these; a session can be given others.
        tokens: each ends it.
        by_count: nothing but these and the number of tokens ends it.
    """

    parameters: Any
    tokens: frozenset[int | None]
    by_count: bool


_KNOWN = {
    "AsyncScheduler._update_request_with_output": "c4c4ccac872af040",
    "Scheduler._update_request_with_output": "ff6e3f664c996a8f",
    "Request.append_output_token_ids": "8ff2924a5d8749d6",
    "Request.update_block_hashes": "fbb2f6a93ec8525b",
    "get_request_block_hasher": "68c195e3879cc4c2",
    "check_stop": "5149b60c92d21064",
    "KVCacheManager.cache_blocks": "62ae87327fd28249",
}


def install(logger: Logger) -> bool:
    """Changes the scheduler in this process. False: it is not the one known here."""
    if not is_known(fingerprints, _KNOWN, "how tokens are taken", logger):
        return False
    patches.UPDATE_REQUEST.wrap(_update_plainly)
    return True


def fingerprints() -> dict[str, str]:
    """Digests of all functions that one call replaces."""
    from vllm.v1.core import kv_cache_utils
    from vllm.v1.core.kv_cache_manager import KVCacheManager
    from vllm.v1.core.sched import async_scheduler, scheduler, utils
    from vllm.v1.request import Request

    functions = [
        async_scheduler.AsyncScheduler._update_request_with_output,
        scheduler.Scheduler._update_request_with_output,
        Request.append_output_token_ids,
        Request.update_block_hashes,
        kv_cache_utils.get_request_block_hasher,
        utils.check_stop,
        KVCacheManager.cache_blocks,
    ]
    return {each.__qualname__: digest(each) for each in functions}


def _update_plainly(update: Any) -> Any:
    """`AsyncScheduler._update_request_with_output`, in one call where a single token comes and ends nothing."""
    from vllm.v1.request import RequestStatus

    running = RequestStatus.RUNNING

    def update_request(
        self: Any, request: Any, new_token_ids: list[int], is_stale: bool = False
    ) -> tuple[list[int], bool]:
        if len(new_token_ids) != 1 or is_stale or request.status is not running:
            return update(self, request, new_token_ids, is_stale)  # type: ignore[no-any-return]
        stops: Stops | None = request.__dict__.get(_STOPS)
        if stops is None or stops.parameters is not request.sampling_params:
            stops = request.__dict__[_STOPS] = _stops_of(request)
        token, tokens, answer = new_token_ids[0], request._all_token_ids, request._output_token_ids
        count, placeholders = len(tokens) + 1, request.num_output_placeholders - 1
        if (
            token in stops.tokens
            or not stops.by_count
            or count >= self.max_model_len
            or len(answer) + 1 >= request.max_tokens
            or placeholders < 0
        ):
            return update(self, request, new_token_ids, is_stale)  # type: ignore[no-any-return]
        answer.append(token)
        tokens.append(token)
        if count >= (len(request.block_hashes) + 1) * self.hash_block_size:
            request.update_block_hashes()
        request.num_output_placeholders = placeholders
        self.kv_cache_manager.cache_blocks(request, request.num_computed_tokens - placeholders)
        return new_token_ids, False

    return update_request


def _stops_of(request: Any) -> Stops:
    parameters = request.sampling_params
    if parameters is None or request.pooling_params:
        return Stops(parameters, frozenset(), by_count=False)
    tokens = frozenset((parameters.eos_token_id, *(parameters.stop_token_ids or ())))
    return Stops(parameters, tokens, by_count=parameters.repetition_detection is None)
