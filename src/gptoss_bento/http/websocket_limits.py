"""What uvicorn makes of WebSocket connections: none without the library `websockets`, and bounded ones with it."""

from __future__ import annotations

import uvicorn


def limit_websockets(config: uvicorn.Config, max_message_bytes: int, patience_s: float) -> None:
    """Sets what uvicorn makes of WebSocket connections. Messages are not compressed, which would cost each token.

    Args:
        config: of a server that has not started.
        max_message_bytes: a larger message of a client closes its connection with 1009.
        patience_s: seconds that a client may take for a message, or leave what it is sent unread.
    """
    config.ws_max_size = max_message_bytes
    config.ws_per_message_deflate = False
    try:
        from gptoss_bento.http.websocket_connection import BoundedWebSocket
    except ImportError:
        config.ws = "none"
        return
    config.ws = type(BoundedWebSocket.__name__, (BoundedWebSocket,), {"patience_s": patience_s})
