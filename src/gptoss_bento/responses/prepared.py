"""A response without an output (`generate: false` over a WebSocket): it holds items for the one that continues it.

Clients make one ahead, while their user still writes. The model does nothing for it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.types import Send

from gptoss_bento.http.errors import FieldError
from gptoss_bento.responses.event_stream import frame
from gptoss_bento.responses.foreground import Recorder
from gptoss_bento.strict_json import shown

_NO_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}


def refuse_other_than_items(given: Any) -> None:
    """Holds the input of such a response to what one that generates reads; none at all is right, too.

    Raises:
        FieldError: it is no text and no list of objects.
    """
    if given is not None and not isinstance(given, str | list):
        raise FieldError("input", f"input must be a text or a list of items, got {shown(given)}.")
    for number, item in enumerate(given if isinstance(given, list) else ()):
        if not isinstance(item, dict):
            raise FieldError(f"input[{number}]", f"input[{number}] must be an object, got {shown(item)}.")


async def prepare(first: Mapping[str, Any], record: Recorder | None, send: Send) -> None:
    """Answers by the events of a response that is complete without an output.

    Args:
        first: the object of the response while it is in progress.
        record: keeps it.
        send: of the client.
    """
    final = {**first, "status": "completed", "completed_at": int(time.time()), "usage": _NO_USAGE}
    if record:
        await record.finish(final)
    steps = [("created", first), ("in_progress", first), ("completed", final)]
    events = [
        frame({"type": f"response.{step}", "sequence_number": number, "response": made})
        for number, (step, made) in enumerate(steps)
    ]
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": int(HTTPStatus.OK), "headers": headers})
    await send({"type": "http.response.body", "body": b"".join(events), "more_body": False})
