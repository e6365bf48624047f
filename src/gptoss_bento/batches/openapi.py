"""The routes of this package as OpenAPI. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gptoss_bento.batches.batch_request import ENDPOINTS, WINDOW
from gptoss_bento.batches.stored_files import BATCH
from gptoss_bento.http import idempotency
from gptoss_bento.http.paths import BATCHES, FILES

_TEXT, _NUMBER = {"type": "string"}, {"type": "integer"}
_EXPIRES = {"type": "object", "properties": {"anchor": {"const": "created_at"}, "seconds": _NUMBER}}
_UPLOAD = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": {"enum": [BATCH]},
        "expires_after[anchor]": {"const": "created_at"},
        "expires_after[seconds]": _NUMBER,
    },
}
_BATCH = {
    "type": "object",
    "required": ["input_file_id", "endpoint", "completion_window"],
    "properties": {
        "input_file_id": _TEXT,
        "endpoint": {"enum": list(ENDPOINTS)},
        "completion_window": {"enum": [WINDOW]},
        "metadata": {"type": ["object", "null"], "additionalProperties": _TEXT},
        "output_expires_after": _EXPIRES,
    },
}


def paths_of_batches(tag: str, servers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The paths of files and batches.

    Args:
        tag: of the operations.
        servers: at which they are.
    """
    file, batch = f"{FILES}/{{file_id}}", f"{BATCHES}/{{batch_id}}"
    limits = {FILES: 10_000, BATCHES: 100}
    found = {
        (FILES, "get"): _operation("List files", _listing(limits[FILES], "order", "purpose")),
        (FILES, "post"): _operation("Upload a file", body=("multipart/form-data", _UPLOAD)),
        (file, "get"): _operation("Retrieve a file", [_path_id("file_id")]),
        (file, "delete"): _operation("Delete a file", [_path_id("file_id")]),
        (f"{file}/content", "get"): _operation("Read the content of a file", [_path_id("file_id")]),
        (BATCHES, "get"): _operation("List batches", _listing(limits[BATCHES])),
        (BATCHES, "post"): _operation("Create a batch", [idempotency.PARAMETER], body=("application/json", _BATCH)),
        (batch, "get"): _operation("Retrieve a batch", [_path_id("batch_id")]),
        (f"{batch}/cancel", "post"): _operation("Cancel a batch", [_path_id("batch_id")]),
    }
    made: dict[str, Any] = {}
    for (path, method), operation in found.items():
        made.setdefault(path, {"servers": list(servers)})[method] = {**operation, "tags": [tag]}
    return made


def _operation(
    summary: str, parameters: Sequence[Mapping[str, Any]] = (), body: tuple[str, Mapping[str, Any]] | None = None
) -> dict[str, Any]:
    made: dict[str, Any] = {"summary": summary, "responses": {"200": {"description": "As OpenAI's."}}}
    if parameters:
        made["parameters"] = list(parameters)
        made["responses"]["404"] = {"description": "This key has none of this id."}
    if body:
        kind, schema = body
        made["requestBody"] = {"required": True, "content": {kind: {"schema": schema}}}
    return made


def _path_id(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _TEXT}


def _listing(most: int, *further: str) -> list[dict[str, Any]]:
    schemas: dict[str, Mapping[str, Any]] = {
        "limit": {"type": "integer", "minimum": 1, "maximum": most},
        "after": _TEXT,
        "order": {"enum": ["asc", "desc"]},
        "purpose": _TEXT,
    }
    return [{"name": name, "in": "query", "schema": schemas[name]} for name in ("limit", "after", *further)]
