"""Why a server cannot be used, in words that the model and the client may read.

They have no address of the network here, no URL and no secret; what the server says of itself is bounded and marked.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import httpcore2
import httpx2
from mcp.shared.exceptions import MCPError
from mcp.types import CONNECTION_CLOSED
from pydantic import ValidationError

from gptoss_bento.addresses import ForbiddenAddressError
from gptoss_bento.concurrency import first_of
from gptoss_bento.tools.mcp.connections import ServerLimitError
from gptoss_bento.tools.mcp.results import bounded, clean

_SAID_CHARS = 500
_UNREACHABLE = "it cannot be reached, or not at a public address"
"""One text for both, so that no client finds out which names a private network has."""
_NOT_MCP = "its answer is none of MCP's"
_TOO_LONG, _LONG_EVENT = "Server-sent event exceeded", "it sent too much as one event"
_NETWORK = (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException)
_OF_THE_CLIENT = ("Server returned an error response", "Not Found", "Session terminated", "Redirect to")
"""What MCP's client makes of an answer without a message in it."""


class McpError(Exception):
    """A server cannot be used. The text is for the model and the client.

    Attributes:
        code: of the protocol; that of a closed connection where the server gave none.
        status: of an answer over HTTP that was an error; None: it is another one.
    """

    def __init__(self, text: str, code: int = CONNECTION_CLOSED, status: int | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.status = status

    def item(self) -> dict[str, Any]:
        """As the `error` of OpenAI's `mcp_call` has it."""
        if self.status is not None:
            return {"type": "http_error", "code": self.status, "message": str(self)}
        return {"type": "mcp_protocol_error", "code": self.code, "message": str(self)}


class SessionLostError(McpError):
    """The server does not know the session any more, and has not made the call."""


def explained(error: BaseException, status: int | None = None) -> McpError:
    """An error of the client's libraries, whose text is the rest of a sentence that begins with the server.

    Args:
        error: perhaps a group.
        status: of the last answer over HTTP, where it is known.
    """
    error = first_of(error)
    if isinstance(error, McpError):
        return error
    if isinstance(error, MCPError):
        return _said(error, status)
    if isinstance(error, httpx2.HTTPStatusError):
        return _answered(error.response.status_code)
    return McpError(_reason(error))


def _reason(error: BaseException) -> str:
    if isinstance(error, ForbiddenAddressError | httpcore2.ConnectError | httpcore2.ConnectTimeout):
        return _UNREACHABLE
    if isinstance(error, _NETWORK):
        return "the connection broke"
    if isinstance(error, ServerLimitError):
        return str(error)
    if isinstance(error, httpx2.InvalidURL):
        return "its URL is none"
    if isinstance(error, httpx2.SSEError) and _TOO_LONG in str(error):
        return _LONG_EVENT
    if isinstance(error, httpx2.SSEError | ValidationError | RuntimeError | ValueError):
        return _NOT_MCP
    return f"the client failed ({type(error).__name__})"


def _said(error: MCPError, status: int | None) -> McpError:
    """By the server's own error, or by what the client made of an answer without one."""
    if error.message == "Session terminated" and status == HTTPStatus.NOT_FOUND:
        return SessionLostError("the session has ended", status=status)
    if status is not None and not 200 <= status < 300 and error.message.startswith(_OF_THE_CLIENT):
        return _answered(status)
    if _TOO_LONG in error.message:
        return McpError(_LONG_EVENT)
    if error.message.startswith("Failed to parse"):  # and pydantic's report, with a piece of the answer
        return McpError(_NOT_MCP)
    if error.code == CONNECTION_CLOSED:
        return McpError("it closed the connection")
    return McpError(f"it answered with an error: {bounded(clean(error.message), _SAID_CHARS)}", error.code)


def _answered(status: int) -> McpError:
    elsewhere = ", which leads elsewhere" if 300 <= status < 400 else ""
    return McpError(f"it answered {status}{elsewhere}", status=status)
