"""What takes the place of vLLM's functions in an API worker, for each record in patches.py."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from functools import cache, partial
from http import HTTPStatus
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from gptoss_bento.engine import (
    failures,
    grammar_errors,
    hosted_tools,
    preambles,
    tool_call_limit,
    tool_calls,
    tool_servers,
)
from gptoss_bento.engine.engine_gauges import EngineClock
from gptoss_bento.engine.harmony_parser import LOGPROBS, answer_parser, hiding_itself
from gptoss_bento.engine.harmony_repair import KINDS, RepairingParser, repairing
from gptoss_bento.engine.hosted import loop, metrics, prompts
from gptoss_bento.engine.hosted.asking import turn_of
from gptoss_bento.engine.hosted.messages import result_message
from gptoss_bento.engine.hosted.server import HostedServer
from gptoss_bento.engine.hosted.stream import VllmEvents
from gptoss_bento.engine.output_coalescing import OutputCoalescer
from gptoss_bento.engine.patches import (
    ADD_REQUEST,
    ADJUST_REQUEST,
    ANSWER_FORMAT,
    ANSWER_PARSER,
    CALL_CHANNELS,
    CALL_TOOL,
    CHAT_ANSWER,
    CHAT_LOGPROBS,
    CHAT_SAMPLING,
    CHAT_STREAM,
    CHECK_CONSTRAINT,
    DEVELOPER_MESSAGE,
    ERROR_HANDLERS,
    FINISH_REASON,
    HARMONY_PARSER,
    ITEM_MESSAGE,
    MESSAGES,
    NEEDS_CALL,
    NEW_SESSION,
    OUTPUT_ITEMS,
    PREPARE_RESPONSES,
    RECEIVE_OUTPUT,
    RENDER_MESSAGES,
    RENDER_RESPONSES,
    RESPONSE_EVENTS,
    RESPONSE_PARSER,
    RESPONSE_SAMPLING,
    SEND_REQUEST,
    STREAM_ERROR,
    THINKING,
    TOKENIZE_CHAT,
    TOOL_DEFINITION,
    TOOL_EVENTS,
    TOOL_LOOP,
    TOOL_PARAMETERS,
    TOOL_SESSIONS,
    WHOLE_RESPONSE,
)
from gptoss_bento.engine.stop_strings import FinalStop, StoppingDetokenizer, stop_rule
from gptoss_bento.engine.usage import current_meter
from gptoss_bento.http.error_words import in_clients_words
from gptoss_bento.http.errors import ASKED
from gptoss_bento.patching import Patch
from gptoss_bento.tools.interfaces import HostedTools

if TYPE_CHECKING:
    from fastapi import FastAPI
    from vllm.v1.engine.async_llm import AsyncLLM


@cache
def repair_harmony() -> None:
    """From now on vLLM reads answers that break the Harmony format; each repair counts in /metrics."""
    import vllm.parser.harmony as harmony
    from openai_harmony import HarmonyError
    from prometheus_client import Counter

    def count(kind: str) -> None:
        counter.labels(kind).inc()

    counter = Counter("gptoss_bento_harmony_repairs", "Repaired faults of the model in the Harmony format.", ["kind"])
    for kind in KINDS:
        counter.labels(kind)  # shows 0 from the start
    HARMONY_PARSER.wrap(partial(repairing, encoding=harmony.get_encoding, refusal=HarmonyError, count=count))


STOPS_IN_FINAL = "gptoss_bento_stops_in_final"
"""Of `extra_args` of sampling parameters: the output is in the Harmony format."""


@cache
def follow_requests() -> None:
    """From now on vLLM looks for stop strings in the final channel, and for nothing else there: see `ANSWER_PARSER`."""
    from vllm.entrypoints.openai.parser.harmony_utils import is_function_recipient

    ANSWER_PARSER.wrap(lambda parser: answer_parser(parser, is_function_recipient))
    CHAT_SAMPLING.wrap(_marking)
    RESPONSE_SAMPLING.wrap(_marking)


def _marking(to_sampling_params: Callable[..., Any]) -> Callable[..., Any]:
    def to_marked(request: Any, *args: Any, **kwargs: Any) -> Any:
        params = to_sampling_params(request, *args, **kwargs)
        if params.stop:
            params.extra_args = {**(params.extra_args or {}), STOPS_IN_FINAL: True}
        return params

    return to_marked


@cache
def change_tools() -> None:
    """From now on prompts have the types of tools' parameters, and calls and answers the form that was asked for."""
    from vllm.exceptions import VLLMClientError, VLLMValidationError
    from vllm.parser.abstract_parser import Grammar

    TOOL_DEFINITION.wrap(tool_calls.typed)
    TOOL_PARAMETERS.wrap(partial(tool_calls.enforced, compile_schema=Grammar.from_json_schema))
    CALL_CHANNELS.replace(tool_calls.CHANNELS)
    ANSWER_FORMAT.wrap(tool_calls.enforced_format)
    ADJUST_REQUEST.wrap(partial(tool_calls.in_text, text_alone=text_alone))
    RENDER_RESPONSES.wrap(tool_calls.out_of_sight)
    RENDER_RESPONSES.wrap(partial(hosted_tools.refused, labels=_labels))
    RENDER_MESSAGES.wrap(preambles.in_commentary)
    for patch, wrapper in hosted_wrappers():
        patch.wrap(wrapper)
    CALL_TOOL.wrap(partial(tool_call_limit.limited, note=result_message))
    NEEDS_CALL.wrap(tool_call_limit.ending)
    CHECK_CONSTRAINT.wrap(partial(grammar_errors.explained, refusal=VLLMValidationError, error=VLLMClientError))


