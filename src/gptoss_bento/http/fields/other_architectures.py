"""Every field that a request may have where the served model is not GPT-OSS: ALLOW_OTHER_ARCHITECTURES. Data.

What table.py says because of the Harmony format is not so there: such a model has a chat template, and may read media.
Read in vLLM 0.32's sources: `OnlineRenderer.render_chat`, `render_responses` and the request models.
"""

from __future__ import annotations

from collections.abc import Mapping

from gptoss_bento.http.fields.table import FIELDS, Field, Use
from gptoss_bento.http.paths import CHAT, CHAT_BATCH, INPUT_TOKENS, RESPONSES, TOKENIZE


def _honoured(*names: str) -> dict[str, Field]:
    return dict.fromkeys(names, Field(Use.HONOURED))


_OF_TEMPLATES = _honoured("chat_template", "add_generation_prompt", "continue_final_message")
_MEDIA = _honoured("media_io_kwargs", "mm_processor_kwargs")
_CHAT = {
    **_OF_TEMPLATES,
    **_MEDIA,
    **_honoured("documents", "add_special_tokens", "skip_special_tokens", "spaces_between_special_tokens"),
    **_honoured("truncate_prompt_tokens", "truncation_side", "return_prompt_text"),
}
_RESPONSES = {
    **_MEDIA,
    **_honoured("skip_special_tokens", "include_reasoning", "top_logprobs"),
    "previous_input_messages": Field(Use.REFUSED, "has messages of the Harmony format: send them as `input`", ([],)),
}
_MAX_TOOL_CALLS = Field(Use.REFUSED, "is not counted: nothing stops the calls of built-in tools")
_TOKENIZE = {
    **_OF_TEMPLATES,
    **_MEDIA,
    "reasoning_effort": Field(Use.REFUSED, "is what the template makes of it: use `chat_template_kwargs`"),
}

DIFFERENCES: Mapping[str, Mapping[str, Field]] = {
    CHAT: _CHAT,
    CHAT_BATCH: _CHAT,
    RESPONSES: {**_RESPONSES, "max_tool_calls": _MAX_TOOL_CALLS},
    INPUT_TOKENS: _RESPONSES,
    TOKENIZE: _TOKENIZE,
}
"""From `FIELDS`, by route."""

OTHER_FIELDS: Mapping[str, Mapping[str, Field]] = {
    path: {**fields, **DIFFERENCES.get(path, {})} for path, fields in FIELDS.items()
}
"""By route, as `FIELDS`."""
