"""Domains that may be visited: the operator's lists and the request's."""

from __future__ import annotations

import pytest

from gptoss_bento.tools.browser.domains import DomainRule, DomainRules


@pytest.mark.parametrize("host", ["example.com", "www.example.com", "EXAMPLE.COM", "example.com.", "a.b.example.com"])
def test_domain_rule_holds_for_all_below_a_domain(host: str) -> None:
    assert DomainRule.of(["example.com"]).allows(host)
    assert not DomainRule.of((), ["example.com"]).allows(host)


@pytest.mark.parametrize("host", ["notexample.com", "example.com.evil.org", "com", "evil.org"])
def test_domain_rule_distinguishes_names_that_look_alike(host: str) -> None:
    assert not DomainRule.of(["example.com"]).allows(host)


def test_domain_rule_takes_domains_however_they_are_written() -> None:
    rule = DomainRule.of(["*.Example.com", " bücher.example ", "www.example.org."])

    assert rule.allowed == ("example.com", "xn--bcher-kva.example", "www.example.org")


@pytest.mark.parametrize(
    ("domain", "host"),
    [
        ("straße.example", "xn--strae-oqa.example"),
        ("www.βόλος.com", "www.xn--nxasmm1c.com"),
        ("faß.de", "xn--fa-hia.de"),
    ],
)
def test_domain_with_a_letter_of_the_newer_standard_is_its_own(domain: str, host: str) -> None:
    older = domain.encode("idna").decode()

    assert DomainRule.of([domain]).allowed == (host,)
    assert not DomainRule.of([domain]).allows(older)
    assert not DomainRule.of((), [domain]).allows(host)
    assert DomainRule.of((), [domain]).allows(older)


def test_domain_that_is_blocked_is_blocked_within_what_is_allowed() -> None:
    rule = DomainRule.of(["example.com"], ["private.example.com"])

    assert rule.allows("www.example.com")
    assert not rule.allows("x.private.example.com")


def test_domain_must_pass_the_operators_and_the_requests_rule() -> None:
    rules = DomainRules(
        (DomainRule.of(["example.com"], ["bad.example.com"]), DomainRule.of(["www.example.com", "x.org"]))
    )

    assert rules.allows("www.example.com")
    assert not rules.allows("example.com")
    assert not rules.allows("x.org")
    assert rules.allowed == ("www.example.com",)
    assert rules.blocked == ("bad.example.com",)


def test_domain_rules_without_lists_allow_all() -> None:
    assert DomainRules((DomainRule(), DomainRule())).allows("anything.example")
