"""vLLM's Harmony parser with our repairs in it: what a chat client gets of an answer that breaks the format."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY

from gptoss_bento.artifacts import prepare
from gptoss_bento.config import environment
from gptoss_bento.engine import patches
from gptoss_bento.training import harmony_text
from tests.unit.engine.test_harmony_repair import ANSWER, THOUGHT

# Their own warnings at import are not ours to fix.
pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]


class Tokenizer:
    """As much of a tokenizer as the parser asks for."""

    def decode(self, tokens: list[int]) -> str:
        return str(harmony_text.encoding().decode(tokens))

    def get_vocab(self) -> dict[str, int]:
        return {}


@pytest.fixture(scope="module")
def parser_class() -> Any:
    harmony_text.use_vocabulary(prepare.find_vocabulary(environment.cache_dir()))
    patches.repair_harmony()
    manager = importlib.import_module("vllm.parser.parser_manager").ParserManager
    return manager.get_parser(
        tool_parser_name="openai", reasoning_parser_name="openai_gptoss", enable_auto_tools=True, is_harmony=True
    )


REQUEST = SimpleNamespace(include_reasoning=True, tool_choice="auto", tools=None)


def whole(parser_class: Any, text: str) -> tuple[str | None, str | None, list[str]]:
    """Reasoning, content and calls of an answer in one piece."""
    tokens = harmony_text.encode(text)
    reasoning, content, calls = parser_class(Tokenizer()).parse("", REQUEST, True, tokens)
    return reasoning, content, [f"{call.name}{call.arguments}" for call in calls or []]


def streamed(parser_class: Any, text: str, size: int) -> tuple[str | None, str | None, list[str]]:
    """The same, of one that comes in pieces."""
    parser, tokens = parser_class(Tokenizer()), list(harmony_text.encode(text))
    reasoning, content, calls = "", "", []
    for start in range(0, len(tokens), size):
        piece = tokens[start : start + size]
        delta = parser.parse_delta("", piece, REQUEST, finished=start + size >= len(tokens))
        if delta is None:
            continue
        reasoning, content = reasoning + (delta.reasoning or ""), content + (delta.content or "")
        for call in delta.tool_calls or []:
            if call.function.name:
                calls.append(call.function.name)
            calls[-1] += call.function.arguments or ""
    return reasoning or None, content or None, calls


CALL = '<|message|>{"a": 1}<|call|>'
ANSWERED: tuple[str | None, str | None, list[str]] = ("Hm.", "Paris 🇫🇷.", [])
CALLED = ("Hm.", None, ['f{"a": 1}'])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(THOUGHT + ANSWER, ANSWERED, id="well-formed"),
        pytest.param(THOUGHT + ANSWER.removeprefix("<|start|>"), ANSWERED, id="no start"),
        pytest.param(THOUGHT + ANSWER.removeprefix("<|start|>assistant"), ANSWERED, id="no start, no role"),
        pytest.param(THOUGHT.removesuffix("<|end|>") + ANSWER, ANSWERED, id="no end"),
        pytest.param(THOUGHT + "<|end|>" + ANSWER, ANSWERED, id="two ends"),
        pytest.param(THOUGHT + ANSWER.replace("<|message|>", " "), ANSWERED, id="no message"),
        pytest.param(THOUGHT + "Paris 🇫🇷.<|return|>", ANSWERED, id="no header"),
        pytest.param(THOUGHT + "<|start|>" + ANSWER, ANSWERED, id="two starts"),
        pytest.param(THOUGHT + ANSWER.replace("final", "finally"), ANSWERED, id="unknown channel"),
        pytest.param(THOUGHT + "commentary to=functions.f json" + CALL, CALLED, id="12606 for start"),
        pytest.param(
            THOUGHT + "<|start|>assistant<|channel|>commentary to=functions.f x <|constrain|>json" + CALL,
            CALLED,
            id="tokens remain in the header",
        ),
        pytest.param(
            THOUGHT + "<|start|>assistant<|channel|>commentary<|channel|>commentary to=functions.f json" + CALL,
            CALLED,
            id="unknown role",
        ),
    ],
)
def test_client_gets_the_answer(
    parser_class: Any, text: str, expected: tuple[str | None, str | None, list[str]]
) -> None:
    reasoning, content, calls = whole(parser_class, text)
    assert (reasoning, content, [call.replace(" ", "") for call in calls]) == (
        *expected[:2],
        [call.replace(" ", "") for call in expected[2]],
    )
    for size in (1, 3, 1000):
        assert streamed(parser_class, text, size) == expected, f"{size} tokens a piece"


def test_repairs_are_counted(parser_class: Any) -> None:
    def count() -> float:
        return REGISTRY.get_sample_value("gptoss_bento_harmony_repairs_total", {"kind": "missing_end"}) or 0

    before = count()
    whole(parser_class, THOUGHT.removesuffix("<|end|>") + ANSWER)
    assert count() == before + 1


def test_vllm_without_the_repairs_still_loses_answers(parser_class: Any) -> None:
    """Why engine/harmony_repair.py is there. When this fails, vLLM or harmony has fixed it."""
    own = importlib.import_module("vllm.entrypoints.openai.parser.harmony_utils").get_streamable_parser_for_assistant
    text = THOUGHT + ANSWER.replace("<|message|>", " ")
    with patches.HARMONY_PARSER.replaced(own):
        lost = whole(parser_class, text)

    assert lost != ANSWERED
    assert whole(parser_class, text) == ANSWERED
