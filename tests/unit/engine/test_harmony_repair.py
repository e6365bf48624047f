"""Token sequences that break the Harmony format, of the kinds reported of vLLM and harmony; harmony's parser reads."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_harmony import HarmonyEncoding, HarmonyError, Role, StreamableParser

from gptoss_bento.artifacts import prepare
from gptoss_bento.config import environment
from gptoss_bento.engine import harmony_repair
from gptoss_bento.engine.harmony_repair import ASSISTANT, KINDS, RepairingParser
from gptoss_bento.engine.harmony_tokens import (
    CALL,
    CHANNEL,
    CONSTRAIN,
    END,
    ENDOFTEXT,
    FIRST_SPECIAL,
    MESSAGE,
    RETURN,
    START,
)
from gptoss_bento.training import harmony_text

Read = Callable[[str], tuple[list[tuple[str | None, str | None, str]], dict[str, int]]]


@pytest.fixture(scope="module")
def encoding() -> HarmonyEncoding:
    harmony_text.use_vocabulary(prepare.find_vocabulary(environment.cache_dir()))
    return harmony_text.encoding()


def parser(encoding: HarmonyEncoding, counts: Counter[str]) -> RepairingParser:
    def count(kind: str) -> None:
        counts[kind] += 1

    return RepairingParser(lambda: StreamableParser(encoding, role=Role.ASSISTANT), encoding, HarmonyError, count)


@pytest.fixture
def read(encoding: HarmonyEncoding) -> Read:
    """The messages (channel, recipient, text) of an output, and the repairs. The deltas must add up to the texts."""

    def read(text: str) -> tuple[list[tuple[str | None, str | None, str]], dict[str, int]]:
        counts: Counter[str] = Counter()
        repairing, deltas = parser(encoding, counts), ""
        for token in encoding.encode(text, allowed_special="all"):
            before = len(repairing.messages)
            repairing.process(token)
            deltas += repairing.last_content_delta
            assert len(repairing.messages) <= before + 1, "vLLM takes one message at a time"
        repairing.process_eos()
        deltas += repairing.last_content_delta
        messages = [(it.channel, it.recipient, it.content[0].text) for it in repairing.messages]
        assert deltas == "".join(text for _, _, text in messages)
        return messages, dict(counts)

    return read


THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|>"
ANSWER = "<|start|>assistant<|channel|>final<|message|>Paris 🇫🇷.<|return|>"
THOUGHT_READ, ANSWER_READ = ("analysis", None, "Hm."), ("final", None, "Paris 🇫🇷.")
CALL_READ = ("commentary", "functions.f", '{"a": 1}')


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (THOUGHT + ANSWER, [THOUGHT_READ, ANSWER_READ]),
        (
            THOUGHT
            + '<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>',
            [THOUGHT_READ, CALL_READ],
        ),
        (
            THOUGHT + '<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{"a": 1}<|call|>',
            [THOUGHT_READ, CALL_READ],
        ),
        ("<|channel|>analysis<|message|>cut o", [("analysis", None, "cut o")]),
        (THOUGHT + "<|start|>assistant<|channel|>fin", [THOUGHT_READ]),
        (THOUGHT + "<|start|>assistant<|channel|>final", [THOUGHT_READ]),
        (THOUGHT, [THOUGHT_READ]),
        ("", []),
        # what grammars let the model write
        (THOUGHT + ANSWER.replace("<|return|>", "<|end|><|endoftext|>"), [THOUGHT_READ, ANSWER_READ]),
        (THOUGHT + ANSWER.replace("<|return|>", "<|endoftext|>"), [THOUGHT_READ, ANSWER_READ]),
        (THOUGHT + ANSWER.replace("<|return|>", "<|end|><|return|>"), [THOUGHT_READ, ANSWER_READ]),
        (
            THOUGHT + '<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{"a": 1}<|endoftext|>',
            [THOUGHT_READ, CALL_READ],
        ),
        ("<|channel|>analysis<|message|>Hm.<|endoftext|>", [THOUGHT_READ]),
        # of a JSON schema: to Harmony's parser the constraint is a recipient
        (THOUGHT + ANSWER.replace("final", "final json"), [THOUGHT_READ, ANSWER_READ]),
        (THOUGHT + ANSWER.replace("final", "final <|constrain|>json"), [THOUGHT_READ, ANSWER_READ]),
        ("<|channel|>final json<|message|>1<|return|>", [("final", None, "1")]),
        (
            THOUGHT + '<|start|>assistant to=functions.f<|channel|>final json<|message|>{"a": 1}<|call|>',
            [THOUGHT_READ, ("final", "functions.f", '{"a": 1}')],
        ),
    ],
)
def test_text_in_the_format_is_read_unchanged(
    text: str, messages: list[tuple[str | None, str | None, str]], read: Read
) -> None:
    assert read(text) == (messages, {})


@pytest.mark.parametrize(
    ("kind", "text", "messages"),
    [
        ("missing_start", THOUGHT + ANSWER.removeprefix("<|start|>"), [THOUGHT_READ, ANSWER_READ]),
        ("missing_start", THOUGHT + ANSWER.removeprefix("<|start|>assistant"), [THOUGHT_READ, ANSWER_READ]),
        (
            "missing_start",  # "Unexpected token 12606 while expecting start token 200006": 12606 is `commentary`
            THOUGHT + 'commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>',
            [THOUGHT_READ, CALL_READ],
        ),
        ("missing_end", THOUGHT.removesuffix("<|end|>") + ANSWER, [THOUGHT_READ, ANSWER_READ]),
        (
            "missing_end",
            THOUGHT.removesuffix("<|end|>") + ANSWER.removeprefix("<|start|>assistant"),
            [THOUGHT_READ, ANSWER_READ],
        ),
        (
            "missing_message",
            THOUGHT + '<|start|>assistant<|channel|>final {"answer": 4}<|return|>',
            [THOUGHT_READ, ("final", None, '{"answer": 4}')],
        ),
        (
            "missing_message",
            THOUGHT + '<|start|>assistant<|channel|>final <|constrain|>json{"answer": 4}<|return|>',
            [THOUGHT_READ, ("final", None, '{"answer": 4}')],
        ),
        ("missing_message", "<|channel|>final It is 4.", [("final", None, "It is 4.")]),
        ("missing_header", THOUGHT + "It is 4.<|return|>", [THOUGHT_READ, ("final", None, "It is 4.")]),
        ("missing_header", "It is 4.<|return|>", [("final", None, "It is 4.")]),
        (
            "bad_header",  # "unexpected tokens remaining in message header"
            THOUGHT
            + '<|start|>assistant<|channel|>commentary to=functions.f x <|constrain|>json<|message|>{"a": 1}<|call|>',
            [THOUGHT_READ, CALL_READ],
        ),
        (
            "unknown_channel",  # "Unknown role: assistant<|channel|>bash<|channel|>commentary"
            THOUGHT
            + '<|start|>assistant<|channel|>bash<|channel|>commentary to=functions.f<|message|>{"a": 1}<|call|>',
            [THOUGHT_READ, CALL_READ],
        ),
        ("bad_header", THOUGHT + "<|start|>" + ANSWER, [THOUGHT_READ, ANSWER_READ]),
        ("bad_header", THOUGHT + "<|start|>final<|message|>Paris 🇫🇷.<|return|>", [THOUGHT_READ, ANSWER_READ]),
        (
            "bad_header",  # "channel marker present but no channel value"
            THOUGHT + "<|start|>assistant<|channel|><|message|>Paris 🇫🇷.<|return|>",
            [THOUGHT_READ, ANSWER_READ],
        ),
        (
            "unknown_channel",
            THOUGHT + "<|start|>assistant<|channel|>finally<|message|>Paris 🇫🇷.<|return|>",
            [THOUGHT_READ, ANSWER_READ],
        ),
        (
            "unknown_channel",
            THOUGHT + "<|start|>assistant<|message|>Paris 🇫🇷.<|return|>",
            [THOUGHT_READ, ANSWER_READ],
        ),
        ("stray_token", THOUGHT + "<|end|>" + ANSWER, [THOUGHT_READ, ANSWER_READ]),
        ("stray_token", THOUGHT + "." + ANSWER, [THOUGHT_READ, ANSWER_READ]),
        ("stray_token", THOUGHT + ANSWER.replace("Paris", "Par<|message|>is"), [THOUGHT_READ, ANSWER_READ]),
        ("stray_token", THOUGHT + "<|start|>assistant<|channel|>final<|return|>", [THOUGHT_READ]),
        ("stray_token", "<|endoftext|>", []),
        ("stray_token", THOUGHT + ANSWER.replace("Paris", "Par<|constrain|>is"), [THOUGHT_READ, ANSWER_READ]),
        ("stray_token", THOUGHT + ANSWER.replace("Paris", "Par<|startoftext|>is"), [THOUGHT_READ, ANSWER_READ]),
        ("stray_token", THOUGHT.replace("Hm", "H<|reserved_200013|>m") + ANSWER, [THOUGHT_READ, ANSWER_READ]),
        ("stray_token", THOUGHT + ANSWER.replace("final", "final<|reserved_201087|>"), [THOUGHT_READ, ANSWER_READ]),
        ("stray_token", THOUGHT + "<|reserved_200000|>" + ANSWER, [THOUGHT_READ, ANSWER_READ]),
        ("missing_header", THOUGHT + "It is<|constrain|> 4.<|return|>", [THOUGHT_READ, ("final", None, "It is 4.")]),
        ("missing_message", "<|channel|>final It is <|e<|x|>nd|>4.", [("final", None, "It is 4.")]),
        (
            "bad_header",  # markup that ordinary tokens spell
            THOUGHT + '<|start|>assistant<|channel|>commentary to=functions.f<|x|>y<|message|>{"a": 1}<|call|>',
            [THOUGHT_READ, CALL_READ],
        ),
    ],
)
def test_text_that_breaks_the_format_is_read_and_counted(
    kind: str, text: str, messages: list[tuple[str | None, str | None, str]], read: Read
) -> None:
    assert read(text) == (messages, {kind: 1})


RESERVED = [FIRST_SPECIAL, 200000, 200013, 201087]
SPECIAL = [START, END, MESSAGE, CHANNEL, RETURN, CALL, ENDOFTEXT, CONSTRAIN, ASSISTANT, *RESERVED]
WORDS = [17196, 35644, 12606, 316, 28, 44580, 13, 220]  # channels, `to`, `=`, text


@settings(max_examples=100, deadline=None)
@given(tokens=st.lists(st.sampled_from(SPECIAL + WORDS), max_size=30))
def test_tokens_in_any_sequence_are_no_error(tokens: list[int], encoding: HarmonyEncoding) -> None:
    repairing = parser(encoding, Counter())
    for token in tokens:
        before = len(repairing.messages)
        repairing.process(token)
        assert len(repairing.messages) <= before + 1
    repairing.process_eos()
    assert {message.channel for message in repairing.messages} <= {"analysis", "commentary", "final"}
    texts = [message.content[0].text for message in repairing.messages]
    assert not any("<|" in text for text in texts), "none of these tokens spells markup, so none becomes text"


def test_character_is_never_split(encoding: HarmonyEncoding) -> None:
    repairing, text = parser(encoding, Counter()), "🇫🇷 日本 ñ 👩‍👩‍👧"
    deltas = []
    for token in encoding.encode(f"<|channel|>final<|message|>{text}<|return|>", allowed_special="all"):
        repairing.process(token)
        deltas.append(repairing.last_content_delta)
    assert "".join(deltas) == text
    assert not any("�" in delta for delta in deltas)


@pytest.mark.parametrize("end", [[], [RETURN]])
@pytest.mark.parametrize("cut", range(1, 6))
def test_message_that_ends_within_a_character_has_the_text_of_its_deltas(
    cut: int, end: list[int], encoding: HarmonyEncoding
) -> None:
    repairing, deltas = parser(encoding, Counter()), ""
    tokens = encoding.encode("<|channel|>final<|message|>ab 👩‍👩‍👧", allowed_special="all")
    for token in tokens[:-cut] + end:
        repairing.process(token)
        deltas += "" if token == RETURN else repairing.last_content_delta
    repairing.process_eos()

    assert [message.content[0].text for message in repairing.messages] == [deltas]
    assert "\ufffd" not in deltas


def test_kinds_are_all_known_in_advance() -> None:
    source = inspect.getsource(harmony_repair)

    assert set(re.findall(r'_count\(\s*"(\w+)"', source)) <= set(KINDS)
    assert set(KINDS) == {kind for kind in KINDS if f"    {kind} " in source}, "the docstring shows each"