def hosted_wrappers() -> list[tuple[Patch, Callable[[Any], object]]]:
    """How vLLM reads what this process's tools have done, and calls them; without such tools nothing changes."""
    return [
        (PREPARE_RESPONSES, partial(prompts.prepared, labels=_labels)),
        (ITEM_MESSAGE, prompts.as_it_is),
        (DEVELOPER_MESSAGE, prompts.without_servers),
        (RENDER_RESPONSES, prompts.with_servers),
        (OUTPUT_ITEMS, loop.itemized),
        (CALL_TOOL, loop.calling),
        (NEEDS_CALL, loop.needing),
    ]


def host_tools(state: Any, tools: HostedTools) -> None:
    """Puts the tools of this process beside those of TOOL_SERVER.

    Args:
        state: `state` of vLLM's application.
        tools: of this process.

    Raises:
        EngineStartError: TOOL_SERVER names a server that is one of them.
    """
    serving = getattr(state, "openai_serving_responses", None)
    if serving is None or not state.online_renderer.use_harmony:
        return
    server = HostedServer(tools, state.tool_server)
    state.tool_server = serving.tool_server = server
    metrics.show_from_the_start(server.own | ({"mcp"} if tools.mcp else set()))
    TOOL_SESSIONS.wrap_on(serving, partial(loop.initialized, room_of=partial(_room, serving)))
    TOOL_LOOP.wrap_on(serving, partial(loop.generating, rendered=partial(_rendered_again, serving)))
    WHOLE_RESPONSE.wrap_on(serving, loop.answering)

    def check(reason: str | None, request_id: str) -> None:
        serving._raise_if_error(reason, request_id)

    TOOL_EVENTS.wrap_on(serving, partial(loop.streaming, vllm=_vllm_events(), server=server, check=check))


def _vllm_events() -> VllmEvents:
    from vllm.entrypoints.openai.responses import streaming_events as vllm

    return VllmEvents(
        vllm.StreamingState,
        vllm.emit_content_delta_events,
        vllm.emit_previous_item_done_events,
        vllm.emit_tool_action_events,
    )


def _room(serving: Any, context: Any) -> loop.Room:
    tokenizer, most = serving.renderer.get_tokenizer(), serving.model_config.max_model_len
    turn = turn_of(context.request)
    if turn is None or not turn.pending:
        return loop.Room(context, tokenizer, most)
    render = serving.online_renderer.render_responses_harmony_messages
    prompt = render(context.messages, cache_salt=None)["prompt_token_ids"]
    return loop.Room(context, tokenizer, most, len(prompt))


