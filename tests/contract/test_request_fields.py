"""The table of a request's fields against vLLM's request models: none is missing, and none is made up."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from gptoss_bento.http.fields.table import FIELDS, Use
from gptoss_bento.http.paths import CHAT, COMPLETIONS, COUNT_TOKENS, MESSAGES, RESPONSES
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


def model(path: str) -> Any:
    package, name = MODELS[path]
    return getattr(importlib.import_module(f"vllm.entrypoints.{package}.protocol"), name)


def top(path: str, *uses: Use) -> set[str]:
    return {name for name, field in FIELDS[path].items() if field.use in uses and "." not in name}


@pytest.mark.parametrize("path", MODELS)
def test_every_field_of_vllm_is_in_the_table(path: str) -> None:
    assert set(model(path).model_fields) - FIELDS[path].keys() == set()


@pytest.mark.parametrize("path", MODELS)
def test_what_is_honoured_is_what_vllm_knows_or_we_translate(path: str) -> None:
    assert top(path, Use.HONOURED) - set(model(path).model_fields) <= OF_EARLIER_VLLM


@pytest.mark.parametrize("path", set(MODELS) - {COUNT_TOKENS})  # of which clients send what /v1/messages takes
def test_the_table_makes_up_no_field_that_it_refuses(path: str) -> None:
    known = set(model(path).model_fields).union(*map(names, PUBLISHED[path]))

    assert top(path, Use.REFUSED) - known <= OF_EARLIER_VLLM
