"""A fake of the model hub: the part of its HTTP API that huggingface_hub uses to fetch a model, on a free port.

python -m tests.hub FOLDER TOKEN      serves the demo model as acme/tiny to clients with the token; prints its URL
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.waiting import HANG_S

MODEL = "acme/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
_SIOCOUTQ = 0x5411  # what is not acknowledged yet: tcp(7)
LARGE = (".safetensors", ".bin")  # kept in LFS there, under their SHA-256


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Hub:
    """One model with these files, and what is wrong with it.

    `cut` names files whose first transfer ends after half; `reset` those whose first one ends so with an error of the
    connection; `stuck` those whose first one stops there until the client has gone, and `is_stuck` says that one does;
    `damaged` those whose bytes are not what the hub says; `token`: the only one that may read, if any.
    """

    files: Mapping[str, bytes]
    token: str | None = None
    model: str = MODEL
    cut: set[str] = field(default_factory=set)
    reset: set[str] = field(default_factory=set)
    stuck: set[str] = field(default_factory=set)
    is_stuck: threading.Event = field(default_factory=threading.Event)
    damaged: set[str] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    def downloaded(self) -> set[str]:
        """The files whose content was asked for."""
        prefix = f"/{self.model}/resolve/{COMMIT}/"
        return {
            each.path.removeprefix(prefix) for each in self.requests if each.method == "GET" and prefix in each.path
        }

    def etag(self, name: str) -> str:
        content = self.files[name]
        if name.endswith(LARGE):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()

    def tree(self) -> list[dict[str, Any]]:
        return [self._entry(name, len(content)) for name, content in self.files.items()]

    def _entry(self, name: str, size: int) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": self.etag(name)}
        if name.endswith(LARGE):
            entry |= {"oid": "0" * 40, "lfs": {"oid": self.etag(name), "size": size, "pointerSize": 130}}
        return entry


@contextmanager
def serving(hub: Hub, port: int = 0) -> Iterator[Hub]:
    """Serves it on loopback until the end of the block."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path, model = unquote(urlsplit(self.path).path), self.hub.model
        said = self.headers.get("Authorization")
        self.hub.requests.append(Request(self.command, path, self.headers.get("Range"), said))
        if self.hub.token and said != f"Bearer {self.hub.token}":
            self._send(401, b"", {"X-Error-Code": "GatedRepo"})
        elif re.fullmatch(rf"/api/models/{model}(/revision/[^/]+)?", path):
            self._json({"id": model, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.hub.files]})
        elif path == f"/api/models/{model}/tree/{COMMIT}":
            self._json(self.hub.tree())
        elif (match := re.fullmatch(rf"/{model}/resolve/[^/]+/(.+)", path)) and match[1] in self.hub.files:
            self._file(match[1])
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _file(self, name: str) -> None:
        content = self.hub.files[name]
        if name in self.hub.damaged:
            content = bytes([content[0] ^ 1]) + content[1:]
        whole, status = len(content), 200
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{self.hub.etag(name)}"', "Accept-Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(match[1])
            content, status = content[start:], 206
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
        halves = self.command == "GET" and name in self.hub.cut | self.hub.reset | self.hub.stuck
        self._send(status, content, headers, cut=halves)
        if halves and name in self.hub.stuck:
            self.hub.stuck.discard(name)
            self.hub.is_stuck.set()
            with suppress(ConnectionResetError):
                self.connection.recv(1)  # empty once the client has gone
        elif halves and name in self.hub.reset:
            self.hub.reset.discard(name)
            self._reset()
        if halves:
            self.hub.cut.discard(name)

    def _reset(self) -> None:
        """Ends the connection with RST instead of FIN, once what was sent has been read."""
        unread = bytearray(4)
        deadline = time.monotonic() + HANG_S
        while struct.unpack("i", fcntl.ioctl(self.connection, _SIOCOUTQ, unread))[0] and time.monotonic() < deadline:
            time.sleep(0.01)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _json(self, content: object) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing on the terminal."""


def repository(folder: Path) -> dict[str, bytes]:
    """A model's folder as it would be on the hub, where GPT-OSS's weights are in two more formats."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {**files, "README.md": b"# tiny\n", "original/model.safetensors": b"again", "metal/model.bin": b"and again"}


if __name__ == "__main__":
    with serving(Hub(repository(Path(sys.argv[1])), token=sys.argv[2])) as running:
        print(running.url, flush=True)
        threading.Event().wait()
