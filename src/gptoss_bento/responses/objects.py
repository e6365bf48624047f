"""The object of a response, whole: each field of OpenAI's schema, and none that strict clients refuse. Pure.

vLLM 0.32's object lacks fields (`store`, `error`, `completed_at`, …), repeats sampling parameters for what was asked
(`max_output_tokens`), and has lists in `usage` that the Agents SDK for JavaScript takes for an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from gptoss_bento.responses.request import CreateRequest

Fields = dict[str, Any]

_DEFAULT_EFFORT = "medium"  # of GPT-OSS
_STATUS_OF_ITEMS = ("message", "reasoning", "function_call", "custom_tool_call")
_SECRETS = frozenset({"headers", "authorization"})
_URL = "server_url"  # of which path and query may be secrets, too
# Of vLLM alone: shown where they say something.
_OF_VLLM = ("input_messages", "output_messages", "kv_transfer_params", "ec_transfer_params", "metrics")
ENDS_WITH_MODEL = frozenset(_STATUS_OF_ITEMS)
"""Types of items in the midst of which an answer can end."""
_OF_CODE = "outputs"  # of a code_interpreter_call: null for a client that has not asked for them
_OF_STREAMS = ("output_index", "sequence_number")  # vLLM leaves these in the item of a function call


def first_object(request: CreateRequest, status: str, created_at: int, model: str) -> Fields:
    """The object of a response before vLLM has made one.

    Args:
        request: that makes it.
        status: `queued` or `in_progress`.
        created_at: seconds since 1970.
        model: the name of the model.
    """
    asked = request.asked
    sampled = {name: asked.get(name) for name in ("presence_penalty", "frequency_penalty")}
    numbers = {name: 1.0 if asked.get(name) is None else asked[name] for name in ("temperature", "top_p")}
    own = {"id": request.id, "created_at": created_at, "status": status, "model": asked.get("model") or model}
    zeros = {name: value if value is not None else 0.0 for name, value in sampled.items()}
    return whole({**own, **numbers, **zeros, "output": [], "usage": None}, request)


def whole(made: Mapping[str, Any], request: CreateRequest, completed_at: int | None = None) -> Fields:
    """The object that a client gets.

    Args:
        made: vLLM's.
        request: that it answers.
        completed_at: when it was complete, in seconds since 1970.
    """
    asked, status = request.written, made["status"]
    return {
        "id": made["id"],
        "object": "response",
        "created_at": made["created_at"],
        "status": status,
        "background": request.background,
        "completed_at": completed_at if status == "completed" else None,
        "error": made.get("error"),
        "incomplete_details": made.get("incomplete_details"),
        "instructions": asked.get("instructions"),
        "max_output_tokens": asked.get("max_output_tokens"),
        "max_tool_calls": asked.get("max_tool_calls"),
        "metadata": asked.get("metadata") or {},
        "model": made["model"],
        "parallel_tool_calls": asked.get("parallel_tool_calls") is not False,
        "previous_response_id": request.previous or request.continues,
        "prompt_cache_key": asked.get("prompt_cache_key"),
        "reasoning": _reasoning(asked.get("reasoning")),
        "safety_identifier": asked.get("safety_identifier"),
        "service_tier": asked.get("service_tier") or "default",
        "store": request.stores,
        "temperature": made["temperature"],
        "text": _text(asked.get("text")),
        "tool_choice": asked.get("tool_choice") or "auto",
        "tools": [_tool(tool) for tool in _list(asked.get("tools"))],
        "top_logprobs": asked.get("top_logprobs") or 0,
        "top_p": made["top_p"],
        "truncation": asked.get("truncation") or "disabled",
        "usage": usage(made.get("usage")),
        "user": asked.get("user"),
        "presence_penalty": made.get("presence_penalty") or 0.0,
        "frequency_penalty": made.get("frequency_penalty") or 0.0,
        **({"conversation": {"id": request.conversation}} if request.conversation is not None else {}),
        **{name: made[name] for name in _OF_VLLM if made.get(name) is not None},
        "output": whole_output([request.kinds.returned(request.returned(item)) for item in made["output"]], status),
    }


def _reasoning(asked: Any) -> Fields:
    given = asked if isinstance(asked, dict) else {}
    return {"effort": given.get("effort") or _DEFAULT_EFFORT, "summary": given.get("summary")}


def _text(asked: Any) -> Fields:
    given = asked if isinstance(asked, dict) else {}
    form = given.get("format") or {"type": "text"}
    if isinstance(form, dict) and form.get("type") == "json_schema":
        form = {"strict": False, "description": None, **form}
    return {"format": form, "verbosity": given.get("verbosity") or "medium"}


def _list(asked: Any) -> list[Any]:
    return asked if isinstance(asked, list) else []  # the engine refuses another


def _tool(tool: Any) -> Any:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        return without_secrets(tool) if isinstance(tool, dict) else tool
    return {"description": None, "parameters": None, "strict": None, **tool}


def without_secrets(tool: Fields) -> Fields:
    """A tool without what its server must be asked with: it is neither stored nor returned.

    Of a server's URL scheme, host and port are left, as OpenAI has it: its path can be all that protects it.
    """
    kept = {name: value for name, value in tool.items() if name not in _SECRETS}
    return kept | {_URL: _origin(kept[_URL])} if isinstance(kept.get(_URL), str) else kept


def has_secrets(tool: Fields) -> bool:
    """Whether a tool has something that is not stored."""
    return any(tool.get(name) for name in (*_SECRETS, _URL))


def _origin(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # the engine refuses it
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def usage(made: Any) -> Fields | None:
    """The usage without what is counted by turn."""
    if made is None:
        return None
    return {name: _without_turns(value) if isinstance(value, dict) else value for name, value in made.items()}


def _without_turns(details: Mapping[str, Any]) -> Fields:
    return {name: value for name, value in details.items() if not name.endswith("_per_turn")}


def whole_output(items: Sequence[Mapping[str, Any]], status: str) -> list[Fields]:
    """The items of an answer; the last one of an answer that was cut is incomplete."""
    made = [whole_item(item) for item in items]
    if status == "incomplete" and made:
        made[-1] = incomplete_item(made[-1])
    return made


def whole_item(item: Mapping[str, Any]) -> Fields:
    """An item of an answer as OpenAI's schema has it."""
    made = {name: value for name, value in item.items() if _is_shown(name, value)}
    if made.get("type") in _STATUS_OF_ITEMS:
        made.setdefault("status", "completed")
    if isinstance(made.get("content"), list):
        made["content"] = [whole_part(part) for part in made["content"]]
    return made


def _is_shown(name: str, value: Any) -> bool:
    return (value is not None and name not in _OF_STREAMS) or name == _OF_CODE


def incomplete_item(item: Mapping[str, Any]) -> Fields:
    """An item in the midst of which the answer ended."""
    return {**item, "status": "incomplete"} if item.get("type") in _STATUS_OF_ITEMS else dict(item)


def whole_part(part: Mapping[str, Any]) -> Fields:
    """A part of an item's content."""
    made = {name: value for name, value in part.items() if value is not None}
    return {"annotations": [], "logprobs": [], **made} if made.get("type") == "output_text" else made
