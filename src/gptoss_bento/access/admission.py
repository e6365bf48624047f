"""Which requests are admitted now: rates and simultaneous requests, for keys, operations and the engine as a whole.

A request names the rules that it must pass. All are checked first; something is taken only if none refuses.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path

from gptoss_bento.access.shared_counters import CountersFullError, Row, SharedCounters
from gptoss_bento.config.api_keys import Key
from gptoss_bento.http.errors import HttpRefusalError

logger = logging.getLogger(__name__)

_LONGEST_WAIT_S = 3600
_FULL_WAIT_S = 60.0  # rows of keys that are idle for so long may be evicted
_FIRST_GUESS_S = 4.0  # how long a request takes, until one has ended
_WEIGHT = 0.1  # of the newest request in the mean


@dataclass(frozen=True)
class Rate:
    """So many within so many seconds: a token bucket of that size, which refills evenly."""

    limit: int
    period_s: float = 60.0

    def level(self, bucket: tuple[float, float], now: float) -> float:
        """What the bucket holds now."""
        level, at = bucket
        return min(float(self.limit), level + (now - at) * self.limit / self.period_s) if at else float(self.limit)

    def wait_s(self, level: float, wanted: float) -> float:
        """How long until a bucket of this level holds so much."""
        return max(0.0, wanted - level) * self.period_s / self.limit


@dataclass(frozen=True)
class Rule:
    """What one row of the table may take.

    `name` is the row's; a sentence to the client says `what` may have so many of `which` at the same time.
    """

    name: str
    what: str
    requests: Rate | None = None
    tokens: Rate | None = None
    concurrent: int | None = None
    pinned: bool = True  # its row is never evicted; rules of keys are not pinned
    which: str = "concurrent requests"


class RefusedError(HttpRefusalError):
    """The request is refused for now. `headers` say when to try again, and what is left of the rates."""

    headers: Mapping[str, str]

    def __init__(
        self,
        message: str,
        wait_s: float,
        headers: Mapping[str, str] | None = None,
        status: HTTPStatus = HTTPStatus.TOO_MANY_REQUESTS,
    ) -> None:
        retry_after = str(min(max(1, math.ceil(wait_s)), _LONGEST_WAIT_S))
        super().__init__(status, message, {"Retry-After": retry_after, **(headers or {})})


_REQUESTS, _TOKENS = 0, 1


@dataclass(eq=False)
class Grant:
    """An admitted request. Its holder must call `leave`."""

    _admission: Admission
    _rules: Sequence[tuple[Rule, Row]]
    _began: float
    _slots: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    """`x-ratelimit-*`, empty without a rate."""

    @property
    def counts_tokens(self) -> bool:
        """Whether `leave` needs the number of tokens."""
        return any(rule.tokens for rule, _ in self._rules)

    def leave(self, tokens: int = 0) -> None:
        """The request has ended and cost so many tokens."""
        self._admission.leave(self._rules, self._began, tokens, self._slots)

    def refund(self) -> dict[str, str]:
        """There was no room for the request after all, so it does not count. Returns the headers as they are then."""
        return self._admission.refund(self._rules)


class Admission:
    """Admits requests as long as their rules allow it.

    Args:
        table: the numbers, shared by all worker processes of the service.
        clock: seconds, the same in all processes.
    """

    def __init__(self, table: SharedCounters | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._table = table or SharedCounters(clock=clock)
        self._clock = clock
        self._was_full = False
        self._means: dict[str, float] = {}  # seconds that requests take, by rule

    def share(self, path: Path | None) -> None:
        """From now on the numbers are in this file, where other processes see them. Call it first."""
        self._table = SharedCounters(path, self._clock)

    def enter(self, rules: Sequence[Rule], slots: int = 1) -> Grant:
        """Takes from all rules, or from none.

        Args:
            rules: those that the request must pass.
            slots: how many concurrency slots it needs; a request that needs more than a rule has is never admitted.

        Raises:
            RefusedError: one of them has nothing left.
        """
        now = self._clock()
        with self._table.locked():
            rows = [(rule, self._row(rule)) for rule in rules]
            found = [_BucketState(rule, row, now) for rule, row in rows]
            for each in found:
                if why := self._why_not(each, slots):
                    raise RefusedError(*why, _headers(found))
            for each in found:
                each.take(now, slots)
        return Grant(self, rows, now, slots, _headers(found))

    def in_use(self, rule: Rule) -> int:
        """How many concurrency slots of a rule are taken now, in all processes."""
        with self._table.locked():
            return self._row(rule).in_use

    def _row(self, rule: Rule) -> Row:
        try:
            return self._table.row(rule.name, pinned=rule.pinned)
        except CountersFullError as error:
            if not self._was_full:
                logger.error("Limits cannot be counted for all keys: %s. Requests of others are refused.", error)
            self._was_full = True
            text = "This server counts the limits of as many keys as it can. Try again later."
            raise RefusedError(text, _FULL_WAIT_S, status=HTTPStatus.SERVICE_UNAVAILABLE) from None

    def _why_not(self, found: _BucketState, slots: int) -> tuple[str, float] | None:
        """Why a request is refused, and for how many seconds."""
        rule = found.rule
        if rule.requests and (wait_s := rule.requests.wait_s(found.requests, 1)):
            rate = rule.requests
            text = f"{rule.what} may make {rate.limit} requests in {rate.period_s:g} s."
        elif rule.tokens and (wait_s := rule.tokens.wait_s(found.tokens, 1)):
            text = f"{rule.what} may use {rule.tokens.limit} tokens in {rule.tokens.period_s:g} s."
        elif rule.concurrent and found.row.in_use + slots > rule.concurrent:
            weight = f", and this one counts as {slots}" if slots > 1 else ""
            text = f"{rule.what} may have {rule.concurrent} {rule.which}{weight}."
            wait_s = self._half_done_s(rule)
        else:
            return None
        return f"{text} Try again later.", wait_s

    def _half_done_s(self, rule: Rule) -> float:
        """By then about half of what runs now has ended."""
        return self._means.get(rule.name, _FIRST_GUESS_S) / 2

    def leave(self, rows: Sequence[tuple[Rule, Row]], began: float, tokens: int, slots: int) -> None:
        """See `Grant.leave`."""
        for rule, row in rows:
            if rule.concurrent:
                row.use(-slots)
                took = self._clock() - began
                mean = self._means.get(rule.name, took)
                self._means[rule.name] = mean + _WEIGHT * (took - mean)
        if tokens:
            self.charge([rule for rule, _ in rows], tokens)

    def refund(self, rows: Sequence[tuple[Rule, Row]]) -> dict[str, str]:
        """See `Grant.refund`."""
        now = self._clock()
        with self._table.locked():
            found = [_BucketState(rule, row, now) for rule, row in rows if row.is_its_own]
            for each in found:
                each.refund(now)
        return _headers(found)

    def charge(self, rules: Sequence[Rule], tokens: int) -> None:
        """Takes tokens that were used without admission; they may be more than there are."""
        now = self._clock()
        with self._table.locked(), suppress(RefusedError):  # the table is full; the request has its answer already
            for rule in rules:
                if rule.tokens:
                    row = self._row(rule)
                    row.set_bucket(_TOKENS, rule.tokens.level(row.bucket(_TOKENS), now) - tokens, now)


class _BucketState:
    """What a rule's buckets hold at one moment: computed once a request."""

    __slots__ = ("requests", "row", "rule", "tokens")

    def __init__(self, rule: Rule, row: Row, now: float) -> None:
        self.rule, self.row = rule, row
        self.requests = rule.requests.level(row.bucket(_REQUESTS), now) if rule.requests else 0.0
        self.tokens = rule.tokens.level(row.bucket(_TOKENS), now) if rule.tokens else 0.0

    def take(self, now: float, slots: int) -> None:
        """For one request."""
        if self.rule.requests:
            self.requests -= 1
            self.row.set_bucket(_REQUESTS, self.requests, now)
        if self.rule.concurrent:
            self.row.use(slots)

    def refund(self, now: float) -> None:
        """One request, of the rate."""
        if self.rule.requests:
            self.requests = min(self.requests + 1, self.rule.requests.limit)
            self.row.set_bucket(_REQUESTS, self.requests, now)


