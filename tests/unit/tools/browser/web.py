"""A small web for tests: a server that answers each path with the bytes that the test wrote, however wrong they are."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answer = bytes | None
"""What is sent; None for no answer at all."""


def answer(body: bytes | str = b"", status: int = 200, **headers: str) -> bytes:
    """An answer of HTTP. Underscores of headers are dashes."""
    content = body.encode() if isinstance(body, str) else body
    lines = {"content_type": "text/html; charset=utf-8", "content_length": str(len(content)), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items() if value)
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + content


def redirect(location: str, status: int = 302) -> bytes:
    return answer(status=status, location=location)


def packed_bomb(size: int) -> bytes:
    return answer(gzip.compress(bytes(size)), content_encoding="gzip")


@dataclass
class Web:
    """Attributes: answers by path; heads of the requests that came."""

    answers: Mapping[str, Answer] = field(default_factory=dict)
    heads: list[str] = field(default_factory=list)
    port: int = 0

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        content = self.answers.get(head.split(" ")[1], answer("not there", 404))
        if content is None:
            await reader.read()
        else:
            writer.write(content)
        writer.close()

    @asynccontextmanager
    async def listening(self, host: str = "127.0.0.1") -> AsyncIterator[Web]:
        server = await asyncio.start_server(self._handle, host)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
