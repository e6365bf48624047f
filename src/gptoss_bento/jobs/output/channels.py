"""Which generated tokens are the answer: gpt-oss writes reasoning, tool calls and answer as messages of channels. Pure.

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>

Source: OpenAI's Harmony format.
"""

from __future__ import annotations

from collections.abc import Sequence

from gptoss_bento.engine.harmony_tokens import CHANNEL, CONTROL, ENDS, FINAL, MESSAGE

_HEADER_STARTS = ("<|channel|>", "<|start|>")


def is_unfinished_header(text: str) -> bool:
    """Whether a text is a truncated header of a message: vLLM's parser passes it on as if it were an answer."""
    return text.startswith(_HEADER_STARTS)


class ChannelTracker:
    """Follows one sequence, token by token, across events of any size."""

    def __init__(self) -> None:
        # Until a Harmony token comes, everything is answer: so it is for a model that speaks no Harmony.
        self._in_message = True
        self._final = True
        self._names_channel = False
        self._after_end = False
        self._stray = False  # text since the last end, without a header

    def answers(self, token_ids: Sequence[int]) -> list[bool]:
        """For each token whether it belongs to the final channel's text.

        The token that ends the final message belongs to it as well, without text, just as the end of a
        sequence does in a completion. Where a header is missing or incomplete, the whole text comes with that token
        (engine/harmony_repair.py).
        """
        return [self._is_answer(token) for token in token_ids]

    def _is_answer(self, token: int) -> bool:
        if token not in CONTROL:
            if self._names_channel:
                self._final, self._names_channel = token == FINAL, False
            self._stray = self._stray or self._after_end
            return self._in_message and self._final
        ends_answer = token in ENDS and (self._final or self._stray)
        if token != MESSAGE or self._stray:
            self._final = False
        self._in_message = token == MESSAGE
        self._names_channel = token == CHANNEL
        self._after_end, self._stray = token in ENDS, False
        return ends_answer
