"""From the engine's answer to the items of a job's output, in both formats. Pure.

A reader is fed the body as it arrives, in pieces of any size, and returns the items that are complete. It raises
`EngineError` where the answer is an error, also in the midst of a stream: an aborted generation is never a success.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from gptoss_bento.http.paths import COMPLETIONS
from gptoss_bento.jobs.input import EngineRequest, OutputFormat
from gptoss_bento.jobs.output.batching import ITEM_BYTES, Counter
from gptoss_bento.jobs.output.channels import ChannelTracker, is_unfinished_header
from gptoss_bento.jobs.output.token_text import TextSplitter
from gptoss_bento.strict_json import dumps, shown

Item = Any  # whatever JSON can hold
TokenBytes = Callable[[Sequence[int]], list[bytes] | None]

_DONE = "[DONE]"


class EngineError(Exception):
    """The engine could not answer, or stopped. The message is what the job's `error` says.

    Attributes:
        refused: whether the request is to blame, so that the engine would refuse it again.
    """

    def __init__(self, message: str, status: object = None) -> None:
        super().__init__(message)
        self.refused = isinstance(status, int) and 400 <= status < 500


class EngineUnavailableError(EngineError):
    """The engine broke off because it ends, or refuses all requests: this request was not at fault."""


class Reader(Protocol):
    """Makes items from one answer."""

    def feed(self, piece: bytes) -> Iterator[Item]:
        """The items that this piece of the body completes."""
        ...

    def finish(self) -> Iterator[Item]:
        """What is left at the end of the body."""
        ...


def reader(request: EngineRequest, token_bytes: TokenBytes, *, event_stream: bool) -> Reader:
    """The reader for an answer of 2xx.

    Args:
        request: what was asked.
        token_bytes: the bytes of the tokens, to divide events that hold several.
        event_stream: whether the engine answers with server-sent events.
    """
    if not event_stream:
        return WholeReader(request)
    if request.format is OutputFormat.TOKENS:
        return TokenReader(request, token_bytes)
    return FrameReader(request)


def error_text(request: EngineRequest, status: int, body: bytes) -> str:
    """One sentence from the body of an engine's error, naming the field."""
    message, param = _message(_parsed(body))
    return _sentence(request, message or f"The engine answered {status}.", param)


def _sentence(request: EngineRequest, message: str, param: str) -> str:
    message = " ".join(message.split())
    if message.startswith("Grammar error") and "structured_outputs" in (request.body or {}):
        param = "structured_outputs"
    if request.path == COMPLETIONS and "maximum context length" in message:
        asked = (request.body or {}).get("max_tokens")
        return f"prompt and max_tokens ({asked}) do not fit into the context: {message}"
    return f"{param}: {message}" if param and param not in message else message


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body.decode(errors="replace")[:500].strip()


def _message(error: Any) -> tuple[str, str]:
    """Message and parameter of an error as OpenAI's, Anthropic's or FastAPI's bodies carry it."""
    while isinstance(error, dict) and isinstance(error.get("error"), dict | str):
        error = error["error"]
    if isinstance(error, dict):
        text = error.get("message") or error.get("detail")
        return (text if isinstance(text, str) else shown(text or error, 500)), str(error.get("param") or "")
    return (error if isinstance(error, str) else shown(error)), ""


# --- whole answers ---------------------------------------------------------------------------------------------------


class WholeReader:
    """The whole body as the only item."""

    def __init__(self, request: EngineRequest) -> None:
        self._request = request
        self._body = bytearray()

    def feed(self, piece: bytes) -> Iterator[Item]:
        self._body += piece
        return iter(())

    def finish(self) -> Iterator[Item]:
        body = _parsed(bytes(self._body))
        if isinstance(body, dict):
            _refuse_aborted(self._request, body)
        yield whole_item(self._request, body) if self._request.format is OutputFormat.TOKENS else body


def whole_item(request: EngineRequest, body: dict[str, Any]) -> Item:
    """An OpenAI answer as one `tokens` item. Its extra keys serve clients that read it as OpenAI's."""
    usage = body.get("usage") or {}
    counts = {"input": usage.get("prompt_tokens", 0), "output": usage.get("completion_tokens", 0)}
    return {"choices": [_whole_choice(request, choice) for choice in body["choices"]], "usage": counts | usage}