def _rendered_again(serving: Any, context: Any, before: Any, params: Any, tok_params: Any) -> Any:
    """As vLLM renders a prompt between two turns of the model.

    Args:
        serving: vLLM's, of responses.
        context: with the new messages.
        before: the engine's input without them.
        params: of the sampling, which get their new limit.
        tok_params: of vLLM's renderer.
    """
    from vllm.entrypoints.serve.utils.api_utils import get_max_tokens

    salt = before.get("cache_salt")
    render = serving.online_renderer.render_responses_harmony_messages
    made = render(context.messages, cache_salt=salt, tok_params=tok_params)
    params.max_tokens = get_max_tokens(
        serving.model_config.max_model_len,
        context.request.max_output_tokens,
        serving._extract_prompt_len(made),
        serving.default_sampling_params,
        serving.override_max_tokens,
    )
    return made


def _labels() -> set[str]:
    from vllm import envs

    labels: set[str] = envs.VLLM_GPT_OSS_SYSTEM_TOOL_MCP_LABELS
    return labels


def explain_sessions(server: Any) -> None:
    """A tool server that no longer answers is a 503 with its name, and other errors are what they are.

    Args:
        server: vLLM's tool server, if there is any.
    """
    from vllm.exceptions import GracefulHTTPError

    if server is not None:
        unavailable = partial(GracefulHTTPError, http_status=HTTPStatus.SERVICE_UNAVAILABLE)
        NEW_SESSION.wrap_on(server, partial(tool_servers.explained, unavailable=unavailable))


def text_alone() -> Any:
    """The constraint of an answer that may have reasoning and text, and no call."""
    from vllm.parser.harmony import get_harmony_structural_tag
    from vllm.sampling_params import StructuredOutputsParams

    tag = get_harmony_structural_tag([], [], "auto", reasoning=True)
    return StructuredOutputsParams(structural_tag=tool_calls.constraint_of(tag))


def dated_stat_logger(clock: EngineClock) -> type[Any]:
    """vLLM's logger for /metrics, whose gauges go by the time of this clock. For one of several workers."""
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    class DatedStatLogger(PrometheusStatLogger):  # type: ignore[misc]
        _gauge_cls = clock.gauge()

    return DatedStatLogger


def share_cores(client: AsyncLLM, clock: EngineClock) -> None:
    """Lets one of several workers receive output in fewer messages, and set the clock to each."""
    core = client.engine_core
    coalescer = OutputCoalescer(core.outputs_queue.empty, client.get_num_unfinished_requests)
    RECEIVE_OUTPUT.wrap_on(core, lambda receive: coalescer.before(clock.following(receive)))


def change_app(app: FastAPI, client: AsyncLLM) -> None:
    """Applies all patches of vLLM's application once it is built, and of its client."""
    app.state.server = SimpleNamespace(should_exit=False)  # vLLM's error handler sets this on its own server
    hide_model_path(app)
    report_failures(app)
    name_parameters(app)
    tokenize_chats(app.state.online_renderer)
    budget_responses()
    hide_disabled_thinking(app.state)
    follow_harmony(app.state, client)
    meter_generations(client)
    forget_unsent(client)
    quiet_mistakes()


_MESSAGES_LOGGER = "vllm.entrypoints.anthropic.api_router"


@cache
def quiet_mistakes() -> None:
    """A client's mistake on /v1/messages is answered and no error of the server: no traceback of it is logged."""
    logging.getLogger(_MESSAGES_LOGGER).addFilter(lambda record: not _is_mistake(record))


def _is_mistake(record: logging.LogRecord) -> bool:
    from vllm.entrypoints.serve.exception_handling.error_response import create_error_response

    error = record.exc_info[1] if record.exc_info else None
    return isinstance(error, Exception) and create_error_response(error).error.code < HTTPStatus.INTERNAL_SERVER_ERROR


def hide_model_path(app: FastAPI) -> None:
    """`root` in /v1/models would show where the weights are stored here; it becomes the first served name."""
    models = app.state.openai_serving_models.base_model_paths
    for model in models:
        model.model_path = models[0].name


