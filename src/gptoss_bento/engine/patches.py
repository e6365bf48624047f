"""All that is replaced of vLLM in an API worker: the table, and the functions that apply it.

What is replaced in the engine's own processes: vllm_plugin/patches.py. Written against vLLM 0.32.0.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cachetools import FIFOCache
from starlette.responses import JSONResponse, Response

from gptoss_bento.engine import failures, grammar_errors, tool_calls
from gptoss_bento.engine.background_tasks import BackgroundTasks
from gptoss_bento.engine.engine_gauges import EngineClock
from gptoss_bento.engine.harmony_parser import LOGPROBS, answer_parser
from gptoss_bento.engine.harmony_repair import KINDS, RepairingParser, repairing
from gptoss_bento.engine.output_coalescing import OutputCoalescer
from gptoss_bento.engine.stop_strings import FinalStop, StoppingDetokenizer, stop_rule
from gptoss_bento.engine.usage import current_meter
from gptoss_bento.http.error_words import in_clients_words
from gptoss_bento.http.errors import ASKED
from gptoss_bento.patching import Patch, PrivateUse

if TYPE_CHECKING:
    from fastapi import FastAPI
    from vllm.v1.engine.async_llm import AsyncLLM

RESPONSES_KEPT = 1000
"""How many answers of /v1/responses can be asked for again."""

_CONTRACT = "tests/contract/test_vllm.py::"

# How the engine's process starts: engine/preload.py

START_METHOD = Patch(
    "vllm.v1.engine.utils:get_mp_context",
    "The engine's process imports vLLM only after everything else is ready: ten seconds.",
    "None: VLLM_WORKER_MULTIPROC_METHOD takes `fork` and `spawn`, not `forkserver`.",
    _CONTRACT + "test_engines_process_comes_from_the_context_that_is_replaced",
)

# Several API workers

RECEIVE_OUTPUT = Patch(
    "vllm.v1.engine.core_client:AsyncMPClient.get_output_async",
    "With fewer cores than processes each token is a separate message; and the gauges need each message's time.",
    "A subclass would do, but `EngineCoreClient.make_async_mp_client` names the class itself.",
    _CONTRACT + "test_output_is_received_by_the_method_of_the_client",
)

# vLLM's application

HARMONY_PARSER = Patch(
    "vllm.parser.harmony:get_streamable_parser_for_assistant",
    "vLLM skips each token that the Harmony parser refuses: the answer is lost, or ends up in the reasoning.",
    "`--tool-parser-plugin` and `--reasoning-parser-plugin` name other parsers; gpt-oss bypasses both (`is_harmony`).",
    "tests/contract/test_harmony.py::test_vllm_without_the_repairs_still_loses_answers",
)
_HARMONY_CONTRACT = "tests/contract/test_harmony.py::"

ANSWER_PARSER = Patch(
    "vllm.parser.harmony:HarmonyParser",
    "It reads token ids, and so lets the stop string into the answer, and counts arguments of functions as reasoning. "
    "The subclass also keeps only the answer's tokens in a chat's log probabilities.",
    HARMONY_PARSER.instead,
    _HARMONY_CONTRACT + "test_vllms_own_parser_still_lets_stop_strings_through",
)
RESPONSE_PARSER = Patch(
    "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses._make_response_parser",
    "The parser of a response does not get the request, which has the stop strings.",
    HARMONY_PARSER.instead,
    _HARMONY_CONTRACT + "test_parser_of_a_response_is_made_for_its_request",
)
CHAT_LOGPROBS = Patch(
    "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat._create_chat_logprobs",
    "`logprobs.content` has the tokens of reasoning and markup too.",
    HARMONY_PARSER.instead,
    _HARMONY_CONTRACT + "test_log_probabilities_are_made_just_before_the_chunk_is_parsed",
)
CHAT_SAMPLING = Patch(
    "vllm.entrypoints.openai.chat_completion.protocol:ChatCompletionRequest.to_sampling_params",
    "The detokenizer ends a chat at a stop string within the reasoning: it does not know what the tokens belong to.",
    "None: `vllm_xargs` reach the engine, but a client can set them on completions too.",
    _HARMONY_CONTRACT + "test_detokenizer_of_vllm_still_stops_within_the_reasoning",
)
RESPONSE_SAMPLING = Patch(
    "vllm.entrypoints.openai.responses.protocol:ResponsesRequest.to_sampling_params",
    "The same for responses; and they have no budget of reasoning tokens, which chats and completions have.",
    CHAT_SAMPLING.instead,
    _CONTRACT + "test_responses_still_have_no_budget_of_reasoning",
)
RESPONSE_STORE = Patch(
    "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses.response_store",
    "vLLM never removes a stored response.",
    "None: VLLM_ENABLE_RESPONSES_API_STORE turns the store on or off, and has no bound.",
    _CONTRACT + "test_responses_are_kept_in_the_dictionaries_that_the_engine_bounds",
)
MESSAGE_STORE = Patch(
    "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses.msg_store",
    "The same for a response's messages.",
    RESPONSE_STORE.instead,
    RESPONSE_STORE.test,
)
EVENT_STORE = Patch(
    "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses.event_store",
    "The same for the events of a background response.",
    RESPONSE_STORE.instead,
    RESPONSE_STORE.test,
)
BACKGROUND_TASKS = Patch(
    "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses.background_tasks",
    "A background response would release its slot when it is accepted, long before the engine is done with it.",
    "None.",
    _CONTRACT + "test_background_response_is_a_task_that_its_request_puts_into_the_dictionary",
)
STREAM_ERROR = Patch(
    "vllm.entrypoints.generate.base.serving:GenerateBaseServing.create_streaming_error_response",
    "A stream that failed ends with an error event and then `[DONE]`, as if it had succeeded.",
    "A subclass of each serving class would do; `init_app_state` names the classes itself.",
    _CONTRACT + "test_stream_that_failed_still_ends_as_if_it_had_succeeded",
)
FINISH_REASON = Patch(
    "vllm.entrypoints.generate.base.serving:GenerateBaseServing._raise_if_error",
    'An aborted generation is an answer with `finish_reason: "abort"`.',
    STREAM_ERROR.instead,
    _CONTRACT + "test_request_handlers_all_check_for_an_aborted_generation",
)
RESPONSE_EVENTS = Patch(
    "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses.responses_stream_generator",
    "A stream of /v1/responses that fails ends without an error event.",
    STREAM_ERROR.instead,
    _CONTRACT + "test_symbol_exists_and_takes_our_arguments",
)
MESSAGES = Patch(
    "vllm.entrypoints.anthropic.serving:AnthropicServingMessages.create_messages",
    "The route of /v1/messages makes a 500 of every exception, also of a stop and a dead engine.",
    STREAM_ERROR.instead,
    RESPONSE_EVENTS.test,
)
ADD_REQUEST = Patch(
    "vllm.v1.engine.output_processor:OutputProcessor.add_request",
    "Keys have limits of tokens, and vLLM reports the tokens of a request only where the client asked for `usage`. "
    "And the detokenizer of a chat with stop strings is replaced here, in the request's state.",
    "None: a stat logger plugin gets sums over all requests.",
    _CONTRACT + "test_generations_can_be_metered",
)
ERROR_HANDLERS = Patch(
    "starlette.applications:Starlette.middleware_stack",
    "vLLM's errors often leave OpenAI's field `param` empty; its `build_app` has built the stack with its handlers.",
    "`add_exception_handler` is public, and has no effect on a stack that is built.",
    _CONTRACT + "test_error_handlers_take_effect_once_the_stack_is_built_again",
)

TOKENIZE_CHAT = Patch(
    "vllm.renderers.online_renderer:OnlineRenderer.preprocess_chat",
    "/tokenize with `messages` asks for a chat template, which GPT-OSS does not use: an error, or other tokens.",
    "None: /v1/chat/completions/render gives the tokens, but needs vLLM's render server.",
    "tests/contract/test_request_fields.py::test_tokenize_renders_chats_by_the_method_that_is_replaced",
)
THINKING = Patch(
    "vllm.entrypoints.anthropic.serving:AnthropicServingMessages.to_chat_completion_request",
    "An answer has a thinking block although the request disables thinking.",
    "None: ANTHROPIC_DISABLED_THINKING_EFFORT lowers the effort, and GPT-OSS always reasons.",
    _CONTRACT + "test_disabled_thinking_still_asks_for_reasoning",
)

TOOL_DEFINITION = Patch(
    "vllm.entrypoints.openai.parser.harmony_utils:create_tool_definition",
    "openai-harmony writes `any` for `$ref`, `anyOf`, `allOf`, `const` and more: the model never sees those types.",
    "None: GPT-OSS has no chat template in vLLM, and the library has no option.",
    "tests/contract/test_tool_prompts.py::test_library_still_writes_any_for_references_and_unions",
)

TOOL_PARAMETERS = Patch(
    "vllm.parser.harmony:get_function_parameters",
    "One tool with parameters that cannot be compiled would make every request with it a 400: calls follow schemas.",
    "None: TOOL_STRICT_LEVEL says whether calls are held to schemas, not what becomes of one that cannot be compiled.",
    "tests/contract/test_schemas.py::test_calls_are_made_of_the_parameters_that_are_replaced",
)
ANSWER_FORMAT = Patch(
    "vllm.parser.harmony:structured_outputs_to_format",
    "xgrammar reads no escapes in `$ref` and no `false`, and closes lists and objects that are open.",
    "None.",
    "tests/contract/test_schemas.py::test_answers_are_made_of_the_format_that_is_replaced",
)
CALL_CHANNELS = Patch(
    "vllm.parser.harmony:_TOOL_CALL_CHANNELS",
    "Grammars allow calls in the final channel: beside a JSON schema a model that begins its answer there ends in one.",
    "None.",
    "tests/contract/test_tool_choice.py::test_call_is_in_the_channels_for_calls",
)
ADJUST_REQUEST = Patch(
    "vllm.renderers.online_renderer:OnlineRenderer.adjust_harmony_request",
    'With `tool_choice: "none"` the model may still call a tool; the call is left out, and the answer is empty.',
    "None.",
    "tests/contract/test_tool_choice.py::test_request_without_a_choice_of_tools_is_held_to_text",
)
RENDER_RESPONSES = Patch(
    "vllm.renderers.online_renderer:OnlineRenderer._render_responses_with_harmony",
    'Responses show the model its tools with `tool_choice: "none"`, too.',
    "EXCLUDE_TOOLS_WHEN_TOOL_CHOICE_NONE is for chats and messages alone.",
    "tests/contract/test_tool_choice.py::test_responses_without_a_choice_of_tools_show_none",
)
CHECK_CONSTRAINT = Patch(
    "vllm.v1.structured_output.backend_xgrammar:validate_xgrammar_grammar",
    "What xgrammar refuses goes on to guidance, which cannot read it: \"Invalid grammar specification: 'triggers'\".",
    "STRUCTURED_OUTPUTS_CONFIG with the backend xgrammar: its own text is 'Invalid structural tag specification'.",
    "tests/contract/test_schemas.py::test_constraint_that_cannot_be_compiled_has_a_reason",
)

PATCHES: tuple[Patch, ...] = (
    START_METHOD,
    RECEIVE_OUTPUT,
    HARMONY_PARSER,
    ANSWER_PARSER,
    RESPONSE_PARSER,
    CHAT_LOGPROBS,
    CHAT_SAMPLING,
    RESPONSE_SAMPLING,
    RESPONSE_STORE,
    MESSAGE_STORE,
    EVENT_STORE,
    BACKGROUND_TASKS,
    STREAM_ERROR,
    FINISH_REASON,
    RESPONSE_EVENTS,
    MESSAGES,
    ADD_REQUEST,
    ERROR_HANDLERS,
    TOKENIZE_CHAT,
    THINKING,
    TOOL_DEFINITION,
    TOOL_PARAMETERS,
    CALL_CHANNELS,
    ANSWER_FORMAT,
    ADJUST_REQUEST,
    RENDER_RESPONSES,
    CHECK_CONSTRAINT,
)

PRIVATE_USES: tuple[PrivateUse, ...] = (
    PrivateUse(
        "vllm.entrypoints.openai.chat_completion.protocol:ChatCompletionRequest.structured_outputs",
        "set",
        "Holds an answer to text where no tool may be called; vLLM's parsers set the same field of their requests.",
        ADJUST_REQUEST.test,
    ),
    PrivateUse(
        "vllm.v1.engine.async_llm:AsyncLLM._run_output_handler",
        "called",
        "Metrics and warm-up need the receiving task before the first request starts it.",
        _CONTRACT + "test_output_is_received_by_the_method_of_the_client",
    ),
    PrivateUse(
        "vllm.v1.engine.async_llm:AsyncLLM._logger_ref",
        "set",
        "Requests of a warm-up are in no metric. The list's only item is None meanwhile.",
        _CONTRACT + "test_messages_are_recorded_by_the_logger_in_a_list",
    ),
    PrivateUse(
        "vllm.engine.arg_utils:AsyncEngineArgs._api_process_count",
        "set",
        "One of several workers says so, as `vllm serve --api-server-count` does for its own.",
        _CONTRACT + "test_api_server_of_several_has_an_index",
    ),
    PrivateUse(
        "vllm.engine.arg_utils:AsyncEngineArgs._api_process_rank",
        "set",
        "And which one it is.",
        _CONTRACT + "test_api_server_of_several_has_an_index",
    ),
    PrivateUse(
        "vllm.v1.engine.core_client:BackgroundResources.engine_manager",
        "set",
        "The first worker watches and ends the engine's process; its exit code names the cause.",
        _CONTRACT + "test_client_of_several_takes_its_addresses_and_leaves_the_engine_to_its_owner",
    ),
    PrivateUse(
        "vllm.v1.engine.core_client:AsyncMPClient.outputs_queue",
        "read",
        "Whether output waits: then receiving does not pause.",
        _CONTRACT + "test_output_of_the_engine_waits_in_a_queue_that_can_be_inspected",
    ),
    PrivateUse(
        "vllm.v1.engine.output_processor:OutputProcessor.propagate_error",
        "called",
        "A stop and a hanging engine end the running requests with a 503.",
        _CONTRACT + "test_symbol_exists_and_takes_our_arguments",
    ),
    PrivateUse(
        "vllm.v1.engine.output_processor:OutputProcessor.request_states",
        "read",
        "Tokens of a prompt and of its answer so far.",
        _CONTRACT + "test_generations_can_be_metered",
    ),
    PrivateUse(
        "vllm.v1.engine.output_processor:RequestState.detokenizer",
        "set",
        "That of a chat with stop strings looks for them in the final channel.",
        CHAT_SAMPLING.test,
    ),
    PrivateUse(
        "vllm.v1.engine.detokenizer:BaseIncrementalDetokenizer.stop",
        "set",
        "vLLM's own, within the one that replaces it, looks for nothing.",
        CHAT_SAMPLING.test,
    ),
    PrivateUse(
        "vllm.v1.engine.detokenizer:BaseIncrementalDetokenizer.stop_buffer_length",
        "set",
        "Nor does it hold text back.",
        CHAT_SAMPLING.test,
    ),
    PrivateUse(
        "vllm.sampling_params:SamplingParams.extra_args",
        "set",
        "They show the engine's output side that a request's stop strings count in the final channel.",
        _HARMONY_CONTRACT + "test_sampling_parameters_say_where_stop_strings_count",
    ),
    PrivateUse(
        "vllm.parser.harmony:HarmonyParser._parser",
        "read",
        "What it recovers at the end of the output is in no segment.",
        _HARMONY_CONTRACT + "test_stream_and_whole_answer_are_the_same",
    ),
    PrivateUse(
        "vllm.parser.harmony:HarmonyParser._num_counted_tokens",
        "read",
        "`min_tokens` counts all tokens of an answer, and a parser gets them in chunks.",
        _HARMONY_CONTRACT + "test_stop_string_within_the_first_tokens_is_text",
    ),
    PrivateUse(
        "vllm.parser.harmony:HarmonyParser._is_reasoning_token",
        "overridden",
        "Arguments of functions are no reasoning.",
        _HARMONY_CONTRACT + "test_arguments_of_functions_are_no_reasoning_tokens",
    ),
    PrivateUse(
        "vllm.entrypoints.openai.models.protocol:BaseModelPath.model_path",
        "set",
        "`root` in /v1/models would show a path of this machine.",
        _CONTRACT + "test_symbol_exists_and_takes_our_arguments",
    ),
    PrivateUse(
        "vllm.entrypoints.launchers.launcher:terminate_if_errored",
        "read",
        "It sets `should_exit` on `app.state.server`, which is uvicorn's server in `vllm serve`; here a substitute.",
        _CONTRACT + "test_error_handler_ends_the_server_of_the_state",
    ),
    PrivateUse(
        "vllm.v1.metrics.loggers:PrometheusStatLogger._gauge_cls",
        "overridden",
        "Of several workers the slowest sets the gauges last, so that an idle engine shows running requests. "
        "The subclass is passed as one of `stat_loggers`, a public parameter.",
        _CONTRACT + "test_gauges_take_the_time_of_the_engines_message",
    ),
    PrivateUse(
        "prometheus_client.metrics:Gauge._is_most_recent",
        "read",
        "The gauge of several workers takes the engine's time; with it `_value.set(…, timestamp=…)`.",
        "tests/unit/engine/test_engine_gauges.py::test_gauge_has_the_newest_value_of_any_worker",
    ),
)


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
    CHECK_CONSTRAINT.wrap(partial(grammar_errors.explained, refusal=VLLMValidationError, error=VLLMClientError))


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
    bound_response_store(app)
    BACKGROUND_TASKS.replace_on(app.state.openai_serving_responses, BackgroundTasks())
    report_failures(app)
    name_parameters(app)
    tokenize_chats(app.state.online_renderer)
    budget_responses()
    hide_disabled_thinking(app.state)
    follow_answers(app.state)
    stop_in_final(client)
    meter_generations(client)


def hide_model_path(app: FastAPI) -> None:
    """`root` in /v1/models would show where the weights are stored here; it becomes the first served name."""
    models = app.state.openai_serving_models.base_model_paths
    for model in models:
        model.model_path = models[0].name


def bound_response_store(app: FastAPI) -> None:
    """GET /v1/responses/{id} needs stored responses, and vLLM never removes one; here the oldest are evicted.

    A response may need its messages as long as it is kept itself, and those are stored earlier: they stay longer.
    """
    responses = app.state.openai_serving_responses
    RESPONSE_STORE.replace_on(responses, FIFOCache(RESPONSES_KEPT))
    MESSAGE_STORE.replace_on(responses, FIFOCache(2 * RESPONSES_KEPT))
    EVENT_STORE.replace_on(responses, FIFOCache(2 * RESPONSES_KEPT))


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


_CHAT_SERVINGS = ("openai_serving_chat", "openai_serving_chat_batch", "anthropic_serving_messages")


def follow_answers(state: Any) -> None:
    """Gives parsers what they need of a request.

    Args:
        state: `state` of vLLM's application.
    """
    for name in _CHAT_SERVINGS:
        if serving := getattr(state, name, None):
            CHAT_LOGPROBS.wrap_on(serving, lambda make: lambda *args, **kwargs: LOGPROBS.put(make(*args, **kwargs)))
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
