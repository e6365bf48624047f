"""What GPT-OSS sees of the tools, when it may call one, and what its calls are held to.

Wrappers of vLLM's functions; replacements.py applies them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from gptoss_bento.http.json_schema.enforceable import enforceable
from gptoss_bento.http.json_schema.typescript import typescript
from gptoss_bento.strict_json import dumps, loads_stored

CHANNELS = ["<|channel|>commentary", "<|channel|>analysis"]
"""Where a call may be: commentary is where Harmony has those of functions, and the model uses analysis, too."""

_KEPT = 1024  # clients send the same tools with each turn


def typed(create_definition: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Makes tools' definitions whose parameters are written as types here.

    openai-harmony writes a list of types as it is, and this list has one: the whole type.
    """

    def create(tool: Any) -> Any:
        definition = create_definition(tool)
        if definition.parameters is None:
            return definition
        return definition.model_copy(update={"parameters": {"type": [_typescript(dumps(definition.parameters))]}})

    return create


@lru_cache(_KEPT)
def _typescript(schema: str) -> str:
    return typescript(loads_stored(schema))


def enforced(parameters_of: Callable[[Any], Any], compile_schema: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Returns the parameters that a call's grammar is made of without what no grammar can be made of.

    A tool that is strict has nothing of that kind: such a request was refused.

    Args:
        parameters_of: vLLM's function.
        compile_schema: raises a RuntimeError for a schema that has no grammar after all; it becomes any object.
    """

    @lru_cache(_KEPT)
    def with_grammar(schema: str) -> str:
        kept = _enforceable(schema)
        try:
            compile_schema(kept)
        except RuntimeError:
            return '{"type":"object"}'
        return kept

    def parameters(function: Any) -> Any:
        schema = parameters_of(function)
        return schema if isinstance(schema, bool) else loads_stored(with_grammar(dumps(schema)))

    return parameters


def enforced_format(format_of: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The same for the schema of an answer."""

    def made(params: Any) -> Any:
        found = format_of(params)
        schema = getattr(found, "json_schema", None)
        if not isinstance(schema, dict):
            return found
        return found.model_copy(update={"json_schema": loads_stored(_enforceable(dumps(schema)))})

    return made


@lru_cache(_KEPT)
def _enforceable(schema: str) -> str:
    return dumps(enforceable(loads_stored(schema)))


Adjust = Callable[[Any, Any], None]


def in_text(adjust: Adjust, text_alone: Callable[[], Any]) -> Adjust:
    """Holds a request that may call no tool, though tools are in it or in what came before, to an answer in text.

    Without it the model calls what it remembers, and the call is left out of the answer: `content` is null.

    Args:
        adjust: vLLM's method of its renderer.
        text_alone: makes the constraint.
    """

    def adjusted(renderer: Any, request: Any) -> None:
        adjust(renderer, request)
        if renderer.parser is None or not _may_not_call(request) or not _knows_tools(request):
            return
        if request.extract_structured_outputs() is None and not getattr(request, "use_beam_search", False):
            request.structured_outputs = text_alone()

    return adjusted


def _may_not_call(request: Any) -> bool:
    return request.tool_choice in (None, "none")


def _knows_tools(request: Any) -> bool:
    """Whether the model may know a tool: of this request, or of an earlier call."""
    if request.tools or getattr(request, "previous_response_id", None):
        return True
    earlier = getattr(request, "messages", None) or getattr(request, "input", None)
    return isinstance(earlier, list) and any(map(_is_call, earlier))


def _is_call(message: Any) -> bool:
    def has(name: str) -> Any:
        return message.get(name) if isinstance(message, dict) else getattr(message, name, None)

    return bool(has("tool_calls")) or has("type") in ("function_call", "function_call_output")


Render = Callable[..., Any]


def out_of_sight(render: Render) -> Render:
    """Renders responses that may call no tool without the tools, those of earlier responses included.

    They stay in the history, so that a later response may have them again.
    """

    def rendered(renderer: Any, request: Any, **history: Any) -> Any:
        result = render(renderer, request, **history)
        messages = getattr(result, "messages", None)
        if messages is None or not _may_not_call(request) or not renderer.exclude_tools_when_tool_choice_none:
            return result
        shown = [kept for message in messages if (kept := _without_tools(message)) is not None]
        if shown == messages:
            return result
        tok_params = request.build_tok_params(renderer.model_config)
        prompt = renderer.render_responses_harmony_messages(shown, cache_salt=request.cache_salt, tok_params=tok_params)
        return replace(result, engine_input=prompt)

    return rendered


def _without_tools(message: Any) -> Any:
    """A message of Harmony's without its tools; None if it says nothing else."""
    if not any(getattr(content, "tools", None) for content in message.content):
        return message
    content = [part.model_copy(update={"tools": None}) for part in message.content]
    says_nothing = message.author.role == "developer" and not any(
        getattr(part, "instructions", None) for part in content
    )
    return None if says_nothing else message.model_copy(update={"content": content})


def constraint_of(tag: Any) -> str:
    """A structural tag as `structured_outputs.structural_tag` has it."""
    return json.dumps(tag.model_dump())
