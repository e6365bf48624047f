"""Rate limits and concurrency limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from gptoss_bento.access import shared_counters
from gptoss_bento.access.admission import PLATFORM_RULES, Admission, Rate, RefusedError, Rule, engine_rule, key_rules
from gptoss_bento.access.shared_counters import SharedCounters
from gptoss_bento.config.api_keys import Key, KeyLimits
from tests.fakes import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(clock: Clock) -> Admission:
    return Admission(clock=clock)


def refused(admission: Admission, *rules: Rule) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        admission.enter(rules)
    return caught.value


def test_rate_limit_is_a_bucket_that_refills_evenly(admission: Admission, clock: Clock) -> None:
    rule = Rule("a", "This key", Rate(60))
    for _ in range(60):
        admission.enter([rule]).leave()
    error = refused(admission, rule)
    assert str(error) == "This key may make 60 requests in 60 s. Try again later."
    assert error.headers["Retry-After"] == "1"
    clock.now += 1
    admission.enter([rule]).leave()
    refused(admission, rule)


def test_rate_limit_wait_is_computed_from_the_rate(admission: Admission, clock: Clock) -> None:
    rule = Rule("a", "This key", Rate(2))
    admission.enter([rule])
    admission.enter([rule])
    assert refused(admission, rule).headers["Retry-After"] == "30"
    clock.now += 12.5
    assert refused(admission, rule).headers["Retry-After"] == "18"
    clock.now += 18
    admission.enter([rule])


def test_rate_limit_of_tokens_is_charged_at_the_end_and_may_leave_a_debt(admission: Admission, clock: Clock) -> None:
    rule = Rule("a", "This key", tokens=Rate(600))
    first = admission.enter([rule])
    second = admission.enter([rule])
    assert first.counts_tokens
    first.leave(500)
    second.leave(700)
    error = refused(admission, rule)
    assert str(error) == "This key may use 600 tokens in 60 s. Try again later."
    assert error.headers["Retry-After"] == "61"  # 600 of debt, and one more
    clock.now += 61
    admission.enter([rule]).leave()


def test_rate_limit_counts_charges_without_admission(admission: Admission) -> None:
    rule = Rule("a", "This key", Rate(5), Rate(100))
    admission.charge([rule], 100)
    assert admission.enter([Rule("a", "", Rate(5))]).headers["x-ratelimit-remaining-requests"] == "4"
    refused(admission, rule)


def test_concurrency_limit_waits_half_of_the_mean_duration(admission: Admission, clock: Clock) -> None:
    rule = Rule("a", "This key", concurrent=2)
    grants = [admission.enter([rule]), admission.enter([rule])]
    assert refused(admission, rule).headers["Retry-After"] == "2"  # nothing has ended yet: a guess
    clock.now += 30
    grants[0].leave()
    grants[0] = admission.enter([rule])
    error = refused(admission, rule)
    assert str(error) == "This key may have 2 concurrent requests. Try again later."
    assert error.headers["Retry-After"] == "15"


def test_admission_takes_from_no_rule_if_one_refuses(admission: Admission) -> None:
    all_of_them, rate, full = Rule("all", "", concurrent=9), Rule("a", "", Rate(3)), Rule("b", "", concurrent=1)
    admission.enter([full])
    refused(admission, all_of_them, rate, full)
    assert admission.enter([rate]).headers["x-ratelimit-remaining-requests"] == "2"
    for _ in range(9):
        admission.enter([all_of_them])


def test_rate_limit_headers_are_in_openais_form(admission: Admission) -> None:
    rule = Rule("a", "", Rate(600), Rate(60_000))
    grant = admission.enter([rule])
    assert grant.headers == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-reset-requests": "100ms",
        "x-ratelimit-limit-tokens": "60000",
        "x-ratelimit-remaining-tokens": "60000",
        "x-ratelimit-reset-tokens": "0ms",
    }
    grant.leave(2500)
    assert admission.enter([rule]).headers["x-ratelimit-reset-tokens"] == "2.5s"
    admission.charge([rule], 90_000)
    assert refused(admission, rule).headers["x-ratelimit-remaining-tokens"] == "0"
    assert refused(admission, rule).headers["x-ratelimit-reset-tokens"] == "1m33s"
    assert admission.enter([engine_rule(5)]).headers == {}


def test_admission_counts_over_all_processes(tmp_path: Path, clock: Clock) -> None:
    rule = Rule("a", "", Rate(2), concurrent=2)
    one, other = Admission(clock=clock), Admission(SharedCounters(tmp_path / "limits"), clock)
    one.share(tmp_path / "limits")
    one.enter([rule])
    other.enter([rule])
    refused(one, rule)
    refused(other, rule)


def test_rate_limit_headers_list_all_rates_also_if_another_rule_refuses(admission: Admission) -> None:
    engine, rate = engine_rule(1), Rule("a", "This key", Rate(60), Rate(100))
    admission.enter([engine])
    error = refused(admission, engine, rate)
    assert str(error).startswith("This server may have 1 concurrent requests")
    assert error.headers == {
        "Retry-After": "2",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "60",
        "x-ratelimit-reset-requests": "0ms",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "100",
        "x-ratelimit-reset-tokens": "0ms",
    }


def test_rate_limit_is_unchanged_after_a_refund(admission: Admission, clock: Clock) -> None:
    rule = Rule("a", "This key", Rate(2), concurrent=2)
    first, second = admission.enter([rule]), admission.enter([rule])
    assert second.refund()["x-ratelimit-remaining-requests"] == "1"
    second.leave()
    third = admission.enter([rule])
    refused(admission, rule)
    clock.now += 60
    assert third.refund()["x-ratelimit-remaining-requests"] == "2", "never more than there can be"
    for grant in (first, third):
        grant.leave()
    assert third.refund()["x-ratelimit-reset-requests"] == "0ms"


def test_admission_evicts_idle_names_and_refuses_too_many_with_503(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    monkeypatch.setattr(shared_counters, "ROWS", 10)
    admission = Admission(clock=clock)
    grants = [
        admission.enter([Rule(f"old {i}", "", Rate(5), Rate(100), concurrent=2, pinned=False)]) for i in range(10)
    ]
    for name in ("c", "d"):
        error = refused(admission, Rule(name, "", Rate(5), pinned=False))
        assert (error.status, error.headers) == (503, {"Retry-After": "60"})
    admission.charge([Rule("d", "", tokens=Rate(5), pinned=False)], 5)
    admission.enter([engine_rule(1), *PLATFORM_RULES.values()])
    assert [record.message for record in caplog.records] == [
        "Limits cannot be counted for all keys: more than 10 names are in use. Requests of others are refused."
    ]
    grants.pop().leave()
    for i in range(30):
        clock.now += 61
        admission.enter([Rule(f"new {i}", "", Rate(5), pinned=False)]).leave()
    for grant in grants:
        grant.leave(100)


def test_admission_charges_a_key_whose_row_was_evicted_and_no_other(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(shared_counters, "ROWS", 1)
    admission = Admission(clock=clock)
    slow, other = (Rule(name, "", tokens=Rate(100), pinned=False) for name in ("slow", "other"))
    grant = admission.enter([slow])
    clock.now += 61
    admission.enter([other]).leave()
    grant.leave(200)  # there is no row for it
    assert admission.enter([other]).headers["x-ratelimit-remaining-tokens"] == "100"
    clock.now += 61
    grant.leave(200)
    refused(admission, slow)


def test_rate_limit_rules_are_separate_for_each_key() -> None:
    limits = KeyLimits(requests_per_minute=1, streams=2, jobs=3, max_tokens=4)
    assert key_rules(None, streams=True) == key_rules(Key("a", ()), streams=True) == ()
    assert key_rules(Key("a", (), KeyLimits(jobs=3, max_tokens=4)), streams=True) == ()
    assert key_rules(Key("a", (), limits), streams=True) == (Rule("key a", "This key", Rate(1), None, 2, pinned=False),)
    assert key_rules(Key("a", (), limits), streams=False) == (
        Rule("key a", "This key", Rate(1), None, None, pinned=False),
    )
    assert key_rules(Key("a", (), KeyLimits(streams=2)), streams=False) == ()


def test_admission_takes_and_returns_several_slots_of_a_request(admission: Admission) -> None:
    rule = Rule("a", "This key", concurrent=5)
    grant = admission.enter([rule], 4)
    with pytest.raises(RefusedError, match="may have 5 concurrent requests, and this one counts as 2"):
        admission.enter([rule], 2)
    admission.enter([rule]).leave()
    grant.leave()
    admission.enter([rule], 5).leave()


def test_rate_limit_counts_several_slots_as_one_request(admission: Admission) -> None:
    rule = Rule("a", "This key", Rate(3))
    assert admission.enter([rule], 50).headers["x-ratelimit-remaining-requests"] == "2"


def test_concurrency_in_use_is_that_of_all_that_was_admitted(admission: Admission) -> None:
    rule = engine_rule(100)
    assert admission.in_use(rule) == 0
    one = admission.enter((rule,), 3)
    admission.enter((rule,))
    assert admission.in_use(engine_rule(5)) == 4
    one.leave()

    assert admission.in_use(rule) == 1
