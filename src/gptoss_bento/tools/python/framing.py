"""Messages between the service and a confined child: JSON objects, each after its length in four bytes.

The child is an attacker's as soon as it has run code. What the service reads of it has a bound before it is parsed, and
must be an object of the fields and types that are expected.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from gptoss_bento import strict_json

REPLY_BYTES: Final = 1024
"""The longest message of a child: a number and a flag. What the model reads comes as bytes of the output."""

_LENGTH: Final = struct.Struct(">I")


class FrameError(Exception):
    """What was received is no message of this protocol."""


def frame(message: dict[str, Any]) -> bytes:
    """One message as it is sent."""
    body = strict_json.dumps(message).encode()
    return _LENGTH.pack(len(body)) + body


class Frames:
    """Takes messages out of bytes as they arrive.

    Args:
        limit: the longest body, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._received = bytearray()

    @property
    def unread(self) -> bytes:
        """Bytes that belong to no whole message; where no message can follow, what came instead."""
        return bytes(self._received)

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that these bytes complete.

        Raises:
            FrameError: a message is too long, or no JSON object. Nothing that follows can be read.
        """
        self._received += data
        messages = []
        while (body := self._next()) is not None:
            messages.append(_parsed(body))
        return messages

    def _next(self) -> bytes | None:
        if len(self._received) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._received)
        if length > self._limit:
            raise FrameError(f"a message of {length} bytes; {self._limit} at most")
        end = _LENGTH.size + length
        if len(self._received) < end:
            return None
        body = bytes(self._received[_LENGTH.size : end])
        del self._received[:end]
        return body


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        message = strict_json.loads(body)
    except ValueError as error:
        raise FrameError(f"a message that is no JSON: {error}") from error
    if not isinstance(message, dict):
        raise FrameError("a message that is no JSON object")
    return message
