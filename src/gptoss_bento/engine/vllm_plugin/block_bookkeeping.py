"""Spares vLLM's scheduler the bookkeeping of blocks for a request to which it changes nothing.

Each step, for each running request, vLLM 0.32 asks every group of the KV cache whether blocks are needed, can be freed
or are complete. With blocks of 16 tokens the answer is no for most steps. The engine's process does this in Python, on
one core: with 256 streams on an H200 that core, not the card, decides how long a step takes, and a quarter of its time
went here.

So after the full bookkeeping a request notes up to where nothing changes (`Limits`), and until then the questions are
three comparisons. Blocks are allocated, freed and cached in the same step as without it.

The code around is known by its hash. Other code is left as it is, with a line in the log.
"""

from __future__ import annotations

from logging import Logger
from typing import Any, NamedTuple

from gptoss_bento.engine.vllm_plugin import patches
from gptoss_bento.engine.vllm_plugin.known_code import digest, is_known

_NEVER = 1 << 62
_LIMITS = "_gptoss_bento_limits"


class Limits(NamedTuple):
    """Up to where the bookkeeping of a request changes nothing, each in tokens.

    Attributes:
        slots: more tokens than these need a further block.
        processed: from this many processed tokens on, a block has left the sliding window.
        cached: from this many computed tokens on, a further block is complete and can be found by its prefix.
    """

    slots: int
    processed: int
    cached: int


# First characters of the SHA-256 of each function's source, as vLLM 0.32.0 has it.
_KNOWN = {
    "KVCacheManager.allocate_slots": "8c60d937fd9eb0c8",
    "KVCacheManager.create_kv_cache_blocks": "300bc309b9a12709",
    "KVCacheCoordinator.get_num_blocks_to_allocate": "4500949e3f03d550",
    "KVCacheCoordinator.remove_skipped_blocks": "03a961e76820d666",
    "KVCacheCoordinator.allocate_new_blocks": "2ceddac003607879",
    "KVCacheCoordinator.cache_blocks": "8a801b2adf06ab1a",
    "KVCacheCoordinator.get_num_cacheable_tokens": "d7221b47aebf9a46",
    "HybridKVCacheCoordinator.get_num_cacheable_tokens": "4b00f5b368d98de1",
    "SingleTypeKVCacheManager.get_num_blocks_to_allocate": "f50d7c5b545195c3",
    "SingleTypeKVCacheManager.allocate_new_blocks": "b8edfbf2e1667228",
    "SingleTypeKVCacheManager.remove_skipped_blocks": "7bf0e2a87ec3ccd0",
    "SingleTypeKVCacheManager.get_num_skipped_tokens": "fddbc3bd2f06dc8a",
    "SingleTypeKVCacheManager.cache_blocks": "973ea9fec0745c95",
    "SingleTypeKVCacheManager._remove_blocks_in_range": "2a6485c3cf389d4a",
    "FullAttentionManager.cache_blocks": "981125e4caafbec8",
    "SlidingWindowManager.get_num_skipped_tokens": "148ecb450daf8edc",
}


def install(logger: Logger) -> bool:
    """Changes the scheduler in this process. False: it is not the one known here."""
    if not is_known(fingerprints, _KNOWN, "the scheduler", logger):
        return False
    patches.ALLOCATE_SLOTS.wrap(_allocate_when_needed)
    patches.CACHE_BLOCKS.wrap(_cache_when_complete)
    return True


