"""vLLM's renderer, of which only what renders Harmony is there."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def renderer() -> Any:
    module = importlib.import_module("vllm.renderers.online_renderer")
    manager = importlib.import_module("vllm.parser.parser_manager").ParserManager
    parser = manager.get_parser(
        tool_parser_name="openai",
        reasoning_parser_name="openai_gptoss",
        enable_auto_tools=True,
        is_harmony=True,
        tool_strict_level="parameter",
    )
    found = object.__new__(module.OnlineRenderer)
    tokenizer = SimpleNamespace(get_vocab=dict)
    found.__dict__ |= {
        "parser": parser,
        "renderer": SimpleNamespace(get_tokenizer=lambda: tokenizer, tokenizer=tokenizer),
        "model_config": SimpleNamespace(max_model_len=4096),
        "exclude_tools_when_tool_choice_none": True,
    }
    return found