def _whole_choice(request: EngineRequest, choice: dict[str, Any]) -> dict[str, Any]:
    extra = {name: choice[name] for name in ("logprobs", "prompt_logprobs") if choice.get(name) is not None}
    common = {"index": choice.get("index", 0), "finish_reason": choice.get("finish_reason"), **extra}
    if not request.is_chat:
        text = request.echo + (choice.get("text") or "")
        return {"tokens": [text], "text": text, **common}
    message = dict(choice["message"])
    is_answer = _has_answer(choice)
    if not is_answer and is_unfinished_header(message.get("content") or ""):
        message["content"] = None
    if not request.show_reasoning:
        message["reasoning"] = None
    named = {name: message[name] for name in ("reasoning", "tool_calls") if message.get(name)}
    answer = message.get("content") or ""
    if answer and ("tool_calls" in named or not is_answer):  # a preamble, of a turn without a final channel
        answer, named["commentary"] = "", answer
    return {"tokens": [answer], **named, "message": message, **common}


def _has_answer(choice: dict[str, Any]) -> bool:
    ids = choice.get("token_ids")
    return ids is None or any(ChannelTracker().answers(ids))


def _refuse_aborted(request: EngineRequest, body: dict[str, Any]) -> None:
    """The error that an event carries, or that an end with `abort` means."""
    if body.get("type") in ("response.failed", "error"):
        raise EngineError(_sentence(request, *_message(body.get("response") or body)))
    if body.get("error"):
        raise EngineError(_sentence(request, *_message(body)), _code(body["error"]))
    if _is_aborted(body):
        raise EngineUnavailableError("The engine aborted the generation.")


def _is_aborted(body: dict[str, Any]) -> bool:
    response = body.get("response") or body  # within an event of /v1/responses, or the whole answer
    if isinstance(response, dict) and response.get("object") == "response":
        return response.get("status") == "cancelled"
    return any(isinstance(choice, dict) and choice.get("finish_reason") == "abort" for choice in _choices(body))


def _code(error: Any) -> Any:
    return error.get("code") if isinstance(error, dict) else None


def _choices(body: dict[str, Any]) -> list[Any]:
    choices = body.get("choices")
    return choices if isinstance(choices, list) else []


# --- server-sent events ----------------------------------------------------------------------------------------------