def fingerprints() -> dict[str, str]:
    """Digests of all functions whose effects `limits_of` foresees."""
    from vllm.v1.core import kv_cache_coordinator, kv_cache_manager
    from vllm.v1.core import single_type_kv_cache_manager as groups

    functions = [
        kv_cache_manager.KVCacheManager.allocate_slots,
        kv_cache_manager.KVCacheManager.create_kv_cache_blocks,
        kv_cache_coordinator.KVCacheCoordinator.get_num_blocks_to_allocate,
        kv_cache_coordinator.KVCacheCoordinator.remove_skipped_blocks,
        kv_cache_coordinator.KVCacheCoordinator.allocate_new_blocks,
        kv_cache_coordinator.KVCacheCoordinator.cache_blocks,
        kv_cache_coordinator.KVCacheCoordinator.get_num_cacheable_tokens,
        kv_cache_coordinator.HybridKVCacheCoordinator.get_num_cacheable_tokens,
        groups.SingleTypeKVCacheManager.get_num_blocks_to_allocate,
        groups.SingleTypeKVCacheManager.allocate_new_blocks,
        groups.SingleTypeKVCacheManager.remove_skipped_blocks,
        groups.SingleTypeKVCacheManager.get_num_skipped_tokens,
        groups.SingleTypeKVCacheManager.cache_blocks,
        groups.SingleTypeKVCacheManager._remove_blocks_in_range,
        groups.FullAttentionManager.cache_blocks,
        groups.SlidingWindowManager.get_num_skipped_tokens,
    ]
    return {each.__qualname__: digest(each) for each in functions}


def _allocate_when_needed(allocate: Any) -> Any:
    """`KVCacheManager.allocate_slots`, which does nothing where the request's limits say so."""
    from vllm.v1.request import RequestStatus

    running = RequestStatus.RUNNING

    def allocate_slots(
        self: Any, request: Any, num_new_tokens: int, *others: Any, num_lookahead_tokens: int = 0, **named: Any
    ) -> Any:
        # Speculation that needs slots ahead (EAGLE, draft models) is left out.
        plain = not others and not named and num_lookahead_tokens == 0
        decodes = plain and num_new_tokens > 0 and request.status is running
        limits: Limits | None = request.__dict__.get(_LIMITS)
        if decodes and limits is not None:
            computed = request.num_computed_tokens
            after = computed + num_new_tokens
            if (
                after <= limits.slots
                and computed - request.num_in_flight_tokens < limits.processed
                and min(after, request.num_tokens) < limits.cached
            ):
                return self.empty_kv_cache_blocks
        request.__dict__.pop(_LIMITS, None)  # what is done next must not be spared, and may change them
        new_blocks = allocate(
            self, request, num_new_tokens, *others, num_lookahead_tokens=num_lookahead_tokens, **named
        )
        if decodes and new_blocks is not None and (limits := limits_of(self.coordinator, request)) is not None:
            request.__dict__[_LIMITS] = limits
        return new_blocks

    return allocate_slots


def _cache_when_complete(cache: Any) -> Any:
    """`KVCacheCoordinator.cache_blocks`, which does nothing where the request's limits say so."""

    def cache_blocks(self: Any, request: Any, num_computed_tokens: int) -> None:
        limits: Limits | None = request.__dict__.get(_LIMITS)
        if limits is not None and num_computed_tokens < limits.cached:
            return
        cache(self, request, num_computed_tokens)
        if limits is not None:
            request.__dict__[_LIMITS] = limits._replace(cached=_next_cached(self, request.request_id))

    return cache_blocks


def limits_of(coordinator: Any, request: Any) -> Limits | None:
    """The limits of a running request, right after its bookkeeping; None with a group that is not known here."""
    slots = processed = _NEVER
    for manager in coordinator.single_type_managers:
        kind = type(manager).__name__
        if kind not in ("FullAttentionManager", "SlidingWindowManager"):
            return None
        if manager.block_size != coordinator.block_pool.hash_block_size:
            return None
        slots = min(slots, len(manager.req_to_blocks[request.request_id]) * manager.block_size)
        if kind == "SlidingWindowManager":
            done = max(0, request.num_computed_tokens - request.num_in_flight_tokens)
            freed = manager.get_num_skipped_tokens(done) // manager.block_size
            # The window begins this far behind the processed tokens.
            behind = manager.sliding_window - 1 + manager.extra_retained_tokens
            processed = min(processed, (freed + 1) * manager.block_size + behind)
    return Limits(slots, processed, _next_cached(coordinator, request.request_id))


def _next_cached(coordinator: Any, request_id: str) -> int:
    """Tokens from which on a further block is complete in one of the groups."""
    return min(
        (manager.num_cached_block.get(request_id, 0) + 1) * manager.block_size if manager.enable_caching else _NEVER
        for manager in coordinator.single_type_managers
    )
