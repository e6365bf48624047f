"""What keys mean for jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from starlette.types import Scope

from gptoss_bento.access.admission import Admission, RefusedError
from gptoss_bento.access.key_store import KeyStore
from gptoss_bento.access.stored_limits import limits_text
from gptoss_bento.config.api_keys import Key, KeyLimits, digest
from gptoss_bento.config.settings import ServerSettings
from gptoss_bento.http.json_body import EnvelopeError
from gptoss_bento.jobs import limits as limits_module
from gptoss_bento.jobs.input import EngineRequest, InputError, Models
from gptoss_bento.jobs.limits import JobLimits, limited_request, rates_of
from gptoss_bento.state.database import StoreUnavailableError
from gptoss_bento.state.job import Claim

ALICE = Key("alice", (digest("s3cret"),), KeyLimits(requests_per_minute=2, tokens_per_minute=100))
BOB = Key("bob", (digest("other"),))


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> JobLimits:
    """A job that waits looks again in each turn of the loop."""
    monkeypatch.setattr(limits_module, "_POLL_INTERVAL_S", 0)
    return JobLimits(KeyStore([ALICE, BOB]), Admission(clock=lambda: 1.0))


async def many_turns() -> None:
    """More turns of the loop than it takes until each job with room is admitted."""
    for _ in range(200):
        await asyncio.sleep(0)


def submission(key: Key | None) -> Scope:
    """What a request with this key has in its scope: see `Authentication`."""
    return {"gptoss_bento.key": key}


def submit(limits: JobLimits, key: Key | None, error: BaseException | None = None) -> Mapping[str, str]:
    scope = submission(key)
    with suppress(*[type(error)] if error else []), limits.admitted(scope):
        if error:
            raise error
    return rates_of(scope)


def test_rate_limit_counts_submissions(limits: JobLimits) -> None:
    assert submit(limits, ALICE)["x-ratelimit-remaining-requests"] == "1"
    assert submit(limits, ALICE)["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(RefusedError, match="2 requests"):
        submit(limits, ALICE)
    for key in (BOB, None):
        for _ in range(5):
            assert submit(limits, key) == {}


@pytest.mark.parametrize("error", [RefusedError("full", 1), StoreUnavailableError()])
def test_rate_limit_does_not_count_a_submission_without_room(limits: JobLimits, error: Exception) -> None:
    for _ in range(5):
        assert submit(limits, ALICE, error)["x-ratelimit-remaining-requests"] == "2"
    assert submit(limits, ALICE)["x-ratelimit-remaining-requests"] == "1"


@pytest.mark.parametrize("error", [EnvelopeError("webhook"), asyncio.CancelledError()])
def test_rate_limit_counts_a_submission_that_fails_otherwise(limits: JobLimits, error: BaseException) -> None:
    assert submit(limits, ALICE, error)["x-ratelimit-remaining-requests"] == "1"


def test_usage_of_a_job_is_charged_to_its_key_by_name(limits: JobLimits) -> None:
    limits.charge("alice", 100)
    limits.charge("bob", 100)
    limits.charge("gone", 100)
    limits.charge(None, 100)
    with pytest.raises(RefusedError, match="100 tokens"):
        submit(limits, ALICE)
    submit(limits, BOB)


def claim(owner: str | None, key_limits: str | None = None) -> Claim:
    return Claim("a", 1, "w", "{}", 1, 1, owner, key_limits)


GONE = Key("gone", (digest("gone"),), KeyLimits(jobs=2, max_tokens=9, reasoning_effort="low"))


def test_limits_of_the_present_key_count(limits: JobLimits) -> None:
    assert limits.of(claim("alice", limits_text(GONE))) == ALICE.limits
    assert limits.of(claim("bob", limits_text(GONE))) == limits.of(claim(None)) == KeyLimits()


def test_limits_stored_with_a_job_hold_after_its_key_was_removed(limits: JobLimits) -> None:
    assert limits.of(claim("gone", limits_text(GONE))) == GONE.limits
    assert limits.of(claim("gone", limits_text(BOB))) == limits.of(claim("gone", limits_text(None))) == KeyLimits()
    assert limits.of(claim("gone", '{"jobs": 3, "of_a_later_version": {}}')) == KeyLimits(jobs=3)


def test_limits_do_not_exist_without_keys() -> None:
    assert JobLimits().of(claim("gone", limits_text(GONE))) == KeyLimits()
    assert JobLimits(KeyStore(closed=True)).of(claim("gone", limits_text(GONE))) == GONE.limits


def request(given: dict[str, Any], **limits: Any) -> dict[str, Any]:
    settings = ServerSettings(native_default_max_tokens=50)
    return dict(limited_request(given, settings, Models(), KeyLimits(**limits)).body or {})


def test_caps_hold_in_every_shape_of_input() -> None:
    chat: list[dict[str, str]] = [{"role": "user", "content": "a"}]
    assert request({"prompt": "a"}, max_tokens=9)["max_tokens"] == 9
    assert request({"messages": chat}, max_tokens=9, reasoning_effort="low")["reasoning_effort"] == "low"
    assert request({"openai_input": {"messages": chat}}, max_tokens=9)["max_completion_tokens"] == 9
    for given in (
        {"prompt": "a", "sampling_params": {"max_tokens": 10}},
        {"openai_route": "/v1/completions", "openai_input": {"prompt": "a", "max_tokens": 10}},
        {"route": "/v1/completions", "body": {"prompt": "a", "max_tokens": 10}},
    ):
        with pytest.raises(InputError, match="max_tokens must be a whole number of at most 9 with this key, got 10"):
            request(given, max_tokens=9)


def test_routes_whose_caps_are_unknown_are_closed_to_a_key_that_has_some() -> None:
    other = {"route": "/v1/chat/completions/batch", "body": {"messages": []}}
    assert request(other) == {"messages": []}
    with pytest.raises(InputError, match="not available to this key"):
        request(other, max_tokens=9)
    assert request({"route": "/tokenize", "body": {"prompt": "a"}}, max_tokens=9) == {"prompt": "a"}


@pytest.mark.parametrize("limits", [{}, {"max_tokens": 9}])
def test_background_generation_of_a_job_is_refused(limits: dict[str, Any]) -> None:
    asked = {"input": "a", "background": True}
    for given in ({"openai_route": "/v1/responses", "openai_input": asked}, {"route": "/v1/responses", "body": asked}):
        with pytest.raises(InputError, match="background is not available to jobs"):
            request(given, **limits)
    assert request({"route": "/v1/responses", "body": {**asked, "background": False}}, **limits)["input"] == "a"


@pytest.mark.parametrize(
    "given",
    [
        {"openai_input": {"messages": [], "n": 9}},
        {"openai_route": "/v1/completions", "openai_input": {"prompt": ["a"] * 9}},
        {"route": "/v1/chat/completions/batch", "body": {"messages": [[{"role": "user", "content": "a"}]] * 9}},
    ],
)
def test_generations_beyond_the_servers_bound_are_refused(given: dict[str, Any]) -> None:
    def asked(most: int) -> EngineRequest:
        return limited_request(given, ServerSettings(max_openai_requests=most), Models(), KeyLimits())

    assert asked(9).body
    with pytest.raises(InputError, match=r"This server takes 8 concurrent generations; .* is 9"):
        asked(8)


async def test_jobs_of_several_generations_wait_until_there_is_room_for_all(limits: JobLimits) -> None:
    several = EngineRequest("POST", "/v1/chat/completions", body={"n": 3})
    one = EngineRequest("POST", "/v1/chat/completions", body={})
    inside = 0

    async def job() -> None:
        nonlocal inside
        async with limits.room_for(several, most=8):
            inside += 1
            await ended.wait()

    ended = asyncio.Event()
    jobs = [asyncio.create_task(job()) for _ in range(4)]
    await asyncio.sleep(0)
    async with limits.room_for(one, most=8):
        assert inside == 2
    jobs[2].cancel()
    ended.set()
    await asyncio.gather(*jobs, return_exceptions=True)
    assert inside == 3
    async with limits.room_for(EngineRequest("POST", "/v1/chat/completions", body={"n": 8}), most=8):
        pass


class Line:
    """Jobs that come for room, and the order in which they came in."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.inside: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, limits: JobLimits, *jobs: tuple[str, int]) -> None:
        for name, generations in jobs:
            self._tasks[name] = asyncio.create_task(self._run(limits, name, generations))
        await many_turns()

    async def _run(self, limits: JobLimits, name: str, generations: int) -> None:
        request = EngineRequest("POST", "/v1/chat/completions", body={"n": generations})
        async with limits.room_for(request, self.most):
            self.inside.append(name)
            await asyncio.Event().wait()

    async def leave(self, *names: str) -> None:
        for name in names:
            self._tasks[name].cancel()
        await asyncio.wait([self._tasks[name] for name in names])
        await many_turns()


