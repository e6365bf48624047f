"""Every field that a request of the four APIs may have, and what becomes of it. Data; docs/openai-api.md shows it.

It is of GPT-OSS; what is different for other models is in other_architectures.py.

The names are those of OpenAI's SDK 3.54, Anthropic's 2.12 (with its beta) and of vLLM 0.32's request models; a test
walks all three, so that none is missing. What vLLM does with each for GPT-OSS was read in vLLM 0.32's sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gptoss_bento.http.paths import (
    CHAT,
    CHAT_BATCH,
    COMPACT,
    COMPLETIONS,
    COUNT_TOKENS,
    INPUT_TOKENS,
    MESSAGES,
    RESPONSES,
    TOKENIZE,
)


class Use(StrEnum):
    """What becomes of a field."""

    HONOURED = "honoured"
    NO_EFFECT = "no effect on the answer"
    REFUSED = "refused"


@dataclass(frozen=True)
class Field:
    """One field of a route.

    Args:
        use: what becomes of it.
        why: for a field that is not simply honoured, what a client should know; a sentence without its subject.
        harmless: values that a refused field may have, because they ask for what happens anyway.
    """

    use: Use
    why: str = ""
    harmless: tuple[Any, ...] = ()


def _honoured(*names: str) -> dict[str, Field]:
    return dict.fromkeys(names, Field(Use.HONOURED))


def _without_effect(**reasons: str) -> dict[str, Field]:
    return {name: Field(Use.NO_EFFECT, why) for name, why in reasons.items()}


def _refused(why: str, *harmless: Any) -> Field:
    return Field(Use.REFUSED, why, harmless)


_ONE_MODEL = "there is one kind of processing"
_OF_ACCOUNTS = "is for the accounting of a hosted service"
_CACHE = "vLLM caches every prefix by itself"
_MEDIA = "concerns media, which are refused themselves"
_RENDER = "belongs to vLLM's render routes, which are not served"
_HARMONY = "has no effect: GPT-OSS's prompts are written by the Harmony format, without a template"
_SUMMARY = "reasoning is answered as it is, without a summary"
_MODERATION = "needs a moderation model, which this server has not"

_ACCOUNTS = _without_effect(
    user=_OF_ACCOUNTS,
    metadata=_OF_ACCOUNTS,
    safety_identifier=_OF_ACCOUNTS,
    service_tier=_ONE_MODEL,
    prompt_cache_key=_CACHE,
    prompt_cache_options=_CACHE,
    prompt_cache_retention=_CACHE,
)
_SAMPLING = _honoured("min_p", "seed", "logit_bias")
_PENALTIES = _honoured("frequency_penalty", "presence_penalty", "repetition_penalty")
_STOPPING = _honoured("stop", "stop_token_ids", "include_stop_str_in_output", "ignore_eos", "skip_special_tokens")
# On all routes.
_OF_ENGINE = {
    **_honoured("model", "stream", "temperature", "top_p", "top_k"),
    **_honoured("cache_salt", "watermarking", "vllm_xargs", "kv_transfer_params", "ec_transfer_params"),
    **_without_effect(mm_payload=_RENDER, return_mm_kwargs=_RENDER),
}
_FOR_MEDIA = _without_effect(media_io_kwargs=_MEDIA, mm_processor_kwargs=_MEDIA)
_GUIDED = {
    **_honoured("guided_json", "guided_regex", "guided_choice", "guided_grammar", "guided_whitespace_pattern"),
    **_without_effect(guided_decoding_backend="the server chooses it: STRUCTURED_OUTPUTS_CONFIG"),
}
# On OpenAI's routes.
_GENERATION = {
    **_OF_ENGINE,
    **_SAMPLING,
    **_PENALTIES,
    **_STOPPING,
    **_GUIDED,
    **_honoured("structured_outputs", "priority", "request_id"),
    **_without_effect(session_id="only names a session"),
}
# Common to /v1/chat/completions and /v1/completions.
_GENERATIONS = {
    **_GENERATION,
    **_honoured(
        *("n", "max_tokens", "stream_options", "logprobs", "response_format", "echo", "use_beam_search"),
        *("length_penalty", "min_tokens", "spaces_between_special_tokens", "prompt_logprobs", "logprob_token_ids"),
        *("allowed_token_ids", "bad_words", "repetition_detection", "stream_interval", "thinking_token_budget"),
        *("return_token_ids", "return_tokens_as_token_ids", "routed_experts_prompt_start"),
    ),
    "return_token_offsets": _refused(_RENDER, False),
    "best_of": _refused("was removed from vLLM", 1),
    "early_stopping": _refused("was removed from vLLM", False),
}
_MARKUP = "answers never have control tokens in them; `return_token_ids` has them"
# What vLLM's Harmony parser does not ask for.
_OF_MARKUP = _without_effect(skip_special_tokens=_MARKUP)
_STREAM_OPTIONS = {
    **_honoured("stream_options.include_usage", "stream_options.continuous_usage_stats"),
    "stream_options.include_obfuscation": Field(Use.NO_EFFECT, "streams are sent without padding"),
}

_CHAT = {
    **_GENERATIONS,
    **_OF_MARKUP,
    **_STREAM_OPTIONS,
    **_ACCOUNTS,
    **_FOR_MEDIA,
    **_honoured(
        *("messages", "max_completion_tokens", "top_logprobs", "tools", "tool_choice", "parallel_tool_calls"),
        *("reasoning_effort", "include_reasoning", "chat_template_kwargs", "verbosity"),
    ),
    **_without_effect(
        store="chats are not stored",
        prediction="only makes answers faster elsewhere",
        add_special_tokens="the Harmony format says which there are",
        spaces_between_special_tokens=_MARKUP,
    ),
    "audio": _refused("asks for speech, and GPT-OSS writes text"),
    "modalities": _refused('must be ["text"]: GPT-OSS writes text', ["text"], []),
    "functions": _refused("is OpenAI's old name for tools: use `tools`", []),
    "function_call": _refused("is OpenAI's old name for tool_choice: use `tool_choice`", "none", "auto"),
    "web_search_options": _refused("needs a search that this server has not"),
    "moderation": _refused(_MODERATION, {}),
    "chat_template": _refused(_HARMONY),
    "documents": _refused("has no place in the Harmony format: put them into a message", []),
    "add_generation_prompt": _refused(_HARMONY, True),
    "continue_final_message": _refused(_HARMONY, False),
    "truncate_prompt_tokens": _refused("has no effect on chats: shorten `messages`"),
    "truncation_side": _refused("has no effect on chats: shorten `messages`"),
    "return_prompt_text": _refused("has no effect: use `return_token_ids`", False),
}

_COMPLETIONS = {
    **_GENERATIONS,
    **_STREAM_OPTIONS,
    **_ACCOUNTS,
    **_honoured("prompt", "prompt_embeds", "add_special_tokens", "truncate_prompt_tokens", "truncation_side"),
    "suffix": _refused("needs a model that was trained to fill in", ""),
}

_RESPONSES = {
    **_GENERATION,
    **_OF_MARKUP,
    **_ACCOUNTS,
    **_FOR_MEDIA,
    **_honoured(
        *("input", "instructions", "max_output_tokens", "previous_response_id", "previous_input_messages", "store"),
        *("background", "include", "reasoning", "text", "tools", "tool_choice", "parallel_tool_calls"),
        *("max_tool_calls", "truncation", "enable_response_messages", "chat_template_kwargs", "conversation"),
        *("text.format", "text.verbosity", "reasoning.effort", "thinking_token_budget"),  # the last is ours
    ),
    **_without_effect(
        metadata="is stored with the response, and returned",
        stream_options="streams are sent without padding",
        background_options="says by when a hosted service has to answer",
        client_metadata="says which installation of Codex asks",
        image=_MEDIA,
    ),
    "reasoning.summary": Field(Use.NO_EFFECT, _SUMMARY),
    "reasoning.generate_summary": Field(Use.NO_EFFECT, _SUMMARY),
    "reasoning.context": _refused(
        "is always that of the Harmony format: reasoning since the last answer", "auto", "current_turn"
    ),
    "reasoning.mode": _refused("is no setting of GPT-OSS: use `reasoning.effort`", "standard"),
    "top_logprobs": _refused("is not made for responses of GPT-OSS: chat completions have it", 0),
    "include_reasoning": _refused("has no effect on responses: leave items of type reasoning out", True),
    "prompt": _refused("names a prompt that OpenAI stores: send its text as `instructions` and `input`"),
    "context_management": _refused("is not done here: call /v1/responses/compact, and send what it answers", []),
    "access_programs": _refused("names programs of OpenAI", [], {}),
    "moderation": _refused(_MODERATION, {}),
}

_MESSAGES = {
    **_OF_ENGINE,
    **_honoured(
        *("messages", "system", "max_tokens", "stop_sequences", "thinking", "output_config", "tools", "tool_choice"),
        *("chat_template_kwargs", "guided_json"),
        *("output_config.effort", "output_config.format", "thinking.type", "thinking.budget_tokens"),
    ),
    **_without_effect(
        metadata=_OF_ACCOUNTS,
        service_tier=_ONE_MODEL,
        speed=_ONE_MODEL,
        inference_geo=_OF_ACCOUNTS,
        user_profile_id=_OF_ACCOUNTS,
        workspace_id=_OF_ACCOUNTS,
        billing_policy=_OF_ACCOUNTS,
        fallback_credit_token=_OF_ACCOUNTS,
        fallbacks="are for refusals of another model; there is none here",
        cache_control=_CACHE,
        diagnostics="asks why a cache was not used",
        betas="names features; each has its own field",
        context_management="Harmony drops earlier reasoning by itself; other edits are refused",
    ),
    "thinking.display": Field(Use.NO_EFFECT, "reasoning is answered as it is"),
    "output_config.task_budget": _refused("is not counted here: use `max_tokens`"),
    "output_format": _refused("is the former name of an option: use `output_config.format`"),  # SDKs up to 2025
    "container": _refused("needs Anthropic's containers"),
    "mcp_servers": _refused("is not offered here: call the server yourself, and send its tools as `tools`", []),
    "compaction": _refused("is not done here: ask for a summary in a message"),
    "thread": _refused("needs conversations, which are not stored here: send `messages`"),
}
_COUNTED = {"model", "messages", "system", "thinking", "output_config", "tools", "tool_choice", "chat_template_kwargs"}
_COUNT_TOKENS = {
    name: field for name, field in _MESSAGES.items() if field.use is not Use.HONOURED or name.split(".")[0] in _COUNTED
}

_TOKENIZE = {
    **_honoured("model", "prompt", "messages", "tools", "add_special_tokens", "return_token_strs"),
    **_honoured("reasoning_effort", "chat_template_kwargs"),  # the first is ours
    **{name: _CHAT[name] for name in ("chat_template", "add_generation_prompt", "continue_final_message")},
    **_FOR_MEDIA,
}

_READ = {
    *("model", "input", "instructions", "previous_response_id", "previous_input_messages", "reasoning", "text"),
    *("tools", "tool_choice", "parallel_tool_calls", "truncation", "chat_template_kwargs", "conversation"),
}
_INPUT_TOKENS = {
    **{n: f for n, f in _RESPONSES.items() if f.use is not Use.HONOURED or n.split(".")[0] in _READ},
    "personality": _refused("is no setting of the model: say it in `instructions`"),
}
_OF_REASONING = ("reasoning.summary", "reasoning.generate_summary", "reasoning.mode")
_COMPACTED = _honoured("model", "input", "instructions", "previous_response_id", "reasoning", "reasoning.effort")
_COMPACT = {
    **_ACCOUNTS,
    **_COMPACTED,
    **{name: _RESPONSES[name] for name in ("prompt", *_OF_REASONING, "image", "client_metadata")},
    **_honoured("cache_salt", "priority", "request_id"),
    **_without_effect(
        tools="a summary calls none",
        tool_choice="a summary calls none",
        parallel_tool_calls="a summary calls none",
        text="a summary is a text",
        store="nothing of it is stored",
    ),
    "stream": _refused("is not done here: the answer is one object", False),
    "conversation": _refused("is not compacted: send its items as `input`"),
}

FIELDS: Mapping[str, Mapping[str, Field]] = {
    CHAT: _CHAT,
    CHAT_BATCH: _CHAT,
    COMPLETIONS: _COMPLETIONS,
    RESPONSES: _RESPONSES,
    INPUT_TOKENS: _INPUT_TOKENS,
    COMPACT: _COMPACT,
    MESSAGES: _MESSAGES,
    COUNT_TOKENS: _COUNT_TOKENS,
    TOKENIZE: _TOKENIZE,
}
"""By route, without prefix."""

_NAMES_OF_RESPONSES = {
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "messages": "input",
    "system": "instructions",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "thinking": "thinking_token_budget",
    "stop_sequences": "stop",
}

NAMES_HERE: Mapping[str, Mapping[str, str]] = {
    CHAT: {
        "max_output_tokens": "max_completion_tokens",
        "input": "messages",
        "prompt": "messages",
        "instructions": "messages",
        "system": "messages",
        "reasoning": "reasoning_effort",
        "output_config": "reasoning_effort",
        "thinking": "thinking_token_budget",
        "text": "response_format",
        "stop_sequences": "stop",
    },
    COMPLETIONS: {
        "max_completion_tokens": "max_tokens",
        "max_output_tokens": "max_tokens",
        "stop_sequences": "stop",
        "thinking": "thinking_token_budget",
    },
    RESPONSES: _NAMES_OF_RESPONSES,
    INPUT_TOKENS: {name: here for name, here in _NAMES_OF_RESPONSES.items() if here.split(".")[0] in _READ},
    COMPACT: {name: here for name, here in _NAMES_OF_RESPONSES.items() if here.split(".")[0] in _COMPACTED},
    MESSAGES: {
        "stop": "stop_sequences",
        "max_completion_tokens": "max_tokens",
        "max_output_tokens": "max_tokens",
        "reasoning_effort": "output_config.effort",
        "reasoning": "output_config.effort",
        "response_format": "output_config.format",
        "structured_outputs": "output_config.format",
        "thinking_token_budget": "thinking.budget_tokens",
        "instructions": "system",
        "input": "messages",
    },
}
"""What a field of another route is called on this one."""
