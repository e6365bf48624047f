"""The list of all that is replaced of vLLM in an API worker. replacements.py puts it in place.

What is replaced in the engine's own processes: vllm_plugin/patches.py. Written against vLLM 0.32.0.
"""

from __future__ import annotations

from gptoss_bento.patching import Patch, PrivateUse

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
CHAT_ANSWER = Patch(
    "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat.chat_completion_full_generator",
    "With `include_reasoning: false` the answer has no log probabilities: they could be those of the reasoning.",
    "None.",
    _HARMONY_CONTRACT + "test_vllm_still_leaves_out_log_probabilities_where_reasoning_is_hidden",
)
CHAT_STREAM = Patch(
    "vllm.entrypoints.openai.chat_completion.serving:OpenAIServingChat.chat_completion_stream_generator",
    "The same for streams.",
    CHAT_ANSWER.instead,
    CHAT_ANSWER.test,
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
NEW_SESSION = Patch(
    "vllm.entrypoints.mcp.tool_server:MCPToolServer.new_session",
    "A tool server that has gone is a 500 without its name, one that hangs holds the request, and within a session "
    "every error of the request or of the engine becomes a group of errors: a 500.",
    "None: `init_tool_server` names the class itself.",
    "tests/contract/test_tool_servers.py::test_errors_within_a_session_of_vllms_still_become_groups",
)
ADD_REQUEST = Patch(
    "vllm.v1.engine.output_processor:OutputProcessor.add_request",
    "Keys have limits of tokens, and vLLM reports the tokens of a request only where the client asked for `usage`. "
    "And the detokenizer of a chat with stop strings is replaced here, in the request's state.",
    "None: a stat logger plugin gets sums over all requests.",
    _CONTRACT + "test_generations_can_be_metered",
)
SEND_REQUEST = Patch(
    "vllm.v1.engine.async_llm:AsyncLLM._add_request",
    "A request that cannot be sent to the engine, for an integer of its has more than 64 bits, is kept for ever.",
    "None: what is checked before (http/fields/integers.py) does not see digits that vLLM makes a number of.",
    _CONTRACT + "test_request_that_cannot_be_sent_is_not_kept",
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
    'Responses show the model its tools with `tool_choice: "none"`, too. And built-in tools that the service does not '
    "have are left out without a word.",
    "EXCLUDE_TOOLS_WHEN_TOOL_CHOICE_NONE is for chats and messages alone.",
    "tests/contract/test_tool_choice.py::test_responses_without_a_choice_of_tools_show_none",
)
RENDER_MESSAGES = Patch(
    "vllm.renderers.online_renderer:OnlineRenderer.render_responses_harmony_messages",
    "What the model says before a call gets the channel `final`, and so the reasoning before it is left out.",
    "None: items have no channel, and vLLM does not read their `phase`.",
    "tests/contract/test_preambles.py::test_vllm_still_takes_a_preamble_for_an_answer",
)
CALL_TOOL = Patch(
    "vllm.entrypoints.openai.responses.context:HarmonyContext.call_tool",
    "`max_tool_calls` has no effect: a model may call built-in tools without an end.",
    "None.",
    "tests/contract/test_tool_call_limit.py::test_vllm_still_calls_tools_beyond_the_limit",
)
NEEDS_CALL = Patch(
    "vllm.entrypoints.openai.responses.context:HarmonyContext.need_builtin_tool_call",
    "The same, where the model calls again after it has read that the limit is reached.",
    CALL_TOOL.instead,
    "tests/contract/test_tool_call_limit.py::test_response_ends_with_a_call_after_the_note",
)
_HOSTED_CONTRACT = "tests/contract/test_hosted.py::"

PREPARE_RESPONSES = Patch(
    "vllm.renderers.online_renderer:OnlineRenderer.render_responses",
    "MCP servers of a request are asked for their tools, and items of earlier calls become messages, before a prompt "
    "is rendered.",
    "None: a tool server has two names for GPT-OSS, and says what it has at the start.",
    _HOSTED_CONTRACT + "test_vllm_still_reads_no_items_of_built_in_tools",
)
ITEM_MESSAGE = Patch(
    "vllm.renderers.online_renderer:response_input_to_harmony",
    "It reads no calls of built-in tools; here they are messages already, which pass.",
    PREPARE_RESPONSES.instead,
    PREPARE_RESPONSES.test,
)
DEVELOPER_MESSAGE = Patch(
    "vllm.entrypoints.openai.parser.harmony_utils:get_developer_message",
    "Tools of the type mcp are refused beside functions.",
    PREPARE_RESPONSES.instead,
    _HOSTED_CONTRACT + "test_vllm_still_refuses_mcp_beside_functions",
)
TOOL_SESSIONS = Patch(
    "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses._initialize_tool_sessions",
    "Connections with MCP servers of a request end with its response.",
    PREPARE_RESPONSES.instead,
    _HOSTED_CONTRACT + "test_response_with_python_goes_through_vllms_loop",
)
TOOL_LOOP = Patch(
    "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses._generate_with_builtin_tools",
    "A call that the client has approved is made before the model goes on.",
    PREPARE_RESPONSES.instead,
    TOOL_SESSIONS.test,
)
TOOL_EVENTS = Patch(
    "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses._process_harmony_streaming_events",
    "A stream says that a call is complete before it is made, and has no results, citations, lists of tools and "
    "questions for approval.",
    "None.",
    TOOL_SESSIONS.test,
)
WHOLE_RESPONSE = Patch(
    "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses.responses_full_generator",
    "The same for the object of a response: OUTPUT_ITEMS gets its tools here.",
    "None.",
    TOOL_SESSIONS.test,
)
OUTPUT_ITEMS = Patch(
    "vllm.entrypoints.openai.responses.serving:harmony_to_response_output",
    "Code is an item of reasoning, a search has no sources, and a text no citations.",
    "None.",
    TOOL_SESSIONS.test,
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
    CHAT_ANSWER,
    CHAT_STREAM,
    CHAT_SAMPLING,
    RESPONSE_SAMPLING,
    STREAM_ERROR,
    FINISH_REASON,
    RESPONSE_EVENTS,
    MESSAGES,
    NEW_SESSION,
    ADD_REQUEST,
    SEND_REQUEST,
    ERROR_HANDLERS,
    TOKENIZE_CHAT,
    THINKING,
    TOOL_DEFINITION,
    TOOL_PARAMETERS,
    CALL_CHANNELS,
    ANSWER_FORMAT,
    ADJUST_REQUEST,
    RENDER_RESPONSES,
    RENDER_MESSAGES,
    CALL_TOOL,
    NEEDS_CALL,
    PREPARE_RESPONSES,
    ITEM_MESSAGE,
    DEVELOPER_MESSAGE,
    TOOL_SESSIONS,
    TOOL_LOOP,
    TOOL_EVENTS,
    WHOLE_RESPONSE,
    OUTPUT_ITEMS,
    CHECK_CONSTRAINT,
)

PRIVATE_USES: tuple[PrivateUse, ...] = (
    PrivateUse(
        "vllm.entrypoints.openai.responses.serving:OpenAIServingResponses.tool_server",
        "set",
        "The tools of this process are a tool server to vLLM, beside those of TOOL_SERVER.",
        TOOL_SESSIONS.test,
    ),
    PrivateUse(
        "vllm.entrypoints.openai.responses.protocol:ResponsesRequest.input",
        "set",
        "Items of earlier calls of built-in tools become messages of Harmony's, which ITEM_MESSAGE lets pass.",
        PREPARE_RESPONSES.test,
    ),
    PrivateUse(
        "vllm.entrypoints.openai.responses.context:HarmonyContext.num_init_messages",
        "set",
        "The result of a call that the client has approved is of the prompt, not of the answer.",
        _HOSTED_CONTRACT + "test_approved_call_is_made_before_the_model_goes_on",
    ),
    PrivateUse(
        "vllm.entrypoints.openai.responses.context:HarmonyContext.all_turn_metrics",
        "read",
        "How much of the context is in use, to which the result of a tool is cut.",
        _HOSTED_CONTRACT + "test_result_is_cut_to_the_room_of_the_context",
    ),
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
        "vllm.entrypoints.anthropic.api_router:logger",
        "read",
        "A filter on this logger keeps tracebacks of clients' mistakes out of the log; only its name is private.",
        _CONTRACT + "test_mistakes_of_messages_are_logged_by_the_logger_that_has_a_filter",
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
