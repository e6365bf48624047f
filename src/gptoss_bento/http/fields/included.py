"""`include` of /v1/responses: what answers do not have is refused or named. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gptoss_bento.http.errors import FieldError
from gptoss_bento.http.paths import RESPONSES
from gptoss_bento.spelling import nearest
from gptoss_bento.strict_json import shown

ENCRYPTED_REASONING = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"
_OF_TOOLS = {
    "code_interpreter_call.outputs": "code_interpreter",
    "web_search_call.action.sources": "web_search",
}
"""Of calls of tools that run on the server, with what their types begin with."""
WITHOUT_EFFECT = (
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "web_search_call.action.sources",
    "web_search_call.results",
)
"""Of what no answer here has: tools that there are not, or not in the request, and whole results of searches."""
_KNOWN = (ENCRYPTED_REASONING, LOGPROBS, *WITHOUT_EFFECT)


def included(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """`include`, once each of its words is known.

    Raises:
        FieldError: one is not.
    """
    words = body.get("include")
    for number, word in enumerate(words if path == RESPONSES and isinstance(words, list) else ()):
        if word not in _KNOWN:
            where = f"include[{number}]"
            near = nearest(word, _KNOWN) if isinstance(word, str) else None
            meant = f" Did you mean {near}?" if near else ""
            raise FieldError(where, f"{where} must be one of {', '.join(_KNOWN)}, got {shown(word)}.{meant}")
    return {}


def no_log_probabilities(path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """Responses of GPT-OSS have none; vLLM's refusal names another field.

    Raises:
        FieldError: they are asked for.
    """
    words = body.get("include") if path == RESPONSES else None
    if isinstance(words, list) and LOGPROBS in words:
        where = f"include[{words.index(LOGPROBS)}]"
        raise FieldError(where, f"{where}: responses of GPT-OSS have no log probabilities; chat completions have.")
    return {}


def without_effect(asked: Mapping[str, Any]) -> tuple[str, ...]:
    """The places of words in `include` that no answer has anything of."""
    words = asked.get("include")
    listed = enumerate(words if isinstance(words, list) else ())
    return tuple(
        f"include[{number}]" for number, word in listed if word in WITHOUT_EFFECT and not _is_of_tool(word, asked)
    )


def _is_of_tool(word: str, asked: Mapping[str, Any]) -> bool:
    """Whether the request has the tool of whose calls a word is."""
    tools, kind = asked.get("tools"), _OF_TOOLS.get(word)
    types = [tool.get("type") for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    return kind is not None and any(isinstance(each, str) and each.startswith(kind) for each in types)
