"""A client's own server, which receives the webhooks of ended jobs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Receiver:
    """Answers with these codes one after the other, the last again and again; 0 is no answer at all."""

    codes: list[int] = field(default_factory=lambda: [200])
    bodies: list[Any] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    url: str = ""

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(
            int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length")
        )
        self.heads.append(head)
        self.bodies.append(json.loads(await reader.readexactly(length)))
        code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
        if code:
            location = f"Location: {self.url}\r\n" if code in (302, 307) else ""
            writer.write(f"HTTP/1.1 {code} X\r\n{location}Content-Length: 0\r\n\r\n".encode())
            await writer.drain()
        else:
            await reader.read()
        writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Receiver]:
        server = await asyncio.start_server(self._handle, "127.0.0.1")
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?x=1"
        try:
            yield self
        finally:
            server.close()
