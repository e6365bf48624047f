"""The table of a request's fields against vLLM's request models: none is missing, and none is made up."""

from __future__ import annotations

import importlib
import inspect
from types import SimpleNamespace
from typing import Any

import pytest

from gptoss_bento.engine.replacements import tokenize_chats
from gptoss_bento.http.error_words import TOO_LONG, in_clients_words
from gptoss_bento.http.fields.check import checked
from gptoss_bento.http.fields.table import FIELDS, Use
from gptoss_bento.http.paths import CHAT, COMPLETIONS, COUNT_TOKENS, MESSAGES, RESPONSES, TOKENIZE
from tests.unit.http.fields.test_table import PUBLISHED, names

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]

MODELS = {
    CHAT: ("openai.chat_completion", "ChatCompletionRequest"),
    COMPLETIONS: ("openai.completion", "CompletionRequest"),
    RESPONSES: ("openai.responses", "ResponsesRequest"),
    MESSAGES: ("anthropic", "AnthropicMessagesRequest"),
    COUNT_TOKENS: ("anthropic", "AnthropicCountTokensRequest"),
}
OF_EARLIER_VLLM = {
    "best_of",
    "early_stopping",
    "guided_json",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "guided_whitespace_pattern",
    "guided_decoding_backend",
}
"""Ours to translate or to refuse: vLLM has removed them."""
OURS = {"thinking_token_budget", "verbosity", "conversation"}
"""On the route that has the field; vLLM reads the first on others, and has neither of the others."""
OF_EARLIER_SDKS = {"output_format"}
"""Anthropic's, in a beta of 2025; it would change the answer."""


def model(path: str) -> Any:
    package, name = MODELS[path]
    return getattr(importlib.import_module(f"vllm.entrypoints.{package}.protocol"), name)


def top(path: str, *uses: Use) -> set[str]:
    return {name for name, field in FIELDS[path].items() if field.use in uses and "." not in name}


@pytest.mark.parametrize("path", MODELS)
def test_every_field_of_vllm_is_in_the_table(path: str) -> None:
    assert set(model(path).model_fields) - FIELDS[path].keys() == set()


@pytest.mark.parametrize("path", MODELS)
def test_honoured_fields_are_known_to_vllm_or_translated(path: str) -> None:
    assert top(path, Use.HONOURED) - set(model(path).model_fields) <= OF_EARLIER_VLLM | OURS


@pytest.mark.parametrize("path", set(MODELS) - {COUNT_TOKENS})  # of which clients send what /v1/messages takes
def test_refused_fields_are_published_ones(path: str) -> None:
    known = set(model(path).model_fields).union(*map(names, PUBLISHED[path]))

    assert top(path, Use.REFUSED) - known <= OF_EARLIER_VLLM | OF_EARLIER_SDKS


def test_every_field_of_tokenize_is_in_the_table() -> None:
    protocol = importlib.import_module("vllm.entrypoints.serve.tokenize.protocol")
    known = {*protocol.TokenizeCompletionRequest.model_fields, *protocol.TokenizeChatRequest.model_fields}

    assert FIELDS[TOKENIZE].keys() - {"reasoning_effort"} == known


MINIMAL: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "x"}]},
    COMPLETIONS: {"prompt": "x"},
    RESPONSES: {"input": "x"},
    MESSAGES: {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]},
    COUNT_TOKENS: {"model": "m", "messages": [{"role": "user", "content": "x"}]},
}


@pytest.mark.parametrize("path", MODELS)
def test_null_for_every_optional_field_is_valid(path: str) -> None:
    nulls = {name: None for name in FIELDS[path] if "." not in name}

    model(path).model_validate(checked(path, {**nulls, **MINIMAL[path]}).body)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"guided_json": {"type": "object"}, "guided_whitespace_pattern": " "}),
        (CHAT, {"n": 2, "temperature": 0}),
        (CHAT, {"chat_template_kwargs": {"reasoning_effort": "high"}}),
        (COMPLETIONS, {"guided_choice": ["a", "b"]}),
        (RESPONSES, {"guided_grammar": "root ::= 'a'"}),
        (RESPONSES, {"chat_template_kwargs": {"reasoning_effort": "high"}, "truncation": "auto"}),
        (CHAT, {"verbosity": "low"}),
        (RESPONSES, {"text": {"verbosity": "high"}}),
        (RESPONSES, {"text": {"verbosity": "high"}, "previous_response_id": "resp_1"}),
        (MESSAGES, {"guided_json": {"type": "object"}}),
        (MESSAGES, {"chat_template_kwargs": {"reasoning_effort": "high"}}),
    ],
)
def test_translated_fields_are_valid(path: str, fields: dict[str, Any]) -> None:
    body = checked(path, {**MINIMAL[path], **fields}).body
    taken = model(path).model_validate(body)

    assert set(body) <= taken.model_fields_set & set(model(path).model_fields)


def test_constraint_beside_the_text_format_of_a_response_is_valid() -> None:
    """vLLM finds only while it makes sampling parameters that it has both."""
    body = checked(RESPONSES, {"input": "x", "guided_json": {}, "text": {"format": {"type": "text"}}}).body

    assert model(RESPONSES).model_validate(dict(body)).extract_structured_outputs().json == {}


def test_vllm_still_words_a_prompt_that_is_too_long_like_this() -> None:
    params = importlib.import_module("vllm.renderers.params")
    tokens = params.TokenizeParams(max_total_tokens=8, max_output_tokens=0)
    error = importlib.import_module("vllm.exceptions").VLLMValidationError
    with pytest.raises(error, match="maximum context length") as refused:
        tokens._token_len_check(None, [1] * 10)
    told = in_clients_words(CHAT, 400, {"error": {"message": str(refused.value)}})["error"]

    assert told["code"] == TOO_LONG
    assert told["message"].startswith(
        "This model's maximum context length is 8 tokens. However, your messages resulted"
    )
    responses = importlib.import_module("vllm.entrypoints.openai.responses.serving")
    assert "prompt length {prompt_len} " in inspect.getsource(responses.OpenAIServingResponses)
    assert "exceeds the max_model_len {max_model_len}" in inspect.getsource(responses.OpenAIServingResponses)


async def test_tokenize_renders_chats_by_the_method_that_is_replaced() -> None:
    serving = importlib.import_module("vllm.entrypoints.serve.tokenize.serving")
    protocol = importlib.import_module("vllm.entrypoints.serve.tokenize.protocol")
    rendered: list[Any] = []

    async def render_chat(request: Any) -> tuple[list[Any], list[Any]]:
        rendered.append(request)
        return [], []

    renderer = SimpleNamespace(use_harmony=True, render_chat=render_chat)
    tokenize_chats(renderer)
    tool = {"type": "function", "function": {"name": "f"}}
    body = {"messages": [{"role": "user", "content": "x"}], "tools": [tool], "reasoning_effort": "high"}
    request = protocol.TokenizeChatRequest.model_validate(body)
    await renderer.preprocess_chat(request, request.messages, tool_dicts=[tool], skip_mm_cache=True)

    assert "self.online_renderer.preprocess_chat(" in inspect.getsource(serving.ServingTokenization.create_tokenize)
    (asked,) = rendered
    assert (asked.messages, asked.reasoning_effort, asked.tool_choice) == (body["messages"], "high", "auto")
    assert [each.function.name for each in asked.tools] == ["f"]


def test_other_models_have_their_templates() -> None:
    renderer = SimpleNamespace(use_harmony=False)
    tokenize_chats(renderer)

    assert not hasattr(renderer, "preprocess_chat")
