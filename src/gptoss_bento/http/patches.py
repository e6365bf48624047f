"""Whatever of uvicorn and Starlette is replaced or used though it is private."""

from __future__ import annotations

from gptoss_bento.patching import Patch, PrivateUse

_CONNECTIONS = "tests/unit/http/test_connection_limits.py::"

SERVER = Patch(
    "uvicorn:Server",
    "All workers accept from one socket, and whoever wakes up first may take most of a burst.",
    "None: BentoML's worker makes the server itself, `uvicorn.Server(config)`. Put back at once.",
    "tests/contract/test_bentoml.py::test_the_worker_makes_the_server_that_the_module_names_when_the_service_is_loaded",
)
PROTOCOL = Patch(
    "uvicorn.protocols.http.auto:AutoHTTPProtocol",
    "uvicorn bounds neither the size of a request's head, nor the time for it, nor a client that does not read.",
    "`http=` of uvicorn.Config takes a class; BentoML makes the configuration and has no setting for it.",
    _CONNECTIONS + "test_uvicorn_takes_this_protocol_where_it_may_choose",
)
OUTERMOST = Patch(
    "starlette.applications:Starlette.middleware_stack",
    "A streamed message would pass six functions of BentoML and Starlette that only wait for start or end.",
    "`add_asgi_middleware` is public, and puts a middleware inside of BentoML's own.",
    "tests/contract/test_bentoml.py::test_a_stream_is_one_trace_without_a_span_for_every_message",
)

PATCHES: tuple[Patch, ...] = (SERVER, PROTOCOL, OUTERMOST)

PRIVATE_USES: tuple[PrivateUse, ...] = (
    PrivateUse(
        "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol._start_asgi_task",
        "overridden",
        "An answer that breaks off closes its connection. The class is no documented interface as a whole.",
        _CONNECTIONS + "test_an_answer_that_breaks_off_does_not_wait_for_its_last_words_to_be_read",
    ),
    PrivateUse(
        "uvicorn:Config.loaded_app",
        "set",
        "One server has a second application, for the other workers: on a copy of its configuration.",
        "tests/unit/http/test_fair_accept.py::test_other_workers_reach_what_is_for_them_by_a_socket_of_its_own",
    ),
)
