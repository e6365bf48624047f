"""What the model reads of its own turn once the function that it called has answered, with our change to vLLM."""

from __future__ import annotations

import importlib
from types import MethodType
from typing import Any

import pytest

from gptoss_bento.engine import preambles
from gptoss_bento.training import harmony_text
from tests.harmony_renderer import renderer
from tests.vocabulary import vocabulary

__all__ = ["renderer", "vocabulary"]  # fixtures

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]

QUESTION = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "What is the weather?"}]}
REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "I need the tool."}],
}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "get_weather", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
TURN = (
    "<|start|>assistant<|channel|>analysis<|message|>I need the tool.<|end|>"
    "<|start|>assistant<|channel|>commentary<|message|>Let me look.<|end|>"
    "<|start|>assistant to=functions.get_weather<|channel|>commentary json<|message|>{}<|call|>"
)


def said(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


def rendered(renderer: Any, *items: Any, is_changed: bool = True) -> str:
    protocol = importlib.import_module("vllm.entrypoints.openai.responses.protocol")
    module = importlib.import_module("vllm.renderers.online_renderer").OnlineRenderer
    if is_changed:
        changed = preambles.in_commentary(module.render_responses_harmony_messages)
        renderer.render_responses_harmony_messages = MethodType(changed, renderer)
    request = protocol.ResponsesRequest.model_validate({"input": list(items)})
    result = module._render_responses_with_harmony(
        renderer, request, previous_messages=None, previous_response_outputs=None, tool_server=None
    )
    return str(harmony_text.encoding().decode(result.engine_input["prompt_token_ids"]))


@pytest.mark.usefixtures("vocabulary")
def test_vllm_still_takes_a_preamble_for_an_answer(renderer: Any) -> None:
    text = rendered(renderer, QUESTION, REASONING, said("Let me look."), CALL, RESULT, is_changed=False)

    assert "final<|message|>Let me look." in text
    assert "I need the tool." not in text


@pytest.mark.usefixtures("vocabulary")
def test_turn_before_a_result_is_as_the_model_wrote_it(renderer: Any) -> None:
    assert TURN in rendered(renderer, QUESTION, REASONING, said("Let me look."), CALL, RESULT)


@pytest.mark.usefixtures("vocabulary")
def test_reasoning_between_a_preamble_and_its_call_is_kept(renderer: Any) -> None:
    text = rendered(renderer, QUESTION, said("Let me look."), REASONING, CALL, RESULT)

    assert "commentary<|message|>Let me look.<|end|><|start|>assistant<|channel|>analysis<|message|>I need" in text


@pytest.mark.usefixtures("vocabulary")
def test_answer_stays_an_answer(renderer: Any) -> None:
    """Reasoning before it is left out, as the format has it; also where the next turn begins with a call."""
    text = rendered(renderer, QUESTION, REASONING, said("Sunny."), QUESTION, CALL, RESULT)

    assert "final<|message|>Sunny." in text
    assert "I need the tool." not in text
