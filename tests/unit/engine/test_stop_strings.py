"""Stop strings in a text that grows. With vLLM's parser and detokenizer: tests/contract/test_harmony.py."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.engine.harmony_tokens import CHANNEL, END, FINAL, MESSAGE
from gptoss_bento.engine.stop_strings import FinalStop, StoppingDetokenizer, StopRule, StopSearch, stop_rule


def passed(search: StopSearch, *parts: str) -> list[str]:
    return [search.add(part) for part in parts]


def test_rule_is_none_without_a_stop_string() -> None:
    empty: list[Any] = [None, [], ()]
    assert [stop_rule(SimpleNamespace(stop=stop)) for stop in empty] == [None] * 3
    assert stop_rule(SimpleNamespace()) is None, "Anthropic's and others' requests need not have the field"


def test_rule_is_read_from_a_request() -> None:
    request = SimpleNamespace(stop="a", include_stop_str_in_output=True, min_tokens=3)

    assert stop_rule(request) == StopRule(("a",), included=True, min_tokens=3)
    assert stop_rule(SimpleNamespace(stop=["a", "b"])) == StopRule(("a", "b"))


def test_text_ends_before_its_first_stop_string() -> None:
    search = StopSearch(StopRule(("STOP", "END")))

    assert passed(search, "a S", "T", "x E", "N", "D b", "c") == ["a ", "", "STx ", "", "", ""]
    assert (search.found, search.rest(), search.passed) == ("END", "", len("a STx "))


def test_text_ends_after_its_first_stop_string_if_that_is_included() -> None:
    search = StopSearch(StopRule(("STOP",), included=True))

    assert passed(search, "a S", "T", "OP b", "c") == ["a S", "T", "OP", ""]
    assert search.found == "STOP"


def test_text_that_only_starts_like_a_stop_string_is_returned_at_the_end() -> None:
    search = StopSearch(StopRule(("STOP",)))

    assert search.add("a STO") == "a "
    assert search.rest() == "STO"
    assert search.found is None


def test_stop_string_that_is_complete_first_counts() -> None:
    search = StopSearch(StopRule(("bcd", "c")))
    search.add("abcd")

    assert search.found == "c"


def test_one_of_many_stop_strings_is_found() -> None:
    search = StopSearch(StopRule(tuple(f"x{number}y" for number in range(1000))))

    assert "".join(passed(search, "ax", "7", "z x9", "99", "y", "b")) == "ax7z "
    assert search.found == "x999y"


def test_stop_string_before_the_search_is_armed_is_text() -> None:
    search = StopSearch(StopRule(("aa",)))

    assert search.add("aa", armed=False) == "a"
    assert search.found is None
    assert search.add("a") == "", "it is complete with what came now"
    assert search.found == "aa"


texts = st.lists(st.text("abc", max_size=3), max_size=20)
stops = st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3)


@given(texts, stops, st.booleans())
def test_text_of_any_parts_is_that_of_single_characters(parts: list[str], strings: list[str], included: bool) -> None:
    rule, text = StopRule(tuple(strings), included), "".join(parts)
    whole, single = StopSearch(rule), StopSearch(rule)
    got = "".join(map(whole.add, parts)) + whole.rest()

    assert got == "".join(map(single.add, text)) + single.rest()
    assert whole.found == single.found


@given(texts, stops)
def test_shown_text_has_no_stop_string(parts: list[str], strings: list[str]) -> None:
    search, text = StopSearch(StopRule(tuple(strings))), "".join(parts)
    got = "".join(map(search.add, parts)) + search.rest()

    assert text.startswith(got)
    assert not any(one in got for one in strings)
    assert (got == text) == (search.found is None)
    assert len(got) == search.passed


class Parser:
    """Reads tokens of this alphabet: control tokens as they are, other ids as characters."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.current_channel: str | None = None
        self.current_recipient: str | None = None
        self.last_content_delta: str | None = None

    def process(self, token: int) -> None:
        self.last_content_delta = None
        if token == END:
            self.messages.append("a message")
            self.current_channel = None
        elif token in (CHANNEL, FINAL, MESSAGE):
            self.current_channel = {CHANNEL: "analysis", FINAL: "final"}.get(token, self.current_channel)
        else:
            self.last_content_delta = chr(token)

    def process_eos(self) -> None: ...


class Detokenizer:
    """As much of vLLM's as is used."""

    stop: Sequence[str] = ("x",)
    stop_buffer_length = 7

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.terminated: list[bool] = []

    def update(self, new_token_ids: list[int], stop_terminated: bool) -> None:
        self.token_ids += new_token_ids
        self.terminated.append(stop_terminated)


def stopping(*strings: str, min_tokens: int = 0) -> tuple[StoppingDetokenizer, Detokenizer]:
    own, parser = Detokenizer(), Parser()
    rule = StopRule(strings, min_tokens=min_tokens)
    return StoppingDetokenizer(own, FinalStop(parser, rule)), own


THOUGHT = [CHANNEL, MESSAGE, *map(ord, "ab"), END]
ANSWER = [FINAL, MESSAGE, *map(ord, "xaby")]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_detokenizer_stops_in_the_answer_and_drops_later_tokens(size: int) -> None:
    detokenizer, own = stopping("ab")
    tokens, found = THOUGHT + ANSWER, None
    for start in range(0, len(tokens), size):
        assert found is None
        if found := detokenizer.update(tokens[start : start + size], False):
            break

    assert found == "ab"
    assert detokenizer.token_ids == tokens[:-1], "the rest of the interface is vLLM's"
    assert own.terminated[-1] is False


def test_detokenizer_of_vllm_looks_for_no_stop_string_itself() -> None:
    detokenizer, own = stopping("ab")

    assert (own.stop, own.stop_buffer_length) == ([], 0)
    assert detokenizer.update([*THOUGHT, *ANSWER[:3]], True) is None
    assert own.terminated == [True]


def test_stop_string_does_not_span_two_messages() -> None:
    detokenizer, _ = stopping("ab")
    split: list[Any] = [*ANSWER[:4], END, FINAL, MESSAGE, ord("b")]

    assert detokenizer.update(split, False) is None


def test_first_tokens_are_no_stop_string_by_min_tokens() -> None:
    detokenizer, _ = stopping("ab", min_tokens=len(THOUGHT + ANSWER[:5]))

    assert detokenizer.update(THOUGHT + ANSWER, False) is None
    assert detokenizer.update(list(map(ord, "ab")), False) == "ab"
