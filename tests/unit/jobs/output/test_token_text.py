"""Text divided among tokens."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gptoss_bento.jobs.output.token_text import TextSplitter


def test_tokens_have_their_own_text() -> None:
    assert TextSplitter().split("Hello world", 2, [b"Hello", b" world"]) == ["Hello", " world"]


def test_unfinished_character_belongs_to_its_last_byte() -> None:
    assert TextSplitter().split("aé€", 4, [b"a\xc3", b"\xa9\xe2", b"\x82", b"\xac"]) == ["a", "é", "", "€"]


def test_character_may_be_finished_by_the_next_event() -> None:
    splitter = TextSplitter()

    assert splitter.split("", 1, [b"\xe2\x82"]) == [""]
    assert splitter.split("€!x", 3, [b"\xac", b"!", b"x"]) == ["€", "!", "x"]


def test_token_left_out_of_the_text_has_no_part() -> None:
    assert TextSplitter().split("ab", 3, [b"a", b"<|end|>", b"b"]) == ["a", "", "b"]


def test_last_token_has_the_text_without_pieces() -> None:
    assert TextSplitter().split("abc", 3, None) == ["", "", "abc"]


def test_text_without_a_token_waits_for_the_next() -> None:
    splitter = TextSplitter()

    assert splitter.split("echo ", 0, None) == []
    assert splitter.split("a", 1, [b"a"]) == ["echo a"]
    assert splitter.rest() == ""


def test_text_that_no_token_follows_is_the_rest() -> None:
    splitter = TextSplitter()
    splitter.split("tail", 0, [])

    assert splitter.rest() == "tail"


@given(st.text(max_size=30), st.data())
def test_parts_joined_are_the_text_however_it_is_split(text: str, data: st.DataObject) -> None:
    raw, splitter, parts, upto = text.encode(), TextSplitter(), [], 0
    borders = sorted(data.draw(st.sets(st.integers(0, len(raw)))) | {0, len(raw)})
    pieces = [raw[a:b] for a, b in pairwise(borders)]
    while pieces:
        event = [pieces.pop(0) for _ in range(data.draw(st.integers(1, len(pieces))))]
        before, upto = upto, upto + sum(map(len, event))
        seen, now = (raw[:end].decode(errors="ignore") for end in (before, upto))
        got = splitter.split(now[len(seen) :], len(event), data.draw(st.sampled_from([event, None])))
        assert len(got) == len(event)
        parts += got

    assert "".join(parts) + splitter.rest() == text
