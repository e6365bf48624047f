"""What `POST /v1/batches` takes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from gptoss_bento.batches.stored_files import checked_ttl_s
from gptoss_bento.http.errors import HttpRefusalError
from gptoss_bento.http.paths import CHAT, COMPLETIONS, RESPONSES
from gptoss_bento.spelling import nearest
from gptoss_bento.strict_json import dumps, encodable, shown

ENDPOINTS = (CHAT, COMPLETIONS, RESPONSES)
WINDOW, WINDOW_S = "24h", 86_400
_FIELDS = ("input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after")
_MOST_ENTRIES, _LONGEST_NAME, _LONGEST_VALUE = 16, 64, 512  # of metadata, as OpenAI's


@dataclass(frozen=True)
class BatchRequest:
    """A request for a batch. `metadata` is JSON."""

    input_file_id: str
    endpoint: str
    metadata: str | None
    output_ttl_s: int


def read_batch(fields: Mapping[str, Any], ttl_s: int) -> BatchRequest:
    """Checks a request.

    Args:
        fields: of its body.
        ttl_s: seconds that files are kept.

    Raises:
        HttpRefusalError: 400, a field is missing, wrong or unknown.
    """
    for name in fields:
        if name not in _FIELDS:
            close = nearest(name, _FIELDS)
            hint = f" Did you mean {close}?" if close else ""
            raise _refused(name, f"{shown(name)} is no field of a batch.{hint}")
    file_id, endpoint = fields.get("input_file_id"), fields.get("endpoint")
    if not isinstance(file_id, str):
        raise _refused("input_file_id", f"input_file_id must be the id of a file, got {shown(file_id)}.")
    if endpoint not in ENDPOINTS:
        raise _refused("endpoint", f"endpoint must be one of {', '.join(ENDPOINTS)}, got {shown(endpoint)}.")
    if (window := fields.get("completion_window")) != WINDOW:
        raise _refused("completion_window", f'completion_window must be "{WINDOW}", got {shown(window)}.')
    return BatchRequest(file_id, endpoint, _metadata(fields.get("metadata")), _output_ttl_s(fields, ttl_s))


def _metadata(value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) > _MOST_ENTRIES:
        raise _refused("metadata", f"metadata must be an object of at most {_MOST_ENTRIES} texts, got {shown(value)}.")
    for name, text in value.items():
        if len(name) > _LONGEST_NAME or not isinstance(text, str) or len(text) > _LONGEST_VALUE:
            bounds = f"a text of at most {_LONGEST_VALUE} characters, its name at most {_LONGEST_NAME}"
            raise _refused("metadata", f"metadata.{shown(name)} must be {bounds}, got {shown(text)}.")
        if not (encodable(name) and encodable(text)):
            raise _refused("metadata", f"metadata.{shown(name)} must be valid Unicode, got {shown(text)}.")
    return dumps(value)


def _output_ttl_s(fields: Mapping[str, Any], ttl_s: int) -> int:
    asked = fields.get("output_expires_after")
    if asked is None:
        return ttl_s
    if not isinstance(asked, dict):
        raise _refused("output_expires_after", f"output_expires_after must be an object, got {shown(asked)}.")
    return checked_ttl_s(asked.get("anchor"), asked.get("seconds"), ttl_s, "output_expires_after")


def _refused(param: str, message: str) -> HttpRefusalError:
    return HttpRefusalError(HTTPStatus.BAD_REQUEST, message, param=param)
