from __future__ import annotations

import errno
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gptoss_bento.doctor.finding import Severity, exit_code
from gptoss_bento.doctor.surroundings import (
    BENTOML_FOLDERS,
    _no_port,
    check_folders,
    check_open_files,
    check_port,
    check_shared_memory,
    check_tool_server,
)
from tests.hub import Hub, serving
from tests.mcp_server import mcp_server
from tests.waiting import HANG_S

_MIB = 1024**2


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


# Port


def port_of(server: socket.socket) -> int:
    return int(server.getsockname()[1])


def test_port_that_is_taken_is_an_error_with_the_exit_code_of_the_service(listener: socket.socket) -> None:
    (finding,) = check_port(port_of(listener))

    assert finding.found == f"{port_of(listener)} is in use by another process"
    assert "--port" in finding.remedy
    assert exit_code([finding]) == 71


def test_free_port_is_fine_and_stays_free(listener: socket.socket) -> None:
    port = port_of(listener)
    listener.close()

    assert [finding.severity for finding in (*check_port(port), *check_port(port))] == [Severity.OK, Severity.OK]


def test_port_that_needs_privileges_is_named_as_such() -> None:
    finding = _no_port(80, PermissionError(errno.EACCES, "Permission denied"))

    assert finding.found == "80 cannot be bound: Permission denied"
    assert "privileges" in finding.remedy
    assert exit_code([finding]) == 71


# Open files


@pytest.mark.parametrize("soft", [65535, 1_000_000, resource.RLIM_INFINITY])
def test_open_files_limit_that_is_high_is_fine(soft: int) -> None:
    (finding,) = check_open_files(True, (soft, soft))

    assert finding.severity is Severity.OK


@pytest.mark.parametrize(("has_gpus", "severity"), [(True, Severity.WARNING), (False, Severity.NOTE)])
def test_open_files_limit_that_is_low_matters_where_many_clients_come(has_gpus: bool, severity: Severity) -> None:
    (finding,) = check_open_files(has_gpus, (1024, 524288))

    assert finding.severity is severity
    assert finding.found == "limit 1,024, and every connection takes one"
    assert "ulimit -n 65535" in finding.remedy


def test_remedy_keeps_to_the_hard_limit() -> None:
    assert "ulimit -n 4096;" in next(check_open_files(True, (1024, 4096))).remedy
    assert "ulimit -n 65535;" in next(check_open_files(True, (1024, resource.RLIM_INFINITY))).remedy
    assert "ask root" in next(check_open_files(True, (1024, 1024))).remedy


def test_open_files_limit_of_this_process_is_checked() -> None:
    assert len(list(check_open_files(False))) == 1


# Shared memory


def test_shared_memory_that_is_too_small_stops_several_gpus() -> None:
    (finding,) = check_shared_memory(2, 64 * _MIB)

    assert finding.found.endswith(" has 64 MiB free; 2 ranks need 640 and NCCL some more")
    assert "--ipc=host" in finding.remedy
    assert exit_code([finding]) == 70


@pytest.mark.parametrize(("ranks", "free"), [(1, 0), (2, 640 * _MIB), (8, 4096 * _MIB)])
def test_shared_memory_that_suffices_is_fine(ranks: int, free: int) -> None:
    assert [finding.severity for finding in check_shared_memory(ranks, free)] == [Severity.OK]


def test_shared_memory_of_this_machine_is_checked() -> None:
    assert len(list(check_shared_memory(1))) == 1


# Tool servers


def test_tool_server_that_works_is_fine_and_named_with_its_tools(tmp_path: Path) -> None:
    with mcp_server(tmp_path) as server:
        (finding,) = check_tool_server(server.address, HANG_S)

    found = f"{server.address} is python (python), for requests with code_interpreter"
    assert (finding.severity, finding.found) == (Severity.OK, found)


def test_tool_server_that_no_request_could_use_is_an_error(tmp_path: Path) -> None:
    with mcp_server(tmp_path, "weather") as server:
        (finding,) = check_tool_server(server.address, HANG_S)

    assert "its name is 'weather'; vLLM uses servers named python, browser or container alone" in finding.found
    assert exit_code([finding]) == 70


def test_tool_server_that_is_none_is_an_error() -> None:
    with serving(Hub({})) as hub:
        server = hub.url.removeprefix("http://")
        (finding,) = check_tool_server(server, HANG_S)

    assert finding.found.startswith(f"{server} listens, and is no tool server: Client error '404")
    assert exit_code([finding]) == 70


def test_tool_server_that_is_silent_is_not_waited_for(listener: socket.socket) -> None:
    (finding,) = check_tool_server(f"localhost:{port_of(listener)}", 0.1)

    assert finding.severity is Severity.WARNING
    assert finding.found.endswith("listens, and has not answered as a tool server within 0.1 s")


def test_tool_server_that_does_not_answer_is_an_error(listener: socket.socket) -> None:
    gone = port_of(listener)
    listener.close()

    (finding,) = check_tool_server(f"127.0.0.1:{gone}", 1.0)

    assert finding.found == f"127.0.0.1:{gone} cannot be reached: Connection refused"
    assert exit_code([finding]) == 70


@pytest.mark.parametrize("server", ["localhost", "localhost:", ":8001", "localhost:http", "localhost:99999"])
def test_tool_server_without_host_and_port_is_an_error(server: str) -> None:
    (finding,) = check_tool_server(server, 1.0)

    assert finding.found == f"{server!r} is not host:port"
    assert exit_code([finding]) == 78


def test_tool_server_is_not_asked_without_network() -> None:
    (finding,) = check_tool_server("no.such.host:8001", 1.0, network=False)

    assert (finding.severity, finding.found) == (Severity.NOTE, "no.such.host:8001 not asked (--offline)")


# Folders


def test_folders_of_ones_own_are_fine(tmp_path: Path) -> None:
    (finding,) = check_folders(tmp_path, {"BENTOML_HOME": str(tmp_path)}, has_job_store=False)

    assert finding.severity is Severity.OK


def test_folders_of_another_user_are_named_once_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)

    findings = list(check_folders(tmp_path / "cache", {"HOME": str(tmp_path)}, has_job_store=False))

    assert [finding.remedy.rsplit(maxsplit=1)[-1] for finding in findings] == ["BENTOML_HOME.", "GPTOSS_BENTO_CACHE."]
    assert f"uid {os.geteuid()}" in findings[0].found
    assert exit_code(findings) == 74


def test_folder_of_files_is_checked_if_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    for name in BENTOML_FOLDERS:
        (tmp_path / name).mkdir()
    variables = {"BENTOML_HOME": str(tmp_path), "FILES_DIR": str(tmp_path / "files")}

    (finding,) = check_folders(tmp_path, variables, has_job_store=True)
    assert finding.remedy.endswith("in FILES_DIR.")


def test_folders_that_need_not_be_written_are_not_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in BENTOML_FOLDERS:
        (tmp_path / name).mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)

    (finding,) = check_folders(tmp_path, {"BENTOML_HOME": str(tmp_path)}, has_job_store=True)

    assert finding.severity is Severity.OK


def test_folders_that_bentoml_makes_are_these(tmp_path: Path) -> None:
    made = {"BENTOML_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    code = "from bentoml._internal.configuration.containers import BentoMLContainer as c; c.bentoml_home.get()"

    subprocess.run([sys.executable, "-c", code], env=made, check=True)

    assert {each.name for each in tmp_path.iterdir() if each.is_dir()} == set(BENTOML_FOLDERS)
