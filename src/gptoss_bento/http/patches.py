"""Whatever of uvicorn is replaced or used though it is private."""

from __future__ import annotations

from gptoss_bento.patching import Patch, PrivateUse

_CONNECTIONS = "tests/unit/http/test_connection_limits.py::"

SERVER = Patch(
    "uvicorn:Server",
    "The server must bound connections, accept in turn, and know which middleware is outside of BentoML's application.",
    "A subclass does (http/api_server.py), but BentoML's worker names the class itself. Put back after its server.",
    "tests/contract/test_bentoml.py::test_worker_serves_by_our_server",
)

PATCHES: tuple[Patch, ...] = (SERVER,)

PRIVATE_USES: tuple[PrivateUse, ...] = (
    PrivateUse(
        "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol._start_asgi_task",
        "overridden",
        "An answer that breaks off closes its connection. The class is no documented interface as a whole.",
        _CONNECTIONS + "test_answer_that_breaks_off_does_not_wait_for_its_last_bytes_to_be_read",
    ),
    PrivateUse(
        "uvicorn.protocols.http.httptools_impl:RequestResponseCycle.chunked_encoding",
        "set",
        "uvicorn sends chunks to clients of HTTP/1.0, who know none; with it `expected_content_length`.",
        _CONNECTIONS + "test_client_of_http_1_0_gets_a_stream_without_chunks",
    ),
)
