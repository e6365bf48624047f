"""What an engine without a model answers: random text of exactly the length that was asked for. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

_CANDIDATES = 8192
_TURN, _HEADER, _END = "<|start|>assistant", "<|channel|>final<|message|>", "<|return|>"


class Tokenizer(Protocol):
    """What is needed of one of Hugging Face's."""

    vocab_size: int
    all_special_ids: Sequence[int]

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: Sequence[int]) -> str: ...


@dataclass(frozen=True)
class Vocabulary:
    """Token ids that may be drawn, and those that Harmony needs.

    Attributes:
        text: each is whole printable characters, so that every token detokenizes to a piece of text.
        turn: with these a chat prompt ends, where GPT-OSS begins to write.
        header: with these GPT-OSS begins an answer; without them Harmony's parser would wait for the text for ever.
        end: with this one it ends an answer; without it vLLM warns of each.
    """

    text: tuple[int, ...]
    turn: tuple[int, ...] = ()
    header: tuple[int, ...] = ()
    end: tuple[int, ...] = ()


def vocabulary(tokenizer: Tokenizer, seed: int = 0) -> Vocabulary:
    """Ordinary tokens of this tokenizer; the other fields are empty where it does not know Harmony."""
    special = set(tokenizer.all_special_ids)
    candidates = random.Random(seed).sample(range(tokenizer.vocab_size), min(_CANDIDATES, tokenizer.vocab_size))  # noqa: S311
    text = tuple(token for token in candidates if token not in special and _is_text(tokenizer.decode([token])))
    harmony = [tuple(tokenizer.encode(words, add_special_tokens=False)) for words in (_TURN, _HEADER, _END)]
    return Vocabulary(text, *harmony) if {words[0] for words in harmony} <= special else Vocabulary(text)


def _is_text(piece: str) -> bool:
    """Not the half of a character, which a detokenizer holds back."""
    return bool(piece) and piece.isprintable() and "\N{REPLACEMENT CHARACTER}" not in piece


@dataclass
class _Answer:
    prompt_tokens: int
    max_tokens: int | None
    is_chat: bool
    given: int = 0


class RandomAnswers:
    """The answers that are being written, one token a step."""

    def __init__(self, vocabulary: Vocabulary, seed: int = 0) -> None:
        self._vocabulary = vocabulary
        self._random = random.Random(seed)  # noqa: S311
        self._answers: dict[str, _Answer] = {}

    def begin(self, request_id: str, prompt: Sequence[int], max_tokens: int | None = None) -> None:
        """A request enters the batch, or enters it again after a preemption."""
        turn = self._vocabulary.turn
        is_chat = bool(turn) and tuple(prompt[-len(turn) :]) == turn
        self._answers.setdefault(request_id, _Answer(len(prompt), max_tokens, is_chat))

    def forget(self, request_ids: Iterable[str]) -> None:
        """These have ended."""
        for request_id in request_ids:
            self._answers.pop(request_id, None)

    def tokens(self, request_id: str, computed: int) -> list[int]:
        """The tokens of a step that brings one to `computed` tokens in the KV cache: none inside of its prompt."""
        answer = self._answers[request_id]
        if computed < answer.prompt_tokens + answer.given:
            return []
        place = answer.given
        answer.given += 1
        return [self._frame(answer, place) if answer.is_chat else self._text()]

    def _text(self) -> int:
        return self._random.choice(self._vocabulary.text)

    def _frame(self, answer: _Answer, place: int) -> int:
        """A chat answer is a message of Harmony, from its header to its end."""
        header, end = self._vocabulary.header, self._vocabulary.end
        if place < len(header):
            return header[place]
        return end[0] if place + 1 == answer.max_tokens else self._text()
