"""What vLLM's renderer makes of a request that may call no tool, with our changes to it."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest

from gptoss_bento.artifacts import prepare
from gptoss_bento.config import environment
from gptoss_bento.engine import replacements
from gptoss_bento.engine.tool_calls import CHANNELS, in_text, out_of_sight
from gptoss_bento.training import harmony_text
from tests.harmony_renderer import renderer

__all__ = ["renderer"]  # a fixture

pytestmark = [pytest.mark.contract, pytest.mark.filterwarnings("default")]

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CHAT_TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
TOOL = {"type": "function", "name": "get_weather", "parameters": PARAMETERS}
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
CALLED = [
    *QUESTION,
    {
        "role": "assistant",
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "1", "content": "sunny"},
]


@pytest.fixture(scope="module", autouse=True)
def vocabulary() -> None:
    harmony_text.use_vocabulary(prepare.find_vocabulary(environment.cache_dir()))


def chat(**fields: Any) -> Any:
    protocol = importlib.import_module("vllm.entrypoints.openai.chat_completion.protocol")
    return protocol.ChatCompletionRequest.model_validate({"messages": QUESTION, **fields})


def response(**fields: Any) -> Any:
    protocol = importlib.import_module("vllm.entrypoints.openai.responses.protocol")
    return protocol.ResponsesRequest.model_validate({"input": "What is the weather in Paris?", **fields})


def adjusted(renderer: Any, request: Any) -> Any:
    original = importlib.import_module("vllm.renderers.online_renderer").OnlineRenderer.adjust_harmony_request
    in_text(original, replacements.text_alone)(renderer, request)
    return request.structured_outputs


@pytest.mark.parametrize(
    "request_",
    [
        lambda: chat(tools=[CHAT_TOOL], tool_choice="none"),
        lambda: chat(messages=CALLED),
        lambda: response(tools=[TOOL], tool_choice="none"),
        lambda: response(previous_response_id="resp_1"),
        lambda: response(
            input=[
                {"role": "user", "content": "x"},
                {"type": "function_call", "call_id": "1", "name": "get_weather", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": "sunny"},
            ]
        ),
    ],
)
def test_request_without_a_choice_of_tools_is_held_to_text(renderer: Any, request_: Any) -> None:
    constraint = adjusted(renderer, request_())
    tag = importlib.import_module("xgrammar").Grammar.from_structural_tag(constraint.structural_tag)
    accepts = importlib.import_module("xgrammar.testing")._is_grammar_accept_string

    assert accepts(tag, "<|channel|>final<|message|>Sunny.<|end|>")
    assert accepts(tag, "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.")
    assert not accepts(tag, "<|channel|>commentary to=functions.get_weather json<|message|>{}<|end|>")
    assert not accepts(tag, " to=functions.get_weather<|channel|>commentary json<|message|>{}<|end|>")


@pytest.mark.parametrize("request_", [chat, response])
def test_request_that_knows_no_tool_has_no_constraint(renderer: Any, request_: Any) -> None:
    assert adjusted(renderer, request_()) is None


def test_constraint_of_the_client_stays(renderer: Any) -> None:
    constraint = adjusted(renderer, chat(tools=[CHAT_TOOL], tool_choice="none", structured_outputs={"regex": "yes|no"}))

    assert '"yes|no"' in constraint.structural_tag


def test_call_that_is_required_is_held_to_the_schema(renderer: Any) -> None:
    constraint = adjusted(renderer, chat(tools=[CHAT_TOOL], tool_choice="required"))

    assert json.dumps(PARAMETERS) in constraint.structural_tag


def test_call_is_in_the_channels_for_calls(renderer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a call may stand for an answer by a schema: there `final` is how the answer begins."""
    harmony = importlib.import_module("vllm.parser.harmony")
    accepts = importlib.import_module("xgrammar.testing")._is_grammar_accept_string
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "integer"}}}
    call = '<|channel|>{} to=functions.get_weather json<|message|>{{"city": "Paris"}}<|end|>'

    def accepted(text: str) -> bool:
        tag = adjusted(renderer, chat(tools=[CHAT_TOOL], response_format=form)).structural_tag
        return bool(accepts(importlib.import_module("xgrammar").Grammar.from_structural_tag(tag), text))

    monkeypatch.setattr(harmony, "_TOOL_CALL_CHANNELS", [*CHANNELS, "<|channel|>final"])
    assert accepted(call.format("final"))
    monkeypatch.setattr(harmony, "_TOOL_CALL_CHANNELS", CHANNELS)
    assert not accepted(call.format("final"))
    assert accepted(call.format("commentary"))
    assert accepted("<|channel|>final json<|message|>3<|end|>")


def rendered(renderer: Any, request: Any, **history: Any) -> tuple[str, Any]:
    original = importlib.import_module("vllm.renderers.online_renderer").OnlineRenderer._render_responses_with_harmony
    given = {"previous_messages": None, "previous_response_outputs": None, "tool_server": None, **history}
    result = out_of_sight(original)(renderer, request, **given)
    return harmony_text.encoding().decode(result.engine_input["prompt_token_ids"]), result.messages


def test_responses_without_a_choice_of_tools_show_none(renderer: Any) -> None:
    shown, _ = rendered(renderer, response(tools=[TOOL], instructions="Be brief."))
    hidden, messages = rendered(renderer, response(tools=[TOOL], instructions="Be brief.", tool_choice="none"))

    assert "get_weather" in shown
    assert "Calls to these tools" in shown
    assert "get_weather" not in hidden
    assert "Calls to these tools" not in hidden
    assert "Be brief." in hidden
    assert any(getattr(part, "tools", None) for message in messages for part in message.content)


def test_tools_of_an_earlier_response_are_out_of_sight_too(renderer: Any) -> None:
    _, before = rendered(renderer, response(tools=[TOOL]))
    hidden, after = rendered(renderer, response(tool_choice="none"), previous_messages=before)
    shown, _ = rendered(renderer, response(tools=[TOOL]), previous_messages=after)

    assert "get_weather" not in hidden
    assert hidden.count("<|start|>developer") == 0
    assert "get_weather" in shown


def test_operator_may_show_the_tools(renderer: Any) -> None:
    renderer.exclude_tools_when_tool_choice_none = False
    shown, _ = rendered(renderer, response(tools=[TOOL], tool_choice="none"))

    assert "get_weather" in shown