async def test_waiting_job_is_not_overtaken(limits: JobLimits) -> None:
    line = Line(8)
    await line.come(limits, ("a", 2), ("b", 2), ("c", 2), ("big", 8), ("d", 2), ("e", 2))
    assert line.inside == ["a", "b", "c"], "there is room for d, but not yet for who came before it"
    await line.leave("a", "b")
    assert line.inside == ["a", "b", "c"]
    await line.leave("c")
    assert line.inside == ["a", "b", "c", "big"]
    await line.leave("big")
    assert line.inside == ["a", "b", "c", "big", "d", "e"]
    await line.leave("d", "e")


async def test_waiting_jobs_of_several_workers_take_turns(limits: JobLimits) -> None:
    line, other = Line(8), JobLimits(limits.keys, limits.admission)
    await line.come(limits, *[(f"a{i}", 2) for i in range(8)])
    await line.come(other, ("big", 8))
    for i in range(4):
        await line.leave(f"a{i}")
    assert line.inside == ["a0", "a1", "a2", "a3", "a4"], "which was the first in the line before big came"
    await line.leave("a4")
    assert line.inside[5:] == ["big"]
    await line.leave("big")
    assert line.inside[6:] == ["a5", "a6", "a7"]
    await line.leave("a5", "a6", "a7")


@pytest.mark.parametrize("gone", [["first"], ["second"], ["next"], ["first", "second", "next"]])
async def test_waiting_job_that_is_cancelled_leaves_nothing_behind(limits: JobLimits, gone: list[str]) -> None:
    line, other = Line(8), JobLimits(limits.keys, limits.admission)
    await line.come(limits, ("a", 8), ("first", 8), ("next", 8))
    await line.come(other, ("second", 8))
    await line.leave(*gone)
    await line.leave("a")
    for left in [name for name in ("first", "second", "next") if name not in gone]:
        assert line.inside[-1] == left
        await line.leave(left)
    await line.come(limits, ("last", 8))
    assert line.inside[-1] == "last"
    await line.leave("last")


def test_request_without_caps_is_unchanged() -> None:
    assert request({"prompt": "a"}, jobs=1)["max_tokens"] == 50