class Frames:
    """Cuts a body into whole frames; a character is never cut, since no frame ends inside one."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, piece: bytes) -> Iterator[str]:
        *frames, self._buffer = (self._buffer + piece).split(b"\n\n")
        for frame in frames:
            yield frame.decode() + "\n\n"

    def rest(self) -> str:
        """What follows the last frame: nothing, unless the stream broke off."""
        return self._buffer.decode(errors="replace")


def frame_data(frame: str) -> str:
    """The `data` of a frame, empty if it has none."""
    lines = (line.removesuffix("\r") for line in frame.split("\n"))  # splitlines also splits inside texts
    return "\n".join(line[5:].removeprefix(" ") for line in lines if line.startswith("data:"))


class FrameReader:
    """Items of whole frames: strings that joined are the body, or lists of the parsed frames without `[DONE]`."""

    def __init__(self, request: EngineRequest) -> None:
        self._request = request
        self._parse = request.format is OutputFormat.CHUNKS
        self._frames = Frames()
        self._counter = Counter(request.schedule)
        self._open: list[Any] = []

    def feed(self, piece: bytes) -> Iterator[Item]:
        for frame in self._frames.feed(piece):
            yield from self._take(frame)

    def finish(self) -> Iterator[Item]:
        if rest := self._frames.rest():
            raise EngineError(f"The engine's answer broke off after {shown(rest)}.")
        yield from self._close()

    def _take(self, frame: str) -> Iterator[Item]:
        data = frame_data(frame)
        chunk = json.loads(data) if data and data != _DONE else None
        for part in self._parts(frame, chunk):
            size = len(dumps(part))
            if not self._counter.has_room(size):
                self._counter.restart()
                yield from self._close()
            self._open.append(part)
            if self._counter.add(size):
                yield from self._close()
        if isinstance(chunk, dict):
            _refuse_aborted(self._request, chunk)

    def _parts(self, frame: str, chunk: Any) -> list[Any]:
        if self._parse:
            return [chunk] if chunk is not None else []
        width = ITEM_BYTES // 8  # a character may take six bytes of JSON
        return [frame[start : start + width] for start in range(0, len(frame), width)]

    def _close(self) -> Iterator[Item]:
        if self._open:
            yield self._open if self._parse else "".join(self._open)
        self._open = []


# --- tokens ----------------------------------------------------------------------------------------------------------


class TokenReader:
    """Items of tokens, exact per token whatever the size of the engine's events."""

    def __init__(self, request: EngineRequest, token_bytes: TokenBytes) -> None:
        self._request = request
        self._token_bytes = token_bytes
        self._frames = Frames()
        self._counter = Counter(request.schedule)
        n = (request.body or {}).get("n") or 1
        self._sequences = [_Sequence(request.echo) for _ in range(n)]
        self._input = 0
        self._output = 0
        self._reported = 0
        self._ended = False

    def feed(self, piece: bytes) -> Iterator[Item]:
        for frame in self._frames.feed(piece):
            data = frame_data(frame)
            if data == _DONE:
                self._ended = True
            elif data:
                yield from self._take(json.loads(data))

    def finish(self) -> Iterator[Item]:
        if not self._ended:
            raise EngineError("The engine's answer broke off.")
        for sequence in self._sequences:
            sequence.end()
        if self._output != self._reported or any(sequence.holds_anything for sequence in self._sequences):
            yield self._close(last=True)

    def _take(self, chunk: dict[str, Any]) -> Iterator[Item]:
        _refuse_aborted(self._request, chunk)
        if ids := chunk.get("prompt_token_ids"):
            self._input = len(ids)
        for choice in chunk["choices"]:
            if ids := choice.get("prompt_token_ids"):
                self._input = len(ids)
            yield from self._take_choice(choice)

    def _take_choice(self, choice: dict[str, Any]) -> Iterator[Item]:
        sequence = self._sequences[choice["index"]]
        ids: list[int] = choice.get("token_ids") or []
        delta = choice.get("delta") or {}
        if self._request.show_reasoning and (reasoning := delta.get("reasoning")):
            yield from self._make_room(len(dumps(reasoning)))
            sequence.reasoning += reasoning
        sequence.add_tool_calls(delta.get("tool_calls") or [])
        text = (delta.get("content") if self._request.is_chat else choice.get("text")) or ""
        answers = sequence.tracker.answers(ids) if self._request.is_chat else [True] * len(ids)
        yield from self._take_tokens(sequence, text, ids, answers)

    def _take_tokens(self, sequence: _Sequence, text: str, ids: list[int], answers: list[bool]) -> Iterator[Item]:
        count = sum(answers)
        answer_ids = [token for token, answer in zip(ids, answers, strict=True) if answer]
        if ids and not count:  # a preamble to a tool call: shown to people, but not the answer
            sequence.commentary += "" if is_unfinished_header(text) else text
            text = ""
        parts = iter(sequence.splitter.split(text, count, self._token_bytes(answer_ids)))
        for answer in answers:
            self._output += 1
            if answer:
                yield from self._take_entry(sequence, next(parts))

    def _take_entry(self, sequence: _Sequence, part: str) -> Iterator[Item]:
        size = len(dumps(part)) + 1
        if not self._counter.has_room(size):
            self._output -= 1  # the item that closes now is from before this token
            yield self._close()
            self._output += 1
            self._counter.restart()
        sequence.tokens.append(part)
        if self._counter.add(size):
            yield self._close()

    def _make_room(self, size: int) -> Iterator[Item]:
        if not self._counter.has_room(size):
            yield self._close()
            self._counter.restart()
        self._counter.add(size, entries=0)

    def _close(self, *, last: bool = False) -> Item:
        self._reported = self._output
        choices = [sequence.take(last=last) for sequence in self._sequences]
        return {"choices": choices, "usage": {"input": self._input, "output": self._output}}


class _Sequence:
    """One of the `n` sequences: how it is read, and what of it waits for the next item."""

    def __init__(self, echo: str) -> None:
        self.tracker = ChannelTracker()
        self.splitter = TextSplitter()
        self.splitter.split(echo, 0, None)
        self.tokens: list[str] = []
        self.reasoning = ""
        self.commentary = ""
        self._tool_calls: dict[int, dict[str, Any]] = {}

    def add_tool_calls(self, deltas: list[dict[str, Any]]) -> None:
        """Joins the pieces of calls; they are whole at the end, so the last item has them."""
        for delta in deltas:
            new: dict[str, Any] = {"id": None, "type": "function", "function": {"name": "", "arguments": ""}}
            call = self._tool_calls.setdefault(delta.get("index", 0), new)
            call["id"] = delta.get("id") or call["id"]
            function = delta.get("function") or {}
            for name in ("name", "arguments"):
                call["function"][name] += function.get(name) or ""

    def end(self) -> None:
        """Text that was held back until the end joins the last entry."""
        if rest := self.splitter.rest():
            self.tokens = [*self.tokens[:-1], "".join(self.tokens[-1:]) + rest]

    @property
    def holds_anything(self) -> bool:
        return bool(self.tokens or self.reasoning or self.commentary or self._tool_calls)

    def take(self, *, last: bool) -> dict[str, Any]:
        """The sequence's part of the item; the next item starts empty."""
        named = {"reasoning": self.reasoning, "commentary": self.commentary}
        choice: dict[str, Any] = {"tokens": self.tokens} | {name: text for name, text in named.items() if text}
        self.tokens, self.reasoning, self.commentary = [], "", ""
        if self._tool_calls and last:
            choice["tool_calls"] = [call for _, call in sorted(self._tool_calls.items())]
        return choice
