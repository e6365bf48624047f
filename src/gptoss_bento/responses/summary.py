"""The summary that the model writes of a conversation: how it is asked for, and what is made of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from gptoss_bento.http.errors import HttpRefusalError
from gptoss_bento.responses.compaction import compaction_item
from gptoss_bento.responses.objects import usage

Fields = dict[str, Any]

SUMMARY_TOKENS = 4096
"""The most that a summary may have, with the reasoning before it: 3 % of GPT-OSS's context."""
_EFFORT = "low"  # a summary needs no thought
_ASK = (
    "Write a summary of this conversation that takes its place: another assistant will read it instead of the "
    "messages above, and go on from there. Keep what the user wants, all facts, names, numbers, code and file names "
    "that may be needed, what was decided and done and why, results of tools, and what is left to do. "
    "Write the summary alone."
)


def summary_request(asked: Mapping[str, Any], most: int | None) -> Fields:
    """The request of /v1/responses by which the model summarises, without its items.

    Args:
        asked: the request of /v1/responses/compact.
        most: tokens that the key's requests may have; None: any number.
    """
    kept = {name: asked[name] for name in ("model", "instructions", "cache_salt", "priority") if name in asked}
    effort = asked.get("reasoning") or {"effort": _EFFORT}
    return {**kept, "reasoning": effort, "max_output_tokens": min(SUMMARY_TOKENS, most or SUMMARY_TOKENS), "input": []}


def question() -> Fields:
    """The last item of that request."""
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": _ASK}]}


def compacted(answer: Mapping[str, Any], items: Sequence[Any]) -> Fields:
    """The object of /v1/responses/compact: the user's messages, and the summary of everything.

    Args:
        answer: vLLM's object of the response that is the summary.
        items: what was summarised.

    Raises:
        HttpRefusalError: there is no summary, or not all of it.
    """
    summary = _text_of(answer["output"])
    if answer["status"] != "completed":
        raise _no_summary(f"it was cut at {answer['usage']['output_tokens']} tokens")
    if not summary:
        raise _no_summary("the model wrote none")
    return {
        "id": answer["id"],
        "object": "response.compaction",
        "created_at": answer["created_at"],
        "output": [*(_users(item) for item in items if _is_users(item)), compaction_item(summary)],
        "usage": usage(answer["usage"]),
    }


def _no_summary(why: str) -> HttpRefusalError:
    message = f"There is no summary: {why}. Nothing is compacted; what was sent can still be used."
    return HttpRefusalError(HTTPStatus.UNPROCESSABLE_ENTITY, message)


def _text_of(output: Sequence[Any]) -> str:
    messages = (item for item in output if item.get("type") == "message")
    parts = (part for message in messages for part in message["content"])
    return "".join(part["text"] for part in parts if part.get("type") == "output_text").strip()


def _is_users(item: Any) -> bool:
    return isinstance(item, dict) and item.get("role") == "user" and item.get("type", "message") == "message"


def _users(item: Mapping[str, Any]) -> Fields:
    return {"status": "completed", **{name: value for name, value in item.items() if value is not None}}
