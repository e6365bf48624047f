"""Reports unknown fields: to the client by a header of the answer, to the operator by a line in the log."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from itertools import islice
from urllib.parse import quote

from starlette.types import Message, Send

logger = logging.getLogger(__name__)

HEADER = "x-ignored-fields"
_NAMES_SHOWN = 20  # in the header
_NAMES_LOGGED = 1000  # so that a client with ever new names fills no log
_LONGEST = 100
_SAFE = "[]."


def naming(names: Sequence[str], send: Send) -> Send:
    """A `send` whose answer names what of its request has no effect."""
    return adding({HEADER: ", ".join(names[:_NAMES_SHOWN])}, send) if names else send


def adding(headers: Mapping[str, str], send: Send) -> Send:
    """A `send` that adds headers to the answer's start, and is one plain call for whatever follows."""
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]

    def passed_on(message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *raw]}
        return send(message)

    return passed_on


class UnknownFields:
    """Those of one process. Each name is logged once for each route."""

    def __init__(self) -> None:
        self._logged: set[tuple[str, str]] = set()

    def headers(self, path: str, names: Iterable[str]) -> dict[str, str]:
        """What the answer gets; names as in an address, so that none can break a header."""
        shown = self.log(path, names)
        return {HEADER: ", ".join(shown[:_NAMES_SHOWN])} if shown else {}

    def log(self, path: str, names: Iterable[str]) -> list[str]:
        """Alone for jobs, which have no answer of their own to have a header. Returns the names as they are shown."""
        looked_at = islice(names, _NAMES_LOGGED)  # a body can have a million
        shown = [quote(name[:_LONGEST], safe=_SAFE, errors="replace") for name in looked_at]
        for name in shown:
            self._log(path, name)
        return shown

    def _log(self, path: str, name: str) -> None:
        if (path, name) not in self._logged and len(self._logged) < _NAMES_LOGGED:
            self._logged.add((path, name))
            logger.warning(
                "%s: the field %s is unknown and has no effect (UNKNOWN_FIELDS=refuse refuses it)", path, name
            )
