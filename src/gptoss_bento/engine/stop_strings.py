"""Stop strings of chats: they count in the final channel only, and the text ends before them. Pure.

vLLM looks for them in all that is generated, so that a word of the reasoning ends the request without an answer; and
its Harmony parser, which reads token ids, lets the stop string itself through (vLLM 38499, 52393, 52599).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gptoss_bento.engine.harmony_repair import Parser


@dataclass(frozen=True)
class StopRule:
    """What a request says of stop strings.

    Args:
        strings: any of them ends the answer.
        included: whether the one that was found is shown.
        min_tokens: one that is complete within so many generated tokens, reasoning included, is text like any other.
    """

    strings: tuple[str, ...]
    included: bool = False
    min_tokens: int = 0


def stop_rule(request: Any) -> StopRule | None:
    """The rule of a request of vLLM's, or of its sampling parameters; None if it has no stop string."""
    stop = getattr(request, "stop", None)
    strings = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if not strings:
        return None
    included = bool(getattr(request, "include_stop_str_in_output", False))
    return StopRule(strings, included, getattr(request, "min_tokens", 0) or 0)


class StopSearch:
    """Reads one text as it grows, and passes on what is certainly before a stop string.

    Attributes:
        found: the stop string that ended the text.
        received: how many characters came.
        passed: how many of them were passed on.
    """

    def __init__(self, rule: StopRule) -> None:
        self._rule = rule
        self._by_first = _by_character(rule.strings, 0)  # there may be thousands, and this is done at each token
        self._by_last = _by_character(rule.strings, -1)
        self.restart()

    def restart(self) -> None:
        """Another text begins."""
        self.found: str | None = None
        self.received = self.passed = 0
        self._tail = ""  # with which a stop string may begin

    def add(self, text: str, *, armed: bool = True) -> str:
        """The part of the text so far that can be shown and was not returned yet.

        Args:
            text: what came.
            armed: whether a stop string that is complete within it ends the text.
        """
        if self.found is not None:
            return ""
        known, self._tail = len(self._tail), self._tail + text
        self.received += len(text)
        held = 0
        if (end := self._search(known) if text and armed else None) is None:
            end = len(self._tail)
            held = self._overlap()
        passed = self._pass(end if self._rule.included else end - held)
        self._tail = self._tail[len(self._tail) - held :]
        return passed

    def rest(self) -> str:
        """What was held back, as the text is over without a stop string."""
        return "" if self.found is not None else self._pass(len(self._tail))

    def _search(self, known: int) -> int | None:
        """Where the shown text ends, by the stop string that is complete first after `known` characters."""
        text = self._tail
        for end in range(known + 1, len(text) + 1):
            for stop in self._by_last.get(text[end - 1], ()):
                if text.endswith(stop, 0, end):
                    self.found = stop
                    return end if self._rule.included else end - len(stop)
        return None

    def _overlap(self) -> int:
        """The length of the longest end of the tail with which a stop string begins, without the whole of it."""
        for start, character in enumerate(self._tail):
            if (stops := self._by_first.get(character)) and any(map(_beginning(self._tail[start:]), stops)):
                return len(self._tail) - start
        return 0

    def _pass(self, end: int) -> str:
        """What is not passed on yet of the tail up to there."""
        start = len(self._tail) - (self.received - self.passed)
        text = self._tail[start:end]
        self.passed += len(text)
        return text


def _by_character(strings: Sequence[str], place: int) -> dict[str, list[str]]:
    """The strings by their first or last character, in their order."""
    found: dict[str, list[str]] = {}
    for string in filter(None, strings):
        found.setdefault(string[place], []).append(string)
    return found


def _beginning(text: str) -> Callable[[str], bool]:
    return lambda stop: len(stop) > len(text) and stop.startswith(text)


class FinalStop:
    """Notices the stop string in the final channel of one answer, token by token.

    Args:
        parser: a new one, which reads an assistant's turn.
        rule: of the request.
    """

    def __init__(self, parser: Parser, rule: StopRule) -> None:
        self._parser = parser
        self._search = StopSearch(rule)
        self._min_tokens = rule.min_tokens
        self._tokens = 0
        self._messages = 0

    def add(self, token: int) -> str | None:
        """The stop string that this token completes."""
        self._tokens += 1
        self._parser.process(token)
        if len(self._parser.messages) > self._messages:
            self._messages = len(self._parser.messages)
            self._search.restart()
        elif delta := self._delta():
            self._search.add(delta, armed=self._tokens > self._min_tokens)
        return self._search.found

    def _delta(self) -> str:
        if self._parser.current_channel != "final" or self._parser.current_recipient is not None:
            return ""
        return self._parser.last_content_delta or ""


class StoppingDetokenizer:
    """Replaces vLLM's detokenizer of one request, which decides by its text whether the engine has to stop.

    Args:
        detokenizer: vLLM's, which goes on decoding, without stop strings.
        stop: of this request.
    """

    def __init__(self, detokenizer: Any, stop: FinalStop) -> None:
        detokenizer.stop = []
        detokenizer.stop_buffer_length = 0
        self._detokenizer = detokenizer
        self._stop = stop

    def update(self, new_token_ids: Sequence[int], stop_terminated: bool) -> str | None:
        """As vLLM's: decodes the tokens, and returns the stop string if there is one. Tokens after it are dropped."""
        for count, token in enumerate(new_token_ids, 1):
            if found := self._stop.add(token):
                self._detokenizer.update(list(new_token_ids[:count]), False)
                return found
        self._detokenizer.update(new_token_ids, stop_terminated)
        return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._detokenizer, name)
