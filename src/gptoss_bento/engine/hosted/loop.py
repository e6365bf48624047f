"""vLLM's loop of model and tools, with the tools of this process. Wrappers of vLLM's methods.

The loop stays vLLM's: the model generates, its call is made, the result goes into the same turn, the model goes on.
Only contexts whose request has such tools are concerned; all others go to vLLM's methods as they came.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

from gptoss_bento.engine.hosted.asking import turn_of
from gptoss_bento.engine.hosted.stream import HostedStream, VllmEvents, cited_item
from gptoss_bento.engine.hosted.turn import Pending, ToolTurn

_answered: ContextVar[ToolTurn | None] = ContextVar("answered", default=None)
_ROOM = 4096
"""Tokens that stay for the model once it has read a result; a quarter of the context at most."""
_LEAST = 32
_FULL = 160  # the least of a result and what is around it, and a line of an answer
_CUT = "\n[The rest has no room in the context, and was left out.]"


def calling(call_tool: Callable[[Any], Awaitable[list[Any]]]) -> Callable[[Any], Awaitable[list[Any]]]:
    """Makes the calls of this process's tools.

    Args:
        call_tool: vLLM's method of a conversation whose last message is the call.
    """

    async def called(context: Any) -> list[Any]:
        turn = turn_of(context.request)
        message = context.messages[-1]
        if turn is None or not turn.handles(message.recipient):
            return await call_tool(context)
        return await turn.results(message)

    return called


def needing(needs_call: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether the last message is a call that is to be made.

    Args:
        needs_call: vLLM's method of a conversation.
    """

    def needs(context: Any) -> bool:
        turn = turn_of(context.request)
        if turn is None:
            return needs_call(context)
        message = context.messages[-1]
        if message.author.role != "assistant" or not turn.handles(message.recipient):
            return needs_call(context)
        return turn.may_call(message, context.finish_reason)

    return needs


def initialized(initialize: Callable[..., Awaitable[None]], room_of: Callable[[Any], Room]) -> Any:
    """Ends a response's connections with it.

    Args:
        initialize: vLLM's method, bound; it is called again at the end of a stream.
        room_of: measures a conversation.
    """

    async def initialize_all(request: Any, context: Any, exit_stack: Any) -> None:
        if (turn := turn_of(request)) is not None and not turn.is_open:
            await exit_stack.enter_async_context(turn.start(room_of(context)))
        await initialize(request, context, exit_stack)

    return initialize_all


def generating(generate: Callable[..., AsyncIterator[Any]], rendered: Callable[..., Any]) -> Any:
    """Makes calls that the client has approved before the model goes on.

    Args:
        generate: vLLM's method, bound.
        rendered: makes the engine's input of a conversation, and sets how many tokens may come.
    """

    def generated(**options: Any) -> AsyncIterator[Any]:
        turn = turn_of(getattr(options["context"], "request", None))
        if turn is None or not turn.pending:
            return generate(**options)
        return _after_pending(turn, generate, rendered, options)

    return generated


async def _after_pending(
    turn: ToolTurn, generate: Callable[..., AsyncIterator[Any]], rendered: Callable[..., Any], options: dict[str, Any]
) -> AsyncIterator[Any]:
    context = options["context"]
    for pending in turn.pending:
        turn.show(pending.call)
        yield context  # a stream shows that it runs
        await _make(turn, pending, context)
        yield context
    engine_input = rendered(context, options["engine_input"], options["sampling_params"], options.get("tok_params"))
    async for each in generate(**{**options, "engine_input": engine_input}):
        yield each


async def _make(turn: ToolTurn, pending: Pending, context: Any) -> None:
    """Makes a call, and puts its result behind it. Both are of the prompt, not of what the model writes now."""
    results = await turn.results(pending.message)
    messages = context.messages
    place = next(number for number, message in enumerate(messages) if message is pending.message) + 1
    messages[place:place] = results
    context.num_init_messages += len(results)


Check = Callable[..., None]


def streaming(process: Callable[..., AsyncIterator[Any]], vllm: VllmEvents, server: Any, check: Check) -> Any:
    """Makes the events of responses with such tools.

    Args:
        process: vLLM's method, bound.
        vllm: how vLLM makes events.
        server: the tool server of vLLM's application.
        check: raises an error if a generation has failed, by the reason for its end and the request's id.
    """

    def events(request: Any, params: Any, results: Any, context: Any, *others: Any) -> AsyncIterator[Any]:
        turn = turn_of(request)
        if turn is None:
            return process(request, params, results, context, *others)
        *_, number = others
        stream = HostedStream(turn, vllm, context.function_tool_names, server)
        return _events(stream, results, number, partial(check, request_id=request.request_id))

    return events


async def _events(
    stream: HostedStream, results: AsyncIterator[Any], number: Callable[[Any], Any], check: Callable[[Any], None]
) -> AsyncIterator[Any]:
    for event in stream.lists():
        yield number(event)
    async for context in results:
        check(context.finish_reason)
        for event in stream.read(context.last_append_segments, context.finish_reason):
            yield number(event)
    for event in stream.end():
        yield number(event)


def answering(answer: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Makes a response's object while its items are those of its tools.

    Args:
        answer: vLLM's method, bound.
    """

    async def answered(request: Any, *args: Any, **named: Any) -> Any:
        turn = turn_of(request)
        if turn is None:
            return await answer(request, *args, **named)
        token = _answered.set(turn)
        try:
            return _with_items(await answer(request, *args, **named), turn.take_first_items())
        finally:
            _answered.reset(token)

    return answered


def _with_items(made: Any, items: list[dict[str, Any]]) -> Any:
    """A response with the items that come before all messages, where the model has ended none."""
    if not items or not hasattr(made, "output"):
        return made
    fields = made.model_dump(mode="json", by_alias=True)
    return type(made).model_validate({**fields, "output": [*items, *fields["output"]]})


def itemized(convert: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """The items of a message; those of the response that come before all messages are with the first.

    Args:
        convert: vLLM's function.
    """

    def items(message: Any, *args: Any, **named: Any) -> list[Any]:
        turn = _answered.get()
        if turn is None:
            return convert(message, *args, **named)
        first = turn.take_first_items()
        if (call := turn.call_of(message)) is not None:
            return [*first, call.item]
        return [*first, *(cited_item(item, turn) for item in convert(message, *args, **named))]

    return items


@dataclass(frozen=True)
class Room:
    """What of a text the context of a conversation has room for.

    Args:
        context: vLLM's.
        tokenizer: of the model.
        context_tokens: of prompt and answer.
        prompt_tokens: before the model has written anything.
    """

    context: Any
    tokenizer: Any
    context_tokens: int
    prompt_tokens: int = 0

    @property
    def is_full(self) -> bool:
        """Whether there is no room for a result and an answer."""
        return self.context_tokens - self._used < _FULL

    def __call__(self, text: str) -> str:
        """The text, or its beginning with a note."""
        room = max(self._left(), _LEAST)
        if len(text.encode(errors="replace")) <= room:  # a token has one byte at least
            return text
        tokens = self.tokenizer.encode(text, add_special_tokens=False)
        return text if len(tokens) <= room else f"{self.tokenizer.decode(tokens[:room])}{_CUT}"

    def _left(self) -> int:
        return self.context_tokens - self._used - min(_ROOM, self.context_tokens // 4)

    @property
    def _used(self) -> int:
        turns = self.context.all_turn_metrics
        return turns[-1].input_tokens + turns[-1].output_tokens if turns else self.prompt_tokens
