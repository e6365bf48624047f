from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.http.json_schema.regex import Flaw, flaw_of


@pytest.mark.parametrize(
    "pattern",
    [
        *[
            "",
            "a",
            "^a$",
            r"^\d{3}$",
            "[a-z]+",
            "[^a]",
            r"[\w.-]",
            "[a-]",
            "[-a]",
            "[a-z-9]",
            "(a|b)",
            "(?:a)",
            "(?<name>a)",
        ],
        *[
            "a*?",
            "a{2}",
            "a{2,}",
            "a{2,3}",
            r"\/",
            r"\x41",
            r"\u0041",
            r"\u{41}",
            "]",
            "}",
            "(|a)",
            "(^a$)",
            "ä",
            r"\cA",
        ],
    ],
)
def test_pattern_without_flaw(pattern: str) -> None:
    assert flaw_of(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("[", "has an unclosed [ at position 0"),
        ("a[b", "has an unclosed [ at position 1"),
        ("[]", "has an empty [] at position 0"),
        ("(a", "has an unclosed ( at position 0"),
        ("a)", "has an unmatched ) at position 1"),
        ("*a", "has * at position 0 with nothing to repeat"),
        ("(+a)", "has + at position 1 with nothing to repeat"),
        ("^*", "has * at position 1 with nothing to repeat"),
        ("a{2,1}", "has {2,1} at position 1: 2 is above 1"),
        ("[z-a]", "has the range z-a in the wrong order at position 0"),
        ("a\\", "ends in a backslash"),
        (r"\x4", r"has an unfinished \x at position 0"),
    ],
)
def test_pattern_that_is_none_has_the_place(pattern: str, reason: str) -> None:
    flaw = flaw_of(pattern)

    assert flaw == (Flaw.WRONG, reason)


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        *[(r"(a)\1", r"\1"), (r"\bword\b", r"\b"), (r"\p{L}", r"\p"), (r"[\p{L}]", r"\p"), ("(?<=a)b", "lookbehind")],
        *[("(?i)a", "flags"), ("(?>a)", "flags"), ("a{x}", "count"), ("a++", "repetition"), (r"[a-\d]", "range")],
        *[("[\n]", "line break"), (r"\k<a>", r"\k")],
    ],
)
def test_pattern_that_has_no_grammar_is_unknown(pattern: str, what: str) -> None:
    flaw = flaw_of(pattern)

    assert flaw is not None
    assert flaw.kind is Flaw.UNKNOWN
    assert what in flaw.reason


@pytest.mark.parametrize("pattern", ["^(?!Ada).*$", "(?=a)a", "a^b", "a$b"])
def test_pattern_that_is_enforced_in_part_is_ignored(pattern: str) -> None:
    flaw = flaw_of(pattern)

    assert flaw is not None
    assert flaw.kind is Flaw.IGNORED


@given(st.text(alphabet=r"ab\[](){}^$|*+?.-,:=!<>0129xudwpk", max_size=12))
def test_pattern_of_any_kind_is_read_to_its_end(pattern: str) -> None:
    flaw_of(pattern)
