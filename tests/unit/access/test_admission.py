"""Rates and numbers at once."""

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


def test_a_rate_is_a_bucket_that_flows_back_evenly(admission: Admission, clock: Clock) -> None:
    rule = Rule("a", "This key", Rate(60))
    for _ in range(60):
        admission.enter([rule]).leave()
    error = refused(admission, rule)
    assert str(error) == "This key may make 60 requests in 60 s. Try again later."
    assert error.headers["Retry-After"] == "1"
    clock.now += 1
    admission.enter([rule]).leave()
    refused(admission, rule)


def test_how_long_to_wait_is_computed_from_the_rate(admission: Admission, clock: Clock) -> None:
    rule = Rule("a", "This key", Rate(2))
    admission.enter([rule])
    admission.enter([rule])
    assert refused(admission, rule).headers["Retry-After"] == "30"
    clock.now += 12.5
    assert refused(admission, rule).headers["Retry-After"] == "18"
    clock.now += 18
    admission.enter([rule])


def test_tokens_are_charged_at_the_end_and_may_leave_a_debt(admission: Admission, clock: Clock) -> None:
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


def test_what_is_charged_without_coming_in_counts_too(admission: Admission) -> None:
    rule = Rule("a", "This key", Rate(5), Rate(100))
    admission.charge([rule], 100)
    assert admission.enter([Rule("a", "", Rate(5))]).headers["x-ratelimit-remaining-requests"] == "4"
    refused(admission, rule)


def test_so_many_at_once_and_the_wait_is_half_of_what_they_take(admission: Admission, clock: Clock) -> None:
    rule = Rule("a", "This key", at_once=2)
    grants = [admission.enter([rule]), admission.enter([rule])]
    assert refused(admission, rule).headers["Retry-After"] == "2"  # nothing has ended yet: a guess
    clock.now += 30
    grants[0].leave()
    grants[0] = admission.enter([rule])
    error = refused(admission, rule)
    assert str(error) == "This key may have 2 requests at once. Try again later."
    assert error.headers["Retry-After"] == "15"


def test_nothing_is_taken_where_one_rule_says_no(admission: Admission) -> None:
    all_of_them, rate, full = Rule("all", "", at_once=9), Rule("a", "", Rate(3)), Rule("b", "", at_once=1)
    admission.enter([full])
    refused(admission, all_of_them, rate, full)
    assert admission.enter([rate]).headers["x-ratelimit-remaining-requests"] == "2"
    for _ in range(9):
        admission.enter([all_of_them])


def test_headers_say_where_the_rates_stand_as_openai_writes_it(admission: Admission) -> None:
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


def test_all_processes_count_together(tmp_path: Path, clock: Clock) -> None:
    rule = Rule("a", "", Rate(2), at_once=2)
    one, other = Admission(clock=clock), Admission(SharedCounters(tmp_path / "limits"), clock)
    one.share(tmp_path / "limits")
    one.enter([rule])
    other.enter([rule])
    refused(one, rule)
    refused(other, rule)


def test_who_is_kept_out_by_one_rule_hears_of_all_rates(admission: Admission) -> None:
    engine, rate = engine_rule(1), Rule("a", "This key", Rate(60), Rate(100))
    admission.enter([engine])
    error = refused(admission, engine, rate)
    assert str(error).startswith("This server may have 1 requests at once")
    assert error.headers == {
        "Retry-After": "2",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "60",
        "x-ratelimit-reset-requests": "0ms",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "100",
        "x-ratelimit-reset-tokens": "0ms",
    }


def test_a_request_that_is_paid_back_leaves_the_rate_as_it_was(admission: Admission, clock: Clock) -> None:
    rule = Rule("a", "This key", Rate(2), at_once=2)
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


def test_names_that_come_and_go_are_no_trouble_and_too_many_at_once_a_503(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    monkeypatch.setattr(shared_counters, "ROWS", 10)
    admission = Admission(clock=clock)
    grants = [admission.enter([Rule(f"old {i}", "", Rate(5), Rate(100), at_once=2, stays=False)]) for i in range(10)]
    for name in ("c", "d"):
        error = refused(admission, Rule(name, "", Rate(5), stays=False))
        assert (error.status, error.headers) == (503, {"Retry-After": "60"})
    admission.charge([Rule("d", "", tokens=Rate(5), stays=False)], 5)
    admission.enter([engine_rule(1), *PLATFORM_RULES.values()])
    assert [record.message for record in caplog.records] == [
        "Limits cannot be counted for all keys: more than 10 names are in use. Requests of others are refused."
    ]
    grants.pop().leave()
    for i in range(30):
        clock.now += 61
        admission.enter([Rule(f"new {i}", "", Rate(5), stays=False)]).leave()
    for grant in grants:
        grant.leave(100)


def test_a_key_whose_row_was_given_away_meanwhile_is_charged_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(shared_counters, "ROWS", 1)
    admission = Admission(clock=clock)
    slow, other = (Rule(name, "", tokens=Rate(100), stays=False) for name in ("slow", "other"))
    grant = admission.enter([slow])
    clock.now += 61
    admission.enter([other]).leave()
    grant.leave(200)  # there is no row for it
    assert admission.enter([other]).headers["x-ratelimit-remaining-tokens"] == "100"
    clock.now += 61
    grant.leave(200)
    refused(admission, slow)


def test_a_key_without_limits_has_no_rule_and_each_has_its_own() -> None:
    limits = KeyLimits(requests_per_minute=1, streams=2, jobs=3, max_tokens=4)
    assert key_rules(None, streams=True) == key_rules(Key("a", ()), streams=True) == ()
    assert key_rules(Key("a", (), KeyLimits(jobs=3, max_tokens=4)), streams=True) == ()
    assert key_rules(Key("a", (), limits), streams=True) == (Rule("key a", "This key", Rate(1), None, 2, stays=False),)
    assert key_rules(Key("a", (), limits), streams=False) == (
        Rule("key a", "This key", Rate(1), None, None, stays=False),
    )
    assert key_rules(Key("a", (), KeyLimits(streams=2)), streams=False) == ()


def test_a_request_may_need_several_places_and_gives_them_all_back(admission: Admission) -> None:
    rule = Rule("a", "This key", at_once=5)
    grant = admission.enter([rule], 4)
    with pytest.raises(RefusedError, match="may have 5 requests at once, and this one counts as 2"):
        admission.enter([rule], 2)
    admission.enter([rule]).leave()
    grant.leave()
    admission.enter([rule], 5).leave()


def test_several_places_are_one_request_of_a_rate(admission: Admission) -> None:
    rule = Rule("a", "This key", Rate(3))
    assert admission.enter([rule], 50).headers["x-ratelimit-remaining-requests"] == "2"
