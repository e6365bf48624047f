"""What a parser passes on of an answer. With vLLM's own parser beneath: tests/contract/test_harmony.py."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from openai_harmony import Message, Role

from gptoss_bento.engine.harmony_parser import LOGPROBS, AnswerFilter, LogprobsOfChunk, answer_parser
from gptoss_bento.engine.stop_strings import StopRule


class Segment(NamedTuple):
    """As vLLM has it."""

    channel: str | None
    recipient: str | None
    delta: str
    completed_message: Message | None = None


def final(delta: str) -> Segment:
    return Segment("final", None, delta)


def ended(text: str, channel: str = "final") -> Segment:
    message = Message.from_role_and_content(Role.ASSISTANT, text).with_channel(channel)
    return Segment(None, None, "", message)


def read(answer: AnswerFilter, *segments: Segment) -> list[Segment]:
    """All that is passed on; each segment has its delta as entry."""
    return [
        kept
        for number, it in enumerate(segments, 1)
        for kept in answer.read(it, number, None if it.completed_message else it.delta)
    ]


def texts(segments: list[Segment]) -> list[str]:
    return [it.completed_message.content[0].text for it in segments if it.completed_message]


def test_segments_pass_unchanged_without_a_rule() -> None:
    segments = [Segment("analysis", None, "Hm"), ended("Hm", "analysis"), final("yes"), ended("yes")]
    answer = AnswerFilter(None)

    assert read(answer, *segments) == segments
    assert answer.take_shown() == ["yes"]
    assert answer.take_shown() == [], "once"


def test_stop_string_shortens_the_message_and_its_deltas() -> None:
    answer = AnswerFilter(StopRule(("b c",)))
    kept = read(answer, final("a b"), final(" "), final("c d"), ended("a b c d"))

    assert [it.delta for it in kept] == ["a ", "", "", ""]
    assert texts(kept) == ["a "]
    assert answer.stopped
    assert answer.shown == ["a b"], "its first character is shown"


def test_message_without_text_is_left_out_behind_another_one() -> None:
    first, second = AnswerFilter(StopRule(("a",))), AnswerFilter(StopRule(("a",)))
    thought = ended("Hm", "analysis")

    assert texts(read(first, thought, final("a"), ended("a"))) == ["Hm"], "a stream has no event of it"
    assert texts(read(second, final("a"), ended("a"))) == [""], "without any message a response would be incomplete"


def test_text_held_back_comes_before_the_end_of_its_message() -> None:
    answer = AnswerFilter(StopRule(("b c",)))
    kept = read(answer, final("a b"), final(" "), ended("a b "))

    assert [it.delta for it in kept] == ["a ", "", "b ", ""]
    assert (kept[2].channel, kept[2].completed_message) == ("final", None)
    assert texts(kept) == ["a b "]
    assert answer.shown == ["a b", " "]


@pytest.mark.parametrize(
    ("channel", "recipient", "shown"),
    [("analysis", None, []), ("commentary", None, ["a b"]), ("commentary", "functions.f", []), ("final", "f", [])],
)
def test_other_channels_have_no_stop_string(channel: str, recipient: str | None, shown: list[str]) -> None:
    answer, segment = AnswerFilter(StopRule(("b",))), Segment(channel, recipient, "a b")

    assert read(answer, segment) == [segment]
    assert (answer.stopped, answer.shown) == (False, shown)


def test_first_tokens_have_no_stop_string_by_min_tokens() -> None:
    answer = AnswerFilter(StopRule(("a",), min_tokens=2))

    assert [it.delta for it in read(answer, final("a"), final("a"), final("a"))] == ["a", "a", ""]
    assert answer.stopped


def test_logprobs_are_taken_once_by_the_chunk_that_they_are_of() -> None:
    chunk, logprobs = LogprobsOfChunk(), SimpleNamespace(content=["a", "b"])

    assert chunk.put(logprobs) is logprobs
    assert chunk.take(2) is logprobs
    assert chunk.take(2) is None
    chunk.put(logprobs)
    assert chunk.take(3) is None, "of another chunk"
    chunk.put(SimpleNamespace(content=[]))
    assert chunk.take(0) is None


@dataclass
class Chunk:
    """As vLLM has it."""

    segments: list[Segment]


class Harmony:
    """As much of vLLM's parser as is changed: each token is a word of the answer."""

    WORDS = ("It", " is", " Paris", ".")

    def __init__(self) -> None:
        self._num_counted_tokens = 0
        self._parser = SimpleNamespace(last_content_delta="")

    def process_chunk(self, token_ids: list[int]) -> Any:
        self._num_counted_tokens += len(token_ids)
        return Chunk([final(self.WORDS[token]) for token in token_ids])

    def flush(self) -> list[Segment]:
        return [ended("".join(self.WORDS[: self._num_counted_tokens]))]

    def parse(self, model_output: str, request: Any, auto: bool, tokens: list[int]) -> tuple[None, str | None, None]:
        del model_output, request, auto
        segments = self.process_chunk(tokens).segments + self.flush()
        return None, texts(segments)[-1] or None, None

    def parse_delta(self, delta_text: str, delta_token_ids: list[int], request: Any, *, finished: bool) -> str:
        del delta_text, request
        segments = self.process_chunk(delta_token_ids).segments + (self.flush() if finished else [])
        return "".join(it.delta for it in segments)


Parser: Any = answer_parser(Harmony, lambda recipient: recipient.startswith("functions."))


def asked(**fields: Any) -> Any:
    return SimpleNamespace(**fields)


def test_parser_cuts_a_whole_answer_and_a_stream() -> None:
    request = asked(stop=["Paris"])
    streamed, tokens = Parser(), [0, 1, 2]

    assert Parser().parse("", request, True, tokens) == (None, "It is ", None)
    deltas = [streamed.parse_delta("", [it], request, finished=it == tokens[-1]) for it in tokens]
    assert deltas == ["It", " is", " "]


def test_parser_answers_an_empty_text_where_all_of_it_is_cut() -> None:
    assert Parser().parse("", asked(stop="It"), True, [0]) == (None, "", None)


def test_parser_without_stop_strings_leaves_each_chunk_to_vllm() -> None:
    parser = Parser().follow(asked(stop=[]))

    assert parser.parse_delta.__func__ is Harmony.parse_delta
    assert parser.process_chunk.__func__ is Harmony.process_chunk


def test_parser_keeps_the_entries_of_tokens_that_are_shown() -> None:
    logprobs = LOGPROBS.put(SimpleNamespace(content=list(Harmony.WORDS[:3])))
    Parser().parse("", asked(stop=[" Paris"], logprobs=True), True, [0, 1, 2])

    assert logprobs.content == ["It", " is"]


def test_parser_streams_text_that_is_recovered_at_the_end() -> None:
    parser = Parser()
    parser._parser.last_content_delta = "recovered"

    assert parser.parse_delta("", [0], asked(stop=["x"]), finished=True) == "Itrecovered"


@pytest.mark.parametrize(
    ("channel", "recipient", "token", "counts"),
    [
        ("analysis", None, 1, True),
        ("analysis", None, 200007, False),
        ("analysis", "functions.f", 1, False),
        ("commentary", "functions.f", 1, False),
        ("commentary", "python", 1, True),
        ("commentary", None, 1, False),
        ("final", None, 1, False),
        (None, None, 1, False),
    ],
)
def test_reasoning_token_is_text_of_reasoning_or_of_a_built_in_tool(
    channel: str | None, recipient: str | None, token: int, counts: bool
) -> None:
    assert Parser()._is_reasoning_token(token, channel, recipient) is counts
