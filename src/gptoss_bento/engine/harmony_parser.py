"""vLLM's Harmony parser, made to keep to a request's stop strings and to know which tokens are the answer's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gptoss_bento.engine.harmony_tokens import FIRST_SPECIAL
from gptoss_bento.engine.stop_strings import StopRule, StopSearch, stop_rule

if TYPE_CHECKING:

    class _HarmonyParser(Any): ...  # type: ignore[misc]

else:
    _HarmonyParser = object  # vLLM is not imported here; `answer_parser` mixes its class in

Segment = Any
"""What vLLM's parser makes of one token: `channel`, `recipient`, `delta`, and the message that it completed."""


class LogprobsOfChunk:
    """The log probabilities that vLLM has just made of a chunk of tokens, until its parser reads the chunk.

    vLLM makes them, then calls the parser, without waiting in between; so one place for all requests is enough.
    """

    def __init__(self) -> None:
        self._latest: Any = None

    def put(self, logprobs: Any) -> Any:
        """Keeps and returns them."""
        self._latest = logprobs
        return logprobs

    def take(self, tokens: int) -> Any:
        """Those of a chunk with so many tokens, once; None if there are none."""
        latest, self._latest = self._latest, None
        return latest if latest is not None and latest.content and len(latest.content) == tokens else None


LOGPROBS = LogprobsOfChunk()
"""Of this process."""


HIDDEN = object()
"""`include_reasoning` of a chat whose reasoning this parser leaves out: for vLLM it is true."""


def hiding_itself(request: Any) -> Any:
    """The request of a chat, so that hidden reasoning takes no log probabilities with it.

    vLLM leaves out those of the whole answer; here they are those of the content's tokens alone. Token ids would show
    the reasoning: with them all is as vLLM has it.
    """
    if request.include_reasoning or not request.logprobs or request.return_token_ids:
        return request
    return request.model_copy(update={"include_reasoning": HIDDEN})