def report_failures(app: FastAPI) -> None:
    """A dead engine and a stop are 503; vLLM would call both a fault of the request, or a success."""
    from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

    report_stream_failures(app.state)
    for kind in (failures.AbortedGenerationError, EngineDeadError, EngineGenerateError):
        app.add_exception_handler(kind, failures.engine_failure)


_SERVINGS = (
    "openai_serving_chat",
    "openai_serving_completion",
    "openai_serving_responses",
    "anthropic_serving_messages",
)


def report_stream_failures(state: Any) -> None:
    """Changes vLLM's request handlers so that a failed stream breaks, and an aborted generation is a failure.

    Args:
        state: `state` of vLLM's application.
    """
    for name in _SERVINGS:
        if serving := getattr(state, name, None):
            STREAM_ERROR.wrap_on(serving, failures.breaking)
            FINISH_REASON.wrap_on(serving, failures.refusing_aborted)
    if responses := getattr(state, "openai_serving_responses", None):
        RESPONSE_EVENTS.wrap_on(responses, failures.explaining)
    if messages := getattr(state, "anthropic_serving_messages", None):
        MESSAGES.replace_on(messages, failures.answering(messages))


def name_parameters(app: FastAPI) -> None:
    """vLLM's errors often name the wrong parameter only in their message; OpenAI's SDKs show the field `param`."""
    for kind, handler in list(app.exception_handlers.items()):
        app.exception_handlers[kind] = _naming(handler)
    ERROR_HANDLERS.replace_on(app, app.build_middleware_stack())  # it was built already, with the old handlers


def _naming(handler: Callable[..., Any]) -> Callable[..., Any]:
    async def handle(request: Any, error: Exception) -> Response:
        response: Response = await handler(request, error)
        if not isinstance(response, JSONResponse):
            return response
        scope, status = request.scope, response.status_code
        named = in_clients_words(scope["path"], status, json.loads(bytes(response.body)), scope.get(ASKED, ()))
        headers = {name: value for name, value in response.headers.items() if not name.startswith("content-")}
        return JSONResponse(named, status, headers)

    return handle


def tokenize_chats(renderer: Any) -> None:
    """/tokenize with `messages` gives the tokens that /v1/chat/completions makes of them.

    Args:
        renderer: of vLLM's application.
    """
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

    async def preprocess_chat(request: Any, messages: Any, *_: Any, **__: Any) -> Any:
        effort = (request.model_extra or {}).get("reasoning_effort")
        asked = {"messages": list(messages), "tools": request.tools, "reasoning_effort": effort}
        given = {name: value for name, value in asked.items() if value is not None}
        return await renderer.render_chat(ChatCompletionRequest.model_validate(given))

    if renderer.use_harmony:
        TOKENIZE_CHAT.replace_on(renderer, preprocess_chat)


@cache
def budget_responses() -> None:
    """From now on a request of /v1/responses may have `thinking_token_budget`, with the values that chats take."""
    from vllm.sampling_params import validate_thinking_token_budget

    def budgeted(to_sampling_params: Callable[..., Any]) -> Callable[..., Any]:
        def with_budget(request: Any, *arguments: Any, **named: Any) -> Any:
            parameters = to_sampling_params(request, *arguments, **named)
            given = (request.model_extra or {}).get("thinking_token_budget")
            parameters.thinking_token_budget = validate_thinking_token_budget(given)
            return parameters

        return with_budget

    RESPONSE_SAMPLING.wrap(budgeted)


def hide_disabled_thinking(state: Any) -> None:
    """`thinking: {"type": "disabled"}` of /v1/messages leaves the reasoning, which is short then, out of the answer.

    Not a budget of none: GPT-OSS may begin to reason again, and would come to no answer.

    Args:
        state: `state` of vLLM's application.
    """

    def hiding(convert: Callable[..., Any]) -> Callable[..., Any]:
        def convert_hidden(request: Any, **options: Any) -> Any:
            chat = convert(request, **options)
            if request.thinking is not None and request.thinking.type == "disabled":
                chat.include_reasoning = False
            return chat

        return convert_hidden

    if messages := getattr(state, "anthropic_serving_messages", None):
        THINKING.wrap_on(messages, hiding)


