"""A real server of MCP over SSE, with the tool `python`, made with the library that vLLM's client is of.

python -m tests.mcp_server NAME PORT CALLS      serves until it is killed, and writes the code of each call into a file
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gptoss_bento.bench.servers import free_port
from tests.server import REPOSITORY
from tests.waiting import wait_for

ANSWER = "42\n"
"""What the tool returns, whatever the code."""
DESCRIPTION = "Runs the code in a sandbox of the tests."
"""What the server says of itself, which becomes a part of prompts."""


@dataclass(frozen=True)
class ToolServer:
    """A running one, or one that has been ended."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def calls(self) -> str:
        """The code that it was called with."""
        return self.log.read_text() if self.log.exists() else ""

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def mcp_server(folder: Path, name: str = "python") -> Iterator[ToolServer]:
    """A server in a process of its own, until the end of the block.

    Args:
        folder: for the record of calls.
        name: what it calls itself.
    """
    port = free_port()
    log = folder / f"calls-{port}"
    command = [sys.executable, "-m", "tests.mcp_server", name, str(port), str(log)]
    server = ToolServer(subprocess.Popen(command, cwd=REPOSITORY), port, log)
    try:
        wait_for(lambda: _listens(server), lambda: f"no tool server; exit code {server.process.poll()}")
        yield server
    finally:
        server.end()


def _listens(server: ToolServer) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", server.port)):
        return True
    return False


def serve(name: str, port: int, log: Path) -> None:
    """Serves until it is killed."""
    from mcp.server import MCPServer

    server = MCPServer(name, instructions=DESCRIPTION, log_level="WARNING")

    # As in OpenAI's own server: the model knows this tool, and its prompt has the server's description alone.
    @server.tool(name="python", meta={"include_in_prompt": False}, structured_output=False)
    def run(code: str) -> str:
        with log.open("a") as calls:
            calls.write(f"{code}\n")
        return ANSWER

    server.run("sse", host="127.0.0.1", port=port)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
