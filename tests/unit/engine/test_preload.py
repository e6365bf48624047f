"""On a real fork server, with a small module in place of vLLM."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

import psutil
import pytest

from gptoss_bento.engine import preload
from tests.fakes import Calls

_LIMIT_S = 60  # a noisy machine's; it takes one second
_MODULE = "preloaded_in_place_of_vllm"
_SOURCE = """
import os
server, name = os.getpid(), os.environ["GPTOSS_BENTO_TEST"]
"""

Server: Any = forkserver._forkserver


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[psutil.Process]:
    """The fork server, started while GPTOSS_BENTO_TEST is `before`."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / f"{_MODULE}.py").write_text(_SOURCE)
    Server._stop()  # another test may have left one
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)  # as service.py does with src, and no variable has it
        patch.setenv("GPTOSS_BENTO_TEST", "before")
        patch.setattr(preload, "_PRELOADED", _MODULE)
        preload.begin()
    yield psutil.Process(Server._forkserver_pid)
    Server._stop()
    multiprocessing.set_forkserver_preload(["__main__"])


def started(target: Callable[..., None], *arguments: Any) -> Any:
    process = preload._Context().Process(target=target, args=arguments)
    process.start()
    return process


def ended(process: Any) -> int | None:
    process.join(_LIMIT_S)
    code: int | None = process.exitcode
    return code


# What children do


def report(connection: Connection) -> None:
    module = sys.modules.get(_MODULE)
    imported_by = module and module.server
    connection.send((imported_by, module and module.name, dict(os.environ), os.getppid()))


def leave_with(code: int) -> None:
    sys.exit(code)


def wait(connection: Connection) -> None:
    connection.send("here")
    with suppress(EOFError):
        connection.recv()


@pytest.fixture
def waiting(server: psutil.Process) -> Iterator[tuple[Any, Connection]]:  # noqa: ARG001  # it comes first
    """A child that is there, and what lets it end."""
    ours, its = multiprocessing.Pipe()
    child = started(wait, its)
    its.close()
    assert ours.poll(_LIMIT_S)
    assert ours.recv() == "here"
    with ours:
        yield child, ours


def test_child_starts_with_the_imports_of_its_server(server: psutil.Process) -> None:
    ours, its = multiprocessing.Pipe()
    child = started(report, its)

    assert ours.poll(_LIMIT_S)
    imported_by, name, _, parent = ours.recv()
    assert (imported_by, name, parent) == (server.pid, "before", server.pid)
    assert ended(child) == 0


def test_child_has_the_variables_of_its_parents_at_its_start(
    server: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.environ()["GPTOSS_BENTO_TEST"] == "before"
    monkeypatch.setenv("SET_AFTER_THE_SERVER_BEGAN", "1")
    ours, its = multiprocessing.Pipe()
    child = started(report, its)

    assert ours.poll(_LIMIT_S)
    assert ours.recv()[2] == dict(os.environ)
    assert "GPTOSS_BENTO_TEST" not in os.environ
    assert ended(child) == 0


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("code", [0, 3])
def test_exit_code_of_a_child_comes_through(code: int) -> None:
    assert ended(started(leave_with, code)) == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_signal_that_ends_a_child_comes_through(waiting: tuple[Any, Connection], number: signal.Signals) -> None:
    child, _ = waiting

    os.kill(child.pid, number)

    assert ended(child) == -number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_end_the_service_ends_neither_server_nor_child(
    server: psutil.Process, waiting: tuple[Any, Connection], number: signal.Signals
) -> None:
    """circus sends it to all children of a worker. Without the server an engine that drains would count as dead."""
    child, connection = waiting

    server.send_signal(number)

    assert ended(started(leave_with, 3)) == 3
    assert server.is_running()
    assert child.exitcode is None
    connection.send("end")
    assert ended(child) == 0


# vLLM's side


@pytest.mark.parametrize("error", [ImportError, RuntimeError("no driver")])
def test_module_that_cannot_be_imported_is_left_to_the_engine(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception] | Exception
) -> None:
    asked: list[str] = []

    def import_module(name: str) -> None:
        asked.append(name)
        if len(asked) == 2:
            raise error

    monkeypatch.setattr(importlib, "import_module", import_module)
    monkeypatch.delitem(sys.modules, preload._PRELOADED, raising=False)
    module = runpy.run_module(preload._PRELOADED)

    assert tuple(asked) == module["MODULES"]


@pytest.fixture
def starting(monkeypatch: pytest.MonkeyPatch) -> Any:
    """In place of vllm.v1.engine.utils."""
    module: Any = ModuleType("vllm.v1.engine.utils")
    module.get_mp_context = Calls(multiprocessing.get_context("spawn"))
    names = ("vllm", "vllm.v1", "vllm.v1.engine")
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["vllm.v1.engine"], "utils", module, raising=False)
    monkeypatch.setattr(sys.modules["vllm.v1"], "engine", sys.modules["vllm.v1.engine"], raising=False)
    monkeypatch.setattr(sys.modules["vllm"], "v1", sys.modules["vllm.v1"], raising=False)
    monkeypatch.setitem(sys.modules, "vllm.v1.engine.utils", module)
    return module


@pytest.mark.parametrize("outcome", [nullcontext(), pytest.raises(ValueError, match="did not start")])
def test_engine_is_forked_only_inside(starting: Any, outcome: AbstractContextManager[Any]) -> None:
    vllms_own = starting.get_mp_context
    with outcome, preload.forked():
        context = starting.get_mp_context()
        assert issubclass(context.Process, preload._Process)
        assert vllms_own.made == [()], "vLLM settles more by it than the context"
        if not isinstance(outcome, nullcontext):
            raise ValueError("did not start")

    assert starting.get_mp_context is vllms_own
