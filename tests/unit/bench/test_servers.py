from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from gptoss_bento.bench import servers
from gptoss_bento.bench.servers import Cpu, RunningServer
from gptoss_bento.errors import BenchmarkError, EngineStartError
from tests.server import REPOSITORY
from tests.waiting import HANG_S

# Answers GET /v1/models with the status of its second argument.
SERVER = """
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2]) if self.path == "/v1/models" else 404)
        self.end_headers()

print("hello from the server", flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def command(port: int, status: int = 200, script: str = SERVER) -> list[str]:
    return [sys.executable, "-c", script, str(port), str(status)]


@pytest.fixture
def port() -> int:
    return servers.free_port()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"


def test_free_port_can_be_listened_on(port: int) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", port))

        assert 1024 < port < 65536


def test_command_of_this_service_is_the_one_of_the_readme() -> None:
    assert servers.ours(3000)[1:] == ["-m", "bentoml", "serve", ".", "--host", "127.0.0.1", "--port", "3000"]


def test_service_can_be_another_one() -> None:
    assert servers.ours(3000, "a.b:Service")[4:6] == ["a.b:Service", "--host"]


def test_bare_vllm_gets_the_planned_arguments_and_the_port() -> None:
    words = servers.bare_vllm(3000, ["--model=m", "--enforce-eager"])

    assert words[0] == sys.executable
    assert words[3:] == ["--model=m", "--enforce-eager", "--host", "127.0.0.1", "--port", "3000"]


def test_api_servers_of_vllm_are_started_as_its_command_does() -> None:
    words = servers.bare_vllm(3000, ["--model=m", "--enforce-eager"], workers=3)

    assert words[2:6] == ["gptoss_bento.bench.vllm_command", "serve", "m", "--enforce-eager"]
    assert words[6:] == ["--api-server-count=3", "--host", "127.0.0.1", "--port", "3000"]


def test_vllm_serve_gets_its_options_and_the_port() -> None:
    words = servers.vllm_serve(3000, "m", ["--load-format=dummy"])

    assert words[1:6] == ["-m", "gptoss_bento.bench.vllm_command", "serve", "m", "--load-format=dummy"]
    assert words[6:] == ["--host", "127.0.0.1", "--port", "3000"]


def test_api_servers_are_named_once() -> None:
    words = servers.bare_vllm(3000, ["--model=m", "--api-server-count=4", "--enforce-eager"], workers=4)

    assert [word for word in words if "api-server-count" in word] == ["--api-server-count=4"]


def test_cpu_time_is_split_by_the_engines_title() -> None:
    busy = "while True: pass"
    engine = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {busy!r}, 'EngineCore'])"
    process = subprocess.Popen([sys.executable, "-c", engine])
    try:
        server = RunningServer("", 0.0, psutil.Process(process.pid))
        while not (children := server.process.children()) or sum(children[0].cpu_times()[:2]) < 0.1:
            assert process.poll() is None
        found = server.cpu()
    finally:
        for each in (*psutil.Process(process.pid).children(), psutil.Process(process.pid)):
            each.kill()
        process.wait()

    assert found.engine_s >= 0.1
    assert 0 <= found.api_s < found.engine_s


def test_cpu_time_without_an_engine_is_unknown() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        with pytest.raises(BenchmarkError, match="EngineCore"):
            RunningServer("", 0.0, psutil.Process(process.pid)).cpu()
        process.kill()


def test_cpu_time_is_measured_between_two_samples() -> None:
    assert Cpu(5.0, 3.0).since(Cpu(2.0, 1.0)) == Cpu(3.0, 2.0)


def test_server_is_there_once_it_answers_and_gone_afterwards(port: int, log: Path, tmp_path: Path) -> None:
    with servers.running(command(port), port, dict(os.environ), tmp_path, log, timeout_s=HANG_S) as server:
        assert server.base_url == f"http://127.0.0.1:{port}/v1"
        assert 0 < server.ready_s < HANG_S
        assert server.process.is_running()
        memory = server.memory()
        assert 1 < memory.proportional_mib <= memory.resident_mib < 1000

    assert not server.process.is_running()
    assert log.read_text().startswith("hello from the server\n")


def test_server_gets_its_folder_and_variables(port: int, log: Path, tmp_path: Path) -> None:
    script = f"import os; print(os.getcwd(), os.environ['NAME'], flush=True)\n{SERVER}"

    with servers.running(command(port, script=script), port, {"NAME": "value"}, tmp_path, log, timeout_s=HANG_S):
        assert log.read_text().splitlines()[0] == f"{tmp_path.resolve()} value"


def test_started_server_gets_a_port_and_variables_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("INHERITED", "yes")
    script = f"import os; print(os.environ['NAME'], os.environ['INHERITED'], flush=True)\n{SERVER}"

    with servers.started(lambda port: command(port, script=script), {"NAME": "value"}) as server:
        (log,) = tmp_path.iterdir()
        assert log.read_text().splitlines()[0] == "value yes"

    assert not server.process.is_running()
    assert list(tmp_path.iterdir()) == []


def test_started_server_runs_in_the_folder_of_the_service_or_in_another(tmp_path: Path) -> None:
    script = f"import os; print(os.getcwd(), flush=True)\n{SERVER}"
    logs = tmp_path / "here.log", tmp_path / "there.log"

    with servers.started(lambda port: command(port, script=script), {}, log=logs[0]):
        pass
    with servers.started(lambda port: command(port, script=script), {}, log=logs[1], folder=tmp_path):
        pass

    folders = [Path(log.read_text().splitlines()[0]) for log in logs]
    assert folders == [REPOSITORY, tmp_path.resolve()]


def test_server_that_wants_a_key_is_shown_one() -> None:
    script = SERVER.replace("int(sys.argv[2])", "200 if self.headers['Authorization'] == 'Bearer k3y' else 401")

    with servers.started(lambda port: command(port, script=script), {}, "k3y") as server:
        assert server.process.is_running()


def test_server_is_there_when_all_its_workers_are(port: int, log: Path, tmp_path: Path) -> None:
    answer = 'int(sys.argv[2]) if self.path == "/v1/models" else 404'
    late = f'503 if self.path == "/readyz" and not time.sleep(0.1) and next(asked) < 3 else {answer}'
    script = SERVER.replace(answer, late).replace("sys\n", "itertools, sys, time\nasked = itertools.count()\n", 1)

    with servers.running(
        command(port, script=script), port, dict(os.environ), tmp_path, log, timeout_s=HANG_S
    ) as server:
        assert server.ready_s > 0.3
        assert server.command[0] == sys.executable


def test_output_of_a_server_stays_where_it_is_wanted(log: Path) -> None:
    with servers.started(command, {}, log=log) as server:
        assert server.process.is_running()

    assert log.read_text().startswith("hello from the server\n")


def test_server_that_ends_is_reported_with_its_last_lines(port: int, log: Path, tmp_path: Path) -> None:
    failing = [sys.executable, "-c", "print(*range(30), 'the cause', sep='\\n'); raise SystemExit(3)"]

    with (
        pytest.raises(EngineStartError) as caught,
        servers.running(failing, port, dict(os.environ), tmp_path, log, timeout_s=HANG_S),
    ):
        pytest.fail("it never answered")

    assert str(caught.value).endswith("    29\n    the cause")
    assert "    3\n" not in str(caught.value)


def test_output_of_a_started_server_stays_if_it_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    failing = [sys.executable, "-c", "print('why'); raise SystemExit(3)"]

    with pytest.raises(EngineStartError) as caught, servers.started(lambda _: failing, {}):
        pytest.fail("it never answered")

    (log,) = tmp_path.iterdir()
    assert str(log) in str(caught.value)
    assert log.read_text() == "why\n"


def test_server_that_ends_is_not_waited_for(port: int, log: Path, tmp_path: Path) -> None:
    failing = [sys.executable, "-c", "raise SystemExit(3)"]

    with (
        pytest.raises(EngineStartError, match=f"exit code 3.*{log}"),
        servers.running(failing, port, dict(os.environ), tmp_path, log, timeout_s=HANG_S),
    ):
        pytest.fail("it never answered")


def test_server_that_only_refuses_is_stopped_after_a_time_out(port: int, log: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(EngineStartError, match="did not answer in time"),
        servers.running(command(port, status=503), port, dict(os.environ), tmp_path, log, timeout_s=0.5),
    ):
        pytest.fail("it never answered well")

    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))  # closed again


def test_server_is_ended_when_the_block_fails(port: int, log: Path, tmp_path: Path) -> None:
    processes: list[psutil.Process] = []

    def measure() -> None:
        with servers.running(command(port), port, dict(os.environ), tmp_path, log, timeout_s=HANG_S) as server:
            processes.append(server.process)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        measure()

    assert not processes[0].is_running()


def test_children_that_outlive_their_server_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_are_left(tree: list[psutil.Process], timeout: float) -> tuple[list[psutil.Process], list[psutil.Process]]:
        assert timeout > 0
        return [], tree

    def kill(child: psutil.Process) -> None:
        killed.append(child.pid)
        child.terminate()

    killed: list[int] = []
    monkeypatch.setattr(psutil, "wait_procs", all_are_left)
    monkeypatch.setattr(psutil.Process, "kill", kill)
    script = "sleep 60 & echo $!; exec sleep 60"
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
    with process:
        assert process.stdout
        child = int(process.stdout.readline())

        servers._stop(process)

        assert process.returncode == -signal.SIGTERM
    assert killed == [child]
