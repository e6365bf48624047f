"""Which tokens are the answer."""

from __future__ import annotations

from gptoss_bento.engine.harmony_tokens import CALL, CHANNEL, END, ENDOFTEXT, FINAL, MESSAGE, RETURN, START
from gptoss_bento.jobs.output.channels import ChannelTracker

ANALYSIS, COMMENTARY, ASSISTANT = 35644, 12606, 173781
ANALYSIS_MESSAGE = [CHANNEL, ANALYSIS, MESSAGE, 1, 2, END]
FINAL_MESSAGE = [START, ASSISTANT, CHANNEL, FINAL, MESSAGE, 3, 4, RETURN]
WHOLE = [*ANALYSIS_MESSAGE, *FINAL_MESSAGE]


def test_answer_is_the_final_channel_with_its_end() -> None:
    assert [token for token, answer in zip(WHOLE, ChannelTracker().answers(WHOLE), strict=True) if answer] == [
        3,
        4,
        RETURN,
    ]


def test_tokens_may_arrive_in_any_pieces() -> None:
    tracker = ChannelTracker()
    one_by_one = [answer for token in WHOLE for answer in tracker.answers([token])]

    assert one_by_one == ChannelTracker().answers(WHOLE)


def test_tool_call_is_no_answer() -> None:
    call = [START, ASSISTANT, CHANNEL, COMMENTARY, 7, MESSAGE, 8, CALL]

    assert not any(ChannelTracker().answers([*ANALYSIS_MESSAGE, *call]))


def test_text_final_inside_a_message_is_text() -> None:
    assert ChannelTracker().answers([CHANNEL, ANALYSIS, MESSAGE, FINAL, 1]) == [False] * 5


def test_text_without_harmony_is_all_answer() -> None:
    assert ChannelTracker().answers([5, 6, RETURN]) == [True, True, True]


# What breaks the format: engine/harmony_repair.py makes the text of it, this says whose tokens it belongs to.


def answer_of(tokens: list[int]) -> list[int]:
    return [token for token, answer in zip(tokens, ChannelTracker().answers(tokens), strict=True) if answer]


def test_final_message_without_its_beginning_is_the_answer() -> None:
    assert answer_of([*ANALYSIS_MESSAGE, *FINAL_MESSAGE[1:]]) == [3, 4, RETURN]
    assert answer_of([*ANALYSIS_MESSAGE, *FINAL_MESSAGE[2:]]) == [3, 4, RETURN]


def test_final_message_after_reasoning_without_an_end_is_the_answer() -> None:
    assert answer_of([*ANALYSIS_MESSAGE[:-1], *FINAL_MESSAGE]) == [3, 4, RETURN]


def test_text_that_comes_to_light_at_its_end_belongs_to_that_token() -> None:
    assert answer_of([*ANALYSIS_MESSAGE, START, ASSISTANT, CHANNEL, FINAL, 3, 4, RETURN]) == [RETURN]
    assert answer_of([*ANALYSIS_MESSAGE, 3, 4, RETURN]) == [RETURN]


def test_tool_call_without_its_beginning_is_no_answer() -> None:
    assert answer_of([*ANALYSIS_MESSAGE, COMMENTARY, 7, MESSAGE, 8, CALL]) == []


def test_end_too_many_is_no_answer() -> None:
    assert answer_of([*ANALYSIS_MESSAGE, END, *FINAL_MESSAGE]) == [3, 4, RETURN]


def test_end_of_text_ends_the_answer_and_after_an_end_is_none() -> None:
    assert answer_of([*ANALYSIS_MESSAGE, *FINAL_MESSAGE[:-1], ENDOFTEXT]) == [3, 4, ENDOFTEXT]
    assert answer_of([*ANALYSIS_MESSAGE, *FINAL_MESSAGE[:-1], END, ENDOFTEXT]) == [3, 4, END]