def follow_harmony(state: Any, client: AsyncLLM) -> None:
    """What reads channels. A model of another format has none: all of its text is the answer, as vLLM takes it."""
    if state.online_renderer.use_harmony:
        follow_answers(state)
        stop_in_final(client)


_CHAT_SERVINGS = ("openai_serving_chat", "openai_serving_chat_batch", "anthropic_serving_messages")


def follow_answers(state: Any) -> None:
    """Gives parsers what they need of a request.

    Args:
        state: `state` of vLLM's application.
    """
    for name in _CHAT_SERVINGS:
        if serving := getattr(state, name, None):
            CHAT_LOGPROBS.wrap_on(serving, lambda make: lambda *args, **kwargs: LOGPROBS.put(make(*args, **kwargs)))
    if chat := getattr(state, "openai_serving_chat", None):
        for generator in (CHAT_ANSWER, CHAT_STREAM):
            generator.wrap_on(
                chat, lambda make: lambda request, *args, **kwargs: make(hiding_itself(request), *args, **kwargs)
            )
    if responses := getattr(state, "openai_serving_responses", None):
        RESPONSE_PARSER.wrap_on(responses, _following)


def _following(make_parser: Callable[..., Any]) -> Callable[..., Any]:
    def make(request: Any, *args: Any) -> Any:
        parser = make_parser(request, *args)
        return parser.follow(request) if hasattr(parser, "follow") else parser

    return make


def stop_in_final(client: AsyncLLM) -> None:
    """Chats with stop strings get a detokenizer that looks for them in the final channel; others keep vLLM's."""
    from vllm.entrypoints.openai.parser.harmony_utils import get_streamable_parser_for_assistant

    processor = client.output_processor
    new_parser = quiet_parser(get_streamable_parser_for_assistant)

    def stopping(add_request: Callable[..., None]) -> Callable[..., None]:
        def add_stopping(request: Any, *args: Any, **kwargs: Any) -> None:
            add_request(request, *args, **kwargs)
            params = request.sampling_params
            if params is not None and (params.extra_args or {}).get(STOPS_IN_FINAL) and (rule := stop_rule(params)):
                state = processor.request_states[request.request_id]
                state.detokenizer = StoppingDetokenizer(state.detokenizer, FinalStop(new_parser(), rule))

        return add_stopping

    ADD_REQUEST.wrap_on(processor, stopping)


def quiet_parser(new_parser: Callable[[], Any]) -> Callable[[], RepairingParser]:
    """Makes parsers whose repairs do not count, because another one reads the same output."""
    from openai_harmony import HarmonyError
    from vllm.entrypoints.openai.parser.harmony_utils import get_encoding

    return repairing(new_parser, get_encoding, HarmonyError, lambda _: None)


def meter_generations(client: AsyncLLM) -> None:
    """Adds each generation to the meter of its request, if it has one; of other requests nothing is kept."""
    processor = client.output_processor

    def metered(add_request: Callable[..., None]) -> Callable[..., None]:
        def add_metered(request: Any, prompt: Any, parent: Any = None, index: int = 0, queue: Any = None) -> None:
            add_request(request, prompt, parent, index, queue)
            if meter := current_meter():
                state = processor.request_states[request.request_id]
                prompt_tokens = 0 if index else state.prompt_len  # n answers to one prompt
                meter.add(lambda: prompt_tokens + state.detokenizer.num_output_tokens())

        return add_metered

    ADD_REQUEST.wrap_on(processor, metered)


def forget_unsent(client: AsyncLLM) -> None:
    """A request that cannot be sent is the client's mistake, and vLLM keeps nothing of it."""
    from vllm.exceptions import VLLMValidationError

    def forgetting(add_request: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def add_or_forget(request: Any, *args: Any, **kwargs: Any) -> None:
            try:
                await add_request(request, *args, **kwargs)
            except OverflowError:
                client.output_processor.abort_requests([request.request_id], internal=True)
                raise VLLMValidationError("A number of the request has more than 64 bits.") from None

        return add_or_forget

    SEND_REQUEST.wrap_on(client, forgetting)