class AnswerFilter:
    """Passes on the segments of an answer, up to its stop string, and collects entries of the content's tokens.

    Attributes:
        shown: entries of tokens whose text was passed on, until they are taken.

    Args:
        rule: of stop strings.
    """

    def __init__(self, rule: StopRule | None) -> None:
        self.shown: list[Any] = []
        self._search = StopSearch(rule) if rule else None
        self._min_tokens = rule.min_tokens if rule else 0
        self._waiting: list[tuple[int, Any]] = []  # where in the message the text of an entry starts
        self._messages = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the answer."""
        return self._search is not None and self._search.found is not None

    def take_shown(self) -> list[Any]:
        """`shown`, which is empty afterwards."""
        shown, self.shown = self.shown, []
        return shown

    def read(self, segment: Segment, number: int, entry: Any = None) -> Iterator[Segment]:
        """What is passed on of one segment.

        Args:
            segment: of one token, or of the end of the output.
            number: how many tokens were generated up to this one.
            entry: of this token, if it is text and there is one.
        """
        if segment.completed_message is not None:
            yield from self._end(segment)
        elif self._search is None or not _is_final(segment):
            if entry is not None and _is_content(segment):
                self.shown.append(entry)
            yield segment
        else:
            yield segment._replace(delta=self._add(self._search, segment.delta, number, entry))

    def _add(self, search: StopSearch, text: str, number: int, entry: Any) -> str:
        if entry is not None:
            self._waiting.append((search.received, entry))
        passed = search.add(text, armed=number > self._min_tokens)
        shown = [entry for start, entry in self._waiting if start < search.passed]
        self._waiting = self._waiting[len(shown) :]
        self.shown += shown
        return passed

    def _end(self, segment: Segment) -> Iterator[Segment]:
        message, search = segment.completed_message, self._search
        if search is not None and _is_final(message):
            if search.found is not None:
                if not search.passed and self._messages:
                    return  # a stream of /v1/responses has no event of an item without text, so no answer has it
                _shorten(message, search.passed)
            else:
                if rest := search.rest():
                    yield segment._replace(channel="final", recipient=None, delta=rest, completed_message=None)
                self.shown += [entry for _, entry in self._waiting]
                search.restart()
            self._waiting = []
        self._messages += 1
        yield segment


def _is_final(part: Any) -> bool:
    """Of a segment or a message: in the channel of the answer, and no tool call."""
    return part.channel == "final" and not part.recipient


def _is_content(segment: Segment) -> bool:
    """As vLLM has it: a preamble to a tool call is content too."""
    return segment.channel in ("final", "commentary") and not segment.recipient


def _shorten(message: Any, length: int) -> None:
    for text in message.content[:1]:
        message.content[0] = text.model_copy(update={"text": text.text[:length]})


def _without_reasoning(message: Any) -> Any:
    """A delta, or None where it has nothing else."""
    has_more = message.content or message.tool_calls
    return message.model_copy(update={"reasoning": None}) if has_more else None


class AnswerParser(_HarmonyParser):
    """The parser of one answer, to be mixed into vLLM's."""

    is_function: Callable[[str], bool]

    _filter: AnswerFilter | None = None
    _entries: Sequence[Any] | None = None  # of the tokens of this chunk
    _has_logprobs = False
    _hides_reasoning = False
    _is_over = False  # a stop string was found

    def follow(self, request: Any) -> AnswerParser:
        """Gives it the request. Chats do so with each chunk, Responses never do."""
        if self._filter is None:
            self._filter = AnswerFilter(rule := stop_rule(request))
            self._has_logprobs = bool(getattr(request, "logprobs", False))
            self._hides_reasoning = getattr(request, "include_reasoning", True) is HIDDEN
            if rule is None and not self._has_logprobs:  # nearly all: each token goes straight to vLLM
                self.parse_delta = super().parse_delta  # type: ignore[method-assign]
                self.process_chunk = super().process_chunk  # type: ignore[method-assign]
        return self

    def parse(self, model_output: str, request: Any, *args: Any, **kwargs: Any) -> Any:
        self.follow(request)
        token_ids = kwargs.get("model_output_token_ids") or (args[1] if len(args) > 1 else ())
        logprobs = self._take_logprobs(token_ids)
        reasoning, content, calls = super().parse(model_output, request, *args, **kwargs)
        self._shorten(logprobs)
        reasoning = None if self._hides_reasoning else reasoning
        if content is None and self._filter is not None and self._filter.stopped:
            content = ""  # there is an answer, which begins with the stop string
        return reasoning, content, calls

    def parse_delta(self, delta_text: str, delta_token_ids: list[int], request: Any, *args: Any, **kwargs: Any) -> Any:
        self.follow(request)
        logprobs = self._take_logprobs(delta_token_ids)
        message = super().parse_delta(delta_text, delta_token_ids, request, *args, **kwargs)
        self._shorten(logprobs)
        return _without_reasoning(message) if message and self._hides_reasoning else message

    def process_chunk(self, token_ids: Sequence[int]) -> Any:
        before = self._num_counted_tokens
        result = super().process_chunk(() if self._is_over else token_ids)
        if len(result.segments) != len(token_ids):
            return result
        segments = self._filtered(result.segments, token_ids, before + 1)
        if self._filter is not None and self._filter.stopped:
            # Now, as if the model had ended its message: what comes at the end of the output alone is "incomplete".
            segments, self._is_over = segments + self.flush(), True
        return replace(result, segments=segments)

    def flush(self) -> list[Segment]:
        parser = self._parser
        segments: list[Segment] = super().flush()
        if segments and parser is not None and (recovered := parser.last_content_delta):
            # In one piece the message has the text that is recovered at the end of the output; a stream needs it.
            segments.insert(-1, segments[-1]._replace(delta=recovered, completed_message=None))
        reader = self._filter or AnswerFilter(None)
        return [kept for each in segments for kept in reader.read(each, self._num_counted_tokens)]

    def _is_reasoning_token(self, token_id: int, channel: str | None, recipient: str | None) -> bool:
        """As vLLM's, but without the arguments of functions."""
        if channel not in ("analysis", "commentary") or token_id >= FIRST_SPECIAL:
            return False
        return channel == "analysis" if recipient is None else not self.is_function(recipient)

    def _filtered(self, segments: list[Segment], token_ids: Sequence[int], number: int) -> list[Segment]:
        entries = self._entries or [None] * len(token_ids)
        reader = self._filter or AnswerFilter(None)
        kept: list[Segment] = []
        for place, (segment, token, entry) in enumerate(zip(segments, token_ids, entries, strict=True)):
            kept += reader.read(segment, number + place, entry if token < FIRST_SPECIAL else None)
        return kept

    def _take_logprobs(self, token_ids: Sequence[int]) -> Any:
        logprobs = LOGPROBS.take(len(token_ids)) if self._has_logprobs else None
        self._entries = list(logprobs.content) if logprobs is not None else None
        return logprobs

    def _shorten(self, logprobs: Any) -> None:
        self._entries = None
        if logprobs is not None and self._filter is not None:
            logprobs.content[:] = self._filter.take_shown()


def answer_parser(harmony_parser: Any, is_function: Callable[[str], bool]) -> Any:
    """A subclass of vLLM's HarmonyParser, for all that vLLM reads.

    Args:
        harmony_parser: the class.
        is_function: vLLM's own, whether a recipient is a function of the request.
    """
    return type("AnswerParser", (AnswerParser, harmony_parser), {"is_function": staticmethod(is_function)})
