"""The table of fields against what OpenAI and Anthropic publish. vLLM's: tests/contract/test_request_fields.py."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from anthropic.types import (
    OutputConfigParam,
    ThinkingConfigAdaptiveParam,
    ThinkingConfigDisabledParam,
    ThinkingConfigEnabledParam,
    message_count_tokens_params,
    message_create_params,
)
from anthropic.types.beta import BetaOutputConfigParam
from anthropic.types.beta import message_count_tokens_params as beta_count
from anthropic.types.beta import message_create_params as beta
from openai.types import completion_create_params as completion
from openai.types.chat import ChatCompletionStreamOptionsParam
from openai.types.chat import completion_create_params as chat
from openai.types.responses import ResponseTextConfigParam
from openai.types.responses import response_create_params as responses
from openai.types.responses.input_token_count_params import InputTokenCountParams
from openai.types.responses.response_compact_params import ResponseCompactParams
from openai.types.shared_params import Reasoning

from gptoss_bento.http.fields.table import FIELDS, NAMES_HERE, Use
from gptoss_bento.http.paths import CHAT, COMPACT, COMPLETIONS, COUNT_TOKENS, INPUT_TOKENS, MESSAGES, RESPONSES

PUBLISHED: dict[str, list[Any]] = {
    CHAT: [chat.CompletionCreateParamsNonStreaming, chat.CompletionCreateParamsStreaming],
    COMPLETIONS: [completion.CompletionCreateParamsNonStreaming, completion.CompletionCreateParamsStreaming],
    INPUT_TOKENS: [InputTokenCountParams],
    COMPACT: [ResponseCompactParams],
    RESPONSES: [responses.ResponseCreateParamsNonStreaming, responses.ResponseCreateParamsStreaming],
    MESSAGES: [
        message_create_params.MessageCreateParamsNonStreaming,
        message_create_params.MessageCreateParamsStreaming,
        beta.MessageCreateParamsNonStreaming,
        beta.MessageCreateParamsStreaming,
    ],
    COUNT_TOKENS: [message_count_tokens_params.MessageCountTokensParams, beta_count.MessageCountTokensParams],
}
OPTIONS: list[tuple[str, str, Any]] = [
    (CHAT, "stream_options", ChatCompletionStreamOptionsParam),
    (COMPLETIONS, "stream_options", ChatCompletionStreamOptionsParam),
    (RESPONSES, "text", ResponseTextConfigParam),
    (RESPONSES, "reasoning", Reasoning),
    (MESSAGES, "output_config", OutputConfigParam),
    (MESSAGES, "output_config", BetaOutputConfigParam),
    (MESSAGES, "thinking", ThinkingConfigEnabledParam),
    (MESSAGES, "thinking", ThinkingConfigDisabledParam),
    (MESSAGES, "thinking", ThinkingConfigAdaptiveParam),
]


def names(params: Any) -> set[str]:
    """Those of a typed dictionary, its parents' too."""
    return set(params.__required_keys__ | params.__optional_keys__)


@pytest.mark.parametrize("path", PUBLISHED)
def test_every_published_parameter_is_in_the_table(path: str) -> None:
    published = set().union(*map(names, PUBLISHED[path]))

    assert published - FIELDS[path].keys() == set()


@pytest.mark.parametrize(("path", "name", "options"), OPTIONS)
def test_every_published_option_within_a_parameter_is_in_the_table(path: str, name: str, options: Any) -> None:
    published = {f"{name}.{inner}" for inner in get_type_hints(options)}

    assert published - FIELDS[path].keys() == set()


@pytest.mark.parametrize("path", FIELDS)
def test_fields_that_are_not_honoured_have_a_reason(path: str) -> None:
    assert [name for name, field in FIELDS[path].items() if bool(field.why) == (field.use is Use.HONOURED)] == []


@pytest.mark.parametrize("path", NAMES_HERE)
def test_names_of_other_routes_map_to_fields_of_this_one(path: str) -> None:
    assert NAMES_HERE[path].keys() & FIELDS[path].keys() == set()
    assert {name.split(".")[0] for name in NAMES_HERE[path].values()} <= FIELDS[path].keys()
