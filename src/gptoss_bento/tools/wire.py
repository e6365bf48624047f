"""What comes over a connection before it is read as HTTP, in small pieces and within bounds.

HTTP's parser takes its time for each part of an answer, however short: interim answers (`100 Continue`), chunks of one
byte, extensions of chunks. Of 64 KiB of them, which the client reads in one piece, it took a tenth of a second, in
which the event loop served no other client; and of interim answers there may be any number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

PIECE_BYTES: Final = 4096
HEAD_BYTES: Final = 256 * 1024
"""Of an answer's head with all interim ones before it. The parser takes 100 KiB of one."""
SMALL_BYTES: Final = 64
_FREE_PIECES: Final = 1000
_NAME: Final = "gptoss_bento.wire"


def are_too_small(pieces: int, total_bytes: int) -> bool:
    """Whether pieces of a body are shorter than SMALL_BYTES on average, after the first ones."""
    return pieces > _FREE_PIECES + total_bytes / SMALL_BYTES


def end_head(response: Any) -> None:
    """Says that the head of an answer has come.

    Args:
        response: httpcore's or httpcore2's.
    """
    stream = response.extensions.get("network_stream")
    wire = stream.get_extra_info(_NAME) if stream is not None else None
    if isinstance(wire, Wire):
        wire.is_in_head = False


class Wire:
    """A connection of httpcore or httpcore2.

    Args:
        stream: theirs.
        most_bytes: that may come over it.
        error: makes the error of one that sends more.
    """

    def __init__(self, stream: Any, most_bytes: int, error: Callable[[str], Exception]) -> None:
        self._stream = stream
        self._left = most_bytes
        self._error = error
        self._head = 0
        self.is_in_head = True

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  # httpcore's
        """A piece of what has come."""
        data: bytes = await self._stream.read(min(max_bytes, PIECE_BYTES), timeout)
        self._left -= len(data)
        self._head += len(data) if self.is_in_head else 0
        if self._left < 0 or self._head > HEAD_BYTES:
            raise self._error("it sends too much around its answer")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  # httpcore's
        """Sends a request, or a part of one; the next head follows."""
        self.is_in_head, self._head = True, 0
        await self._stream.write(buffer, timeout)

    async def start_tls(self, *args: Any, **named: Any) -> Wire:
        """The connection with TLS, within the same bounds."""
        return Wire(await self._stream.start_tls(*args, **named), self._left, self._error)

    async def aclose(self) -> None:
        """Closes it."""
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        """What is known of it."""
        return self if info == _NAME else self._stream.get_extra_info(info)


class BoundedNetwork:
    """A network backend of httpcore or httpcore2 whose connections have bounds.

    Args:
        network: that connects.
        most_bytes: that may come over one connection.
        error: as of Wire.
    """

    def __init__(self, network: Any, most_bytes: int, error: Callable[[str], Exception]) -> None:
        self._network = network
        self._most = most_bytes
        self._error = error

    async def connect_tcp(self, *args: Any, **named: Any) -> Any:
        """A connection."""
        return Wire(await self._network.connect_tcp(*args, **named), self._most, self._error)

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await self._network.sleep(seconds)