def _headers(found: Sequence[_BucketState]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for each in found:
        if each.rule.requests:
            _add_headers(headers, _OF_REQUESTS, each.rule.requests, each.requests)
        if each.rule.tokens:
            _add_headers(headers, _OF_TOKENS, each.rule.tokens, each.tokens)
    return headers


_Names = tuple[str, str, str]
_OF_REQUESTS: _Names = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")
_OF_TOKENS: _Names = ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens")


def _add_headers(headers: dict[str, str], names: _Names, rate: Rate, level: float) -> None:
    limit, remaining, reset = names
    headers[limit] = str(rate.limit)
    headers[remaining] = str(max(0, math.floor(level)))
    headers[reset] = _duration(rate.wait_s(level, rate.limit))


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `20ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{round(seconds, 2):g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s"


# --- the rules -------------------------------------------------------------------------------------------------------


@lru_cache
def key_rules(key: Key | None, *, streams: bool) -> tuple[Rule, ...]:
    """What a key's limits mean for a request (`streams`) or for the submission of a job."""
    if key is None:
        return ()
    limits = key.limits
    rule = Rule(
        f"key {key.name}",
        "This key",
        Rate(limits.requests_per_minute) if limits.requests_per_minute else None,
        Rate(limits.tokens_per_minute) if limits.tokens_per_minute else None,
        limits.streams if streams else None,
        pinned=False,
    )
    return (rule,) if rule.requests or rule.tokens or rule.concurrent else ()


def websocket_rules(key: Key | None, most: int, most_of_a_key: int) -> tuple[Rule, ...]:
    """The bounds on WebSocket connections, of this service and of a key; an open server counts as one key."""
    owner = key.name if key else ""
    which = "WebSocket connections"
    return (
        Rule("websockets", "This server", concurrent=most, which=which),
        Rule(f"websockets of {owner}", "This key", concurrent=most_of_a_key, pinned=False, which=which),
    )


def engine_rule(most: int) -> Rule:
    """The bound on requests of the OpenAI API that run or wait in the engine."""
    return Rule("engine", "This server", concurrent=most)


PLATFORM_RULES = {
    operation: Rule(operation, f"Calls of {operation}", Rate(requests, 10.0), concurrent=concurrent)
    for operation, requests, concurrent in (
        ("runsync", 2000, 400),
        ("run", 1000, 200),
        ("status", 2000, 400),
        ("status-sync", 2000, 400),
        ("stream", 2000, 400),
        ("cancel", 100, 20),
        ("purge-queue", 2, None),
        ("openai", 2000, 400),
    )
}
"""RunPod's published limits, by operation: requests in 10 s and at the same time (docs/native-api.md)."""
